"""What the second network is told: each feature of a candidate, and how it follows the catalogue."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from model.bundle import Bundle, read_bundle, write_bundle
from model.data import Row
from model.declared import NO, YES
from model.encoder import WordBatches
from model.evidence import ACCEPTANCE, asked, trust, without_links
from model.reranker import COLUMNS, LIKELY, LIST_FEATURES, OWN_FEATURES, Hypotheses
from model.selector import Request, Selector
from model.shortlist import Shortlists
from model.understanding import FULFIL_FEATURES
from topics.events import Ability, Intent, SkillCard, Slot, SlotAbility

HARP = SkillCard(
    skill_id="harps:elm",
    name="Elm Harps",
    phrases=("tune the harp for me", "is my harp out of tune"),
    intents=(Intent(name="TuneHarp", slots=(Slot(name="strings", type="number"),)),),
)
TEXTS = ["get me a car", "order a large pizza for tomorrow at nine please", "will it rain", "zeppelin", ""]
FULFIL = {name: OWN_FEATURES.index(name) for name in FULFIL_FEATURES}


@pytest.fixture
def bundle(small_folder: Path) -> Bundle:
    """The small bundle, of one's own: these tests change it."""
    return read_bundle(small_folder)


def lists(
    bundle: Bundle, texts: Sequence[str], linked: Sequence[tuple[str, ...]] = (), count: int = 6
) -> Hypotheses:
    words = WordBatches(bundle.vocabulary).batch(bundle.vocabulary.encode(texts))
    rows = torch.from_numpy(bundle.catalogue.linked_rows(linked or [()] * len(texts)))
    with torch.no_grad():
        made = Shortlists(bundle.shortlister).make(words, rows, count)
        return bundle.evidence.hypotheses(made, words, texts, rows)


def column(found: Hypotheses, name: str) -> Tensor:
    return found.own[..., OWN_FEATURES.index(name)]


def test_a_request_is_told_the_same_alone_and_in_company(small_bundle: Bundle) -> None:
    linked = [("rides:acorn",), (), ("timers:eggo", "rides:acorn"), (), ()]
    together = lists(small_bundle, TEXTS, linked)
    for at, text in enumerate(TEXTS):
        alone = lists(small_bundle, [text], linked[at : at + 1])
        assert torch.equal(together.rows[at], alone.rows[0])
        assert torch.allclose(together.own[at], alone.own[0], atol=1e-5)
        assert torch.allclose(together.lists[at], alone.lists[0], atol=1e-5)


def test_the_best_of_a_list_is_that_of_its_candidates(bundle: Bundle) -> None:
    """Of empty places nothing is said, whoever has the first row of the catalogue, or had it."""
    Selector(bundle).take([HARP], bundle.catalogue.ids())
    found = lists(bundle, ["my harp please"], count=6)
    assert set(found.rows[0].tolist()[1:]) == {-1}
    told = dict(zip(LIST_FEATURES, found.lists[0].tolist(), strict=True))
    for best, own in (
        ("best_text", "text_log_probability"),
        ("best_wording", "wording"),
        ("best_phrase", "nearest_phrase"),
        ("best_match", "word_match"),
        ("best_posterior", "posterior"),
    ):
        assert told[best] == float(column(found, own)[0, 0]), best


def test_a_skill_that_joined_has_its_phrases_and_no_wording(bundle: Bundle) -> None:
    Selector(bundle).take([HARP])
    found = lists(bundle, ["tune my harp"])
    new = found.rows[0] == bundle.catalogue.row(HARP.skill_id)
    assert new.any()
    assert not column(found, "wording")[0][new].any()
    assert float(column(found, "nearest_phrase")[0][new]) > 0.5


