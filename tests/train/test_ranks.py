"""One run on several processes: the same numbers, whatever their number, also after one was killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from forked import on_ranks
from ranked import train_small

from lens.errors import SettingError
from lens.models.denoiser import LensTransformer2DModel
from lens.train.distributed import DistributedContext

STEPS = 10
CHANGES = {
    "steps": STEPS, "batch_size": 6, "micro_batches": 2, "probe_every": STEPS, "threads": 1,
    "checkpoint": {"every_s": 1e-9, "keep_last": 2}, "optimizer": {"lr": 1e-3, "warmup_steps": 2},
}  # fmt: skip
RARELY_KEPT = "checkpoint.every_s=600"


@pytest.fixture
def recipe_of(values_of, tmp_path):
    """Write the recipe of a tiny denoiser that is trained in a folder."""

    def write(out: Path) -> Path:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(values_of("pretrain", out, **CHANGES)))
        return recipe

    return write


@pytest.fixture
def run_on(recipe_of, tmp_path):
    """Train the tiny denoiser on so many processes; return their exit statuses."""

    def run(num_ranks: int, out: Path, *overrides: str, kill_at: int = -1) -> list[int]:
        statuses = on_ranks(
            num_ranks, train_small, recipe_of(out), overrides, kill_at, log=tmp_path / "log"
        )
        assert kill_at >= 0 or not any(statuses), (tmp_path / "log").read_text()[-3000:]
        return statuses

    return run


@pytest.fixture
def run_here(fitted):
    """Train the tiny denoiser in this process, or go on with it; return its losses."""

    def run(out: Path):
        fitted("pretrain", out, **CHANGES)
        return losses_in(out)

    return run


@pytest.fixture(scope="module")
def one(fitted, tmp_path_factory):
    """The folder of the run on one process that was never stopped."""
    out = tmp_path_factory.mktemp("one") / "run"
    fitted("pretrain", out, **CHANGES)
    return out


def losses_in(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def exported(out: Path) -> torch.Tensor:
    """Return all weights of the exported denoiser as one vector, over its length."""
    model = LensTransformer2DModel.from_pretrained(out / "export" / "transformer")
    weights = torch.cat([weight.flatten().float() for weight in model.state_dict().values()])
    return weights / weights.norm()


def test_two_ranks_that_torchrun_starts_make_the_losses_of_one(recipe_of, one, tmp_path):
    assert len(losses_in(one)) == STEPS
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    own = [str(Path(__file__).with_name("ranked.py")), str(recipe_of(tmp_path / "two")), RARELY_KEPT]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *own], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses_in(tmp_path / "two") == pytest.approx(losses_in(one), abs=1e-5)
    assert torch.dist(exported(tmp_path / "two"), exported(one)) < 0.01


def test_two_copies_make_the_losses_of_one(run_on, one, tmp_path):
    run_on(2, tmp_path / "copies", "parallel.shard=1", RARELY_KEPT)
    assert losses_in(tmp_path / "copies") == pytest.approx(losses_in(one), abs=1e-5)


def test_one_goes_on_where_two_were_killed(run_on, run_here, one, tmp_path):
    out = tmp_path / "killed"
    assert -signal.SIGKILL in run_on(2, out, kill_at=6)
    complete = sorted(marker.parent.name for marker in out.glob("checkpoints/*/run.json"))
    assert complete and "step_00000007" not in complete and len(complete) <= 2
    assert run_here(out) == pytest.approx(losses_in(one), abs=1e-5)


def test_a_run_that_was_killed_at_any_step_makes_the_losses_of_one_that_was_not_to_the_bit(
    run_on, run_here, one, tmp_path
):
    step = int.from_bytes(os.urandom(1)) % (STEPS - 1) + 1
    assert run_on(1, tmp_path / "killed", kill_at=step) == [-signal.SIGKILL]
    assert run_here(tmp_path / "killed") == losses_in(one), f"killed at step {step}"


def test_micro_batches_that_processes_cannot_share_out_are_refused():
    assert list(DistributedContext(rank=1, world_size=2).local_micro_batches(6)) == [1, 3, 5]
    with pytest.raises(SettingError, match=r"micro_batches is 3, but it needs a multiple of 2"):
        DistributedContext(rank=1, world_size=2).local_micro_batches(3)
