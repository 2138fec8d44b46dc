"""The cost model: estimates the seconds of a request from its tokens and steps, at measured rates.

Rates are seconds per token of the denoiser and of the decoder, for each model. The estimate is proportional
to tokens: the quadratic part of attention and the fixed part of a pass are in the rate of recent batches, so
that estimates follow the traffic. Knows nothing of models in memory.
"""

import math
import threading
from dataclasses import dataclass

from lens.core.resolution import SIDE_STEP_PX
from lens.sampling.defaults import default_strength
from lens.sampling.solvers import get_solver
from lens.serve.engine.request import GenerationRequest

DEFAULT_RATE_S = 1e-4
"""Seconds per token before the first measurement."""
EMA_WEIGHT = 0.2
"""Weight of a new measurement in the rate."""
TEMPLATE_TOKENS = 20
CHARACTERS_PER_TOKEN = 4
MAX_PROMPT_TOKENS = 384


@dataclass(frozen=True)
class RequestCost:
    """The work of a request, estimated before its prompt is encoded."""

    tokens_per_evaluation: int
    """Image and text tokens of one velocity; with guidance, of both its inputs."""
    num_evaluations: int
    """Velocities of all steps: a solver may need several for a step."""
    num_image_tokens: int
    num_decodes: int
    """Images to decode: the final one and the previews."""


def request_cost(request: GenerationRequest) -> RequestCost:
    """Return the work of a request."""
    image = (request.height // SIDE_STEP_PX) * (request.width // SIDE_STEP_PX)
    tokens = image + estimate_text_tokens(request.prompt)
    if request.guidance != 1:
        tokens += image + estimate_text_tokens(request.negative_prompt)
    # A source image leaves the share of the steps that is its strength.
    num_steps = max(1.0, round(request.steps * effective_strength(request)))
    if request.upscale is not None:  # the steps before it are of fewer tokens
        num_steps = num_steps / request.upscale**2 + max(1.0, request.steps * request.redraw_strength)
    num_evaluations = math.ceil(num_steps) * get_solver(request.solver).num_velocities
    return RequestCost(tokens, num_evaluations, image, 1 + request.previews)


def effective_strength(request: GenerationRequest) -> float:
    """Return the share of noise that an image starts from: 1 without a source image."""
    if request.image is None:
        return 1.0
    has_mask = request.mask is not None
    return default_strength(has_mask) if request.strength is None else request.strength


def estimate_text_tokens(text: str) -> int:
    """Return an estimate of the tokens of a text; 0 for an empty one."""
    if not text.strip():
        return 0
    return TEMPLATE_TOKENS + min(MAX_PROMPT_TOKENS, len(text) // CHARACTERS_PER_TOKEN)


class CostModel:
    """Rates by model and stage, updated by each measurement. Safe in any thread."""

    def __init__(self):
        self._rates: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def record(self, model: str, stage: str, tokens: int, seconds: float) -> None:
        """Add a measurement of a stage of a model."""
        if tokens <= 0:
            return
        with self._lock:
            new, old = seconds / tokens, self._rates.get((model, stage))
            self._rates[model, stage] = new if old is None else old + EMA_WEIGHT * (new - old)

    def seconds_per_token(self, model: str, stage: str) -> float:
        """Return the seconds per token of a stage of a model."""
        with self._lock:
            return self._rates.get((model, stage), DEFAULT_RATE_S)

    def estimate_seconds(self, request: GenerationRequest) -> float:
        """Return the estimated seconds of a request."""
        cost = request_cost(request)
        num_tokens = cost.tokens_per_evaluation * cost.num_evaluations
        denoising = num_tokens * self.seconds_per_token(request.model, "denoise")
        return denoising + cost.num_image_tokens * cost.num_decodes * self.seconds_per_token(
            request.model, "decode"
        )