def test_what_a_skill_says_of_itself_shrinks_with_every_rejection_and_never_grows() -> None:
    acceptance = torch.linspace(-1, 1, 41)
    statistics = torch.zeros(41, ACCEPTANCE + 2)
    statistics[:, ACCEPTANCE] = acceptance
    told = trust(statistics)
    assert (told[acceptance >= 0] == 1.0).all()
    assert torch.allclose(told[acceptance < 0], 1 + acceptance[acceptance < 0])


@pytest.mark.parametrize(("acceptance", "share"), [(-0.75, 0.25), (0.0, 1.0), (0.9, 1.0)])
def test_a_skill_that_customers_refuse_is_believed_less(bundle: Bundle, acceptance: float, share: float) -> None:
    before = lists(bundle, TEXTS)
    row = int(before.rows[0, 0])
    bundle.shortlister.statistics[row, ACCEPTANCE] = acceptance
    after = lists(bundle, TEXTS)
    his = (before.rows == row)[..., None]
    told = before.own[..., COLUMNS["fulfilment"]]
    assert told[0, 0].any(), "it says something"
    assert torch.allclose(after.own[..., COLUMNS["fulfilment"]], torch.where(his, told * share, told), atol=1e-6)


def test_a_skill_that_says_yes_to_all_and_is_rejected_loses_weight(bundle: Bundle) -> None:
    """What it answers counts as little as what its card declares."""
    honest = lists(bundle, TEXTS[:1])
    row = int(honest.rows[0, 0])
    bundle.shortlister.statistics[row, ACCEPTANCE] = -0.9
    liar = lists(bundle, TEXTS[:1])
    answers = [(0, 0, Ability("YES"))]
    one, other = (asked(found, answers).own[0, 0, FULFIL["fulfil_yes"]] for found in (honest, liar))
    assert [float(one), float(other)] == pytest.approx([1.0, 0.1])


def test_without_links_is_what_a_customer_without_links_is_told(small_bundle: Bundle) -> None:
    """But for what compares candidates by how probable they were: whose rivals count is left as it was."""
    linked = [("rides:acorn", "pizza:ovenfox"), ("timers:eggo",), (), ("rides:acorn",), ()]
    size = len(small_bundle.catalogue)
    bare = without_links(lists(small_bundle, TEXTS, linked, size))
    alone = lists(small_bundle, TEXTS, count=size)
    order, expected = (found.rows.argsort(dim=1) for found in (bare, alone))
    for group in ("text", "links", "statistics"):
        own = bare.own[..., COLUMNS[group]]
        other = alone.own[..., COLUMNS[group]]
        assert torch.allclose(
            own.gather(1, order[..., None].expand_as(own)),
            other.gather(1, expected[..., None].expand_as(other)),
            atol=1e-4,
        ), group
    missed = LIST_FEATURES.index("missed_log_probability")  # of whole lists: nothing, up to rounding
    kept = [at for at in range(len(LIST_FEATURES)) if at != missed]
    assert torch.allclose(bare.lists[:, kept], alone.lists[:, kept], atol=1e-4)
    assert (bare.lists[:, missed].exp() < 1e-4).all()
    assert not bare.linked.any()
    assert not bare.attention.any()


def test_without_links_leaves_what_is_missed_by_a_short_list(small_bundle: Bundle) -> None:
    bare = without_links(lists(small_bundle, TEXTS, [("rides:acorn",)] + [()] * 4))
    alone = lists(small_bundle, TEXTS)
    same = (bare.rows.sort(dim=1).values == alone.rows.sort(dim=1).values).all(1)
    assert same.sum() >= 4
    assert torch.allclose(bare.lists[same], alone.lists[same], atol=1e-3)


def test_links_of_a_customer_who_has_none_change_nothing(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS)
    bare = without_links(found)
    assert torch.allclose(bare.own, found.own, atol=1e-5)
    assert torch.allclose(bare.lists, found.lists, atol=1e-3)


def test_no_answers_change_nothing(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS, [("rides:acorn",)] * 5)
    same = asked(found, [])
    assert torch.allclose(same.own, found.own, atol=1e-5)
    assert np.array_equal(same.understood.answers, found.understood.answers)


