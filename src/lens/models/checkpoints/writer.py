"""Atomic writes of safetensors files, one tensor at a time: whole files and folders of shards with an index.

The header comes first, so every tensor's shape and dtype are known before one is read, and memory holds one
tensor, or one piece of it. Permissions are those of any new file: 0o666 less the umask.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lens.errors import CheckpointError
from lens.files import write_atomic, write_bytes_atomic
from lens.models.checkpoints.reader import TORCH_DTYPES, LazyTensor, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

HEADER_ALIGNMENT = 8
SHARD_BYTES = 5_000_000_000
"""Largest shard that transformers writes by default."""


class StreamedTensor(NamedTuple):
    """A tensor that is computed when it is written."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it."""
    read: "Callable[[], Tensor | Iterable[Tensor]]"
    """Return the tensor, or pieces of any shape that are its values in row-major order."""


WritableTensor = LazyTensor | StreamedTensor


def clear_name_or_path(model: Any) -> None:
    """Remove the folder that a diffusers model was loaded from from its configuration, which is published."""
    kept = {name: value for name, value in model.config.items() if name != "_name_or_path"}
    model._internal_dict = type(model.config)(kept)


def write_safetensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file that appears complete or not at all, in the order of safetensors' own writer.

    Raises: CheckpointError for another suffix; FileWriteError; DiskFullError.
    """
    in_order = {name: streamed(tensors[name]) for name in sorted(tensors)}
    write_safetensors_streamed(path, in_order, metadata)


def streamed(tensor: "Tensor") -> StreamedTensor:
    """Return a tensor in memory as one to write. Raises: CheckpointError for a dtype the format lacks."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    names = {torch_name: name for name, torch_name in TORCH_DTYPES.items()}
    if dtype not in names:
        raise CheckpointError(
            f"A tensor of dtype {dtype} cannot be written. Convert it to bfloat16 or float32."
        )
    return StreamedTensor(tuple(tensor.shape), names[dtype], lambda: tensor)


def write_safetensors_streamed(
    path: Path, tensors: Mapping[str, WritableTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors one at a time, each read when its turn comes; the file appears complete or not at all.

    Tensors are read in the given order, so parts of one weight that are computed together stay together. In
    the file those of wider numbers come first, as it has no gaps and each must start at a multiple of its
    number's width.
    Raises: CheckpointError for another suffix, or a tensor that is not as declared; FileWriteError;
    DiskFullError.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} must end in .safetensors, the only single-file format that is written."
        )
    ordered = dict(sorted(tensors.items(), key=lambda item: -_item_bytes(item[0], item[1])))

    def write(file: BinaryIO) -> None:
        header = _header(ordered, metadata)
        file.write(header)
        sizes = [num_bytes(name, tensor) for name, tensor in ordered.items()]
        starts = dict(zip(ordered, accumulate(sizes, initial=len(header)), strict=False))
        for name, tensor in tensors.items():
            file.seek(starts[name])
            _write_values(file, name, tensor)

    write_atomic(path, write)


def write_sharded_safetensors(
    folder: Path,
    tensors: Mapping[str, WritableTensor],
    stem: str = "model",
    shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write tensors as shards under the names of transformers and diffusers; return the files, index last.

    One shard is `{stem}.safetensors` without an index. A tensor larger than a shard has a shard of its own.
    Raises: as write_safetensors_streamed.
    """
    shards: list[dict[str, WritableTensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = num_bytes(name, tensor)
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    whole, index_file = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    files = [folder / f"{stem}-{at:05d}-of-{len(shards):05d}.safetensors" for at in range(1, len(shards) + 1)]
    files = files if len(shards) > 1 else [whole]
    for file, shard in zip(files, shards, strict=True):
        write_safetensors_streamed(file, shard, metadata)
    if len(shards) > 1:
        shard_of = {name: file.name for file, shard in zip(files, shards, strict=True) for name in shard}
        total = sum(num_bytes(name, tensor) for name, tensor in tensors.items())
        index = {"metadata": {"total_size": total}, "weight_map": shard_of}
        content = json.dumps(index, indent=2, sort_keys=True) + "\n"
        files.append(write_bytes_atomic(index_file, content.encode()))
    # Readers would prefer what an earlier write of other sizes left.
    for old in (whole, index_file, *folder.glob(f"{stem}-*-of-*.safetensors")):
        if old not in files:
            old.unlink(missing_ok=True)
    return files


def num_bytes(name: str, tensor: WritableTensor) -> int:
    """Return the bytes that a tensor takes in a file."""
    return math.prod(tensor.shape) * _item_bytes(name, tensor)


def _item_bytes(name: str, tensor: WritableTensor) -> int:
    return torch_dtype(tensor.dtype, name).itemsize


def _header(tensors: Mapping[str, WritableTensor], metadata: Mapping[str, str] | None) -> bytes:
    """Return the length and the JSON of a header, padded with spaces so that the values are aligned."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    start = 0
    for name, tensor in tensors.items():
        end = start + num_bytes(name, tensor)
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_values(file: BinaryIO, name: str, tensor: WritableTensor) -> None:
    """Write one tensor and hold it to its declared shape and dtype."""
    import torch

    dtype, written = torch_dtype(tensor.dtype, name), 0
    for piece in _pieces(name, tensor):
        if piece.dtype != dtype:
            raise CheckpointError(f"{name} was declared as {tensor.dtype}, but it was read as {piece.dtype}.")
        values = piece.detach().cpu().contiguous().reshape(-1)
        file.write(values.view(torch.uint8).numpy().data)
        written += values.numel()
    if written != math.prod(tensor.shape):
        raise CheckpointError(
            f"{name} was declared as {tuple(tensor.shape)}, {math.prod(tensor.shape)} values, "
            f"but {written} were read."
        )


def _pieces(name: str, tensor: WritableTensor) -> "Iterator[Tensor]":
    from torch import Tensor

    values = tensor.read()
    if not isinstance(values, Tensor):
        yield from values
        return
    if tuple(values.shape) != tuple(tensor.shape):
        raise CheckpointError(
            f"{name} was declared as {tuple(tensor.shape)}, but it was read as {tuple(values.shape)}."
        )
    yield values
