"""The text corpus: lines of a file or built-in words, in scripts that can be laid out on this machine.

Knows the script of a text and where a line may break; nothing of sizes or pixels.
"""

import json
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from lens.data.io.entry import SourceError
from lens.data.text_rendering.fonts import FontFace, can_shape
from lens.errors import SettingError
from lens.text_files import read_text

Script = Literal["latin", "cyrillic", "greek", "han", "kana", "hangul", "arabic", "devanagari"]
SCRIPTS: tuple[Script, ...] = get_args(Script)
COMPLEX_SCRIPTS: tuple[Script, ...] = ("arabic", "devanagari")
"""Scripts whose letters join or change order: without a shaping engine they would be rendered wrong."""
UNICODE_NAMES = {
    "latin": ("LATIN",), "cyrillic": ("CYRILLIC",), "greek": ("GREEK",), "han": ("CJK",),
    "kana": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"), "hangul": ("HANGUL",), "arabic": ("ARABIC",),
    "devanagari": ("DEVANAGARI",),
}  # fmt: skip
"""First words of the Unicode names of the characters of each script."""
BUILT_IN_PATH = Path(__file__).with_name("corpus.json")
WORD_COUNTS = (1, 1, 2, 2, 3)
PHRASE_SHARE = 0.5
UNSPACED_NAMES = ("CJK", "HIRAGANA", "KATAKANA")
NO_BREAK_BEFORE = (" SMALL ", "SOUND MARK")


class TextCorpus(NamedTuple):
    """The texts and fonts of a source."""

    lines: tuple[str, ...]
    """Lines of the file of the user; empty where the built-in words are used."""
    scripts: tuple[Script, ...]
    """Scripts of the built-in words that some font covers."""
    families: tuple[tuple[FontFace, ...], ...]

    def sample(self, rng: np.random.Generator, script: str | None = None) -> tuple[str, FontFace]:
        """Return a text and a face that covers it, of the built-in texts in the given script."""
        while True:  # ends, as every script and line has a face
            text = self._sample_text(rng, script)
            if face := self._face_for(text, rng):
                return text, face

    def _sample_text(self, rng: np.random.Generator, script: str | None) -> str:
        if self.lines:
            return self.lines[rng.integers(len(self.lines))]
        return sample_text(script or str(rng.choice(self.scripts)), rng)

    def _face_for(self, text: str, rng: np.random.Generator) -> FontFace | None:
        # Families are equally likely, however many faces they have.
        able = [[face for face in family if face.covers(text)] for family in self.families]
        for number in rng.permutation(len(able)):
            shown = [face for face in able[number] if face.renders(text)]
            if shown:
                return shown[rng.integers(len(shown))]
        return None


def load_corpus(faces: Sequence[FontFace], path: Path | None, scripts: Sequence[Script] | None) -> TextCorpus:
    """Return the texts that the faces can render: lines of the file, or built-in ones in the scripts.

    Without a shaping engine, texts that need one are skipped, and such a script in `scripts` is an error.
    Raises: SettingError for a script that cannot be laid out; SourceError for a file without lines, or where
        no font has the glyphs of any text.
    """
    names = sorted({face.family for face in faces})
    families = tuple(tuple(face for face in faces if face.family == name) for name in names)
    if path is not None:
        lines = tuple(line for line in _read_lines(path) if can_shape() or not needs_shaping(line))
        covered = tuple(line for line in lines if any(face.renders(line) for face in faces))
        return TextCorpus(_require_any(covered, f"of {str(path)!r}"), (), families)
    for script in scripts or ():
        if script in COMPLEX_SCRIPTS and not can_shape():
            fix = "Install a Pillow with Raqm and FriBidi, or remove the script."
            raise SettingError("source.scripts", script, "a layout engine that joins letters", fix)
    requested_scripts = scripts or tuple(one for one in SCRIPTS if can_shape() or one not in COMPLEX_SCRIPTS)
    able = tuple(script for script in requested_scripts if _is_covered(script, faces))
    missing = [script for script in scripts or () if script not in able]
    if missing:
        fix = "Add such a font, or remove the script."
        raise SettingError("source.scripts", missing[0], "a font with its glyphs in source.fonts", fix)
    return TextCorpus((), _require_any(able, f"in {', '.join(requested_scripts)}"), families)


