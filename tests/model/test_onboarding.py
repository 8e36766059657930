"""Skills that join, change and leave while a bundle is in memory."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from model.bundle import Bundle, read_bundle, write_bundle
from model.data import Row
from model.encoder import WordBatches
from model.index import Index, Kind
from model.reranker import OWN_FEATURES
from model.selector import Request, Selector
from model.shortlist import BLOCK, Shortlists
from model.shortlister import POOL
from tests.model.networks import TEXTS, read, shortlister
from topics.errors import BadData
from topics.events import Ability, Intent, SkillCard

HARP = SkillCard(
    skill_id="harps:elm",
    name="Elm Harps",
    description="Tunes your harp. Says which string is out of tune.",
    invocation="elm harps",
    phrases=("tune the harp for me", "is my harp out of tune", "which string of the harp is wrong"),
)


@pytest.fixture
def bundle(small_folder: Path) -> Bundle:
    """The small bundle, of one's own: these tests change it."""
    return read_bundle(small_folder)


def requests_of(rows: Sequence[Row]) -> list[Request]:
    return [Request(row.text, row.linked or ()) for row in rows]


def scores(bundle: Bundle, making: Shortlists, requests: Sequence[Request], rows: int) -> Tensor:
    """With what links add, by row, (requests, rows)."""
    words = WordBatches(bundle.vocabulary).batch(bundle.vocabulary.encode([one.text for one in requests]))
    linked = torch.from_numpy(bundle.catalogue.linked_rows([one.linked for one in requests]))
    made = making.make(words, linked, len(bundle.catalogue))
    found = torch.full((len(requests), len(bundle.catalogue) + 1), float("nan"))
    return found.scatter(1, made.rows.where(made.rows >= 0, len(bundle.catalogue)), made.scores)[:, :rows]


def strangers(count: int, first: int = 0) -> list[SkillCard]:
    """Cards in words that many requests have."""
    words = ("car", "rain", "pizza", "timer", "order", "tomorrow", "get", "the")
    return [
        SkillCard(
            skill_id=f"new:{number}",
            name=f"{words[number % 8]} {words[number // 8 % 8]}",
            phrases=(f"{words[number % 7]} number {number}",),
            intents=(Intent(name=f"Do{number % 5}", description=words[number % 6]),) * (number % 3),
        )
        for number in range(first, first + count)
    ]


def test_a_skill_that_joins_is_found_by_what_it_says_at_once(bundle: Bundle) -> None:
    selector = Selector(bundle)
    request = Request("my harp sounds wrong, tune it")
    assert selector.take([HARP]) == 1
    assert selector.shortlist([request], 1) == [["harps:elm"]]
    assert selector.decide([request])[0].candidates[0].skill_id == "harps:elm"


@pytest.mark.parametrize(
    "card",
    [
        SkillCard(
            skill_id="x", name="Elm Harps", description="Tunes your harp. Says which string is out of tune."
        ),
        SkillCard(skill_id="x", name="HarpTuner"),
        SkillCard(skill_id="x", name="Elm", intents=(Intent(name="TuneHarp", description="tunes the harp"),)),
    ],
)
def test_a_skill_without_phrases_is_found_by_the_rest_of_its_card(bundle: Bundle, card: SkillCard) -> None:
    selector = Selector(bundle)
    selector.take([card])
    assert "x" in selector.shortlist([Request("tune the harp")], 3)[0]


@pytest.mark.parametrize("name", [" ", "?"])
@pytest.mark.parametrize("fine_tune", [False, True])
def test_a_card_without_a_word_joins_and_disturbs_nobody(
    bundle: Bundle, small_dev: list[Row], name: str, fine_tune: bool
) -> None:
    selector = Selector(bundle)
    before = selector.shortlist(requests_of(small_dev), 3)
    selector.take([SkillCard(skill_id="x", name=name)], fine_tune=fine_tune)
    assert bundle.shortlister.rows.isfinite().all()
    after = selector.shortlist(requests_of(small_dev), 3)
    assert sum(one == other for one, other in zip(before, after, strict=True)) > 0.9 * len(before)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_no_other_score_changes_by_a_bit(bundle: Bundle, small_dev: list[Row], fine_tune: bool) -> None:
    selector, requests, rows = Selector(bundle), requests_of(small_dev), len(bundle.catalogue)
    before = scores(bundle, selector._shortlists, requests, rows)
    assert before.isfinite().all()
    for number, card in enumerate(strangers(12)):
        selector.take([card], fine_tune=fine_tune)
        if number % 3 == 0:
            assert torch.equal(scores(bundle, selector._shortlists, requests, rows), before)
    selector.take([msgspec.structs.replace(card, name="pizza rain") for card in strangers(4)])
    selector.take([], [card.skill_id for card in strangers(6)])
    assert torch.equal(scores(bundle, selector._shortlists, requests, rows), before)


