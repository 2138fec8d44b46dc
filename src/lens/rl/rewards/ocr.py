"""Writing as a reward: the picture is read, and what stands there is compared with what was asked for.

Reading is done by the data engine's reader. Spaces and case do not count: readers lose them, and a line break
may stand for a space. Other writing in the picture does not count either: the best run of lines does.
"""

import unicodedata
from collections.abc import Sequence
from contextlib import contextmanager
from queue import SimpleQueue

from PIL import Image

from lens.data.scorers.ocr import OcrScorer, OcrSettings
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import ImageArray, Score
from lens.rl.rewards.settings import OcrRewardSettings
from lens.rl.rewards.weighted import NotApplicable

VERSION = "1"
"""Whoever changes what a reading is worth changes this."""


class OcrReward:
    """1 where the text stands in the picture letter by letter, 0 where nothing like it does."""

    def __init__(self, settings: OcrRewardSettings):
        """Take readers, which load their models when they first read.

        Raises: LensError where the packages that read are missing.
        """
        ocr_settings = OcrSettings.of(settings.model_dump(include={"max_side_px", "min_confidence"}))
        # A reader keeps state while it reads, so no two threads share one at a time.
        self._readers: SimpleQueue[OcrScorer] = SimpleQueue()
        for _ in range(settings.num_readers):
            self._readers.put(OcrScorer(ocr_settings))
        self.version = f"text {VERSION}, {OcrScorer(ocr_settings).version}"

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return how much of the text is there.

        Raises: NotApplicable for a prompt that asks for no text.
        """
        if not prompt.text or not _normalized_letters(prompt.text):
            raise NotApplicable("the prompt asks for no text")
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
    """Return 1 - the edit distance, as a share of the longer text, to the run of lines that is nearest."""
    target, best = _normalized_letters(expected_text), 0.0
    line_letters = [_normalized_letters(line) for line in lines]
    for start in range(len(line_letters)):
        joined = ""
        for line in line_letters[start:]:
            joined += line
            longer, shorter = max(len(joined), len(target)), min(len(joined), len(target))
            if longer and shorter / longer > best:  # no run can be more alike than its length is
                best = max(best, 1 - edit_distance(joined, target) / longer)
    return best


def edit_distance(one: str, other: str) -> int:
    """Return how many letters have to be put in, taken out or changed to make one text the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, other_letter in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other_letter))
    return row[-1]


def _normalized_letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
