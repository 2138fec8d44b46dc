"""Reward for text in an image: OCR reads it, and it is compared with the text of the prompt.

The OCR scorer of the data engine reads. Spaces and case are ignored, as OCR loses them and a line break may
stand for a space. Other text in the image is ignored too: the best sequence of lines counts.
"""

import unicodedata
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from PIL import Image
from rapidfuzz.distance import Levenshtein

from lens.data.scorers.ocr import OcrScorer, OcrSettings
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import ImageArray, NotApplicable, Score
from lens.rl.rewards.settings import OcrRewardSettings

VERSION = "1"
"""Change it with the score of a reading."""


class OcrReward:
    """1 where the image shows the text letter by letter, 0 where it shows nothing like it."""

    def __init__(self, settings: OcrRewardSettings):
        """Create the readers; each loads its models when it first reads.

        Raises: LensError where the OCR packages are not installed.
        """
        ocr_settings = OcrSettings.of(settings.model_dump(include={"max_side_px", "min_confidence"}))
        # A reader keeps state while it reads, so no two threads share one at a time.
        self._readers: SimpleQueue[OcrScorer] = SimpleQueue()
        for _ in range(settings.num_readers):
            self._readers.put(OcrScorer(ocr_settings))
        self.version = f"text {VERSION}, {OcrScorer(ocr_settings).version}"

    @classmethod
    def from_settings(cls, settings: OcrRewardSettings, cache_path: Path | None) -> Self:
        """Return the reward; it keeps nothing in a file."""
        return cls(settings)

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the similarity of the text in the image to that of the prompt.

        Raises: NotApplicable for a prompt without text.
        """
        if not prompt.text or not _normalized_letters(prompt.text):
            raise NotApplicable("the prompt has no text")
        with self._borrow_reader() as reader:
            lines = [line.text for line in reader.lines(Image.fromarray(image))]
        value = text_similarity(lines, prompt.text)
        return Score(value, {"text": value})

    @contextmanager
    def _borrow_reader(self):
        reader = self._readers.get()
        try:
            yield reader
        finally:
            self._readers.put(reader)


def text_similarity(lines: Sequence[str], expected_text: str) -> float:
    """Return 1 - edit distance / longer length, of the sequence of lines nearest to the expected text."""
    target, best = _normalized_letters(expected_text), 0.0
    line_letters = [_normalized_letters(line) for line in lines]
    for start in range(len(line_letters)):
        joined = ""
        for line in line_letters[start:]:
            joined += line
            longer, shorter = max(len(joined), len(target)), min(len(joined), len(target))
            if longer and shorter / longer > best:  # similarity is at most the ratio of lengths
                best = max(best, 1 - Levenshtein.distance(joined, target) / longer)
    return best


def _normalized_letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