def test_no_other_score_changes_by_a_bit_when_a_thousand_join(bundle: Bundle, small_dev: list[Row]) -> None:
    """More than any table has room for beforehand, with requests that they are after."""
    selector, requests, rows = Selector(bundle), requests_of(small_dev[:40]), len(bundle.catalogue)
    before = scores(bundle, selector._shortlists, requests, rows)
    assert selector.take(strangers(BLOCK + 50)) == BLOCK + 50
    assert torch.equal(scores(bundle, selector._shortlists, requests, rows), before)
    assert selector.skills == rows + BLOCK + 50
    selector.take([], [card.skill_id for card in strangers(BLOCK // 2)])
    assert torch.equal(scores(bundle, selector._shortlists, requests, rows), before)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "pq"])
def test_no_kind_of_index_changes_another_score_by_a_bit(kind: Kind) -> None:
    """Heights about the groups and blocks that kernels work in; `pq` may lose a row, but moves none."""
    skills, words = 1_100, read(*TEXTS)
    model = shortlister(skills=skills)
    making = Shortlists(model, Index(model.keys(model.skill_vectors()), kind))
    linked = torch.tensor([[5, 100, -1], [-1, -1, -1], [1_099, 7, 60]])
    first = by_row(making, words, linked, skills)
    for joined in (1, 2, 7, 16, 974, 1_024):
        at = len(model.rows)
        with torch.no_grad():
            model.rows = torch.nn.Parameter(torch.cat([model.rows, torch.randn(joined, 10)]))
            model.cards = torch.cat([model.cards, torch.randn(joined, 8)])
            model.statistics = torch.cat([model.statistics, torch.zeros(joined, model.statistics.shape[1])])
            model.present = torch.cat([model.present, torch.ones(joined, dtype=torch.bool)])
        making.put(range(at, at + joined))
        now = by_row(making, words, linked, skills)
        assert (first.isfinite() & now.isfinite()).float().mean() > (0.9 if kind == "pq" else 0.999)
        both = first.isfinite() & now.isfinite()
        assert torch.equal(now[both], first[both])


def by_row(making: Shortlists, words: object, linked: Tensor, skills: int) -> Tensor:
    """(B, skills), NaN where the index has not found a row."""
    made = making.make(words, linked, 5_000)  # type: ignore[arg-type]
    found = torch.full((len(linked), len(making.vectors)), float("nan"))
    places = made.rows.where(made.rows >= 0, len(making.vectors) - 1)
    return found.scatter(1, places, made.scores)[:, :skills]


def test_rankings_of_requests_that_the_new_skill_is_far_from_stay_as_they_are(
    small_folder: Path, small_dev: list[Row]
) -> None:
    """Down to the last probability: where more skills are than a pool holds, and the new one is not in it."""
    selector = Selector.load(small_folder)
    selector.take(strangers(80))
    requests = requests_of(small_dev)
    before = selector.decide(requests)
    selector.take([HARP])
    listed = selector.shortlist(requests, POOL + 20)
    far = [at for at, skills in enumerate(listed) if HARP.skill_id not in skills]
    after = selector.decide(requests)
    assert len(far) > 0.1 * len(requests)
    assert [after[at] for at in far] == [before[at] for at in far]


def test_a_written_bundle_decides_as_the_one_that_changed_in_memory(
    bundle: Bundle, small_dev: list[Row], tmp_path: Path
) -> None:
    selector, requests = Selector(bundle), [*requests_of(small_dev), Request("tune my harp", ("harps:elm",))]
    gone = bundle.catalogue.ids()[3]
    selector.take([HARP, *strangers(9)], [gone])
    manifest = write_bundle(bundle, tmp_path / "changed")
    again = Selector.load(tmp_path / "changed")
    rows = len(bundle.catalogue)
    assert torch.equal(
        scores(bundle, selector._shortlists, requests, rows).nan_to_num(),
        scores(again.bundle, again._shortlists, requests, rows).nan_to_num(),
    )
    assert [one.candidates for one in again.decide(requests)] == [
        one.candidates for one in selector.decide(requests)
    ]
    assert again.bundle.catalogue.ids() == bundle.catalogue.ids()
    assert (manifest.skills, again.skills, again.catalogue) == (rows, rows - 1, "")
    again.take([HARP])  # a removed skill's row stays empty
    assert again.bundle.catalogue.row("harps:elm") == bundle.catalogue.row("harps:elm")


def test_what_is_served_depends_on_the_cards_and_not_on_the_way_there(
    small_folder: Path, small_dev: list[Row]
) -> None:
    direct, wandering = Selector.load(small_folder), Selector.load(small_folder)
    card = direct.bundle.catalogue.card(4)
    other = msgspec.structs.replace(card, description="Feeds the goldfish.", phrases=("feed the goldfish",))
    gone = direct.bundle.catalogue.ids()[7]
    back = direct.bundle.catalogue.card(8)
    new = strangers(3)
    direct.take([other, HARP, *new], [gone])

    wandering.take([msgspec.structs.replace(HARP, phrases=())], [card.skill_id])
    wandering.take([other], [back.skill_id])
    wandering.take([msgspec.structs.replace(back, name="Nonsense")])
    wandering.take([*new, HARP], [gone])
    wandering.take([back])
    assert direct.catalogue == wandering.catalogue != ""
    requests = [*requests_of(small_dev), Request("tune my harp"), Request("feed my goldfish")]
    assert wandering.shortlist(requests, 10) == direct.shortlist(requests, 10)

    for selector in (direct, wandering):
        selector.take([card, Selector.load(small_folder).bundle.catalogue.card(7)], [HARP.skill_id])
        selector.take([], [one.skill_id for one in new])
        assert selector.catalogue == ""
    assert direct.shortlist(requests, 10) == Selector.load(small_folder).shortlist(requests, 10)


def test_different_catalogues_have_different_names(bundle: Bundle) -> None:
    selector, names = Selector(bundle), {""}
    selector.take([HARP])
    names.add(selector.catalogue)
    selector.take([msgspec.structs.replace(HARP, phrases=HARP.phrases[:1])])
    names.add(selector.catalogue)
    selector.take([], [bundle.catalogue.ids()[0]])
    names.add(selector.catalogue)
    selector.take([], [HARP.skill_id])
    names.add(selector.catalogue)
    assert len(names) == 5
    assert all(len(name) == 12 for name in names - {""})


def test_the_same_card_again_and_a_skill_that_is_not_there_are_no_work(bundle: Bundle) -> None:
    selector = Selector(bundle)
    cards = [msgspec.structs.replace(card, event_time_ms=7) for card in bundle.catalogue.cards()]
    assert selector.take(cards, ["nobody"]) == 0
    assert selector.take([HARP, HARP]) == 1
    assert selector.take([msgspec.structs.replace(HARP, event_time_ms=8)], ["nobody"]) == 0


def test_a_skill_that_comes_back_takes_a_new_row_and_a_changed_one_keeps_its_own(bundle: Bundle) -> None:
    selector, catalogue = Selector(bundle), bundle.catalogue
    size = len(catalogue)
    selector.take([HARP])
    selector.take([msgspec.structs.replace(HARP, name="Elm Strings")])
    assert (catalogue.row(HARP.skill_id), catalogue.card(size).name) == (size, "Elm Strings")
    selector.take([], [HARP.skill_id])
    with pytest.raises(BadData, match="was removed"):
        catalogue.card(size)
    assert selector.shortlist([Request("tune the harp", (HARP.skill_id,))], size + 5)[0].count(HARP.skill_id) == 0
    selector.take([HARP])
    assert catalogue.row(HARP.skill_id) == size + 1


def test_a_changed_card_says_something_else_but_what_requests_taught_stays(bundle: Bundle) -> None:
    selector, model = Selector(bundle), bundle.shortlister
    card = bundle.catalogue.card(2)
    learned, bag, statistics = model.rows[2].clone(), model.cards[2].clone(), model.statistics[2].clone()
    selector.take([msgspec.structs.replace(card, description="Tunes harps. " * 5), HARP])
    assert torch.equal(model.rows[2], learned)
    assert torch.equal(model.statistics[2], statistics)
    assert not torch.allclose(model.cards[2], bag, atol=0.01)
    new = len(bundle.catalogue) - 1
    given = model.rows[new].clone()
    assert not model.statistics[new].any()
    selector.take([msgspec.structs.replace(HARP, phrases=("feed my goldfish",) * 3)])
    assert not torch.allclose(model.rows[new], given, atol=0.01)
    assert selector.shortlist([Request("feed my goldfish")], 1) == [[HARP.skill_id]]


def test_a_row_that_its_card_was_given_follows_its_card_in_a_later_bundle_too(
    bundle: Bundle, tmp_path: Path
) -> None:
    Selector(bundle).take([HARP])
    write_bundle(bundle, tmp_path / "bundle")
    later = Selector.load(tmp_path / "bundle")
    later.take([SkillCard(skill_id=HARP.skill_id, name="Goldfish", phrases=("feed my goldfish",))])
    assert later.shortlist([Request("feed my goldfish")], 1) == [[HARP.skill_id]]
    assert HARP.skill_id not in later.shortlist([Request("tune the harp")], 1)[0]


def test_a_new_row_is_as_long_as_learned_ones(bundle: Bundle) -> None:
    lengths = bundle.shortlister.rows.norm(dim=1)
    Selector(bundle).take([HARP])
    assert bundle.shortlister.rows[-1].norm().item() == pytest.approx(lengths.mean().item(), rel=1e-4)


def test_what_a_new_skill_declares_reaches_the_reranker(bundle: Bundle) -> None:
    declaring = msgspec.structs.replace(
        HARP,
        intents=(Intent(name="TuneHarp", description="tune the harp"), Intent(name="Play")),
        can_fulfill={"TuneHarp": Ability("YES"), "Play": Ability("NO")},
        reviews=20,
    )
    Selector(bundle).take([declaring])
    features = of_first(bundle, "tune the harp")
    assert features["declares_intents"] == 1
    assert features["intent_similarity"] > 0.9
    assert (features["fulfil_yes"], features["fulfil_maybe"], features["fulfil_no"]) == (1, 0, 0)
    assert features["fulfil_explicit"] == 1
    assert features["log_reviews"] == pytest.approx(3.0445, abs=1e-3)


def test_places_of_intents_that_nobody_declares_any_more_are_used_again(bundle: Bundle) -> None:
    selector = Selector(bundle)
    sizes = set()
    for number in range(20):
        intents = tuple(Intent(name=f"Do{number}{each}") for each in range(1 + number % 3))
        selector.take([msgspec.structs.replace(HARP, intents=intents)])
        sizes.add(len(bundle.evidence.readings.vectors))
    assert max(sizes) <= min(sizes) + 3


def of_first(bundle: Bundle, text: str) -> dict[str, float]:
    """The features of the first candidate."""
    words = WordBatches(bundle.vocabulary).batch(bundle.vocabulary.encode([text]))
    linked = torch.tensor([[-1]])
    with torch.no_grad():
        made = Shortlists(bundle.shortlister).make(words, linked, 3)
        found = bundle.evidence.hypotheses(made, words, [text], linked)
    assert bundle.catalogue.card(int(made.rows[0, 0])).skill_id == HARP.skill_id
    return dict(zip(OWN_FEATURES, found.own[0, 0].tolist(), strict=True))


def test_fine_tuning_changes_the_new_row_alone_and_sets_it_apart_from_what_rivals_say(small_folder: Path) -> None:
    rival = SkillCard(
        skill_id="rides:fir", name="Fir", phrases=("a ride to the harp concert", "drive me to the harp shop")
    )
    plain, tuned = (Selector.load(small_folder) for _ in range(2))
    for selector in (plain, tuned):
        selector.take([rival])
    size = len(plain.bundle.catalogue)
    plain.take([HARP])
    tuned.take([HARP], fine_tune=True)
    rows = [selector.bundle.shortlister.rows for selector in (plain, tuned)]
    assert torch.equal(rows[0][:size], rows[1][:size])
    assert margin(tuned, "drive me to the harp shop", rival) > margin(plain, "drive me to the harp shop", rival)
    assert tuned.shortlist([Request("tune the harp for me")], 1) == [[HARP.skill_id]]


def margin(selector: Selector, text: str, card: SkillCard) -> float:
    """How far the card's skill is before the harps'."""
    bundle = selector.bundle
    own, other = bundle.catalogue.row(card.skill_id), bundle.catalogue.row(HARP.skill_id)
    found = scores(bundle, selector._shortlists, [Request(text)], len(bundle.catalogue))[0]
    return float(found[own] - found[other])


def test_where_a_card_cannot_be_read_nothing_has_changed(
    bundle: Bundle, small_dev: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    selector, requests = Selector(bundle), requests_of(small_dev)
    before, ids = selector.decide(requests), bundle.catalogue.ids()

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr(type(bundle.shortlister.encoder), "bags", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            selector.take([HARP], [ids[0]])
    assert (bundle.catalogue.ids(), selector.catalogue) == (ids, "")
    assert selector.decide(requests) == before
    assert selector.take([HARP], [ids[0]]) == 2
