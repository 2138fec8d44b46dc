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

from lens.data.captions.prompts import WORDINGS, Kind, Wording
from lens.data.captions.settings import (
    AnyCaptioner,
    EndpointCaptioner,
    ModelCaptioner,
    SidecarCaptioner,
    TransformersCaptioner,
    VllmCaptioner,
)
from lens.data.captions.validation import Audit, failure
from lens.data.io.image_decoding import decode
from lens.errors import LensError
from lens.llm.client import Chat, ChatError, Reply, image_part, text_part
from lens.llm.response_cache import Answers, answer_key

BRIEF_AUDIT = Audit.of({"min_words": 2, "max_words": 40, "min_text_recall": 0.0})
REFUSES_THIS_ONE = (400, 413, 415, 422)
"""Statuses that say that one request cannot be answered, not that none can."""


class Captioned(NamedTuple):
    """What captioning a sample came to."""

    dense: str = ""
    brief: str = ""
    failure: str = ""
    """What was wrong with the last caption that was tried; empty for usable ones."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Sample(NamedTuple):
    """What is captioned."""

    id: str
    sidecar: str
    read_words: Sequence[str]
    read: Callable[[], bytes]
    """Returns the picture's bytes; called only when a model has to see it."""


class Question(NamedTuple):
    """One caption of one sample that a model has to write."""

    key: str
    sample: Sample
    kind: Kind
    attempt: int


ReplyAll = Callable[[ModelCaptioner, Collection[Question]], Iterator[tuple[str, Reply | ChatError]]]
"""Whatever answers many questions at once, in any order; it returns their keys with the answers."""


class Asker(Protocol):
    """Whatever answers a wording about a picture."""

    name: str
    """Of the model, for the key of its answers."""

    def ask(self, picture: bytes, wording: Wording, temperature: float, seed: int) -> Reply:
        """Return the answer about a JPEG. Raises: ChatError."""
        ...


class Unanswered(LensError):
    """Samples that have no caption yet: the same build goes on with them."""


def caption_samples(
    settings: AnyCaptioner,
    samples: Iterable[Sample],
    folder: Path,
    on_caption: Callable[[int], None] = lambda done: None,
    asker: Asker | None = None,
    reply_all: ReplyAll | None = None,
) -> dict[str, Captioned]:
    """Return what came of every sample, by id.

    `asker` or `reply_all` takes the place of what the settings name.

    Raises: Unanswered when a model did not answer for some of them; every answer that came is kept.
    """
    if isinstance(settings, SidecarCaptioner):
        missing = "missing" if settings.requires else ""
        return {one.id: Captioned(one.sidecar, failure="" if one.sidecar else missing) for one in samples}
    answers = Answers(folder / "answers.jsonl")
    try:
        captioned, errors = {}, []
        if isinstance(settings, VllmCaptioner):
            results = _in_rounds(settings, samples, answers, reply_all or _replies_of_vllm)
        else:
            results = _in_threads(settings, samples, answers, asker or asker_of(settings))
        for done, (name, result) in enumerate(results, 1):
            if isinstance(result, ChatError):
                errors.append(result)
            else:
                captioned[name] = result
            on_caption(done)
    finally:
        answers.close()
    if errors:
        kept = f"{len(captioned)} samples have captions, {len(errors)} or more have none yet."
        raise Unanswered(f"{kept} The last error: {errors[-1]} Run the same command again to go on.")
    return captioned


def costs_of(settings: AnyCaptioner, captioned: Iterable[Captioned]) -> dict[str, float]:
    """Return the tokens of all answers, those that failed too, and what they cost where prices are known."""
    counts = np.array([(0, 0), *((one.prompt_tokens, one.completion_tokens) for one in captioned)])  # (N, 2)
    prompt, completion = counts.sum(axis=0).tolist()
    costs: dict[str, float] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if isinstance(settings, EndpointCaptioner) and settings.price_of_million_tokens:
        asked, written = settings.price_of_million_tokens
        costs["cost"] = round((asked * prompt + written * completion) / 1e6, 6)
    return costs


def asker_of(settings: ModelCaptioner) -> Asker:
    """Return what answers by the settings."""
    if isinstance(settings, EndpointCaptioner):
        return EndpointAsker(Chat(settings.endpoint))
    assert isinstance(settings, TransformersCaptioner)
    from lens.data.captions.transformers_backend import LocalAsker

    return LocalAsker(settings.model, settings.device)


class EndpointAsker:
    """Asks a chat endpoint."""

    def __init__(self, chat: Chat):
        self._chat = chat
        self.name = chat.endpoint.model

    def ask(self, picture: bytes, wording: Wording, temperature: float, seed: int) -> Reply:
        content = [text_part(wording.user), image_part(picture, "image/jpeg")]
        messages = [{"role": "system", "content": wording.system}, {"role": "user", "content": content}]
        return self._chat.ask(messages, max_tokens=wording.max_tokens, temperature=temperature, seed=seed)


