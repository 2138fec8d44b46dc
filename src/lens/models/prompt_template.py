"""The prompt template: a fixed conversation around each prompt, and the text features of prompts.

Lens reads its prompt inside a fixed GPT-OSS ("harmony") conversation. The fixed strings must match those of
training byte for byte: tokens before the prompt are dropped, but the kept ones attend to them. It does not
depend on a chat-template engine or on the current date. Spec: section 4.
Letters: B prompts, T tokens from the prompt's first one on, P tokens of the preamble.
"""

import json
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lens.core.prompt_text import SHOWN_CHARACTERS, TokenCount
from lens.errors import NonFiniteError, SettingError
from lens.models.prompt_date import PINNED_DATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lens.models.hidden_states import HiddenStateExtractor

logger = logging.getLogger(__name__)

DEVELOPER_INSTRUCTIONS = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background."
)
THINKING = "Need to generate one image according to the description."

SYSTEM_MESSAGE = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: {date}\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
)
DEVELOPER_OPEN, DEVELOPER_CLOSE = "<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"
USER_OPEN, CLOSE = "<|start|>user<|message|>", "<|end|>"
ANALYSIS_OPEN = "<|start|>assistant<|channel|>analysis<|message|>"
FINAL_OPEN = "<|start|>assistant<|channel|>final<|message|>"

PREAMBLE = SYSTEM_MESSAGE + DEVELOPER_OPEN + DEVELOPER_INSTRUCTIONS + DEVELOPER_CLOSE + USER_OPEN
"""The text before the prompt, with a field for the date."""
SCAFFOLD = CLOSE + ANALYSIS_OPEN + THINKING + CLOSE + FINAL_OPEN
"""The text after the prompt."""
HARMONY_CONTROL_TOKENS = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>")
"""The control tokens of the preamble and the scaffold."""


class ChatFormat(NamedTuple):
    """The text around a prompt, in the chat format of a language model."""

    preamble: str
    """The text before the prompt, with a field for the date."""
    scaffold: str
    """The text after the prompt."""
    control_tokens: tuple[str, ...]


HARMONY = ChatFormat(PREAMBLE, SCAFFOLD, HARMONY_CONTROL_TOKENS)
CHATML = ChatFormat(
    f"<|im_start|>system\n{DEVELOPER_INSTRUCTIONS}<|im_end|>\n<|im_start|>user\n",
    f"<|im_end|>\n<|im_start|>assistant\n<think>\n{THINKING}\n</think>\n\n",
    ("<|im_start|>", "<|im_end|>"),
)
"""The same conversation for Qwen3, by its own chat template."""


class TokenizedPrompts(NamedTuple):
    """Token ids of whole conversations, padded on the right."""

    input_ids: Tensor
    """(B, P+T) token ids."""
    attention_mask: Tensor
    """(B, P+T) integers, 1 = real token."""
    num_preamble_tokens: int
    """P, the number of tokens before the prompt; the same for every prompt."""


