"""One run on several processes: the same numbers, whatever their number, also after one was killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lens.models.denoiser import LensTransformer2DModel

STEPS = 20
CHANGES = {
    "steps": STEPS, "batch_size": 6, "micro_batches": 2, "probe_every": STEPS, "threads": 1,
    "checkpoint": {"every_s": 1e-9, "keep_last": 2}, "optimizer": {"lr": 1e-3, "warmup_steps": 2},
}  # fmt: skip


@pytest.fixture
def run_on(values_of, tmp_path):
    """Train the tiny denoiser on so many processes; return its losses, or the exit status if it failed."""

    def run(num_ranks: int, out: Path, kill_at: int = -1, *overrides: str):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(values_of("pretrain", out, **CHANGES)))
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num_ranks}"]
        command = [*torchrun, "--standalone", str(Path(__file__).with_name("ranked.py")), str(recipe)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "LENS_KILL_AT": str(kill_at)}
        done = subprocess.run([*command, *overrides], env=env, capture_output=True, text=True, timeout=300)
        if done.returncode:
            assert kill_at >= 0, done.stderr[-3000:]
            return done.returncode
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    return run


def exported(out: Path) -> torch.Tensor:
    """Return all weights of the exported denoiser as one vector, over its length."""
    model = LensTransformer2DModel.from_pretrained(out / "export" / "transformer")
    weights = torch.cat([weight.flatten().float() for weight in model.state_dict().values()])
    return weights / weights.norm()


def test_two_ranks_make_the_losses_of_one_and_one_goes_on_where_two_were_killed(run_on, finished, tmp_path):
    one = run_on(1, tmp_path / "one")
    assert len(one) == STEPS
    two = run_on(2, tmp_path / "two")
    assert two == pytest.approx(one, abs=1e-5)
    assert torch.dist(exported(tmp_path / "two"), exported(tmp_path / "one")) < 0.01
    copies = run_on(2, tmp_path / "copies", -1, "parallel.shard=1")
    assert copies == pytest.approx(one, abs=1e-5)

    assert run_on(2, tmp_path / "killed", kill_at=11) != 0
    complete = sorted(marker.parent.name for marker in (tmp_path / "killed").glob("checkpoints/*/run.json"))
    assert complete and "step_00000012" not in complete and len(complete) <= 2
    resumed = run_on(1, tmp_path / "killed")
    assert resumed == pytest.approx(one, abs=1e-5)


def test_a_run_that_was_killed_at_any_step_makes_the_losses_of_one_that_was_not_to_the_bit(
    run_on, finished, tmp_path
):
    step = int.from_bytes(os.urandom(1)) % (STEPS - 1) + 1
    one = run_on(1, tmp_path / "one")
    assert run_on(1, tmp_path / "killed", kill_at=step) != 0
    assert run_on(1, tmp_path / "killed") == one, f"killed at step {step}"


def test_micro_batches_that_processes_cannot_share_out_are_refused(run_on, finished, tmp_path):
    with pytest.raises(AssertionError, match=r"micro_batches is 3, but it needs a multiple of 2"):
        run_on(2, tmp_path / "run", -1, "micro_batches=3")
    assert not (tmp_path / "run").exists()
