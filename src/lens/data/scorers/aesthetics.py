"""The aesthetics scorer: Aesthetic Predictor v2.5, a SigLIP model with a small head; about 1 to 10.

The head takes the pooled vector at unit length. It has five linear layers, 1152 -> 1024 -> 128 -> 64 -> 16
-> 1, with dropouts between them, which do nothing here, and no activations: it is a product of matrices.

Assumptions about the published file, which the tests cannot download: one folder with the config of a SigLIP
vision model (or of a whole SigLIP, whose vision part is used), the prefix `vision_model.` for its weights,
and the head as `layers.layers.N.weight` and `.bias`. N counts dropouts too, so only its order is used.
Paper: Lens report, data section (stage 4). Letters: B batch, D width of the pooled vector.
"""

import functools
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lens.data.scorers.pretrained import (
    PretrainedScorer,
    PretrainedSettings,
    check_weights,
    load_hf_config,
    load_safetensors,
    scorer_device,
)
from lens.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

HEAD_KEY = re.compile(r"layers\.layers\.(\d+)\.(weight|bias)")
VISION_PREFIX = "vision_model."
BUFFERS = {"vision_model.embeddings.position_ids"}
"""Older versions of transformers saved this buffer; it holds 0, 1, 2 and so on."""


class AestheticsSettings(PretrainedSettings):
    """The Aesthetic Predictor v2.5."""

    kind: Literal["aesthetics"] = "aesthetics"

    @property
    def columns(self) -> dict[str, str]:
        return {"aesthetics": "float64"}

    def create_scorer(self) -> "AestheticsScorer":
        return AestheticsScorer(self)


class AestheticsScorer(PretrainedScorer):
    """Fills `aesthetics` with the output of the predictor; the paper keeps images from 3 on."""

    VERSION = "1"

    def rows(self, inputs: "Mapping[str, torch.Tensor]") -> list[dict[str, Any]]:
        import torch

        vision, head = self._models
        pooled = vision(**inputs).pooler_output                          # (B, D)
        values = head(torch.nn.functional.normalize(pooled, dim=-1))     # (B, 1)
        return [{"aesthetics": value} for value in values[:, 0].tolist()]

    @functools.cached_property
    def _models(self) -> "tuple[Any, nn.Module]":
        device, weights = scorer_device(self.settings), load_safetensors(self.folder)
        ours = {name: HEAD_KEY.fullmatch(name) is not None for name in weights}
        head = load_head(self.folder, {name: weights[name] for name in weights if ours[name]})
        vision = load_vision_model(self.folder, {name: weights[name] for name in weights if not ours[name]})
        return vision.to(device), head.to(device)


def load_head(folder: Path, weights: "Mapping[str, torch.Tensor]") -> "nn.Module":
    """Return the head: its linear layers in the order of their numbers.

    Raises: CheckpointError where there are no layers, a weight or bias is missing, or sizes do not match.
    """
    from torch import nn

    numbers = sorted({int(name.split(".")[2]) for name in weights})
    names = [{kind: f"layers.layers.{n}.{kind}" for kind in ("weight", "bias")} for n in numbers or [0]]
    check_weights(folder, {name for layer in names for name in layer.values()} - weights.keys(), ())
    shapes = [tuple(weights[layer["weight"]].shape) for layer in names]
    joins = all(above[1] == below[0] for below, above in itertools.pairwise(shapes))
    if not joins or shapes[-1][0] != 1:
        raise CheckpointError(f"{folder} is not a checkpoint of this model: its head has the sizes {shapes}.")
    head = nn.Sequential(*(nn.Linear(width, height) for height, width in shapes))
    for linear, layer in zip(head, names, strict=True):
        linear.load_state_dict({kind: weights[name] for kind, name in layer.items()})
    return head.eval().requires_grad_(False)


def load_vision_model(folder: Path, weights: "Mapping[str, torch.Tensor]") -> Any:
    """Return the SigLIP vision model of a checkpoint, loaded strictly."""
    from transformers import SiglipVisionModel

    config = load_hf_config(folder)
    model: Any = SiglipVisionModel(getattr(config, "vision_config", config))
    # Versions of transformers disagree on whether the model has the prefix that files have.
    prefix = "" if all(name.startswith(VISION_PREFIX) for name in model.state_dict()) else VISION_PREFIX
    expected = {prefix + name for name in model.state_dict()}
    check_weights(folder, expected - weights.keys(), weights.keys() - expected - BUFFERS)
    try:
        model.load_state_dict({name.removeprefix(prefix): weights[name] for name in expected})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{folder} does not fit its own config: {reason}") from error
    return model.eval().requires_grad_(False)
