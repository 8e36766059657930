"""The whole loop, once around, in a short form of `make demo`."""

from pathlib import Path

from model.sample import SAMPLE_DIR
from tests.conftest import Broker
from topics.settings import Settings
from workers.demo import DemoOptions, run_demo


def test_a_request_travels_the_whole_loop_and_every_promise_is_kept(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Utterance, decision, outcome, statistics, cycle, release, reload, skills asked, replay: on a real broker."""
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    options = DemoOptions(
        name="sample", data=SAMPLE_DIR, out=tmp_path, epochs=3, cycle_epochs=2, max_rows=1_500, max_loss=1.0
    )
    findings = run_demo(settings, options)
    broken = [check for check in findings.checks if not check.kept]
    assert not broken
    assert len(findings.checks) == 6
    assert findings.cycle.outcome_rows > 100
    assert findings.first.duplicates == findings.second.duplicates == 0
