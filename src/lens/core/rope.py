"""Rotary position embedding: the positions of image and text tokens, and their rotation angles.

Knows nothing of the denoiser's weights. Paper: Lens report, model section.
Letters: h w latent cells, N tokens, T text tokens, K head dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lens.errors import ShapeError


def image_positions(h: int, w: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (frame, row, column) of every image token; rows and columns are centred, the frame is 0.

    Shapes: -> (h*w, 3), float32.
    """
    rows = torch.arange(h, device=device) - (h - h // 2)  # (h,)
    columns = torch.arange(w, device=device) - (w - w // 2)  # (w,)
    row, column = torch.meshgrid(rows, columns, indexing="ij")  # (h, w) each
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()  # (h*w, 3)


def text_positions(num_text: int, h: int, w: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the positions of text tokens: they start at half the longer side, step by 1, on all three axes.

    Shapes: -> (T, 3), float32.
    """
    position = torch.sym_max(h // 2, w // 2) + torch.arange(num_text, device=device)  # (T,)
    return position.float()[:, None].expand(-1, 3)  # (T, 3)


def rope_angles(positions: Tensor, axes_dims: Sequence[int], theta: float = 10000.0) -> Tensor:
    """Return the rotation angle of each adjacent pair of channels, axis after axis.

    Shapes: positions (N, axes) -> (N, K/2), float32, K the sum of axes_dims.
    Raises: ShapeError when there is not one even channel count per axis.
    """
    if positions.shape[-1] != len(axes_dims) or any(dim % 2 for dim in axes_dims):
        got = f"{tuple(axes_dims)} for {positions.shape[-1]} axes"
        raise ShapeError(f"axes_dims is {got}, but it needs one even number per axis.")
    angles = []
    for axis, dim in enumerate(axes_dims):
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
        angles.append(positions[:, axis, None].float() * (1.0 / theta**exponents))  # (N, dim/2)
    return torch.cat(angles, dim=-1)  # (N, K/2)
