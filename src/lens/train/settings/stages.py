"""Settings of the stages, and what of them can be checked before anything is loaded.

Knows nothing of torch: a wrong recipe is told at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lens.config import Settings
from lens.core.resolution import buckets_for
from lens.data.image_text_dataset import ImageTextSettings, check_source
from lens.errors import SettingError
from lens.nano.tasks import DENSE_SHARE, WorldConfig
from lens.train.settings.run import BatchSettings, RunSettings

NANO_EXAMPLES_PER_SHARD = 256
"""Examples a shard of the nano world's cache."""
EMBEDDED_MODEL = Path("src/lens/nano/weights/lens-nano")
"""The embedded model, from the root of the repository."""

ActivationCheckpointing = Annotated[
    Literal["none", "selective", "full"],
    BeforeValidator(lambda value: {True: "full", False: "none"}[value] if isinstance(value, bool) else value),
]
"""What blocks compute again on the way back; true is full, and false none."""
OneOrMorePaths = Annotated[
    tuple[Path, ...], BeforeValidator(lambda paths: [paths] if isinstance(paths, str | Path) else paths)
]


class VaeSettings(BatchSettings):
    config: dict[str, Any]
    """Configuration of AutoencoderKLFlux2."""
    side_px: int = Field(64, ge=32)
    """Side of the square crops."""
    edge_weight: float = 0.5
    """Weight of the error of neighbouring differences, which keeps outlines sharp."""
    kl_weight: float = 1e-3
    """Weight of the pull toward the standard normal, a mean over latent values."""


class LanguageSettings(BatchSettings):
    config: dict[str, Any]
    """Configuration of GptOssConfig; the vocabulary and the control tokens come from the tokenizer."""
    vocab_size: int = Field(2048, gt=300)
    """Entries of the byte-level BPE, control tokens included."""
    embedding_std: float = Field(1.5, gt=0)
    """Spread of the first token embeddings. To a language model of captions all things are alike: with the
    usual 0.02, features of a fox and of a key had a cosine of 0.99, and no denoiser could tell them apart."""
    tokenizer_captions: int = Field(20000, gt=0)
    """Captions that the BPE learns its merges from."""


