"""What a picture costs: seconds from its tokens and steps, at rates measured while drawing.

Rates are seconds a token: of a step of the denoiser, and of the decoder, for each model. A line through zero:
attention's square and the fixed part of a step are inside the rate that recent packs had, so estimates follow
the traffic there is. Knows nothing of models in memory.
"""

import threading
from dataclasses import dataclass

from lens.core.resolution import SIDE_STEP_PX
from lens.sampling.inputs import DEFAULT_STRENGTH
from lens.serve.engine.request import DrawRequest

GUESSED_RATE_S = 1e-4
"""Seconds a token, before anything was measured."""
FORGETTING = 0.2
"""Share of a new measurement in the rate."""
SCAFFOLD_TOKENS = 20
CHARACTERS_A_TOKEN = 4
LONGEST_PROMPT_TOKENS = 384


@dataclass(frozen=True)
class Work:
    """What a request takes, counted before its prompt is read by a model."""

    step_tokens: int
    """Image and text tokens of a step, of both passes where there is guidance."""
    steps: int
    image_tokens: int
    decodes: int
    """Pictures to decode: the last one and the previews."""


def work_of(request: DrawRequest) -> Work:
    """Return what a request takes."""
    image = (request.height // SIDE_STEP_PX) * (request.width // SIDE_STEP_PX)
    tokens = image + guessed_text_tokens(request.prompt)
    if request.guidance != 1:
        tokens += image + guessed_text_tokens(request.negative_prompt)
    # Of the steps of a whole path, a picture to start from leaves its strength's share.
    return Work(tokens, max(1, round(request.steps * strength_of(request))), image, 1 + request.previews)


def strength_of(request: DrawRequest) -> float:
    """Return how much noise a picture starts from: all of it, but where another picture shows through."""
    if request.strength is not None:
        return request.strength
    return 1.0 if request.image is None or request.mask is not None else DEFAULT_STRENGTH


def guessed_text_tokens(text: str) -> int:
    """Return about how many tokens the denoiser reads of a text; none of no text at all."""
    if not text.strip():
        return 0
    return SCAFFOLD_TOKENS + min(LONGEST_PROMPT_TOKENS, len(text) // CHARACTERS_A_TOKEN)


class CostModel:
    """Rates by model and stage, from the run at the start on kept up to date. Safe in any thread."""

    def __init__(self):
        self._rates: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def measured(self, model: str, stage: str, tokens: int, seconds: float) -> None:
        """Take in that a stage of a model took so long for so many tokens."""
        if tokens <= 0:
            return
        with self._lock:
            new, old = seconds / tokens, self._rates.get((model, stage))
            self._rates[model, stage] = new if old is None else old + FORGETTING * (new - old)

    def rate(self, model: str, stage: str) -> float:
        """Return the seconds that a stage of a model takes for a token."""
        with self._lock:
            return self._rates.get((model, stage), GUESSED_RATE_S)

    def seconds(self, request: DrawRequest) -> float:
        """Return about how long a request keeps the engine busy."""
        work = work_of(request)
        denoising = work.step_tokens * work.steps * self.rate(request.model, "denoise")
        return denoising + work.image_tokens * work.decodes * self.rate(request.model, "decode")
