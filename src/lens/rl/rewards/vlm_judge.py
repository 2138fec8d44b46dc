"""Reward by a vision-language model: it gets image, prompt and one criterion, and answers 1 or 0.

An image has no score if one criterion has no answer. Every answer is cached by itself, so that scoring an
image again after a failure asks only for the missing answers. Spec: section 9.
"""

import functools
import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from PIL import Image

from lens.data.scorers.base import version_hash
from lens.errors import LensError
from lens.llm.client import ChatClient, ChatResponse, TopLogprobs, image_part, text_part
from lens.llm.response_cache import ResponseCache, response_key
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import ImageArray, Score
from lens.rl.rewards.pool import image_hash
from lens.rl.rewards.settings import VlmJudgeSettings

JUDGE_PROMPT = (
    "You see a picture that was made from a prompt. Judge by what is visible whether it meets a criterion."
    "\n\nPrompt: {prompt}\n\nCriterion ({name}): {criterion}\n\n"
    "Answer 1 if the picture fully meets the criterion and 0 if it does not. Answer with that digit alone."
)
ANSWER_VALUES = {"1": 1, "yes": 1, "0": 0, "no": 0}
NUM_TOP_LOGPROBS = 5


class VlmJudgeReward:
    """Mean over the criteria of the rubric, which are asked one after another. Threads may share it."""

    def __init__(
        self, settings: VlmJudgeSettings, cache_path: Path | None = None, client: ChatClient | None = None
    ):
        """Create the client of the endpoint; `cache_path` is the file of cached answers, if any."""
        self.settings = settings
        self._client = client or ChatClient(settings.endpoint)
        self._cache = ResponseCache(cache_path) if cache_path is not None else None
        self._sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": settings.max_tokens}
        self._request_settings = {
            **self._sampling,
            **settings.model_dump(include={"probabilities", "side_px"}),
        }
        model = settings.endpoint.model
        self.version = (
            f"judge {model}, {version_hash(JUDGE_PROMPT, ANSWER_VALUES, model, self._request_settings)}"
        )

    @classmethod
    def from_settings(cls, settings: VlmJudgeSettings, cache_path: Path | None) -> Self:
        """Return the reward."""
        return cls(settings, cache_path)

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the mean of the criteria, or no value where one has no answer; the later ones are not asked.

        Raises: LensError for a prompt without a rubric.
        """
        if not prompt.rubric:
            raise LensError(f"The prompt {prompt.prompt!r} has no rubric; `lens rl rubrics` writes them.")
        image_id, parts = image_hash(image), {}
        png = functools.cache(partial(_png, image, self.settings.side_px))  # only if an answer is missing
        for name, criterion in prompt.rubric.items():
            wording = JUDGE_PROMPT.format(prompt=prompt.prompt, name=name, criterion=criterion)
            try:
                parts[name] = self._score_criterion(png, image_id, wording)
            except LensError as error:
                return Score(None, parts, f"{name}: {error}")
        return Score(sum(parts.values()) / len(parts), parts)

    def close(self) -> None:
        """Flush the answers to disk and close the connections."""
        self._client.close()
        if self._cache is not None:
            self._cache.close()

    def _score_criterion(self, png: Callable[[], bytes], image_id: str, wording: str) -> float:
        key = response_key(image_id, wording, self.settings.endpoint.model, self._request_settings)
        if self._cache is not None and (known := self._cache.get(key)) is not None:
            return known["value"]
        content = [text_part(wording), image_part(png(), "image/png")]
        reply, log_probs = self._request([{"role": "user", "content": content}])
        value = criterion_score(reply, log_probs)
        if self._cache is not None:
            self._cache.put(key, {"value": value, **reply._asdict()})
        return value

    def _request(self, messages: list[dict[str, Any]]) -> tuple[ChatResponse, TopLogprobs]:
        if self.settings.probabilities:
            return self._client.complete_with_logprobs(messages, NUM_TOP_LOGPROBS, **self._sampling)
        return self._client.complete(messages, **self._sampling), ()


def criterion_score(reply: ChatResponse, log_probs: TopLogprobs) -> float:
    """Return P(1) / (P(0) + P(1)) at the token of the answer; without log-probabilities the answer itself.

    Raises: LensError for a refusal, and for an answer that is neither 1 nor 0.
    """
    if reply.is_refused:
        raise LensError(f"the judge declined: {reply.text[:200]!r}")
    answer = _parse_answer(reply.text)
    if answer is None:
        raise LensError(f"the judge answered {reply.text[:200]!r}, which is neither 1 nor 0")
    for likeliest in log_probs:
        probabilities = [0.0, 0.0]
        for token, log_prob in likeliest.items():
            if (answer_value := _parse_answer(token)) is not None:
                probabilities[answer_value] += math.exp(log_prob)
        if sum(probabilities) > 0:
            return probabilities[1] / sum(probabilities)
    return float(answer)


def _parse_answer(text: str) -> int | None:
    return ANSWER_VALUES.get(text.strip().removesuffix(".").lower())


def _png(pixels: ImageArray, side_px: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    image.save(file := io.BytesIO(), "PNG", compress_level=1)
    return file.getvalue()
