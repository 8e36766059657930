"""Every combination of settings: trained, written, read, and asked."""

from itertools import cycle, product
from pathlib import Path

import msgspec
import pytest
import torch

from model.attention import KINDS, Kind, Use
from model.bundle import Bundle, Manifest, read_bundle, write_bundle
from model.catalogue import Catalogue
from model.data import Row
from model.encoder import READINGS, Reading
from model.evaluation import evaluate
from model.evidence import Evidence, Learned
from model.exemplars import Exemplars
from model.pipeline import Recipe, train
from model.reranker import Reranker, RerankerSettings
from model.selector import Request, Selector
from model.shortlister import Shortlister, ShortlisterSettings
from model.statistics import Statistics
from model.text import TextSettings, Vocabulary
from model.training import texts_of
from model.wording import Wording
from tests.model.conftest import SMALL
from topics.events import SkillCard

USES: tuple[Use, ...] = ("log-odds", "gate")
BOTH = (True, False)
REQUESTS = [Request("get me a car", ("rides:acorn", "timers:eggo")), Request("will it rain"), Request("zeppelin")]
PUBLISHED = msgspec.structs.replace(
    SMALL,
    shortlister=msgspec.structs.replace(
        SMALL.shortlister, reading="bilstm", use="gate", reads_text=False, reads_request=False, summary=True
    ),
    training=msgspec.structs.replace(SMALL.training, jointly=True, prototypes=False),
)


def random_bundle(cards: list[SkillCard], shape: ShortlisterSettings) -> Bundle:
    """A bundle in which every weight counts, as all are drawn at random."""
    catalogue, text = Catalogue(cards), TextSettings(ngram_rows=64)
    vocabulary = Vocabulary.of(texts_of(["get me a car"], catalogue), text)
    torch.manual_seed(1)
    model = Shortlister(shape, len(vocabulary), text.ngram_rows, len(catalogue)).eval()
    reranker = Reranker(RerankerSettings(candidates=3, width=4, heads=1)).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *reranker.parameters(), model.cards, model.statistics):
            tensor.normal_(std=0.3)
    exemplars = Exemplars.of(torch.randn(60, shape.width), torch.arange(60), len(catalogue), seed=0)
    learned = Learned(Wording(torch.randn(256)), exemplars)
    return Bundle(
        manifest=Manifest(text=text, shortlister=shape, reranker=reranker.settings),
        catalogue=catalogue,
        vocabulary=vocabulary,
        shortlister=model,
        evidence=Evidence(model, catalogue, vocabulary, Statistics(), learned),
        reranker=reranker,
        statistics=Statistics(),
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_survives_its_bundle(
    kind: Kind, reading: Reading, small_cards: list[SkillCard], tmp_path: Path
) -> None:
    taught = cycle(product(BOTH, repeat=3))  # these make no difference to a bundle's shape
    asked: set[str] = set()
    for use, reads_text, reads_request, summary in product(USES, BOTH, BOTH, BOTH):
        supervised, shares, soft_targets = next(taught)
        shape = ShortlisterSettings(
            reading=reading,
            attention=kind,
            supervised=supervised,
            shares=shares,
            soft_targets=soft_targets,
            use=use,
            reads_text=reads_text,
            reads_request=reads_request,
            summary=summary,
            word_width=6,
            state_width=3,
            width=5,
        )
        bundle = random_bundle(small_cards[::3], shape)
        write_bundle(bundle, tmp_path / "bundle")
        again = read_bundle(tmp_path / "bundle")
        assert again.manifest.shortlister == shape
        decided = Selector(again).decide(REQUESTS)
        assert decided == Selector(bundle).decide(REQUESTS)
        asked.add(msgspec.json.encode([ranking.candidates for ranking in decided]).decode())
    assert len(asked) > (3 if kind in ("softmax", "sigmoid") else 1), "the settings make a difference"


@pytest.mark.parametrize(
    ("supervised", "shares", "soft_targets"),
    [*product(BOTH, repeat=3)],
    ids=lambda value: "with" if value else "no",
)
def test_links_that_are_trained_with_the_text_are_taught_in_every_published_way(
    supervised: bool, shares: bool, soft_targets: bool, small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    shape = msgspec.structs.replace(
        PUBLISHED.shortlister, supervised=supervised, shares=shares, soft_targets=soft_targets
    )
    recipe = msgspec.structs.replace(
        PUBLISHED, shortlister=shape, training=msgspec.structs.replace(PUBLISHED.training, epochs=2)
    )
    bundle = trained(small_cards, small_rows[:120], recipe)
    fed = bundle.statistics if shares else Statistics()
    features = torch.from_numpy(fed.features(bundle.catalogue.ids()))
    assert torch.equal(bundle.shortlister.statistics, features), "those of the epoch that was best"
    assert Selector(bundle).decide(REQUESTS)[0].candidates


def test_the_published_recipe_learns_that_a_link_is_evidence(
    small_cards: list[SkillCard], small_rows: list[Row], small_dev: list[Row], tmp_path: Path
) -> None:
    bundle = trained(small_cards, small_rows, PUBLISHED)
    assert bundle.statistics.decisions > 500, "its own classifications of an epoch are fed in"
    write_bundle(bundle, tmp_path / "bundle")
    selector = Selector.load(tmp_path / "bundle")
    assert selector.decide(REQUESTS) == Selector(bundle).decide(REQUESTS)
    found = evaluate(selector, small_dev)
    assert found["shortlist"]["top1"] > found["without_links"]["shortlist"]["top1"] + 0.05
    assert found["decision"]["top1"] > found["without_links"]["decision"]["top1"] + 0.05
    weights = selector.attention([Request("get me a car", ("rides:acorn", "pizza:ovenfox"))])[0]
    assert weights["rides:acorn"] > weights["pizza:ovenfox"]


def trained(cards: list[SkillCard], rows: list[Row], recipe: Recipe) -> Bundle:
    return train(cards, rows, recipe, lambda step, note: None)
