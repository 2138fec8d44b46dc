"""Classifiers of pictures from published weights: not safe for work, and watermarked.

Both take any image classifier that transformers loads, one label a picture. The paper fine-tuned an EVA for
the one and a SigLIP2 for the other and published neither; open ones of the same kind fit in. A classifier
whose config is a timm model needs the package timm beside ours.
Paper: Lens report, data section (stages 3 and 5). Letters: B batch, L labels.
"""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from PIL import Image

from lens.data.scores.checkpoint import (
    PublishedSettings,
    batches,
    config_of,
    device_of,
    folder_of,
    load_strictly,
    processor_of,
    published_version,
)
from lens.errors import SettingError

VERSION = "1"
"""Of the way from the model's output to the score."""


class ClassifierSettings(PublishedSettings):
    usual_labels: ClassVar[frozenset[str]]
    """What published models call the labels that count."""
    column: ClassVar[str]
    unsafe_labels: tuple[str, ...] | None = None
    """Labels whose probabilities are added up, in any case of letters; None takes those with a usual name."""

    @property
    def columns(self) -> dict[str, str]:
        return {self.column: "float64"}

    def scorer(self) -> "Classifier":
        return Classifier(self)


class NsfwSettings(ClassifierSettings):
    kind: Literal["nsfw"] = "nsfw"
    usual_labels = frozenset({"nsfw", "unsafe", "explicit", "porn", "hentai", "sexy", "medium", "high"})
    column = "nsfw"


class WatermarkSettings(ClassifierSettings):
    kind: Literal["watermark"] = "watermark"
    usual_labels = frozenset({"watermark", "watermarked"})
    column = "watermark"


class Classifier:
    """The probability, in [0, 1], that a picture has one of the labels that count."""

    def __init__(self, settings: ClassifierSettings):
        self.settings = settings
        self.name = settings.kind
        self.columns = settings.columns
        self.folder = folder_of(settings)
        config = config_of(self.folder)
        self.counted = counted_labels(config.id2label, settings)
        if config.problem_type not in (None, "single_label_classification"):
            needs, fix = "a classifier with one label a picture", f"It is for {config.problem_type}."
            raise SettingError(f"{self.name}.model", settings.model, needs, fix)
        self.version = published_version(settings, self.folder, VERSION, self.counted)

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        import torch

        rows = []
        with torch.inference_mode():
            for inputs in batches(images, self._processor, self.settings, self._model.device):
                probabilities = self._model(**inputs).logits.softmax(dim=-1)          # (B, L)
                counted = probabilities[:, self.counted].sum(dim=-1).clamp(max=1.0)   # (B,)
                rows += [{self.settings.column: value} for value in counted.tolist()]
        return rows

    @functools.cached_property
    def _processor(self) -> Any:
        return processor_of(self.folder)

    @functools.cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForImageClassification

        return load_strictly(AutoModelForImageClassification, self.folder).to(device_of(self.settings))


def counted_labels(names: dict[int, str], settings: ClassifierSettings) -> list[int]:
    """Return the numbers of the labels that count.

    Raises: SettingError for a label that the model does not have, and where none or all of them count.
    """
    number_of = {name.lower(): number for number, name in names.items()}
    setting, have = f"{settings.kind}.unsafe_labels", f"It has {', '.join(names.values())}."
    if settings.unsafe_labels is None:
        found = sorted(number_of[name] for name in settings.usual_labels & number_of.keys())
    else:
        unknown = [name for name in settings.unsafe_labels if name.lower() not in number_of]
        if unknown:
            raise SettingError(setting, ", ".join(unknown), f"labels of {settings.model}", have)
        found = sorted({number_of[name.lower()] for name in settings.unsafe_labels})
    if not 0 < len(found) < len(names):
        needs = f"some of the labels of {settings.model}, and not all of them"
        raise SettingError(setting, settings.unsafe_labels, needs, have)
    return found
