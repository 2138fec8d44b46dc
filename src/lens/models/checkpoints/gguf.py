"""GGUF files: their tensors, in any number format of llama.cpp, dequantized when read.

The `gguf` package dequantizes. Knows nothing of what the tensors mean. Spec: section 6.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.errors import CheckpointError, MissingExtraError
from lens.models.checkpoints.reader import LazyStateDict, LazyTensor, validate_file

GGUF_MAGIC = b"GGUF"
GGUF_SUFFIX = ".gguf"


def open_gguf(path: Path) -> LazyStateDict:
    """Return the tensors of a GGUF file, and those of its settings that are strings.

    Raises: CheckpointError for a file that is missing, not GGUF, truncated, or in an unknown number format.
    """
    validate_file(path)
    with path.open("rb") as file:
        if file.read(4) != GGUF_MAGIC:
            raise CheckpointError(f"{path} is not a GGUF file, despite its name. Download it again.")
    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged: its tables do not fit its {path.stat().st_size} bytes. "
            "Run the download again (`hf download` resumes)."
        ) from error
    tensors = {
        tensor.name: LazyTensor(_shape(tensor), "F32", _lazy_reader(tensor, path))
        for tensor in reader.tensors
    }
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    return LazyStateDict(tensors, {name: value for name, value in metadata.items() if isinstance(value, str)})


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("A GGUF file", "gguf", "quantize") from error
    return gguf


def _shape(tensor: Any) -> tuple[int, ...]:
    # GGUF lists the innermost axis first.
    return tuple(int(side) for side in reversed(tensor.shape))


def _lazy_reader(tensor: Any, path: Path) -> Callable[[], Tensor]:
    def read() -> Tensor:
        try:
            values = _gguf().dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            kind = tensor.tensor_type.name
            raise CheckpointError(f"{tensor.name} in {path} is {kind}, which gguf cannot read.") from error
        # A copy, as the array is a view of the file.
        return torch.from_numpy(values.copy()).float().reshape(_shape(tensor))

    return read
