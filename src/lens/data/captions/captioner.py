"""The captioner: asks a model for captions, checks them, and asks again for those that fail.

Every response is kept in one append-only file. A build that was stopped, or whose endpoint failed, resumes
from it. After a change of the rules the responses are checked again without asking. Knows nothing of views.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lens.data.captions.prompts import CAPTION_PROMPTS, CaptionKind, CaptionPrompt
from lens.data.captions.requests import CaptionInput, CaptionRequest, CaptionResult, encode_for_model
from lens.data.captions.settings import (
    AnyCaptionerSettings,
    EndpointCaptionerSettings,
    ModelCaptionerSettings,
    SidecarCaptionerSettings,
    TransformersCaptionerSettings,
    VllmCaptionerSettings,
)
from lens.data.captions.validation import CaptionRules, caption_error
from lens.errors import LensError
from lens.llm.client import (
    REJECTED_REQUEST_STATUSES,
    ChatClient,
    ChatError,
    ChatResponse,
    image_part,
    text_part,
)
from lens.llm.response_cache import ResponseCache, response_key

BRIEF_RULES = CaptionRules.of({"min_words": 2, "max_words": 40, "min_text_recall": 0.0})
BatchCaptionFunction = Callable[
    [ModelCaptionerSettings, Collection[CaptionRequest]], Iterator[tuple[str, ChatResponse | ChatError]]
]
"""Answers many requests at once, in any order; yields the key of a request with its response."""


class CaptionBackend(Protocol):
    """A model that answers a prompt about an image."""

    name: str
    """Of the model; part of the key of its responses."""

    def ask(self, image_bytes: bytes, prompt: CaptionPrompt, temperature: float, seed: int) -> ChatResponse:
        """Return the response to a prompt about a JPEG. Raises: ChatError."""
        ...


class IncompleteCaptionsError(LensError):
    """Some samples have no caption yet; the same build resumes with them."""


def caption_samples(
    settings: AnyCaptionerSettings,
    samples: Iterable[CaptionInput],
    folder: Path,
    on_caption: Callable[[int], None] = lambda done: None,
    backend: CaptionBackend | None = None,
    caption_batch: BatchCaptionFunction | None = None,
) -> dict[str, CaptionResult]:
    """Return the result of every sample, by id; `backend` or `caption_batch` overrides that of the settings.

    Raises: IncompleteCaptionsError where a model did not answer for some samples; all responses are kept.
    """
    if isinstance(settings, SidecarCaptionerSettings):
        missing = "missing" if settings.requires else ""
        return {
            one.id: CaptionResult(one.sidecar, one.brief, "" if one.sidecar else missing) for one in samples
        }
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
            f"{kept} The last error: {errors[-1]} Run the same command again to resume."
        )
    return captioned


def caption_costs(settings: AnyCaptionerSettings, captioned: Iterable[CaptionResult]) -> dict[str, float]:
    """Return the tokens of all responses, failed ones included, and their cost where prices are known."""
    counts = np.array([(0, 0), *((one.prompt_tokens, one.completion_tokens) for one in captioned)])  # (N, 2)
    prompt, completion = counts.sum(axis=0).tolist()
    costs: dict[str, float] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if isinstance(settings, EndpointCaptionerSettings) and settings.price_of_million_tokens:
        prompt_price, completion_price = settings.price_of_million_tokens
        costs["cost"] = round((prompt_price * prompt + completion_price * completion) / 1e6, 6)
    return costs


def create_backend(settings: ModelCaptionerSettings) -> CaptionBackend:
    """Return the backend that the settings name."""
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
        """Return the endpoint's response to a prompt about a JPEG. Raises: ChatError."""
        content = [text_part(prompt.user), image_part(image_bytes, "image/jpeg")]
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
        return self._chat.complete(messages, max_tokens=prompt.max_tokens, temperature=temperature, seed=seed)


