"""Loading of stored tensors into modules: strict, in a given dtype, without a second copy.

The tensors have the module's own names; other key styles are converted before.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from lens.errors import CheckpointError, first_line
from lens.models.checkpoints.reader import TORCH_DTYPES, LazyTensor, check_names_and_shapes, shapes_of
from lens.models.mapped_memory import release
from lens.models.quantized.packed_modules import PackedEmbedding, PackedExperts, PackedLinear
from lens.models.quantized.packed_weight import PackedSource, plain_format

Module = TypeVar("Module", bound=nn.Module)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_BUILDING = threading.RLock()


def one_at_a_time(build: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let one thread at a time build modules with the functions that have this decorator.

    accelerate, diffusers and transformers replace methods of `nn.Module` and the default dtype of the whole
    process while they build. Two threads that do so at once leave every later parameter without memory.
    """

    @functools.wraps(build)
    def exclusive(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _BUILDING:
            return build(*args, **kwargs)

    return exclusive


@one_at_a_time
def init_empty(build: Callable[[], Module], source: object = "the model") -> Module:
    """Return a module whose parameters take no memory; its buffers are real.

    Raises: CheckpointError for a configuration that makes no module; `source` is where it comes from.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        try:
            return build()
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            raise CheckpointError(f"The configuration of {source} cannot be used ({what}).") from error


def load_state_dict_strict(
    module: nn.Module,
    tensors: Mapping[str, LazyTensor],
    dtype: torch.dtype | None,
    *,
    source: object,
    what: str,
    keep_packed: bool = False,
    keep_stored: bool = False,
) -> None:
    """Load every stored tensor into the module, floating-point ones as `dtype` (None is as stored).

    Tensors that are stored as `dtype` stay views of their file. With `keep_packed` quantized weights stay
    packed, in layers that dequantize them at use. With `keep_stored` matrices in another dtype stay views of
    their file too, and are cast at use.
    Raises: CheckpointError unless names and shapes are exactly the module's.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_names_and_shapes(expected, shapes_of(tensors), source=source, what=what)
    experts: dict[str, dict[str, PackedSource]] = {}
    for name, stored in tensors.items():
        parent_name, _, leaf = name.rpartition(".")
        parent = module.get_submodule(parent_name)
        packed = _packed_source(stored, dtype, keep_packed, keep_stored)
        if packed is not None:
            if leaf in EXPERT_STACKS and keep_packed:
                experts.setdefault(parent_name, {})[leaf] = packed
                continue
            layer = _packed_layer(parent, leaf, packed, dtype or torch.float32)
            if layer is not None:
                module.set_submodule(parent_name, layer)
                continue
        value = _read_and_cast(stored, name, source, dtype)
        if leaf in parent._parameters:
            parent._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
        else:
            parent._buffers[leaf] = value
    for name, stacks in experts.items():
        _set_experts(module, name, stacks, tensors, source, dtype or torch.float32)
    module.eval()


EXPERT_STACKS = ("gate_up_proj", "down_proj")


def _packed_source(
    stored: LazyTensor, dtype: torch.dtype | None, keep_packed: bool, keep_stored: bool
) -> PackedSource | None:
    """Return what a tensor keeps of its file, or None if it becomes a plain tensor."""
    if stored.packed is not None:
        return stored.packed if keep_packed else None
    if not keep_stored or dtype is None or len(stored.shape) != 2 or stored.dtype not in CAST_AT_USE:
        return None
    is_cast = TORCH_DTYPES[stored.dtype] != str(dtype).removeprefix("torch.")
    return PackedSource(plain_format(stored.dtype), (stored,), stored.shape) if is_cast else None


CAST_AT_USE = ("F64", "F32", "F16", "BF16")


def _packed_layer(parent: nn.Module, leaf: str, packed: PackedSource, dtype: torch.dtype) -> nn.Module | None:
    """Return the layer that keeps a packed weight, or None if there is none for this kind of layer."""
    if leaf != "weight" or len(packed.shape) != 2:
        return None
    if isinstance(parent, nn.Linear):
        return PackedLinear(packed.read(), parent.bias, dtype)
    if type(parent) is nn.Embedding and packed.format.is_by_rows:
        return PackedEmbedding(packed.read(), dtype)
    return None


def _set_experts(
    module: nn.Module,
    name: str,
    stacks: Mapping[str, PackedSource],
    tensors: Mapping[str, LazyTensor],
    source: object,
    dtype: torch.dtype,
) -> None:
    """Replace the experts of a layer by packed ones, or load them plainly unless both stacks are packed."""
    plain: Any = module.get_submodule(name)
    if len(stacks) == len(EXPERT_STACKS):
        gate_up, down = (stacks[leaf].read() for leaf in EXPERT_STACKS)
        module.set_submodule(name, PackedExperts(plain, gate_up, down, dtype))
        return
    for leaf in stacks:
        value = _read_and_cast(tensors[f"{name}.{leaf}"], f"{name}.{leaf}", source, dtype)
        plain._parameters[leaf] = nn.Parameter(value, requires_grad=False)


def _read_and_cast(stored: LazyTensor, name: str, source: object, dtype: torch.dtype | None) -> Tensor:
    value = read_tensor(stored, name, source)
    cast = cast_floating_point(value, dtype)
    if cast is not value:
        release(value)  # the file's pages would double the memory of the load
    return cast


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
