"""The formats that `lens convert` writes: what each is for, which parts of a model fit it, and its sizes.

Free of torch, so that a request is checked before libraries load.
"""

from typing import NamedTuple

from lens.errors import SettingError

DENOISER, TEXT_ENCODER, VAE, ADAPTER = "denoiser", "text-encoder", "vae", "adapter"
COMPONENT_OF_PART = {DENOISER: "transformer", TEXT_ENCODER: "text_encoder", VAE: "vae"}
"""The sub-folder of each part in a model folder."""
PARTS = tuple(COMPONENT_OF_PART)
MODELS = (DENOISER, TEXT_ENCODER)


class Format(NamedTuple):
    """A layout that weights can be written in."""

    what: str
    """What it is and what it is for, as the help of the command says it."""
    parts: tuple[str, ...]
    """The parts of a model that it can hold; a whole model folder gives the first that it has."""
    suffix: str
    """Of the target; empty for a folder."""
    bits: float = 16.0
    """Bits of a value in the layers that are quantized; other weights have 16, or 32 in a format of 32."""
    inputs: int = 1
    """The inputs of a quantized layer must be a multiple of it."""
    asks_for_part: bool = False
    """Whether a model folder with several parts that fit needs the part named."""


FORMATS = {
    "folder": Format(
        "folder as diffusers and transformers read it, in its dtype (bfloat16 if quantized)", MODELS, ""
    ),
    "single-bf16": Format("one .safetensors file in bfloat16", MODELS, ".safetensors"),
    "single-f32": Format("one .safetensors file in float32", (DENOISER,), ".safetensors", 32.0),
    "mxfp8": Format(
        "one .safetensors file in 8 bits, as ComfyUI reads it", (DENOISER,), ".safetensors", 8.25, 32
    ),
    "nvfp4": Format(
        "one .safetensors file with experts in 4 bits, as ComfyUI reads it",
        (TEXT_ENCODER,), ".safetensors", 4.5, 16,
    ),
    "mxfp4": Format(
        "folder with experts in 4 bits, as GPT-OSS is published and transformers reads it",
        (TEXT_ENCODER,), "", 4.25, 32,
    ),
    "gguf-bf16": Format("one .gguf file in bfloat16", MODELS, ".gguf", asks_for_part=True),
    "gguf-f16": Format("one .gguf file in float16", MODELS, ".gguf", asks_for_part=True),
    "gguf-q8_0": Format("one .gguf file in 8 bits", MODELS, ".gguf", 8.5, 32, asks_for_part=True),
    "gguf-q4_0": Format("one .gguf file in 4 bits", MODELS, ".gguf", 4.5, 32, asks_for_part=True),
    "gguf-mxfp4": Format(
        "one .gguf file with experts in 4 bits, as llama.cpp stores GPT-OSS",
        (TEXT_ENCODER,), ".gguf", 4.25, 32,
    ),
    "lora-peft": Format("adapter under PEFT names without a prefix", (ADAPTER,), ".safetensors"),
    "lora-diffusion-model": Format(
        "adapter under `diffusion_model.` names with alphas", (ADAPTER,), ".safetensors"
    ),
    "lora-kohya": Format("adapter under kohya names with alphas", (ADAPTER,), ".safetensors"),
    "vae-diffusers": Format("VAE as a diffusers folder", (VAE,), ""),
    "vae-flux2": Format("VAE as one .safetensors file under FLUX.2 names", (VAE,), ".safetensors"),
}  # fmt: skip


def formats_of(part: str) -> list[str]:
    """Return the names of the formats that fit a part."""
    return [name for name, layout in FORMATS.items() if part in layout.parts]


def require_format(name: str) -> Format:
    """Return the format of a name. Raises: SettingError for one that is unknown."""
    if name not in FORMATS:
        raise SettingError("format", name, f"one of {', '.join(FORMATS)}")
    return FORMATS[name]


def describe_formats() -> str:
    """Return every format with the parts that fit it and what it is for, for the help of the command."""
    return "; ".join(
        f"{name} ({' or '.join(layout.parts)}): {layout.what}" for name, layout in FORMATS.items()
    )
