"""Requests of the engine, the events that answer them, and the data that its callers share.

A request is one image. Plain values, free of torch and HTTP.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from PIL import Image

from lens.core.noise import MAX_SEED
from lens.core.resolution import size_before_upscaling
from lens.reasoner.outcome import Reasoned
from lens.sampling.defaults import MAX_UPSCALE, UPSCALE_STRENGTH
from lens.sampling.image_metadata import ImageMetadata, reasoner_fields
from lens.sampling.solvers import DEFAULT_SOLVER

MAX_PREVIEWS = 3
"""Preview images of one request."""


class Bounds(NamedTuple):
    """The numbers that a field accepts: `validate_parameters` checks them, the HTTP API documents them."""

    low: float
    high: float = math.inf
    excludes_low: bool = False

    def contains(self, value: float) -> bool:
        """Return whether a number is finite and within the bounds."""
        is_above = value > self.low if self.excludes_low else value >= self.low
        return is_above and value <= self.high and (isinstance(value, int) or math.isfinite(value))

    def description(self, kind: type) -> str:
        """Return the accepted numbers in words, such as "a whole number from 1 to 200"."""
        number = "a whole number" if kind is int else "a number"
        if self.excludes_low:
            return f"{number} above {self.low}" + ("" if math.isinf(self.high) else f", at most {self.high}")
        has_high = not math.isinf(self.high)
        return f"{number} from {self.low} to {self.high}" if has_high else f"{number} of {self.low} or more"


@dataclass(frozen=True)
class LoraRequest:
    """A LoRA of the server and its weight."""

    name: str
    weight: Annotated[float, Bounds(-100, 100)] = 1.0


@dataclass(frozen=True)
class GenerationRequest:
    """One image, with every value decided: the engine chooses nothing."""

    model: str
    """Name of a model of the server."""
    prompt: str
    seed: Annotated[int, Bounds(0, MAX_SEED)]
    height: int
    width: int
    """Pixels, multiples of 16."""
    steps: Annotated[int, Bounds(1)]
    """The server's settings give the maximum."""
    guidance: Annotated[float, Bounds(0, 100)]
    """1 disables guidance."""
    negative_prompt: str = ""
    prompt_template: str | None = None
    """The prompt before its choices and syntax were read, where that changed it."""
    reasoned: Reasoned | None = None
    """What a reasoner made of the request, if it was asked; `prompt` is what came of it."""
    solver: str = DEFAULT_SOLVER
    cache: str | None = None
    """Cache of denoising steps, one of `lens.core.step_caches.CACHE_NAMES`."""
    loras: tuple[LoraRequest, ...] = ()
    image: Path | None = None
    """Source image."""
    mask: Path | None = None
    """White is regenerated, black is kept; needs `image`."""
    strength: Annotated[float, Bounds(0, 1, excludes_low=True)] | None = None
    """Share of noise in the source image; 1 replaces it."""
    upscale: Annotated[float, Bounds(1, MAX_UPSCALE, excludes_low=True)] | None = None
    """Factor of size at which the image is drawn again from its latents; height and width are after."""
    upscale_strength: Annotated[float, Bounds(0, 1, excludes_low=True)] | None = None
    """Share of noise in the latents that are drawn again; no effect without `upscale`."""
    caller: str = ""
    """Callers get equal shares of the engine."""
    priority: Annotated[int, Bounds(-100, 100)] = 0
    """Among the requests of one caller, a higher one starts earlier."""
    deadline_s: Annotated[float, Bounds(0, excludes_low=True)] | None = None
    """Seconds from now. A request fails if it cannot finish by then."""
    previews: Annotated[int, Bounds(0, MAX_PREVIEWS)] = 0
    """Number of preview images."""

    @property
    def first_size(self) -> tuple[int, int]:
        """(height, width) before the image is upscaled."""
        return size_before_upscaling(self.height, self.width, self.upscale)

    @property
    def redraw_strength(self) -> float:
        """Share of noise in the latents that are drawn again."""
        return UPSCALE_STRENGTH if self.upscale_strength is None else self.upscale_strength

    def metadata_fields(self) -> dict[str, Any]:
        """Return the values that the metadata of the image has under the same names."""
        names = (
            "prompt", "negative_prompt", "prompt_template", "seed", "width", "height", "steps", "guidance",
            "solver", "cache", "upscale", "upscale_strength",
        )  # fmt: skip
        values = {} if self.reasoned is None else reasoner_fields(self.reasoned)
        values |= {name: getattr(self, name) for name in names}
        return values if self.upscale else values | {"upscale_strength": None}


def field_bounds(request_type: type) -> dict[str, tuple[type, Bounds]]:
    """Return the bounded fields of a request class: name -> (int or float, bounds)."""
    result = {}
    for name, hint in get_type_hints(request_type, include_extras=True).items():
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Annotated:
                kind, bounds = get_args(part)
                result[name] = (kind, bounds)
    return result


@dataclass(frozen=True)
class Queued:
    """The request waits in the queue."""

    position: int
    """Images ahead of it; 0 is next."""


@dataclass(frozen=True)
class StepProgress:
    """The image is being generated."""

    step: int
    num_steps: int
    remaining_s: float


@dataclass(frozen=True)
class Preview:
    """A preview image: the clean estimate after some step."""

    number: int
    """Counted from 0."""
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """The image and its metadata, the last event."""

    image: Image.Image = field(repr=False)
    metadata: ImageMetadata


@dataclass(frozen=True)
class Failed:
    """The request failed or was cancelled, the last event."""

    error: Exception


EngineEvent = Queued | StepProgress | Preview | Finished | Failed
"""An event of a request; Finished or Failed is the last."""


@dataclass(frozen=True)
class ModelInfo:
    """A model of the server and its defaults."""

    name: str
    default_steps: int
    default_guidance: float
    base_resolution: int
    """Of an image whose request states no size."""
    variant: str
    trained_bases: tuple[int, ...] = ()
    """Base resolutions that the model was trained at; empty for the default one."""

    @property
    def is_distilled(self) -> bool:
        """Whether the model needs few steps and no guidance."""
        return "turbo" in self.variant


@dataclass(frozen=True)
class EngineState:
    """Counters for metrics and health checks."""

    num_waiting: int
    num_running: int
    queue_s: float
    """Estimated seconds of queued work."""
    rejected: int
    finished: int
    failed: int
    cancelled: int
    num_tokens: int
    """Image and text tokens times denoiser evaluations, since the start."""
    prompt_cache_hits: int
    prompt_cache_misses: int
    stage_seconds: dict[str, float]
    """Since the start, by stage: text, denoise, decode."""
    prompt_cache_disk_hits: int = 0
    """Those of the misses whose text features were on disk."""
