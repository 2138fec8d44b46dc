"""Settings of captioning: the backend, the number of tries, and the rules that captions have to pass."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lens.config import Settings
from lens.data.captions.prompts import CaptionKind
from lens.data.captions.validation import CaptionRules
from lens.llm.client import Endpoint


class SidecarCaptionerSettings(Settings):
    """Captions are those that came with the images, unchanged."""

    kind: Literal["sidecar"] = "sidecar"
    requires: bool = True
    """Whether a sample without a caption is dropped as `caption_missing`: training needs one for each, or
    `data.trigger` in its place."""


class ModelCaptionerSettings(Settings):
    """Settings that all captioners with a model share."""

    kinds: tuple[CaptionKind, ...] = ("dense",)
    """Captions of each sample: dense, and a brief one for ablations."""
    max_tries: int = Field(3, ge=1)
    """Tries for a caption that passes the rules; then the sample is dropped for the error of the last one."""
    side_px: int = Field(1024, ge=64)
    """Longer side of the image that the model sees."""
    temperature: float = Field(0.4, ge=0)
    audit: CaptionRules = Field(default_factory=lambda: CaptionRules.of({}))
    """Rules of dense captions."""


class EndpointCaptionerSettings(ModelCaptionerSettings):
    """A vision-language model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"] = "openai"
    endpoint: Endpoint
    concurrency: int = Field(8, gt=0)
    """Concurrent requests."""
    give_up_after: int = Field(20, ge=1)
    """Failed samples in a row after which the endpoint counts as down."""
    price_of_million_tokens: tuple[float, float] | None = None
    """Prices of prompt and completion tokens, in any currency; None counts tokens only."""


class TransformersCaptionerSettings(ModelCaptionerSettings):
    """A vision-language model of the transformers library, on this machine."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """A folder, or the name of a model on the hub."""
    device: str = "auto"


class VllmCaptionerSettings(ModelCaptionerSettings):
    """A vision-language model that vLLM runs on the GPUs of the cluster, through Ray Data."""

    kind: Literal["vllm"] = "vllm"
    model: str
    """A folder that every machine of the cluster sees, or the name of a model on the hub."""
    replicas: int = Field(1, ge=1)
    """Number of engines; each uses `engine.tensor_parallel_size` GPUs."""
    batch_size: int = Field(64, ge=1)
    """Images that an engine gets at a time."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the vLLM engine, such as max_model_len."""


AnyCaptionerSettings = Annotated[
    SidecarCaptionerSettings
    | EndpointCaptionerSettings
    | TransformersCaptionerSettings
    | VllmCaptionerSettings,
    Field(discriminator="kind"),
]
