"""Putting stored tensors into modules: strict, in the dtype asked for, without holding the weights twice.

Knows nothing of key styles; the tensors come under the module's own names.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from lens.errors import CheckpointError
from lens.models.checkpoints.reader import LazyTensor, check_names_and_shapes, shapes_of

Module = TypeVar("Module", bound=nn.Module)


def init_empty(build: Callable[[], Module]) -> Module:
    """Return a module whose parameters take no memory; computed buffers are real."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build()


def load_state_dict_strict(
    module: nn.Module,
    tensors: Mapping[str, LazyTensor],
    dtype: torch.dtype | None,
    *,
    source: object,
    what: str,
) -> None:
    """Read every stored tensor into the module, floating-point ones as `dtype` (None keeps what is stored).

    Raises: CheckpointError unless names and shapes are exactly the module's.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_names_and_shapes(expected, shapes_of(tensors), source=source, what=what)
    for name, stored in tensors.items():
        value = cast_floating_point(read_tensor(stored, name, source), dtype)
        parent_name, _, leaf = name.rpartition(".")
        parent = module.get_submodule(parent_name)
        if leaf in parent._parameters:
            parent._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
        else:
            parent._buffers[leaf] = value
    module.eval()


def read_tensor(stored: LazyTensor, name: str, source: object) -> Tensor:
    """Return a stored tensor's value, its shape checked against what the file's header said."""
    value = stored.read()
    if tuple(value.shape) != tuple(stored.shape):
        raise CheckpointError(
            f"{name} in {source} reads as {tuple(value.shape)}, but its header says {stored.shape}."
        )
    return value


def cast_floating_point(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return floating-point values as dtype; counters and the like stay as they are."""
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value
