"""Captions of text scenes: one English paragraph that quotes every text and says only what is visible.

The words follow from the scene; the generator only chooses between phrasings.
"""

from collections.abc import Sequence

import numpy as np

from lens.data.text_rendering.backgrounds import Background
from lens.data.text_rendering.corpus import script_of
from lens.data.text_rendering.renderer import TextBlock, TextScene

SMALL_SHARE, LARGE_SHARE = 0.07, 0.14
"""Font size relative to the shorter side: small below the first, large from the second on."""
MAX_SLIGHT_TILT_DEGREES = 15
"""Degrees up to which a text is rotated slightly."""
RIGHT_ANGLE_DEGREES = 90
SCRIPT_NAMES = {
    "cyrillic": "Cyrillic script", "greek": "Greek script", "han": "Chinese script",
    "kana": "Japanese script", "hangul": "Korean script", "arabic": "Arabic script",
    "devanagari": "Devanagari script",
}  # fmt: skip
PIECE_COUNT_WORDS = ("", "one", "two", "three", "four")
GRID_PLACE_PHRASES = {
    ("top", "left"): ("at the top left", "in the upper left"),
    ("top", "centre"): ("at the top", "in the upper part"),
    ("top", "right"): ("at the top right", "in the upper right"),
    ("middle", "left"): ("on the left", "at the left side"),
    ("middle", "centre"): ("in the centre", "in the middle"),
    ("middle", "right"): ("on the right", "at the right side"),
    ("bottom", "left"): ("at the bottom left", "in the lower left"),
    ("bottom", "centre"): ("at the bottom", "in the lower part"),
    ("bottom", "right"): ("at the bottom right", "in the lower right"),
}
NOUNS = ("letters", "type", "lettering", "characters")
LINE_PHRASES = ("broken into {n} lines", "in {n} lines", "set over {n} lines")
OUTLINE_PHRASES = ("outlined in {colour}", "with {a} outline", "edged in {colour}")
PANEL_PHRASES = ("on {a} panel", "on {a} rectangle", "on {a} label")
BLUR_PHRASES = ("slightly blurred", "a little out of focus", "with soft, blurred edges")
FAMILY_PHRASES = ("in the typeface {family}", "set in {family}")
FAMILY_SHARE, SCRIPT_SHARE = 0.25, 0.6


def scene_caption(scene: TextScene, rng: np.random.Generator) -> str:
    """Return a paragraph that is true of a scene."""
    parts = [_block_sentence(block, scene, rng) for block in scene.blocks]
    behind = _background_phrase(scene.background, rng)
    count = PIECE_COUNT_WORDS[len(parts)]
    pieces = f"{count} pieces of text" if len(parts) > 1 else "a single piece of text"
    opening, closing = _pick(
        rng,
        ("", f"The background is {behind}."),
        ("", f"All of it stands on {behind}." if len(parts) > 1 else f"Behind it is {behind}."),
        (f"{pieces.capitalize()} on {behind}.", ""),
        (f"The picture shows {pieces} on {behind}.", ""),
        (f"There is text on {behind}.", ""),
    )
    extra = _background_image_sentence(scene.background)
    return " ".join(part for part in (opening, *parts, closing, extra) if part)


def _block_sentence(block: TextBlock, scene: TextScene, rng: np.random.Generator) -> str:
    """Return one sentence about one text."""
    quoted = f'"{block.place.text}"'
    where = str(rng.choice(GRID_PLACE_PHRASES[_grid_position(block, scene)]))
    letters, further = _letters_phrase(block, scene, rng), _detail_phrases(block, rng)
    tail = f", {', '.join(further)}" if further else ""
    there = where[0].upper() + where[1:]
    return _pick(
        rng,
        f"The text {quoted} stands {where} in {letters}{tail}.",
        f"{there}, the text {quoted} is written in {letters}{tail}.",
        f"{there} there is the text {quoted} in {letters}{tail}.",
        f"{letters[0].upper()}{letters[1:]} {where} read{_verb_ending(letters)} {quoted}{tail}.",
        f"{quoted} is written {where} in {letters}{tail}.",
    )


