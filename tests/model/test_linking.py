"""What a link is worth, fitted on made-up customers of whom it is known."""

import dataclasses
import math

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.attention import Kind, Use
from model.catalogue import Catalogue
from model.encoder import WordBatches
from model.examples import Beliefs, Examples
from model.linking import LinkSettings, fit_links, seen_by
from model.shortlister import Shortlister, ShortlisterSettings
from model.statistics import Statistics
from model.text import TextSettings, Vocabulary
from tests.model.networks import ALL_USES
from topics.events import SkillCard

FAMILIES, RIVALS, ROWS = 6, 4, 1_000
SKILLS = FAMILIES * RIVALS
WORDS = ["car", "pizza", "rain", "timer", "music", "news"]
TEXT = TextSettings(ngram_rows=64)
TAUGHT = 1  # the seed of the rows that the model classifies
SETTINGS = LinkSettings(epochs=6, batch=32, rate=0.08, random_links=0.5)
FITTED = [pair for pair in ALL_USES if pair[0] != "none"]


def marketplace() -> tuple[Catalogue, WordBatches]:
    """Families of rivals whose cards say the same: the text tells the family and never the skill."""
    cards = [
        SkillCard(skill_id=f"{word}:{n}", name=word, phrases=(word,)) for word in WORDS for n in range(RIVALS)
    ]
    return Catalogue(cards), WordBatches(Vocabulary.of(WORDS, TEXT))


def shortlister(words: WordBatches, **shape: object) -> Shortlister:
    torch.manual_seed(1)
    settings = msgspec.structs.replace(ShortlisterSettings(word_width=16, state_width=4, width=16), **shape)
    model = Shortlister(settings, len(words.vocabulary), TEXT.ngram_rows, SKILLS)
    with torch.no_grad():
        _, bags = model.encoder.eval()(words.batch(words.vocabulary.encode(WORDS)))
        model.cards.copy_(bags.repeat_interleave(RIVALS, dim=0))
    return model.eval()


