"""Settings of the stages, and what of them can be checked before anything is loaded.

Knows nothing of torch: a wrong recipe is told at once. The nano denoiser's are beside it, in pretrain.py.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from lens.config import Settings
from lens.data.captioned import CaptionedSettings, check_source
from lens.train.settings import BatchSettings, RunSettings


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


class LoraSettings(Settings):
    rank: int = Field(16, ge=1)
    """Rank of every adapter."""
    alpha: int = Field(16, ge=1)
    """The adapter's output is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("img_qkv", "txt_qkv", "to_out.0", "to_add_out", "w1", "w2", "w3")
    """Linear layers of the blocks that get one, by the end of their names."""


class DenoiserSettings(RunSettings):
    model: str
    """Known name or folder of the model whose encoders are used, and whose denoiser is tuned."""
    data: CaptionedSettings
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
    gradient_checkpointing: Literal["none", "selective", "full"] = "none"
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

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _yes_is_full(cls, value: Any) -> Any:
        return {True: "full", False: "none"}[value] if isinstance(value, bool) else value

    def check_inputs(self) -> None:
        super().check_inputs()
        check_source(self.data)
