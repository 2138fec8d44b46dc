"""Blocked order of the scales of block-scaled formats, as matrix products on a GPU read them.

A matrix of scales (R, C) is padded with zeros to multiples of (128, 4) and cut into tiles of 128 x 4. Tiles
follow each other row of tiles by row of tiles. Inside a tile the 128 rows are four groups of 32: entry
(row, column) of the tile lies at (row % 32) * 16 + (row // 32) * 4 + column.
Source: cuBLAS documentation, "1D block scaling factors layout".
Letters: R rows, C columns, r and c counts of tiles.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from lens.errors import CheckpointError

E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max
"""Largest number of float8 E4M3, in which these formats store values (MXFP8) or scales (NVFP4)."""

TILE_ROWS, TILE_COLUMNS, GROUP = 128, 4, 32
NUM_GROUPS = TILE_ROWS // GROUP


def padded_size(rows: int, columns: int) -> tuple[int, int]:
    """Return the sides after padding to whole tiles."""
    return math.ceil(rows / TILE_ROWS) * TILE_ROWS, math.ceil(columns / TILE_COLUMNS) * TILE_COLUMNS


def to_blocked(scales: Tensor) -> Tensor:
    """Return scales in blocked order, padded.

    Shapes: (R, C) -> (R padded, C padded); the two sides only say how many there are.
    """
    rows, columns = scales.shape
    padded = padded_size(rows, columns)
    tiles = pad(scales, (0, padded[1] - columns, 0, padded[0] - rows)).reshape(
        padded[0] // TILE_ROWS, NUM_GROUPS, GROUP, padded[1] // TILE_COLUMNS, TILE_COLUMNS
    )                                                                            # (r, 4, 32, c, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(padded)                          # (r, c, 32, 4, 4) flattened


def from_blocked(blocked: Tensor, rows: int, columns: int) -> Tensor:
    """Return the (rows, columns) scales of a blocked matrix, padding removed.

    Shapes: any shape of the padded size's count -> (R, C).
    Raises: CheckpointError if the count of numbers is not that of the padded matrix.
    """
    padded = padded_size(rows, columns)
    if blocked.numel() != math.prod(padded):
        raise CheckpointError(
            f"Block scales hold {blocked.numel()} numbers, but a ({rows}, {columns}) matrix of scales "
            f"in blocked order takes {math.prod(padded)}."
        )
    num_tiles = (padded[0] // TILE_ROWS, padded[1] // TILE_COLUMNS)
    tiles = blocked.reshape(*num_tiles, GROUP, NUM_GROUPS, TILE_COLUMNS)         # (r, c, 32, 4, 4)
    scales = tiles.permute(0, 3, 2, 1, 4).reshape(padded)                        # (r, 4, 32, c, 4) flattened
    return scales[:rows, :columns]
