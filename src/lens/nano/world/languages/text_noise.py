"""What typing does to a prompt: its case, punctuation, spacing and small typos.

The meaning stays: a typo is never a word of the world, nor as near to another one, and protected spans like
the text of a sign are kept. The tokenizer of lens-nano folds case and width, so these cost the model
nothing; models with other tokenizers see them. Knows nothing of scenes; typos are those of English.
"""

import functools
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lens.nano.world.languages.english.noise import known_words
from lens.nano.world.scene_spec import PLACES, RELATIONS

TYPO_TEXTS = 0.15
"""Share of texts with typos."""
TYPO_WORDS = 1 / 8
"""Share of the words of such a text that have one."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_STOPS, _COMMAS = ".\u3002\u0964", ",\uff0c\u3001\u060c"
_FULL_WIDTH = {",": "\uff0c", ".": "\u3002", "!": "\uff01", "?": "\uff1f", ":": "\uff1a"}
_ORDINARY_WORDS = """
    zero one two three four five six seven eight nine ten several some many few each both all none pair couple
    single small large big little tiny huge giant upper lower middle center centre corner side left right top
    bottom over under beneath underneath beside next near above below there three their them then than these
    those this that what with without for from form even ever never sign board says text word background
    backdrop picture image gray dark light pale bright plain
