"""A stage of three weights, for tests of what every run does."""

from pathlib import Path

import torch
from torch import nn

from lens.losses.base import LossOutput
from lens.train.settings.run import RunSettings


class Tiny:
    """A stage of three weights."""

    def __init__(self):
        self.model = nn.Linear(3, 1)

    def objective(self, step: int, index: int) -> LossOutput:
        return LossOutput(self.model(torch.ones(2, 3)).square().mean(), {})

    def evaluate(self):
        return {"score": 0.5}

    def sample_grid(self):
        return None

    def export(self, folder, state):
        folder.mkdir(exist_ok=True)


def settings_of(out: Path, **changes) -> RunSettings:
    values = {"stage": "none", "out": out / "run", "steps": 4, "log_every": 1, "probe_every": 4, "seed": 3}
    return RunSettings.of(values | changes)
