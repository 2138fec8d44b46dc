"""Text of signs, read by the recognition model of rapidocr, which is inside its package; nothing is downloaded.

Only the characters of signs are told apart, as the model knows thousands that look alike. Loaded once a process.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lens.errors import MissingExtraError
from lens.nano.scoring.detections import ImageArray

RECOGNITION_MODEL = "PP-OCRv6_rec_small.onnx"
_ENLARGEMENT = 4


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
    return "".join(read.txts or ()).strip()


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