"""
"""Words of prompts that are no names of things."""


def typing_noise(
    text: str,
    rng: np.random.Generator,
    protected: Sequence[str] = (),
    *,
    typos: bool = True,
    full_width: bool = False,
) -> str:
    """Return a text as people might type it.

    `typos` is for English; `full_width` is for scripts whose punctuation comes in two widths.
    """
    choice = random.Random(int(rng.integers(1 << 62)))
    pieces = _split(text, protected)
    if typos and choice.random() < TYPO_TEXTS:
        pieces = _change(pieces, functools.partial(_mistype, choice=choice))
    pieces = _punctuate(pieces, choice, full_width)
    return "".join(_recase(pieces, choice))


def _split(text: str, protected: Sequence[str]) -> list[str]:
    """Return free and protected pieces in turn; the first and the last are free."""
    spans = [re.escape(span) for span in sorted(protected, key=len, reverse=True) if span]
    if not spans:
        return [text]
    return re.split(f"(?<![0-9A-Za-z])({'|'.join(spans)})(?![0-9A-Za-z])", text)


def _change(pieces: list[str], change: Callable[[str], str]) -> list[str]:
    return [piece if index % 2 else change(piece) for index, piece in enumerate(pieces)]


def _recase(pieces: list[str], choice: random.Random) -> list[str]:
    kind = choice.random()
    if kind < 0.40:
        return pieces
    if kind < 0.68:
        return _change(pieces, str.lower)
    if kind < 0.75:
        return _change(pieces, str.upper)
    if kind < 0.82:
        return _change(pieces, lambda piece: re.sub(r"(?<![\w'])\w", lambda first: first[0].upper(), piece))
    if kind < 0.97:
        return _capitalize(_change(pieces, str.lower))
    odds = choice.choice((0.1, 0.5))
    return _change(pieces, lambda piece: "".join(_flip(letter, odds, choice) for letter in piece))


def _capitalize(pieces: list[str]) -> list[str]:
    first, *others = pieces
    start = len(first) - len(first.lstrip())
    return [first[:start] + first[start : start + 1].upper() + first[start + 1 :], *others]


def _flip(letter: str, odds: float, choice: random.Random) -> str:
    return letter.swapcase() if choice.random() < odds else letter


def _punctuate(pieces: list[str], choice: random.Random, full_width: bool) -> list[str]:
    kind = choice.random()
    if kind < 0.06:
        pieces = _change(pieces, _without_commas)
    elif kind < 0.12:
        pieces = _change(pieces, _without_stops)
    elif kind < 0.15:
        pieces = _change(pieces, lambda piece: re.sub(f"([{_STOPS}{_COMMAS}]) ", r"\1", piece))
    elif kind < 0.17:
        pieces = _change(pieces, lambda piece: re.sub(f"([{_COMMAS}]) ", r" \1 ", piece))
    elif kind < 0.19:
        pieces = _change(pieces, lambda piece: re.sub(f"([{_COMMAS}]) ", r"\1\1 ", piece))
    pieces[-1] = _end(pieces[-1], choice)
    if full_width and choice.random() < 0.3:
        pieces = _change(pieces, _other_width)
    kind = choice.random()
    if kind < 0.05:
        place = choice.random()
        pieces = _change(pieces, lambda piece: _double_space(piece, place))
    elif kind < 0.07:
        pieces = _change(pieces, lambda piece: piece.replace(" ", "  "))
    elif kind < 0.12:
        pieces[-1] += choice.choice((" ", "  ", "\n"))
    elif kind < 0.14:
        pieces[0] = " " + pieces[0]
    return pieces


def _without_commas(piece: str) -> str:
    return re.sub(f"[{_COMMAS}]", "", piece)


def _without_stops(piece: str) -> str:
    return re.sub(f"[{_STOPS}](?= |$)", "", piece)


def _end(piece: str, choice: random.Random) -> str:
    """Return the last piece with another end."""
    kind = choice.random()
    if kind < 0.55:
        return piece
    body = piece.rstrip(f"{_STOPS}!? ")
    if not body and len(piece) > 1:
        return piece
    if kind < 0.80:
        return body
    return body + choice.choice((".", ".", ".", ".", "!", "!", "!!", "!!!", "...", "..", "?", " .", ",", ";"))


def _double_space(piece: str, place: float) -> str:
    """Return a piece with two spaces instead of one of its spaces."""
    spaces = [index for index, letter in enumerate(piece) if letter == " "]
    if not spaces:
        return piece
    index = spaces[int(place * len(spaces))]
    return f"{piece[:index]} {piece[index:]}"


def _other_width(piece: str) -> str:
    """Return a piece with half-width punctuation if it has full-width, and the other way round."""
    half = {wide: narrow for narrow, wide in _FULL_WIDTH.items()} | {"\u3001": ","}
    table = half if any(letter in half for letter in piece) else _FULL_WIDTH
    return "".join(table.get(letter, letter) for letter in piece)


def _mistype(piece: str, choice: random.Random) -> str:
    """Return a piece with typos in some of its words of four letters and more."""
    return re.sub(
        r"(?<![\w'-])[A-Za-z][A-Za-z']{3,}(?![\w-])",
        lambda match: misspell(match[0], choice) if choice.random() < TYPO_WORDS else match[0],
        piece,
    )


def misspell(word: str, choice: random.Random) -> str:
    """Return a word with a typo that keeps its first letter and is nearest to this word, or the word."""
    for _ in range(4):
        typo = choice.choice(_TYPOS)(word, choice)
        if typo != word and not _is_near_another(typo.lower(), word.lower()):
            return typo
    return word


def _swap(word: str, choice: random.Random) -> str:
    index = choice.randrange(1, len(word) - 1)
    return f"{word[:index]}{word[index + 1]}{word[index]}{word[index + 2 :]}"


def _drop(word: str, choice: random.Random) -> str:
    index = choice.randrange(1, len(word))
    return word[:index] + word[index + 1 :]


def _double(word: str, choice: random.Random) -> str:
    index = choice.randrange(1, len(word))
    return word[:index] + word[index] + word[index:]


def _neighbour_key(word: str, choice: random.Random) -> str:
    index = choice.randrange(1, len(word))
    near = _neighbours().get(word[index])
    return word[:index] + choice.choice(near) + word[index + 1 :] if near else word


def _drop_apostrophe(word: str, choice: random.Random) -> str:
    return word.replace("'", "")


_TYPOS = (_swap, _swap, _drop, _drop, _double, _neighbour_key, _neighbour_key, _drop_apostrophe)


@functools.cache
def _neighbours() -> dict[str, str]:
    """Return the letters beside each letter of a QWERTY keyboard."""
    near: dict[str, str] = defaultdict(str)
    for row, letters in enumerate(_ROWS):
        for index, letter in enumerate(letters):
            near[letter] += letters[max(index - 1, 0) : index] + letters[index + 1 : index + 2]
            for other in _ROWS[max(row - 1, 0) : row] + _ROWS[row + 1 : row + 2]:
                near[letter] += other[index : index + 1]
    return dict(near)


@functools.cache
def world_words() -> frozenset[str]:
    """Return the words that name things, colours, numbers, sizes, places and relations."""
    words = " ".join((*RELATIONS, *PLACES, _ORDINARY_WORDS)).split()
    return known_words().union(words)


def _is_near_another(typo: str, word: str) -> bool:
    """Return whether a typo is a word of the world, or one edit away from one other than `word`."""
    if typo in world_words():
        return True
    return any(_words_by_shorter().get(short, frozenset()) - {word} for short in _shorter(typo))


@functools.cache
def _words_by_shorter() -> dict[str, frozenset[str]]:
    """Return the words of the world by themselves with up to one letter less."""
    index: dict[str, set[str]] = defaultdict(set)
    for word in world_words():
        for short in _shorter(word):
            index[short].add(word)
    return {short: frozenset(words) for short, words in index.items()}


def _shorter(word: str) -> Iterable[str]:
    return {word, *(word[:index] + word[index + 1 :] for index in range(len(word)))}
