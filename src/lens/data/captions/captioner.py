"""Captions of samples: asked for, audited, asked for again, and every answer kept.

Answers lie in one file that only grows, so a build that was stopped, or whose endpoint died, goes on where it
was; an audit that was changed reads them again without asking. Knows nothing of views or shards.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from lens.data.captions.prompts import CAPTION_PROMPTS, CaptionKind, CaptionPrompt
from lens.data.captions.settings import (
    AnyCaptionerSettings,
    EndpointCaptionerSettings,
    ModelCaptionerSettings,
    SidecarCaptionerSettings,
    TransformersCaptionerSettings,
    VllmCaptionerSettings,
)
from lens.data.captions.validation import CaptionRules, caption_error
from lens.data.io.image_decoding import decode_image
from lens.errors import LensError
from lens.llm.client import ChatClient, ChatError, ChatResponse, image_part, text_part
from lens.llm.response_cache import ResponseCache, response_key

BRIEF_RULES = CaptionRules.of({"min_words": 2, "max_words": 40, "min_text_recall": 0.0})
REJECTED_REQUEST_STATUSES = (400, 413, 415, 422)
"""Statuses that say that one request cannot be answered, not that none can."""


class CaptionResult(NamedTuple):
    """What captioning a sample came to."""

    dense: str = ""
    brief: str = ""
    error: str = ""
    """What was wrong with the last caption that was tried; empty for usable ones."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class CaptionInput(NamedTuple):
    """What is captioned."""

    id: str
    sidecar: str
    ocr_words: Sequence[str]
    read: Callable[[], bytes]
    """Returns the picture's bytes; called only when a model has to see it."""


class CaptionRequest(NamedTuple):
    """One caption of one sample that a model has to write."""

    key: str
    sample: CaptionInput
    kind: CaptionKind
    attempt: int


BatchCaptionFunction = Callable[
    [ModelCaptionerSettings, Collection[CaptionRequest]], Iterator[tuple[str, ChatResponse | ChatError]]
]
"""Whatever answers many questions at once, in any order; it returns their keys with the answers."""


class CaptionBackend(Protocol):
    """Whatever answers a wording about a picture."""

    name: str
    """Of the model, for the key of its answers."""

    def ask(self, image_bytes: bytes, prompt: CaptionPrompt, temperature: float, seed: int) -> ChatResponse:
        """Return the answer about a JPEG. Raises: ChatError."""
        ...


class IncompleteCaptionsError(LensError):
    """Samples that have no caption yet: the same build goes on with them."""


def caption_samples(
    settings: AnyCaptionerSettings,
    samples: Iterable[CaptionInput],
    folder: Path,
    on_caption: Callable[[int], None] = lambda done: None,
    backend: CaptionBackend | None = None,
    caption_batch: BatchCaptionFunction | None = None,
) -> dict[str, CaptionResult]:
    """Return what came of every sample, by id.

    `asker` or `reply_all` takes the place of what the settings name.

    Raises: Unanswered when a model did not answer for some of them; every answer that came is kept.
    """
    if isinstance(settings, SidecarCaptionerSettings):
        missing = "missing" if settings.requires else ""
        return {one.id: CaptionResult(one.sidecar, error="" if one.sidecar else missing) for one in samples}
    cache = ResponseCache(folder / "answers.jsonl")
    try:
        captioned, errors = {}, []
        if isinstance(settings, VllmCaptionerSettings):
            results = _caption_in_rounds(settings, samples, cache, caption_batch or _vllm_responses)
        else:
            results = _caption_in_threads(settings, samples, cache, backend or create_backend(settings))
        for done, (name, result) in enumerate(results, 1):
            if isinstance(result, ChatError):
                errors.append(result)
            else:
                captioned[name] = result
            on_caption(done)
    finally:
        cache.close()
    if errors:
        kept = f"{len(captioned)} samples have captions, {len(errors)} or more have none yet."
        raise IncompleteCaptionsError(
            f"{kept} The last error: {errors[-1]} Run the same command again to go on."
        )
    return captioned


