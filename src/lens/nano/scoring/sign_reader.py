"""Text of signs, read by the recognition model inside the package rapidocr; nothing is downloaded.

The reader guesses whether a circle is an O or a zero, so that the font decides it. Loaded once a process.
"""

import functools
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lens.errors import MissingExtraError
from lens.nano.scoring.detections import ImageArray
from lens.nano.world.scene_spec import MAX_TEXT_LENGTH, SIGN_CHARACTERS
from lens.nano.world.signs import Sign, draw_sign

RECOGNITION_MODEL = "PP-OCRv6_rec_small.onnx"
_ENLARGEMENT = 4
_CAPITALS = str.maketrans("cosvwxz", "COSVWXZ")


def check_reader() -> None:
    """Raise MissingExtraError if rapidocr is not installed."""
    try:
        import rapidocr  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Reading signs", "rapidocr", "data") from error


def read_board(board: ImageArray) -> str:
    """Return the text on the board of a sign; empty if there is none."""
    check_reader()
    height, width = board.shape[:2]
    size = (_ENLARGEMENT * width, _ENLARGEMENT * height)
    large = np.asarray(Image.fromarray(board).resize(size, Image.Resampling.BICUBIC))
    read = _reader()(np.ascontiguousarray(large[:, :, ::-1]), use_det=False, use_cls=False)  # blue first
    # It sees wide gaps as spaces, and knows letters of full width and small ones of the same form.
    text = "".join(unicodedata.normalize("NFKC", "".join(read.txts or ())).split()).translate(_CAPITALS)
    return _settle_zeros(text, board) if 1 <= len(text) <= MAX_TEXT_LENGTH else text


def _settle_zeros(text: str, board: ImageArray) -> str:
    """Return a text in which each O or 0 is the one that the font draws more like the board.

    The reader decides between these two by the characters beside them.
    """
    doubtful = [place for place, character in enumerate(text) if character in "O0"]
    if not doubtful or not set(text) <= set(SIGN_CHARACTERS):
        return text
    texts = {choice: text.replace("O", choice).replace("0", choice) for choice in "O0"}
    drawn = {choice: _drawn_board(text, board) for choice, text in texts.items()}
    cell_px = board.shape[1] / len(text)
    settled = list(text)
    for place in doubtful:
        columns = slice(round(place * cell_px), round((place + 1) * cell_px))
        settled[place] = min("O0", key=lambda choice: _difference(drawn[choice], board, columns))
    return "".join(settled)


def _drawn_board(text: str, board: ImageArray) -> ImageArray:
    """Return a sign with a text as it is drawn, within its border, in the size of a board."""
    height_px = round(board.shape[0] * 8 / 7)  # the border is a sixteenth on each side
    cell_px = max(2, round((board.shape[1] + height_px / 8) / len(text)))
    sign = Sign(text, cell_px * len(text) // 2, height_px // 2, cell_px * len(text), height_px)
    canvas = np.zeros((height_px, sign.width_px, 3), np.float32)
    draw_sign(canvas, sign)
    border_px = max(1, height_px // 16)
    inside = np.round(255 * canvas[border_px:-border_px, border_px:-border_px]).astype(np.uint8)
    size = board.shape[1], board.shape[0]
    return np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.BICUBIC))


def _difference(drawn: ImageArray, board: ImageArray, columns: slice) -> float:
    """Return the squared difference of some columns, the least over shifts by a pixel."""
    found = board[1:-1, columns].astype(np.float32)
    around = np.pad(drawn.astype(np.float32), ((0, 0), (1, 1), (0, 0)), mode="edge")
    height, shifts = len(found), (0, 1, 2)
    windows = (
        around[y : y + height, columns.start + x : columns.stop + x]
        for x in shifts
        for y in shifts
    )
    return min(float(np.square(window - found).mean()) for window in windows)


@functools.cache
def _reader() -> Any:
    import rapidocr

    models = Path(rapidocr.__path__[0]) / "models"
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.text_score": 0.0,
            "Global.use_cls": False,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "Rec.model_path": str(models / RECOGNITION_MODEL),
        }
    )
