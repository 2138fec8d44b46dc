"""Settings of the stages that train from scratch or on captioned images: vae, language, pretrain, denoiser.

Loads no torch, so that a wrong recipe is refused at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lens.core.resolution import buckets_for
from lens.data.image_text_dataset import ImageTextSettings, check_source
from lens.errors import SettingError
from lens.models.checkpoints.registry import KNOWN_MODELS
from lens.nano.captions import CaptionMix
from lens.nano.evaluation_prompts import read_prompts
from lens.nano.tasks import DENSE_SHARE, WorldConfig
from lens.train.settings.run import ActivationCheckpointing, BatchSettings, LoraSettings, RunSettings

NANO_EXAMPLES_PER_SHARD = 256
"""Examples in a shard of the cache of the nano world."""

OneOrMorePaths = Annotated[
    tuple[Path, ...], BeforeValidator(lambda paths: [paths] if isinstance(paths, str | Path) else paths)
]


class VaeSettings(BatchSettings):
    config: dict[str, Any]
    """Configuration of AutoencoderKLFlux2."""
    side_px: int = Field(64, ge=32)
    """Side of the square crops."""
    frozen_encoder: bool = False
    """Train the decoder of `start_from` alone: its latents stay as they are, so that denoisers of them keep
    working."""
    latent_channels: int = Field(0, ge=0)
    """Latent channels that the autoencoder of `start_from` is widened to; 0 leaves those that it has."""
    scene_share: float = Field(0.0, ge=0, le=1)
    """Share of updates on whole scenes, of the sides `scene_sides_px`, instead of crops."""
    scene_sides_px: tuple[int, ...] = Field((128, 256), min_length=1)
    """Sides of the square scenes; a batch has as many pixels as one of crops."""
    edge_weight: float = 0.5
    """Weight of the error of differences between neighbouring pixels, which keeps outlines sharp."""
    kl_weight: float = 1e-3
    """Weight of the KL divergence from the standard normal, as a mean over latent values."""

    @model_validator(mode="after")
    def _frozen_encoder_is_trained(self) -> Self:
        if self.frozen_encoder and self.start_from is None:
            raise SettingError("start_from", None, "a trained autoencoder with frozen_encoder: true")
        return self


class LanguageSettings(BatchSettings):
    config: dict[str, Any]
    """Configuration of GptOssConfig; the vocabulary and the control tokens come from the tokenizer. A run
    with `start_from`, a folder with `text_encoder` and `tokenizer`, takes those as they are."""
    vocab_size: int = Field(2048, gt=300)
    """Entries of the byte-level BPE vocabulary, control tokens included."""
    embedding_std: float = Field(1.5, gt=0)
    """Standard deviation of the initial token embeddings. With the usual 0.02, the features of a fox and of a
    key had a cosine of 0.99, too close for a denoiser to distinguish them."""
    tokenizer_captions: int = Field(20000, gt=0)
    """Captions that the BPE merges are learned from."""
    captions: dict[str, Any] = Field(default_factory=dict)
    """Shares of the kinds of captions and the languages; see `lens.nano.captions.CaptionMix`."""
    next_token_share: float = Field(0.25, gt=0, le=1)
    """Share of the captions of a batch whose next tokens are predicted."""
    reading_weight: float = Field(1.0, ge=0)
    """Weight of the reading losses: the facts of the scene, from the tokens after the caption and its own."""
    probe_prompt_files: tuple[Path, ...] = ()
    """Files of prompts (`lens eval nano --prompts`); an evaluation counts those that are read rightly."""

    def check_inputs(self) -> None:
        super().check_inputs()
        CaptionMix.of(self.captions)
        for path in self.probe_prompt_files:
            read_prompts(path, "probe_prompt_files")


class NanoPretrainSettings(BatchSettings):
    config: dict[str, Any]
    """Configuration of LensTransformer2DModel. Values that follow from the encoders are filled in."""
    vae: OneOrMorePaths
    """Folder of the trained autoencoder; of several folders, the first that exists."""
    text: OneOrMorePaths
    """Folder with the trained `text_encoder` and `tokenizer`; of several folders, the first that exists."""
    cache: Path
    """Folder of cached latents and text features."""
    bases: tuple[int, ...] = (128,)
    """Base resolutions; each has nine aspect ratios."""
    ratios: tuple[str, ...] = ()
    """Aspect ratios of the training images; empty for all nine. Quote them: YAML reads 1:1 as a number."""
    examples: int = Field(40_000, gt=0)
    """Distinct examples, divided among the image sizes; at least 256 for each."""
    world_seed: int = 0
    """Seed of the examples alone, so that runs with other seeds can share them."""
    world: str = "tasks"
    """World that is trained and evaluated: `tasks`, of the six tasks, or `micro`, eight of its objects and
    four of its backgrounds."""
    dense_share: float = Field(DENSE_SHARE, ge=0, le=1)
    """Share of dense captions; the others are brief."""
    language: str = ""
    """Code of another language, in which `language_share` of the captions are."""
    language_share: float = Field(0.0, ge=0, le=1)
    """Share of captions in `language`; the others are English."""
    captions: dict[str, Any] | None = None
    """Train on the whole world, with shares of the kinds of captions as in `lens.nano.captions.CaptionMix`;
    without them on the world of the six tasks."""
    cache_all_layers: bool = False
    """Cache the features of all layers of the text encoder, so that runs with other layers can share them."""
    drawing_processes: int = Field(0, ge=0)
    """Processes that draw missing examples of the cache, while this one encodes them; 0 to draw here."""
    resident: bool = False
    """Keep all training examples in the memory of the device, and draw times and noise there. A step then has
    no work per sample on the host."""
    capture: bool = False
    """Replay the forward and backward pass as CUDA graphs, one pair for each shape; needs `resident`."""
    prompt_token_share: float = Field(1.0, gt=0, le=1)
    """Share of batches that see the tokens of the prompt. The others see those of the scaffold alone, which
    has read the prompt: a batch costs less, and wordings and languages never trained on disturb less."""
    prompt_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of samples that are trained without text, for guidance."""
    timestep_mu: tuple[float, float] = (1.0, 1.3)
    """Means of the logit-normal times at the two counts of `timestep_tokens`; linear in between."""
    timestep_tokens: tuple[int, int] = (256, 4096)
    """Image tokens at which the two means hold."""
    layout_weight: float = Field(0.0, ge=0)
    """Weight of the layout loss, which classifies each patch from a hidden state; 0 turns it off."""
    layout_block: int = Field(3, ge=0)
    """Block whose output the layout loss reads, counted from 0."""
    start_text_from: Path | None = None
    """Folder of the text encoder and tokenizer that the weights of `start_from` were trained with. The first
    text layer is then fitted to the new ones (stages/text_warm_start.py)."""
    probe_prompts: int = Field(4, ge=1)
    """Prompts per task in an evaluation."""
    probe_ratios: tuple[str, ...] = Field(("1:1",), min_length=1)
    """Aspect ratios of an evaluation; its prompts alternate between them."""
    probe_styles: tuple[Literal["brief", "dense"], ...] = Field(("brief",), min_length=1)
    """Caption styles of an evaluation. Metrics of dense captions begin with `dense/`."""
    probe_losses: bool = False
    """Whether to measure the held-out loss for each caption style and ratio, as `loss/brief/1:1`."""
    variant: str = "nano"
    """Variant whose steps and guidance are the defaults of the exported model."""

    @model_validator(mode="after")
    def _resident_steps_are_whole(self) -> Self:
        if self.resident and self.micro_batches > 1:
            # A graph writes its gradients to fixed addresses: a second micro-batch would replace the first.
            raise SettingError("micro_batches", self.micro_batches, "1 with resident: true")
        if self.capture and not self.resident:
            raise SettingError("capture", True, "resident: true, so that there are few shapes")
        return self

    def check_inputs(self) -> None:
        super().check_inputs()
        WorldConfig.of(self.world, self.dense_share, self.language, self.language_share)
        CaptionMix.of(self.captions or {})
        sizes = [size for base in self.bases for size in bucket_sizes("ratios", self.ratios, base)]
        check_examples(self.examples, sizes)
        bucket_sizes("probe_ratios", self.probe_ratios, self.bases[0])
        first_existing_folder("vae", self.vae)
        first_existing_folder("text", self.text)


