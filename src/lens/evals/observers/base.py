"""What an observer is. Observers see images alone: they know nothing of prompts, models or scores."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from PIL import Image


class ObserverInfo(NamedTuple):
    """Identifies an observer in every number that it made."""

    name: str
    version: str
    """SHA-256 of its weights, or of what decides its answers."""
    note: str = ""
    """What readers of its numbers have to know, such as that they do not compare with published ones."""


class DetectedBox(NamedTuple):
    """An object in an image."""

    class_name: str
    score: float
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels, y downwards."""


class Detector(Protocol):
    """Finds objects of known classes."""

    info: ObserverInfo

    def detect(self, image: Image.Image) -> list[DetectedBox]:
        """Return all objects in an RGB image, in the detector's order, without a threshold of ours."""
        ...


class ColourClassifier(Protocol):
    """Tells the colour of an object."""

    info: ObserverInfo

    def scores(self, image: Image.Image, found: DetectedBox, colours: Sequence[str]) -> dict[str, float]:
        """Return a score of each colour; the greatest is the colour of the object."""
        ...


class TextReader(Protocol):
    """Reads the text in an image."""

    info: ObserverInfo

    def read(self, image: Image.Image) -> list[str]:
        """Return the lines of text in an RGB image, in reading order."""
        ...