def rows(words: WordBatches, linked: NDArray[np.int64], targets: NDArray[np.int64]) -> Examples:
    texts = [WORDS[target // RIVALS] for target in targets]
    has_links, weights = np.ones(len(targets), dtype=np.bool_), np.ones(len(targets), dtype=np.float32)
    sure = Beliefs(targets[:, None], weights[:, None])
    return Examples(words.vocabulary.encode(texts), linked, targets, has_links, weights, sure)


def customers(words: WordBatches, seed: int, loyal: float) -> Examples:
    """Each has linked one rival of half of the families; a share `loyal` of the rows asks for a linked one."""
    random = np.random.default_rng(seed)
    families = random.permuted(np.tile(np.arange(FAMILIES), (ROWS, 1)), axis=1)[:, : FAMILIES // 2]  # (N, L)
    linked = families * RIVALS + random.integers(0, RIVALS, families.shape)
    own = linked[np.arange(ROWS), random.integers(0, FAMILIES // 2, ROWS)]
    return rows(words, linked, np.where(random.random(ROWS) < loyal, own, random.integers(0, SKILLS, ROWS)))


def worth(model: Shortlister, words: WordBatches, examples: Examples) -> float:
    """Mean of what a link to a rival of the family asked for adds to its score."""
    linked = torch.from_numpy(examples.linked)
    with torch.no_grad():
        _, found = model(words.batch(examples.encoded), linked)
    family = torch.from_numpy(examples.targets)[:, None] // RIVALS == linked // RIVALS
    return float(found.added[family].mean())


def fit(
    model: Shortlister,
    catalogue: Catalogue,
    words: WordBatches,
    held_out: Examples,
    settings: LinkSettings = SETTINGS,
    outcomes: Statistics | None = None,
) -> Statistics:
    """Fits on `held_out`, having been taught `TAUGHT`; returns the statistics that the model is left with."""
    seen = seen_by(model, words, customers(words, TAUGHT, 0.9), held_out, settings)
    return fit_links(model, catalogue, seen, settings, outcomes or Statistics())[-1]


def fitted(loyal: float, settings: LinkSettings = SETTINGS, **shape: object) -> tuple[float, float]:
    """What links are worth before and after."""
    catalogue, words = marketplace()
    model = shortlister(words, **shape)
    held_out, unseen = customers(words, 2, loyal), customers(words, 3, loyal)
    before = worth(model, words, unseen)
    fit(model, catalogue, words, held_out, settings)
    return before, worth(model, words, unseen)


def by_bayes(loyal: float, random_links: float) -> float:
    """ln of how much likelier a linked rival is than another one, when its family is asked for."""
    chance = (1 - loyal * (1 - random_links)) / 2  # linked as it happens: the family is, in half of the rows
    own, each_other = loyal * (1 - random_links) + chance / RIVALS, chance / RIVALS
    return math.log(own / each_other)


@pytest.mark.parametrize(("kind", "use"), FITTED)
def test_a_link_is_worth_what_bayes_rule_says(kind: Kind, use: Use) -> None:
    """Some weights cannot say it as well: those of `gate` are never below 0, those of softmax always add to 1."""
    within = 0.25 if (kind, use) in (("bonus", "log-odds"), ("sigmoid", "log-odds")) else 1.0
    for loyal in (0.9, 0.0):
        before, after = fitted(loyal, attention=kind, use=use)
        expected = by_bayes(loyal, SETTINGS.random_links)
        assert after == pytest.approx(expected, abs=within)
        assert abs(before - expected) > 1.5, "it was not there from the start"


def test_more_random_links_make_a_link_worth_less() -> None:
    """A link stays evidence and never becomes a command, though here every row asks for a linked skill."""
    worths = [fitted(1.0, msgspec.structs.replace(SETTINGS, random_links=share))[1] for share in (0.1, 0.8)]
    assert worths == pytest.approx([by_bayes(1.0, 0.1), by_bayes(1.0, 0.8)], abs=0.4)


def test_the_text_stands_still_while_links_are_fitted() -> None:
    catalogue, words = marketplace()
    model = shortlister(words)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, catalogue, words, customers(words, 2, 0.9))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"links.bias", "links.request.weight", "scale", "statistics"} <= changed
    assert not [
        name for name in changed if name.startswith(("encoder.", "rows", "none_row", "read_card", "cards"))
    ]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_equal_seeds_fit_equal_links(kind: Kind) -> None:
    quick = msgspec.structs.replace(SETTINGS, epochs=2)
    assert fitted(0.9, quick, attention=kind) == fitted(0.9, quick, attention=kind)
    assert fitted(0.9, quick, attention=kind) != fitted(
        0.9, msgspec.structs.replace(quick, seed=1), attention=kind
    )


def test_the_statistics_are_the_finished_models_own_classifications_and_what_customers_did() -> None:
    catalogue, words = marketplace()
    model, taught = shortlister(words), customers(words, TAUGHT, 0.9)
    asked = np.zeros(SKILLS, dtype=np.int64)
    asked[5] = 7
    outcomes = Statistics().fold_classifications(catalogue.ids(), asked)
    found = fit(model, catalogue, words, customers(words, 2, 0.9), outcomes=outcomes)
    with torch.no_grad():
        fed = model.statistics.clone()
        assert torch.equal(fed, torch.from_numpy(found.features(catalogue.ids())))
    assert found.decisions == ROWS + 7
    linked = sum(both.linked.chosen for both in found.skills.values())
    passed = sum(both.linked.passed for both in found.skills.values())
    assert linked + passed == (taught.linked >= 0).sum(), "each link was chosen or passed, once"
    assert linked > ROWS * 0.7
    assert found.skills[catalogue.ids()[5]].unlinked.chosen >= 7


def test_without_shares_no_classification_is_fed_back() -> None:
    catalogue, words = marketplace()
    model = shortlister(words, shares=False)
    fit(model, catalogue, words, customers(words, 2, 0.9))
    assert not model.statistics.any()


def test_rows_that_do_not_say_who_is_linked_leave_links_as_they_are() -> None:
    catalogue, words = marketplace()
    model, held_out = shortlister(words), customers(words, 2, 0.9)
    unsaid = dataclasses.replace(held_out, has_links=np.zeros(ROWS, dtype=np.bool_))
    before = {name: tensor.clone() for name, tensor in model.links.state_dict().items()}
    fit(model, catalogue, words, unsaid)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.links.state_dict().items())


@pytest.mark.parametrize(("kind", "use"), FITTED)
@pytest.mark.parametrize("summary", [False, True])
def test_a_batch_whose_skills_are_out_of_sight_teaches_nothing_and_breaks_nothing(
    kind: Kind, use: Use, summary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out rows whose skill is neither in the pool nor linked."""
    monkeypatch.setattr("model.linking.POOL", 4)
    catalogue, words = marketplace()
    model = shortlister(words, attention=kind, use=use, summary=summary)
    with torch.no_grad():
        model.cards[0] = -model.cards[0]  # what is asked for is the very last
    nobody = np.full((2, 1), -1)
    lost = rows(words, nobody, np.array([0, 0]))
    fit(model, catalogue, words, lost)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
