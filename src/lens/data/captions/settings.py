"""Settings of captioning: where captions come from, how often it is tried, what a caption has to keep."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lens.config import Settings
from lens.data.captions.prompts import CaptionKind
from lens.data.captions.validation import CaptionRules
from lens.llm.client import Endpoint


class SidecarCaptionerSettings(Settings):
    """Captions are what came with the pictures, as it is."""

    kind: Literal["sidecar"] = "sidecar"
    requires: bool = False
    """Whether a sample without a caption falls, as `caption_missing`."""


class ModelCaptionerSettings(Settings):
    """What captioners that ask a model share."""

    kinds: tuple[CaptionKind, ...] = ("dense",)
    """Captions of each sample: dense, and brief as a second one for ablations."""
    max_tries: int = Field(3, ge=1)
    """Captions asked for until one passes the audit; then the sample falls for what the last one failed."""
    side_px: int = Field(1024, ge=64)
    """Longer side of the picture that the model is shown."""
    temperature: float = Field(0.4, ge=0)
    audit: CaptionRules = Field(default_factory=lambda: CaptionRules.of({}))
    """Of dense captions."""


class EndpointCaptionerSettings(ModelCaptionerSettings):
    """A vision-language model behind any endpoint that speaks OpenAI's API."""

    kind: Literal["openai"] = "openai"
    endpoint: Endpoint
    concurrency: int = Field(8, gt=0)
    """Questions at once."""
    give_up_after: int = Field(20, ge=1)
    """Samples in a row without an answer, after which the endpoint is taken for dead."""
    price_of_million_tokens: tuple[float, float] | None = None
    """Of the prompt and of the completion, in whatever money; None counts tokens alone."""


class TransformersCaptionerSettings(ModelCaptionerSettings):
    """A vision-language model of the transformers library, on this machine."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """A folder, or a name on the hub."""
    device: str = "auto"


class VllmCaptionerSettings(ModelCaptionerSettings):
    """A vision-language model that vLLM runs on the GPUs of the cluster, through Ray Data."""

    kind: Literal["vllm"] = "vllm"
    model: str
    """A folder that every machine of the cluster sees, or a name on the hub."""
    replicas: int = Field(1, ge=1)
    """Engines at once; how many GPUs each takes is the engine's tensor_parallel_size."""
    batch_size: int = Field(64, ge=1)
    """Pictures that are handed to an engine together."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, such as max_model_len."""


AnyCaptionerSettings = Annotated[
    SidecarCaptionerSettings
    | EndpointCaptionerSettings
    | TransformersCaptionerSettings
    | VllmCaptionerSettings,
    Field(discriminator="kind"),
]
