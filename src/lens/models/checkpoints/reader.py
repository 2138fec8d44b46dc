"""Reading of weight files: their headers, lazy tensors, and checks of names and shapes.

Headers are read without torch, and a tensor only when it is used. Pickled files are refused, as reading one
runs code that it contains. Knows nothing of what the tensors mean.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lens.errors import CheckpointError
from lens.text_files import TextError, parse_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lens.models.mapped_memory import MappedFile
    from lens.models.quantized.packed_weight import PackedSource

PICKLED_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
LFS_POINTER = b"version https://git-lfs"
MAX_LISTED_NAMES = 10
MAX_AXES = 16
"""Axes of a tensor in a file; those of models have up to five."""


TORCH_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
}  # fmt: skip
"""The name of each dtype of safetensors in torch."""


class LazyTensor(NamedTuple):
    """A tensor in a file: its shape, its dtype as safetensors writes it, and a function that reads it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], "Tensor"]
    packed: "PackedSource | None" = None
    """The stored bytes of a quantized weight, for modules that keep it packed; `read` dequantizes it."""

    @property
    def num_bytes(self) -> int:
        bits = re.search(r"\d+", self.dtype)  # as in BF16 or F8_E4M3; BOOL takes a byte
        return math.prod(self.shape) * (int(bits[0]) if bits else 8) // 8


class LazyStateDict(NamedTuple):
    """The tensors of one file or folder by name, and the metadata of the file."""

    tensors: dict[str, LazyTensor]
    metadata: dict[str, str]


def validate_file(path: Path) -> None:
    """Raise a CheckpointError for a file that is missing, a git-lfs pointer, a web page or pickled."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, but a weight file is needed here.")
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist. Check the path, or list known models with `lens models`."
        )
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(LFS_POINTER):
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the weights: the repository was cloned without them. "
            "Run `git lfs pull` in it, or download it with `hf download`."
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(
            f"{path} is a web page, not weights: the download returned an error page. "
            "Download it again with `hf download`."
        )
    if not head:
        raise CheckpointError(f"{path} is empty. Download it again.")
    if path.suffix.lower() in PICKLED_SUFFIXES or _is_pickled(head):
        raise CheckpointError(
            f"{path} is a pickled file, which is refused, as reading it would run code that it contains. "
            "Use the .safetensors file of the same weights, or convert it if you trust it."
        )


def _is_pickled(head: bytes) -> bool:
    # torch.save writes a zip archive, its older versions a pickle of protocol 2 to 5. The length of a
    # safetensors header may begin with the same two bytes; five zeros and the header follow those.
    is_header_length = head[3:9] == b"\0\0\0\0\0{"
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return head.startswith(b"PK\x03\x04") or (is_pickle and not is_header_length)


class StoredEntry(NamedTuple):
    """Where a safetensors file has a tensor."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In bytes from the start of the file."""


def read_header(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]:
    """Return ({name: (dtype, shape)}, metadata) of a safetensors file that is complete."""
    entries, metadata = _read_entries(path)
    return {name: (entry.dtype, entry.shape) for name, entry in entries.items()}, metadata


def _read_entries(path: Path) -> tuple[dict[str, StoredEntry], dict[str, str]]:
    validate_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            if length > 100_000_000 or size < 8:
                if path.suffix.lower() != ".safetensors":
                    needs = "weights are in files that end in .safetensors or .gguf"
                    raise CheckpointError(f"{path} is not a safetensors file; {needs}.")
                raise CheckpointError(
                    f"{path} is not a safetensors file, or only its first {size} bytes. Download it again."
                )
            raise _truncated_error(path, size, length + 8)
        header, metadata, data_bytes = _parse_header(path, file.read(length))
    end = 8 + length + data_bytes
    if size < end:
        raise _truncated_error(path, size, end)
    if size > end:
        raise _damaged_error(path, f"it has {size - end} bytes behind its last tensor")
    return {
        name: entry._replace(offset=8 + length + entry.offset) for name, entry in header.items()
    }, metadata


def _parse_header(path: Path, text: bytes) -> tuple[dict[str, StoredEntry], dict[str, str], int]:
    """Return the tensors with offsets from the end of the header, the metadata and the bytes of all tensors.

    Raises: CheckpointError unless the tensors lie one behind the other, each as long as its shape needs.
    """

    def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise _damaged_error(path, "a name is twice in its header")
        return values

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique_names)
        metadata = entries.pop("__metadata__", {})
        spans = {name: tuple(entry["data_offsets"]) for name, entry in entries.items()}
        header = {
            name: StoredEntry(str(entry["dtype"]), tuple(entry["shape"]), spans[name][0])
            for name, entry in entries.items()
        }
        ordered = sorted((start, stop, name) for name, (start, stop) in spans.items())
    except CheckpointError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: its header cannot be read.") from error
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged_error(path, "its metadata are no strings by name")
    end = 0
    for start, stop, name in ordered:
        dtype, shape, _ = header[name]
        numbers = (start, stop, *shape)
        if len(shape) > MAX_AXES or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            raise _damaged_error(path, f"{name} has no valid shape or place")
        if start != end:
            raise _damaged_error(path, f"{name} does not begin where the tensor before it ends")
        if math.prod(shape) * _bits_of(dtype, path) != 8 * (stop - start):
            raise _damaged_error(path, f"{name} takes {stop - start} bytes, which are not those of its shape")
        end = stop
    return header, metadata, end


