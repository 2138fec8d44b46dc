"""Settings that every training run has, and settings that several stages share.

Loads no torch, so that a wrong recipe is refused at once.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.files import check_writable

ActivationCheckpointing = Annotated[
    Literal["none", "selective", "full"],
    BeforeValidator(lambda value: {True: "full", False: "none"}[value] if isinstance(value, bool) else value),
]
"""What the blocks recompute in the backward pass; true is full, and false none."""


class OptimizerSettings(Settings):
    lr: float = Field(2e-4, gt=0)
    """Learning rate of AdamW after warm-up."""
    muon_lr: float = Field(0.0, ge=0)
    """Learning rate of Muon, for linear and convolution weights; 0 leaves them to AdamW."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate schedule after warm-up; cosine ends at a fiftieth of `lr`."""
    warmup_steps: int = Field(100, ge=0)
    """Updates over which the learning rate grows linearly from zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    """The two decay rates of AdamW."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, for matrices and convolutions only."""
    rates: dict[str, float] = Field(default_factory=dict)
    """AdamW learning rates of single parts, by a word that occurs in the names of their weights."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients with a larger norm are scaled down to it."""


class GuardSettings(Settings):
    max_ratio: float = Field(0.0, ge=0)
    """An update is skipped if its gradient norm exceeds this multiple of the median of the last `window`
    norms. With 0, only updates with non-finite gradients are skipped."""
    window: int = Field(100, ge=2)
    """Norms in the median. No norm counts as too large before that many updates."""
    max_skips: int = Field(10, ge=1)
    """Consecutive skipped updates after which the run returns to its last checkpoint, and later stops."""
    read_every: int = Field(1, ge=1)
    """Updates between two readings of the gradient norms. With 1 the host waits for each. With more, the
    device skips updates with non-finite gradients by itself, and `max_ratio` must be 0."""

    @model_validator(mode="after")
    def _spikes_are_seen_at_once(self) -> Self:
        if self.read_every > 1 and self.max_ratio:
            raise SettingError("guard.max_ratio", self.max_ratio, "0 with guard.read_every above 1")
        return self


class LoraSettings(Settings):
    rank: int = Field(16, ge=1)
    """Rank of every adapter."""
    alpha: int = Field(16, ge=1)
    """The output of an adapter is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("img_qkv", "txt_qkv", "to_out.0", "to_add_out", "w1", "w2", "w3")
    """Linear layers of the blocks that get an adapter, by the end of their names."""


class ParallelSettings(Settings):
    shard: int = Field(0, ge=0)
    """Processes that share one copy of the weights and of the optimizer state; 0 means all. A smaller number
    forms several groups with a copy each (hybrid sharding). With 1, every process holds a full copy."""


class CheckpointSettings(Settings):
    every_s: float = Field(300, gt=0)
    """Seconds between two checkpoints. A checkpoint is also written on SIGTERM and at the end."""
    keep_last: int = Field(1, ge=1)
    """Number of the latest checkpoints that stay on disk."""
    background: bool = True
    """Write a copy of the state in the background, while training continues."""
    best: str = ""
    """Evaluation metric that selects the weights in the folder `best`; empty for no such folder."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of that metric is best."""


class RunSettings(Settings):
    """Settings of every recipe, whatever it trains."""

    stage: str
    """Name of the stage, as in `lens.train.run.STAGES`."""
    out: Path
    """Folder of the run. It receives checkpoints, metrics, samples, and the trained model in `export`."""
    steps: int = Field(gt=0)
    """Total number of optimizer updates."""
    max_minutes: float = Field(0.0, ge=0)
    """Minutes after which the command stops with a checkpoint, as on SIGTERM, and continues if it is given
    again; 0 for no limit. They include the preparation of the data."""
    seed: int = 0
    """Seed of all random draws of the run."""
    micro_batches: int = Field(1, gt=0)
    """Micro-batches of an update (gradient accumulation). Several processes divide them among themselves."""
    optimizer: OptimizerSettings = Field(default_factory=lambda: OptimizerSettings.of({}))
    guard: GuardSettings = Field(default_factory=lambda: GuardSettings.of({}))
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """Decay of the moving average of the weights. Evaluations and exports use the averaged weights."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Autocast type of the forward pass; weights and optimizer state stay in float32."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`, which takes the GPU if there is one."""
    compile: bool = False
    """Compile the repeated blocks. This takes minutes at the start and makes each update faster."""
    threads: int = Field(0, ge=0)
    """CPU threads of PyTorch; 0 keeps its default."""
    log_every: int = Field(20, gt=0)
    """Updates between two lines of metrics.jsonl."""
    probe_every: int = Field(1000, gt=0)
    """Updates between two evaluations with sample grids."""
    tracker: Literal["none", "trackio", "wandb"] = "none"
    """Experiment tracker that also receives every line of metrics.jsonl: trackio, or Weights & Biases."""
    tracker_project: str = "lens"
    """Project of the run in the tracker."""
    checkpoint: CheckpointSettings = Field(default_factory=lambda: CheckpointSettings.of({}))
    parallel: ParallelSettings = Field(default_factory=lambda: ParallelSettings.of({}))
    start_from: Path | None = None
    """Exported model that provides the initial weights of a new run (a warm start, not a resume)."""

    @model_validator(mode="after")
    def _device_can_skip_updates(self) -> Self:
        if self.guard.read_every > 1 and self.optimizer.muon_lr:
            raise SettingError("guard.read_every", self.guard.read_every, "1 with optimizer.muon_lr")
        return self

    def check_inputs(self) -> None:
        """Check that the files and folders that the run reads exist.

        Raises: SettingError that names what is missing.
        """
        if self.start_from is not None and not self.start_from.exists():
            raise SettingError("start_from", str(self.start_from), "the folder of an exported model")
        check_writable(self.out, "out")


class BatchSettings(RunSettings):
    """Settings of a stage whose updates all have the same number of samples."""

    batch_size: int = Field(gt=0)
    """Samples per update, over all micro-batches."""

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Self:
        if self.batch_size % self.micro_batches:
            needs = f"a multiple of micro_batches, {self.micro_batches}"
            raise SettingError("batch_size", self.batch_size, needs)
        return self
