"""The rules that a refined prompt keeps, each checked by program, and which prompts are detailed already.

A check that cannot tell is kept: a wrong alarm costs a request, and in the end the refinement.
"""

import math
import re
from collections.abc import Callable, Sequence

from lens.reasoner.outcome import Check
from lens.reasoner.rules.colours import lost_colours
from lens.reasoner.rules.languages import is_same_language
from lens.reasoner.rules.numbers import lost_numbers
from lens.reasoner.rules.quotes import missing_quotes, quotes_of
from lens.reasoner.rules.tables import is_unspaced, words_of
from lens.reasoner.rules.talk import is_several, refusal_in, talk_in

RULES = ("answer", "one_prompt", "no_refusal", "quoted_text", "numbers", "colours", "language", "length")
DETAILED_WORDS = 60
"""Words from which on a prompt is detailed."""
STRUCTURED_WORDS = 30
"""The same for a prompt of several parts."""
MIN_PARTS = 4
PARTS = re.compile(r"[,;.!?\n]+(?:\s|$)|[\u3001\u3002\uff0c\uff1b\uff0e\u060c\u061b\u06d4\u0964]+")
SHORTER_MARGIN = 5
LETTERS_PER_WORD = 1.7
"""Letters that a word has in scripts without spaces between words."""


def check_prompt(
    original: str,
    refined: str,
    *,
    count_tokens: Callable[[str], int],
    max_tokens: int,
    is_cut: bool = False,
    paragraphs: Sequence[str] = (),
) -> tuple[Check, ...]:
    """Return all checks of a refined prompt, in the order of `RULES`."""
    if not refined:
        why = "The answer ended before its prompt began." if is_cut else "The answer has no prompt."
        return (Check("answer", False, why),)
    answer = Check("answer", not is_cut, "The answer was cut before its end." if is_cut else "")
    talk, refusal = talk_in(original, refined), refusal_in(original, refined)
    is_same, difference = is_same_language(original, refined)
    num_tokens = count_tokens(refined)
    several = is_several(original, refined, paragraphs)
    about = f'It talks about the prompt: "{talk}".' if talk else ""
    many = "It is more than one prompt." if several else about
    too_long = f"It has {num_tokens} tokens, of which the model reads {max_tokens}"
    too_long += f": it must be {shorter_by(num_tokens, max_tokens)}% shorter."
    return (
        answer,
        Check("one_prompt", not many, many),
        Check("no_refusal", refusal is None, f'It refuses in words: "{refusal}".' if refusal else ""),
        _kept("quoted_text", "The text", missing_quotes(original, refined), quoted=True),
        _kept("numbers", "The number", lost_numbers(original, refined)),
        _kept("colours", "The colour", lost_colours(original, refined)),
        Check("language", is_same, difference),
        Check("length", num_tokens <= max_tokens, too_long if num_tokens > max_tokens else ""),
    )


def shorter_by(num_tokens: int, max_tokens: int) -> int:
    """Return the part of a prompt that is too much, in percent with a margin: models cannot count tokens."""
    return min(95, math.ceil(100 * (1 - max_tokens / max(num_tokens, 1))) + SHORTER_MARGIN)


def broken(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that are not kept."""
    return [check for check in checks if not check.is_kept]


def is_detailed(prompt: str) -> bool:
    """Return whether a prompt describes its picture at length, so that rewriting would only change it."""
    num_words = _num_words(prompt)
    if num_words >= DETAILED_WORDS:
        return True
    parts = [part for part in PARTS.split(prompt) if part.strip()]
    return num_words >= STRUCTURED_WORDS and len(parts) >= MIN_PARTS


def _num_words(prompt: str) -> int:
    quoted = sum(len(words_of(quote.text)) for quote in quotes_of(prompt))
    if not is_unspaced(prompt):
        return len(words_of(prompt)) - quoted  # long texts to be written describe no picture
    return round(sum(map(str.isalpha, prompt)) / LETTERS_PER_WORD)


def _kept(rule: str, what: str, lost: Sequence[str], quoted: bool = False) -> Check:
    shown = ", ".join(f'"{one}"' if quoted else one for one in lost)
    plural = "s" if len(lost) > 1 else ""
    verb = "are" if len(lost) > 1 else "is"
    return Check(rule, not lost, f"{what}{plural} {shown} {verb} missing or changed." if lost else "")
