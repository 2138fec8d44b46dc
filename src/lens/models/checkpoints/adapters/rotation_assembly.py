"""OFT and BOFT as files have them: LyCORIS and kohya rotate a layer's outputs, PEFT its inputs.

Letters as in `rotation`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lens.errors import SettingError
from lens.models.checkpoints.adapters.rotation import (
    RotationWeights,
    butterfly_order,
    cayley,
    cayley_neumann,
    inverse_cayley,
    peft_butterfly_order,
)
from lens.models.checkpoints.adapters.weights import IncompleteError


def lycoris_rotation(
    module: str, values: dict[str, Tensor], alpha: float | None, layer: tuple[int, int] | None
) -> RotationWeights | None:
    """Return the rotation of a layer of the shape (O, I), and remove its parts; None if parts are missing.

    `alpha` bounds the norm of all blocks together to alpha * O, as where the file was trained.
    """
    if "oft_blocks" not in values:
        return None
    stored = values.pop("oft_blocks").float()  # (K, N, N) of an OFT, (M, K, N, N) of a BOFT
    is_butterfly = stored.ndim == 4
    blocks = _square_blocks(module, stored if is_butterfly else stored[None])
    outputs, inputs = layer or (blocks.shape[1] * blocks.shape[2], 0)
    _check_size(module, blocks, outputs)
    rescale = _column(module, values.pop("rescale"), outputs) if "rescale" in values else None
    skew = blocks - blocks.mT
    bound = (alpha or 0.0) * outputs
    if 0 < bound < float(skew.norm()):
        skew = skew * (bound / skew.norm())
    rotations = cayley(skew)
    if not is_butterfly:  # the rows of its blocks stand for what goes in, those of a BOFT for what comes out
        return RotationWeights(rotations.mT.contiguous(), inputs, rescale=rescale)
    num_stages, half_block = blocks.shape[0], blocks.shape[-1] // 2
    _check_stages(module, blocks, outputs)
    order = butterfly_order(outputs, half_block, num_stages)
    return RotationWeights(rotations, inputs, order=order, rescale=rescale)


def peft_oft(
    module: str, values: dict[str, Tensor], settings: Mapping[str, Any], layer: tuple[int, int] | None
) -> RotationWeights | None:
    """Return the rotation of PEFT's OFT, which has the upper triangles of blocks, (K, N (N - 1) / 2)."""
    if "oft_R" not in values:
        return None
    stored = values.pop("oft_R").float()
    block_size = (1 + math.isqrt(1 + 8 * stored.shape[-1])) // 2 if stored.ndim == 2 else 0
    if stored.ndim != 2 or not len(stored) or block_size * (block_size - 1) // 2 != stored.shape[1]:
        raise IncompleteError(f"{module} has a rotation of the shape {tuple(stored.shape)}")
    skew = stored.new_zeros(len(stored), block_size, block_size)
    rows, columns = torch.triu_indices(block_size, block_size, 1)
    skew[:, rows, columns] = stored
    skew = _finite(module, skew - skew.mT)
    if settings.get("coft"):
        bound = float(settings.get("eps", 6e-5)) / len(skew) ** 0.5
        norm = skew.norm(dim=(1, 2), keepdim=True)  # (K, 1, 1)
        skew = torch.where(norm > bound, skew * (bound / norm), skew)
    if settings.get("use_cayley_neumann", True):
        rotations = cayley_neumann(skew, int(settings.get("num_cayley_neumann_terms", 5)))
    else:
        rotations = cayley(-skew)
    outputs, inputs = layer or (0, len(rotations) * block_size)
    if len(rotations) == 1 and inputs % block_size == 0:  # one block may be shared by all
        rotations = rotations.expand(inputs // block_size, -1, -1)
    blocks = rotations.mT[None].contiguous()
    _check_size(module, blocks, inputs)
    return RotationWeights(blocks, outputs, on_inputs=True)


def peft_boft(
    module: str, values: dict[str, Tensor], layer: tuple[int, int] | None
) -> RotationWeights | None:
    """Return the rotation and the scale of PEFT's BOFT, with blocks (M, K, N, N)."""
    if not {"boft_R", "boft_s"} <= set(values):
        return None
    blocks, scale = _square_blocks(module, values.pop("boft_R").float()), values.pop("boft_s")
    outputs, inputs = layer or (scale.numel(), blocks.shape[1] * blocks.shape[2])
    _check_size(module, blocks, inputs)
    rescale = _column(module, scale, outputs)
    num_stages, block_size = blocks.shape[0], blocks.shape[-1]
    if num_stages > 1:
        _check_stages(module, blocks, inputs)
    rotations = cayley((blocks.mT - blocks) / 2)
    # The inputs stand on the left of the stages there, so the last stage is the first to act.
    order = peft_butterfly_order(inputs, block_size, num_stages).flip(0)
    return RotationWeights(rotations.mT.flip(0).contiguous(), outputs, True, order, rescale)


def rotation_tensors(part: RotationWeights, front: str, style: str) -> dict[str, Tensor]:
    """Return the tensors of an OFT or BOFT of outputs under LyCORIS' names.

    Raises: SettingError for one of inputs: only PEFT has it, and its parts do not follow from the rotation.
    """
    if part.on_inputs:
        raise SettingError("style", style, "an adapter other than PEFT's OFT or BOFT", "Use its own file.")
    rotations = part.blocks.double() if part.order is not None else part.blocks.double().mT[0]
    tensors = {f"{front}.oft_blocks": (inverse_cayley(rotations) / 2).float()}
    return tensors | ({} if part.rescale is None else {f"{front}.rescale": part.rescale})


def _square_blocks(module: str, blocks: Tensor) -> Tensor:
    if blocks.ndim != 4 or blocks.shape[-1] != blocks.shape[-2] or not blocks.numel():
        raise IncompleteError(f"{module} has blocks of the shape {tuple(blocks.shape)}, which are not square")
    return _finite(module, blocks)


def _finite(module: str, blocks: Tensor) -> Tensor:
    if not bool(blocks.isfinite().all()):
        raise IncompleteError(f"{module} has blocks that are not finite")
    return blocks


def _check_size(module: str, blocks: Tensor, size: int) -> None:
    num_blocks, block_size = blocks.shape[1:3]
    if num_blocks * block_size != size:
        raise IncompleteError(f"{module} has {num_blocks} blocks of {block_size}, but it needs {size} axes")


def _check_stages(module: str, blocks: Tensor, size: int) -> None:
    num_stages, block_size = blocks.shape[0], blocks.shape[-1]
    if block_size % 2 or size % (block_size * 2 ** (num_stages - 1)):
        raise IncompleteError(
            f"{module} has {num_stages} stages of blocks of {block_size}, which {size} axes cannot have"
        )


def _column(module: str, value: Tensor, size: int) -> Tensor:
    if value.numel() != size:
        raise IncompleteError(f"{module} has a scale of the shape {tuple(value.shape)}")
    return value.float().reshape(size, 1)
