"""A fuzz run: cases drawn from a seed, each again by its number, in processes that may not take much memory.

A case is wrong where its target raises anything but its own refusals, takes too long, takes too much memory, or
takes the process with it.
"""

import logging
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from msgspec import Struct

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Forger, Target, targets
from tests.strategies import any_event
from topics.codec import encode

Beat = Callable[[str], None]  # told the name of each case before it is tried

CASE_BYTES = 64 * 1024**2  # a case's most, beyond all before it; what it is made of has 64 KiB
PROCESS_BYTES = 256 * 1024**2  # and all of a process together: nothing leaks
BRAKE_BYTES = 1024**3  # of address space, beyond which the process gets no more
STUCK_S = 60.0
HYPOTHESIS_SHARE = 0.05  # of the cases start from an event that hypothesis draws, not from a real one
MOST_FINDINGS = 20  # of a process: more say nothing new


class Finding(Struct, frozen=True):
    """One case that went wrong, with the bytes that did it."""

    target: str
    case: str
    what: str
    data: bytes


class Report(Struct):
    """What became of a run's cases."""

    cases: dict[str, int] = {}
    taken: dict[str, int] = {}
    slowest_ms: dict[str, float] = {}
    grown_bytes: int = 0  # of the process that grew most
    findings: list[Finding] = []
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.cases.values())

    def add(self, other: "Report") -> None:
        for name, count in other.cases.items():
            self.cases[name] = self.cases.get(name, 0) + count
            self.taken[name] = self.taken.get(name, 0) + other.taken[name]
            self.slowest_ms[name] = max(self.slowest_ms.get(name, 0.0), other.slowest_ms[name])
        self.grown_bytes = max(self.grown_bytes, other.grown_bytes)
        self.findings += other.findings


class Checker:
    """Gives targets their cases and keeps the books."""

    def __init__(self, beat: Beat) -> None:
        self.report = Report()
        self._beat = beat
        self._start_bytes = _peak_bytes()

    def check(self, target: Target, case: str, data: bytes) -> None:
        self._beat(f"{target.name} {case}")
        books, name = self.report, target.name
        before_bytes, start_s, what = _peak_bytes(), time.process_time(), ""
        try:
            target.take(data)
            books.taken[name] = books.taken.get(name, 0) + 1
        except target.refusals as error:
            if "\n" in str(error):
                what = f"a refusal of more than one line: {error}"
        except Exception as error:  # noqa: BLE001 whatever it is, it is what we look for
            what = f"{type(error).__name__}: {error}"
        took_ms = (time.process_time() - start_s) * 1_000
        if took_ms > target.limit_ms and (took_ms := _again_ms(target, data)) > target.limit_ms:
            what = f"took {took_ms:.0f} ms, three times"
        if (grown := _peak_bytes() - before_bytes) > CASE_BYTES:
            what = f"took {grown >> 20} MiB"
        books.cases[name] = books.cases.get(name, 0) + 1
        books.taken.setdefault(name, 0)
        books.slowest_ms[name] = max(books.slowest_ms.get(name, 0.0), took_ms)
        books.grown_bytes = _peak_bytes() - self._start_bytes
        if what and len(books.findings) < MOST_FINDINGS:
            books.findings.append(Finding(name, case, what[:500], data))


def _again_ms(target: Target, data: bytes) -> float:
    """The least of two more tries: what is slow is slow each time, what the machine did is not."""
    tries = []
    for _ in range(2):
        start_s = time.process_time()
        with suppress(Exception):  # the first try has told
            target.take(data)
        tries.append((time.process_time() - start_s) * 1_000)
    return min(tries)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def case_data(target: Target, case: str) -> bytes:
    """The bytes of a case: the same ones for the same name."""
    random = Random(f"{target.name} {case}")
    first = random.random() < 0.7
    return mutated(random, target.seeds[0] if first else random.choice(target.seeds), target.seeds)


def _nobody(_case: str) -> None:
    """In the process of whoever asks there is nobody to watch it."""