def caption_costs(settings: AnyCaptionerSettings, captioned: Iterable[CaptionResult]) -> dict[str, float]:
    """Return the tokens of all answers, those that failed too, and what they cost where prices are known."""
    counts = np.array([(0, 0), *((one.prompt_tokens, one.completion_tokens) for one in captioned)])  # (N, 2)
    prompt, completion = counts.sum(axis=0).tolist()
    costs: dict[str, float] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if isinstance(settings, EndpointCaptionerSettings) and settings.price_of_million_tokens:
        asked, written = settings.price_of_million_tokens
        costs["cost"] = round((asked * prompt + written * completion) / 1e6, 6)
    return costs


def create_backend(settings: ModelCaptionerSettings) -> CaptionBackend:
    """Return what answers by the settings."""
    if isinstance(settings, EndpointCaptionerSettings):
        return EndpointBackend(ChatClient(settings.endpoint))
    assert isinstance(settings, TransformersCaptionerSettings)
    from lens.data.captions.transformers_backend import TransformersBackend

    return TransformersBackend(settings.model, settings.device)


class EndpointBackend:
    """Asks a chat endpoint."""

    def __init__(self, chat: ChatClient):
        self._chat = chat
        self.name = chat.endpoint.model

    def ask(self, image_bytes: bytes, prompt: CaptionPrompt, temperature: float, seed: int) -> ChatResponse:
        content = [text_part(prompt.user), image_part(image_bytes, "image/jpeg")]
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
        return self._chat.complete(messages, max_tokens=prompt.max_tokens, temperature=temperature, seed=seed)


