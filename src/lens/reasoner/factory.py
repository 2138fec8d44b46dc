"""Builds the reasoner that settings describe; each backend is imported only where it is chosen."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lens.errors import SettingError
from lens.reasoner.language_model import LanguageModel
from lens.reasoner.outcome import Reasoner
from lens.reasoner.refusal import RefusalCategory
from lens.reasoner.settings import ReasonerSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CACHE_FILE = "reasoner.jsonl"


def build_reasoner(
    settings: ReasonerSettings,
    *,
    categories: Sequence[RefusalCategory],
    count_tokens: Callable[[str], int],
    when_down: Literal["refuse", "allow"] = "refuse",
    text_encoder: Any = None,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    cache_dir: Path | None = None,
) -> Reasoner:
    """Return a reasoner; threads may share it.

    `categories` and `when_down` come from the operator's policy file. `count_tokens` returns the tokens of a
    prompt by the tokenizer of the model that draws. `text_encoder` and `tokenizer` are those of the pipeline,
    for the backend gpt-oss. Answers are kept in `cache_dir`; None keeps none.
    Raises: SettingError.
    """
    if settings.backend == "nano":
        from lens.reasoner.nano_rules import NanoReasoner

        return NanoReasoner()
    from lens.reasoner.rewriter import RewritingReasoner

    return RewritingReasoner(
        build_language_model(settings, text_encoder=text_encoder, tokenizer=tokenizer),
        settings,
        categories=categories,
        count_tokens=count_tokens,
        when_down=when_down,
        cache_file=cache_dir / CACHE_FILE if cache_dir else None,
    )


def build_language_model(
    settings: ReasonerSettings,
    *,
    text_encoder: Any = None,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
) -> LanguageModel:
    """Return the language model of settings whose backend has one. Raises: SettingError."""
    if settings.backend == "endpoint":
        from lens.reasoner.endpoint_model import EndpointModel

        assert settings.endpoint is not None
        return EndpointModel(settings.endpoint, effort=settings.effort)
    if settings.backend == "transformers":
        from lens.reasoner.transformers_model import TransformersModel

        assert settings.model is not None
        return TransformersModel(settings.model, effort=settings.effort)
    if settings.backend == "gpt-oss":
        from lens.reasoner.gpt_oss_model import GptOssModel

        if text_encoder is None or tokenizer is None:
            needs = "a pipeline with a GPT-OSS text encoder"
            raise SettingError("reasoner.backend", settings.backend, needs, "Or choose another backend.")
        return GptOssModel(text_encoder, tokenizer, effort=settings.effort or "low")
    raise SettingError("reasoner.backend", settings.backend, "one with a language model")
