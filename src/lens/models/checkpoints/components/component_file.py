"""What a file or folder of weights holds, from its header or config, and which components fit together.

Free of torch, and of file names: a component is known by its tensors. Spec: section 6.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lens.errors import CheckpointError
from lens.models.checkpoints.detect import (
    DENOISER_CONFIG_KEY,
    TOKENIZER_KEY,
    denoiser_prefix,
    detect_kind,
)
from lens.models.checkpoints.diffusers_folder import component_config
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX, read_gguf_header
from lens.models.checkpoints.reader import read_header, read_json, read_weight_map, stored_config
from lens.models.checkpoints.registry import LENS_DENOISER

COMPONENT_OPTIONS = {
    "transformer": "--model",
    "text_encoder": "--text-encoder",
    "vae": "--vae",
    "tokenizer": "--tokenizer",
}
"""The option of the command that names a component."""
COMPONENT_TITLES = {
    "transformer": "Lens denoiser",
    "text_encoder": "GPT-OSS text encoder",
    "vae": "FLUX.2 VAE",
    "tokenizer": "tokenizer",
}
GGUF_TOKENIZER = "tokenizer.ggml.model"
"""The setting of a GGUF file that says that it has a tokenizer."""

_FOLDER_CLASSES = {
    "LensTransformer2DModel": "transformer",
    "AutoencoderKLFlux2": "vae",
    "gpt_oss": "text_encoder",
}


@dataclass(frozen=True)
class ComponentFile:
    """A file or folder of weights, as far as its header tells."""

    path: Path
    component: str | None
    """transformer, text_encoder or vae; None for anything else."""
    kind: str | None
    """What it is in words, for a message; None if it is unknown."""
    num_bytes: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    has_tokenizer: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The sizes by which components fit together: text_width, num_layers, token_channels."""

    @property
    def title(self) -> str:
        """What it is, with an article, for a message."""
        if self.component is not None:
            return f"a {COMPONENT_TITLES[self.component]}"
        return self.kind or "no kind of file known here"


def read_component(path: Path) -> ComponentFile:
    """Return what a .safetensors or .gguf file or a component's folder holds.

    Raises: CheckpointError for a file that is missing, damaged or refused.
    """
    if path.is_dir():
        return _read_folder(path)
    metadata: dict[str, str] = {}
    if path.suffix.lower() == GGUF_SUFFIX:
        header = read_gguf_header(path)
        shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
        metadata = {name: value for name, value in header.settings.items() if isinstance(value, str)}
    else:
        entries, metadata = read_header(path)
        shapes = {name: shape for name, (_, shape) in entries.items()}
    kind, num_bytes = detect_kind(shapes), path.stat().st_size
    if _is_shard(path):
        return ComponentFile(path, None, "one of several files that belong together; give their folder")
    has_tokenizer = TOKENIZER_KEY in shapes or GGUF_TOKENIZER in metadata
    for component, sizes_of in _SIZES.items():
        try:
            sizes = sizes_of(shapes, metadata)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} has a configuration that cannot be read ({error}).") from error
        if sizes is not None:
            return ComponentFile(path, component, kind, num_bytes, metadata, has_tokenizer, sizes)
    return ComponentFile(path, None, kind, num_bytes, metadata)


def misfit(denoiser: ComponentFile, other: ComponentFile) -> str | None:
    """Return why a text encoder or VAE does not fit a denoiser, as a clause; None if it fits."""
    needs, has = denoiser.sizes, other.sizes
    if other.component == "vae":
        if has["token_channels"] != needs["token_channels"]:
            counts = has["token_channels"], needs["token_channels"]
            return "its latents have {} channels, and the denoiser's have {}".format(*counts)
        return None
    if has["text_width"] != needs["text_width"]:
        return f"its features have width {has['text_width']}, and the denoiser reads {needs['text_width']}"
    if has["num_layers"] < needs["num_layers"]:
        return f"it has {has['num_layers']} layers, and the denoiser reads {needs['num_layers']}"
    return None


