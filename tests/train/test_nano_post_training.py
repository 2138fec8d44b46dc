"""The nano model's own recipes of post-training, cut short: killed at once by the system, they go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = {
    "rl": [
        "prompts_per_step=2", "pictures_per_prompt=2", "rollout_steps=5", "times_per_picture=1",
        "probe_prompts=0", 'ratios=["1:1"]', "nano_prompts.count=12",
    ],
    "turbo": [
        "nano.examples=256", 'nano.ratios=["1:1"]', 'nano.probe_ratios=["1:1"]', "nano.batch_size=2",
        "nano.probe_prompts=0",
    ],
}  # fmt: skip
STEPS = 4


def command(name: str, out: Path) -> list[str]:
    checkpoint = ["checkpoint.every_s=1e-9", "checkpoint.best=''"]
    common = [f"steps={STEPS}", f"out={out}", "log_every=1", "probe_every=100", *checkpoint]
    own = SHORT[name] + ([f"nano.cache={out.parent / 'cache'}"] if name == "turbo" else [])
    changes = [word for change in common + own for word in ("--set", change)]
    return [sys.executable, "-m", "lens", "train", f"recipes/nano/{name}.yaml", *changes]


def losses(out: Path) -> dict[int, float]:
    path = out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("name", list(SHORT))
def test_a_recipe_that_was_killed_goes_on_to_its_end(name, tmp_path):
    out = tmp_path / "run"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command(name, out), cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/*/run.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
            if first.poll() is not None:
                raise AssertionError(first.communicate()[1][-2000:])
        first.send_signal(signal.SIGKILL)
    before = losses(out)
    assert first.returncode == -signal.SIGKILL and before and max(before) < STEPS
    done = subprocess.run(command(name, out), cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on at step" in " ".join(done.stderr.split())
    after = losses(out)
    assert sorted(after) == list(range(1, STEPS + 1))
    assert all(after[step] == loss for step, loss in before.items() if step in after)
    assert (out / "export" / "transformer" / "config.json").is_file()
    assert "reward" in (out / "metrics.jsonl").read_text() or name == "turbo"
