"""What is converted: the part of a model that a path holds and a format fits, found from headers alone.

Free of torch. The space that the result takes is estimated from the shapes in the headers.
"""

import logging
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lens.errors import CheckpointError, SettingError
from lens.files import DiskFullError
from lens.models.checkpoints.components.component_file import read_component
from lens.models.checkpoints.conversion.formats import (
    ADAPTER,
    COMPONENT_OF_PART,
    DENOISER,
    PARTS,
    TEXT_ENCODER,
    Format,
    formats_of,
)
from lens.models.checkpoints.diffusers_folder import component_folder, open_component
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX, read_gguf_header
from lens.models.checkpoints.reader import open_safetensors
from lens.models.checkpoints.registry import KNOWN_MODELS
from lens.models.quantized.torchao import is_quantizable

logger = logging.getLogger(__name__)

PART_OF_COMPONENT = {component: part for part, component in COMPONENT_OF_PART.items()}
SLACK = 1.02
"""How much larger a file may be than its weights: headers, padded scales, a tokenizer."""


class Source(NamedTuple):
    """A part of a model in a file or a component's folder."""

    part: str
    path: Path


class StoredShape(NamedTuple):
    """A weight in a file: its shape once it is dequantized, and the dtype that it is stored in."""

    shape: tuple[int, ...]
    dtype: str


def find_source(path: Path, name: str, layout: Format, part: str | None) -> Source:
    """Return the part of a path that is to be converted; `name` is that of the format.

    A whole model's folder has several parts, of which the format fits one, or `part` is named.
    Raises: CheckpointError for a path without a part that can be converted; SettingError for a format that
    does not fit the part.
    """
    if not path.exists():
        names = ", ".join(KNOWN_MODELS)
        raise CheckpointError(f"{path} does not exist. Check the path, or give a known name: {names}.")
    if part is not None and part not in PARTS:
        raise SettingError("part", part, f"one of {', '.join(PARTS)}")
    if part is not None and part not in layout.parts:
        raise _misfit(name, layout, part)
    if path.is_dir() and (components := _components(path)):
        return _choose(path, components, name, layout, part)
    if layout.parts == (ADAPTER,) and path.is_dir():
        return Source(ADAPTER, path)
    found = _part_of(path)
    if found is None and layout.parts == (ADAPTER,):
        found = ADAPTER  # the reader of adapters says what is wrong with it
    if found is None:
        kind = read_component(path).title
        raise CheckpointError(f"{path} is no {' or '.join(layout.parts)}. It is probably {kind}.")
    if found not in layout.parts:
        raise _misfit(name, layout, found, path)
    if part not in (None, found):
        raise SettingError("part", part, f"{found}, which is what {path} holds")
    return Source(found, path)


def _components(folder: Path) -> dict[str, Path]:
    """Return the folders of the parts of a whole model's folder; none for anything else."""
    is_model = (folder / "model_index.json").is_file()
    if not is_model and not any((folder / name).is_dir() for name in PART_OF_COMPONENT):
        return {}
    places = {part: component_folder(folder, name) for part, name in COMPONENT_OF_PART.items()}
    return {part: place for part, place in places.items() if place.is_dir()}


def _choose(
    folder: Path, components: Mapping[str, Path], name: str, layout: Format, part: str | None
) -> Source:
    fitting = [one for one in layout.parts if one in components]
    if part is not None:
        fitting = [one for one in fitting if one == part]
    if not fitting:
        needs = part or " or ".join(layout.parts)
        raise CheckpointError(f"{folder} has no {needs}, which the format {name} is for.")
    if len(fitting) > 1:
        if layout.asks_for_part:
            choices = " or ".join(f"--part {one}" for one in fitting)
            raise SettingError(
                "part", None, f"one of {', '.join(fitting)}, as {folder} has several", f"Use {choices}."
            )
        logger.info("%s: the %s is converted; --part names another.", folder, fitting[0])
    return Source(fitting[0], components[fitting[0]])


