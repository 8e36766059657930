"""The reranker's experiment: what is measured, on which rows, and that a finished seed is not computed again."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace as but

from model import cells, reranker_experiment
from model.cells import Digests
from model.conditions import Conditions
from model.data import Row
from model.evidence import Evidence
from model.examples import Batch, batches, encode_rows
from model.experiment import Market
from model.fulfilment import Question
from model.pipeline import Corpus, gathered, prepare, train_links, train_text
from model.reranker import Reranker
from model.reranker_experiment import ALL, ASKED, BARE, VARIANTS, Plan, SeedDone, modules_of, planned, run
from model.reranker_measures import (
    NOBODY,
    SHORTLIST,
    Deciding,
    Figures,
    ask_all,
    decide,
    intruding,
    shuffling,
)
from model.reranker_summary import summary
from model.rivals import ALL_LINKED, NONE_LINKED, families, rival_rows
from model.shortlist import Shortlist, Shortlists
from model.simulated_answers import AskingEvidence, SimulatedAnswers
from model.statistics import Statistics
from tests.model.conftest import SMALL
from topics.events import Ability, Intent, SkillCard

CANNOT = Ability("NO")


def refuse(card: SkillCard, question: Question) -> Ability:
    """An answer that no card of the small market gives by itself for most questions."""
    return CANNOT


@pytest.fixture(scope="module")
def plan(small_cards: list[SkillCard], small_rows: list[Row], small_dev: list[Row]) -> Plan:
    """Two seeds over the small market, with the small networks."""
    conditions = Conditions(dict.fromkeys((90, 70, 0), small_dev), given=True)
    market = Market(small_cards, small_rows, conditions, Digests.of(small_cards, small_rows, conditions))
    return planned(market, quick=True, seeds=2, honest=refuse, recipe=SMALL)


class Trained(SimpleNamespace):
    """A shortlister over the small market, with what is known of candidates."""

    corpus: Corpus
    making: Shortlists
    evidence: Evidence


@pytest.fixture(scope="module")
def trained(small_cards: list[SkillCard], small_rows: list[Row]) -> Trained:
    corpus = prepare(small_cards, small_rows, SMALL)
    model, _ = train_text(corpus, SMALL, lambda step, note: None, Statistics())
    statistics = train_links(corpus, model.eval(), SMALL, Statistics())
    making = Shortlists(model, kind="float32")
    return Trained(corpus=corpus, making=making, evidence=gathered(corpus, making, statistics, SMALL)[1])


class Done(NamedTuple):
    """A finished experiment, and how far it said to be, step by step."""

    seeds: list[SeedDone]
    folder: Path
    steps: list[float]


@pytest.fixture(scope="module")
def done(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder, steps = tmp_path_factory.mktemp("experiment"), list[float]()
    return Done(run(plan, folder, lambda at, note: steps.append(at)), folder, steps)


def silently(at: float, note: str) -> None:
    """Reports nothing."""


def test_every_system_is_measured_in_every_condition(plan: Plan, done: Done) -> None:
    assert done.steps == sorted(done.steps)
    assert done.steps[-1] == plan.work
    assert set(plan.conditions) == {"90", "70", "0", "alone", NONE_LINKED, ALL_LINKED}
    assert len(done.seeds) == 2
    for seed in done.seeds:
        assert set(seed.ranks) == {SHORTLIST, *VARIANTS}
        for ranks in seed.ranks.values():
            assert {name: len(of) for name, of in ranks.items()} == {
                name: len(rows) for name, rows in plan.conditions.items()
            }
        assert seed.ranks["pointwise"] == seed.ranks[ALL], "equal networks are one"
        assert seed.ranks["transformer"] != seed.ranks[ALL] != seed.ranks[ASKED]
        assert seed.shuffled[ALL] == 0.0
        assert 0 < seed.reading["intent"] <= 1
    assert done.seeds[0] != done.seeds[1]


def test_a_summary_has_means_over_seeds_and_paired_differences(plan: Plan, done: Done) -> None:
    found = summary(plan, done.seeds)
    top1 = np.mean([[place == 1 for place in seed.ranks[ALL]["0"]] for seed in done.seeds])
    assert found["systems"][ALL]["measures"]["0"]["top1"]["mean"] == round(float(top1), 4)
    saved = found["can_fulfill_alone"][NONE_LINKED]["top1"]["points"]["mean"]
    means = [found["systems"][name]["measures"][NONE_LINKED]["top1"]["mean"] for name in (ALL, BARE)]
    assert saved == pytest.approx(means[0] - means[1], abs=2e-4)
    errors = [seed.figures[ALL]["70"].calibration_error for seed in done.seeds]
    assert found["systems"][ALL]["figures"]["70"]["calibration_error"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_a_market_without_families_has_no_rivals(plan: Plan, done: Done) -> None:
    cards = [but(card, intents=()) for card in plan.market.cards]
    bare = replace(plan, market=replace(plan.market, cards=cards))
    found = summary(bare, [but(seed, figures=_without_rivals(seed.figures)) for seed in done.seeds])
    assert set(found["rows"]) == {"90", "70", "0", "alone"}
    assert set(found["systems"][ALL]["measures"]) == set(found["can_fulfill_alone"]) == set(found["rows"])


def _without_rivals(figures: dict[str, dict[str, Figures]]) -> dict[str, dict[str, Figures]]:
    return {
        name: {condition: one for condition, one in of.items() if condition not in (NONE_LINKED, ALL_LINKED)}
        for name, of in figures.items()
    }


def test_a_finished_seed_is_kept_and_another_recipe_is_another(
    plan: Plan, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: object) -> None:
        raise AssertionError("what is there is computed again")

    monkeypatch.setattr(reranker_experiment, "prepare", again)
    assert run(plan, done.folder, silently) == done.seeds
    others = [but(SMALL, held_out=0.2), but(SMALL, fitting=but(SMALL.fitting, rate=1e-3))]
    for other in others:
        with pytest.raises(AssertionError, match="computed again"):
            run(replace(plan, recipe=other), done.folder, silently)


def test_a_text_model_that_is_there_gives_the_same_seed(
    plan: Plan, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: object) -> None:
        raise AssertionError("the text is trained again")

    monkeypatch.setattr(reranker_experiment, "train_text", again)
    shutil.copytree(done.folder / "texts", tmp_path / "texts")
    [first] = run(replace(plan, seeds=1), tmp_path, silently)
    assert but(first, seconds={}) == but(done.seeds[0], seconds={})
    [kept] = (tmp_path / "seeds").iterdir()
    kept.write_bytes(b"{")  # broken off: counts as absent
    monkeypatch.setattr(reranker_experiment, "prepare", again)
    with pytest.raises(AssertionError, match="trained again"):
        run(replace(plan, seeds=1), tmp_path, silently)


def test_whatever_figures_depend_on_is_in_their_name() -> None:
    needed = {"reranker", "evidence", "fitting", "understanding", "rivals", "simulated_answers", "reading_quality"}
    assert needed | {*cells.TEXT_CODE, *cells.LINK_CODE} <= set(modules_of("reranker_experiment"))


def test_families_are_named_by_id_or_by_place_and_category() -> None:
    def card(skill: str, category: str = "", intents: int = 1) -> SkillCard:
        declares = (Intent(name="Find"),) * intents
        return SkillCard(skill_id=skill, name=skill, category=category, intents=declares)

    cards = [
        *(card("sgd:Hotels_1"), card("sgd:Hotels_2"), card("sgd:Alarm_1"), card("sgd:Hotels_3", intents=0)),
        *(card("rides:acorn", "Travel"), card("rides:quince", "Travel"), card("hotels:capsule", "Travel")),
    ]
    assert families(cards) == {
        "sgd:Hotels": ("sgd:Hotels_1", "sgd:Hotels_2"),
        "rides, Travel": ("rides:acorn", "rides:quince"),
    }
    rows = [
        Row("a room", "sgd:Hotels_2", linked=("sgd:Hotels_2", "rides:acorn")),
        Row("a car", "rides:acorn"),
        Row("wake me", "sgd:Alarm_1", linked=("sgd:Alarm_1",)),
        Row("hm", None),
    ]
    found = rival_rows(rows, cards)
    assert [row.text for row in found[NONE_LINKED]] == ["a room", "a car"]
    assert [row.linked for row in found[NONE_LINKED]] == [("rides:acorn",), ()]
    assert [row.linked for row in found[ALL_LINKED]] == [
        ("rides:acorn", "sgd:Hotels_1", "sgd:Hotels_2"),
        ("rides:acorn", "rides:quince"),
    ]
    assert rival_rows(rows[2:], cards) == {}


def test_a_tenth_lies_a_tenth_is_silent_and_all_others_say_what_their_cards_say() -> None:
    cards = [SkillCard(skill_id=f"s:{at}", name="s", intents=(Intent(name="Find"),)) for at in range(600)]
    answers = SimulatedAnswers([*cards, SkillCard(skill_id="s:mute", name="s")], refuse, seed=3)
    assert 30 < len(answers.liars) < 90
    assert 30 < len(answers.silent) < 90
    assert not answers.liars & answers.silent
    asked = [Question(card.skill_id, "", "Find", (("city", "rome"),)) for card in cards]
    for question, answer in zip(asked, answers.ask(asked), strict=True):
        if question.skill_id in answers.silent:
            assert answer is None
        elif question.skill_id in answers.liars:
            assert answer is not None
            assert (answer.answer, answer.slots["city"].can_fulfill) == ("YES", "YES")
        else:
            assert answer is CANNOT
    assert SimulatedAnswers(cards, refuse, seed=3).liars == answers.liars
    assert SimulatedAnswers(cards, refuse, seed=4).liars != answers.liars
    assert (answers.askable(["s:1", "s:mute", ""]).endpoints != "").tolist() == [True, False, False]


def test_answers_take_the_place_of_what_cards_declare(trained: Trained, small_dev: list[Row]) -> None:
    ids = trained.corpus.catalogue.ids()
    answers = SimulatedAnswers(trained.corpus.catalogue.cards(), refuse, seed=0)
    asking = AskingEvidence(trained.evidence, answers, ids)
    told, heard = (
        next(hypotheses(trained, evidence, small_dev)).understood.answers
        for evidence in (trained.evidence, asking)
    )
    rows = next(hypotheses(trained, asking, small_dev)).rows.numpy()
    differing = set(rows[told != heard].tolist())
    assert differing
    assert not {ids[row] for row in differing} & answers.silent
    honest = (told != heard) & ~np.isin(rows, [ids.index(skill) for skill in answers.liars])
    assert set(heard[honest].tolist()) == {0}


def hypotheses(trained: Trained, evidence: Evidence, rows: list[Row]) -> Iterator[Any]:
    examples = encode_rows(rows, trained.corpus.catalogue, trained.corpus.vocabulary)
    for batch in batches(examples, trained.corpus.words, 512):
        made = trained.making.make(batch.words, batch.linked, 6)
        yield evidence.hypotheses(made, batch.words, [rows[at].text for at in batch.rows], batch.linked)


def test_lists_are_gathered_in_the_order_of_their_rows(trained: Trained, small_dev: list[Row]) -> None:
    whole = ask_all(trained.making, trained.evidence, trained.corpus, small_dev, 6)
    for at in (0, 7, len(small_dev) - 1):
        alone = ask_all(trained.making, trained.evidence, trained.corpus, [small_dev[at]], 6)
        assert whole.listed.rows[at].tolist() == alone.listed.rows[0].tolist()
        assert whole.targets[at] == alone.targets[0]


def test_a_shuffled_list_has_the_same_candidates_each_with_its_own_features(
    trained: Trained, small_dev: list[Row]
) -> None:
    args = (trained.making, trained.evidence, trained.corpus, small_dev, 6)
    plain, shuffled = ask_all(*args), ask_all(*args, shuffling(1))
    assert (plain.listed.rows != shuffled.listed.rows).any(1).float().mean() > 0.9
    before, after = (one.listed.rows.argsort(1) for one in (plain, shuffled))
    assert torch.equal(plain.listed.rows.gather(1, before), shuffled.listed.rows.gather(1, after))
    own = [one.listed.own.take_along_dim(at[..., None], 1) for one, at in ((plain, before), (shuffled, after))]
    torch.testing.assert_close(own[0], own[1], atol=1e-5, rtol=1e-4)
    network = Reranker(SMALL.reranker).eval()
    assert (decide(network, plain).chosen == decide(network, shuffled).chosen).all()


def test_who_intrudes_is_popular_and_neither_listed_nor_linked_nor_meant(
    trained: Trained, small_dev: list[Row]
) -> None:
    corpus, making, skills = trained.corpus, trained.making, len(trained.corpus.catalogue)
    [batch] = batches(encode_rows(small_dev, corpus.catalogue, corpus.vocabulary), corpus.words, 512)
    exact = making.make(batch.words, torch.full_like(batch.linked, -1), skills)
    short = making.make(batch.words, batch.linked, 1)  # so short that what is linked or meant is often not on it
    for seed in range(5):
        order = torch.randperm(skills, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            made = intruding(making, -order.argsort().float())(short, batch)
        for b, row in enumerate(made.rows[:, -1].tolist()):
            taken = {*short.rows[b].tolist(), *batch.linked[b].tolist(), int(batch.targets[b])}
            assert row == next(skill for skill in order.tolist() if skill not in taken)
            score = exact.text[b, exact.rows[b].tolist().index(row)]
            torch.testing.assert_close(made.text[b, -1], score)
            assert made.scores[b, -1] == made.text[b, -1]
        assert not made.linked[:, -1].any()


def test_a_change_of_lists_is_told_by_the_share_of_other_decisions(trained: Trained, small_dev: list[Row]) -> None:
    networks = {ALL: (Reranker(SMALL.reranker).eval(), False)}
    measured = Deciding(trained.corpus, trained.making, {False: trained.evidence}, networks)
    measured.take("70", small_dev)
    assert measured.shares_changed("70", small_dev, lambda: lambda made, _: made) == {SHORTLIST: 0.0, ALL: 0.0}

    def best_gone(made: Shortlist, batch: Batch) -> Shortlist:
        names = ("rows", "scores", "text", "linked", "attention")
        return replace(made, **{name: getattr(made, name)[:, 1:] for name in names})

    shares = measured.shares_changed("70", small_dev, lambda: best_gone)
    silent = decide(networks[ALL][0], ask_all(trained.making, trained.evidence, trained.corpus, small_dev, 6))
    assert shares[ALL] >= 0.5
    assert shares[ALL] <= 1 - (silent.chosen == NOBODY).mean()
    assert list(measured.ranks) == [SHORTLIST, ALL]


def test_where_all_skills_are_listed_nobody_intrudes(trained: Trained, small_dev: list[Row]) -> None:
    skills = len(trained.corpus.catalogue)
    change = intruding(trained.making, torch.zeros(skills))
    found = ask_all(trained.making, trained.evidence, trained.corpus, small_dev[:5], skills, change)
    assert (found.listed.rows[:, -1] == -1).all()
