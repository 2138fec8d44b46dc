"""Signs of the nano world: a light board with a dark border and dark capitals.

Every letter has a cell of the same size, where possible a whole number of latent patches, so that a small
model has few looks to learn. The outlines of the letters are in letters.json (nano/NOTICE). Knows nothing of
scenes.
"""

import functools
import json
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.placement import Canvas
from lens.nano.world.sprites import rasterize_svg

BOARD_RGB = (252, 248, 236)
INK_RGB = (30, 30, 38)

_CELL_SIXTEENTHS = (4, 3, 2)
"""Widths of a letter's cell in sixteenths of the base; the widest that fits is taken."""
_CELL_ASPECT = 1.4
"""Height of a board in widths of a cell; narrow cells have taller boards."""
_ADVANCE, _CAP_HEIGHT = 1233, 1520
"""Width and height of the letters in font units."""


class Sign(NamedTuple):
    """A sign: its text, the centre of its board, and the sides of the board."""

    text: str
    x_px: int
    y_px: int
    width_px: int
    height_px: int

    @property
    def left_px(self) -> int:
        """Return the left edge of the board."""
        return self.x_px - self.width_px // 2

    @property
    def top_px(self) -> int:
        """Return the upper edge of the board."""
        return self.y_px - self.height_px // 2

    @property
    def cell_px(self) -> int:
        """Return the width of the cell of a letter."""
        return self.width_px // len(self.text)


def sign_board(text: str, canvas: Canvas) -> Sign:
    """Return a sign with letters as large as an image allows, in its centre."""
    unit_px = canvas.small_px / 4
    fitting = (
        round(sixteenths * unit_px)
        for sixteenths in _CELL_SIXTEENTHS
        if sixteenths * unit_px * len(text) <= canvas.width_px
    )
    # An even width, so that the centre of the board is on a pixel.
    cell_px = next(fitting, canvas.width_px // len(text) // 2 * 2)
    width_px = cell_px * len(text)
    height_px = canvas.grid_px * round(max(_CELL_ASPECT * cell_px, canvas.small_px) / canvas.grid_px)
    left_px, top_px = canvas.middle(canvas.width_px, width_px), canvas.middle(canvas.height_px, height_px)
    left_px = max(0, min(left_px, canvas.width_px - width_px))
    return Sign(text, left_px + width_px // 2, top_px + height_px // 2, width_px, height_px)


def draw_sign(canvas: NDArray[np.float32], sign: Sign) -> None:
    """Draw a sign over an image (height, width, 3) in [0, 1], in place; all of it is inside."""
    ink, border_px = np.array(INK_RGB, np.float32) / 255, max(1, sign.height_px // 16)
    board = canvas[sign.top_px : sign.top_px + sign.height_px, sign.left_px : sign.left_px + sign.width_px]
    board[:] = ink
    board[border_px:-border_px, border_px:-border_px] = np.array(BOARD_RGB, np.float32) / 255
    letters = np.concatenate(
        [_letter(letter, sign.cell_px, sign.height_px) for letter in sign.text], axis=1
    )  # (H, W)
    inside = board[:, : letters.shape[1]]
    inside += letters[..., None] * (ink - inside)


@functools.cache
def _letter(letter: str, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Return the ink of a letter in its cell: (height, width) in [0, 1]."""
    cap_px = min(0.62 * height_px, 1.2 * width_px)
    # Units of the font behind the cell; letters keep a margin to each other and to the border.
    span_x, span_y = _ADVANCE / 0.84, height_px * _CAP_HEIGHT / cap_px
    path = f'<g transform="scale(1 -1)"><path d="{_outlines()[letter]}"/></g>'
    left, top = (_ADVANCE - span_x) / 2, -(span_y + _CAP_HEIGHT) / 2
    return rasterize_svg(path, f"{left} {top} {span_x} {span_y}", width_px, height_px)[..., 3]


@functools.cache
def _outlines() -> dict[str, str]:
    return json.loads(resources.files("lens.nano.world").joinpath("letters.json").read_text())
