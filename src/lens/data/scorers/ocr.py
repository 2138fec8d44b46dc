"""The OCR scorer: the words in an image, and whether they are a watermark or a credit line.

The PP-OCR models are inside the package rapidocr; nothing is downloaded. watermark_rules.py decides what is a
watermark. Paper: Lens report, data section (stage 5), with a fine-tuned classifier: see classifiers.py.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from lens.data.scorers.base import ScorerSettings, package_versions, version_hash
from lens.data.scorers.watermark_rules import VERSION, TextLine, watermark_score

DETECTION_MODEL = "PP-OCRv6_det_small.onnx"
RECOGNITION_MODEL = "PP-OCRv6_rec_small.onnx"
MIN_SIDE_PX = 17
"""The detector works on multiples of 32 px; an image that rounds to 0 px is not read."""


class OcrSettings(ScorerSettings):
    """OCR by RapidOCR."""

    kind: Literal["ocr"] = "ocr"
    max_side_px: int = Field(960, ge=64)
    """Longer side at which images are read at most; larger finds smaller text and costs more."""
    min_confidence: float = Field(0.6, ge=0, le=1)
    """Lines of a lower confidence are ignored."""
    judges_watermarks: bool = True
    """Whether to fill `watermark`; false leaves that column to a classifier."""
    num_threads: int = Field(1, gt=0)
    """Threads for one image; builds run a process for each core."""

    @property
    def columns(self) -> dict[str, str]:
        return ({"watermark": "float64"} if self.judges_watermarks else {}) | {"read_words": "list"}

    def create_scorer(self) -> "OcrScorer":
        return OcrScorer(self)


class OcrScorer:
    """Fills `read_words` with the words in reading order, `watermark` by `watermark_score`."""

    def __init__(self, settings: OcrSettings):
        self.settings = settings
        self.name = settings.kind
        self.columns = settings.columns
        packages = package_versions(self.name, "rapidocr", "onnxruntime", "opencv-python-headless")
        self.version = version_hash(VERSION, packages, settings.model_dump(exclude={"num_threads"}))

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        return [self._row(self.lines(image)) for image in images]

    def lines(self, image: Image.Image) -> list[TextLine]:
        """Return the lines of text in an RGB image, from top to bottom."""
        small = image.copy()
        small.thumbnail((self.settings.max_side_px, self.settings.max_side_px), Image.Resampling.LANCZOS)
        if min(small.size) < MIN_SIDE_PX:
            return []
        read = self._reader(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))  # blue first
        if not read.txts:
            return []
        boxes = np.asarray(read.boxes) / small.size                         # (lines, 4 corners, x and y)
        return [
            TextLine.of(text, box, small.width / small.height)
            for text, box in zip(read.txts, boxes, strict=True)
        ]

    def _row(self, lines: list[TextLine]) -> dict[str, Any]:
        row: dict[str, Any] = {"read_words": [word for line in lines for word in line.text.split()]}
        return row | ({"watermark": watermark_score(lines)} if self.settings.judges_watermarks else {})

    @functools.cached_property
    def _reader(self) -> Any:
        import rapidocr

        models = Path(rapidocr.__path__[0]) / "models"
        return rapidocr.RapidOCR(
            params={
                "Global.log_level": "error",  # an image without text is not worth a warning
                "Global.text_score": self.settings.min_confidence,
                "Global.use_cls": False,  # it rotates upside-down lines, and sometimes others
                "Global.use_preprocess_img": False,
                "EngineConfig.onnxruntime.intra_op_num_threads": self.settings.num_threads,
                # Named, so that a package without them fails here instead of downloading others.
                "Det.model_path": str(models / DETECTION_MODEL),
                "Rec.model_path": str(models / RECOGNITION_MODEL),
                # The default enlarges the short side to 736 px, which makes a long image huge.
                "Det.limit_type": "max",
                "Det.limit_side_len": self.settings.max_side_px,
            }
        )
