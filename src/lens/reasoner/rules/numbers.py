"""Numbers of a text: digits of any script, and number words where a language's table has them.

A request is read strictly: a word that may mean something else counts as no number. A refined prompt is read
generously: any word that may stand for the number keeps it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from lens.reasoner.rules.languages import language_of
from lens.reasoner.rules.quotes import without_quotes
from lens.reasoner.rules.tables import normal, tables, words_of

DIGITS = re.compile(r"\d+(?:[.,'\u066b\u066c]\d+)*")
HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}\b")
THOUSANDS = re.compile(r"\d{1,3}(?:[.,'\u066c]\d{3})+")
TOKEN = re.compile(r"\d+|[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0963]+[^\W\d_]*)*|[,.;:]")
CJK_DIGITS = {
    "\u3007": 0, "\u96f6": 0, "\u4e00": 1, "\u4e8c": 2, "\u4e24": 2, "\u5169": 2, "\u4e09": 3, "\u56db": 4,
    "\u4e94": 5, "\u516d": 6, "\u4e03": 7, "\u516b": 8, "\u4e5d": 9,
}  # fmt: skip
CJK_UNITS = {"\u5341": 10, "\u767e": 100, "\u5343": 1000, "\u4e07": 10_000, "\u842c": 10_000}
CJK_NUMBER = "[{}]+".format("".join((*CJK_DIGITS, *CJK_UNITS)))
CONNECTORS = frozenset(("and", "et", "y", "e", "und"))
GERMAN_COMPOUND = re.compile(r"(ein|zwei|drei|vier|f\u00fcnf|sechs|sieben|acht|neun)und(\w+zig|drei\u00dfig)")
ARABIC_PREFIX = re.compile("^(?:\u0648|\u0641|\u0628|\u0644|\u0643)?(?:\u0627\u0644)?(?=..)")
ARABIC_DUAL = re.compile("\\w{2,}(?:\u0627\u0646|\u064a\u0646)$")
AMBIGUOUS = frozenset(
    ("six", "sei", "due", "dos", "mil", "cent", "seize", "venti", "tre", "once", "nove", "sept", "acht")
)
"""Number words that are other words in other languages: they count where the language is known."""
NEEDS_COUNTER = frozenset(("\ub124", "\uc5f4", "\ubc31", "\ucc9c"))
"""Korean number words that are other words too: four, ten, hundred, thousand."""


def lost_numbers(original: str, refined: str) -> list[str]:
    """Return the numbers of a request that a refined prompt lost, as the request writes them."""
    asked = list(_numbers(original))
    if not asked:
        return []
    left = Counter(_generous_values(refined))
    has_dual = any(ARABIC_DUAL.search(word) for word in words_of(refined))
    lost: list[str] = []
    for value, shown in asked:
        if value == "2" and has_dual:
            continue
        if left[value]:
            left[value] -= 1
        else:
            lost.append(shown)
    return lost


def _numbers(text: str) -> Iterator[tuple[str, str]]:
    """Yield the numbers that a request surely has, each with how it is written; the word one is none."""
    text = HEX_COLOUR.sub(" ", normal(without_quotes(text)))
    yield from _digits(text)
    language = language_of(text)
    if language.script in ("Han", "Kana"):
        yield from _cjk_numbers(text)
        return
    if language.script == "Hangul":
        yield from _korean_numbers(text)
        return
    codes = language.candidates & tables()["numbers"].keys()
    known = _words(codes) if codes else _unambiguous_words()
    for value, shown in _word_numbers(text, known, is_strict=True):
        if value > 1:
            yield str(value), shown


def _digits(text: str) -> Iterator[tuple[str, str]]:
    for match in DIGITS.finditer(text):
        for value in _values(match[0]):
            yield value, match[0]


def _values(digits: str) -> list[str]:
    """Return the value of digits with separators, or several where they are a list."""
    if THOUSANDS.fullmatch(digits):
        return [str(int(re.sub(r"\D", "", digits)))]
    parts = re.split(r"\D", digits)
    if len(parts) == 2:
        whole, fraction = str(int(parts[0])), parts[1].rstrip("0")
        return [f"{whole}.{fraction}" if fraction else whole]
    return [str(int(part)) for part in parts]


def _generous_values(text: str) -> Iterator[str]:
    """Yield every value that words or digits of a text may stand for."""
    text = normal(text)
    yield from (value for value, _ in _digits(text))
    every = {word: value for listed in reversed(_all_tables()) for word, value in listed.items()}
    single: Counter[int] = Counter()
    for word in _split_words(text):
        for value in _values_of_word(word):
            single[value] += 1
    yield from (str(value) for value, count in single.items() for _ in range(count))
    yield from (str(value) for value, _ in _word_numbers(text, every, is_strict=False) if value not in single)
    for match in re.finditer(CJK_NUMBER, text):
        yield str(_cjk_value(match[0]))
    for word, value in tables()["native_counts"].items():
        yield from [str(value)] * text.count(word)


def _values_of_word(word: str) -> set[int]:
    """Return the values that a word has in any language."""
    found = {listed[word] for listed in _all_tables() if word in listed}
    if not found and "\uac00" <= word[:1] <= "\ud7af":  # a numeral with its counter, written together
        found = {value for value, _ in _korean_prefixes(word)}
    return found


@cache
def _all_tables() -> tuple[dict[str, int], ...]:
    return (*tables()["numbers"].values(), *tables()["loose_numbers"].values())


def _words(codes: Iterable[str]) -> dict[str, int]:
    return {word: value for code in sorted(codes) for word, value in tables()["numbers"][code].items()}


@cache
def _unambiguous_words() -> dict[str, int]:
    """Return number words that have one value in all languages, and hardly another sense."""
    values: dict[str, set[int]] = {}
    for listed in tables()["numbers"].values():
        for word, value in listed.items():
            values.setdefault(word, set()).add(value)
    return {word: min(all_) for word, all_ in values.items() if len(all_) == 1 and word not in AMBIGUOUS}


def _split_words(text: str) -> list[str]:
    words: list[str] = []
    for word in words_of(text):
        words.append(word)
        if "\u0621" <= word[:1] <= "\u064a" and (bare := ARABIC_PREFIX.sub("", word)) != word:
            words.append(bare)
    return words


def _word_numbers(text: str, known: dict[str, int], is_strict: bool) -> Iterator[tuple[int, str]]:
    """Yield the values of number words, such as twenty-five of two words."""
    run: list[tuple[int, str]] = []
    pending = ""
    tokens = [token.casefold() for token in TOKEN.findall(text)]
    for place, token in enumerate(tokens):
        value = _value_of_token(token, known)
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        if is_strict and token == "neuf" and not following.endswith(("s", "x")):
            value = None  # new
        if value is not None and run and _joins(run[-1][0], value):
            last, shown = run.pop()
            run.append((_joined(last, value), f"{shown}{pending} {token}"))
        elif value is not None:
            yield from run
            run = [(value, token)]
        elif token in CONNECTORS and run and not pending:
            pending = f" {token}"
            continue
        elif run:
            yield from run
            run = []
        pending = ""
    yield from run


def _value_of_token(token: str, known: dict[str, int]) -> int | None:
    if token in known:
        return known[token]
    if match := GERMAN_COMPOUND.fullmatch(token):
        tens = known.get(match[2])
        units = {"ein": 1} | known
        return None if tens is None else tens + units.get(match[1], 0)
    bare = ARABIC_PREFIX.sub("", token) if "\u0621" <= token[:1] <= "\u064a" else token
    if bare.endswith("s") and bare[:-1] in ("vingt", "cent"):
        bare = bare[:-1]
    return known.get(bare)


def _joins(last: int, value: int) -> bool:
    """Return whether two number words in a row are one number."""
    if value == 20:
        return last == 4  # quatre-vingts
    if value == 10:
        return 3 <= last <= 9 or last in (60, 80)  # fifteen in Arabic; soixante-dix
    if value in (100, 1000):
        return last < value
    is_tens = 20 <= last <= 90 and last % 10 == 0
    return last >= 100 > value or (is_tens and (value < 10 or (last in (60, 80) and value < 20)))


def _joined(last: int, value: int) -> int:
    return last * value if value in (100, 1000) or (last, value) == (4, 20) else last + value


def _cjk_numbers(text: str) -> Iterator[tuple[str, str]]:
    counters = "".join(tables()["counters"][code] for code in ("zh", "ja"))
    for match in re.finditer(rf"({CJK_NUMBER})[{counters}]", text):
        value = _cjk_value(match[1])
        if value > 1:
            yield str(value), match[0]
    for word, value in tables()["native_counts"].items():
        if value > 1 and not re.search(CJK_NUMBER, word[:1]) and word in text:
            yield str(value), word


def _cjk_value(letters: str) -> int:
    """Return the value of numerals such as two-ten-five for 25; digits without units stand side by side."""
    if not set(letters) & CJK_UNITS.keys():
        return int("".join(str(CJK_DIGITS[letter]) for letter in letters))
    total, section, digit = 0, 0, 0
    for letter in letters:
        if letter in CJK_DIGITS:
            digit = CJK_DIGITS[letter]
        elif CJK_UNITS[letter] == 10_000:
            total, section, digit = total + max(section + digit, 1) * 10_000, 0, 0
        else:
            section, digit = section + max(digit, 1) * CJK_UNITS[letter], 0
    return total + section + digit


def _korean_numbers(text: str) -> Iterator[tuple[str, str]]:
    known, counters = tables()["numbers"]["ko"], tuple(tables()["counters"]["ko"].split())
    tokens = re.findall(r"\S+", text)
    for place, token in enumerate(tokens):
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        bare = token.strip(".,!?\u3002")
        if bare in known and (bare not in NEEDS_COUNTER or following.startswith(counters)):
            yield str(known[bare]), f"{bare} {following}".strip()
            continue
        for value, length in _korean_prefixes(token):
            if value > 1 and token[length:].startswith(counters):
                yield str(value), token
                break


def _korean_prefixes(word: str) -> list[tuple[int, int]]:
    """Return the numerals that a word begins with, the longest first, with their lengths."""
    listed = tables()["numbers"]["ko"] | tables()["loose_numbers"]["ko"]
    counters = tuple(tables()["counters"]["ko"].split())
    found = [(value, len(known)) for known, value in listed.items() if word.startswith(known)]
    return sorted((one for one in found if word[one[1] :].startswith(counters)), key=lambda one: -one[1])
