"""What Prometheus sees: names, labels that are there from the start, and the pages of the probes."""

import ast
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from topics.errors import WorkerError
from workers.metrics import DEAD_REASONS, AggregatorMetrics, RouterMetrics, bounded_reason, serve_metrics

ROOT = Path(__file__).parents[2]


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 the test's own server
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_every_metric_has_the_prefix() -> None:
    for kind in (RouterMetrics, AggregatorMetrics):
        registry = CollectorRegistry()
        kind(registry)
        assert all(metric.name.startswith("namefree_") for metric in registry.collect())


def test_series_are_there_before_the_first_event() -> None:
    registry = CollectorRegistry()
    RouterMetrics(registry)
    assert registry.get_sample_value("namefree_transactions_total", {"outcome": "aborted"}) == 0
    assert registry.get_sample_value("namefree_release_loaded") == 0
    labels = {"topic": "utterances", "reason": "not_json"}
    assert registry.get_sample_value("namefree_dead_letters_total", labels) == 0


def test_two_workers_in_one_process_do_not_collide() -> None:
    RouterMetrics(CollectorRegistry())
    RouterMetrics(CollectorRegistry())


def test_only_the_release_that_serves_is_shown() -> None:
    metrics = RouterMetrics(CollectorRegistry())
    metrics.serving("one")
    metrics.serving("two")
    assert metrics.registry.get_sample_value("namefree_release_info", {"release": "one"}) is None
    assert metrics.registry.get_sample_value("namefree_release_info", {"release": "two"}) == 1
    assert metrics.registry.get_sample_value("namefree_release_loaded") == 1


def test_every_reason_that_the_codec_gives_is_a_label() -> None:
    """Walks the calls of BadEvent in the codec: its second argument is the reason."""
    calls = [
        node for node in ast.walk(ast.parse((ROOT / "topics/codec.py").read_text())) if isinstance(node, ast.Call)
    ]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "BadEvent"]
    reasons = {str(call.args[1].value) for call in made if isinstance(call.args[1], ast.Constant)}
    assert len(reasons) > 5
    assert reasons - {"unencodable"} <= set(DEAD_REASONS)  # an event that is written, not one that is read


def test_an_unknown_reason_does_not_make_a_new_label() -> None:
    assert bounded_reason("not_json") == "not_json"
    assert bounded_reason("brand-new") == "other"


def test_metrics_and_probes_are_served_and_the_port_is_free_afterwards() -> None:
    registry = CollectorRegistry()
    RouterMetrics(registry)
    ready = [False]
    with serve_metrics(registry, "127.0.0.1", 0, ready=lambda: ready[0]) as port:
        home = f"http://127.0.0.1:{port}"
        assert (status(f"{home}/live"), status(f"{home}/ready")) == (200, 503)
        ready[0] = True
        assert status(f"{home}/ready") == 200
        with urllib.request.urlopen(f"{home}/metrics", timeout=10) as answer:  # noqa: S310 the test's own server
            assert answer.read() == generate_latest(registry)
    with serve_metrics(registry, "127.0.0.1", port) as again:
        assert again == port


def test_a_taken_port_is_said_in_one_line() -> None:
    registry = CollectorRegistry()
    with (
        serve_metrics(registry, "127.0.0.1", 0) as port,
        pytest.raises(WorkerError, match=rf"127\.0\.0\.1:{port} \(Address already in use\): choose another"),
        serve_metrics(registry, "127.0.0.1", port),
    ):
        pass


def test_an_age_that_is_not_known_is_no_young_age() -> None:
    metrics = RouterMetrics(CollectorRegistry())
    for published_s, known in ((None, False), (0.0, True), (None, False)):
        metrics.statistics_since(published_s)
        age_s = metrics.registry.get_sample_value("namefree_statistics_age_seconds")
        assert age_s is not None
        assert (age_s > 1e9) is known
        assert (age_s != age_s) is not known  # NaN differs from itself
