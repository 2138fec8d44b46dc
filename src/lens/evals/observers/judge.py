"""A vision-language model at an endpoint that answers questions about an image.

Answers are cached by image, question and model. A question without an answer counts as wrong, as official
scorers count it, and is told. An endpoint that is down ends the run instead, and the next run goes on.
"""

import hashlib
import io
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lens.errors import LensError
from lens.evals.observers.base import ObserverInfo
from lens.llm.client import ChatClient, ChatError, Endpoint, image_part
from lens.llm.response_cache import ResponseCache, response_key

YES_OR_NO = "{question} Answer with one word, yes or no."
VERSION = "1"
"""Change it with the words around a question."""
NOTE = "judge {model}: not comparable with numbers of the official judge"
MAX_FAILURES = 5
"""Questions in a row without an answer after which the endpoint counts as down."""
MAX_TOKENS = 256


class JudgeDownError(LensError):
    """An endpoint that does not answer any more."""


class Answers(NamedTuple):
    """What a judge said to the questions about one image."""

    answers: dict[str, str | None]
    """By the number of the question: yes, no, or the answer as it came; None without an answer."""
    failures: dict[str, str]
    """Why there is no answer."""


class VlmJudge:
    """Asks one endpoint. Threads may share it."""

    def __init__(self, endpoint: Endpoint, cache: Path, concurrency: int = 8):
        self.info = ObserverInfo(
            f"judge {endpoint.model}", hashlib.sha256(f"{endpoint.model} {VERSION}".encode()).hexdigest(),
            NOTE.format(model=endpoint.model),
        )  # fmt: skip
        self._client, self._cache = ChatClient(endpoint), ResponseCache(cache)
        self._model, self._concurrency = endpoint.model, concurrency
        self._lock, self._num_failures = threading.Lock(), 0

    def ask_all(self, image: Image.Image, questions: Mapping[str, str]) -> Answers:
        """Return the answers to yes/no questions about an RGB image.

        Raises: JudgeDownError after several questions in a row without an answer.
        """
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        failures: dict[str, str] = {}

        def ask(item: tuple[str, str]) -> str | None:
            number, question = item
            try:
                return normalize_answer(self._ask(content, digest, question))
            except ChatError as error:
                failures[number] = str(error)
                return None

        with ThreadPoolExecutor(self._concurrency) as threads:
            answers = dict(zip(questions, threads.map(ask, questions.items()), strict=True))
        return Answers(answers, failures)

    def _ask(self, content: bytes, digest: str, question: str) -> str:
        key = response_key(digest, question, self._model, {"version": VERSION})
        if known := self._cache.get(key):
            return known["text"]
        if self._num_failures >= MAX_FAILURES:
            raise JudgeDownError(
                f"The judge {self._model} left {MAX_FAILURES} questions in a row without an answer. Check "
                "its endpoint, and run the same command again: it goes on."
            )
        text = {"type": "text", "text": YES_OR_NO.format(question=question)}
        try:
            response = self._client.complete(
                [{"role": "user", "content": [image_part(content, "image/png"), text]}],
                temperature=0, max_tokens=MAX_TOKENS,
            )  # fmt: skip
        except ChatError:
            with self._lock:
                self._num_failures += 1
            raise
        with self._lock:
            self._num_failures = 0
        self._cache.put(key, {"text": response.text})
        return response.text


def normalize_answer(text: str) -> str:
    """Return yes or no for an answer that is one of them, whatever its case and marks; others as they are."""
    word = text.strip().strip(".!,\"'*").lower()
    return word if word in ("yes", "no") else text.strip()
