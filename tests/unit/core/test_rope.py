"""Positions of tokens and their rotary angles."""

import pytest
import torch

from lens.core.rope import image_positions, rope_angles, text_positions
from lens.errors import ShapeError


def test_image_positions_are_centred_with_the_frame_at_0():
    positions = image_positions(2, 3)
    assert positions.dtype == torch.float32
    assert positions.tolist() == [[0, -1, -2], [0, -1, -1], [0, -1, 0], [0, 0, -2], [0, 0, -1], [0, 0, 0]]


def test_text_positions_begin_after_the_longer_half_side_and_step_by_1():
    assert text_positions(3, 4, 6).tolist() == [[3, 3, 3], [4, 4, 4], [5, 5, 5]]
    assert text_positions(2, 9, 6).tolist() == [[4, 4, 4], [5, 5, 5]]
    assert text_positions(0, 4, 6).shape == (0, 3)


def test_angles_fall_geometrically_within_each_axis():
    angles = rope_angles(torch.tensor([[2.0, 3.0, -5.0]]), (2, 4, 6), theta=100.0)
    expected = [2, 3, 3 / 10, -5, -5 / 100 ** (1 / 3), -5 / 100 ** (2 / 3)]
    assert angles.dtype == torch.float32
    torch.testing.assert_close(angles, torch.tensor([expected]))


def test_axes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="one even number per axis"):
        rope_angles(torch.zeros(4, 3), (8, 7, 7))
    with pytest.raises(ShapeError, match="one even number per axis"):
        rope_angles(torch.zeros(4, 3), (8, 8))
