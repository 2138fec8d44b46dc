"""GPT-OSS as the reasoner: the text encoder of a pipeline, on the weights that are loaded already.

It works with packed weights, and block by block where the encoder is larger than the memory; each token then
reads every block once. Qwen3, the text encoder of the 1.2B model, answers in its own conversation.
"""

from typing import TYPE_CHECKING, Any

from lens.errors import SettingError
from lens.models.prompt_date import PINNED_DATE
from lens.reasoner.local_model import LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lens.models.chat.harmony import HarmonyFormat
    from lens.models.chat.templates import TemplateFormat

OTHER_BACKENDS = "Choose the backend endpoint or transformers"
LAYERS_OF_EXPERTS = {32: 24, 128: 36}
"""Blocks of GPT-OSS 20B and 120B, by their number of experts."""
RELEASED_WIDTH = 2880
LEAST_CONTEXT_TOKENS = 2048
"""A system prompt, a request, some thinking and an answer take about as much; lens-nano reads 1024."""


class GptOssModel(LocalModel):
    """The text encoder of a pipeline as a chat model."""

    def __init__(
        self,
        text_encoder: Any,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        date: str = PINNED_DATE,
        effort: str = "low",
        temperature: float = 0.7,
        name: str | None = None,
    ):
        """Take the text encoder and its tokenizer; nothing is loaded or copied.

        The conversation contains the date, so that a request has the same answer on another day.
        Raises: SettingError for a text encoder that cannot chat.
        """
        check_can_chat(text_encoder, tokenizer)
        chat_format = _format_of(text_encoder, tokenizer, date, effort)
        model = name or str(text_encoder.config.model_type).replace("_", "-")
        described = f"{model} (effort {effort}, temperature {temperature:g}, date {date})"
        super().__init__(text_encoder, tokenizer, chat_format, name=described, temperature=temperature)


def check_can_chat(text_encoder: Any, tokenizer: "PreTrainedTokenizerFast") -> None:
    """Raise a SettingError for a text encoder that encodes prompts but cannot answer."""
    from lens.models.checkpoints.text_encoder import MissingLMHead
    from lens.models.hidden_states import HiddenStateExtractor
    from lens.models.prompt_template import token_ids

    kind = type(text_encoder).__name__
    needs = "GPT-OSS or Qwen3 with all its weights, to reason with"
    if not isinstance(text_encoder, HiddenStateExtractor):
        raise SettingError("text_encoder", kind, needs, f"{OTHER_BACKENDS}.")
    config: Any = getattr(text_encoder, "config", None)
    context = getattr(config, "max_position_embeddings", 0)
    if context < LEAST_CONTEXT_TOKENS or str(tokenizer.decode(token_ids(tokenizer, "Aa"))) != "Aa":
        fix = f"The one of lens-nano knows only the words of its small world. {OTHER_BACKENDS}, or nano."
        raise SettingError("text_encoder", f"{kind} with {config.vocab_size} tokens", needs, fix)
    if isinstance(text_encoder.lm_head, MissingLMHead):
        fix = f"The text encoder of a model folder has one. {OTHER_BACKENDS} otherwise."
        source = str(text_encoder.lm_head.source)
        raise SettingError("text_encoder", source, "an LM head, to reason with", fix)
    expected = LAYERS_OF_EXPERTS.get(getattr(config, "num_local_experts", 0))
    is_released = config.hidden_size == RELEASED_WIDTH and expected is not None
    if is_released and len(text_encoder.model.layers) != expected:
        fix = f"Load a file with all of them. {OTHER_BACKENDS} otherwise."
        got = f"{kind} with {len(text_encoder.model.layers)} blocks"
        raise SettingError("text_encoder", got, f"all {expected} blocks, to reason with", fix)


def _format_of(
    text_encoder: Any, tokenizer: "PreTrainedTokenizerFast", date: str, effort: str
) -> "HarmonyFormat | TemplateFormat":
    from lens.models.chat.harmony import HarmonyFormat
    from lens.models.chat.templates import CHATML_TEMPLATE, TemplateFormat

    if text_encoder.config.model_type == "gpt_oss":
        return HarmonyFormat(tokenizer, date, effort)
    if effort != "low":
        raise SettingError("effort", effort, "low: as a text encoder, Qwen3 answers without thinking")
    return TemplateFormat(tokenizer, template=CHATML_TEMPLATE)