def first_existing_folder(setting: str, folders: tuple[Path, ...]) -> Path:
    """Return the first of some folders that exists.

    Raises: SettingError if none does.
    """
    first_existing = next((folder for folder in folders if folder.is_dir()), None)
    if first_existing is None:
        recipe = "vae" if setting == "vae" else "language"
        packaged = KNOWN_MODELS["lens-nano"].folder
        fix = f"Train one by recipes/nano/{recipe}.yaml, or use the one in {packaged}."
        raise SettingError(setting, ", ".join(map(str, folders)), "an existing folder", fix)
    return first_existing


def check_examples(num_examples: int, sizes: Sequence[tuple[int, int]]) -> None:
    """Check that every image size gets a shard of examples.

    Raises: SettingError.
    """
    rarest = min(sizes.count(size) for size in sizes)
    if num_examples // len(sizes) * rarest < NANO_EXAMPLES_PER_SHARD:
        fewest = -(-NANO_EXAMPLES_PER_SHARD // rarest) * len(sizes)
        needs = f"at least {fewest}: {NANO_EXAMPLES_PER_SHARD} for each of {len(set(sizes))} image sizes"
        raise SettingError("examples", num_examples, needs, "Raise it, or name fewer ratios or bases.")


def bucket_sizes(setting: str, ratios: tuple[str, ...], base: int) -> list[tuple[int, int]]:
    """Return the image sizes of some aspect ratios of a base; of all nine if `ratios` is empty.

    Raises: SettingError for an unknown ratio.
    """
    known = buckets_for(base)
    if unknown := [ratio for ratio in ratios if ratio not in known]:
        raise SettingError(setting, unknown, f"ratios among {', '.join(known)}")
    return [known[ratio] for ratio in ratios or known]


class TextToImageSettings(RunSettings):
    model: str
    """Known name or folder of the model that provides the encoders, and the denoiser to train."""
    data: ImageTextSettings
    store: Path
    """Folder of cached latents and text features."""
    feature_bits: Literal[8, 16] = 16
    """Bits of a cached text feature. With 8 the cache takes half the space, and the rounding error is at most
    1/254 of a token's largest value."""
    pack_tokens: int = Field(24_576, ge=1)
    """Maximum image tokens of a micro-batch: 24 images of 512 x 512, or 6 of 1024 x 1024."""
    config: dict[str, Any] | None = None
    """Configuration of a denoiser to train from scratch."""
    lora: LoraSettings | None = None
    """Train LoRA adapters and leave the model's own weights unchanged."""
    frozen_dtype: Literal["bf16", "float32"] = "bf16"
    """Dtype of the weights that LoRA leaves unchanged."""
    gradient_checkpointing: ActivationCheckpointing = "none"
    """What the backward pass recomputes to save memory: nothing, the cheap operations of each block (all but
    matrix products and attention), or each whole block. true is full, and false none."""
    prompt_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of images that are trained without text, for guidance."""
    timestep_mu: tuple[float, float] = (1.0, 1.3)
    """Means of the logit-normal times at the two counts of `timestep_tokens`; linear in between."""
    timestep_tokens: tuple[int, int] = (256, 4096)
    """Image tokens at which the two means hold."""
    held_out: int = Field(0, ge=0)
    """Number of images, the last ones of the data, that are evaluated and not trained on."""
    previews: tuple[str, ...] = ()
    """Prompts of the sample grid."""
    follows: str = ""
    """Recipe in the same folder whose result this run starts from; `lens train plan` adds its cost."""

    def check_inputs(self) -> None:
        super().check_inputs()
        check_source(self.data)