def _bits_of(dtype: str, path: Path) -> int:
    match = re.fullmatch(r"BOOL|(?:F|BF|I|U|C)(\d{1,3})(?:_E\dM\d(?:FNUZ)?)?", dtype)
    if match is None:
        raise _damaged_error(path, f"it has tensors of dtype {dtype}, which does not exist")
    return int(match[1] or 8)


def _damaged_error(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {what}. Download it again.")


def _truncated_error(path: Path, size: int, needed: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated: it has {size} of {needed} bytes. The download stopped early; "
        "run it again (`hf download` resumes)."
    )


def open_safetensors(path: Path) -> LazyStateDict:
    """Return the tensors of a safetensors file: views of its memory map, which is made at the first read."""
    header, metadata = _read_entries(path)

    open_map = map_of(path)

    def lazy_tensor(name: str) -> LazyTensor:
        dtype, shape, offset = header[name]
        return LazyTensor(shape, dtype, lambda: open_map().tensor(offset, shape, torch_dtype(dtype, path)))

    return LazyStateDict({name: lazy_tensor(name) for name in header}, metadata)


def map_of(path: Path) -> Callable[[], "MappedFile"]:
    """Return a function that maps a file at its first call, and returns that map at every call.

    Each opening of a file has a map of its own: models may write to their weights, which are views of it.
    """

    @cache
    def open_map() -> "MappedFile":
        from lens.models.mapped_memory import MappedFile

        return MappedFile(path)

    return open_map


def torch_dtype(dtype: str, source: object) -> "torch.dtype":
    """Return torch's dtype for one of safetensors. Raises: CheckpointError for one that torch lacks."""
    import torch

    if dtype not in TORCH_DTYPES:
        raise CheckpointError(
            f"{source} has tensors of dtype {dtype}, which cannot be read. Convert them to BF16 or F32."
        )
    return getattr(torch, TORCH_DTYPES[dtype])


def check_names_and_shapes(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    *,
    source: object,
    what: str,
) -> None:
    """Raise a CheckpointError unless names and shapes agree exactly.

    The message lists the first ten missing, extra and mis-shaped names, and what the file probably is.
    """
    from lens.models.checkpoints.detect import detect_kind

    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    shaped = [
        f"{name} is {_format_shape(found[name])}, needs {_format_shape(expected[name])}"
        for name in expected
        if name in found and tuple(found[name]) != tuple(expected[name])
    ]
    if not (missing or extra or shaped):
        return
    parts = [
        format_names(missing, "missing"),
        format_names(extra, "extra"),
        format_names(shaped, "mis-shaped"),
    ]
    kind = detect_kind(found)
    guess = f" It is probably {kind}." if kind else " It is no kind of file known here."
    raise CheckpointError(
        f"{source} does not fit {what}: {'; '.join(part for part in parts if part)}.{guess}"
    )


def format_names(names: list[str], claim: str) -> str:
    """Return a count, a claim and the first ten names; empty for no names."""
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else ""
    return f"{len(names)} {claim} ({', '.join(names[:MAX_LISTED_NAMES])}{more})"


def _format_shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(side) for side in shape) + ")"


def shapes_of(tensors: Mapping[str, LazyTensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each stored tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Raises: CheckpointError if it is missing or no JSON object."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing. The folder is incomplete; download it again (`hf download` resumes)."
        )
    try:
        values = parse_json(path.read_bytes())
    except TextError as error:
        raise CheckpointError(f"{path} {error}. Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must be a JSON object.")
    return values


def stored_config(metadata: Mapping[str, str], key: str, source: object) -> dict[str, Any]:
    """Return the configuration in the metadata of a file. Raises: CheckpointError if it is no JSON object."""
    try:
        values = parse_json(metadata[key])
    except TextError as error:
        raise CheckpointError(f"{key} in {source} {error}. Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{key} in {source} must be a JSON object. Download it again.")
    return values


def read_weight_map(index: Path) -> dict[str, str]:
    """Return the file of each weight from an index of shards. Raises: CheckpointError if it has none."""
    names = read_json(index).get("weight_map")
    is_map = isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
    if not is_map or not names:
        raise CheckpointError(f"{index} has no weight_map, which names the file of each weight.")
    odd = next((name for name in names.values() if Path(name).name != name), None)
    if odd is not None:
        raise CheckpointError(f"{index} names {odd!r}, which is no file beside it.")
    return names
