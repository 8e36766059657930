"""Jobs of an experiment side by side, each in a process of its own; what they find they leave on disk."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from model.cells import Store
from model.experiment import Job, Market, do_job, read_market
from topics.errors import NamefreeError, WorkerError

Told = tuple[float, str]  # how much of its job a process has done, and what it is at; less than 0: why it gave up


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    connection: Connection
    done: float = 0.0
    note: str = ""


def run_jobs(
    jobs: Sequence[Job],
    data: Path,
    market: Market,
    store: Store,
    processes: int,
    report: Callable[[float, str], None],
) -> None:
    """Does all jobs, `processes` at a time, on the threads that torch has now; `report(done, note)` sums up.

    With one process or one job all happens in this process. Raises WorkerError where a process dies; what was
    finished stays on disk.
    """
    if min(processes, len(jobs)) <= 1:
        _one_by_one(jobs, market, store, report)
        return
    threads = max(1, torch.get_num_threads() // min(processes, len(jobs)))
    waiting, running, finished = list(jobs), list[_Running](), 0.0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(_started(waiting.pop(0), data, store.folder, threads))
            for one in _spoke(running):
                if not _heard(one):
                    running.remove(one)
                    finished += one.job.size
            notes = "; ".join(one.note for one in running)
            report(finished + sum(one.done for one in running), notes)
    finally:
        for one in running:
            one.process.terminate()
            one.process.join()


def _one_by_one(jobs: Sequence[Job], market: Market, store: Store, report: Callable[[float, str], None]) -> None:
    finished = 0.0
    for job in jobs:
        do_job(job, market, store, partial(_after, report, finished))
        finished += job.size


def _after(report: Callable[[float, str], None], finished: float, done: float, note: str) -> None:
    report(finished + done, note)


def _started(job: Job, data: Path, out: Path, threads: int) -> _Running:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, data, out, threads, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end is heard
    return _Running(job, process, ours)


def _spoke(running: Sequence[_Running]) -> list[_Running]:
    ready = wait([one.connection for one in running])
    return [one for one in running if one.connection in ready]


def _heard(one: _Running) -> bool:
    """Takes in what a process tells; false once it has ended well."""
    try:
        done, note = one.connection.recv()
    except EOFError:
        one.process.join()
        if one.process.exitcode:
            raise WorkerError(
                f"a process of the experiment ended with exit code {one.process.exitcode} at "
                f"{one.note or 'its start'}: finished cells are kept, so the same command goes on from there"
            ) from None
        return False
    if done < 0:
        raise WorkerError(f"a process of the experiment gave up at {one.note or 'its start'}: {note}")
    one.done, one.note = done, note
    return True


def _child(job: Job, data: Path, out: Path, threads: int, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends us
    torch.set_num_threads(threads)
    try:
        do_job(job, read_market(data), Store(out), lambda done, note: connection.send((done, note)))
    except NamefreeError as error:
        connection.send((-1.0, str(error)))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the parent is gone, and nobody waits for what is not finished
        sys.exit(1)
