"""What is asked of the engine, and what it tells: the words that the engine and everything before it share.

Plain values, free of torch and of HTTP. A request is one picture; whoever wants several asks several times,
with seeds that follow one another.
"""

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lens.sampling.image_metadata import ImageMetadata
from lens.sampling.solvers import DEFAULT_SOLVER

MAX_SEED = 2**63 - 1
MAX_PREVIEWS = 3
"""Preview images of one request."""


@dataclass(frozen=True)
class LoraRequest:
    """An adapter that the operator offers, by its name, and how strongly it is applied."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class GenerationRequest:
    """One picture. All is decided: nothing is left for the engine to choose."""

    model: str
    """Name under which the operator offers a model."""
    prompt: str
    seed: int
    height: int
    width: int
    """Pixels, multiples of 16."""
    steps: int
    guidance: float
    negative_prompt: str = ""
    solver: str = DEFAULT_SOLVER
    loras: tuple[LoraRequest, ...] = ()
    image: Path | None = None
    """Picture to start from."""
    mask: Path | None = None
    """White is drawn anew, black is kept; with `image` alone."""
    strength: float | None = None
    caller: str = ""
    """Whose request it is: callers share the engine fairly."""
    priority: int = 0
    """Of requests of one caller, the higher goes first."""
    deadline_s: float | None = None
    """Seconds from now after which the picture is of no use; it fails rather than begin too late."""
    previews: int = 0
    """Pictures of the way there that are wanted, from 0 to 3."""


@dataclass(frozen=True)
class Queued:
    """In the queue."""

    position: int
    """How many pictures go before it; 0 is next."""


@dataclass(frozen=True)
class StepProgress:
    """On its way."""

    step: int
    num_steps: int
    remaining_s: float


@dataclass(frozen=True)
class Preview:
    """A picture of the way there."""

    number: int
    """Counted from 0."""
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """The picture, and everything that decided it."""

    image: Image.Image = field(repr=False)
    metadata: ImageMetadata


@dataclass(frozen=True)
class Failed:
    """No picture."""

    error: Exception


EngineEvent = Queued | StepProgress | Preview | Finished | Failed
"""What a ticket tells, in order; Done or Failed is the last."""


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be asked for."""

    name: str
    default_steps: int
    default_guidance: float
    base_resolution: int
    """What it draws with where a request leaves it open."""
    variant: str


@dataclass(frozen=True)
class EngineState:
    """Numbers for metrics and health."""

    num_waiting: int
    num_running: int
    queue_s: float
    """Estimated work that waits."""
    rejected: int
    finished: int
    failed: int
    cancelled: int
    num_tokens: int
    """Image and text tokens times steps that were computed since the start."""
    prompt_cache_hits: int
    prompt_cache_misses: int
    stage_seconds: dict[str, float]
    """Since the start: text, denoise, decode."""