def shown(content: bytes, side_px: int) -> bytes:
    """Return a picture as a model sees it: a JPEG whose longer side is at most side_px."""
    image = decode(content).image
    image.thumbnail((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _in_threads(
    settings: ModelCaptioner, samples: Iterable[Sample], answers: Answers, asker: Asker
) -> Iterator[tuple[str, Captioned | ChatError]]:
    """Yield what came of each sample as soon as it did; few wait at a time, whatever their number."""
    at_once = settings.concurrency if isinstance(settings, EndpointCaptioner) else 1
    patience = settings.give_up_after if isinstance(settings, EndpointCaptioner) else 1
    in_a_row = 0
    with ThreadPoolExecutor(at_once) as pool:
        waiting: dict[Future[Captioned], str] = {}
        left = iter(samples)
        while True:
            while len(waiting) < 2 * at_once and in_a_row < patience and (one := next(left, None)):
                ask = _Asking(settings, one, asker)
                waiting[pool.submit(_caption, settings, one, answers, asker.name, ask)] = one.id
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                name = waiting.pop(future)
                try:
                    result: Captioned | ChatError = future.result()
                    in_a_row = 0
                except ChatError as error:
                    result, in_a_row = error, in_a_row + 1
                yield name, result


def _in_rounds(
    settings: VllmCaptioner, samples: Iterable[Sample], answers: Answers, reply_all: ReplyAll
) -> Iterator[tuple[str, Captioned | ChatError]]:
    """Yield what came of each sample; all that have a question open are asked together, round by round."""

    def advanced(sample: Sample) -> Captioned | Question:
        try:
            return _caption(settings, sample, answers, settings.model, _left_open)
        except _Open as left:
            return left.question

    def answered(open_ones: dict[str, Question]) -> Iterator[tuple[Sample, Captioned | Question | ChatError]]:
        for key, reply in reply_all(settings, list(open_ones.values())):
            sample = open_ones.pop(key).sample
            if isinstance(reply, ChatError):
                yield sample, reply
            else:
                answers.put(key, reply._asdict())
                yield sample, advanced(sample)
        for question in open_ones.values():
            yield question.sample, ChatError("The engine ended without an answer.", is_final=False)

    results: Iterator[tuple[Sample, Captioned | Question | ChatError]]
    results = ((sample, advanced(sample)) for sample in samples)
    while True:
        asked: dict[str, Question] = {}
        for sample, result in results:
            if isinstance(result, Question):
                asked[result.key] = result
            else:
                yield sample.id, result
        if not asked:
            return
        results = answered(asked)


def _replies_of_vllm(
    settings: ModelCaptioner, questions: Collection[Question]
) -> Iterator[tuple[str, Reply | ChatError]]:
    from lens.data.captions.vllm_backend import replies

    assert isinstance(settings, VllmCaptioner)
    return replies(settings, questions)


class _Open(Exception):
    """A question that is answered in the next round."""

    def __init__(self, question: Question):
        super().__init__(question.key)
        self.question = question


def _left_open(question: Question) -> dict[str, Any]:
    raise _Open(question)


class _Asking:
    """Asks at once, and reads and reduces a sample's picture once for all questions about it."""

    def __init__(self, settings: ModelCaptioner, sample: Sample, asker: Asker):
        self._settings, self._sample, self._asker = settings, sample, asker
        self._picture: bytes | None = None

    def __call__(self, question: Question) -> dict[str, Any]:
        self._picture = self._picture or shown(self._sample.read(), self._settings.side_px)
        wording, temperature = WORDINGS[question.kind], self._settings.temperature
        try:
            return self._asker.ask(self._picture, wording, temperature, question.attempt)._asdict()
        except ChatError as error:
            if error.status not in REFUSES_THIS_ONE:
                raise
            # Kept as an answer: this picture would be turned down again.
            refused = Reply(str(error), is_refused=True, is_cut=False, prompt_tokens=0, completion_tokens=0)
            return refused._asdict()


def _caption(
    settings: ModelCaptioner,
    sample: Sample,
    answers: Answers,
    model: str,
    ask: Callable[[Question], dict[str, Any]],
) -> Captioned:
    texts: dict[Kind, str] = {}
    tokens = [0, 0]
    for kind in settings.kinds:
        audit = settings.audit if kind == "dense" else BRIEF_AUDIT
        reason: str | None = None
        for attempt in range(settings.max_tries):
            sampling = {"temperature": settings.temperature, "side_px": settings.side_px}
            key = answer_key(sample.id, WORDINGS[kind].version, model, sampling, attempt)
            answer = answers.get(key)
            if answer is None:
                answer = ask(Question(key, sample, kind, attempt))
                answers.put(key, answer)
            tokens = [tokens[0] + answer["prompt_tokens"], tokens[1] + answer["completion_tokens"]]
            reason = _failure(answer, audit, sample.read_words)
            if reason is None:
                texts[kind] = answer["text"].strip()
                break
        if reason is not None:
            return Captioned(failure=reason, prompt_tokens=tokens[0], completion_tokens=tokens[1])
    return Captioned(texts.get("dense", ""), texts.get("brief", ""), "", *tokens)


def _failure(answer: Mapping[str, Any], audit: Audit, read_words: Sequence[str]) -> str | None:
    if answer["is_refused"]:
        return "refusal"
    return failure(answer["text"], audit, read_words, answer["is_cut"])
