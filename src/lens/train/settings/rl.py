"""Settings of the rl stage, which fine-tunes a model by rewards.

Loads no torch, so that a wrong recipe is refused at once. Spec: section 9.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.nano.tasks import FULL_WORLD, WorldConfig
from lens.rl.prompts.settings import NanoPromptSettings
from lens.rl.rewards.settings import AnyRewardSettings
from lens.sampling.solvers import get_solver
from lens.train.settings.run import ActivationCheckpointing, LoraSettings, RunSettings
from lens.train.settings.stages import bucket_sizes


class RlNanoPromptSettings(NanoPromptSettings):
    """Prompts of the nano world that the run generates itself."""

    count: int = Field(2048, ge=1)
    """Number of prompts. A smaller set is the beginning of a larger one."""
    seed: int = 0
    """Seed of the prompts."""
    world: str = "tasks"
    """World of the prompts of the six tasks and of an evaluation: `tasks`, or `micro`, a part of it."""


class CollapseSettings(Settings):
    """Conditions that end a run early. The first two compare a running mean with the first update."""

    min_diversity_ratio: float = Field(0.4, ge=0, lt=1)
    """The run ends if the distance between images of a group falls below this share of the first update's."""
    min_reward_ratio: float = Field(0.5, ge=0, lt=1)
    """The run ends if the mean reward falls below this share of the first update's."""
    max_failed_share: float = Field(0.5, gt=0, le=1)
    """The run ends if more than this share of an update's images has no score."""


class RlSettings(RunSettings):
    model: str
    """Known name or folder of the model to fine-tune."""
    prompts: Path | None = None
    """File of prompts with rubrics, as `lens rl rubrics` writes it."""
    nano_prompts: RlNanoPromptSettings | None = None
    """Prompts of the nano world instead of a file."""
    reward: AnyRewardSettings
    """Reward that scores the images."""
    reward_workers: int = Field(4, ge=1)
    """Images that are scored at the same time."""
    reward_timeout_s: float = Field(120, gt=0)
    """Seconds after which an image counts as unscored."""
    screening: int = Field(0, ge=0)
    """Images of each prompt that are sampled and scored before the first update. Prompts whose images all get
    the highest score are left out, as they teach nothing. 0 keeps all prompts."""
    prompts_per_step: int = Field(48, ge=1)
    """Prompts per update; each makes a group of images."""
    groups_per_pass: int = Field(1, ge=1)
    """Groups of one image size that are sampled and trained on together. Raise it if one group does not fill
    the GPU."""
    text_encoder_batch_size: int = Field(1, ge=1)
    """Batch size of the text encoder. With more than 1, all prompts are encoded before the first update and
    their features stay in memory. With 1, each prompt is encoded when it is used."""
    images_per_prompt: int = Field(24, ge=2)
    """Images per group, all of one size."""
    bases: tuple[int, ...] = (1024,)
    """Base resolutions; each group has one of their image sizes."""
    ratios: tuple[str, ...] = ()
    """Aspect ratios, in quotes; empty for all nine."""
    rollout_steps: int = Field(10, ge=2)
    """Sampling steps of a rollout, without guidance."""
    solver: str = "ab2"
    """Solver of the rollouts, by its name in `lens.sampling.solvers.SOLVERS`."""
    times_per_image: int = Field(9, ge=1)
    """Times at which each image is trained on, out of the rollout's own times without the last."""
    nft_beta: float = Field(1.0, gt=0)
    """Distance of the positive and the negative policy from the sampling policy."""
    kl_weight: float = Field(1e-4, ge=0)
    """Weight of the squared distance to the original model; with 0 it is not computed."""
    advantage_clip: float = Field(5.0, gt=0)
    """Largest advantage, in standard deviations of the whole batch."""
    advantage_width: float = Field(10.0, gt=0)
    """Advantages from -width / 2 to width / 2 are mapped to rewards from 0 to 1. The paper has 2."""
    even_groups: bool = True
    """Whether to train on groups whose images all got the same score; they slow learning down."""
    old_decay: Literal["grown", "zero", "late"] = "grown"
    """How the sampling policy follows the trained policy."""
    lora: LoraSettings | None = None
    """Train LoRA adapters on one base model instead of full copies."""
    frozen_dtype: Literal["bf16", "float32"] = "bf16"
    """Dtype of the weights that LoRA leaves unchanged."""
    gradient_checkpointing: ActivationCheckpointing = "none"
    """What the backward pass recomputes to save memory."""
    collapse: CollapseSettings = Field(default_factory=lambda: CollapseSettings.of({}))
    held_out: int = Field(0, ge=0)
    """Number of prompts, the last ones, that are evaluated and not trained on."""
    held_out_reward: AnyRewardSettings | None = None
    """Reward of the held-out prompts; by default the training reward."""
    probe_prompts: int = Field(0, ge=0)
    """Prompts per task of the nano world in an evaluation; 0 for none."""
    probe_guidance: tuple[float, ...] = (1.0,)
    """Guidance scales of an evaluation. Metrics of all but the first begin with `guidance <value>/`."""
    probe_steps: int = Field(20, ge=1)
    """Sampling steps of an evaluation."""
    probe_processes: int = Field(0, ge=0)
    """Processes that score evaluation images; 0 scores them in the training process."""

    @field_validator("solver")
    @classmethod
    def _validate_solver(cls, name: str) -> str:
        get_solver(name)
        return name

    @model_validator(mode="before")
    @classmethod
    def _derive_micro_batches(cls, values: Any) -> Any:
        parts = [values.get(name, cls.model_fields[name].default) for name in _MICRO_BATCH_FIELDS]
        if all(isinstance(part, int) for part in parts) and parts[2] > 0:
            groups, times, at_once = parts
            if groups % at_once:
                needs = f"a divisor of prompts_per_step = {groups}"
                raise SettingError("groups_per_pass", at_once, needs)
            needed = groups // at_once * times
            if values.get("micro_batches", needed) != needed:
                needs = f"{needed} (passes x times_per_image), or to be left out"
                raise SettingError("micro_batches", values["micro_batches"], needs)
            return {**values, "micro_batches": needed}
        return values

    @model_validator(mode="after")
    def _validate_times_and_prompts(self) -> Self:
        if self.times_per_image >= self.rollout_steps:
            needs = f"fewer than rollout_steps = {self.rollout_steps}, as the last time is not trained on"
            raise SettingError("times_per_image", self.times_per_image, needs)
        if (self.prompts is None) == (self.nano_prompts is None):
            got = "both" if self.prompts else None
            raise SettingError("prompts", got, "exactly one of prompts and nano_prompts")
        return self

    @property
    def world(self) -> WorldConfig:
        """Return the world of the generated prompts of the six tasks, and of an evaluation."""
        own = self.nano_prompts
        return FULL_WORLD if own is None else WorldConfig.of(own.world, own.dense_share)

    @property
    def rollout_evaluations(self) -> int:
        """Return the passes of the denoiser that a rollout of one image takes."""
        return self.rollout_steps * get_solver(self.solver).num_velocities

    def check_inputs(self) -> None:
        super().check_inputs()
        for base in self.bases:
            bucket_sizes("ratios", self.ratios, base)
        _ = self.world  # refuses an unknown one
        if self.prompts is not None and not self.prompts.is_file():
            fix = "Make one with `lens rl prompts` and `lens rl rubrics`."
            raise SettingError("prompts", str(self.prompts), "an existing file", fix)


_MICRO_BATCH_FIELDS = ("prompts_per_step", "times_per_image", "groups_per_pass")
