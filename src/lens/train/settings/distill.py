"""Settings of distillation to few steps.

Knows nothing of torch: a wrong recipe is told at once. Spec: section 10.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.data.image_text_dataset import ImageTextSettings, check_source
from lens.errors import SettingError
from lens.nano.tasks import DENSE_SHARE
from lens.train.settings.run import RunSettings
from lens.train.settings.stages import ActivationCheckpointing, LoraSettings, bucket_sizes


class NanoDataSettings(Settings):
    cache: Path
    """Folder of cached latents and text features."""
    base: int = 128
    """Base resolution."""
    ratios: tuple[str, ...] = ()
    """Aspect ratios that are trained on, in quotes, as YAML reads 1:1 as a number; none for all nine."""
    examples: int = Field(9216, gt=0)
    """Distinct examples, shared out over the ratios in shards of 256."""
    dense_share: float = Field(DENSE_SHARE, ge=0, le=1)
    """Share of captions that are dense; the others are brief."""
    batch_size: int = Field(16, gt=0)
    """Pictures a micro-batch, all of one size."""
    probe_prompts: int = Field(4, ge=0)
    """Prompts a task that a probe draws and scores; 0 for no probe."""
    probe_ratios: tuple[str, ...] = Field(("1:1",), min_length=1)
    """Aspect ratios that probes draw in, by turns."""
    probe_processes: int = Field(0, ge=0)
    """Processes that score probes; 0 does so in the run's own."""


class DistillSettings(RunSettings):
    """A student that draws in few steps without guidance, taught by a frozen model. Spec: section 10."""

    model: str
    """Known name or folder of the teacher, whose encoders are used too; `start_from`, if given, is a denoiser
    in the place of its own. Student and fake model start as it is."""
    nano: NanoDataSettings | None = None
    """Real pictures and captions from the nano world."""
    data: ImageTextSettings | None = None
    """Real pictures and captions of one's own, in the place of `nano`."""
    store: Path | None = None
    """Folder that the encoded pictures of `data` are kept in."""
    feature_bits: Literal[8, 16] = 16
    """Bits of a stored text feature; 8 halves the store and rounds by 1/254 of a token's largest value."""
    pack_tokens: int = Field(17_000, ge=1)
    """Image tokens of `data` that a micro-batch has at most: four pictures of base 1024."""
    lora: LoraSettings | None = None
    """Make student and fake model adapters on the teacher, and leave its weights as they are."""
    frozen_dtype: Literal["bf16", "float32"] = "bf16"
    """Type of the weights that are never changed: the teacher's."""
    gradient_checkpointing: ActivationCheckpointing = "none"
    """What is computed again on the way back, for less memory; true is full, and false none."""
    student_steps: int = Field(4, ge=1)
    """Steps that the student draws in, at the sampler's own noise levels."""
    simulation: Literal["renoise", "euler"] = "renoise"
    """How the student's earlier steps are simulated: its picture noised anew for the next one, as published,
    or by the noise that it saw, as the pipeline samples."""
    critic_updates: int = Field(4, ge=1)
    """Updates of fake model and discriminator before each one of the student."""
    dm_weight: float = Field(0.1, ge=0)
    """Weight of distribution matching; 0 leaves it and the fake model out."""
    ca_weight: float = Field(0.1, ge=0)
    """Weight of guidance augmentation; 0 leaves it out."""
    ca_scale: float = Field(5.0, ge=1)
    """Guidance of the teacher that the student learns to draw with; at 1 there is nothing to learn."""
    ca_normalized: bool = False
    """Divide guidance augmentation by each sample's distance to the teacher, as distribution matching is."""
    adversarial_weight: float = Field(0.001, ge=0)
    """Weight of passing for real; 0 leaves it and the discriminator out."""
    trajectory_weight: float = Field(0.0, ge=0)
    """Weight of the distance to where the teacher, with guidance `ca_scale`, is at the student's next time
    when both start from where the student is; 0, as published, leaves it out."""
    teacher_substeps: int = Field(5, ge=1)
    """Steps that the teacher takes through one of the student's, for that."""
    student_from: Path | None = None
    """Folder of a denoiser that the student starts from; none for the teacher. Not with `lora`."""
    discriminator_blocks: tuple[int, ...] = ()
    """Blocks of the teacher that the discriminator reads, counted from 0; none for three in the middle."""
    r1_gamma: float = Field(1.0, ge=0)
    """Weight, halved, of the approximate R1 penalty on real pictures; 0 leaves it out."""
    ida_share: float = Field(0.03, ge=0, lt=1)
    """Share of the way to the student that the fake model moves after each update of it; 0 leaves it out."""
    previews: tuple[str, ...] = ()
    """Prompts that every probe of a run on `data` draws."""
    variant: str = "turbo"
    """Variant that an exported pipeline says it is."""

    @model_validator(mode="after")
    def _validate_data_and_losses(self) -> Self:
        if (self.nano is None) == (self.data is None):
            given = "neither" if self.nano is None else "both"
            raise SettingError("data", given, "either this or `nano`")
        if self.data is not None and self.store is None:
            raise SettingError("store", None, "a folder that the encoded pictures of `data` are kept in")
        if not (self.dm_weight or self.ca_weight or self.adversarial_weight or self.trajectory_weight):
            needs = "to be more than 0, or ca_weight, adversarial_weight or trajectory_weight to be"
            raise SettingError("dm_weight", 0, needs)
        if self.trajectory_weight and self.simulation != "euler":
            needs = "euler where trajectory_weight is not 0: with fresh noise no step follows another"
            raise SettingError("simulation", self.simulation, needs)
        if self.student_from is not None and self.lora is not None:
            needs = "to be left out where lora is given: student and teacher then share their weights"
            raise SettingError("student_from", str(self.student_from), needs)
        return self

    @property
    def critic_parts(self) -> tuple[str, ...]:
        """Return the parts that are trained beside the student."""
        return ("fake",) * (self.dm_weight > 0) + ("heads",) * (self.adversarial_weight > 0)

    def check_inputs(self) -> None:
        super().check_inputs()
        if self.nano is not None:
            bucket_sizes("nano.ratios", self.nano.ratios, self.nano.base)
            bucket_sizes("nano.probe_ratios", self.nano.probe_ratios, self.nano.base)
        else:
            assert self.data is not None
            check_source(self.data)
