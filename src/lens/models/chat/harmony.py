"""Harmony, the conversation of GPT-OSS: as tokens, and the channels of an answer.

The model thinks in the analysis channel and answers in the final one. Spec: section 11.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from lens.errors import SettingError
from lens.models.prompt_date import PINNED_DATE, parse_prompt_date
from lens.models.prompt_template import DEVELOPER_CLOSE, FINAL_OPEN, SYSTEM_MESSAGE, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REASONING_EFFORTS = ("low", "medium", "high")
START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
RETURN, CALL, END_OF_TEXT = "<|return|>", "<|call|>", "<|endoftext|>"
REQUIRED_TOKENS = (START, CHANNEL, MESSAGE, END, RETURN)
FINAL_CHANNEL = "final"
ANSWER_START = f"{START}assistant"
"""What the model is given after the conversation; it chooses the channel itself."""

State = Literal["begun", "header", "message", "between", "ended"]
ANSWER_OPENING: dict[State, str] = {
    "begun": FINAL_OPEN.removeprefix(ANSWER_START),
    "header": MESSAGE + END + FINAL_OPEN,
    "message": END + FINAL_OPEN,
    "between": FINAL_OPEN,
    "ended": END + FINAL_OPEN,
}
"""What brings the model from a state to its answer."""


class HarmonyFormat:
    """Writes conversations as GPT-OSS reads them, and reads its answers."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", date: str = PINNED_DATE, effort: str = "low"
    ):
        if effort not in REASONING_EFFORTS:
            raise SettingError("effort", effort, f"one of {', '.join(REASONING_EFFORTS)}")
        if not is_harmony(tokenizer):
            needs = f"the control tokens of GPT-OSS, such as {CHANNEL} and {RETURN}"
            raise SettingError("tokenizer", type(tokenizer).__name__, needs)
        self._tokenizer = tokenizer
        system = SYSTEM_MESSAGE.replace("Reasoning: medium", f"Reasoning: {effort}")
        self._system = system.format(date=parse_prompt_date(date, "date"))
        self.end_ids = [self._id(RETURN)]

    def conversation_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return a conversation up to the place where the model answers.

        A system text becomes a message of the developer. Control tokens inside a message are plain text.
        """
        ids = token_ids(self._tokenizer, self._system, control_tokens=True)
        for message in messages:
            header, content = _header_and_content(message["role"], message["content"])
            ids += token_ids(self._tokenizer, header, control_tokens=True)
            ids += token_ids(self._tokenizer, content)
            ids += token_ids(self._tokenizer, END, control_tokens=True)
        return ids + token_ids(self._tokenizer, ANSWER_START, control_tokens=True)

    def reader(self, prompt_ids: Sequence[int]) -> "HarmonyReader":
        """Return a reader of the answer to a conversation."""
        return HarmonyReader(self._tokenizer)

    def _id(self, token: str) -> int:
        return token_ids(self._tokenizer, token, control_tokens=True)[0]


class HarmonyReader:
    """Reads the tokens of an answer one by one; what is in the final channel is the answer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast"):
        self._tokenizer = tokenizer
        names = (*REQUIRED_TOKENS, "<|constrain|>", CALL, END_OF_TEXT)
        self._name_of = {tokenizer.convert_tokens_to_ids(name): name for name in names}
        self._state: State = "begun"
        self._header: list[int] = []
        self._is_final = False
        self.answer_ids: list[int] = []
        self.is_complete = False
        """Whether the final message has ended, or the model has stopped without one."""

    @property
    def is_answering(self) -> bool:
        """Whether the next token belongs to the final message."""
        return self._is_final and self._state == "message"

    def push(self, token: int) -> None:
        """Read a token."""
        name = self._name_of.get(token)
        if name in (RETURN, CALL, END_OF_TEXT) or (name is not None and self.is_answering):
            self.is_complete, self._state = True, "ended"  # a control token ends a message, also a wrong one
        elif self.is_answering:
            self.answer_ids.append(token)
        elif name in (START, CHANNEL):
            self._header, self._state = [], "header"
        elif name == MESSAGE:
            self._is_final, self._state = self._has_final_header(), "message"
        elif name == END:
            self._state = "between"
        elif self._state != "message":
            self._header.append(token)
            self._state = "header"

    def opening_ids(self) -> list[int]:
        """Return what makes the model answer now, whatever it was thinking."""
        if self.is_answering:
            return []
        is_opening = self._state == "header" and self._has_final_header()
        opening = MESSAGE if is_opening else ANSWER_OPENING[self._state]
        return token_ids(self._tokenizer, opening, control_tokens=True)

    def _has_final_header(self) -> bool:
        words = str(self._tokenizer.decode(self._header, skip_special_tokens=True)).split()
        return words[:1] == [FINAL_CHANNEL]


def is_harmony(tokenizer: "PreTrainedTokenizerFast") -> bool:
    """Return whether a tokenizer has the control tokens of GPT-OSS."""
    return all(
        tokenizer.convert_ids_to_tokens(token_ids(tokenizer, name, control_tokens=True)) == [name]
        for name in REQUIRED_TOKENS
    )


def _header_and_content(role: str, content: str) -> tuple[str, str]:
    if role in ("system", "developer"):
        # The heading and the text are tokenized together, as a template would.
        closing = DEVELOPER_CLOSE.removesuffix(END)
        return f"{START}developer{MESSAGE}", f"# Instructions\n\n{content}{closing}"
    if role == "user":
        return f"{START}user{MESSAGE}", content
    if role == "assistant":
        return FINAL_OPEN, content
    raise SettingError("role", role, "system, user or assistant")
