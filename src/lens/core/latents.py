"""Latents to tokens and back, and where each token sits: positions and rotary angles.

Knows nothing of pixels, of the VAE or of the denoiser's weights. Paper: Lens report, model section.
Letters: B batch, C token channels, c latent channels, h w latent cells (1/16 of the picture), N tokens,
T text tokens, K head dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lens.errors import ShapeError

PATCH_SIZE = 2  # one token covers 2 x 2 cells of the VAE's own grid


def patchify(latents: Tensor) -> Tensor:
    """Fold each 2 x 2 patch into channels, ordered (channel, row, column).

    Shapes: (B, c, 2h, 2w) -> (B, 4c, h, w).
    Raises: ShapeError when a side is odd.
    """
    batch, channels, height, width = latents.shape
    if height % PATCH_SIZE or width % PATCH_SIZE:
        raise ShapeError(f"Latents are {height} x {width} cells, but patches of 2 x 2 need even sides.")
    split = latents.reshape(
        batch, channels, height // PATCH_SIZE, PATCH_SIZE, width // PATCH_SIZE, PATCH_SIZE
    )
    folded = split.permute(0, 1, 3, 5, 2, 4)  # (B, c, 2, 2, h, w)
    return folded.reshape(
        batch, channels * PATCH_SIZE * PATCH_SIZE, height // PATCH_SIZE, width // PATCH_SIZE
    )


def unpatchify(patches: Tensor) -> Tensor:
    """Undo `patchify`.

    Shapes: (B, 4c, h, w) -> (B, c, 2h, 2w).
    Raises: ShapeError when the channels are not a multiple of four.
    """
    batch, channels, height, width = patches.shape
    if channels % (PATCH_SIZE * PATCH_SIZE):
        raise ShapeError(f"Patches have {channels} channels, but 2 x 2 cells need a multiple of 4.")
    split = patches.reshape(
        batch, channels // (PATCH_SIZE * PATCH_SIZE), PATCH_SIZE, PATCH_SIZE, height, width
    )
    spread = split.permute(0, 1, 4, 2, 5, 3)  # (B, c, h, 2, w, 2)
    return spread.reshape(
        batch, channels // (PATCH_SIZE * PATCH_SIZE), height * PATCH_SIZE, width * PATCH_SIZE
    )


def pack_latents(latents: Tensor) -> Tensor:
    """Return latents as tokens, row by row.

    Shapes: (B, C, h, w) -> (B, h*w, C).
    """
    return latents.flatten(2).transpose(1, 2)  # (B, h*w, C)


def unpack_latents(tokens: Tensor, h: int, w: int) -> Tensor:
    """Undo `pack_latents`.

    Shapes: (B, h*w, C) -> (B, C, h, w).
    Raises: ShapeError when the token count is not h*w.
    """
    if tokens.shape[1] != h * w:
        raise ShapeError(f"There are {tokens.shape[1]} tokens, but {h} x {w} cells need {h * w}.")
    return tokens.transpose(1, 2).unflatten(2, (h, w))  # (B, C, h, w)


def image_positions(h: int, w: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (frame, row, column) of every image token; rows and columns are centred, the frame is 0.

    Shapes: -> (h*w, 3), float32.
    """
    rows = torch.arange(h, device=device) - (h - h // 2)  # (h,)
    columns = torch.arange(w, device=device) - (w - w // 2)  # (w,)
    row, column = torch.meshgrid(rows, columns, indexing="ij")  # (h, w) each
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()  # (h*w, 3)


def text_positions(num_text: int, h: int, w: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the positions of text tokens: from the longer half side on, by 1, alike on all three axes.

    Shapes: -> (T, 3), float32.
    """
    position = max(h // 2, w // 2) + torch.arange(num_text, device=device)  # (T,)
    return position.float()[:, None].expand(-1, 3)  # (T, 3)


def rope_angles(positions: Tensor, axes_dims: Sequence[int], theta: float = 10000.0) -> Tensor:
    """Return the angle by which each adjacent pair of channels turns, axis after axis.

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
