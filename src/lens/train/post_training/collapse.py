"""Conditions that end an RL run early: collapse of diversity or reward, and too many missing scores."""

from collections.abc import Mapping

import torch

from lens.train.settings.rl import CollapseSettings

MONITOR_DECAY = 0.9
"""Decay of the running means that detect a collapse."""


class CollapseMonitor:
    """Compares running means of diversity and reward with their values at the first update."""

    def __init__(self, settings: CollapseSettings):
        self._max_failed_share = settings.max_failed_share
        self._least = (settings.min_diversity_ratio, settings.min_reward_ratio)
        self.state = torch.full((4,), torch.nan)
        """First diversity and reward, running diversity and reward; a checkpoint keeps them."""

    def update(self, metrics: Mapping[str, float], failure: str) -> str:
        """Add the metrics of an update; return a reason to end the run, or an empty string.

        `failure` is the latest error of the reward.
        """
        if metrics["failed"] > self._max_failed_share:
            return f"{metrics['failed']:.0%} of the images got no score ({failure})"
        now = torch.tensor([metrics["diversity"], metrics["reward"]])
        first, running = self.state[:2], self.state[2:]
        if first.isnan().any():
            first.copy_(now)
            running.copy_(now)
        running.lerp_(now, 1 - MONITOR_DECAY)
        names = ("diversity", "reward")
        for name, value, start, share in zip(names, running, first, self._least, strict=True):
            if value < share * start:
                return f"{name} fell from {start:.3g} to {value:.3g}, a collapse"
        return ""
