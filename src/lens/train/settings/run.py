"""Settings that every training run has; a stage adds its own.

Knows nothing of torch: `lens train --help` reads this.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.train.gradient_guard import GuardSettings


class OptimizerSettings(Settings):
    lr: float = Field(2e-4, gt=0)
    """Learning rate of AdamW after warm-up."""
    muon_lr: float = Field(0.0, ge=0)
    """Learning rate of Muon on linear and convolution weights, same schedule; 0 leaves them to AdamW."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Shape of the learning rate after warm-up; cosine ends at a fiftieth of `lr`."""
    warmup_steps: int = Field(100, ge=0)
    """Updates over which the rate grows linearly from zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's two decays."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay, on matrices and convolutions only."""
    rates: dict[str, float] = Field(default_factory=dict)
    """Learning rates of AdamW of parts that have one of their own, by a word of their weights' names."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients of a larger norm are scaled down to it."""


class ParallelSettings(Settings):
    shard: int = Field(0, ge=0)
    """Processes that share one copy of the weights and of the optimizer's state; 0 for all of them. With
    fewer, groups of so many hold copies of each other (hybrid sharding); 1 keeps weights whole everywhere."""


class CheckpointSettings(Settings):
    every_s: float = Field(300, gt=0)
    """Seconds between two checkpoints; one is also written on SIGTERM and at the end."""
    keep_last: int = Field(1, ge=1)
    """Latest checkpoints that stay on disk."""
    background: bool = True
    """Write while the next updates are made, from a copy of the state."""
    best: str = ""
    """Number of the probe by which the best weights so far are exported to `best`, if any."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of that number is best."""


class RunSettings(Settings):
    """What every recipe has, whatever it trains."""

    stage: str
    """Which stage: vae, language, pretrain, denoiser, rl or distill."""
    out: Path
    """Folder of the run: checkpoints, metrics, samples, and the finished model under `export`."""
    steps: int = Field(gt=0)
    """Optimizer updates in all."""
    seed: int = 0
    """Every random draw of the run derives from it."""
    micro_batches: int = Field(1, gt=0)
    """Parts that a batch is computed in; several processes share them out."""
    optimizer: OptimizerSettings = Field(default_factory=lambda: OptimizerSettings.of({}))
    guard: GuardSettings = Field(default_factory=lambda: GuardSettings.of({}))
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are probed and exported."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Autocast type of the forward pass; weights and optimizer stay float32."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for the GPU where there is one."""
    compile: bool = False
    """Compile the blocks that repeat: minutes at the start for less time an update."""
    threads: int = Field(0, ge=0)
    """CPU threads of PyTorch; 0 keeps its own choice."""
    log_every: int = Field(20, gt=0)
    """Updates between two lines of metrics.jsonl."""
    probe_every: int = Field(1000, gt=0)
    """Updates between two probes and sample grids."""
    tracker: Literal["none", "trackio", "wandb"] = "none"
    """Experiment tracker that is told what metrics.jsonl is told: trackio, or Weights & Biases."""
    tracker_project: str = "lens"
    """Project of the tracker that the run belongs to."""
    checkpoint: CheckpointSettings = Field(default_factory=lambda: CheckpointSettings.of({}))
    parallel: ParallelSettings = Field(default_factory=lambda: ParallelSettings.of({}))
    start_from: Path | None = None
    """An exported model whose weights a fresh run begins with (a warm start, not a resume)."""

    def check_inputs(self) -> None:
        """Look for what the run would read.

        Raises: SettingError that names what is not there.
        """
        if self.start_from is not None and not self.start_from.exists():
            raise SettingError("start_from", str(self.start_from), "the folder of an exported model")


class BatchSettings(RunSettings):
    """Of a stage whose updates are of one number of samples each."""

    batch_size: int = Field(gt=0)
    """Samples an update, over all micro-batches."""

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Self:
        if self.batch_size % self.micro_batches:
            needs = f"a multiple of micro_batches, {self.micro_batches}"
            raise SettingError("batch_size", self.batch_size, needs)
        return self