def _denoiser_sizes(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> dict[str, int] | None:
    prefix = denoiser_prefix(shapes)
    if prefix is None:
        return None
    inputs, norm = shapes.get(f"{prefix}img_in.weight"), shapes.get(f"{prefix}txt_norm.0.weight")
    is_whole = _is_contiguous(shapes, rf"{re.escape(prefix)}transformer_blocks\.(\d+)\.attn\.norm_q\.weight$")
    if not (inputs and norm and is_whole and f"{prefix}proj_out.weight" in shapes):
        return None  # a shard
    config = stored_config(metadata, DENOISER_CONFIG_KEY, "it") if DENOISER_CONFIG_KEY in metadata else {}
    layers = config.get("selected_layer_index", LENS_DENOISER["selected_layer_index"])
    return {"text_width": norm[0], "num_layers": max(layers) + 1, "token_channels": inputs[1]}


def _text_encoder_sizes(shapes: Mapping[str, tuple[int, ...]], _: Mapping[str, str]) -> dict[str, int] | None:
    for sinks, down, norm, *others in _ENCODER_NAMES:
        found = [int(match[1]) for name in shapes if (match := re.match(sinks, name))]
        width = next((shape for name, shape in shapes.items() if re.match(norm, name)), None)
        has_ends = all(any(re.match(other, name) for name in shapes) for other in others)
        with_experts = {int(match[1]) for name in shapes if (match := re.match(down, name))}
        if width and has_ends and set(found) == with_experts == set(range(len(found))):
            return {"text_width": width[0], "num_layers": len(found)}
    return None


_ENCODER_NAMES = (
    (
        r"(?:model\.)?layers\.(\d+)\.self_attn\.sinks$",
        r"(?:model\.)?layers\.(\d+)\.mlp\.experts\.down_proj",
        r"(?:model\.)?layers\.0\.input_layernorm\.weight$",
        r"(?:model\.)?embed_tokens\.weight$",
        r"(?:model\.)?norm\.weight$",
    ),
    (
        r"blk\.(\d+)\.attn_sinks(?:\.weight)?$",
        r"blk\.(\d+)\.ffn_down_exps\.",
        r"blk\.0\.attn_norm\.weight$",
        r"token_embd\.weight$",
        r"output_norm\.weight$",
    ),
)
"""Names in transformers' naming and in llama.cpp's: sinks, experts, a norm, the embedding, the last norm."""


def _vae_sizes(shapes: Mapping[str, tuple[int, ...]], _: Mapping[str, str]) -> dict[str, int] | None:
    statistics = shapes.get("bn.running_mean")
    if statistics is None or not {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= set(shapes):
        return None
    return {"token_channels": statistics[0]}


_SIZES = {"transformer": _denoiser_sizes, "text_encoder": _text_encoder_sizes, "vae": _vae_sizes}
"""The sizes of each component; None for a file that is not a whole one."""


def _is_shard(path: Path) -> bool:
    """Return whether an index beside a file lists it with others."""
    for index in path.parent.glob("*.safetensors.index.json"):
        try:
            files = set(read_weight_map(index).values())
        except (OSError, CheckpointError):
            continue
        if path.name in files and len(files) > 1:
            return True
    return False


def _is_contiguous(names: Collection[str], pattern: str) -> bool:
    numbers = {int(match[1]) for name in names if (match := re.match(pattern, name))}
    return bool(numbers) and numbers == set(range(len(numbers)))


def _read_folder(folder: Path) -> ComponentFile:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} has no config.json, so it is no component's folder. Give a component's folder, or the "
            "file of its weights."
        )
    config = component_config(folder)
    stated = read_json(folder / "config.json").get("_class_name")
    name = stated or config.get("model_type")
    component = _FOLDER_CLASSES.get(str(name))
    has_tokenizer = (folder / "tokenizer.json").is_file()
    try:
        sizes = {} if component is None else _folder_sizes(component, config)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} lacks {error}; it is for another model.") from error
    return ComponentFile(
        folder, component, str(name) if name else None, has_tokenizer=has_tokenizer, sizes=sizes
    )


def _folder_sizes(component: str, config: Mapping[str, Any]) -> dict[str, int]:
    if component == "transformer":
        layers = config["selected_layer_index"]
        return {
            "text_width": config["enc_hidden_dim"],
            "num_layers": max(layers) + 1,
            "token_channels": config["in_channels"],
        }
    if component == "text_encoder":
        return {"text_width": config["hidden_size"], "num_layers": config["num_hidden_layers"]}
    return {"token_channels": config["latent_channels"] * math.prod(config.get("patch_size", (2, 2)))}
