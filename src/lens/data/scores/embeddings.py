"""CLIP embeddings of pictures, by which near duplicates are found: ViT-L/14 in the paper.

Takes a whole CLIP, whose text half is left on disk, or its vision half with the projection.
Paper: Lens report, data section (stage 9). Letters: B batch, E embedding width.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image

from lens.data.scores.checkpoint import (
    PublishedSettings,
    batches,
    device_of,
    folder_of,
    load_strictly,
    processor_of,
    published_version,
)

VERSION = "1"
"""Of the way from the model's output to the embedding."""
TEXT_HALF = ("text_model.", "text_projection.", "logit_scale")
BUFFERS = ("vision_model.embeddings.position_ids",)


class EmbeddingSettings(PublishedSettings):
    kind: Literal["embedding"] = "embedding"

    @property
    def columns(self) -> dict[str, str]:
        return {"embedding": "float32_list"}

    def scorer(self) -> "Embedding":
        return Embedding(self)


class Embedding:
    """The projected vector of a picture at unit length: float32, (E,)."""

    def __init__(self, settings: EmbeddingSettings):
        self.settings = settings
        self.name = settings.kind
        self.columns = settings.columns
        self.folder = folder_of(settings)
        self.version = published_version(settings, self.folder, VERSION)

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        import torch

        rows = []
        with torch.inference_mode():
            for inputs in batches(images, self._processor, self.settings, self._model.device):
                projected = self._model(**inputs).image_embeds                       # (B, E)
                unit = torch.nn.functional.normalize(projected, dim=-1).cpu().numpy()
                rows += [{"embedding": one} for one in unit]
        return rows

    @functools.cached_property
    def _processor(self) -> Any:
        return processor_of(self.folder)

    @functools.cached_property
    def _model(self) -> Any:
        from transformers import CLIPVisionModelWithProjection

        model = load_strictly(CLIPVisionModelWithProjection, self.folder, ignored=(*TEXT_HALF, *BUFFERS))
        return model.to(device_of(self.settings))
