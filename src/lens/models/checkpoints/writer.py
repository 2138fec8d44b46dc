"""Writing safetensors so that nothing half-written is ever seen under the final name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lens.errors import CheckpointError


def clear_name_or_path(model: Any) -> None:
    """Take out of a diffusers model's configuration where it was loaded from, which saving would publish."""
    kept = {name: value for name, value in model.config.items() if name != "_name_or_path"}
    model._internal_dict = type(model.config)(kept)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file that appears whole or not at all."""
    from safetensors.torch import save_file

    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} must end in .safetensors, the only single-file format that is written."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # clone() parts tensors that share memory, which the format cannot express.
        whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(whole, partial, metadata=dict(metadata or {"format": "pt"}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
