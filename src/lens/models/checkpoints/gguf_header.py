"""Headers of GGUF files: the settings, and the shape, format and place of each tensor.

Free of torch and of the `gguf` package, so that files are looked through fast. Knows nothing of what the
tensors mean.
"""

import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from lens.errors import CheckpointError
from lens.models.checkpoints.reader import validate_file

GGUF_MAGIC = b"GGUF"
GGUF_SUFFIX = ".gguf"

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The number types of settings, as `struct` writes them."""
_STRING, _ARRAY = 8, 9

GGUF_FORMATS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""The formats of llama.cpp by number: name, values of a block, bytes of a block."""


class GgufTensor(NamedTuple):
    """Where a GGUF file has a tensor."""

    shape: tuple[int, ...]
    """Outermost axis first, as in torch; the file lists the innermost first."""
    format: str
    offset: int
    """In bytes from the start of the file."""
    num_bytes: int


class GgufHeader(NamedTuple):
    """What a GGUF file says before its data."""

    settings: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf_header(path: Path, arrays: Collection[str] = ()) -> GgufHeader:
    """Return the header of a GGUF file that is complete.

    Settings that are arrays are read only if `arrays` names them, as a vocabulary has 200,000 entries.
    Raises: CheckpointError for a file that is missing, not GGUF, truncated, or in an unknown format.
    """
    validate_file(path)
    with path.open("rb") as file:
        if file.read(4) != GGUF_MAGIC:
            raise CheckpointError(f"{path} is not a GGUF file, despite its name. Download it again.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data, path).header(arrays)
            except (struct.error, LookupError, ValueError, OverflowError, RecursionError) as error:
                if isinstance(error, CheckpointError):
                    raise
                raise _truncated_error(path) from error


def _truncated_error(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated or damaged: its tables do not fit its {path.stat().st_size} bytes. "
        "Run the download again (`hf download` resumes)."
    )


class _Reader:
    """Reads a header from front to back."""

    def __init__(self, data: mmap.mmap, path: Path):
        self.data, self.path, self.at = data, path, 4

    def header(self, arrays: Collection[str]) -> GgufHeader:
        version, num_tensors, num_settings = self.numbers("IQQ")
        if version not in (2, 3):
            raise CheckpointError(f"{self.path} is GGUF of version {version}; versions 2 and 3 can be read.")
        settings = {}
        for _ in range(num_settings):
            name = self.string()
            (kind,) = self.numbers("I")
            value = self.value(kind, name in arrays)
            if value is not None:
                settings[name] = value
        entries = [self.entry() for _ in range(num_tensors)]
        alignment = settings.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise _truncated_error(self.path)
        start = -(-self.at // alignment) * alignment
        tensors = {name: self.tensor(name, start, *entry) for name, *entry in entries}  # type: ignore[arg-type]
        if any(one.offset + one.num_bytes > len(self.data) for one in tensors.values()):
            raise _truncated_error(self.path)
        return GgufHeader(settings, tensors)

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        (num_axes,) = self.numbers("I")
        if num_axes > 8:
            raise _truncated_error(self.path)
        sides = self.numbers(f"{num_axes}Q")
        kind, offset = self.numbers("IQ")
        return name, tuple(reversed(sides)), kind, offset

    def tensor(self, name: str, start: int, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        if kind not in GGUF_FORMATS:
            raise CheckpointError(
                f"{name} in {self.path} is in format {kind} of GGUF, which is unknown here."
            )
        format_name, block_values, block_bytes = GGUF_FORMATS[kind]
        count = 1
        for side in shape:
            count *= side
        return GgufTensor(shape, format_name, start + offset, count // block_values * block_bytes)

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        layout = "<" + kinds
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self) -> str:
        (length,) = self.numbers("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise _truncated_error(self.path)
        return self.data[start : self.at].decode()

    def value(self, kind: int, has_array: bool) -> Any:
        """Return a setting; None for an array that is skipped."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.numbers(_number_kind(kind, self.path))[0]
        kind, count = self.numbers("IQ")
        if kind == _ARRAY:
            nested = [self.value(kind, has_array) for _ in range(count)]
            return nested if has_array else None
        if kind == _STRING:
            if has_array:
                return [self.string() for _ in range(count)]
            for _ in range(count):
                (length,) = self.numbers("Q")
                self.at += length
            return None
        number = _number_kind(kind, self.path)
        if has_array:
            return list(self.numbers(f"{count}{number}"))
        self.at += count * struct.calcsize("<" + number)
        return None


def _number_kind(kind: int, path: Path) -> str:
    if kind not in _NUMBERS:
        raise _truncated_error(path)
    return _NUMBERS[kind]
