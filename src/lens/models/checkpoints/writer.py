"""Atomic writes of safetensors files."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lens.errors import CheckpointError
from lens.files import replace_file


def clear_name_or_path(model: Any) -> None:
    """Remove the folder that a diffusers model was loaded from from its configuration, which is published."""
    kept = {name: value for name, value in model.config.items() if name != "_name_or_path"}
    model._internal_dict = type(model.config)(kept)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file that appears complete or not at all.

    Raises: CheckpointError for another suffix; FileWriteError; DiskFullError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} must end in .safetensors, the only single-file format that is written."
        )
    with replace_file(path) as partial:
        try:
            save_file(_separate(tensors), partial, metadata=dict(metadata or {"format": "pt"}))
        except SafetensorError as error:
            code = re.search(r"\(os error (\d+)\)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, contiguous and without shared memory, which the format lacks."""
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return separate
