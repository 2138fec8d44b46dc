"""Signs are light boards with dark letters of one size, as large as the image allows."""

import numpy as np
import pytest

from lens.core.resolution import buckets_for
from lens.nano.world.placement import GRID_PX, Canvas
from lens.nano.world.scene_spec import SIGN_CHARACTERS
from lens.nano.world.signs import draw_sign, sign_board


def picture_of(text: str, height_px: int = 128, width_px: int = 128) -> np.ndarray:
    canvas = np.zeros((height_px, width_px, 3), np.float32)
    canvas[..., 1] = 0.5
    draw_sign(canvas, sign_board(text, Canvas(height_px, width_px)))
    return canvas


@pytest.mark.parametrize("base_px", [96, 128, 192, 256, 320])
def test_boards_of_one_to_eight_letters_fit_every_ratio(base_px):
    for height_px, width_px in buckets_for(base_px).values():
        for length in range(1, 9):
            sign = sign_board("W" * length, Canvas(height_px, width_px))
            assert sign.left_px >= 0 and sign.left_px + sign.width_px <= width_px
            assert sign.top_px >= 0 and sign.top_px + sign.height_px <= height_px
            assert sign.width_px == length * sign.cell_px
            assert sign.cell_px >= base_px // 12 - 2


def test_letters_are_as_large_as_the_image_allows_and_cells_are_patches():
    cells = [sign_board("A" * length, Canvas(128, 128)).cell_px for length in range(1, 9)]
    assert cells == [32, 32, 32, 32, 24, 16, 16, 16]
    assert all(cell % (GRID_PX // 2) == 0 for cell in cells)


def test_a_board_is_light_its_border_and_letters_are_dark_and_the_rest_is_untouched():
    canvas, sign = picture_of("HI"), sign_board("HI", Canvas(128, 128))
    board = canvas[sign.top_px : sign.top_px + sign.height_px, sign.left_px : sign.left_px + sign.width_px]
    assert board[0].max() < 0.2 and board[:, 0].max() < 0.2 and board[-1].max() < 0.2
    inside = board[4:-4, 4:-4].mean(-1)
    assert 0.1 < (inside < 0.3).mean() < 0.5 and (inside > 0.9).mean() > 0.4
    board[:] = behind = np.float32((0, 0.5, 0))
    np.testing.assert_array_equal(canvas, np.broadcast_to(behind, canvas.shape))


def test_every_character_looks_different_even_in_the_smallest_cells():
    pictures = {letter: picture_of(letter * 8, 176, 96) for letter in SIGN_CHARACTERS}
    for index, one in enumerate(SIGN_CHARACTERS):
        for other in SIGN_CHARACTERS[:index]:
            difference = np.abs(pictures[one] - pictures[other]).mean(-1)
            assert (difference > 0.3).sum() >= 4 * 8, (one, other)


def test_the_letters_of_a_word_stand_in_its_order_in_cells_of_one_size():
    word, turned = picture_of("AB"), picture_of("BA")
    sign = sign_board("AB", Canvas(128, 128))
    first, second = (slice(sign.left_px + 4 + 32 * cell, sign.left_px + 28 + 32 * cell) for cell in (0, 1))
    np.testing.assert_array_equal(word[:, first], turned[:, second])
    np.testing.assert_array_equal(word[:, second], turned[:, first])