def _caption_in_threads(
    settings: ModelCaptionerSettings,
    samples: Iterable[CaptionInput],
    cache: ResponseCache,
    backend: CaptionBackend,
) -> Iterator[tuple[str, CaptionResult | ChatError]]:
    """Yield the result of each sample as soon as it is there; only a few samples are in memory at a time."""
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
    """Yield the result of each sample; all open requests are answered together, round by round."""

    def advance(sample: CaptionInput) -> CaptionResult | CaptionRequest:
        try:
            return _caption_sample(settings, sample, cache, settings.model, _defer)
        except _PendingRequest as pending:
            return pending.request

    def run_round(
        pending: dict[str, CaptionRequest],
    ) -> Iterator[tuple[CaptionInput, CaptionResult | CaptionRequest | ChatError]]:
        for key, response in caption_batch(settings, list(pending.values())):
            sample = pending.pop(key).sample
            if isinstance(response, ChatError):
                yield sample, response
            else:
                cache.put(key, response._asdict())
                yield sample, advance(sample)
        for request in pending.values():
            yield request.sample, ChatError("The engine ended without a response.", is_final=False)

    results: Iterator[tuple[CaptionInput, CaptionResult | CaptionRequest | ChatError]]
    results = ((sample, advance(sample)) for sample in samples)
    while True:
        requests: dict[str, CaptionRequest] = {}
        for sample, result in results:
            if isinstance(result, CaptionRequest):
                requests[result.key] = result
            else:
                yield sample.id, result
        if not requests:
            return
        results = run_round(requests)


def _vllm_responses(
    settings: ModelCaptionerSettings, requests: Collection[CaptionRequest]
) -> Iterator[tuple[str, ChatResponse | ChatError]]:
    from lens.data.captions.vllm_backend import vllm_responses

    assert isinstance(settings, VllmCaptionerSettings)
    return vllm_responses(settings, requests)


class _PendingRequest(Exception):
    """A request that is answered in the next round."""

    def __init__(self, request: CaptionRequest):
        super().__init__(request.key)
        self.request = request


def _defer(request: CaptionRequest) -> dict[str, Any]:
    raise _PendingRequest(request)


class _BackendCall:
    """Asks the backend, and reads and encodes the image of a sample once for all requests about it."""

    def __init__(self, settings: ModelCaptionerSettings, sample: CaptionInput, backend: CaptionBackend):
        self._settings, self._sample, self._backend = settings, sample, backend
        self._image_bytes: bytes | None = None

    def __call__(self, request: CaptionRequest) -> dict[str, Any]:
        self._image_bytes = self._image_bytes or encode_for_model(self._sample.read(), self._settings.side_px)
        prompt, temperature = CAPTION_PROMPTS[request.kind], self._settings.temperature
        try:
            return self._backend.ask(self._image_bytes, prompt, temperature, request.attempt)._asdict()
        except ChatError as error:
            if error.status not in REJECTED_REQUEST_STATUSES:
                raise
            # Kept as a response: the endpoint would reject this image again.
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
            response = cache.get(key)
            if response is None:
                response = ask(CaptionRequest(key, sample, kind, attempt))
                cache.put(key, response)
            tokens = [tokens[0] + response["prompt_tokens"], tokens[1] + response["completion_tokens"]]
            reason = _response_error(response, rules, sample.ocr_words)
            if reason is None:
                texts[kind] = response["text"].strip()
                break
        if reason is not None:
            return CaptionResult(error=reason, prompt_tokens=tokens[0], completion_tokens=tokens[1])
    return CaptionResult(texts.get("dense", ""), texts.get("brief", ""), "", *tokens)


def _response_error(response: Mapping[str, Any], rules: CaptionRules, ocr_words: Sequence[str]) -> str | None:
    if response["is_refused"]:
        return "refusal"
    return caption_error(response["text"], rules, ocr_words, response["is_cut"])
