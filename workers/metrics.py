"""Every metric's name, in this one file. A metrics object takes its registry, so that two workers never collide.

Base units in the suffix, `_total` on counters, label values created up front where they are known. A customer,
a text or a skill is never a label.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from socketserver import ThreadingMixIn
from threading import Thread
from time import perf_counter, time
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from topics.errors import WorkerError
from topics.events import Action

STAGES = ("decode", "decide", "produce", "commit", "reload", "restore")
DEAD_REASONS = (
    "null_value",
    "empty_value",
    "too_large",
    "not_json",
    "not_an_object",
    "duplicate_key",
    "too_deep",
    "unknown_schema",
    "invalid",
    "wrong_key",
    "undecidable",
    "unknown_utterance",
    "other",  # a reason that this list does not know yet, so that the label stays bounded
)
STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
END_TO_END_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ASK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.055, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)
ASKED = ("answered", "cached", "late", "broken", "refused", "open", "failed")
TRIALS = ("canary", "shadow")
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class RouterMetrics:
    """What the router tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.consumed = _consumed(registry, ("utterances", "links", "skills", "releases", "statistics"))
        self.dead_letters = _dead_letters(registry, ("utterances",))
        self.statistics_age_s = _statistics_age(registry)
        self.stage_s = Histogram(
            "namefree_stage_seconds",
            "Time a batch spends in one stage of the router.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.end_to_end_s = Histogram(
            "namefree_end_to_end_seconds",
            "From an utterance's event time to its committed decision.",
            buckets=END_TO_END_BUCKETS_S,
            registry=registry,
        )
        self.batch_size = Histogram(
            "namefree_batch_size", "Utterances a transaction.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.transactions = Counter(
            "namefree_transactions_total", "Kafka transactions by outcome.", ["outcome"], registry=registry
        )
        self.rebalances = Counter(
            "namefree_rebalances_total", "Changes of the assigned partitions.", ["type"], registry=registry
        )
        self.lag = Gauge(
            "namefree_consumer_lag",
            "Messages of an assigned partition that are not decided yet.",
            ["topic", "partition"],
            registry=registry,
        )
        self.decisions = Counter(
            "namefree_decisions_total", "Committed decisions by action.", ["action"], registry=registry
        )
        self.release_info = Gauge(
            "namefree_release_info", "1 for the release that serves.", ["release"], registry=registry
        )
        self.release_loaded = Gauge(
            "namefree_release_loaded", "1 once a release serves, 0 while none does.", registry=registry
        )
        self.release_failures = Counter(
            "namefree_release_failures_total",
            "Releases that could not be taken; the one before goes on serving.",
            registry=registry,
        )
        self.trial_info = Gauge(
            "namefree_trial_info",
            "1 for a release on trial that is loaded: as canary, or as shadow.",
            ["role", "release"],
            registry=registry,
        )
        self.trial_decisions = Counter(
            "namefree_trial_decisions_total",
            "Committed decisions of releases on trial: a canary's are among all decisions, a shadow's are not.",
            ["role"],
            registry=registry,
        )
        self.trial_failures = Counter(
            "namefree_trial_failures_total",
            "Batches that a release on trial could not decide; the one that serves has decided them.",
            ["role"],
            registry=registry,
        )
        self.live_info = Gauge(
            "namefree_live_statistics_info",
            "1 for the version of the live statistics that decisions follow; none where they follow none.",
            ["version"],
            registry=registry,
        )
        self.live_held_back = Gauge(
            "namefree_live_held_back", "Skills that live statistics hold back.", registry=registry
        )
        self.live_age_s = Gauge(
            "namefree_live_fold_age_seconds",
            "Age of the newest fold that the live statistics were made from; NaN before the first.",
            registry=registry,
        )
        self.live_age_s.set(nan)
        self.bad_folds = Counter(
            "namefree_bad_folds_total",
            "Folds on the statistics topic that the live statistics passed over.",
            registry=registry,
        )
        self.live_failures = Counter(
            "namefree_live_failures_total",
            "Live statistics that could not be published; the ones before stay in force.",
            registry=registry,
        )
        self.links_customers = Gauge(
            "namefree_links_customers", "Customers whose links are held.", registry=registry
        )
        self.bad_links = Counter(
            "namefree_bad_links_total", "Malformed links events that were passed over.", registry=registry
        )
        self.skills = Gauge("namefree_skills", "Skills that are chosen among.", registry=registry)
        self.onboarding_s = Histogram(
            "namefree_onboarding_seconds",
            "Time in which cards that arrived together joined, changed or left the catalogue.",
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.bad_cards = Counter(
            "namefree_bad_cards_total",
            "Cards on the skills topic that were passed over; the one before stays in force.",
            registry=registry,
        )
        self.asked = Counter(
            "namefree_asked_total",
            "Questions whether a skill can fulfil an intent, by what became of them: answered, cached (asked "
            "before), late, broken (no answer that can be read), refused (the endpoint must not be asked), open "
            "(the skill is left alone after faults), failed (on our side).",
            ["result"],
            registry=registry,
        )
        self.ask_s = Histogram(
            "namefree_ask_seconds",
            "Time that deciding waited for skills' answers, by questions asked together.",
            buckets=ASK_BUCKETS_S,
            registry=registry,
        )
        self.ask_breakers_open = Gauge(
            "namefree_ask_breakers_open", "Skills that are left alone after faults in a row.", registry=registry
        )
        _create(self.asked, ASKED)
        _create(self.stage_s, STAGES)
        _create(self.transactions, ("committed", "aborted"))
        _create(self.rebalances, ("assigned", "revoked", "lost"))
        _create(self.decisions, tuple(Action))
        _create(self.trial_decisions, TRIALS)
        _create(self.trial_failures, TRIALS)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the body as stage `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.stage_s.labels(name).observe(perf_counter() - start)

    def told(self) -> dict[str, int]:
        """How many questions have come to what; results without any are left out."""
        found = {
            result: self.registry.get_sample_value("namefree_asked_total", {"result": result}) for result in ASKED
        }
        return {result: int(count) for result, count in found.items() if count}

    def serving(self, release: str) -> None:
        """Shows `release` as the only one that serves."""
        self.release_info.clear()
        self.release_info.labels(release).set(1)
        self.release_loaded.set(1)

    def on_trial(self, releases: Mapping[str, str]) -> None:
        """Shows the releases on trial, by role."""
        self.trial_info.clear()
        for role, release in releases.items():
            self.trial_info.labels(role, release).set(1)

    def following(self, version: str, held_back: int) -> None:
        """Shows the live statistics that decisions follow, and how many skills they hold back."""
        self.live_info.clear()
        self.live_info.labels(version).set(1)
        self.live_held_back.set(held_back)

    def newest_fold(self, written_s: float) -> None:
        """Ages the newest fold from when it was written, epoch seconds."""
        self.live_age_s.set_function(lambda: time() - written_s)

    def statistics_since(self, published_s: float | None) -> None:
        """Ages the statistics from when their release was published (epoch seconds): they are no younger.

        None where the release has none: their age is NaN.
        """
        self.statistics_age_s.set_function(lambda: nan if published_s is None else time() - published_s)


class AggregatorMetrics:
    """What the aggregator tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.consumed = _consumed(registry, ("decisions", "outcomes"))
        self.dead_letters = _dead_letters(registry, ("decisions", "outcomes"))
        self.statistics_age_s = _statistics_age(registry)
        self.folds = Counter(
            "namefree_folds_total", "Events folded into the statistics.", ["kind"], registry=registry
        )
        self.fold_writes = Counter(
            "namefree_fold_writes_total", "Folds written to the statistics topic.", registry=registry
        )
        self.fold_write_s = Histogram(
            "namefree_fold_write_seconds",
            "Time to write one fold.",
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.pending_decisions = Gauge(
            "namefree_pending_decisions", "Decisions whose outcome is awaited.", registry=registry
        )
        _create(self.folds, ("decision", "outcome", "duplicate"))


def _consumed(registry: CollectorRegistry, topics: Sequence[str]) -> Counter:
    counter = Counter("namefree_messages_consumed_total", "Messages taken in.", ["topic"], registry=registry)
    _create(counter, topics)
    return counter


def _dead_letters(registry: CollectorRegistry, topics: Sequence[str]) -> Counter:
    counter = Counter(
        "namefree_dead_letters_total",
        "Events that could not be taken, by source topic and reason.",
        ["topic", "reason"],
        registry=registry,
    )
    for topic in topics:
        for reason in DEAD_REASONS:
            counter.labels(topic, reason)
    return counter


def _statistics_age(registry: CollectorRegistry) -> Gauge:
    """NaN until somebody sets it: an age that is not known must not look like a young one."""
    gauge = Gauge("namefree_statistics_age_seconds", "Age of the statistics in use.", registry=registry)
    gauge.set(nan)
    return gauge


def _create(metric: Counter | Histogram, values: Sequence[str]) -> None:
    for value in values:
        metric.labels(value)


def bounded_reason(reason: str) -> str:
    """`reason` as a label: itself where it is known, else `other`."""
    return reason if reason in DEAD_REASONS else "other"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True  # a restarted worker gets its port back at once


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is no news."""


def _always() -> bool:
    return True


@contextmanager
def serve_metrics(
    registry: CollectorRegistry,
    host: str,
    port: int,
    live: Callable[[], bool] = _always,
    ready: Callable[[], bool] = _always,
) -> Iterator[int]:
    """Serves `/metrics`, `/live` and `/ready` (200 or 503) while the body runs, and yields the port.

    Port 0 takes any free one. Raises WorkerError where the port is taken.
    """
    try:
        server = make_server(host, port, _pages(registry, live, ready), _Server, _Silent)
    except OSError as error:
        raise WorkerError(
            f"metrics cannot be served at {host}:{port} ({error.strerror}): choose another with --metrics-port"
        ) from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pages(registry: CollectorRegistry, live: Callable[[], bool], ready: Callable[[], bool]) -> Any:
    metrics = make_wsgi_app(registry)
    checks = {"/live": live, "/ready": ready}

    def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        check = checks.get(environ["PATH_INFO"])
        if check is None:
            return metrics(environ, start_response)
        passed = check()
        start_response("200 OK" if passed else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"yes\n" if passed else b"no\n"]

    return page
