"""`python -m tests.fuzz`: rubbish for every parser of bytes from outside. `make fuzz` runs it.

One table on stdout; what went wrong lies in build/fuzz, one file a case. Exit code 1 where anything did.
"""

import sys
from pathlib import Path

import click

from tests.fuzz.running import CASE_BYTES, Report, run


@click.command()
@click.option("--cases", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/fuzz"), show_default=True)
def main(cases: int, seed: int, processes: int, folder: Path) -> None:
    """Feeds mutated real bytes, and events that hypothesis draws, to codec, readers, dead letters and bundles."""
    report = run(cases, seed, processes)
    click.echo(table(report))
    for number, finding in enumerate(report.findings):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{seed}-{number}-{finding.target}"
        place.write_bytes(finding.data)
        click.echo(f"{finding.target}, case {finding.case}: {finding.what}\n    {place}")
    sys.exit(bool(report.findings))


def table(report: Report) -> str:
    lines = [f"{'target':<32} {'cases':>10} {'taken':>10} {'slowest ms':>12}"]
    for name, count in report.cases.items():
        lines.append(f"{name:<32} {count:>10,} {report.taken[name]:>10,} {report.slowest_ms[name]:>12.1f}")
    rate = report.total / report.seconds
    lines.append(
        f"{report.total:,} cases in {report.seconds:.0f} s, {rate:,.0f} a second; a process grew by at most "
        f"{report.grown_bytes >> 20} MiB, and no case may by more than {CASE_BYTES >> 20}; "
        f"{len(report.findings)} findings"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