class PromptTemplate:
    """Tokenizes prompts inside the conversation that the denoiser was trained on."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", date: str = PINNED_DATE):
        self.tokenizer = tokenizer
        self.date = date
        self._format = CHATML if all(map(self._is_control, CHATML.control_tokens)) else HARMONY
        for token in self._format.control_tokens:
            if not self._is_control(token):
                raise SettingError(
                    "tokenizer", type(tokenizer).__name__, f"{token} as one of its control tokens"
                )
        # The preamble ends and the scaffold begins with a control token, so the ids of the three parts are
        # the ids of the whole text.
        self.preamble_ids = self._ids(self._format.preamble.format(date=date))
        self.scaffold_ids = self._ids(self._format.scaffold)

    def render(self, prompt: str) -> str:
        """Return the conversation as text, to be read: control tokens inside the prompt are not escaped."""
        return self._format.preamble.format(date=self.date) + prompt + self._format.scaffold

    def tokenize(self, prompts: Sequence[str], max_sequence_length: int = 512) -> TokenizedPrompts:
        """Return padded conversations; a prompt that does not fit into the length is truncated.

        Raises: SettingError where the length leaves no room for a prompt.
        """
        room = self._room(max_sequence_length)
        rows = [self.preamble_ids + self._prompt_ids(prompt, room) + self.scaffold_ids for prompt in prompts]
        length = max(map(len, rows), default=0)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], dtype=torch.long)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], dtype=torch.long)
        return TokenizedPrompts(ids, mask, len(self.preamble_ids))

    def count_tokens(self, prompt: str, max_sequence_length: int = 512) -> TokenCount:
        """Return the number of a prompt's tokens, and how many of them are read.

        Raises: SettingError where the length leaves no room for a prompt.
        """
        return self._count(self._ids(prompt, control_tokens=False), self._room(max_sequence_length))

    def _room(self, max_sequence_length: int) -> int:
        num_fixed = len(self.preamble_ids) + len(self.scaffold_ids)
        if max_sequence_length <= num_fixed:
            raise SettingError("max_sequence_length", max_sequence_length, f"more than {num_fixed} tokens")
        return max_sequence_length - num_fixed

    def _count(self, ids: list[int], room: int) -> TokenCount:
        dropped = str(self.tokenizer.decode(ids[room : room + SHOWN_CHARACTERS]))[:SHOWN_CHARACTERS]
        return TokenCount(len(ids), room, dropped)

    def _prompt_ids(self, prompt: str, room: int) -> list[int]:
        ids = self._ids(prompt, control_tokens=False)
        if warning := self._count(ids, room).warning():
            _log_once(warning)
        return ids[:room]

    def _is_control(self, token: str) -> bool:
        return self.tokenizer.convert_ids_to_tokens(self._ids(token)) == [token]

    def _ids(self, text: str, control_tokens: bool = True) -> list[int]:
        return token_ids(self.tokenizer, text, control_tokens=control_tokens)


def token_ids(
    tokenizer: "PreTrainedTokenizerFast", text: str, *, control_tokens: bool = False
) -> list[int]:
    """Return the tokens of a text; its control tokens are split into ordinary ones unless it may have some.

    In a text of a user they could end the message.
    """
    return tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=not control_tokens,
        return_attention_mask=False,
        verbose=False,  # a long prompt is told by `_log_once`
    )["input_ids"]


@lru_cache(maxsize=1024)  # a prompt is tokenized for its cache key, and to be encoded, but told once
def _log_once(warning: str) -> None:
    logger.warning(warning)


def encode_prompts(
    encoder: "HiddenStateExtractor",
    tokenizer: "PreTrainedTokenizerFast",
    prompts: Sequence[str],
    layers: Sequence[int],
    max_sequence_length: int = 512,
    *,
    batch_size: int = 1,
    date: str = PINNED_DATE,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Return the text features of prompts, from each prompt's first token on, and their mask.

    Each distinct prompt is encoded once. With a batch size of 1 its features do not depend on the other
    prompts, to the bit. T is the longest of the batch; features after the end of a prompt are zero.
    `on_progress` is called with (prompts done, prompts in all); an exception of it stops the work.

    Shapes: one (B, T, hidden) a layer, and a bool mask (B, T), True = real token.
    """
    distinct = list(dict.fromkeys(prompts))
    rows = encode_rows(
        encoder, tokenizer, distinct, layers, max_sequence_length,
        batch_size=batch_size, date=date, on_progress=on_progress,
    )  # fmt: skip
    features_of = dict(zip(distinct, rows, strict=True))
    return pad_features([features_of[prompt] for prompt in prompts])


def encode_rows(
    encoder: "HiddenStateExtractor",
    tokenizer: "PreTrainedTokenizerFast",
    prompts: Sequence[str],
    layers: Sequence[int],
    max_sequence_length: int = 512,
    *,
    batch_size: int = 1,
    date: str = PINNED_DATE,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Tensor]]:
    """Return the text features of each prompt by itself, as `encode_prompts` without padding.

    Through an encoder whose blocks are streamed or packed, the prompts go block by block together, and
    `on_progress` counts blocks instead of prompts.

    Shapes: for each prompt, one (T, hidden) a layer.
    Raises: NonFiniteError where the encoder overflows.
    """
    template = PromptTemplate(tokenizer, date)
    if batch_size == 1 and encoder.shares_blocks:
        tokens = [template.tokenize([prompt], max_sequence_length) for prompt in prompts]
        rows = encoder.text_features_of_sequences([one.input_ids[0] for one in tokens], layers, on_progress)
        start = len(template.preamble_ids)
        return [_check_finite([layer[start:] for layer in row]) for row in rows]
    encoded: list[list[Tensor]] = []
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        batch = template.tokenize(some, max_sequence_length)
        captured = encoder.text_features(
            batch.input_ids, batch.attention_mask, layers
        )  # each (b, P+T, hidden)
        for row in range(len(some)):
            stop = int(batch.attention_mask[row].sum())
            features = [feature[row, batch.num_preamble_tokens : stop] for feature in captured]
            encoded.append(_check_finite(features))
        if on_progress is not None:
            on_progress(len(encoded), len(prompts))
    return encoded


