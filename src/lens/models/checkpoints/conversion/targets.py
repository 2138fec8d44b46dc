"""What a conversion writes: streamed tensors with the configuration or settings of their layout.

Knows nothing of which part of a model it is.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.files import write_bytes_atomic
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
from lens.models.checkpoints.gguf_writer import StreamedGgufTensor, write_gguf_streamed
from lens.models.checkpoints.writer import (
    SHARD_BYTES,
    StreamedTensor,
    streamed,
    write_safetensors_streamed,
    write_sharded_safetensors,
)


@dataclass(frozen=True)
class Target:
    """A file or folder to write."""

    tensors: dict[str, StreamedTensor]
    """Of a GGUF file, the dtype is the number type."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Metadata of a safetensors file, or settings of a GGUF file."""
    config: dict[str, Any] | None = None
    """The config.json of a folder."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Further files of a folder."""
    shard_bytes: int = SHARD_BYTES
    architecture: str = ""
    """Of a GGUF file."""


def json_tensor(values: Any) -> StreamedTensor:
    """Return a value as JSON in a tensor of bytes, as ComfyUI marks quantized layers."""
    return bytes_tensor(json.dumps(values).encode())


def bytes_tensor(content: bytes) -> StreamedTensor:
    """Return bytes as a tensor of uint8."""
    return streamed(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def diffusers_config(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.json of a component as diffusers writes it, without where it was loaded from."""
    kept = {key: value for key, value in sorted(config.items()) if not key.startswith("_")}
    return {"_class_name": class_name, "_diffusers_version": version("diffusers"), **kept}


def write_target(
    path: Path, target: Target, stem: str, on_progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Write a target's file or folder; report how many of its tensors are written."""
    tensors = target.tensors if on_progress is None else _with_progress(target.tensors, on_progress)
    if target.config is not None:
        write_sharded_safetensors(path, tensors, stem, target.shard_bytes, {"format": "pt"})
        content = json.dumps(target.config, indent=2) + "\n"
        write_bytes_atomic(path / "config.json", content.encode())
        for name, text in target.files.items():
            write_bytes_atomic(path / name, text)
    elif path.suffix == GGUF_SUFFIX:
        in_gguf = {name: StreamedGgufTensor(*tensor) for name, tensor in tensors.items()}
        write_gguf_streamed(path, in_gguf, target.architecture, target.settings)
    else:
        write_safetensors_streamed(path, tensors, target.settings)


def _with_progress(
    tensors: Mapping[str, StreamedTensor], on_progress: Callable[[str, int, int], None]
) -> dict[str, StreamedTensor]:
    """Return the same tensors, which report how many of them were read before."""
    done = count()

    def read(tensor: StreamedTensor) -> "Tensor | Iterable[Tensor]":
        on_progress("converting", next(done), len(tensors))
        return tensor.read()

    return {name: tensor._replace(read=lambda t=tensor: read(t)) for name, tensor in tensors.items()}