def _letters_phrase(block: TextBlock, scene: TextScene, rng: np.random.Generator) -> str:
    """Return size, colour and style as one noun phrase, such as large red bold serif letters."""
    share = block.place.size_px / min(scene.height, scene.width)
    size = "small" if share < SMALL_SHARE else "large" if share >= LARGE_SHARE else ""
    words = [size, block.colour.name, *block.place.face.style_words]
    return " ".join([*(word for word in words if word), str(rng.choice(NOUNS))])


def _verb_ending(letters: str) -> str:
    """Return the ending of a verb after a noun phrase."""
    return "" if letters.endswith("s") else "s"


def _detail_phrases(block: TextBlock, rng: np.random.Generator) -> list[str]:
    """Return phrases for the other properties of a text."""
    found = []
    name = SCRIPT_NAMES.get(script_of(block.place.text))
    if name and rng.random() < SCRIPT_SHARE:
        found.append(f"in {name}")
    if len(block.place.lines) > 1:
        found.append(str(rng.choice(LINE_PHRASES)).format(n=PIECE_COUNT_WORDS[len(block.place.lines)]))
    if rng.random() < FAMILY_SHARE:
        found.append(str(rng.choice(FAMILY_PHRASES)).format(family=block.place.face.family))
    if block.outline:
        found.append(_colour_phrase(OUTLINE_PHRASES, block.outline.name, rng))
    if block.panel:
        found.append(_colour_phrase(PANEL_PHRASES, block.panel.name, rng))
    if block.place.angle:
        found.append(_rotation_phrase(block.place.angle, rng))
    if block.blur_px:
        found.append(str(rng.choice(BLUR_PHRASES)))
    return found


def _colour_phrase(phrases: Sequence[str], colour: str, rng: np.random.Generator) -> str:
    return str(rng.choice(phrases)).format(colour=colour, a=_with_article(colour))


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _rotation_phrase(angle: int, rng: np.random.Generator) -> str:
    side = "counter-clockwise" if angle > 0 else "clockwise"
    if abs(angle) == RIGHT_ANGLE_DEGREES:
        return _pick(rng, f"turned {side} by a right angle", f"rotated 90 degrees {side}")
    right = "rising to the right" if angle > 0 else "falling to the right"
    if abs(angle) <= MAX_SLIGHT_TILT_DEGREES:
        return _pick(rng, f"tilted slightly {side}", f"turned a little {side}", f"gently {right}")
    return _pick(rng, f"rotated {side}", f"clearly tilted {side}", f"steeply {right}")


def _grid_position(block: TextBlock, scene: TextScene) -> tuple[str, str]:
    """Return the third of the height and of the width with the centre of a text."""
    left, top, right, bottom = block.place.box
    row, column = (top + bottom) * 3 // (2 * scene.height), (left + right) * 3 // (2 * scene.width)
    return ("top", "middle", "bottom")[row], ("left", "centre", "right")[column]


def _background_phrase(background: Background, rng: np.random.Generator) -> str:
    names = [colour.name for colour in background.colours]
    if background.kind == "image":
        return "a picture"
    if background.kind == "flat":
        return _with_article(_pick(rng, f"{names[0]} surface", f"plain {names[0]} ground"))
    if background.kind == "grain":
        return _with_article(_pick(rng, f"grainy {names[0]} ground", f"{names[0]} surface with fine grain"))
    first, second = names
    if background.kind == "clouds":
        return _pick(rng, f"a cloudy mixture of {first} and {second}", f"soft blots of {first} and {second}")
    if background.kind == "stripes":
        how = "upright" if background.varies_along_x else "horizontal"
        return f"{how} stripes of {first} and {second}"
    start, end = (
        ("on the left", "on the right") if background.varies_along_x else ("at the top", "at the bottom")
    )
    return _pick(
        rng,
        f"a gradient from {first} {start} to {second} {end}",
        f"a smooth change from {first} {start} to {second} {end}",
    )


def _background_image_sentence(background: Background) -> str:
    """Return the caption of a background image; nothing where it would seem to quote a text."""
    lines = background.image_entry.caption.splitlines() if background.image_entry else []
    known = lines[0].strip() if lines else ""  # further lines may be translations
    if not known or '"' in known:
        return ""
    return f"That picture shows: {known}{'' if known.endswith(('.', '!', '?')) else '.'}"


def _pick(rng: np.random.Generator, *ways):
    return ways[rng.integers(len(ways))]
