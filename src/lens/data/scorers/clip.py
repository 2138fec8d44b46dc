"""The CLIP scorer: image embeddings for finding near duplicates, from ViT-L/14 in the paper.

Takes a whole CLIP, whose text encoder is not loaded, or its vision encoder with the projection.
Paper: Lens report, data section (stage 9). Letters: B batch, E embedding width.
"""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from lens.data.scorers.pretrained import (
    PretrainedScorer,
    PretrainedSettings,
    load_pretrained_strict,
    scorer_device,
)

if TYPE_CHECKING:
    import torch

TEXT_ENCODER_PREFIXES = ("text_model.", "text_projection.", "logit_scale")
BUFFERS = ("vision_model.embeddings.position_ids",)


class EmbeddingSettings(PretrainedSettings):
    """A CLIP model."""

    kind: Literal["embedding"] = "embedding"

    @property
    def columns(self) -> dict[str, str]:
        return {"embedding": "float32_list"}

    def create_scorer(self) -> "EmbeddingScorer":
        return EmbeddingScorer(self)


class EmbeddingScorer(PretrainedScorer):
    """Fills `embedding` with the projected vector of an image at unit length: float32, (E,)."""

    VERSION = "1"

    def rows(self, inputs: "Mapping[str, torch.Tensor]") -> list[dict[str, Any]]:
        import torch

        projected = self._model(**inputs).image_embeds                       # (B, E)
        unit = torch.nn.functional.normalize(projected, dim=-1).cpu().numpy()
        return [{"embedding": one} for one in unit]

    @functools.cached_property
    def _model(self) -> Any:
        from transformers import CLIPVisionModelWithProjection

        model = load_pretrained_strict(
            CLIPVisionModelWithProjection, self.folder, ignored=(*TEXT_ENCODER_PREFIXES, *BUFFERS)
        )
        return model.to(scorer_device(self.settings))