def test_what_a_skill_answers_stands_in_place_of_what_its_card_declares(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS)
    before = found.own.clone()
    for answer, code in (("NO", 0), ("MAYBE", 1), ("YES", 2)):
        said = asked(found, [(0, 1, Ability(answer)), (1, 0, Ability("NO"))])  # type: ignore[arg-type]
        told = [float(said.own[0, 1, FULFIL[f"fulfil_{one}"]]) for one in ("no", "maybe", "yes")]
        assert told == [float(one == code) for one in range(3)]
        assert said.own[0, 1, FULFIL["fulfil_explicit"]] == 1.0
        assert (said.understood.answers[0, 1], said.understood.answers[1, 0]) == (code, NO)
        assert torch.allclose(said.own[2:], found.own[2:], atol=1e-5), "lists of which nobody was asked"
    assert torch.equal(found.own, before), "what was found stays"


@pytest.mark.parametrize(
    "slot", [SlotAbility("NO", "YES"), SlotAbility("YES", "NO")], ids=["not understood", "not fulfilled"]
)
def test_a_slot_that_a_skill_refuses_makes_a_no_of_its_yes(small_bundle: Bundle, slot: SlotAbility) -> None:
    found = lists(small_bundle, TEXTS)
    fine = SlotAbility("YES", "MAYBE")
    refusing = asked(found, [(0, 0, Ability("YES", {"a": slot, "b": fine, "c": slot}))])
    assert refusing.understood.answers[0, 0] == NO
    assert refusing.own[0, 0, FULFIL["fulfil_no"]] == 1.0
    assert refusing.own[0, 0, FULFIL["values_refused"]] == 2.0
    willing = asked(found, [(0, 0, Ability("YES", {"b": fine}))])
    assert willing.understood.answers[0, 0] == YES
    assert willing.own[0, 0, FULFIL["values_refused"]] == 0.0


def test_the_lead_is_what_an_answer_is_beyond_its_likely_rivals(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS)
    answers = [(0, c, Ability("YES" if c == 2 else "NO")) for c in range(6)]
    said = asked(found, answers)
    believed = found.own[0, :, LIKELY].exp().double()
    mean = 2 * believed[2] / believed.sum()
    expected = [(2.0 if c == 2 else 0.0) - float(mean) for c in range(6)]
    believed_all = trust(found.own[0][:, COLUMNS["statistics"]])
    expected = [one * float(share) for one, share in zip(expected, believed_all, strict=True)]
    assert said.own[0, :, FULFIL["fulfil_lead"]].tolist() == pytest.approx(expected, abs=1e-5)


def test_what_others_are_told_changes_by_no_join_or_leave(bundle: Bundle, small_dev: list[Row]) -> None:
    texts = [row.text for row in small_dev[:60]]
    linked = [tuple(row.linked or ()) for row in small_dev[:60]]
    selector, size = Selector(bundle), len(bundle.catalogue)
    before = lists(bundle, texts, linked, size)
    selector.take([HARP, replace(HARP, skill_id="pizza:new", phrases=("a pizza", "a car"))])
    selector.take([replace(HARP, phrases=("rain",))])
    selector.take([], ["pizza:new"])
    after = lists(bundle, texts, linked, size + 2)
    told = [at for at, name in enumerate(OWN_FEATURES) if not _compares(name)]
    order = before.rows.argsort(dim=1)
    places = after.rows.where(after.rows >= 0, 10**6).argsort(dim=1)[:, :size]
    one, other = (
        found.own.gather(1, at[..., None].expand(-1, -1, found.own.shape[-1]))[..., told]
        for found, at in ((before, order), (after, places))
    )
    assert torch.allclose(one, other, atol=1e-5)


def _compares(name: str) -> bool:
    """Whether the feature sets a candidate beside others, and so depends on who they are."""
    beside = ("log_probability", "text_log_probability", "posterior", "attention", "lacks", *FULFIL_FEATURES)
    return name.endswith("_lead") or name in beside