def sample_text(script: str, rng: np.random.Generator) -> str:
    """Return a built-in phrase, or a few built-in words."""
    known = built_in_texts()[script]
    if rng.random() < PHRASE_SHARE:
        return str(rng.choice(known["phrases"]))
    return " ".join(rng.choice(known["words"], size=rng.choice(WORD_COUNTS), replace=False))


@cache
def built_in_texts() -> dict[str, dict[str, list[str]]]:
    """Return the built-in phrases and words by script."""
    return json.loads(BUILT_IN_PATH.read_text(encoding="utf-8"))


def script_of(text: str) -> str:
    """Return the script of all letters of a text; empty for two scripts, or for no letters.

    Kana is the script of Japanese, whose texts also have Han.
    """
    first = {unicodedata.name(character, "").split(" ")[0] for character in text if character.isalpha()}
    found = {script for script, names in UNICODE_NAMES.items() if first & set(names)}
    if found == {"han", "kana"}:
        return "kana"
    return found.pop() if len(found) == 1 and first <= set(UNICODE_NAMES[next(iter(found))]) else ""


def needs_shaping(text: str) -> bool:
    """Return whether letters join, change order or have combining marks."""
    rules = ((unicodedata.bidirectional(one), unicodedata.category(one)) for one in text)
    return any(direction in ("R", "AL") or category in ("Mn", "Mc") for direction, category in rules)


def wrap_text(text: str, num_lines: int) -> tuple[str, ...] | None:
    """Return a text in lines of similar length; None where it has too few break positions."""
    places = _break_positions(text)
    if len(places) < num_lines - 1:
        return None
    chosen: list[int] = []
    for number in range(1, num_lines):
        ideal = len(text) * number / num_lines
        later = [place for place in places if not chosen or place > chosen[-1]]
        left = num_lines - 1 - number
        later = later[: len(later) - left]
        if not later:
            return None
        chosen.append(min(later, key=lambda place: abs(place - ideal)))
    ends = [0, *chosen, len(text)]
    return tuple(text[start:end].strip() for start, end in pairwise(ends))


def _break_positions(text: str) -> list[int]:
    """Return the positions where a line may end: after spaces, and between letters of unspaced scripts."""
    found = []
    for place in range(1, len(text)):
        before, after = text[place - 1], text[place]
        if before.isspace() or (
            _is_unspaced(before) and _is_unspaced(after) and not _forbids_break_before(after)
        ):
            found.append(place)
    return found


def _is_unspaced(character: str) -> bool:
    return character.isalpha() and unicodedata.name(character, "").startswith(UNSPACED_NAMES)


def _forbids_break_before(character: str) -> bool:
    """Return whether a letter may not begin a line: small kana, and the mark of a long vowel."""
    return any(part in unicodedata.name(character, "") for part in NO_BREAK_BEFORE)


def _is_covered(script: str, faces: Sequence[FontFace]) -> bool:
    known = built_in_texts()[script]
    return any(face.renders(text) for face in faces for text in known["phrases"] + known["words"])


def _read_lines(path: Path) -> list[str]:
    text = read_text(path, "source.texts", "a UTF-8 file with one text a line")
    lines = (" ".join(unicodedata.normalize("NFC", line).split()) for line in text.splitlines())
    found = [line for line in lines if line and line.isprintable()]
    if not found:
        fix = "Write one text a line."
        raise SourceError(f"source.texts is {str(path)!r}, which has no line with a text. {fix}")
    return found


def _require_any(found: tuple, which: str) -> tuple:
    if not found:
        fix = "Add a font that has them to source.fonts, or use other texts."
        raise SourceError(f"No font has the glyphs of any text {which}. {fix}")
    return found
