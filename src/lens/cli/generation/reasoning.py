"""Reasoning of `lens generate`: each distinct prompt is asked about once, before anything is drawn.

Prompts have their alternatives, wildcards and styles read, so the reasoner sees what would be drawn.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lens.cli.generation.reasoner_options import ReasonerOptions, as_options
from lens.cli.generation.resolve import PlannedImage, ResolvedRequest
from lens.core.prompt_text import SHOWN_CHARACTERS
from lens.errors import LensError, PromptRefusedError
from lens.files import cache_folder
from lens.nano.request_warnings import is_nano
from lens.reasoner.outcome import Reasoned, Reasoner
from lens.sampling.resolved_model import ResolvedModel

if TYPE_CHECKING:
    from lens.cli.generation.loading import GenerationSession
    from lens.cli.progress import ProgressBar

logger = logging.getLogger(__name__)

SessionKey = tuple[Any, ...]
SessionOf = Callable[[SessionKey], "GenerationSession"]
Answers = dict[tuple[SessionKey, str], Reasoned]


class ReasonedRequests(NamedTuple):
    """What is drawn of requests after a reasoner was asked."""

    requests: list[ResolvedRequest]
    """Those with an image to draw; an image whose prompt is refused is left out."""
    refused: list[Reasoned]
    """One for each distinct prompt that is refused."""
    num_asked: int = 0
    """Distinct prompts that were asked about."""

    def check(self, needs_all: bool) -> None:
        """Raise an error if nothing can be drawn, or not everything with `needs_all`; else tell refusals."""
        if self.refused and (needs_all or not self.requests):
            raise self.error()
        for one in self.refused:
            where = f" (category {one.category})" if one.category else ""
            logger.warning("%r is refused%s and not drawn.", one.original[:SHOWN_CHARACTERS], where)

    def error(self) -> LensError:
        """Return the error of the prompts that are refused."""
        if len(self.refused) == 1 and self.num_asked == 1:
            return _refusal(self.refused[0])
        categories = ", ".join(dict.fromkeys(one.category or "no category" for one in self.refused))
        count = f"{len(self.refused)} of {self.num_asked} prompts"
        return LensError(f"The reasoner refuses {count} ({categories}). They are not drawn.")


def reason_about(
    requests: Sequence[ResolvedRequest], session_of: SessionOf, progress: "ProgressBar"
) -> ReasonedRequests:
    """Return requests with what their reasoner made of their prompts; it tells what failed.

    `session_of` returns the session that draws requests, for a reasoner that is its text encoder.
    Raises: SettingError for a reasoner that cannot be used.
    """
    asking = [request for request in requests if request.arguments.asks_reasoner]
    firsts = {request.session_key: request for request in reversed(asking)}
    keys = dict.fromkeys(
        (request.session_key, image.prompt.prompt) for request in asking for image in request.images
    )
    answers: Answers = {}
    for session_key, first in firsts.items():  # one after the other: it may be a text encoder
        reasoner = load_reasoner(
            first.arguments.reasoner_options, first.model, partial(session_of, session_key), cache_folder()
        )
        for key in (key for key in keys if key[0] == session_key):
            progress("reasoning", len(answers), len(keys))
            answers[key] = reasoner(key[1])
            _tell(answers[key], is_alone=len(keys) == 1, is_shown=first.arguments.as_json)
    reasoned = [request._replace(images=_drawn_images(request, answers)) for request in requests]
    refused = [answer for answer in answers.values() if answer.outcome == "refused"]
    return ReasonedRequests([request for request in reasoned if request.images], refused, len(keys))


def _drawn_images(request: ResolvedRequest, answers: Answers) -> list[PlannedImage]:
    if not request.arguments.asks_reasoner:
        return request.images
    images = []
    for image in request.images:
        answer = answers[request.session_key, image.prompt.prompt]
        if answer.outcome != "refused":
            prompt = image.prompt._replace(prompt=answer.prompt)
            images.append(image._replace(prompt=prompt, reasoned=answer))
    return images


def _tell(answer: Reasoned, is_alone: bool, is_shown: bool) -> None:
    """Log what failed, and what is drawn unless results show it; why, where the reasoner says so."""
    which = "" if is_alone else f"{answer.original[:SHOWN_CHARACTERS]!r}: "
    if answer.warning is not None:
        logger.warning("%s%s", which, answer.warning)
        return
    if answer.outcome == "refined" and not is_shown:
        logger.info("%sIt is drawn as: %s", which, answer.prompt)
    if answer.outcome != "refused" and answer.reason:
        logger.info("%sThe prompt is %s: %s", which, answer.outcome, answer.reason)


def _refusal(answer: Reasoned) -> PromptRefusedError:
    return PromptRefusedError(answer.category, answer.reason, is_unavailable=answer.is_unavailable)


def load_reasoner(
    options: ReasonerOptions,
    model: ResolvedModel,
    session_of: "Callable[[], GenerationSession]",
    cache_dir: Path | None,
) -> Reasoner:
    """Return the reasoner of options for the prompts of a model, whose session has its text encoder.

    Answers are kept in `cache_dir`; None keeps none.
    Raises: SettingError for a reasoner that cannot be used.
    """
    from lens.models.prompt_template import PromptTemplate
    from lens.reasoner.factory import build_reasoner
    from lens.sampling.loader import load_tokenizer_of

    settings = options.settings("nano" if is_nano(model.variant) else "gpt-oss")
    if settings.backend == "nano" and not is_nano(model.variant):
        logger.warning("The rules of nano leave out what lens-nano does not know; %s knows more.", model.name)
    policy = options.refusal_policy()
    tokenizer = load_tokenizer_of(model)
    template = PromptTemplate(tokenizer, model.prompt_date)
    room = min(settings.max_prompt_tokens, template.count_tokens("").room)
    settings = settings.model_copy(update={"max_prompt_tokens": room})
    text_encoder = session_of().text_encoder if settings.backend == "gpt-oss" else None
    with as_options():
        return build_reasoner(
            settings,
            categories=policy.categories,
            when_down=policy.when_down,
            count_tokens=lambda text: template.count_tokens(text).num_tokens,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            cache_dir=cache_dir,
        )
