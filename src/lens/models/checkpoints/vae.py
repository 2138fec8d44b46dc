"""Loading and saving of the FLUX.2 VAE under diffusers' names and under FLUX.2's own.

FLUX.2 counts decoder levels from the finest, stores attention as 1x1 convolutions and has the quant
convolutions inside encoder and decoder. Values are the same. Spec: section 6.
"""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.detect import detect_kind
from lens.models.checkpoints.diffusers_folder import (
    COMPONENT_LABELS,
    component_config,
    open_component,
    resolve_component_folder,
)
from lens.models.checkpoints.module_loader import init_empty, load_state_dict_strict, one_at_a_time
from lens.models.checkpoints.reader import (
    LazyStateDict,
    LazyTensor,
    open_safetensors,
    shapes_of,
    stored_config,
)
from lens.models.checkpoints.registry import FLUX2_VAE
from lens.models.shapes import Shapes, check_config, vae_shapes

VAE_CONFIG_KEY = "lens_vae_config"
UPCAST_KEY = "force_upcast"
"""A setting of the published configuration that diffusers' class does not take."""
_ATTENTION = r"mid_block\.attentions\.0\.(to_[qkv]|to_out\.0)\.weight$"


def flux2_name(name: str, num_levels: int) -> str:
    """Return FLUX.2's own name of a tensor named by diffusers."""
    level = re.match(r"decoder\.up_blocks\.(\d+)\.(.*)", name)
    if level:
        name = f"decoder.up.{num_levels - 1 - int(level[1])}.{level[2]}"
    for pattern, own in (
        (r"^quant_conv\.", "encoder.quant_conv."),
        (r"^post_quant_conv\.", "decoder.post_quant_conv."),
        (r"\.down_blocks\.", ".down."),
        (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
        (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
        (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
        (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
        (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
        (r"\.resnets\.", ".block."),
        (r"\.downsamplers\.0\.", ".downsample."),
        (r"\.upsamplers\.0\.", ".upsample."),
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.conv_norm_out\.", ".norm_out."),
    ):
        name = re.sub(pattern, own, name)
    return name


def to_flux2(tensors: Mapping[str, LazyTensor], num_levels: int) -> dict[str, LazyTensor]:
    """Return a VAE's tensors under FLUX.2's own names."""
    return {
        flux2_name(name, num_levels): _as_convolution(tensor) if re.search(_ATTENTION, name) else tensor
        for name, tensor in tensors.items()
    }


def from_flux2(tensors: Mapping[str, LazyTensor], shapes: Shapes) -> dict[str, LazyTensor]:
    """Return a VAE's tensors under diffusers' names, which are those of `shapes`; unknown names are kept."""
    num_levels = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("decoder.up_blocks."))
    names = {flux2_name(name, num_levels): name for name in shapes}
    plain = {}
    for own, tensor in tensors.items():
        name = names.get(own, own)
        plain[name] = _as_matrix(tensor) if re.search(_ATTENTION, name) else tensor
    return plain


def _as_convolution(stored: LazyTensor) -> LazyTensor:
    return LazyTensor((*stored.shape, 1, 1), stored.dtype, lambda: stored.read()[..., None, None])


def _as_matrix(stored: LazyTensor) -> LazyTensor:
    if stored.shape[2:] != (1, 1):
        return stored
    return LazyTensor(stored.shape[:2], stored.dtype, lambda: stored.read()[..., 0, 0])


def infer_vae_config(shapes: Mapping[str, tuple[int, ...]], *, source: object) -> dict[str, Any]:
    """Return the configuration of a VAE with these shapes, under either naming.

    Shapes do not show the number of normalization groups; it is that of the released model.
    """

    def widths(pattern: str) -> list[int]:
        found = {int(m[1]): shape[0] for name, shape in shapes.items() if (m := re.match(pattern, name))}
        return [found[level] for level in sorted(found)]

    down = widths(r"encoder\.down(?:_blocks)?\.(\d+)\.(?:block|resnets)\.0\.conv1\.weight")
    finest_first = any(name.startswith("decoder.up.") for name in shapes)
    up = widths(r"decoder\.up(?:_blocks)?\.(\d+)\.(?:block|resnets)\.0\.conv1\.weight")
    up = up if finest_first else up[::-1]
    first_level = r"encoder\.down(_blocks)?\.0\.(block|resnets)\.\d+\.conv1\.weight"
    layers = sum(bool(re.match(first_level, name)) for name in shapes)
    if not (down and up and layers and "decoder.conv_in.weight" in shapes and "bn.running_mean" in shapes):
        kind = detect_kind(shapes) or "no kind of file known here"
        raise CheckpointError(f"{source} is not a FLUX.2 VAE. It is probably {kind}.")
    groups = FLUX2_VAE["norm_num_groups"]
    if any(width % groups for width in (*down, *up)):
        raise CheckpointError(
            f"{source} is a VAE of another size: its widths {(*down, *up)} are no multiples of {groups}, and "
            "shapes do not show its number of groups. Give its config, or a file saved by Lens."
        )
    config = FLUX2_VAE | {
        "block_out_channels": tuple(down),
        "layers_per_block": layers,
        "latent_channels": shapes["decoder.conv_in.weight"][1],
    }
    return config if up == down else config | {"decoder_block_out_channels": tuple(up)}


def open_vae_file(
    path: Path, config: Mapping[str, Any] | None = None
) -> tuple[LazyStateDict, dict[str, Any]]:
    """Return a single-file VAE under diffusers' names, and its configuration (given, stored or inferred)."""
    stored = open_safetensors(path)
    if config is not None:
        settings = dict(config)
    elif VAE_CONFIG_KEY in stored.metadata:
        settings = stored_config(stored.metadata, VAE_CONFIG_KEY, path)
    else:
        settings = infer_vae_config(shapes_of(stored.tensors), source=path)
    check_config("vae", settings, path)
    return LazyStateDict(from_flux2(stored.tensors, vae_shapes(settings)), stored.metadata), settings


@one_at_a_time
def load_vae(
    path: str | Path, torch_dtype: torch.dtype | None = None, config: Mapping[str, Any] | None = None
) -> AutoencoderKLFlux2:
    """Return the VAE of a folder or of a single file under either naming, in eval mode.

    Raises: CheckpointError that names what does not fit, and what the file probably is.
    """
    path = Path(path)
    if path.is_dir():
        folder = resolve_component_folder(path, "vae")
        stored, found = open_component(folder, "vae"), dict(config or component_config(folder))
    else:
        stored, found = open_vae_file(path, config)
    settings = _known_settings(found, source=path)
    model = init_empty(lambda: AutoencoderKLFlux2(**settings), path)
    load_state_dict_strict(model, stored.tensors, torch_dtype, source=path, what=COMPONENT_LABELS["vae"])
    return model


def _known_settings(config: Mapping[str, Any], *, source: object) -> dict[str, Any]:
    """Return the settings of a configuration that diffusers' class takes, with the types of its blocks.

    Raises: CheckpointError for settings of another model.
    """
    check_config("vae", config, source)
    num_levels = len(config["block_out_channels"])
    types = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    settings = {key: value * num_levels for key, value in types.items()} | dict(config)
    settings.pop(UPCAST_KEY, None)
    known = inspect.signature(AutoencoderKLFlux2).parameters
    unknown = sorted(key for key in settings if key not in known and not key.startswith("_"))
    if unknown:
        raise CheckpointError(
            f"The configuration of {source} has settings that the FLUX.2 VAE does not have: "
            f"{', '.join(unknown)}."
        )
    return settings


def save_vae_single_file(vae: AutoencoderKLFlux2, path: str | Path) -> Path:
    """Write a VAE to one .safetensors file under FLUX.2's own names."""
    from lens.models.checkpoints.writer import write_safetensors

    stored = {name: _in_memory_tensor(value) for name, value in vae.state_dict().items()}
    own = to_flux2(stored, num_levels=len(vae.config["block_out_channels"]))
    settings = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    metadata = {"format": "pt", VAE_CONFIG_KEY: json.dumps(settings)}
    write_safetensors(Path(path), {name: tensor.read() for name, tensor in own.items()}, metadata)
    return Path(path)


def _in_memory_tensor(value: Tensor) -> LazyTensor:
    return LazyTensor(tuple(value.shape), "F32", lambda: value)