def run_here(cases: int, run_seed: int, part: int = 0, parts: int = 1, beat: Beat = _nobody) -> Report:
    """The `part`th of `parts` of a run, in this process."""
    logging.disable(logging.CRITICAL)  # each passed-over message is a line
    torch.set_num_threads(1)
    forger = Forger()
    try:
        all_of_them = targets(forger)
        for target in all_of_them:  # imports, caches: what a first time costs is no finding
            for one in target.seeds:
                try:
                    target.take(one)
                except target.refusals:
                    continue
        checker = Checker(beat)
        for target, case in _cases(all_of_them, cases, run_seed):
            if int(case.rpartition("/")[2]) % parts == part:
                checker.check(target, case, case_data(target, case))
        _drawn(checker, all_of_them, round(cases * HYPOTHESIS_SHARE) // parts, run_seed * parts + part)
        if checker.report.grown_bytes > PROCESS_BYTES:
            grown = f"the process grew by {checker.report.grown_bytes >> 20} MiB"
            checker.report.findings.append(Finding("all", "", grown, b""))
        return checker.report
    finally:
        forger.close()
        logging.disable(logging.NOTSET)


def _cases(all_of_them: list[Target], cases: int, run_seed: int) -> Iterator[tuple[Target, str]]:
    whole = sum(target.share for target in all_of_them)
    for target in all_of_them:
        for number in range(max(1, round(cases * (1 - HYPOTHESIS_SHARE) * target.share / whole))):
            yield target, f"{run_seed}/{number}"


def _drawn(checker: Checker, all_of_them: list[Target], count: int, run_seed: int) -> None:
    """Events that hypothesis draws, as they are and mutated."""
    by_name = {target.name: target for target in all_of_them}
    readers = by_name["workers.readers"]

    @seed(run_seed)
    @settings(
        max_examples=max(1, count),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(any_event, st.integers(0, 2**32))
    def draw(event: Any, number: int) -> None:
        real = encode(event)
        target = by_name[f"codec.{type(event).__name__}"]
        data = mutated(Random(number), real, (real, *target.seeds)) if number % 4 else real
        checker.check(target, f"drawn {number}", data)
        checker.check(readers, f"drawn {number}", data)

    draw()


def run(cases: int, run_seed: int, processes: int = 2) -> Report:
    """A run in processes of their own, watched: one that hangs, dies, or takes too much is a finding."""
    start_s = time.monotonic()
    context = multiprocessing.get_context("spawn")
    started = []
    for part in range(processes):
        inlet, outlet = context.Pipe(duplex=False)
        beat = context.Array("c", 200)
        process = context.Process(
            target=_child, args=(cases, run_seed, part, processes, outlet, beat), daemon=True
        )
        process.start()
        outlet.close()
        started.append((process, inlet, beat))
    whole = Report()
    for process, inlet, beat in started:
        whole.add(_watched(process, inlet, beat))
    whole.seconds = time.monotonic() - start_s
    return whole


def _child(cases: int, run_seed: int, part: int, parts: int, outlet: Connection, beat: Any) -> None:
    now_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now_bytes + BRAKE_BYTES, resource.RLIM_INFINITY))

    def tell(case: str) -> None:
        beat.value = case.encode()[:199]

    outlet.send_bytes(msgspec.json.encode(run_here(cases, run_seed, part, parts, tell)))


def _watched(process: Any, inlet: Connection, beat: Any) -> Report:
    last, since_s = b"", time.monotonic()
    while not inlet.poll(0.5):
        if beat.value != last:
            last, since_s = beat.value, time.monotonic()
        if time.monotonic() - since_s > STUCK_S:
            process.kill()
            return _lost(last, f"no answer for {STUCK_S:.0f} s")
    try:
        found = msgspec.json.decode(inlet.recv_bytes(), type=Report)
    except EOFError:
        process.join()
        return _lost(beat.value, f"the process ended with code {process.exitcode}")
    process.join()
    return found


def _lost(case: bytes, what: str) -> Report:
    target, _, name = case.decode("utf-8", "replace").partition(" ")
    return Report(findings=[Finding(target, name, what, b"")])
