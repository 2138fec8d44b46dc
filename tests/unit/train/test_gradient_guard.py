"""The guard turns down what is no number or far too large; a run goes back when that is not enough."""

import json
import math

import pytest
import torch
from torch import nn

from lens.errors import NonFiniteError
from lens.losses.base import LossOutput
from lens.train.gradient_guard import GradientGuard
from lens.train.settings.run import GuardSettings, RunSettings
from lens.train.trainer import fit


def judged(norms, **settings) -> list[bool]:
    guard = GradientGuard(GuardSettings.of({"max_ratio": 4.0, "window": 5} | settings))
    return [guard.accepts(norm) for norm in norms]


def test_what_is_no_number_is_always_turned_down():
    assert judged([1.0, math.nan, math.inf, 2.0], max_ratio=0.0) == [True, False, False, True]


def test_a_spike_is_measured_against_the_median_of_those_that_were_accepted():
    assert judged([9.0, 100.0, 1.0, 1.0, 1.0, 4.1, 3.9]) == [True, True, True, True, True, False, True]
    assert judged([1.0] * 5 + [50.0] * 9) == [True] * 5 + [False] * 9
    assert judged([1.0] * 5 + [50.0], max_ratio=0.0) == [True] * 6


def test_its_memory_survives_a_checkpoint():
    first = GradientGuard(GuardSettings.of({"max_ratio": 2.0, "window": 3}))
    for norm in (1.0, 1.0, 1.0, 9.0):
        first.accepts(norm)
    second = GradientGuard(first.settings)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert (second.num_skipped, second.num_consecutive_skips) == (1, 1)
    assert not second.accepts(2.1) and second.accepts(1.9) and second.num_consecutive_skips == 0


class Breaking:
    """A stage whose weights turn to no numbers at a step, or whose data do for a while."""

    def __init__(self, break_weights_at: int = -1, bad_steps: range = range(0)):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.break_weights_at, self.bad_steps = break_weights_at, bad_steps
        self.seen: list[int] = []

    def objective(self, step: int, index: int) -> LossOutput:
        self.seen.append(step)
        if step == self.break_weights_at:
            with torch.no_grad():
                self.model.weight.fill_(math.nan)
        bad = math.nan if step in self.bad_steps else 1.0
        return LossOutput(bad * self.model(torch.ones(2, 3)).square().mean(), {})

    def evaluate(self):
        return {}

    def sample_grid(self):
        return None

    def export(self, folder, state):
        folder.mkdir(exist_ok=True)


def settings_of(out, **changes) -> RunSettings:
    values = {
        "stage": "none", "out": out, "steps": 12, "log_every": 1,
        "checkpoint": {"every_s": 1e-9},
        "optimizer": {"lr": 0.01, "warmup_steps": 0}, "guard": {"max_skips": 3}, "probe_every": 1000,
    }  # fmt: skip
    return RunSettings.of(values | changes)


def test_poisoned_batches_are_left_out_and_counted(tmp_path):
    run = fit(Breaking(bad_steps=range(4, 6)), settings_of(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert [step for step, loss in losses.items() if loss is None] == [5, 6]
    assert lines[-2]["skipped"] == 2 and run.ema.num_updates == 10
    assert torch.isfinite(run.model.weight).all()


def test_a_guard_that_reads_seldom_leaves_out_the_same_batches(tmp_path):
    seldom = {"guard": {"max_skips": 3, "read_every": 5}}
    runs = [
        fit(Breaking(bad_steps=range(4, 6)), settings_of(tmp_path / name, **changes))
        for name, changes in (("always", {}), ("seldom", seldom))
    ]
    assert [run.guard.num_skipped for run in runs] == [2, 2], "a checkpoint reads what is left"
    assert torch.equal(runs[0].model.weight, runs[1].model.weight)
    steps = [next(iter(run.optimizer.optimizers[0].state.values()))["step"] for run in runs]
    assert steps[0] == steps[1] == 10


def test_broken_weights_are_replaced_by_those_of_the_last_checkpoint_and_no_batch_is_seen_twice(tmp_path):
    fit(Breaking(), settings_of(tmp_path, steps=4, checkpoint={"every_s": 1e9}))
    stage = Breaking(break_weights_at=6)
    run = fit(stage, settings_of(tmp_path, checkpoint={"every_s": 1e9}))
    assert stage.seen == list(range(4, 12))
    assert torch.isfinite(run.model.weight).all() and run.guard.num_skipped == 3
    # Four updates, two that were lost with the broken weights, then three more.
    assert run.ema.num_updates == 4 + 3


def test_a_run_that_going_back_does_not_help_stops_and_says_what_to_change(tmp_path):
    fit(Breaking(), settings_of(tmp_path, steps=4, checkpoint={"every_s": 1e9}))
    with pytest.raises(NonFiniteError, match=r"3 updates in a row .* at step 9\. .*Lower optimizer\.lr"):
        fit(Breaking(bad_steps=range(4, 99)), settings_of(tmp_path, checkpoint={"every_s": 1e9}))


def test_a_run_without_a_checkpoint_stops(tmp_path):
    with pytest.raises(NonFiniteError, match="at step 2"):
        fit(Breaking(bad_steps=range(99)), settings_of(tmp_path, checkpoint={"every_s": 1e9}))


def test_a_norm_is_compared_with_those_of_its_kind():
    guard = GradientGuard(GuardSettings(max_ratio=3, window=3))
    for _ in range(3):
        assert guard.accepts(1.0, "student") and guard.accepts(100.0, "critic")
    assert guard.accepts(150.0, "critic") and not guard.accepts(150.0, "student")
    again = GradientGuard(guard.settings)
    again.load_state_dict(guard.state_dict())
    assert again.accepts(150.0, "critic") and not again.accepts(150.0, "student")