def encode_for_model(content: bytes, side_px: int) -> bytes:
    """Return a picture as a model sees it: a JPEG whose longer side is at most side_px."""
    image = decode_image(content).image
    image.thumbnail((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _caption_in_threads(
    settings: ModelCaptionerSettings,
    samples: Iterable[CaptionInput],
    cache: ResponseCache,
    backend: CaptionBackend,
) -> Iterator[tuple[str, CaptionResult | ChatError]]:
    """Yield what came of each sample as soon as it did; few wait at a time, whatever their number."""
    at_once = settings.concurrency if isinstance(settings, EndpointCaptionerSettings) else 1
    patience = settings.give_up_after if isinstance(settings, EndpointCaptionerSettings) else 1
    in_a_row = 0
    with ThreadPoolExecutor(at_once) as pool:
        waiting: dict[Future[CaptionResult], str] = {}
        left = iter(samples)
        while True:
            while len(waiting) < 2 * at_once and in_a_row < patience and (one := next(left, None)):
                ask = _BackendCall(settings, one, backend)
                waiting[pool.submit(_caption_sample, settings, one, cache, backend.name, ask)] = one.id
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                name = waiting.pop(future)
                try:
                    result: CaptionResult | ChatError = future.result()
                    in_a_row = 0
                except ChatError as error:
                    result, in_a_row = error, in_a_row + 1
                yield name, result


def _caption_in_rounds(
    settings: VllmCaptionerSettings,
    samples: Iterable[CaptionInput],
    cache: ResponseCache,
    caption_batch: BatchCaptionFunction,
) -> Iterator[tuple[str, CaptionResult | ChatError]]:
    """Yield what came of each sample; all that have a question open are asked together, round by round."""

    def advance(sample: CaptionInput) -> CaptionResult | CaptionRequest:
        try:
            return _caption_sample(settings, sample, cache, settings.model, _defer)
        except _PendingRequest as left:
            return left.request

    def run_round(
        open_ones: dict[str, CaptionRequest],
    ) -> Iterator[tuple[CaptionInput, CaptionResult | CaptionRequest | ChatError]]:
        for key, reply in caption_batch(settings, list(open_ones.values())):
            sample = open_ones.pop(key).sample
            if isinstance(reply, ChatError):
                yield sample, reply
            else:
                cache.put(key, reply._asdict())
                yield sample, advance(sample)
        for question in open_ones.values():
            yield question.sample, ChatError("The engine ended without an answer.", is_final=False)

    results: Iterator[tuple[CaptionInput, CaptionResult | CaptionRequest | ChatError]]
    results = ((sample, advance(sample)) for sample in samples)
    while True:
        asked: dict[str, CaptionRequest] = {}
        for sample, result in results:
            if isinstance(result, CaptionRequest):
                asked[result.key] = result
            else:
                yield sample.id, result
        if not asked:
            return
        results = run_round(asked)


def _vllm_responses(
    settings: ModelCaptionerSettings, questions: Collection[CaptionRequest]
) -> Iterator[tuple[str, ChatResponse | ChatError]]:
    from lens.data.captions.vllm_backend import vllm_responses

    assert isinstance(settings, VllmCaptionerSettings)
    return vllm_responses(settings, questions)


class _PendingRequest(Exception):
    """A question that is answered in the next round."""

    def __init__(self, request: CaptionRequest):
        super().__init__(request.key)
        self.request = request


def _defer(question: CaptionRequest) -> dict[str, Any]:
    raise _PendingRequest(question)


class _BackendCall:
    """Asks at once, and reads and reduces a sample's picture once for all questions about it."""

    def __init__(self, settings: ModelCaptionerSettings, sample: CaptionInput, backend: CaptionBackend):
        self._settings, self._sample, self._backend = settings, sample, backend
        self._image_bytes: bytes | None = None

    def __call__(self, question: CaptionRequest) -> dict[str, Any]:
        self._image_bytes = self._image_bytes or encode_for_model(self._sample.read(), self._settings.side_px)
        wording, temperature = CAPTION_PROMPTS[question.kind], self._settings.temperature
        try:
            return self._backend.ask(self._image_bytes, wording, temperature, question.attempt)._asdict()
        except ChatError as error:
            if error.status not in REJECTED_REQUEST_STATUSES:
                raise
            # Kept as an answer: this picture would be turned down again.
            refused = ChatResponse(
                str(error), is_refused=True, is_cut=False, prompt_tokens=0, completion_tokens=0
            )
            return refused._asdict()


def _caption_sample(
    settings: ModelCaptionerSettings,
    sample: CaptionInput,
    cache: ResponseCache,
    model: str,
    ask: Callable[[CaptionRequest], dict[str, Any]],
) -> CaptionResult:
    texts: dict[CaptionKind, str] = {}
    tokens = [0, 0]
    for kind in settings.kinds:
        rules = settings.audit if kind == "dense" else BRIEF_RULES
        reason: str | None = None
        for attempt in range(settings.max_tries):
            sampling = {"temperature": settings.temperature, "side_px": settings.side_px}
            key = response_key(sample.id, CAPTION_PROMPTS[kind].version, model, sampling, attempt)
            answer = cache.get(key)
            if answer is None:
                answer = ask(CaptionRequest(key, sample, kind, attempt))
                cache.put(key, answer)
            tokens = [tokens[0] + answer["prompt_tokens"], tokens[1] + answer["completion_tokens"]]
            reason = _response_error(answer, rules, sample.ocr_words)
            if reason is None:
                texts[kind] = answer["text"].strip()
                break
        if reason is not None:
            return CaptionResult(error=reason, prompt_tokens=tokens[0], completion_tokens=tokens[1])
    return CaptionResult(texts.get("dense", ""), texts.get("brief", ""), "", *tokens)


def _response_error(answer: Mapping[str, Any], rules: CaptionRules, ocr_words: Sequence[str]) -> str | None:
    if answer["is_refused"]:
        return "refusal"
    return caption_error(answer["text"], rules, ocr_words, answer["is_cut"])
