"""Latents to tokens and back: patches as channels, cells as a sequence.

Knows nothing of pixels, of the VAE or of the denoiser's weights. Paper: Lens report, model section.
Letters: B batch, C token channels, c latent channels, h w latent cells (1/16 of the image).
"""

from torch import Tensor

from lens.errors import ShapeError

PATCH_SIZE = 2
"""A token covers 2 x 2 cells of the VAE's own grid."""


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
