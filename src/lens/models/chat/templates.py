"""Conversations of models with a chat template of their own, and their answers."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from lens.errors import LensError, SettingError
from lens.models.prompt_template import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

THINK, THINK_END = "<think>", "</think>"
CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    r"{{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' -}}{%- endif -%}"
)
"""The conversation of Qwen3, which answers without thinking."""
EFFORT_VARIABLE, THINKING_VARIABLE = "reasoning_effort", "enable_thinking"
"""Variables of chat templates."""


class TemplateFormat:
    """Writes conversations by a tokenizer's chat template, and reads answers up to the end of a turn."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        end_ids: Sequence[int] = (),
        *,
        effort: str | None = None,
        template: str | None = None,
    ):
        """Take a tokenizer; `end_ids` are tokens that end an answer beside those of its template.

        Without an effort, the model thinks as little as it can.
        Raises: SettingError for a tokenizer without a chat template, or an effort that the template ignores.
        """
        self._tokenizer, self._name = tokenizer, tokenizer.name_or_path
        self._template: Any = template or tokenizer.chat_template
        if not isinstance(self._template, str):
            needs = "a chat template, so that the model knows who says what"
            raise SettingError("model", self._name, needs, "Use its version for chats (Instruct).")
        if "sanitize_control_tokens" not in inspect.signature(tokenizer.apply_chat_template).parameters:
            raise LensError(
                "The installed transformers would read control tokens in a user's text as such. Install the "
                "version of constraints.txt."
            )
        self._variables = _variables(self._template, effort, self._name)
        self.end_ids = sorted({*end_ids, *self._turn_end_ids()})

    def conversation_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return a conversation up to the place where the model answers."""
        try:
            return self._apply(messages)
        except TemplateError:
            # Some templates know no system texts.
            return self._apply(_with_system_in_user(messages))

    def reader(self, prompt_ids: Sequence[int]) -> "TurnReader":
        """Return a reader of the answer to a conversation."""
        return TurnReader(self._tokenizer, self.end_ids, prompt_ids)

    def _apply(self, messages: Sequence[Mapping[str, str]], *, is_open: bool = True) -> list[int]:
        ids: Any = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self._template,
            add_generation_prompt=is_open,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            **self._variables,
        )
        return list(ids)

    def _turn_end_ids(self) -> set[int]:
        """Return the tokens that end a turn of the assistant: the first control token after one, and EOS."""
        turn = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
        try:
            ids = self._apply(turn, is_open=False)
        except TemplateError as error:
            raise SettingError("model", self._name, f"a chat template that works ({error})") from error
        said = token_ids(self._tokenizer, "2")[-1]
        last = max((index for index, token in enumerate(ids) if token == said), default=len(ids))
        added = self._tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special}
        first = [token for token in ids[last:] if token in special][:1]
        eos = self._tokenizer.eos_token_id
        found = {*first, *([eos] if isinstance(eos, int) else [])}
        if not found:
            raise SettingError("model", self._name, "a token that ends an answer")
        return found


class TurnReader:
    """Reads the tokens of an answer one by one; what is in a thinking block is no part of it."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", end_ids: Sequence[int], prompt_ids: Sequence[int]
    ):
        self._tokenizer, self._end_ids = tokenizer, end_ids
        vocabulary = tokenizer.get_added_vocab()
        self._think, self._think_end = vocabulary.get(THINK), vocabulary.get(THINK_END)
        self.answer_ids: list[int] = []
        self.is_complete = False
        blocks = [token for token in prompt_ids if token in (self._think, self._think_end)]
        self._is_thinking = self._think is not None and blocks[-1:] == [self._think]

    @property
    def is_answering(self) -> bool:
        """Whether the next token belongs to the answer."""
        return not self._is_thinking and not self.is_complete

    def push(self, token: int) -> None:
        """Read a token."""
        if token in self._end_ids:
            self.is_complete = True
        elif token == self._think:
            self._is_thinking = True
        elif token == self._think_end:
            self._is_thinking = False
            self.answer_ids.clear()
        elif not self._is_thinking:
            self.answer_ids.append(token)

    def opening_ids(self) -> list[int]:
        """Return what makes the model answer now, whatever it was thinking."""
        if not self._is_thinking:
            return []
        return token_ids(self._tokenizer, f"\n{THINK_END}\n\n", control_tokens=True)


def _variables(template: str, effort: str | None, name: str) -> dict[str, Any]:
    """Return the variables of a chat template that set how long the model thinks."""
    if EFFORT_VARIABLE in template:
        return {EFFORT_VARIABLE: effort or "low", THINKING_VARIABLE: effort not in (None, "low")}
    if effort is not None and THINKING_VARIABLE not in template:
        needs = f"to be absent for {name}, whose chat template has no thinking"
        raise SettingError("effort", effort, needs)
    return {THINKING_VARIABLE: effort not in (None, "low")}


def _with_system_in_user(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return a conversation whose system texts stand at the beginning of its first user message."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    others = [dict(message) for message in messages if message["role"] != "system"]
    if system and others:
        others[0]["content"] = "\n\n".join([*system, others[0]["content"]])
    return others