def test_a_skill_that_leaves_and_comes_back_is_told_as_it_was(bundle: Bundle) -> None:
    """In another row, with all that was learned of its requests: wording, phrases, habit."""
    selector, linked = Selector(bundle), [("rides:acorn", "timers:deepwork")] * len(TEXTS)
    before, cards = lists(bundle, TEXTS, linked), bundle.catalogue.cards()
    selector.take([], [card.skill_id for card in cards])
    selector.take(cards)
    after = lists(bundle, TEXTS, linked)
    ids = bundle.catalogue.ids()
    size = len(cards)
    assert (after.rows >= size).all()
    assert [[ids[row] for row in rows] for rows in after.rows.tolist()] == [
        [cards[row].skill_id for row in rows] for rows in before.rows.tolist()
    ]
    assert column(after, "wording").any()
    assert torch.allclose(after.own, before.own, atol=1e-5)
    assert torch.allclose(after.lists, before.lists, atol=1e-4)


@cache
def later(small_folder: Path) -> Path:
    """A bundle that was written after skills had joined, left and come back: each keeps its books another way."""
    bundle = read_bundle(small_folder)
    selector, back = Selector(bundle), bundle.catalogue.card(2)
    selector.take([HARP], [back.skill_id, bundle.catalogue.ids()[5]])
    selector.take([back])
    folder = small_folder.parent / "later"
    write_bundle(bundle, folder)
    return folder


def cards_of(folder: Path) -> tuple[list[SkillCard], dict[str, list[SkillCard | None]]]:
    """The shipped cards that change, and what each may say on the way; None: it has left."""
    catalogue = read_bundle(folder).catalogue
    learned = catalogue.card(4)
    back = catalogue.card(len(catalogue) - 1)
    new = replace(HARP, skill_id="harps:oak", name="Oak", phrases=("sell me a harp",))
    said: dict[str, list[SkillCard | None]] = {
        card.skill_id: [card, replace(card, phrases=("feed the goldfish", "rain"), intents=()), None]
        for card in (learned, back, HARP, new)
    }
    return [learned, back, HARP], said


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_way_to_the_same_catalogue_gives_the_same_decisions(small_folder: Path, data: st.DataObject) -> None:
    folder = later(small_folder)
    _, said = cards_of(folder)
    turns = st.lists(st.tuples(st.sampled_from(sorted(said)), st.integers(0, 2)), max_size=8)
    wandering, direct = Selector.load(folder), Selector.load(folder)
    for skill, which in data.draw(turns):
        card = said[skill][which]
        wandering.take([card] if card else [], [] if card else [skill])
    ends = {skill: said[skill][data.draw(st.integers(0, 2))] for skill in sorted(said)}
    for selector in (wandering, direct):
        selector.take(
            [card for card in ends.values() if card], [skill for skill, card in ends.items() if not card]
        )
    texts = ("tune my harp", "feed the goldfish in the rain", *TEXTS[:4])
    requests = [Request(text, linked) for text in texts for linked in ((), ("harps:elm", "rides:acorn"))]
    assert wandering.catalogue == direct.catalogue
    assert [one.candidates for one in wandering.decide(requests)] == [
        one.candidates for one in direct.decide(requests)
    ]


def test_skills_that_change_and_change_back_decide_as_if_nothing_had_been(
    small_folder: Path, small_dev: list[Row]
) -> None:
    folder = later(small_folder)
    fresh, changed = Selector.load(folder), Selector.load(folder)
    shipped, said = cards_of(folder)
    changed.take([card for cards in said.values() if (card := cards[1])])
    changed.take(shipped, ["harps:oak"])
    assert changed.catalogue == ""
    requests = [Request(row.text, row.linked or ()) for row in small_dev]
    assert changed.decide(requests) == fresh.decide(requests)
