"""From rows to a bundle: what it learns, and that it can be repeated."""

import msgspec
import numpy as np
import pytest

from model.attention import KINDS, Kind
from model.bundle import Bundle, write_bundle
from model.catalogue import Catalogue
from model.data import Row
from model.encoder import WordBatches
from model.evaluation import evaluate
from model.examples import batches, card_rows, encode_rows, random_links
from model.pipeline import Recipe, is_held_out, prepare, steps, train
from model.selector import Request, Selector
from model.statistics import Statistics
from model.text import TextSettings, Vocabulary
from model.training import texts_of
from tests.model.conftest import SMALL
from topics.errors import BadData
from topics.events import SkillCard

ONCE = msgspec.structs.replace(SMALL.training, epochs=1)


def quick(**changes: object) -> Recipe:
    return msgspec.structs.replace(SMALL, **{"training": ONCE, **changes})


def silent(_step: int, _note: str) -> None:
    """Nobody watches."""


def test_it_finds_the_skill_far_more_often_than_chance(
    small_selector: Selector, small_dev: list[Row], small_cards: list[SkillCard]
) -> None:
    found = evaluate(small_selector, small_dev)
    assert found["rows"] == len(small_dev) > 50
    assert found["shortlist"]["top3"] > 0.5 > 4 * 3 / len(small_cards)
    assert found["decision"]["top1"] > 0.3 > 6 / len(small_cards)
    assert found["shortlist"]["top1"] > found["without_links"]["shortlist"]["top1"]


def test_equal_seeds_give_equal_bundles_and_another_seed_another(
    small_cards: list[SkillCard], small_rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def digest(seed: int) -> str:
        recipe = quick(training=msgspec.structs.replace(ONCE, seed=seed))
        return write_bundle(
            train(small_cards, small_rows[:200], recipe, silent), tmp_path_factory.mktemp("b") / "b"
        ).digest

    assert digest(1) == digest(1) != digest(2)


def test_a_row_that_is_not_sure_is_laid_beside_requests_where_one_skill_is_likely(
    small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    one, other = (card.skill_id for card in small_cards[:2])
    texts = ("play it again", "once more", "go on then")
    first, second, *_ = (text for text in texts if not is_held_out(text, SMALL.held_out))
    likely = Row(first, one, "outcome", beliefs={one: 0.6, other: 0.3})
    open_ = Row(second, one, "outcome", beliefs={one: 0.4, other: 0.3})
    corpus = prepare(small_cards, [*small_rows[:200], likely, open_], SMALL)
    assert {likely.text, open_.text} & set(corpus.kept_texts) == {likely.text}
    assert corpus.kept.targets[corpus.kept_texts.index(likely.text)] == corpus.catalogue.row(one)
    assert {likely.text, open_.text} <= set(corpus.own_texts)
    assert {likely.text, open_.text}.isdisjoint(corpus.aside_texts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attention_trains_and_answers(
    kind: Kind, small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    shape = msgspec.structs.replace(SMALL.shortlister, attention=kind)
    selector = Selector(train(small_cards, small_rows[:150], quick(shortlister=shape), silent))
    ranking = selector.decide([Request("get me a car", ("rides:acorn",))])[0]
    assert len(ranking.candidates) == 6


def test_progress_never_passes_the_announced_steps(small_cards: list[SkillCard], small_rows: list[Row]) -> None:
    seen: list[int] = []
    recipe = quick()
    train(small_cards, small_rows[:150], recipe, lambda step, note: seen.append(step))
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= steps(150, small_cards, recipe) * 1.2


def test_a_child_starts_from_its_parents_words_and_skills(
    small_bundle: Bundle, small_cards: list[SkillCard], small_rows: list[Row], small_dev: list[Row]
) -> None:
    few = quick(training=msgspec.structs.replace(ONCE, rate=1e-6, word_rate=1e-6))
    child = train(small_cards, small_rows, few, silent, parent=small_bundle)
    orphan = train(small_cards, small_rows, few, silent)
    assert child.manifest.provenance["parent"] == small_bundle.manifest.release
    known = evaluate(Selector(child), small_dev)["shortlist"]["mrr"]
    assert known > evaluate(Selector(orphan), small_dev)["shortlist"]["mrr"]


def test_what_customers_did_is_kept_in_the_bundle_and_fed_in(
    small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    counts = np.zeros(len(small_cards), dtype=np.int64)
    counts[0] = 5_000
    ids = [card.skill_id for card in small_cards]
    outcomes = Statistics().fold_classifications(ids, counts)
    bundle = train(small_cards, small_rows[:150], quick(), silent, statistics=outcomes)
    assert bundle.statistics.share_chosen(ids)[0] > 0.9
    assert bundle.shortlister.statistics[0, 0] > bundle.shortlister.statistics[1:, 0].max()


def test_nothing_to_learn_from_is_said(small_cards: list[SkillCard]) -> None:
    with pytest.raises(BadData, match="nothing to train on: 0 rows"):
        train(small_cards, [], SMALL, silent)


def test_a_row_of_an_unknown_skill_is_named(small_cards: list[SkillCard], small_rows: list[Row]) -> None:
    with pytest.raises(BadData, match="'gone:skill'"):
        train(small_cards, [*small_rows[:20], Row("hello", "gone:skill")], quick(), silent)


def test_three_rows_are_enough_to_train_on(small_cards: list[SkillCard]) -> None:
    rows = [Row("get me a car", small_cards[0].skill_id), Row("a pizza", small_cards[1].skill_id), Row("hm", None)]
    assert Selector(train(small_cards, rows, quick(), silent)).decide([Request("a car")])


def test_a_text_is_always_on_one_side_of_the_held_out_line() -> None:
    texts = [f"text {n}" for n in range(4000)]
    aside = [is_held_out(text, 0.1) for text in texts]
    assert aside == [is_held_out(text, 0.1) for text in texts]
    assert 0.08 < sum(aside) / len(aside) < 0.12


def test_batches_hold_every_row_once(small_cards: list[SkillCard], small_rows: list[Row]) -> None:
    catalogue = Catalogue(small_cards)
    vocabulary = Vocabulary.of(texts_of([row.text for row in small_rows], catalogue), TextSettings())
    examples = encode_rows(small_rows, catalogue, vocabulary)
    found = [
        batch.rows for batch in batches(examples, WordBatches(vocabulary), 64, generator=np.random.default_rng(0))
    ]
    assert sorted(np.concatenate(found).tolist()) == list(range(len(small_rows)))


def test_random_links_are_other_rows_links_and_fill_the_rows_that_do_not_say(small_cards: list[SkillCard]) -> None:
    ids = [card.skill_id for card in small_cards]
    rows = [Row(f"text {n}", ids[n], linked=(ids[n],) if n < 8 else None) for n in range(10)]
    catalogue = Catalogue(small_cards)
    vocabulary = Vocabulary.of([row.text for row in rows], TextSettings())
    examples = encode_rows(rows, catalogue, vocabulary)
    kept = random_links(examples, 0.0, np.random.default_rng(0))
    assert kept[:8].tolist() == examples.linked[:8].tolist()
    assert (kept[8:] >= 0).all()
    changed = random_links(examples, 1.0, np.random.default_rng(0))
    assert set(changed.ravel().tolist()) <= set(range(8))


def test_cards_speak_for_themselves(small_cards: list[SkillCard]) -> None:
    rows = card_rows(small_cards)
    assert {row.skill_id for row in rows} == {card.skill_id for card in small_cards}
    assert all(row.text.strip() for row in rows)
