"""A vision-language model as judge: it sees picture, prompt and one criterion, and answers 1 or 0.

A criterion without an answer leaves the whole picture without a value. Answers are kept one by one, so that a
picture which is judged again, after a failure or a kill, is asked only about what is not known.
Spec: section 9.
"""

import functools
import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lens.data.scorers.base import version_of
from lens.errors import LensError
from lens.llm.client import Chat, LogProbs, Reply, image_part, text_part
from lens.llm.response_cache import Answers, answer_key
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import Picture, Score
from lens.rl.rewards.pool import picture_hash
from lens.rl.rewards.settings import JudgeSettings

WORDING = (
    "You see a picture that was made from a prompt. Judge by what is visible whether it meets a criterion."
    "\n\nPrompt: {prompt}\n\nCriterion ({name}): {criterion}\n\n"
    "Answer 1 if the picture fully meets the criterion and 0 if it does not. Answer with that digit alone."
)
MEANING = {"1": 1, "yes": 1, "0": 0, "no": 0}
NUM_LIKELIEST = 5


class JudgeReward:
    """Mean over the criteria of the rubric. A pool's threads share it: each asks its criteria in turn."""

    def __init__(self, settings: JudgeSettings, answers: Path | None = None, chat: Chat | None = None):
        """Ask at the endpoint of the settings; answers are kept in a file, where one is named."""
        self.settings = settings
        self._chat = chat or Chat(settings.endpoint)
        self._answers = Answers(answers) if answers is not None else None
        self._sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": settings.max_tokens}
        self._facts = {**self._sampling, **settings.model_dump(include={"probabilities", "side_px"})}
        model = settings.endpoint.model
        self.version = f"judge {model}, {version_of(WORDING, MEANING, model, self._facts)}"

    def score(self, picture: Picture, prompt: RLPrompt) -> Score:
        """Return the mean of the criteria; at the first one without an answer, those before it and no value.

        Raises: LensError for a prompt without a rubric.
        """
        if not prompt.rubric:
            raise LensError(f"The prompt {prompt.prompt!r} has no rubric; `lens rl rubrics` writes them.")
        identity, parts = picture_hash(picture), {}
        png = functools.cache(partial(_png, picture, self.settings.side_px))  # once, and only if one is asked
        for name, criterion in prompt.rubric.items():
            wording = WORDING.format(prompt=prompt.prompt, name=name, criterion=criterion)
            try:
                parts[name] = self._judged(png, identity, wording)
            except LensError as error:
                return Score(None, parts, f"{name}: {error}")
        return Score(sum(parts.values()) / len(parts), parts)

    def close(self) -> None:
        """Bring the answers to disk and end the connections."""
        self._chat.close()
        if self._answers is not None:
            self._answers.close()

    def _judged(self, png: Callable[[], bytes], identity: str, wording: str) -> float:
        key = answer_key(identity, wording, self.settings.endpoint.model, self._facts)
        if self._answers is not None and (known := self._answers.get(key)) is not None:
            return known["value"]
        content = [text_part(wording), image_part(png(), "image/png")]
        reply, log_probs = self._asked([{"role": "user", "content": content}])
        value = verdict(reply, log_probs)
        if self._answers is not None:
            self._answers.put(key, {"value": value, **reply._asdict()})
        return value

    def _asked(self, messages: list[dict[str, Any]]) -> tuple[Reply, LogProbs]:
        if self.settings.probabilities:
            return self._chat.ask_with_log_probs(messages, NUM_LIKELIEST, **self._sampling)
        return self._chat.ask(messages, **self._sampling), ()


def verdict(reply: Reply, log_probs: LogProbs) -> float:
    """Return P(1) / (P(0) + P(1)) at the token that answers, or, where nobody tells, the answer itself.

    Raises: LensError for a refusal, and for an answer that says neither.
    """
    if reply.is_refused:
        raise LensError(f"the judge declined: {reply.text[:200]!r}")
    said = _meaning(reply.text)
    if said is None:
        raise LensError(f"the judge answered {reply.text[:200]!r}, which is neither 1 nor 0")
    for likeliest in log_probs:
        chances = [0.0, 0.0]
        for token, log_prob in likeliest.items():
            if (meant := _meaning(token)) is not None:
                chances[meant] += math.exp(log_prob)
        if sum(chances) > 0:
            return chances[1] / sum(chances)
    return float(said)


def _meaning(text: str) -> int | None:
    return MEANING.get(text.strip().removesuffix(".").lower())


def _png(picture: Picture, side_px: int) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    image.save(file := io.BytesIO(), "PNG", compress_level=1)
    return file.getvalue()
