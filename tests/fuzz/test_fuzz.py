"""A short fuzz run, what longer ones have found, and the largest rubbish that there is room for."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.running import Checker, case_data, run_here
from tests.fuzz.targets import Forger, Target, real_events, targets
from topics.codec import decode
from topics.errors import BadBundle, BadEvent
from topics.events import MAX_EVENT_BYTES, MAX_FOLD_BYTES, Decision, StatisticsFold, Utterance
from workers.joins import read_head
from workers.live_folds import Gains
from workers.records import Record, read_decision

LARGE_S = 2.0  # of processor time for a quarter of the largest fold


def test_nothing_but_refusals_comes_of_rubbish() -> None:
    report = run_here(4_000, 11)
    assert report.findings == []
    assert report.total >= 4_000
    assert all(report.taken[name] for name in ("codec.Utterance", "bundle.manifest", "safetensors.parser"))


def test_a_case_is_found_again_by_its_name() -> None:
    target = Target("any", tuple(real_events().values()), len, (), 1.0, 1.0)
    assert case_data(target, "7/3") == case_data(target, "7/3") != case_data(target, "8/3")


def test_a_crash_a_slow_case_and_a_hungry_one_are_findings() -> None:
    """Else a run that finds nothing says nothing."""
    kept: list[bytes] = []

    def crash(data: bytes) -> None:
        raise KeyError(data)

    def idle(data: bytes) -> None:
        ends_s = time.process_time() + 0.02
        while time.process_time() < ends_s:
            pass

    def eat(data: bytes) -> None:
        kept.append(bytes(range(256)) * 400_000)

    def refuse(data: bytes) -> None:
        raise BadEvent("as documented")

    for take, what in ((crash, "KeyError"), (idle, "took 20 ms"), (eat, "MiB"), (refuse, "")):
        checker = Checker(lambda _case: None)
        checker.check(Target("broken", (b"{}",), take, (BadEvent,), 10.0, 1.0), "1", b"{}")
        found = "".join(finding.what for finding in checker.report.findings)
        assert (what in found) if what else not found


def test_deep_nesting_is_a_refusal_on_every_path() -> None:
    """Found by the first run: the quick readers of decisions had a way out that the codec has not."""
    deep = real_events()["decision"][:-1] + b', "more": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    with pytest.raises(BadEvent, match="nested deeper"):
        read_decision(Record("decisions", 0, 0, 0, b"c-1", deep))

    class Told:
        def value(self) -> bytes:
            return deep

        topic = partition = offset = lambda self: 0

    assert read_head(Told()) is None  # type: ignore[arg-type]  # as the client's message
    deep_fold = real_events()["statistics_fold"][:-1] + deep[deep.index(b', "more"') :]
    with pytest.raises(BadEvent):
        Gains(1e9).take(b"2026-11-22T19/1", deep_fold, 1_795_369_000_000)


def _many_keys_and_a_twin(limit: int) -> bytes:
    """As many different keys as there is room for, and one of the last twice."""
    keys = ",".join(f'"{number:06x}":0' for number in range(limit // 11 - 10))
    return f'{{"schema":1,"z":0,{keys},"z":1}}'.encode()


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Utterance, _many_keys_and_a_twin),
        (StatisticsFold, _many_keys_and_a_twin),
        (
            StatisticsFold,
            lambda limit: b'{"schema":1,"x":' + b"[" * (limit // 2 - 20) + b"]" * (limit // 2 - 20) + b"}",
        ),
        (StatisticsFold, lambda limit: b'{"schema":' + b"9" * (limit - 20) + b"}"),
        (Decision, lambda limit: b'{"schema":1,"x":"' + b"\\u0000" * (limit // 6 - 10) + b'"}'),
        (StatisticsFold, lambda limit: b'{"schema":1,"x":[' + b"{}," * (limit // 3 - 20) + b"{}]}"),
        (StatisticsFold, lambda limit: json.dumps({"schema": 1, "skills": {"s" * 200: {}}}).encode() * 9),
    ],
    ids=["many keys", "very many keys", "deep", "one number", "escapes", "many objects", "nine in one"],
)
def test_the_largest_rubbish_is_refused_soon(kind: type, make: Callable[[int], bytes]) -> None:
    data = make(MAX_FOLD_BYTES // 4 if kind is StatisticsFold else MAX_EVENT_BYTES)
    start_s = time.process_time()
    with pytest.raises(BadEvent):
        decode(data, kind)
    assert time.process_time() - start_s < LARGE_S


HUGE = """
import resource, sys
from pathlib import Path
from model.bundle import read_bundle
from topics.errors import BadBundle
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 512 * 1024**2, resource.RLIM_INFINITY))
for folder in sys.argv[1:]:
    try:
        read_bundle(Path(folder))
    except BadBundle as error:
        print(error)
"""

LIES = {
    "shortlister": {"width": 10**9, "state_width": 10**9, "word_width": 10**9},
    "text": {"ngram_rows": 10**9},
    "reranker": {"width": 10**9},
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_a_manifest_that_claims_huge_networks_takes_no_memory(tmp_path: Path) -> None:
    """In a process that could not give it: a refusal, and not the end of a router."""
    forger = Forger()
    try:
        manifest = json.loads(forger.real["manifest.json"])
        folders = []
        for part, sizes in LIES.items():
            lie = json.dumps({**manifest, part: {**manifest[part], **sizes}}).encode()
            with pytest.raises(BadBundle):
                forger.take_signed_manifest(lie)
            folders.append(shutil.copytree(forger.folder, tmp_path / part))
        done = subprocess.run(
            [sys.executable, "-c", HUGE, *map(str, folders)], capture_output=True, text=True, timeout=120
        )
    finally:
        forger.close()
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(LIES), done.stdout


def test_lies_in_a_header_reach_the_parser() -> None:
    """The mutations make headers that are read: some are refused for what they say, and not for their length."""
    forger = Forger()
    said = set()
    try:
        target = next(one for one in targets(forger) if one.name == "safetensors.parser")
        for number in range(600):
            try:
                target.take(case_data(target, f"1/{number}"))
            except BadBundle as error:
                said.add(str(error).split(":")[1][:20])
    finally:
        forger.close()
    assert len(said) >= 6, said
