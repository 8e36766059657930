"""Promotions on a real broker, with a router and customers who keep asking."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from random import Random

import pytest

from tests.workers.doubles import WRONG
from tests.workers.marketplace import Marketplace
from topics.codec import encode
from topics.errors import UsageError, WorkerError
from topics.events import Action, Decision, Outcome, OutcomeKind, Release, Utterance
from topics.registry import DECISIONS, OUTCOMES, SHADOW_DECISIONS, UTTERANCES, topic_name
from workers import trial
from workers.customers import Ears
from workers.friction import Comparison, Feedback
from workers.joins import DecisionHead
from workers.promotion import PromotionOptions, promote
from workers.promotion_bounds import Bounds, shadow_refusal
from workers.releases import CANARY, SHADOW, all_releases, serve, serving_now, withdraw
from workers.sender import Sender
from workers.sequential import Tally

MEANT = "rides:a"
CUSTOMERS = 2_000
IN_FLIGHT = 200  # asked and not decided: few, so that a canary that is over is over a moment later
NO_SHADOW = PromotionOptions(shadow_decisions=0)


class Customers(threading.Thread):
    """Keep asking until they are told to stop; all mean MEANT, which they have linked, and accept nothing else."""

    def __init__(self, market: Marketplace) -> None:
        super().__init__(daemon=True)
        self.settings = market.settings
        self.over = threading.Event()
        self.heard: list[DecisionHead] = []
        self.asked = 0

    def run(self) -> None:
        sender, random = Sender(self.settings), Random(7)
        with closing(Ears(self.settings)) as ears:
            while not self.over.is_set():
                while self.asked - len(self.heard) < IN_FLIGHT:
                    self._ask(sender, f"c-{random.randrange(CUSTOMERS)}")
                for head in ears.hear(0.02):
                    self._answer(sender, head)
        sender.flush()

    def _ask(self, sender: Sender, customer: str) -> None:
        utterance = Utterance(
            event_time_ms=int(time.time() * 1000),
            utterance_id=f"u-{self.asked}",
            customer_id=customer,
            text="get me a car",
            linked=(MEANT,),
        )
        self.asked += 1
        sender.send(topic_name(self.settings, UTTERANCES), customer, encode(utterance))

    def _answer(self, sender: Sender, head: DecisionHead) -> None:
        self.heard.append(head)
        kind = OutcomeKind.ACCEPTED if head.skill_id == MEANT else OutcomeKind.REJECTED
        outcome = Outcome(
            event_time_ms=head.event_time_ms,
            utterance_id=head.utterance_id,
            customer_id=head.customer_id,
            outcome=kind,
        )
        sender.send(topic_name(self.settings, OUTCOMES), head.customer_id, encode(outcome))


@contextmanager
def asking(market: Marketplace) -> Iterator[Customers]:
    """A router, and customers whose requests it decides."""
    router = market.thread(batch=IN_FLIGHT)
    customers = Customers(market)
    customers.start()
    try:
        market.until(lambda: customers.heard or router.is_over(), "the first request is decided")
        yield customers
    finally:
        customers.over.set()
        customers.join()


def goes_on(market: Marketplace, customers: Customers, count: int = 1_000) -> list[DecisionHead]:
    """The next decisions, after what was under way."""
    start = len(customers.heard) + IN_FLIGHT
    market.until(lambda: len(customers.heard) >= start + count, f"{count} decisions more")
    return customers.heard[start:]


def settles_on(market: Marketplace, customers: Customers, release: Release, count: int = 1_000) -> None:
    """Waits until the last decisions are all of one release: a router hears from a topic that a trial is over."""
    goes_on(market, customers, count)
    market.until(
        lambda: {head.release for head in customers.heard[-count:]} == {release.release},
        f"{count} decisions of {release.release} alone",
    )


def noted(market: Marketplace, release: Release) -> str:
    return next(one.note for one in all_releases(market.settings) if one.release == release.release)


def test_a_bad_release_is_rolled_back_by_itself_before_one_request_in_a_hundred_met_it(
    market: Marketplace,
) -> None:
    good, bad = market.publish("good"), market.record("wrong")
    with asking(market) as customers:
        done = promote(market.settings, bad, NO_SHADOW)
        settles_on(market, customers, good)
    assert (done.verdict, done.promoted, done.parent) == ("rolled back", False, good.release)
    assert "friction of 100.0% in" in done.reason
    met = sum(head.skill_id == WRONG for head in customers.heard)
    assert 0 < met < 0.01 * len(customers.heard)
    assert done.seen_share < 0.01
    assert {key: one.release for key, one in serving_now(market.settings).items()} == {"current": good.release}
    assert "rolled back (canary): friction of 100.0%" in noted(market, bad)


def test_a_shadow_that_disagrees_meets_no_customer_at_all(market: Marketplace) -> None:
    good, bad = market.publish("good"), market.record("wrong")
    with asking(market) as customers:
        done = promote(market.settings, bad, PromotionOptions(shadow_decisions=200))
        after = goes_on(market, customers)
    assert (done.verdict, done.seen_share) == ("refused", 0.0)
    assert done.reason.startswith("shadow: it agrees with the serving release on 0.0% of ")
    assert {head.release for head in customers.heard} == {good.release}
    assert len(after) >= 1_000
    unseen = market.shadow_decisions(200)
    assert {(decision.release, decision.skill_id) for decision in unseen} == {(bad.release, WRONG)}
    assert serving_now(market.settings).keys() == {"current"}


def test_a_good_release_meets_a_few_then_more_then_all_without_a_restart(market: Marketplace) -> None:
    old, new = market.publish("old"), market.record("new")
    options = PromotionOptions(
        shadow_decisions=100, canary_share=0.02, canary_outcomes=30, max_seen=0.1, steps=(0.3,), watch_outcomes=100
    )
    told: list[str] = []
    with asking(market) as customers:
        done = promote(market.settings, new, options, told.append)
        after = goes_on(market, customers)
    assert (done.verdict, done.promoted) == ("promoted", True), done.reason
    assert [(stage.name, stage.verdict) for stage in done.stages] == [
        ("shadow", "passed"), ("canary", "passed"), ("canary of 30%", "passed"), ("all customers", "passed"),
    ]  # fmt: skip
    assert [line.split(": ", 1)[1] for line in told[:2]] == ["shadow", "canary"]
    assert {head.release for head in after} == {new.release}
    assert {key: one.release for key, one in serving_now(market.settings).items()} == {"current": new.release}
    assert Counter(head.utterance_id for head in customers.heard).most_common(1)[0][1] == 1
    whole = [head.release for head in customers.heard]
    assert old.release not in whole[len(whole) - 1_000 :]  # in the change from the lease to `current` too
    assert promote(market.settings, new, options).reason == "it serves already"


def test_a_canary_sticks_to_its_customers_until_its_time_is_over(market: Marketplace) -> None:
    old, new = market.publish("old"), market.record("new")
    with asking(market) as customers:
        until_ms = int(time.time() * 1000) + 3_600_000
        serve(market.settings, new, CANARY, 0.3, until_ms)
        market.until(lambda: customers.heard[-1].release == new.release, "the canary decides")
        met: dict[str, set[str]] = {}
        for head in goes_on(market, customers, 4_000):
            met.setdefault(head.customer_id, set()).add(head.release)
        assert all(len(releases) == 1 for releases in met.values())
        assert 0.25 < sum(releases == {new.release} for releases in met.values()) / len(met) < 0.35
        serve(market.settings, new, CANARY, 1.0, int(time.time() * 1000) + 1_500)  # and nobody takes it away
        market.until(lambda: {one.release for one in customers.heard[-IN_FLIGHT:]} == {new.release}, "all meet it")
        market.until(lambda: customers.heard[-1].release == old.release, "its time is over")
        assert {head.release for head in goes_on(market, customers)} == {old.release}
        serve(market.settings, new, CANARY, 1.0, int(time.time() * 1000) - 1)
        assert {head.release for head in goes_on(market, customers)} == {old.release}


def test_without_customers_nothing_is_promoted(market: Marketplace) -> None:
    good, new = market.publish("good"), market.record("new")
    done = promote(market.settings, new, PromotionOptions(within_s=0.5))
    assert (done.verdict, done.promoted) == ("undecided", False)
    assert done.reason == "shadow: not enough traffic within 0.00833 minutes: 0 of 1,000 decisions compared"
    assert serving_now(market.settings)["current"].release == good.release
    assert serving_now(market.settings).keys() == {"current"}
    assert "undecided (shadow): not enough traffic" in noted(market, new)


def test_a_promotion_that_is_told_to_stop_takes_its_canary_away(market: Marketplace) -> None:
    market.publish("good")
    new, stop = market.record("new"), threading.Event()
    stop.set()
    done = promote(market.settings, new, NO_SHADOW, stop=stop)
    assert (done.verdict, done.reason.split(",")[0]) == ("stopped", "canary: it was told to stop")
    assert serving_now(market.settings).keys() == {"current"}


@pytest.mark.parametrize("how", ["withdrawn", "replaced"])
def test_a_promotion_ends_where_somebody_else_takes_over(
    market: Marketplace, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "RENEW_S", 0.1)
    market.publish("good")
    new = market.record("new")
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(promote(market.settings, new, NO_SHADOW).reason))
    thread.start()
    market.until(lambda: CANARY in serving_now(market.settings), "the canary is held")
    if how == "withdrawn":
        withdraw_again_and_again(market, thread)
    else:
        other = market.publish("other")
    thread.join(60)
    assert not thread.is_alive()
    if how == "withdrawn":
        assert done == ["canary: somebody has ended the trial, or it was not renewed in time"]
    else:
        assert done[0].startswith(f"canary: {other.release} has come to serve in place of ")
    assert serving_now(market.settings).keys() == {"current"}


def withdraw_again_and_again(market: Marketplace, thread: threading.Thread) -> None:
    """A promotion looks, and renews a moment later: what is withdrawn in between is there again."""

    def over() -> bool:
        withdraw(market.settings, CANARY)
        return not thread.is_alive()

    market.until(over, "the promotion ends")


def test_two_promotions_do_not_run_at_once_and_a_dead_one_is_taken_over(market: Marketplace) -> None:
    market.publish("good")
    one, other = market.record("one"), market.record("other")
    serve(market.settings, one, SHADOW, 0.2, int(time.time() * 1000) + 3_600_000)
    with pytest.raises(WorkerError, match=f"release {one.release} is on trial as shadow: wait .* or end it with"):
        promote(market.settings, other)
    assert promote(market.settings, one, PromotionOptions(within_s=0.3)).verdict == "undecided"
    assert serving_now(market.settings).keys() == {"current"}


def test_where_nothing_serves_the_first_release_serves_at_once(market: Marketplace) -> None:
    first = market.record("first")
    assert promote(market.settings, first).promoted
    assert serving_now(market.settings)["current"].release == first.release


def test_options_that_measure_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"but one is 1\.5"):
        PromotionOptions(steps=(1.5,))
    with pytest.raises(UsageError, match="a stage needs time"):
        PromotionOptions(within_s=0)
    with pytest.raises(UsageError, match="nothing is there to compare with"):
        PromotionOptions(canary_outcomes=0)


def decided(number: int, release: str, skill: str = MEANT) -> tuple[bytes, bytes]:
    decision = Decision(
        event_time_ms=1,
        utterance_id=f"u-{number}",
        customer_id="c",
        action=Action.LAUNCH,
        skill_id=skill,
        release=release,
    )
    return b"c", encode(decision)


def came_out(number: int, kind: OutcomeKind) -> tuple[bytes, bytes]:
    skill = "rides:b" if kind is OutcomeKind.CORRECTED else None
    return b"c", encode(
        Outcome(event_time_ms=1, utterance_id=f"u-{number}", customer_id="c", outcome=kind, skill_id=skill)
    )


def test_friction_is_counted_once_early_or_late_and_only_where_it_belongs(market: Marketplace) -> None:
    market.send(DECISIONS, [decided(0, "old")])
    market.send(OUTCOMES, [came_out(0, OutcomeKind.REJECTED)])  # before the promotion: none of its business
    kinds = list(OutcomeKind)
    with closing(Feedback(market.settings, "old", "new")) as feedback:
        market.send(OUTCOMES, [came_out(1 + at, kind) for at, kind in enumerate(kinds)])  # before their decisions
        market.send(OUTCOMES, [came_out(99, OutcomeKind.REJECTED), (b"c", b"{")])  # never decided; no outcome
        market.send(DECISIONS, [decided(1 + at, "old") for at in range(len(kinds))])
        market.send(DECISIONS, [decided(20, "new"), decided(21, "another"), decided(20, "new"), (b"c", b"{")])
        market.send(OUTCOMES, [came_out(20, OutcomeKind.REJECTED), came_out(20, OutcomeKind.ACCEPTED)])
        market.send(OUTCOMES, [came_out(21, OutcomeKind.REJECTED)])
        market.send(SHADOW_DECISIONS, [decided(1, "new"), decided(2, "new", "rides:b"), decided(3, "older")])

        def all_counted() -> bool:
            feedback.look(0.1)
            return feedback.decisions.total() == 7 and feedback.comparison.compared == 2

        market.until(all_counted, "all is counted")
        feedback.look(1.0)
    assert feedback.decisions == {"old": 5, "new": 1, "another": 1}
    assert feedback.frictions == {"old": Tally(3, 5), "new": Tally(1, 1)}  # accepted and enabled are none
    assert (feedback.comparison.agreed, feedback.comparison.same_action) == (1, 2)
    assert feedback.comparison.accepted == feedback.comparison.kept == {MEANT: 1}


def comparison(**counts: int) -> Comparison:
    return Comparison(**{"compared": 100, "agreed": 90, "silent": 2, "shadow_silent": 3, **counts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: None, ""),
        (
            lambda found: setattr(found, "agreed", 49),
            "it agrees with the serving release on 49.0% of 100 decisions",
        ),
        (lambda found: setattr(found, "shadow_silent", 13), "it says nothing to 13.0% of the requests"),
        (lambda found: took(found, 40, 20), ""),  # too few to judge by
        (lambda found: took(found, 100, 90), ""),
        (lambda found: took(found, 100, 80), "of 100 decisions that customers accepted it would have made 80.0%"),
        (
            lambda found: (took(found, 300, 300), took(found, 20, 1, "bank:b")),
            "of 20 requests for which customers",
        ),
        (lambda found: (took(found, 300, 300), took(found, 19, 0, "bank:b")), ""),
    ],
)
def test_a_shadow_is_refused_for_what_it_would_have_lost(
    change: Callable[[Comparison], object], reason: str
) -> None:
    found = comparison()
    change(found)
    refused = shadow_refusal(found, Bounds())
    assert refused.startswith(reason)
    assert bool(refused) == bool(reason)


def took(found: Comparison, accepted: int, kept: int, skill: str = MEANT, others: int = 0) -> Comparison:
    """Customers accepted `skill` so often, and kept it so often; and others, all of which are kept."""
    found.accepted.update({skill: accepted, "bank:a": others})
    found.kept.update({skill: kept, "bank:a": others})
    return found