class NanoPretrainSettings(BatchSettings):
    config: dict[str, Any]
    """Configuration of LensTransformer2DModel; what the encoders fix is filled in."""
    vae: OneOrMorePaths
    """Folder of the finished autoencoder; of several the first that is there."""
    text: OneOrMorePaths
    """Folder that holds the finished `text_encoder` and `tokenizer`; of several the first that is there."""
    cache: Path
    """Folder of cached latents and text features."""
    bases: tuple[int, ...] = (128,)
    """Base resolutions; each brings its nine aspect ratios."""
    ratios: tuple[str, ...] = ()
    """Aspect ratios that are trained on, in quotes, as YAML reads 1:1 as a number; none for all nine."""
    examples: int = Field(40_000, ge=NANO_EXAMPLES_PER_SHARD)
    """Distinct examples, shared out over the picture sizes."""
    world_seed: int = 0
    """Seed of the examples alone, so that runs of other seeds can share them."""
    num_things: int = Field(0, ge=0)
    """Things of the world that are trained and asked for; 0 for all."""
    dense_share: float = Field(DENSE_SHARE, ge=0, le=1)
    """Share of captions that are dense; the others are brief."""
    prompt_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of samples trained with no text at all, for guidance."""
    timestep_mu: tuple[float, float] = (1.0, 1.3)
    """Means of the logit-normal times at `timestep_tokens`; a line runs through both."""
    timestep_tokens: tuple[int, int] = (256, 4096)
    """Image tokens at which the two means hold."""
    layout_weight: float = Field(0.0, ge=0)
    """Weight of the layout loss, which asks a hidden state which thing is where; 0 leaves it out."""
    layout_block: int = Field(3, ge=0)
    """The block whose output the layout loss reads, counted from 0."""
    probe_prompts: int = Field(4, ge=1)
    """Prompts a task that a probe draws and scores."""
    probe_ratios: tuple[str, ...] = Field(("1:1",), min_length=1)
    """Aspect ratios that probes draw in, by turns."""
    probe_styles: tuple[Literal["brief", "dense"], ...] = Field(("brief",), min_length=1)
    """Captions that probes ask by; numbers of the second are `dense/...`."""
    probe_losses: bool = False
    """Whether probes measure the held-out loss for each of these captions and ratios: `loss/brief/1:1`."""
    variant: str = "nano"
    """Variant whose steps and guidance the exported model takes by default."""

    def check_inputs(self) -> None:
        super().check_inputs()
        WorldConfig.of(self.num_things, self.dense_share)
        bucket_sizes("ratios", self.ratios, self.bases[0])
        bucket_sizes("probe_ratios", self.probe_ratios, self.bases[0])
        first_existing_folder("vae", self.vae)
        first_existing_folder("text", self.text)


def first_existing_folder(setting: str, folders: tuple[Path, ...]) -> Path:
    """Return the first of some folders that is there.

    Raises: SettingError where none is.
    """
    first_existing = next((folder for folder in folders if folder.is_dir()), None)
    if first_existing is None:
        recipe = "vae" if setting == "vae" else "language"
        fix = f"recipes/nano/{recipe}.yaml makes one; one ships in {EMBEDDED_MODEL}."
        raise SettingError(setting, ", ".join(map(str, folders)), "a folder that is there", fix)
    return first_existing


def bucket_sizes(setting: str, ratios: tuple[str, ...], base: int) -> list[tuple[int, int]]:
    """Return the picture sizes of some aspect ratios, of all nine for none.

    Raises: SettingError for a ratio that is none of the nine.
    """
    known = buckets_for(base)
    if unknown := [ratio for ratio in ratios if ratio not in known]:
        raise SettingError(setting, unknown, f"ratios among {', '.join(known)}")
    return [known[ratio] for ratio in ratios or known]



class LoraSettings(Settings):
    rank: int = Field(16, ge=1)
    """Rank of every adapter."""
    alpha: int = Field(16, ge=1)
    """The adapter's output is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("img_qkv", "txt_qkv", "to_out.0", "to_add_out", "w1", "w2", "w3")
    """Linear layers of the blocks that get one, by the end of their names."""


class TextToImageSettings(RunSettings):
    model: str
    """Known name or folder of the model whose encoders are used, and whose denoiser is tuned."""
    data: ImageTextSettings
    store: Path
    """Folder that the encoded pictures are kept in."""
    feature_bits: Literal[8, 16] = 16
    """Bits of a stored text feature; 8 halves the store and rounds by 1/254 of a token's largest value."""
    pack_tokens: int = Field(24_576, ge=1)
    """Image tokens that a micro-batch has at most: 24 pictures of 512 x 512, 6 of 1024 x 1024."""
    config: dict[str, Any] | None = None
    """Configuration of a denoiser to train from nothing."""
    lora: LoraSettings | None = None
    """Train adapters and leave the model as it is."""
    frozen_dtype: Literal["bf16", "float32"] = "bf16"
    """Type of the weights that LoRA leaves as they are."""
    gradient_checkpointing: ActivationCheckpointing = "none"
    """What is computed again on the way back, for less memory: nothing, the cheap part of each block (all but
    matrix products and attention), or each block whole; true is full, and false none."""
    prompt_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of pictures trained with no text at all, for guidance."""
    timestep_mu: tuple[float, float] = (1.0, 1.3)
    """Means of the logit-normal times at `timestep_tokens`; a line runs through both."""
    timestep_tokens: tuple[int, int] = (256, 4096)
    """Image tokens at which the two means hold."""
    held_out: int = Field(0, ge=0)
    """Pictures, the last ones, that are not trained on but measured by every probe."""
    previews: tuple[str, ...] = ()
    """Prompts that every probe draws."""
    follows: str = ""
    """Recipe, beside this one, whose result this one starts from: its bill is part of the plan's."""

    def check_inputs(self) -> None:
        super().check_inputs()
        check_source(self.data)
