"""Loading of stored tensors into modules: strict, in a given dtype, without a second copy.

The tensors have the module's own names; other key styles are converted before.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from lens.errors import CheckpointError
from lens.models.checkpoints.reader import LazyTensor, check_names_and_shapes, shapes_of

Module = TypeVar("Module", bound=nn.Module)


def init_empty(build: Callable[[], Module]) -> Module:
    """Return a module whose parameters take no memory; its buffers are real."""
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
    """Read every stored tensor into the module, floating-point ones as `dtype` (None is as stored).

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
    """Return the value of a stored tensor, with its shape checked against the file's header."""
    value = stored.read()
    if tuple(value.shape) != tuple(stored.shape):
        raise CheckpointError(
            f"{name} in {source} has the shape {tuple(value.shape)}, but {stored.shape} in the header."
        )
    return value


def cast_floating_point(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return floating-point values as dtype; integers and booleans are unchanged."""
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value
