"""Denoisers in every format: which layers are quantized, under which names, with which configuration.

Modulation, input and output projections and the time embedding keep their precision in every format, as
quantizing them causes grid patterns and broken text. Spec: sections 6 and 14.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from lens.models.checkpoints.conversion.formats import DENOISER, Format
from lens.models.checkpoints.conversion.sources import (
    Source,
    is_in_blocks,
    plain_dtype,
    stored_shapes,
)
from lens.models.checkpoints.conversion.targets import Target, diffusers_config, json_tensor
from lens.models.checkpoints.conversion.weights import (
    cast_pieces,
    gguf_rows,
    mxfp8_tensors,
    plain_tensor,
    require_inputs,
)
from lens.models.checkpoints.detect import STATED_SETTINGS
from lens.models.checkpoints.diffusers_folder import COMPONENT_LABELS
from lens.models.checkpoints.reader import LazyTensor, check_names_and_shapes, read_json, shapes_of
from lens.models.checkpoints.single_file import DENOISER_CONFIG_KEY, open_denoiser
from lens.models.checkpoints.writer import StreamedTensor
from lens.models.shapes import denoiser_shapes

DIFFUSERS_SHARD_BYTES = 10_000_000_000
"""Largest shard that diffusers writes by default."""


def denoiser_target(source: Path, name: str, layout: Format) -> Target:
    """Return what a denoiser is in a format. Raises: CheckpointError for a source that does not fit."""
    stored, config = open_denoiser(source)
    tensors = stored.tensors
    check_names_and_shapes(
        denoiser_shapes(config), shapes_of(tensors), source=source, what=COMPONENT_LABELS["transformer"]
    )
    blocks = [
        key
        for key, tensor in tensors.items()
        if layout.bits < 16 and is_in_blocks(key, len(tensor.shape), name, DENOISER)
    ]
    for key in blocks:
        require_inputs(key, tensors[key].shape[1], layout.inputs, name)
    settings = {DENOISER_CONFIG_KEY: json.dumps(config)} | stated_settings(source, stored.metadata)
    if name.startswith("gguf-"):
        kinds = gguf_kinds(tensors, blocks, name.removeprefix("gguf-").upper())
        return Target(
            {key: gguf_tensor(key, tensors[key], kind) for key, kind in kinds.items()},
            settings={"general.quantization_version": 2} | settings,
            architecture="lens",
        )
    if name == "mxfp8":
        target = _mxfp8(tensors, blocks)
    else:
        dtype = plain_dtype(name, stored_shapes(Source(DENOISER, source)))
        target = {key: plain_tensor(key, tensor, dtype) for key, tensor in tensors.items()}
    if not layout.suffix:
        return Target(
            target,
            config=diffusers_config("LensTransformer2DModel", config),
            shard_bytes=DIFFUSERS_SHARD_BYTES,
        )
    return Target(target, settings={"format": "pt"} | settings)


def stated_settings(source: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what a denoiser's model states, such as its variant, as text for the metadata of a file."""
    index = source.parent / "model_index.json"
    stated = read_json(index) if source.is_dir() and index.is_file() else metadata
    found = {key: stated[key] for key in STATED_SETTINGS if stated.get(key) is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _mxfp8(tensors: Mapping[str, LazyTensor], blocks: Collection[str]) -> dict[str, StreamedTensor]:
    target = {}
    for key, tensor in tensors.items():
        if key not in blocks:
            target[key] = plain_tensor(key, tensor, "BF16")
            continue
        layer = key.removesuffix(".weight")
        target |= {f"{layer}.{part}": value for part, value in mxfp8_tensors(key, tensor).items()}
        target[f"{layer}.comfy_quant"] = json_tensor({"format": "mxfp8"})
    return target


def gguf_kinds(tensors: Mapping[str, LazyTensor], blocks: Collection[str], kind: str) -> dict[str, str]:
    """Return the number type of each tensor in GGUF: vectors are F32, as llama.cpp's are."""
    matrix = kind if kind in ("F16", "BF16") else "BF16"
    return {
        key: kind if key in blocks else "F32" if len(tensor.shape) < 2 else matrix
        for key, tensor in tensors.items()
    }


def gguf_tensor(key: str, stored: LazyTensor, kind: str) -> StreamedTensor:
    """Return a tensor in one of llama.cpp's number types; its pieces are bytes or plain numbers."""
    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if kind in dtypes:
        return StreamedTensor(stored.shape, kind, lambda: cast_pieces(key, stored, dtypes[kind]))
    return StreamedTensor(stored.shape, kind, lambda: gguf_rows(key, stored, kind))
