"""Captions of samples: asked for, audited, asked for again, and every answer kept.

Answers lie in one file that only grows, so a build that was stopped, or whose endpoint died, goes on where it
was; an audit that was changed reads them again without asking. Knows nothing of views or shards.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from lens.chat import Chat, ChatError, Reply, image_part, text_part
from lens.data.captions.answers import Answers, answer_key
from lens.data.captions.audit import Audit, failure
from lens.data.captions.captioner import (
    AnyCaptioner,
    EndpointCaptioner,
    ModelCaptioner,
    SidecarCaptioner,
    TransformersCaptioner,
)
from lens.data.captions.wording import WORDINGS, Kind, Wording
from lens.data.pictures import decode
from lens.errors import LensError

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
) -> dict[str, Captioned]:
    """Return what came of every sample, by id; `asker` takes the place of the one that the settings name.

    Raises: Unanswered when a model did not answer for some of them; every answer that came is kept.
    """
    if isinstance(settings, SidecarCaptioner):
        missing = "missing" if settings.requires else ""
        return {one.id: Captioned(one.sidecar, failure="" if one.sidecar else missing) for one in samples}
    answers = Answers(folder / "answers.jsonl")
    try:
        asker = asker or asker_of(settings)
        captioned, errors = {}, []
        for done, (name, result) in enumerate(_in_threads(settings, samples, answers, asker), 1):
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
    from lens.data.captions.local_model import LocalAsker

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
                waiting[pool.submit(_caption, settings, one, answers, asker)] = one.id
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


def _caption(settings: ModelCaptioner, sample: Sample, answers: Answers, asker: Asker) -> Captioned:
    texts: dict[Kind, str] = {}
    tokens = [0, 0]
    picture: bytes | None = None
    for kind in settings.kinds:
        wording = WORDINGS[kind]
        audit = settings.audit if kind == "dense" else BRIEF_AUDIT
        reason: str | None = None
        for attempt in range(settings.max_tries):
            sampling = {"temperature": settings.temperature, "side_px": settings.side_px}
            key = answer_key(sample.id, wording.version, asker.name, sampling, attempt)
            answer = answers.get(key)
            if answer is None:
                picture = picture or shown(sample.read(), settings.side_px)
                answer = _asked(asker, picture, wording, settings.temperature, attempt)
                answers.put(key, answer)
            tokens = [tokens[0] + answer["prompt_tokens"], tokens[1] + answer["completion_tokens"]]
            reason = _failure(answer, audit, sample.read_words)
            if reason is None:
                texts[kind] = answer["text"].strip()
                break
        if reason is not None:
            return Captioned(failure=reason, prompt_tokens=tokens[0], completion_tokens=tokens[1])
    return Captioned(texts.get("dense", ""), texts.get("brief", ""), "", *tokens)


def _asked(asker: Asker, picture: bytes, wording: Wording, temperature: float, seed: int) -> dict[str, Any]:
    try:
        return asker.ask(picture, wording, temperature, seed)._asdict()
    except ChatError as error:
        if error.status not in REFUSES_THIS_ONE:
            raise
        # Kept as an answer: this picture would be turned down again.
        refused = Reply(str(error), is_refused=True, is_cut=False, prompt_tokens=0, completion_tokens=0)
        return refused._asdict()


def _failure(answer: Mapping[str, Any], audit: Audit, read_words: Sequence[str]) -> str | None:
    if answer["is_refused"]:
        return "refusal"
    return failure(answer["text"], audit, read_words, answer["is_cut"])
