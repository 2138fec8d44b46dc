"""What a picture costs: seconds from its tokens and steps, at rates measured while drawing.

Rates are seconds a token: of a step of the denoiser, and of the decoder, for each model. A line through zero:
attention's square and the fixed part of a step are inside the rate that recent packs had, so estimates follow
the traffic there is. Knows nothing of models in memory.
"""

import threading
from dataclasses import dataclass

from lens.core.resolution import SIDE_STEP_PX
from lens.sampling.defaults import default_strength
from lens.sampling.solvers import get_solver
from lens.serve.engine.request import GenerationRequest

DEFAULT_RATE_S = 1e-4
"""Seconds a token, before anything was measured."""
EMA_WEIGHT = 0.2
"""Share of a new measurement in the rate."""
TEMPLATE_TOKENS = 20
CHARACTERS_PER_TOKEN = 4
MAX_PROMPT_TOKENS = 384


@dataclass(frozen=True)
class RequestCost:
    """What a request takes, counted before its prompt is read by a model."""

    tokens_per_evaluation: int
    """Image and text tokens of one velocity, of both passes with guidance."""
    num_evaluations: int
    """Velocities of all steps: a solver may need several for a step."""
    num_image_tokens: int
    num_decodes: int
    """Pictures to decode: the last one and the previews."""


def request_cost(request: GenerationRequest) -> RequestCost:
    """Return what a request takes."""
    image = (request.height // SIDE_STEP_PX) * (request.width // SIDE_STEP_PX)
    tokens = image + estimate_text_tokens(request.prompt)
    if request.guidance != 1:
        tokens += image + estimate_text_tokens(request.negative_prompt)
    # A source image leaves the share of the steps that is its strength.
    num_steps = max(1, round(request.steps * effective_strength(request)))
    num_evaluations = num_steps * get_solver(request.solver).num_velocities
    return RequestCost(tokens, num_evaluations, image, 1 + request.previews)


def effective_strength(request: GenerationRequest) -> float:
    """Return how much noise a picture starts from: all of it, but where another picture shows through."""
    if request.strength is not None:
        return request.strength
    return 1.0 if request.image is None else default_strength(has_mask=request.mask is not None)


def estimate_text_tokens(text: str) -> int:
    """Return about how many tokens the denoiser reads of a text; none of no text at all."""
    if not text.strip():
        return 0
    return TEMPLATE_TOKENS + min(MAX_PROMPT_TOKENS, len(text) // CHARACTERS_PER_TOKEN)


class CostModel:
    """Rates by model and stage, from the run at the start on kept up to date. Safe in any thread."""

    def __init__(self):
        self._rates: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def record(self, model: str, stage: str, tokens: int, seconds: float) -> None:
        """Take in that a stage of a model took so long for so many tokens."""
        if tokens <= 0:
            return
        with self._lock:
            new, old = seconds / tokens, self._rates.get((model, stage))
            self._rates[model, stage] = new if old is None else old + EMA_WEIGHT * (new - old)

    def seconds_per_token(self, model: str, stage: str) -> float:
        """Return the seconds that a stage of a model takes for a token."""
        with self._lock:
            return self._rates.get((model, stage), DEFAULT_RATE_S)

    def estimate_seconds(self, request: GenerationRequest) -> float:
        """Return about how long a request keeps the engine busy."""
        cost = request_cost(request)
        num_tokens = cost.tokens_per_evaluation * cost.num_evaluations
        denoising = num_tokens * self.seconds_per_token(request.model, "denoise")
        return denoising + cost.num_image_tokens * cost.num_decodes * self.seconds_per_token(
            request.model, "decode"
        )