def _part_of(path: Path) -> str | None:
    found = read_component(path)
    is_adapter = found.component is None and re.match(r"an? (adapter|Lo[A-Za-z]+ adapter|Lo|Do)", found.title)
    return ADAPTER if is_adapter else PART_OF_COMPONENT.get(found.component or "")


def _misfit(name: str, layout: Format, part: str, path: Path | None = None) -> SettingError:
    where = f", which is what {path} holds" if path else ""
    return SettingError("format", name, f"one of {', '.join(formats_of(part))} for {_article(part)}{where}")


def _article(part: str) -> str:
    return f"an {part}" if part.startswith("a") else f"a {part}"


def stored_shapes(source: Source) -> dict[str, StoredShape]:
    """Return the weights of a source from the headers of its files; scales are left out."""
    if source.path.suffix.lower() == GGUF_SUFFIX and source.path.is_file():
        tensors = read_gguf_header(source.path).tensors
        return {name: StoredShape(tensor.shape, tensor.format) for name, tensor in tensors.items()}
    if source.path.is_dir():
        opened = open_component(source.path, COMPONENT_OF_PART[source.part])
    else:
        opened = open_safetensors(source.path)
    stored = {name: StoredShape(tensor.shape, tensor.dtype) for name, tensor in opened.tensors.items()}
    dequantized = {name: _dequantized(name, stored) for name in stored}
    return {name: weight for name, weight in dequantized.items() if weight is not None}


def _dequantized(name: str, stored: Mapping[str, StoredShape]) -> StoredShape | None:
    """Return a weight's shape once it is dequantized; None for a scale or a tokenizer."""
    shape, dtype = stored[name]
    if re.search(
        r"(_scales|\.weight_scale|\.weight_scale_2|\.input_scale|\.comfy_quant|^tokenizer_json)$", name
    ):
        return None
    if name.endswith("_blocks") and len(shape) == 4:
        return StoredShape((*shape[:2], 2 * shape[2] * shape[3]), dtype)
    layer = name.removesuffix(".weight")
    if dtype == "U8" and f"{layer}.weight_scale_2" in stored:
        return StoredShape((*shape[:-1], 2 * shape[-1]), dtype)
    return stored[name]


def plain_dtype(name: str, shapes: Mapping[str, StoredShape]) -> str:
    """Return the dtype of weights that are not quantized in a format: F32 or BF16."""
    is_float32 = {stored.dtype for stored in shapes.values()} == {"F32"}
    return "F32" if name == "single-f32" or (name == "folder" and is_float32) else "BF16"


def estimated_bytes(shapes: Mapping[str, StoredShape], name: str, layout: Format, part: str) -> int:
    """Return about how much space weights of these shapes take in a format."""
    plain = 32.0 if plain_dtype(name, shapes) == "F32" else 16.0
    is_quantized = layout.bits < 16
    bits = 0.0
    for weight, (shape, dtype) in shapes.items():
        if part not in (DENOISER, TEXT_ENCODER):
            width = 32.0 if dtype == "F32" else 16.0
        else:
            width = layout.bits if is_quantized and is_in_blocks(weight, len(shape), name, part) else plain
        bits += width * math.prod(shape)
    return int(SLACK * bits / 8)


def is_in_blocks(name: str, num_axes: int, format_name: str, part: str) -> bool:
    """Return whether a weight is quantized in a format with blocks; other weights keep their precision."""
    if part == DENOISER:
        return num_axes == 2 and name.endswith(".weight") and is_quantizable(name)
    if num_axes == 3:
        return True
    is_attention = re.search(r"(self_attn\.[qkvo]_proj|attn_(q|k|v|output))\.weight$", name)
    return bool(is_attention) and format_name in ("gguf-q8_0", "gguf-q4_0")


def check_space(target: Path, needed: int) -> None:
    """Raise a DiskFullError unless a target of this size fits on its disk."""
    existing = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskFullError(
            f"{target} takes about {needed / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB free. "
            "Free some space, or choose a target on another disk."
        )
