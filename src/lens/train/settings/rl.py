"""Settings of the stage that tunes a model by rewards.

Knows nothing of torch: a wrong recipe is told at once. Spec: section 9.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.nano.tasks import TASKS
from lens.rl.rewards.settings import AnyRewardSettings
from lens.sampling.solvers import get_solver
from lens.train.settings.run import RunSettings
from lens.train.settings.stages import ActivationCheckpointing, LoraSettings, bucket_sizes


class RlNanoPromptSettings(Settings):
    """Prompts of the nano world, made on the spot."""

    count: int = Field(2048, ge=1)
    """A smaller number is the beginning of a larger one."""
    seed: int = 0
    kinds: tuple[str, ...] = TASKS
    """Which of the six kinds there are."""
    dense_share: float = Field(0.2, ge=0, le=1)
    """Share of prompts that are dense captions."""
    new_share: float = Field(0.7, ge=0, le=1)
    """Share of the brief ones that are in words which neither training nor tests use."""


class CollapseSettings(Settings):
    """When a run is taken for lost; both compare a running mean with the first update's."""

    min_diversity_ratio: float = Field(0.4, ge=0, lt=1)
    """Distance between pictures of a group, as a share of the first update's, below which the run ends."""
    min_reward_ratio: float = Field(0.5, ge=0, lt=1)
    """Mean reward, as a share of the first update's, below which the run ends."""
    max_failed_share: float = Field(0.5, gt=0, le=1)
    """Share of an update's pictures without a score above which the run ends."""


class RlSettings(RunSettings):
    model: str
    """Known name or folder of the model that is tuned."""
    prompts: Path | None = None
    """Prompts with rubrics, as `lens rl rubrics` writes them."""
    nano_prompts: RlNanoPromptSettings | None = None
    """Prompts of the nano world instead."""
    reward: AnyRewardSettings
    """What judges pictures."""
    reward_workers: int = Field(4, ge=1)
    """Pictures that are judged at once."""
    reward_timeout_s: float = Field(120, gt=0)
    """After which a picture counts as one without a score."""
    screening: int = Field(0, ge=0)
    """Pictures of each prompt that are drawn and judged before the first update: prompts whose pictures are
    all without fault leave nothing to learn, and are left out. 0 keeps all prompts."""
    prompts_per_step: int = Field(48, ge=1)
    """Groups of an update."""
    groups_per_pass: int = Field(1, ge=1)
    """Groups that are drawn and learned from together, all of one size: what a GPU that one group leaves idle
    has room for."""
    text_encoder_batch_size: int = Field(1, ge=1)
    """Prompts that go through the text encoder together. With more than 1 all of them do so before the first
    update, and their features stay in memory; with 1 each does when its turn comes."""
    images_per_prompt: int = Field(24, ge=2)
    """Pictures of a group, all of one size."""
    bases: tuple[int, ...] = (1024,)
    """Base resolutions; a group takes one of their sizes."""
    ratios: tuple[str, ...] = ()
    """Aspect ratios, in quotes; none for all nine."""
    rollout_steps: int = Field(10, ge=2)
    """Steps that pictures are drawn in, without guidance."""
    solver: str = "ab2"
    """Solver of the rollouts, by its name in `lens.sampling.solvers.SOLVERS`."""
    times_per_image: int = Field(9, ge=1)
    """Times at which each picture is learned from: some of the rollout's own but its last."""
    nft_beta: float = Field(1.0, gt=0)
    """How far the two policies that are compared lie from the sampling one."""
    kl_weight: float = Field(1e-4, ge=0)
    """Weight of the squared distance to the model as it was; 0 does not compute it."""
    advantage_clip: float = Field(5.0, gt=0)
    """Largest advantage, in spreads of the whole batch."""
    advantage_width: float = Field(10.0, gt=0)
    """Advantages from -width / 2 to width / 2 are spread over rewards from 0 to 1; the paper has 2."""
    even_groups: bool = True
    """Whether groups whose pictures were all judged alike are learned from: which holds it back."""
    old_decay: Literal["grown", "zero", "late"] = "grown"
    """How the sampling policy follows the trained one."""
    lora: LoraSettings | None = None
    """Tune by adapters on one base, instead of whole copies."""
    frozen_dtype: Literal["bf16", "float32"] = "bf16"
    """Type of the weights that adapters leave as they are."""
    gradient_checkpointing: ActivationCheckpointing = "none"
    """What is computed again on the way back, for less memory."""
    collapse: CollapseSettings = Field(default_factory=lambda: CollapseSettings.of({}))
    held_out: int = Field(0, ge=0)
    """Last prompts of the file that are not trained on but drawn and judged by every probe."""
    held_out_reward: AnyRewardSettings | None = None
    """Another judge for them; the same where there is none."""
    probe_prompts: int = Field(0, ge=0)
    """Prompts of each of the nano world's six tasks that every probe draws and scores."""
    probe_guidance: tuple[float, ...] = (1.0,)
    """Guidance that probes draw with; numbers of all but the first begin with `guidance <value>/`."""
    probe_steps: int = Field(20, ge=1)
    """Steps that probes draw in."""
    probe_processes: int = Field(0, ge=0)
    """Processes that score probes; 0 does so in the run's own."""

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
                needs = f"{needed}, passes x times_per_image, or to be left out"
                raise SettingError("micro_batches", values["micro_batches"], needs)
            return {**values, "micro_batches": needed}
        return values

    @model_validator(mode="after")
    def _validate_times_and_prompts(self) -> Self:
        if self.times_per_image >= self.rollout_steps:
            needs = f"below rollout_steps = {self.rollout_steps}, as the last time is left out"
            raise SettingError("times_per_image", self.times_per_image, needs)
        if (self.prompts is None) == (self.nano_prompts is None):
            got = "both" if self.prompts else None
            raise SettingError("prompts", got, "one of prompts and nano_prompts to be given")
        return self

    @property
    def rollout_evaluations(self) -> int:
        """Passes of the denoiser that drawing an image takes."""
        return self.rollout_steps * get_solver(self.solver).num_velocities

    def check_inputs(self) -> None:
        super().check_inputs()
        for base in self.bases:
            bucket_sizes("ratios", self.ratios, base)
        if self.prompts is not None and not self.prompts.is_file():
            fix = "`lens rl prompts` and `lens rl rubrics` make one."
            raise SettingError("prompts", str(self.prompts), "a file that is there", fix)


_MICRO_BATCH_FIELDS = ("prompts_per_step", "times_per_image", "groups_per_pass")
