"""Loading and saving of denoisers: folders, single files (plain or quantized) and GGUF.

The layout is detected. The configuration of a single file is in its metadata, or else is inferred from the
shapes of its tensors; what shapes do not show (the text layers, the split of the rotary axes) is then that of
the released models. Spec: section 6.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.files import apply_umask
from lens.models.checkpoints.detect import LENS_SIGNATURE_NAMES, denoiser_prefix, detect_kind
from lens.models.checkpoints.diffusers_folder import (
    COMPONENT_LABELS,
    component_config,
    open_component,
    resolve_component_folder,
)
from lens.models.checkpoints.module_loader import init_empty, load_state_dict_strict, one_at_a_time
from lens.models.checkpoints.quantized_layers import dequantize_layers, open_weights_file
from lens.models.checkpoints.reader import LazyStateDict, LazyTensor, shapes_of, stored_config
from lens.models.checkpoints.registry import LENS_DENOISER
from lens.models.denoiser import LensTransformer2DModel
from lens.models.shapes import check_config

DENOISER_CONFIG_KEY = "lens_config"


@one_at_a_time
def load_denoiser(
    path: str | Path,
    torch_dtype: torch.dtype | None = torch.bfloat16,
    config: Mapping[str, Any] | None = None,
    *,
    keep_packed: bool = True,
    keep_stored: bool = False,
) -> LensTransformer2DModel:
    """Return the denoiser of a folder, a .safetensors file or a .gguf file, in eval mode.

    The released weights are float32 (16.4 GB), so the dtype is explicit; None is the stored one (float32 for
    quantized weights). Weights in 4 and 8 bits stay packed, and are dequantized when they are used; training
    of all weights needs `keep_packed=False`. `keep_stored` keeps matrices in another dtype as stored too.
    Raises: CheckpointError that names what does not fit, and what the file probably is.
    """
    path = Path(path)
    stored, settings = open_denoiser(path, config)
    model = init_empty(lambda: LensTransformer2DModel(**settings), path)
    load_state_dict_strict(
        model,
        stored.tensors,
        torch_dtype,
        source=path,
        what=COMPONENT_LABELS["transformer"],
        keep_packed=keep_packed,
        keep_stored=keep_stored,
    )
    model.register_to_config(_name_or_path=str(path))
    return model


def open_denoiser(
    path: Path, config: Mapping[str, Any] | None = None
) -> tuple[LazyStateDict, dict[str, Any]]:
    """Return a denoiser's tensors under the module's names, and its given, stored or inferred configuration.

    Raises: CheckpointError for another model's configuration or file.
    """
    if not path.is_dir():
        stored = open_denoiser_file(path)
        return stored, dict(config or denoiser_config(stored, source=path))
    folder = resolve_component_folder(path, "transformer")
    stored = open_component(folder, "transformer")
    settings = dict(config or component_config(folder))
    if config is None:
        check_config("transformer", settings, folder / "config.json")
    unknown = sorted(set(settings) - set(LENS_DENOISER))
    if unknown:
        names = ", ".join(unknown)
        raise CheckpointError(f"{folder / 'config.json'} has settings that Lens does not have: {names}.")
    return stored, settings


def open_denoiser_file(path: Path) -> LazyStateDict:
    """Return the tensors of a single-file denoiser under the module's names, dequantized when read."""
    stored = open_weights_file(path)
    prefix = denoiser_prefix(stored.tensors)
    if prefix is None:
        kind = detect_kind(stored.tensors)
        guess = f"It is probably {kind}." if kind else f"It lacks {' and '.join(LENS_SIGNATURE_NAMES)}."
        raise CheckpointError(f"{path} is not a Lens denoiser. {guess}")
    # A name without the prefix is kept, and reported as extra.
    tensors = {name.removeprefix(prefix): tensor for name, tensor in stored.tensors.items()}
    return LazyStateDict(dequantize_layers(tensors, source=path), stored.metadata)


def denoiser_config(stored: LazyStateDict, *, source: object) -> dict[str, Any]:
    """Return the configuration of a single-file denoiser, from its metadata or else from its shapes."""
    if DENOISER_CONFIG_KEY in stored.metadata:
        config = stored_config(stored.metadata, DENOISER_CONFIG_KEY, source)
        check_config("transformer", config, source)
        return config
    return infer_denoiser_config(shapes_of(stored.tensors), source=source)


def infer_denoiser_config(shapes: Mapping[str, tuple[int, ...]], *, source: object) -> dict[str, Any]:
    """Return the configuration of a denoiser with these shapes.

    Raises: CheckpointError if a weight that it needs is missing, or if the shapes do not determine it.
    """
    try:
        width, in_channels = shapes["img_in.weight"]
        head_dim = shapes["transformer_blocks.0.attn.norm_q.weight"][0]
        features = shapes["txt_norm.0.weight"][0]
        patched = shapes["proj_out.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{source} is incomplete: {error} is missing or mis-shaped. It is a part of a Lens denoiser."
        ) from error
    num_features = sum(name.startswith("txt_norm.") for name in shapes)
    sizes = (head_dim, num_features, features)
    released = (
        LENS_DENOISER["attention_head_dim"],
        len(LENS_DENOISER["selected_layer_index"]),
        LENS_DENOISER["enc_hidden_dim"],
    )
    if sizes != released:
        raise CheckpointError(
            f"{source} is a Lens denoiser of another size, and its shapes do not show which text layers it "
            "reads and how its rotary axes split. Give its config, or a file saved by Lens, which has it."
        )
    blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("transformer_blocks.")}
    return LENS_DENOISER | {
        "in_channels": in_channels,
        "out_channels": patched // LENS_DENOISER["patch_size"] ** 2,
        "num_layers": max(blocks) + 1,
        "num_attention_heads": width // head_dim,
        "inner_dim": width,
    }


def save_denoiser(
    denoiser: LensTransformer2DModel, path: str | Path, dtype: torch.dtype | None = None
) -> Path:
    """Write a denoiser as a diffusers folder (a path without suffix) or as a single .safetensors file.

    A single file has its configuration in its metadata. Without `dtype` the module's dtype is kept.
    """
    path = Path(path)
    if path.suffix:
        write_single_file(path, denoiser.state_dict(), dict(denoiser.config), dtype)
        return path
    if dtype is not None and dtype != denoiser.dtype:
        convert = f"denoiser.to({dtype})"
        raise CheckpointError(f"A folder keeps the dtype {denoiser.dtype}. Convert first: {convert}.")
    denoiser.save_pretrained(path, safe_serialization=True)
    apply_umask(path)
    return path


def write_single_file(
    path: Path,
    state: Mapping[str, Tensor | LazyTensor],
    config: Mapping[str, Any],
    dtype: torch.dtype | None,
) -> None:
    """Write a denoiser's weights under names without prefix, with its configuration as metadata."""
    from lens.models.checkpoints.module_loader import cast_floating_point
    from lens.models.checkpoints.writer import write_safetensors

    values = {
        name: cast_floating_point(value.read() if isinstance(value, LazyTensor) else value, dtype)
        for name, value in state.items()
    }
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    write_safetensors(path, values, {"format": "pt", DENOISER_CONFIG_KEY: json.dumps(settings)})
