"""Settings of the engine: what it computes on, and how much it takes on at once."""

from pydantic import Field

from lens.config import Settings


class EngineSettings(Settings):
    """How an engine draws, and where it says no."""

    device: str = "cpu"
    """Where torch computes."""
    dtype: str = "float32"
    """Precision of the weights. That pictures do not depend on their company is tested in float32."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the engine; torch's own number where it is open."""
    loads_at_start: bool = True
    """Load and measure all models before the first request; otherwise each with its first request."""
    max_running: int = Field(default=16, ge=1)
    """Pictures that are drawn at the same time."""
    max_tokens: int = Field(default=16384, ge=1)
    """Image and text tokens, of both passes, that are in flight; a larger picture is drawn alone."""
    pack_tokens: int = Field(default=16384, ge=1)
    """Tokens of one pass of the denoiser; halved whenever memory runs out."""
    max_waiting: int = Field(default=256, ge=1)
    """Pictures that may wait."""
    max_waiting_s: float = Field(default=600.0, gt=0)
    """Estimated seconds of work that may wait."""
    max_steps: int = Field(default=200, ge=1)
    """Steps that one picture may ask for."""
    text_cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """Memory for text features of prompts: hundreds of nano's, some ten of the full model's."""
