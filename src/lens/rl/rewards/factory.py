"""Rewards from their settings; a reward is loaded when it is first created."""

from importlib import import_module
from pathlib import Path

from lens.rl.rewards.base import Reward
from lens.rl.rewards.settings import AnyRewardSettings, WeightedRewardSettings


def create_reward(settings: AnyRewardSettings, folder: Path | None = None, name: str = "judge") -> Reward:
    """Return the reward of the settings.

    A reward that asks an endpoint keeps the responses in `folder`, in a file of its name, where there is a
    folder. Only one process may write to a folder.

    Raises: MissingExtraError where a package of the reward is not installed.
    """
    if isinstance(settings, WeightedRewardSettings):
        from lens.rl.rewards.weighted import WeightedReward

        parts = settings.parts.items()
        return WeightedReward(
            {key: (part.weight, create_reward(part.reward, folder, key)) for key, part in parts}
        )
    module, class_name = settings.implementation.split(":")
    reward_class = getattr(import_module(f"lens.rl.rewards.{module}"), class_name)
    return reward_class.from_settings(settings, folder / f"{name}.jsonl" if folder else None)
