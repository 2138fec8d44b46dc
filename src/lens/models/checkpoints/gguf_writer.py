"""Atomic writes of GGUF files, one tensor at a time; the `gguf` package writes the header.

Knows nothing of what the tensors mean. Values come as they are stored: floats, or the bytes of blocks.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lens.errors import CheckpointError, MissingExtraError
from lens.files import replace_file
from lens.models.checkpoints.gguf_header import GGUF_FORMATS, GGUF_SUFFIX

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = 32
"""Every tensor starts at a multiple of it, counted from the end of the header."""

_SIZES = {name: (values, size) for name, values, size in GGUF_FORMATS.values()}


class StreamedGgufTensor(NamedTuple):
    """A tensor that is computed when it is written."""

    shape: tuple[int, ...]
    """Of its values, outermost axis first, as in torch."""
    format: str
    """As llama.cpp names it: F32, Q4_0 ..."""
    read: "Callable[[], Tensor | Iterable[Tensor]]"
    """Return what is stored, of any shape and dtype, whole or in pieces: its bytes follow each other."""

    @property
    def num_bytes(self) -> int:
        values, size = _SIZES[self.format]
        return math.prod(self.shape) // values * size


def write_gguf_streamed(
    path: Path,
    tensors: Mapping[str, StreamedGgufTensor],
    architecture: str,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors one at a time, each read when its turn comes; the file appears complete or not at all.

    Settings are strings, booleans, whole numbers (32 bits), floats (32 bits) or lists of one of them.
    Raises: CheckpointError for another suffix, or a tensor that is not as declared; MissingExtraError;
    FileWriteError; DiskFullError.
    """
    if path.suffix != GGUF_SUFFIX:
        raise CheckpointError(f"{path} must end in {GGUF_SUFFIX}.")
    for name, tensor in tensors.items():
        _check_format(name, tensor)
    with replace_file(path) as partial:
        _write_header(partial, tensors, architecture, settings or {})
        with partial.open("ab") as file:
            for name, tensor in tensors.items():
                _pad(file)
                _write_values(file, name, tensor)
            _pad(file)


def _check_format(name: str, tensor: StreamedGgufTensor) -> None:
    if tensor.format not in _SIZES:
        raise CheckpointError(f"{name} is in {tensor.format}. Formats of GGUF are {', '.join(_SIZES)}.")
    values, _ = _SIZES[tensor.format]
    if not tensor.shape or tensor.shape[-1] % values:
        raise CheckpointError(
            f"{name} is {tensor.shape}, but {tensor.format} needs rows of a multiple of {values}."
        )


def _write_header(
    path: Path, tensors: Mapping[str, StreamedGgufTensor], architecture: str, settings: Mapping[str, Any]
) -> None:
    try:
        import gguf
        import numpy as np
    except ImportError as error:
        raise MissingExtraError("A GGUF file", "gguf", "quantize") from error
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in settings.items():
        _add_setting(writer, key, value)
    for name, tensor in tensors.items():
        # The shape is that of the values, as the dtype is not that of bytes.
        kind = gguf.GGMLQuantizationType[tensor.format]
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), tensor.num_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _add_setting(writer: Any, key: str, value: Any) -> None:
    # Booleans are numbers too, and so come first.
    kinds = ((bool, writer.add_bool), (int, writer.add_uint32), (float, writer.add_float32),
             (str, writer.add_string), (list, writer.add_array))  # fmt: skip
    add = next((add for kind, add in kinds if isinstance(value, kind)), None)
    if add is None:
        raise CheckpointError(f"The setting {key} is a {type(value).__name__}, which GGUF does not hold.")
    add(key, value)


def _write_values(file: BinaryIO, name: str, tensor: StreamedGgufTensor) -> None:
    """Write one tensor and hold it to its declared size."""
    import torch

    stored, written = tensor.read(), 0
    for piece in [stored] if isinstance(stored, torch.Tensor) else stored:
        values = piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        file.write(values.numpy().data)
        written += len(values)
    if written != tensor.num_bytes:
        raise CheckpointError(
            f"{name} was declared as {tensor.shape} in {tensor.format}, {tensor.num_bytes} bytes, "
            f"but {written} were read."
        )


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
