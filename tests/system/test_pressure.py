"""Memory under pressure: a lag, the longest texts and the most links that there may be."""

from pathlib import Path

from tests.workers.marketplace import NOW_MS, Marketplace, link
from topics.codec import encode
from topics.events import MAX_LINKS, MAX_TEXT_CHARS, Utterance
from topics.registry import LINKS, UTTERANCES

LAG = 50_000
LONG = 10  # every tenth text is as long as a text may be
CUSTOMERS = 2_000
MB = 1024 * 1024
IN_FLIGHT = 300 * MB  # what is read and written, as the manual states it


def links_bytes(customers: int, links: int) -> int:
    """What the links of a router's partitions take, as the manual states it."""
    return customers * (300 + 8 * links)


def memory(pid: int, what: str) -> int:
    """VmRSS or VmHWM of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def asked(number: int) -> tuple[bytes, bytes]:
    text = "get me a car " * (MAX_TEXT_CHARS // 13) if number % LONG == 0 else "get me a car"
    customer = f"c-{number % CUSTOMERS}"
    utterance = Utterance(event_time_ms=NOW_MS, utterance_id=f"u-{number}", customer_id=customer, text=text,
                          linked=("skill:1", "skill:2"))  # fmt: skip
    return customer.encode(), encode(utterance)


def test_a_router_behind_a_lag_with_the_longest_texts_and_the_most_links_stays_within_its_bound(
    market: Marketplace,
) -> None:
    """The lag is decided in full batches; what is not in hand waits at the broker."""
    most = [f"skill:{number}" for number in range(MAX_LINKS)]
    router = market.process(batch=1_024, metrics_port=0)
    market.until(lambda: "waiting for a release" in router.why(), "it has started")
    at_rest = memory(router.process.pid, "VmRSS")
    market.send(LINKS, [link(f"c-{number}", *most) for number in range(CUSTOMERS)])
    market.send(UTTERANCES, [asked(number) for number in range(LAG)])
    market.publish("one")
    market.until_decided(router, LAG)
    grown = memory(router.process.pid, "VmHWM") - at_rest
    bound = IN_FLIGHT + links_bytes(CUSTOMERS, MAX_LINKS)
    assert grown < bound, f"{grown / MB:.0f} MB of {bound / MB:.0f}"
    print(f"{grown / MB:.0f} MB of {bound / MB:.0f}")
