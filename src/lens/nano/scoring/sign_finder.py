"""Signs in an image: light boards with a dark border all around.

Looks for the board itself, not for a part that differs from the background: a board is nearly white, and its
border nearly black, on backgrounds of any colour. Knows nothing of letters.
Letters: H, W the image.
"""

import numpy as np

from lens.nano.scoring.components import Mask, mask_components
from lens.nano.scoring.detections import DetectedSign, ImageArray
from lens.nano.world.signs import BOARD_RGB, INK_RGB

_LIGHT, _DARK = 0.68, 0.5
"""From which place between ink and board a pixel is light, and up to which it is dark."""
_TOLERANCE = 0.14
"""Largest distance of a light or dark pixel from the line between ink and board, in RGB from 0 to 1."""
_MIN_WIDTH_SHARE, _MIN_HEIGHT_SHARE = 0.14, 0.16
"""Smallest sides of a board, as fractions of the base."""
_EDGE_SHARE = 0.85
"""Share of each edge of a board that is light, and of its border that is dark."""
_UPRIGHT_EDGE_SHARE = 0.3
_INSET_SHARE, _MIN_INK_SHARE = 0.12, 0.025
"""Letters cover at least this share of a board without so much of it at each side; an envelope has none."""
_MARGIN_PX = 2


def find_signs(image: ImageArray, base_px: float) -> list[tuple[DetectedSign, tuple[slice, slice]]]:
    """Return the signs of an 8-bit image, (H, W, 3), and the rows and columns of each with its border."""
    ink, board = np.array(INK_RGB, np.float32) / 255, np.array(BOARD_RGB, np.float32) / 255
    pixels = image.astype(np.float32) / 255
    span = board - ink
    place = (pixels - ink) @ span / float(span @ span)  # (H, W), 0 for ink and 1 for board
    distance = np.linalg.norm(pixels - ink - place[..., None] * span, axis=-1)  # (H, W)
    is_grey = distance < _TOLERANCE
    is_light, is_dark = is_grey & (place > _LIGHT), is_grey & (place < _DARK)
    if is_light.sum() < _MIN_WIDTH_SHARE * _MIN_HEIGHT_SHARE * base_px**2:
        return []
    # A wide letter on a narrow board cuts it in pieces.
    found = [sign for part in mask_components(is_light) if (sign := _sign_of(part, is_dark, image, base_px))]
    pieces = [] if found else mask_components(_dilated(is_light))
    return found or [sign for part in pieces if (sign := _sign_of(part & is_light, is_dark, image, base_px))]


def _sign_of(
    part: Mask, is_dark: Mask, image: ImageArray, base_px: float
) -> tuple[DetectedSign, tuple[slice, slice]] | None:
    """Return the sign whose board a part is, with its rows and columns; None if it is no board."""
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    height, width = bottom - top, right - left
    if height < _MIN_HEIGHT_SHARE * base_px or width < _MIN_WIDTH_SHARE * base_px:
        return None
    if not _has_edges(part[top:bottom, left:right]):
        return None
    inset_y, inset_x = round(_INSET_SHARE * height), round(_INSET_SHARE * width)
    middle = is_dark[top + inset_y : bottom - inset_y, left + inset_x : right - inset_x]
    border_px = _border_px(is_dark, top, bottom, left, right)
    if not border_px or middle.mean() < _MIN_INK_SHARE:
        return None
    board = image[top:bottom, left:right].copy()
    reach = border_px + _MARGIN_PX
    area = slice(max(0, top - reach), bottom + reach), slice(max(0, left - reach), right + reach)
    return DetectedSign((left + right) / 2, (top + bottom) / 2, width, height, board), area


def _dilated(mask: Mask) -> Mask:
    """Return a mask that reaches two pixels further."""
    height, width = mask.shape
    rows = np.pad(mask, ((2, 2), (0, 0)))
    rows = np.logical_or.reduce([rows[step : step + height] for step in range(5)])
    columns = np.pad(rows, ((0, 0), (2, 2)))
    return np.logical_or.reduce([columns[:, step : step + width] for step in range(5)])


def _has_edges(board: Mask) -> bool:
    """Return whether the edges of a box are light; letters may come near to the left and the right one."""
    level = min(float(board[1].mean()), float(board[-2].mean()))
    upright = min(float(board[:, :2].mean(0).max()), float(board[:, -2:].mean(0).max()))
    return level >= _EDGE_SHARE and upright >= _UPRIGHT_EDGE_SHARE


def _border_px(is_dark: Mask, top: int, bottom: int, left: int, right: int) -> int:
    """Return the width of the dark border around a box; 0 if there is none on some side."""
    height, width = is_dark.shape
    border_px = 0
    for reach in range(1, max(2, (bottom - top) // 6) + 1):
        if top - reach < 0 or left - reach < 0 or bottom + reach > height or right + reach > width:
            break
        ring = (
            is_dark[top - reach, left:right], is_dark[bottom + reach - 1, left:right],
            is_dark[top:bottom, left - reach], is_dark[top:bottom, right + reach - 1],
        )  # fmt: skip
        if all(side.mean() >= _EDGE_SHARE for side in ring):
            border_px = reach
        elif border_px:
            break
    return border_px
