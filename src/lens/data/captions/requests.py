"""Caption requests and results, and images encoded for a vision-language model.

Knows nothing of backends or of how requests are answered.
"""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image

from lens.data.captions.prompts import CaptionKind
from lens.data.io.image_decoding import decode_image


class CaptionInput(NamedTuple):
    """A sample to caption."""

    id: str
    sidecar: str
    """The caption that came with the image; empty for none."""
    ocr_words: Sequence[str]
    """Words that OCR read in the image."""
    read: Callable[[], bytes]
    """Returns the bytes of the image; called only when a model has to see it."""
    brief: str = ""
    """The brief caption that came with the image."""


class CaptionRequest(NamedTuple):
    """One caption of one sample that a model has to write."""

    key: str
    """Of the response in the cache."""
    sample: CaptionInput
    kind: CaptionKind
    attempt: int


class CaptionResult(NamedTuple):
    """The captions of a sample, or why it has none."""

    dense: str = ""
    brief: str = ""
    error: str = ""
    """What was wrong with the caption that was tried last; empty for usable captions."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def encode_for_model(content: bytes, side_px: int) -> bytes:
    """Return an image as a model sees it: a JPEG whose longer side is at most `side_px`."""
    image = decode_image(content).image
    image.thumbnail((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
