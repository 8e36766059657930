"""The experiment: every system runs, nothing is computed twice, and a run that broke off goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from model import processes
from model.cells import Store
from model.conditions import ALONE
from model.data import Row
from model.experiment import Market, cells_of, do_job, jobs_of, over, read_market
from model.linking import fit_links
from model.measuring import BINS, EXAMPLES, LISTED, Result, ask, measure
from model.pipeline import fresh, prepare, train_links, train_text
from model.shortlist import Shortlists
from model.statistics import Statistics
from model.systems import SYSTEMS, text_recipe
from tests.model.small_experiment import market_of, results_of, run, shrunk, small, small_results, write_folder
from topics.errors import BadData, WorkerError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_folder(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def market(folder: Path) -> Market:
    return market_of(folder)


def test_every_system_runs_and_says_what_there_is_to_say(tmp_path: Path) -> None:
    market, cells, results = small_results(tmp_path, ",".join(SYSTEMS))
    assert set(results) == set(SYSTEMS)
    for name, (result,) in results.items():
        assert set(result.ranks) == {"90", "70", "0", ALONE}
        for ranks in result.ranks.values():
            assert len(ranks) == len(market.conditions.texts)
            assert set(ranks) <= set(range(LISTED + 1))
        looks = SYSTEMS[name].recipe.shortlister.attention in ("softmax", "sigmoid")
        links = sum(len(row.linked or ()) for row in market.conditions.rows[70])
        assert sum(result.weights["70"].links) == links
        assert len(result.weights["70"].links) == BINS
        assert (sum(result.weights["70"].mass) > 0) == looks
        assert 0 < len(result.examples) <= EXAMPLES
        assert result.requests_per_s > 0
    texts = {cell.text for cell in cells}
    ladder = {cell.text for cell in cells if SYSTEMS[cell.system].group in ("ladder", "constants")}
    assert len(ladder) == 1, "the ladder's systems read with one text model"
    assert len(texts) > 8
    without = results["none"][0].ranks
    assert without["90"] == without["0"] == without[ALONE], "who does not look at links is not moved by them"
    assert results["bonus=0"][0].ranks == without
    assert results["softmax"][0].ranks[ALONE] != results["bilstm"][0].ranks[ALONE]


def counted(monkeypatch: pytest.MonkeyPatch, name: str, function: Callable[..., Any]) -> list[int]:
    """Notes each call that the experiment makes of one of its functions."""
    calls: list[int] = []

    def noted(*arguments: Any) -> Any:
        calls.append(1)
        return function(*arguments)

    monkeypatch.setattr(f"model.experiment.{name}", noted)
    return calls


def test_no_cell_is_computed_twice_but_a_changed_recipe_is(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = counted(monkeypatch, "train_text", train_text)
    fitted = counted(monkeypatch, "fit_links", fit_links)
    store = Store(tmp_path)
    systems = small("none,softmax,sigmoid")

    run(cells_of(market, systems, [0], quick=False), market, store)
    assert (len(trained), len(fitted)) == (1, 3), "one text model, three systems over it"
    assert not run(cells_of(market, systems, [0], quick=False), market, Store(tmp_path))
    assert (len(trained), len(fitted)) == (1, 3)

    recipe = systems[1].recipe
    slower = replace(systems[1], recipe=replace(recipe, links=replace(recipe.links, rate=0.001)))
    run(cells_of(market, [systems[0], slower], [0], quick=False), market, store)
    assert (len(trained), len(fitted)) == (1, 4), "the text model is the same, and is read from disk"

    run(cells_of(market, systems, [0, 1], quick=False), market, store)
    assert (len(trained), len(fitted)) == (2, 7), "another seed is another text model"
    run(cells_of(market, systems[:1], [0], quick=True), market, store)
    assert len(fitted) == 8


def test_equal_recipes_are_one_cell_whatever_they_are_called(market: Market, tmp_path: Path) -> None:
    one, other = small("sigmoid,sigmoid")[0], replace(small("sigmoid")[0], name="softmax")
    cells = cells_of(market, [one, other], [0], quick=False)
    assert cells[0].key == cells[1].key
    (job,) = jobs_of(cells, Store(tmp_path))
    assert len(job.cells) == 1


def test_without_the_vectors_package_all_is_what_it_is_without_vectors(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.experiment.is_installed", lambda: False)
    cells = cells_of(market, [SYSTEMS["best"], SYSTEMS["no-pretrained"]], [0], quick=True)
    assert cells[0].key == cells[1].key


def test_a_run_that_broke_off_goes_on_where_it_was(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = Store(tmp_path / "broken"), Store(tmp_path / "whole")
    cells = cells_of(market, small("none,sigmoid,supervised+both"), [0], quick=False)

    class PulledPlug(Exception):
        pass

    kept: list[str] = []

    def keep_one(key: str, result: Result) -> None:
        if kept:
            raise PulledPlug
        kept.append(key)
        Store.keep_result(store, key, result)

    with monkeypatch.context() as broken:
        broken.setattr(store, "keep_result", keep_one)
        with pytest.raises(PulledPlug):
            run(cells, market, store)
    (job,) = run(cells, market, store)
    assert len(job.cells) == 2
    run(cells, market, whole)
    for mine, theirs in zip(results_of(cells, store).items(), results_of(cells, whole).items(), strict=True):
        assert (mine[0], mine[1][0].ranks) == (theirs[0], theirs[1][0].ranks)


def test_a_cell_is_what_a_training_of_its_recipe_makes(market: Market, tmp_path: Path) -> None:
    (cell,) = cells_of(market, small("supervised+both"), [3], quick=False)
    run([cell], market, store := Store(tmp_path))
    corpus = prepare(market.cards, market.rows, cell.recipe)
    model, _ = train_text(corpus, cell.recipe, lambda step, note: None, Statistics())
    train_links(corpus, model, cell.recipe, Statistics())
    asked = ask(model, corpus, market.conditions)
    assert measure(Shortlists(model.eval()), asked, corpus.catalogue.ids()).ranks == (
        results_of([cell], store)["supervised+both"][0].ranks
    )


@pytest.mark.parametrize("name", ["best", "not-the-text", "summary"])
def test_a_system_reads_as_the_text_model_and_its_links_start_anew(name: str, market: Market) -> None:
    (cell,) = cells_of(market, small(name), [0], quick=False)
    text_only = text_recipe(cell.recipe)
    corpus = prepare(market.cards, market.rows, text_only)
    text, _ = train_text(corpus, text_only, lambda step, note: None, Statistics())
    model, new = over(text, corpus, cell.recipe).state_dict(), fresh(corpus, cell.recipe).state_dict()
    for key, tensor in model.items():
        links = key.startswith(("links.", "mix."))
        assert torch.equal(tensor, new[key] if links else text.state_dict()[key]), key


@pytest.mark.parametrize("name", ["best", "softmax", "summary", "bonus=4"])
def test_places_are_those_of_the_exact_scores(name: str, market: Market) -> None:
    (cell,) = cells_of(market, small(name), [0], quick=False)
    corpus = prepare(market.cards, market.rows, cell.recipe)
    text, _ = train_text(corpus, cell.recipe, lambda step, note: None, Statistics())
    model = over(text, corpus, cell.recipe).eval()
    asked = ask(model, corpus, market.conditions)
    found = measure(Shortlists(model), asked, corpus.catalogue.ids()).ranks["70"]
    rows = market.conditions.rows[70]
    order = np.argsort([len(row.text) for row in rows])[:40]
    for at in order.tolist():
        words = corpus.words.batch(corpus.vocabulary.encode([rows[at].text]))
        linked = torch.from_numpy(corpus.catalogue.linked_rows([rows[at].linked or ()]))
        with torch.no_grad():
            scores, _ = model(words, linked)
        skills, target = scores[0, :-1], int(asked.targets[at])
        own = scores[0, target]
        exact = int((skills > own).sum()) + 1
        assert found[at] == exact or abs(float(skills.sort(descending=True).values[found[at] - 1] - own)) < 1e-3


def test_jobs_run_side_by_side_and_find_the_same(folder: Path, market: Market, tmp_path: Path) -> None:
    alone, beside = Store(tmp_path / "alone"), Store(tmp_path / "beside")
    cells = cells_of(market, small("none,sigmoid"), [0, 1], quick=False)
    told: list[float] = []
    jobs = jobs_of(cells, beside)
    processes.run_jobs(jobs, folder, market, beside, 2, lambda done, note: told.append(done))
    assert told[-1] == pytest.approx(sum(job.size for job in jobs))
    processes.run_jobs(jobs_of(cells, alone), folder, market, alone, 1, lambda done, note: None)
    for name, results in results_of(cells, alone).items():
        assert [r.ranks for r in results] == [r.ranks for r in results_of(cells, beside)[name]]


def test_a_process_that_gives_up_is_one_sentence(market: Market, tmp_path: Path) -> None:
    jobs = jobs_of(cells_of(market, small("none"), [0, 1], quick=False), store := Store(tmp_path))
    with pytest.raises(WorkerError, match="gave up at its start: data folder"):
        processes.run_jobs(jobs, tmp_path / "nowhere", market, store, 2, lambda done, note: None)


def test_progress_never_goes_back_and_ends_at_the_jobs_size(market: Market, tmp_path: Path) -> None:
    (job,) = jobs_of(cells_of(market, small("none,bonus"), [0], quick=False), store := Store(tmp_path))
    told: list[float] = []
    do_job(job, market, store, lambda done, note: told.append(done))
    assert told == sorted(told)
    assert told[-1] == job.size


def test_a_market_whose_training_rows_say_nothing_of_links_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    path = folder / "utterances.train.jsonl"
    rows = [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(msgspec.json.encode(Row(row.text, row.skill_id)) + b"\n" for row in rows))
    with pytest.raises(BadData, match=r"no training row .* says who is linked"):
        read_market(folder)


def test_shrunk_systems_differ_where_the_real_ones_do() -> None:
    """What the tests above run stands for what the experiment runs."""
    recipes = {name: msgspec.json.encode(shrunk(system).recipe) for name, system in SYSTEMS.items()}
    merged = [name for name in recipes if name != "no-pretrained" and recipes[name] == recipes["best"]]
    assert set(merged) <= {"best", "supervised+both"}
