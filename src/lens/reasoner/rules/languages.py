"""Which script and which language a text is in, as far as its letters and function words tell.

Candidates are a set: a short text may be in several languages, and an empty set means that nothing tells.
"""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

from lens.reasoner.rules.quotes import without_quotes
from lens.reasoner.rules.tables import colour_forms, normal, tables, words_of

SCRIPTS = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff", "Cyrillic": "\u0400-\u052f", "Greek": "\u0370-\u03ff",
    "Arabic": "\u0620-\u064a\u066e-\u06d3\u0750-\u077f", "Hebrew": "\u05d0-\u05ea",
    "Devanagari": "\u0904-\u0939\u0958-\u0961", "Bengali": "\u0985-\u09b9", "Tamil": "\u0b85-\u0bb9",
    "Telugu": "\u0c05-\u0c39", "Gujarati": "\u0a85-\u0ab9", "Gurmukhi": "\u0a05-\u0a39",
    "Kannada": "\u0c85-\u0cb9", "Malayalam": "\u0d05-\u0d39", "Sinhala": "\u0d85-\u0dc6",
    "Thai": "\u0e01-\u0e2e\u0e40-\u0e44", "Lao": "\u0e81-\u0eae", "Burmese": "\u1000-\u102a",
    "Khmer": "\u1780-\u17b3", "Georgian": "\u10d0-\u10ff", "Armenian": "\u0531-\u0587",
    "Ethiopic": "\u1200-\u135a",
    "Hangul": "\uac00-\ud7af\u1100-\u11ff", "Kana": "\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff",
}  # fmt: skip
LETTERS_OF = {script: re.compile(f"[{letters}]") for script, letters in SCRIPTS.items()}
WEIGHT = {"Han": 3.0, "Kana": 2.0, "Hangul": 2.5, "Devanagari": 1.5}
"""How many Latin letters say as much as one letter of a script."""
EAST_ASIAN = ("Han", "Kana")
LANGUAGE_SCRIPT = {
    **dict.fromkeys(("ru", "uk", "bg"), "Cyrillic"), **dict.fromkeys(("ar", "fa", "ur"), "Arabic"),
    **dict.fromkeys(("hi", "mr"), "Devanagari"),
}  # fmt: skip
NAMES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "pl": "Polish", "tr": "Turkish", "sv": "Swedish", "vi": "Vietnamese", "id": "Indonesian",
    "ru": "Russian", "uk": "Ukrainian", "bg": "Bulgarian", "ar": "Arabic", "fa": "Persian", "ur": "Urdu",
    "da": "Danish", "no": "Norwegian", "fi": "Finnish", "cs": "Czech", "hu": "Hungarian", "ro": "Romanian",
    "ca": "Catalan", "hi": "Hindi", "mr": "Marathi", "ja": "Japanese", "ko": "Korean", "zh": "Chinese",
}  # fmt: skip
PARTICLES = "de|da|di|del|della|do|dos|du|van|von|der|den|la|le|el|los|las"
FIRST_PARTICLE = re.compile(rf"\b(?:(?!(?:[a-z]))(?i:{PARTICLES})\s)+(?=[A-Z\u00c0-\u00de])")
INNER_PARTICLE = re.compile(rf"\b([A-Z\u00c0-\u00de]\w*)(?:\s(?:{PARTICLES}))+(?=\s[A-Z\u00c0-\u00de])")
"""Words of names, which tell nothing of the language: Los Angeles, Rio de Janeiro."""
REPEATED = 0.2
"""What a word tells each time it comes again."""
MIN_SHARE = 0.75
"""A language is a candidate with this share of the evidence of the likeliest one."""
MIN_SCRIPT_SHARE = 0.6
"""Share of the script of a request in a refined prompt, by weight."""
MIN_HAN_WITHOUT_KANA = 8
"""Japanese of that many Han letters has kana among them."""


class LanguageEvidence(NamedTuple):
    """What a text tells of its language."""

    script: str | None
    """None without letters; Japanese counts as Kana, however many of its letters are Han."""
    candidates: frozenset[str]

    @property
    def words(self) -> str:
        """The language in words."""
        names = [NAMES.get(code, code) for code in sorted(self.candidates)]
        return " or ".join(names) or f"{self.script} script"


def language_of(text: str) -> LanguageEvidence:
    """Return what a text tells of its language, the text in quotation marks aside."""
    plain = without_quotes(text)
    weights = _weights(plain)
    if not weights:
        return LanguageEvidence(None, frozenset())
    script = max(weights, key=lambda one: weights[one])
    if script in EAST_ASIAN:
        return _east_asian(plain)
    if script == "Hangul":
        return LanguageEvidence(script, frozenset({"ko"}))
    return LanguageEvidence(script, _candidates(plain, script))


