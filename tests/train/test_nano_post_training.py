"""The nano model's own recipes of post-training, cut short: killed at once by the system, they go on."""

import json
import time
from pathlib import Path

import pytest
from forked import forked, lens

ROOT = Path(__file__).parents[2]
SHORT = {
    "rl": [
        "prompts_per_step=2", "images_per_prompt=2", "rollout_steps=5", "times_per_image=1",
        "probe_prompts=0", 'ratios=["1:1"]', "bases=[64]", "nano_prompts.count=6",
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
    return ["train", str(ROOT / "recipes" / "nano" / f"{name}.yaml"), *changes]


def losses(out: Path) -> dict[int, float]:
    path = out / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("name", list(SHORT))
def test_a_recipe_that_was_killed_goes_on_to_its_end(name, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    with forked(lens, *command(name, out), log=log) as first:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/*/run.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
            assert first.is_alive(), log.read_text()[-2000:]
    before = losses(out)
    assert before and max(before) < STEPS, "killed on its way"
    assert "resuming at step" not in log.read_text()
    with forked(lens, *command(name, out), log=log) as second:
        second.join(timeout=200)
    assert second.exitcode == 0, log.read_text()[-2000:]
    assert "resuming at step" in " ".join(log.read_text().split())
    after = losses(out)
    assert sorted(after) == list(range(1, STEPS + 1))
    assert all(after[step] == loss for step, loss in before.items() if step in after)
    assert (out / "export" / "transformer" / "config.json").is_file()
    assert "reward" in (out / "metrics.jsonl").read_text() or name == "turbo"
