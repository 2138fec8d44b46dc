"""Tokens and patches: order and round trips."""

import pytest
import torch

from lens.core.latents import pack_latents, patchify, unpack_latents, unpatchify
from lens.errors import ShapeError


def counted(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).float().reshape(shape)


def test_packing_and_patching_are_undone_exactly():
    latents = counted(2, 3, 10, 14)
    patches = patchify(latents)
    assert patches.shape == (2, 12, 5, 7)
    assert torch.equal(unpatchify(patches), latents)
    tokens = pack_latents(patches)
    assert tokens.shape == (2, 35, 12)
    assert torch.equal(unpack_latents(tokens, 5, 7), patches)


def test_patch_channels_are_ordered_channel_row_column():
    latents = counted(1, 3, 4, 6)
    patch = patchify(latents)[0, :, 1, 2]  # cells of rows 2..3 and columns 4..5
    in_order = [latents[0, c, 2 + r, 4 + s].item() for c in range(3) for r in (0, 1) for s in (0, 1)]
    assert patch.tolist() == in_order


def test_tokens_run_row_by_row():
    latents = counted(1, 2, 3, 5)
    assert torch.equal(pack_latents(latents)[0, 5 * 2 + 4], latents[0, :, 2, 4])


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="5 x 4 cells"):
        patchify(torch.zeros(1, 3, 5, 4))
    with pytest.raises(ShapeError, match="6 channels"):
        unpatchify(torch.zeros(1, 6, 2, 2))
    with pytest.raises(ShapeError, match="14 tokens, but 3 x 5 cells need 15"):
        unpack_latents(torch.zeros(1, 14, 8), 3, 5)
