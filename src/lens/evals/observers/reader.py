"""Text in an image by RapidOCR: a stand-in for the readers of the official scripts, which need weights."""

from PIL import Image

from lens.data.scorers.ocr import OcrScorer, OcrSettings
from lens.evals.observers.base import ObserverInfo

NOTE = "RapidOCR reader: not comparable with published numbers"


class RapidOcrReader:
    """Reads with the OCR models inside the package rapidocr. One thread may use it at a time."""

    def __init__(self, num_threads: int = 1):
        """Prepare the reader; its models are loaded when it first reads.

        Raises: MissingExtraError where the package is not installed.
        """
        self._scorer = OcrScorer(
            OcrSettings.of({"judges_watermarks": False, "num_threads": num_threads})
        )
        self.info = ObserverInfo("rapidocr", self._scorer.version, NOTE)

    def read(self, image: Image.Image) -> list[str]:
        return [line.text for line in self._scorer.lines(image.convert("RGB"))]
