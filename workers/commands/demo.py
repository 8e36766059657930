"""`namefree demo`: the whole loop, once around."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from model.sample import SAMPLE_DIR
from topics.broker import embedded_broker
from topics.errors import UsageError, WorkerError
from topics.settings import DEFAULT_BOOTSTRAP, Settings
from workers import console
from workers.demo import DemoOptions, run_demo
from workers.findings import Findings
from workers.report import write_report

log = logging.getLogger("namefree.demo")
MARK = ".namefree-demo"  # says that a folder is ours to empty


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data folder.  [default: the sample marketplace that ships]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Where all of it goes."
)
@click.option("--seed", type=int, default=0, show_default=True)
@console.json_option
@click.pass_obj
def command(settings: Settings, data: Path | None, out: Path, seed: int, as_json: bool) -> None:
    """The whole loop, once around: broker, topics, catalogue, a first release, simulated customers, router,
    aggregator, a distillation cycle, hot reload, replay. Ends with a report; its path is the last line.

    Starts an embedded broker of its own, or uses the cluster that NAMEFREE_BOOTSTRAP names (under a fresh prefix).

    \b
    Example:
      namefree demo
      namefree demo --data my-data --out /tmp/demo
    """
    out = out.absolute()
    _empty(out)
    name = f"the data folder {data.name}" if data else "the sample marketplace"
    options = DemoOptions(name=name, data=data or SAMPLE_DIR, out=out, seed=seed)
    with cluster(settings, "demo") as own:
        findings = run_demo(own, options)
    report = out / "report.html"
    write_report(findings, report)
    _show(findings, report, as_json)
    broken = [check.name for check in findings.checks if not check.kept]
    if broken:
        raise WorkerError(f"the demo found a broken promise: {'; '.join(broken)} (see {report})")


def _empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise UsageError(f"{out} is not empty and not a demo's folder: name another with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


@contextmanager
def cluster(settings: Settings, prefix: str) -> Iterator[Settings]:
    """A cluster for a loop of its own: the one that was named, under a fresh prefix, else an embedded broker."""
    named = click.get_current_context().find_root().params["bootstrap"] is not None
    if named or settings.bootstrap != DEFAULT_BOOTSTRAP:
        yield msgspec.structs.replace(settings, prefix=f"{settings.prefix}{prefix}-{int(time.time())}.")
        return
    with embedded_broker(log=lambda line: log.info("broker: %s", line)) as broker:
        yield msgspec.structs.replace(settings, bootstrap=broker.bootstrap)


def _show(findings: Findings, report: Path, as_json: bool) -> None:
    checks = [(check.name, check.kept, check.detail) for check in findings.checks]
    if as_json:
        values = {
            "checks": checks,
            "cycle": vars(findings.cycle),
            "seconds": findings.seconds,
            "report": str(report),
        }
        measures = {"before": findings.before, "after": findings.after}
        console.print_json(values | measures | {"first": vars(findings.first), "second": vars(findings.second)})
        return
    console.print_table("Promises", ("promise", "kept", "seen"), checks)
    first, second = findings.first, findings.second
    rows = [
        (f"{stage} {name}", findings.before[stage][name], findings.after[stage][name])
        for stage, name in (("shortlist", "top3"), ("decision", "top1"), ("decision", "mrr"))
    ]
    rows.append(("customers: right first (simulated)", first.right_first or 0.0, second.right_first or 0.0))
    rows.append(("customers: friction (simulated)", first.friction or 0.0, second.friction or 0.0))
    rows.append(("decisions/s", first.decisions_per_s, second.decisions_per_s))
    console.print_table(
        f"First release and second, {findings.rows['judged']:,} judged rows", ("measure", "first", "second"), rows
    )
    console.out.print(str(report))