def is_same_language(original: str, refined: str) -> tuple[bool, str]:
    """Return whether a refined prompt may be in the language of its request, and what differs if not."""
    asked, got = language_of(original), language_of(refined)
    if asked.script is None or got.script is None:
        return True, ""
    is_japanese_or_chinese = {asked.script, got.script} == {*EAST_ASIAN} and asked.candidates & got.candidates
    if asked.script != got.script and not is_japanese_or_chinese:
        return False, f"The request is in {asked.words}, the prompt in {got.words}."
    if asked.candidates and got.candidates and not asked.candidates & got.candidates:
        return False, f"The request is in {asked.words}, the prompt in {got.words}."
    weights = _weights(without_quotes(refined))
    scripts = EAST_ASIAN if asked.script in EAST_ASIAN else (asked.script,)
    share = sum(weights[script] for script in scripts) / weights.total()
    if share < MIN_SCRIPT_SHARE and share < _share(original, scripts):
        return False, f"The request is in {asked.words}, and much of the prompt is not."
    return True, ""


def _share(text: str, scripts: tuple[str, ...]) -> float:
    weights = _weights(without_quotes(text))
    return sum(weights[script] for script in scripts) / weights.total()


def _weights(text: str) -> Counter[str]:
    counts = ((script, len(letters.findall(text))) for script, letters in LETTERS_OF.items())
    return Counter({script: count * WEIGHT.get(script, 1.0) for script, count in counts if count})


def _east_asian(text: str) -> LanguageEvidence:
    num_kana, num_han = (len(LETTERS_OF[script].findall(text)) for script in ("Kana", "Han"))
    if num_kana and num_kana * 12 >= num_han:
        return LanguageEvidence("Kana", frozenset({"ja"}))
    is_short = num_han < MIN_HAN_WITHOUT_KANA
    return LanguageEvidence("Han", frozenset({"zh", "ja"} if is_short and not _has_chinese(text) else {"zh"}))


def _has_chinese(text: str) -> bool:
    """Return whether a text has letters that Japanese does not have, such as simplified ones."""
    return any(letter in CHINESE for letter in text)


CHINESE = frozenset(
    "\u7684\u4e00\u4e2a\u8fd9\u4eec\u5728\u7740\u4e86\u53ea\u6761\u4e0e\u957f\u95e8\u9a6c\u98de\u9e1f\u9c7c\u7ea2"
    "\u7eff\u84dd\u8f66\u6811\u4e66\u7535\u8bed\u8bf4\u770b\u732b\u72d7\u5f20\u56fe\u753b\u98ce\u4e91\u6863\u5199"
    "\u6c49\u8bf7\u8fb9\u5bf9\u53cc\u623f\u5c9b\u5934\u4eec\u5979\u5b83\u4f60\u8fd8\u4ece\u4e1c\u897f\u5199"
) - frozenset("\u4e00\u5728\u8457\u66f8\u98a8\u770b\u732b\u897f")  # fmt: skip


@cache
def _known_words() -> dict[str, frozenset[str]]:
    """Return the function words of each language, its number words and its colours."""
    listed, numbers = tables()["function_words"], tables()["numbers"]
    return {
        code: frozenset(words.split()) | numbers.get(code, {}).keys() | colour_forms(code).keys()
        for code, words in listed.items()
    }


@cache
def _other_words(code: str) -> frozenset[str]:
    """Return further words of a language, which speak against others alone: a logo may be anywhere."""
    return frozenset(tables()["also_words"].get(code, "").split())


def _candidates(text: str, script: str) -> frozenset[str]:
    """Return the languages of a script for which the function words and letters of a text speak most."""
    text = FIRST_PARTICLE.sub(" ", INNER_PARTICLE.sub(r"\1", normal(text)))
    words = Counter(words_of(text))
    scores: dict[str, float] = {}
    sure: set[str] = set()
    for code, known in _known_words().items():
        if LANGUAGE_SCRIPT.get(code, "Latin") != script:
            continue
        special = tables()["letters"].get(code, "")
        scores[code] = sum(1 + REPEATED * (count - 1) for word, count in words.items() if word in known)
        scores[code] += not _other_words(code).isdisjoint(words)
        scores[code] += sum(0.7 for word in words if any(letter in special for letter in word))
        sure |= {code} if known & words.keys() else set()
    best = max(scores.values(), default=0.0)
    likely = frozenset(code for code, score in scores.items() if score >= MIN_SHARE * best)
    return likely if best >= 1 and likely & sure else frozenset()
