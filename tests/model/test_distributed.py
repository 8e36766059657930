"""Training in two processes over gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.model.two_processes import trained

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(240)
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, "-m", "tests.model.two_processes", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (safetensors.torch.load_file(tmp_path / f"{rank}-of-2.safetensors") for rank in (0, 1))
    alone = trained()
    for name, weights in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name].float(), weights.float(), atol=2e-2), name
    moved = (first["rows"] - alone["rows"]).abs().mean()
    learned = alone["rows"].abs().mean()
    assert moved < learned / 50
