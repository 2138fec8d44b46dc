"""Takes the prompt out of a language model's answer: no thinking, control tokens, fences, quotes or talk.

Knows nothing of the request. What it cannot take off with certainty it leaves for the checks.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from lens.reasoner.rules.quotes import without_outer_marks
from lens.reasoner.rules.talk import without_leading_talk

THINKING_NAMES = (
    r"(?:\w+:)?think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|antthinking|"
    r"inner_monologue|chain_of_thought"
)
_TAG = rf"(?:{THINKING_NAMES})"
THINKING = tuple(
    (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in (
        (rf"<{_TAG}(?:\s[^<>]*)?>", rf"</{_TAG}\s*>"),
        (rf"\[{_TAG}\]", rf"\[/{_TAG}\]"),
        (r"<\|(?:begin_of_thought|start_thinking|thinking|think|inner_prefix)\|>",
         r"<\|(?:end_of_thought|end_thinking|/thinking|/think|inner_suffix)\|>"),
        (r"\u25c1think\u25b7", r"\u25c1/think\u25b7"),
        (r"<\|channel>thought\b", r"<channel\|>"),
        (r"<unused94>", r"<unused95>"),
        (r"<details[^<>]*reasoning[^<>]*>", r"</details>"),
        (r"\AThinking\.\.\.\s*\n", r"\.\.\.\s*done thinking\.?"),
    )
)  # fmt: skip
"""Marks around what a model thinks, in the forms that models of different makers have."""
THINKING_CHAPTER = re.compile(
    r"\A\W*(?:thinking|reasoning|analysis|thoughts?)\b[:*\s.]*\n.*\n\W*"
    r"(?:final\s+)?(?:answer|prompt|response|output)\b[:*_\s]*\n",
    re.DOTALL | re.IGNORECASE,
)
"""The same with headings instead of marks."""
ROLE = re.compile(r"\A\s*assistant\s*(?::|\n)\s*", re.IGNORECASE)
HARMONY_MESSAGE = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)"
    r"(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
BARE_HARMONY = re.compile(r"\A\s*analysis(?=[A-Z]|.*assistant\s*final)", re.DOTALL)
"""Harmony whose control tokens a server took off: analysisWe need ...assistantfinalA fox."""
BARE_FINAL = re.compile(r"assistant\s*final\s*")
ASSISTANT = re.compile(
    r"<\|im_start\|>\s*assistant\s*|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>\s*|"
    r"<start_of_turn>\s*model\s*|<\|start\|>\s*assistant\s*<\|message\|>|\[/INST\]|<\|assistant\|>"
)
END_OF_TURN = re.compile(
    r"<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|end\|>|<\|return\|>|<\|endoftext\|>|</s>|<eos>|"
    r"<\|end_of_text\|>|<\|end of sentence\|>|<\uff5cend of sentence\uff5c>"
)
CONTROL_TOKEN = re.compile(
    r"<\|[\w/ -]{1,40}\|>|<\uff5c[^<>\uff5c]{1,40}\uff5c>|"
    r"</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]",
    re.IGNORECASE,
)
ANSWER_TAG = re.compile(
    r"<(answer|output|response|result|prompt|final|final_answer|rewritten_prompt|refined_prompt|"
    r"enhanced_prompt|recaption)>(.*?)(?:</\1>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
FENCE = re.compile(r"[ \t]*(?:```+|~~~+)[ \t]*[\w-]*[ \t]*")
ONE_LINE_FENCE = re.compile(r"\A(`{1,3})([^`]+)\1\Z")
EMPHASIS = re.compile(r"\A(\*\*|__)([^*_]+)\1\Z")
CHOICE_LABEL = re.compile(r"^(?:the\s+)?(?:answer|category)(?:\s+is)?\s*[:=]?\s+", re.IGNORECASE)
LONE_BULLET = re.compile(r"\A[-*>\u2022]\s+(?=[^\n]+\Z)")
BRACKETS = re.compile(r"\A\[([^\[\]]*\s[^\[\]]*)\]\Z")
NO_LETTERS = {0: " ", 0x2581: " "}
"""What JSON may hold and files may not; the space of some tokenizers."""
INVISIBLE = re.compile(r"[\u200b\u2060\ufeff\u00ad]")
MAX_ROUNDS = 4


class CleanAnswer(NamedTuple):
    """The prompt of an answer."""

    text: str
    """Empty where the answer is only thinking."""
    is_cut: bool
    """Whether the answer ends within its thinking or within a code fence."""
    is_only_thinking: bool
    paragraphs: tuple[str, ...]
    """The prompt as it was divided by empty lines."""


def clean_answer(text: str, quoted: Sequence[str] = ()) -> CleanAnswer:
    """Return the prompt of an answer on one line, and whether its form shows that it was cut.

    Quotation marks around the whole are kept where the whole is one of the texts that the request quotes.
    """
    # JSON may contain NUL and lone surrogates, which files and databases reject.
    text = INVISIBLE.sub("", text.translate(NO_LETTERS).encode(errors="replace").decode())
    had_text = bool(text.strip())
    text, is_cut = _without_thinking(_final_message(text))
    text = ROLE.sub("", THINKING_CHAPTER.sub("", text))
    is_only_thinking = had_text and not CONTROL_TOKEN.sub(" ", text).strip()
    tags = ANSWER_TAG.findall(text)
    if len(tags) == 1:
        text = tags[0][1]
    text = CONTROL_TOKEN.sub(" ", text).strip()
    for _ in range(MAX_ROUNDS):  # one wrapping may hide another: a fence around quotes around talk
        before = text
        text, is_fence_open = _without_fence(text)
        is_cut |= is_fence_open
        text = _json_value(without_leading_talk(text)) or text
        text = without_leading_talk(text)
        text = EMPHASIS.sub(r"\2", BRACKETS.sub(r"\1", LONE_BULLET.sub("", text.strip())))
        if text[1:-1].strip() not in quoted:
            text = without_outer_marks(text)
        if text == before:
            break
    paragraphs = tuple(one.strip() for one in re.split(r"\n\s*\n|\n(?=[-*_=]{3,}\s*\n)", text) if one.strip())
    return CleanAnswer(re.sub(r"\s+", " ", text).strip(), is_cut, is_only_thinking, paragraphs)


def chosen_answer(text: str, choices: Sequence[str]) -> str | None:
    """Return which of the choices an answer names; None where it is none of them, or not certain."""
    text = clean_answer(text).text
    known = {choice.casefold(): choice for choice in choices}
    value = _json_value(text) or text
    exact = CHOICE_LABEL.sub("", value.strip())
    exact = exact.strip(" \t.,:;!*_`'\"()[]<>").casefold()
    if exact in known:
        return known[exact]
    named = {
        word for word in known if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", value.casefold())
    }
    return known[named.pop()] if len(named) == 1 and len(value) < 200 else None


def _final_message(text: str) -> str:
    """Return the last message of harmony's final channel, or of an assistant's turn in other chat formats."""
    messages = HARMONY_MESSAGE.findall(text)
    if messages:
        finals = [content for channel, content in messages if channel == "final"]
        return finals[-1] if finals else "<think>"
    if BARE_HARMONY.match(text):
        return BARE_FINAL.split(text)[-1] if BARE_FINAL.search(text) else "<think>"
    turns = END_OF_TURN.split(ASSISTANT.split(text)[-1])
    return next((turn for turn in turns if turn.strip()), "")


def _without_thinking(text: str) -> tuple[str, bool]:
    """Return a text without what was thought, and whether it ends in the middle of a thought.

    Templates often write the opening mark into the conversation, so a closing one may stand alone.
    """
    is_open = False
    for opening, closing in THINKING:
        *_, last = [None, *closing.finditer(text)]
        if last is not None:
            first = opening.search(text)
            head = text[: first.start()] if first is not None and first.start() < last.start() else ""
            # What is said before a thought belongs to the answer only where nothing follows the thought.
            tail = text[last.end() :]
            text = tail if tail.strip() else head
        unclosed = opening.search(text)
        if unclosed is not None:
            text, is_open = text[: unclosed.start()], True
    return text, is_open


def _without_fence(text: str) -> tuple[str, bool]:
    """Return the content of the only code fence, and whether a fence was opened and not closed."""
    lines = text.split("\n")
    fences = [at for at, line in enumerate(lines) if FENCE.fullmatch(line)]
    if len(fences) == 2:
        return "\n".join(lines[fences[0] + 1 : fences[1]]).strip(), False
    if fences == [0]:
        return "\n".join(lines[1:]).strip(), True
    one_line = ONE_LINE_FENCE.match(text)
    return (one_line[2].strip() if one_line else text), False


def _json_value(text: str) -> str | None:
    """Return the text of a JSON object with a single value, or of a JSON string."""
    if not text.startswith(("{", '["')):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = list(value.values()) if isinstance(value, dict) else value
    return values[0].strip() if len(values) == 1 and isinstance(values[0], str) else None