class PromptEncoder:
    """Encodes prompts one at a time, with the keys and values of the preamble computed once.

    The features equal those of `encode_prompts` up to rounding, as sums are split differently.
    """

    def __init__(
        self,
        encoder: "HiddenStateExtractor",
        tokenizer: "PreTrainedTokenizerFast",
        layers: Sequence[int],
        max_sequence_length: int = 512,
        date: str = PINNED_DATE,
    ):
        self._encoder, self._layers, self._max_length = encoder, layers, max_sequence_length
        self._template = PromptTemplate(tokenizer, date)
        self._preamble_cache = encoder.prefill(torch.tensor([self._template.preamble_ids]), layers)

    def encode(self, prompt: str) -> list[Tensor]:
        """Return the text features of a prompt, from its first token on.

        Shapes: one (T, hidden) a layer.
        Raises: NonFiniteError where the encoder overflows.
        """
        tokens = self._template.tokenize([prompt], self._max_length)
        ids = tokens.input_ids[:, tokens.num_preamble_tokens :]  # (1, T)
        features = self._encoder.text_features(ids, None, self._layers, self._preamble_cache)
        return _check_finite([layer[0] for layer in features])


def _check_finite(features: list[Tensor]) -> list[Tensor]:
    for layer in features:
        if not bool(torch.isfinite(layer).all()):
            dtype = str(layer.dtype).removeprefix("torch.")
            raise NonFiniteError(
                f"The text features of the prompt are not finite. The text encoder overflowed in {dtype}, or "
                "its weights are damaged: compute in bfloat16 or float32, or check its files."
            )
    return features


def pad_features(rows: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], Tensor]:
    """Return the features of several prompts as one batch, padded with zeros on the right, and their mask.

    Shapes: B rows of one (T_row, hidden) a layer -> one (B, T, hidden) a layer, mask (B, T), T the longest.
    """
    lengths = torch.tensor([row[0].shape[0] for row in rows])  # (B,)
    longest = int(lengths.max())
    batch = [torch.stack([_pad_right(one, longest) for one in layer]) for layer in zip(*rows, strict=True)]
    return batch, (torch.arange(longest) < lengths[:, None]).to(batch[0].device)


def _pad_right(feature: Tensor, length: int) -> Tensor:
    return functional.pad(feature, (0, 0, 0, length - feature.shape[0]))  # (T, hidden)


def empty_prompt_embeds(like: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return the embeds of no text: zero features in the shapes of `like`, and a mask that is all False.

    Shapes: one (B, T, hidden) a layer -> the same, and a bool mask (B, T).
    """
    return [torch.zeros_like(one) for one in like], torch.zeros(
        like[0].shape[:2], dtype=torch.bool, device=like[0].device
    )


def conversation(prompt: str) -> list[dict[str, str]]:
    """Return a prompt's messages for a chat template; cut the rendered text at the first `<|return|>`."""
    return [
        {"role": "system", "content": DEVELOPER_INSTRUCTIONS},
        {"role": "user", "content": prompt},
        {"role": "assistant", "thinking": THINKING, "content": ""},
    ]


def chat_template(date: str = PINNED_DATE) -> str:
    """Return a chat template (Jinja) that renders `conversation` to the strings of this module."""
    head, tail = (json.dumps(part) for part in SYSTEM_MESSAGE.split("{date}"))
    text = {name: json.dumps(value) for name, value in (
        ("developer", DEVELOPER_OPEN), ("instructed", DEVELOPER_CLOSE), ("user", USER_OPEN), ("close", CLOSE),
        ("analysis", ANALYSIS_OPEN), ("final", FINAL_OPEN),
    )}  # fmt: skip
    lines = (
        f"{{{{- {head} ~ (date or {json.dumps(date)}) ~ {tail} -}}}}",
        "{%- for message in messages -%}",
        '{%- if message.role == "system" or message.role == "developer" -%}',
        f"{{{{- {text['developer']} ~ message.content ~ {text['instructed']} -}}}}",
        '{%- elif message.role == "user" -%}',
        f"{{{{- {text['user']} ~ message.content ~ {text['close']} -}}}}",
        '{%- elif message.role == "assistant" -%}',
        "{%- if message.thinking -%}",
        f"{{{{- {text['analysis']} ~ message.thinking ~ {text['close']} -}}}}",
        "{%- endif -%}",
        f"{{{{- {text['final']} ~ message.content -}}}}",
        f'{{{{- "<|return|>" if loop.last else {text["close"]} -}}}}',
        "{%- endif -%}",
        "{%- endfor -%}",
        '{%- if add_generation_prompt -%}{{- "<|start|>assistant" -}}{%- endif -%}',
    )
    return "\n".join(lines) + "\n"
