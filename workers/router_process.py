"""Puts a router together: topics checked, release loaded, group joined, metrics served; then the loop."""

import gc
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from prometheus_client import CollectorRegistry

from model.fulfilment import Asks
from topics.errors import BrokerError
from topics.kafka import admin_client, cluster_topics, missing
from topics.registry import (
    DEAD_LETTERS,
    DECISIONS,
    LINKS,
    RELEASES,
    SHADOW_DECISIONS,
    SKILLS,
    UTTERANCES,
    topic_name,
)
from topics.settings import MAX_POLL_INTERVAL_MS, Settings
from workers.asking import opened
from workers.asking_options import AskOptions
from workers.beginning import NEW
from workers.dead_letters import Ceiling
from workers.deciding import Selecting
from workers.links import LinksTable
from workers.live import LiveFollower, LiveOptions
from workers.metrics import RouterMetrics, serve_metrics
from workers.router import Commit, Router
from workers.serving import FixedBundle, Loader, ReleaseFollower, Serving, wait_for_release
from workers.skills import SkillsFollower
from workers.source import UtteranceSource
from workers.transactions import open_sink

GARBAGE_OBJECTS = 50_000  # made between two collections: a few batches' worth, some 10 MB
log = logging.getLogger("namefree.router")

MESSAGE_MAX_BYTES = 4 * 1024 * 1024  # a dead letter with a bad value of 1 MB in it, as the topic allows


class RouterOptions(Struct, frozen=True, kw_only=True):
    """What can be chosen about a router; `namefree route --help` says what each is for."""

    group: str = "namefree-router"
    instance: str = ""  # "": a new name at each start
    group_protocol: str = "classic"
    batch: int = 1_024
    begin: str = NEW  # where the group has no offset
    bundle: Path | None = None  # None: follow the releases topic
    max_dead_share: float = 0.5
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9108
    until_idle_s: float = 0.0
    stalled_after_s: float = MAX_POLL_INTERVAL_MS / 1000
    asking: AskOptions | None = None  # None: no skill is asked
    live: LiveOptions | None = None  # None: no live statistics are followed


class Loading(Protocol):
    """Makes a selector of a bundle's folder, which asks skills where it is given whom to ask by."""

    def __call__(self, bundle: Path, asks: Asks | None = None) -> Selecting: ...


def run_router(
    settings: Settings,
    options: RouterOptions,
    load: Loading,
    stop: threading.Event,
    report: Callable[[Commit], None],
) -> None:
    """Runs a router until `stop` is set. Raises NamefreeError where it cannot start or cannot go on."""
    check_router_topics(settings)
    metrics = RouterMetrics(CollectorRegistry())
    with ExitStack() as stack:
        router: list[Router] = []  # empty until the group is joined; the probes look in here
        port = stack.enter_context(
            serve_metrics(
                metrics.registry,
                options.metrics_host,
                options.metrics_port,
                live=lambda: not router or router[0].is_live(),
                ready=lambda: bool(router) and router[0].is_ready(),
            )
        )
        log.info("metrics at http://%s:%d/metrics", options.metrics_host, port)
        skills = stack.enter_context(closing(SkillsFollower(settings, metrics, stop)))
        asks = stack.enter_context(opened(options.asking, metrics))
        loader = skills.loading(partial(load, asks=asks) if asks else load)
        serving = stack.enter_context(closing(_serving(settings, options.bundle, loader, metrics)))
        live = LiveFollower(settings, options.live, metrics) if options.live else None
        if live:
            stack.enter_context(closing(live))
        wait_for_release(serving, stop)
        if stop.is_set():
            return
        _warm_up(serving, options.batch)
        identity = transactional_id(settings, options)
        sink = open_sink(_with_large_messages(settings), identity)
        links = stack.enter_context(closing(LinksTable(settings, metrics)))
        source = stack.enter_context(
            closing(
                UtteranceSource(
                    settings,
                    group_id(settings, options),
                    options.group_protocol,
                    options.batch,
                    metrics,
                    options.begin,
                )
            )
        )
        log.info("routing as %s", identity)
        router.append(
            Router(
                source=source,
                sink=sink,
                links=links,
                skills=skills,
                serving=serving,
                metrics=metrics,
                ceiling=Ceiling(options.max_dead_share),
                decisions=topic_name(settings, DECISIONS),
                shadow_decisions=topic_name(settings, SHADOW_DECISIONS),
                dead_letters=topic_name(settings, DEAD_LETTERS),
                report=report,
                live=live,
                stalled_after_s=options.stalled_after_s,
            )
        )
        router[0].run(stop, options.until_idle_s)


def group_id(settings: Settings, options: RouterOptions) -> str:
    """The consumer group; it carries the prefix, so that marketplaces on one cluster do not meet in a group."""
    return f"{settings.prefix}{options.group}"


def transactional_id(settings: Settings, options: RouterOptions) -> str:
    """Names the router's transactions. A name that stays the same across a restart shortens the recovery after
    a kill: the new process ends the transaction that the old one left open at once, where another name has
    readers and the next owner wait for the transaction's timeout (15 s). Two at once fence each other."""
    instance = options.instance or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return f"{group_id(settings, options)}-{instance}"


def check_router_topics(settings: Settings) -> None:
    """Raises BrokerError where a topic is missing, or where requests and links would not meet."""
    there = cluster_topics(admin_client(settings), settings)
    for topic in (UTTERANCES, LINKS, SKILLS, DECISIONS, SHADOW_DECISIONS, DEAD_LETTERS, RELEASES):
        name = topic_name(settings, topic)
        if name not in there:
            raise BrokerError(missing(settings, name))
    requests, links = (there[topic_name(settings, topic)] for topic in (UTTERANCES, LINKS))
    if requests != links:
        raise BrokerError(
            f"topic {topic_name(settings, UTTERANCES)} has {requests} partitions and "
            f"{topic_name(settings, LINKS)} has {links}: a customer's requests and links must share a partition, "
            "see `namefree topics check`"
        )


def _serving(
    settings: Settings, bundle: Path | None, load: Loader, metrics: RouterMetrics
) -> FixedBundle | ReleaseFollower:
    if bundle is not None:
        return FixedBundle(bundle, _settled(load), metrics)
    return ReleaseFollower(settings, _settled(load), metrics)


def _warm_up(serving: Serving, batch: int) -> None:
    """The first release's alone: one that comes later finds the heap as large as it has to be."""
    lineup, start_s = serving.lineup(), time.monotonic()
    if lineup is not None:
        lineup.current.warm_up(batch)
        log.info("warmed up in %.1f s", time.monotonic() - start_s)


def _settled(load: Loader) -> Loader:
    """`load`, and then the garbage collector leaves alone what stays: a catalogue has 100,000 objects, and
    walking through them again and again took a sixth of the time of deciding."""

    def load_and_settle(bundle: Path) -> Selecting:
        selector = load(bundle)
        gc.unfreeze()  # what the release before has left
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS)
        return selector

    return load_and_settle


def _with_large_messages(settings: Settings) -> Settings:
    kafka = {"message.max.bytes": str(MESSAGE_MAX_BYTES), **settings.kafka}
    return Settings(bootstrap=settings.bootstrap, prefix=settings.prefix, kafka=kafka)
