"""Settings of the distill stage, which distils a denoiser to few steps.

Loads no torch, so that a wrong recipe is refused at once. Spec: section 10.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.data.image_text_dataset import ImageTextSettings, check_source
from lens.errors import SettingError
from lens.nano.tasks import DENSE_SHARE, WorldConfig
from lens.train.settings.run import ActivationCheckpointing, LoraSettings, RunSettings
from lens.train.settings.stages import bucket_sizes


class NanoDataSettings(Settings):
    cache: Path
    """Folder of cached latents and text features."""
    base: int = 128
    """Base resolution."""
    ratios: tuple[str, ...] = ()
    """Aspect ratios of the training images; empty for all nine. Quote them: YAML reads 1:1 as a number."""
    examples: int = Field(9216, gt=0)
    """Distinct examples, divided among the ratios in shards of 256."""
    world: str = "tasks"
    """World of training and evaluation: `tasks`, of the six tasks, or `micro`, a part of it."""
    dense_share: float = Field(DENSE_SHARE, ge=0, le=1)
    """Share of dense captions; the others are brief."""
    captions: dict[str, Any] | None = None
    """Train on the whole world, with shares of captions as in `lens.nano.captions.CaptionMix`."""
    batch_size: int = Field(16, gt=0)
    """Images per micro-batch, all of one size."""
    probe_prompts: int = Field(4, ge=0)
    """Prompts per task in an evaluation; 0 for no evaluation."""
    probe_ratios: tuple[str, ...] = Field(("1:1",), min_length=1)
    """Aspect ratios of an evaluation; its prompts alternate between them."""
    probe_processes: int = Field(0, ge=0)
    """Processes that score evaluation images; 0 scores them in the training process."""


class DistillSettings(RunSettings):
    """A student that samples in few steps without guidance, and a frozen teacher. Spec: section 10."""

    model: str
    """Known name or folder of the teacher, which also provides the encoders. `start_from` replaces its
    denoiser. Student and fake model start with the teacher's weights."""
    nano: NanoDataSettings | None = None
    """Real images and captions from the nano world."""
    data: ImageTextSettings | None = None
    """Your own images and captions, instead of `nano`."""
    store: Path | None = None
    """Folder of cached latents and text features of `data`."""
    feature_bits: Literal[8, 16] = 16
    """Bits of a cached text feature. With 8 the cache takes half the space, and the rounding error is at most
    1/254 of a token's largest value."""
    pack_tokens: int = Field(17_000, ge=1)
    """Maximum image tokens of a micro-batch of `data`: four images of base 1024."""
    lora: LoraSettings | None = None
    """Train student and fake model as LoRA adapters on the teacher, whose weights stay unchanged."""
    frozen_dtype: Literal["bf16", "float32"] = "bf16"
    """Dtype of the weights that are not trained: the teacher's."""
    gradient_checkpointing: ActivationCheckpointing = "none"
    """What the backward pass recomputes to save memory; true is full, and false none."""
    student_steps: int = Field(4, ge=1)
    """Sampling steps of the student, at the noise levels of the pipeline."""
    simulation: Literal["renoise", "euler"] = "renoise"
    """How the student's earlier steps are simulated: with fresh noise for each step, as published, or by
    Euler steps, as the pipeline samples."""
    critic_updates: int = Field(4, ge=1)
    """Updates of the fake model and the discriminator before each update of the student."""
    dm_weight: float = Field(0.1, ge=0)
    """Weight of distribution matching; with 0 there is no fake model."""
    ca_weight: float = Field(0.1, ge=0)
    """Weight of guidance augmentation; 0 turns it off."""
    ca_scale: float = Field(5.0, ge=1)
    """Guidance scale of the teacher that the student learns; at 1 the term is zero."""
    ca_normalized: bool = False
    """Divide guidance augmentation by each sample's distance to the teacher, as in distribution matching."""
    adversarial_weight: float = Field(0.001, ge=0)
    """Weight of the adversarial loss; with 0 the discriminator is not trained."""
    trajectory_weight: float = Field(0.0, ge=0)
    """Weight of the trajectory loss: the distance to the teacher's result at the student's next time, with
    guidance `ca_scale` and from the same point. 0, as published, turns it off."""
    teacher_substeps: int = Field(5, ge=1)
    """Steps of the teacher for one step of the student, in the trajectory loss."""
    student_from: Path | None = None
    """Folder of a denoiser that the student starts from; by default the teacher. Not with `lora`."""
    discriminator_blocks: tuple[int, ...] = ()
    """Blocks of the teacher that the discriminator reads, counted from 0; empty for three in the middle."""
    r1_gamma: float = Field(1.0, ge=0)
    """Weight, halved, of the approximate R1 penalty on real images; 0 turns it off."""
    ida_share: float = Field(0.03, ge=0, lt=1)
    """Share of the way to the student that the fake model moves after each student update; 0 is none."""
    previews: tuple[str, ...] = ()
    """Prompts of the sample grid of a run on `data`."""
    variant: str = "turbo"
    """Variant that the exported pipeline declares."""

    @model_validator(mode="after")
    def _validate_data_and_losses(self) -> Self:
        if (self.nano is None) == (self.data is None):
            given = "neither" if self.nano is None else "both"
            raise SettingError("data", given, "exactly one of data and nano")
        if self.data is not None and self.store is None:
            raise SettingError("store", None, "a folder for the encoded images of `data`")
        if not (self.dm_weight or self.ca_weight or self.adversarial_weight or self.trajectory_weight):
            needs = "a positive value here, or in ca_weight, adversarial_weight or trajectory_weight"
            raise SettingError("dm_weight", 0, needs)
        if self.trajectory_weight and self.simulation != "euler":
            needs = "euler if trajectory_weight is not 0, as fresh noise breaks the trajectory"
            raise SettingError("simulation", self.simulation, needs)
        if self.student_from is not None and self.lora is not None:
            needs = "to be left out with lora, as student and teacher then share their weights"
            raise SettingError("student_from", str(self.student_from), needs)
        return self

    @property
    def critic_parts(self) -> tuple[str, ...]:
        """Return the parts that are trained alternately with the student."""
        return ("fake",) * (self.dm_weight > 0) + ("heads",) * (self.adversarial_weight > 0)

    def check_inputs(self) -> None:
        super().check_inputs()
        if self.nano is not None:
            bucket_sizes("nano.ratios", self.nano.ratios, self.nano.base)
            bucket_sizes("nano.probe_ratios", self.nano.probe_ratios, self.nano.base)
            WorldConfig.of(self.nano.world, self.nano.dense_share)
        else:
            assert self.data is not None
            check_source(self.data)
