"""Replay: a stretch of utterances through one or two releases, aside from everything that serves.

Each utterance is decided again with the links that its recorded decision was made with; without one, with the
links it carries, else with the customer's current ones. It is decided among the skills of now: those of the
release, and what the `skills` topic says of them, and by the selector's own costs; how many decisions were made
among other skills or by other costs is told. Live statistics are those that the recorded decision names, as they
stand on their topic; where they are gone from it, it is decided without, which is told. What a release explored it
explores again (see `model.policy`). Where outcomes tell what was meant, the releases are measured by it. That
measure leans towards the release that decided at the time, because customers accept what they are offered: so the
share that could be judged and the share of equal decisions stand beside it.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from model.selector import Ranking, Request
from topics.errors import UsageError
from topics.events import LiveStatistics, Outcome, Utterance
from topics.settings import Settings
from workers.console import Advance
from workers.deciding import Selecting
from workers.joins import (
    Recorded,
    Verdict,
    current_links,
    read_utterances,
    recorded_decisions,
    telling_outcomes,
    verdict_of,
)
from workers.live import live_versions
from workers.releases import CURRENT, all_releases, current_release
from workers.skills import bring_up_to_date, cards_on_topic
from workers.stretch import Stretch
from workers.tally import Report, Tally

BATCH = 256  # utterances decided at once: where the networks are near their best rate


def replay(
    settings: Settings,
    selectors: Sequence[Selecting],
    stretch: Stretch,
    show: int = 20,
    advance: Advance = lambda done, note="": None,
) -> Report:
    """Sends the stretch through `selectors[0]`, and beside it through `selectors[1]` if given.

    With two, changes are told from the second (before) to the first (after), with one from what was recorded.
    The first `show` changes are kept. Malformed utterances are counted and skipped. Raises BrokerError.
    """
    known = _gather(settings, stretch)
    cards = cards_on_topic(settings)
    for selector in selectors:
        bring_up_to_date(selector, cards)
    tally = Tally(selectors, show)
    began_s = time.monotonic()
    for utterances in _batches(settings, stretch):
        rankings = zip(*(_decided(selector, utterances, known) for selector in selectors), strict=True)
        for utterance, ranked in zip(utterances, rankings, strict=True):
            recorded = known.recorded.get(utterance.utterance_id)
            tally.take(utterance, ranked, recorded, known.verdict(utterance), known.lacks(recorded))
        advance(tally.utterances)
    for selector in selectors:
        selector.follow(None)
    return tally.report(stretch, known.malformed, time.monotonic() - began_s)


def bundle_of(settings: Settings, release: str) -> Path:
    """The bundle that `release` names: a folder, the id of a published release or its beginning, or `current`.

    Raises UsageError where it names none, or more than one.
    """
    if Path(release).is_dir():
        return Path(release)
    if release == CURRENT and (serving := current_release(settings)):
        return Path(serving.bundle)
    published = all_releases(settings)
    found = [one for one in published if one.release == release] or [
        one for one in published if one.release.startswith(release)
    ]
    if len(found) == 1:
        return Path(found[0].bundle)
    listed = ", ".join(one.release for one in found or published) or "none"
    raise UsageError(
        f"{release!r} is {'more than one' if found else 'no'} release and no bundle's folder; there are: {listed}"
    )


def _batches(settings: Settings, stretch: Stretch) -> Iterator[list[Utterance]]:
    read = read_utterances(settings, stretch.start, stretch.end)
    good = (utterance for _, utterance in read if isinstance(utterance, Utterance))
    while batch := list(islice(good, BATCH)):
        yield batch


def _decided(selector: Selecting, utterances: Sequence[Utterance], known: "Known") -> list[Ranking]:
    """Each decided with the live statistics that were in force then; those of one version together."""
    together: dict[str, list[int]] = defaultdict(list)
    for place, utterance in enumerate(utterances):
        recorded = known.recorded.get(utterance.utterance_id)
        together[recorded.live if recorded else ""].append(place)
    found: dict[int, Ranking] = {}
    for version, places in together.items():
        selector.follow(known.live.get(version))
        asked = [utterances[place] for place in places]
        requests = [Request(one.text, known.linked(one), one.utterance_id) for one in asked]
        found |= zip(places, selector.decide(requests), strict=True)
    return [found[place] for place in range(len(utterances))]


@dataclass(frozen=True)
class Known:
    """What the other topics say about the utterances of a stretch."""

    malformed: int
    recorded: Mapping[str, Recorded]
    outcomes: Mapping[str, Outcome]
    links: Mapping[str, tuple[str, ...]]
    live: Mapping[str, LiveStatistics]

    def lacks(self, recorded: Recorded | None) -> bool:
        """Whether the live statistics that it was decided with are gone."""
        return recorded is not None and recorded.live != "" and recorded.live not in self.live

    def linked(self, utterance: Utterance) -> tuple[str, ...]:
        recorded = self.recorded.get(utterance.utterance_id)
        if recorded is not None:
            return recorded.linked
        return self.links.get(utterance.customer_id, ()) if utterance.linked is None else utterance.linked

    def verdict(self, utterance: Utterance) -> Verdict | None:
        outcome = self.outcomes.get(utterance.utterance_id)
        return verdict_of(outcome, self.recorded.get(utterance.utterance_id)) if outcome else None


def _gather(settings: Settings, stretch: Stretch) -> Known:
    """Reads the stretch once for its ids, then of the other topics what belongs to them."""
    customers: dict[str, str | None] = {}  # utterance id -> whose links would be needed
    malformed = 0
    for _, utterance in read_utterances(settings, stretch.start, stretch.end):
        if isinstance(utterance, Utterance):
            customers[utterance.utterance_id] = utterance.customer_id if utterance.linked is None else None
        else:
            malformed += 1
    recorded = recorded_decisions(settings, customers)
    asking = {customer for key, customer in customers.items() if customer and key not in recorded}
    return Known(
        malformed=malformed,
        recorded=recorded,
        outcomes=telling_outcomes(settings, customers),
        links=current_links(settings, asking) if asking else {},
        live=live_versions(settings) if any(one.live for one in recorded.values()) else {},
    )
