"""The blocked order of scales, against positions worked out by hand."""

import pytest
import torch

from lens.errors import CheckpointError
from lens.models.quantized.block_scales import from_blocked, padded_size, to_blocked


def position(row, column, columns_of_tiles):
    """Where entry (row, column) lies, by the text of the layout: whole tiles first, then 32 x 4 x 4."""
    tile = (row // 128) * columns_of_tiles + column // 4
    row, column = row % 128, column % 4
    return tile * 512 + (row % 32) * 16 + (row // 32) * 4 + column


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (0, 0, 0),
        (0, 3, 3),
        (1, 0, 16),
        (31, 0, 496),
        (32, 0, 4),
        (96, 2, 14),
        (127, 3, 511),
        (0, 4, 512),
        (128, 0, 1024),
        (129, 5, 1553),
    ],
)
def test_an_entry_lies_where_the_layout_says(row, column, expected):
    scales = torch.arange(130 * 7).reshape(130, 7)
    assert position(row, column, columns_of_tiles=2) == expected
    assert to_blocked(scales).flatten()[expected] == scales[row, column]


@pytest.mark.parametrize(("rows", "columns"), [(130, 7), (128, 4), (3, 5), (257, 1)])
def test_every_entry_lies_where_the_layout_says(rows, columns):
    scales = 1 + torch.arange(rows * columns).reshape(rows, columns)
    blocked = to_blocked(scales).flatten()
    tiles = -(-columns // 4)
    found = torch.tensor([[blocked[position(r, c, tiles)] for c in range(columns)] for r in range(rows)])
    assert torch.equal(found, scales)
    assert blocked.sum() == scales.sum(), "padding must be zero"


@pytest.mark.parametrize(("rows", "columns"), [(130, 7), (128, 4), (3, 5), (257, 1)])
def test_from_blocked_undoes_to_blocked(rows, columns):
    scales = torch.randint(0, 255, (rows, columns), generator=torch.Generator().manual_seed(0))
    blocked = to_blocked(scales)
    assert tuple(blocked.shape) == padded_size(rows, columns)
    assert torch.equal(from_blocked(blocked, rows, columns), scales)
    assert torch.equal(from_blocked(blocked.flatten(), rows, columns), scales)


def test_a_count_that_is_not_the_padded_one_is_refused():
    with pytest.raises(CheckpointError, match=r"hold 910 numbers.*takes 2048"):
        from_blocked(torch.zeros(130, 7), 130, 7)
