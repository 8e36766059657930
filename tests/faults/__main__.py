"""`python -m tests.faults`: a fault run, or the mutants that such a run has to find. `make faults` runs it.

One table on stdout, a JSON file beside it; exit code 1 unless all is zero (with --mutants: unless each is found).
"""

import sys
import time
from pathlib import Path

import click
import msgspec

from tests.faults.aggregator_kills import run_kills
from tests.faults.mutants import MUTANTS
from tests.faults.plan import KINDS, plan
from tests.faults.running import Result, run_faults, run_mutants
from workers.console import start_logging


@click.command()
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--utterances", type=click.IntRange(100), help="1,000,000, or 1,500 of each mutant.")
@click.option("--faults", type=click.IntRange(1), default=200, show_default=True)
@click.option("--protocol", type=click.Choice(["classic", "consumer"]), default="classic", show_default=True)
@click.option("--mutants", is_flag=True, help="Routers without one of their guards: each has to be found.")
@click.option("--kills", type=click.IntRange(0), default=0, help="An aggregator alone, killed so often.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/faults"), show_default=True)
def main(
    seed: int, utterances: int | None, faults: int, protocol: str, mutants: bool, kills: int, folder: Path
) -> None:
    """Kills, freezes and starves the workers while utterances flow, and counts what became of each."""
    start_logging("error")
    begin_s = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - begin_s:>7.1f} s {line}")

    if kills:
        killed = run_kills(seed, kills, folder / "kills", say)
        click.echo(f"\nseed {seed}, an aggregator killed {kills} times, {killed.seconds:.0f} s")
        rows = [("decided", killed.decided), *killed.kills.items(), ("---------", 0), *killed.wrong.items()]
        click.echo("\n".join(f"  {count:>9,}  {name}" for name, count in rows))
        _write(folder / f"kills-{seed}.json", killed)
        sys.exit(not killed.is_clean())
    if mutants:
        results = run_mutants(seed, utterances or 1_500, folder, list(MUTANTS), protocol, say)
    else:
        utterances = utterances or 1_000_000
        for fault in plan(seed, utterances, faults):
            click.echo(f"{fault.at:>9,}  {fault.kind:<16} {fault.points or KINDS.get(fault.kind, fault.slot)}")
        results = [run_faults(seed, utterances, faults, folder / "run", protocol, say)]
    for result in results:
        click.echo(table(result))
    _write(folder / (f"mutants-{seed}.json" if mutants else f"faults-{seed}.json"), results)
    sys.exit(any(result.is_clean() == bool(result.mutant) for result in results))


def _write(out: Path, results: object) -> None:
    out.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    click.echo(f"\n{out}")


def table(result: Result) -> str:
    """The run as one table."""
    title = f"seed {result.seed}, {result.utterances:,} utterances, group protocol {result.protocol}"
    lines = [f"\n{title}{', without ' + result.mutant if result.mutant else ''}, {result.seconds:.0f} s"]
    lines += [f"  {count:>9,}  {name}" for name, count in [("faults", sum(result.faults.values()))]]
    lines += [f"  {count:>9,}  {name}" for name, count in result.faults.items()]
    lines += [f"  {there:>4,} of {planned:>2,}  {place}" for place, (planned, there) in result.points.items()]
    lines += [f"  {count:>9,}  ended: {name}" for name, count in sorted(result.exits.items())]
    lines += [
        f"  {age:>9,.0f}  ms that newer links had been there, {name}" for name, age in result.links_age_ms.items()
    ]
    lines += ["  ---------", *(f"  {count:>9,}  {name}" for name, count in result.wrong.items()), *result.errors]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
