"""Settings of the engine: device, precision, batch limits, queue limits, prompt cache."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from lens.config import Settings
from lens.core.step_caches import NO_CACHE, parse_cache
from lens.sampling.memory_ladder import parse_memory
from lens.sampling.text_cache import DEFAULT_MAX_BYTES, TextCacheMode


class EngineSettings(Settings):
    """Settings of an engine."""

    device: str = "cpu"
    """Device of the models, as torch names it."""
    dtype: str = "float32"
    """Precision of the weights. Images are tested to be independent of their batch in float32."""
    memory: str = "auto"
    """Main memory of each model on a CPU, such as 8GB; "auto" is what is free when it is loaded."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the engine; None is torch's default."""
    loads_at_start: bool = True
    """Load and measure all models at the start; otherwise each with its first request."""
    max_running: int = Field(default=16, ge=1)
    """Maximum number of images in progress."""
    max_tokens: int = Field(default=16384, ge=1)
    """Maximum image and text tokens of the images in progress; a larger image runs alone."""
    pack_tokens: int = Field(default=16384, ge=1)
    """Maximum tokens of a forward pass of the denoiser; halved when memory runs out."""
    max_waiting: int = Field(default=256, ge=1)
    """Maximum number of queued images."""
    max_waiting_s: float = Field(default=600.0, gt=0)
    """Maximum estimated seconds of queued work."""
    max_steps: int = Field(default=200, ge=1)
    """Maximum steps of an image."""
    cache: str = NO_CACHE
    """Cache of denoising steps of the requests that name none and have at least 12 steps: first-block or
    taylorseer. Images with a cache do not share passes."""
    text_cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """Memory of the prompt cache: hundreds of prompts of nano models, about ten of the full model."""
    text_cache_disk: TextCacheMode = "auto"
    """Whether text features are also cached on disk, for later starts and the command; "auto" caches those of
    text encoders above 1 GB."""
    text_cache_disk_bytes: int = Field(default=DEFAULT_MAX_BYTES, ge=0)
    """Disk space of these; the least recently used ones are removed first."""

    @field_validator("cache")
    @classmethod
    def _check_cache(cls, value: str) -> str:
        return parse_cache(value, "engine.cache") or NO_CACHE

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        parse_memory(self.memory, "engine.memory")
        return self
