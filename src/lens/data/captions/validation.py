"""Validation of captions, from the caption itself and from the words that OCR read in the image.

A caption that fails is requested again; then its sample is dropped with the reason. Knows nothing of models.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError

REFUSAL = re.compile(
    r"\b(i'?m sorry|i am sorry|i apologi[sz]e|i can'?t|i cannot|i can not|i'?m (not able|unable)|i am unable|"
    r"as an ai|against my guidelines)\b",
    re.IGNORECASE,
)
NO_TEXT_REMARK = re.compile(
    r"\b(no|without|not any|isn't any|is not any) (visible|readable|legible|discernible|written)?\s*"
    r"(text|words?|writing|letters|lettering|inscriptions?)\b"
    r"|\b(text|writing|lettering) (is|are) (not|absent|nowhere)\b",
    re.IGNORECASE,
)
ABOUT_THE_TASK = re.compile(
    r"^\W*(the|this) (image|picture|photo|photograph) (shows|depicts|features|displays|captures)\b"
    r"|^\W*here('s| is) (a|the) (detailed )?(caption|description)\b",
    re.IGNORECASE,
)
QUOTATION = re.compile('["\N{LEFT DOUBLE QUOTATION MARK}](.+?)["\N{RIGHT DOUBLE QUOTATION MARK}]', re.DOTALL)
MAX_REFUSAL_START = 120
"""In characters; further on "I can't" is a quotation from the image."""


class CaptionRules(Settings):
    """Rules that a caption has to pass."""

    min_words: int = Field(30, ge=0)
    """Shorter captions fail."""
    max_words: int = Field(500, ge=1)
    """The prompt asks for at most 500."""
    min_text_recall: float = Field(0.5, ge=0, le=1)
    """Share of the OCR words that the caption has to quote; 0 does not compare."""
    min_read_words: int = Field(2, ge=1)
    """Images with fewer OCR words are not compared: OCR finds letters in textures."""

    @model_validator(mode="after")
    def _some_length_is_left(self) -> Self:
        if self.min_words > self.max_words:
            raise SettingError("min_words", self.min_words, f"at most max_words, which is {self.max_words}")
        return self


def caption_error(
    caption: str, rules: CaptionRules, ocr_words: Sequence[str] = (), is_cut: bool = False
) -> str | None:
    """Return the first error of a caption, None for a valid one.

    `ocr_words` are the words that OCR read in the image.
    """
    text = caption.strip()
    num_words = len(text.split())
    if not text:
        return "empty"
    if REFUSAL.search(text[:MAX_REFUSAL_START]):
        return "refusal"
    if is_cut:
        return "cut_off"
    if num_words < rules.min_words:
        return "too_short"
    if num_words > rules.max_words:
        return "too_long"
    if ABOUT_THE_TASK.search(text):
        return "about_the_task"
    if NO_TEXT_REMARK.search(_remove_quotations(text)):
        return "no_text_remark"
    if len(ocr_words) >= rules.min_read_words and text_recall(text, ocr_words) < rules.min_text_recall:
        return "text_missed"
    return None


def text_recall(caption: str, ocr_words: Sequence[str]) -> float:
    """Return the share of OCR words that the caption quotes; case and accents are ignored."""
    if not ocr_words:
        return 1.0
    quoted = Counter(_normalize_words(" ".join(QUOTATION.findall(caption))).split())
    expected = Counter(word for read in ocr_words for word in _normalize_words(read).split())
    return sum((quoted & expected).values()) / max(1, expected.total())


def _remove_quotations(text: str) -> str:
    return QUOTATION.sub(" ", text)


def _normalize_words(text: str) -> str:
    """Return words without case, accents or punctuation."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", plain))
