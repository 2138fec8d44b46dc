"""Classifier scorers from published weights: NSFW and watermark.

Both take any single-label image classifier that transformers loads. The paper fine-tuned an EVA for NSFW and
a SigLIP2 for watermarks and published neither; open classifiers replace them. A classifier whose config names
a timm model needs the package timm.
Paper: Lens report, data section (stages 3 and 5). Letters: B batch, L labels.
"""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lens.data.scorers.pretrained import (
    PretrainedScorer,
    PretrainedSettings,
    load_hf_config,
    load_pretrained_strict,
    scorer_device,
)
from lens.errors import SettingError

if TYPE_CHECKING:
    import torch



class ClassifierSettings(PretrainedSettings):
    """Base of the settings of classifiers."""

    usual_labels: ClassVar[frozenset[str]]
    """Names of the positive labels in published models."""
    column: ClassVar[str]
    unsafe_labels: tuple[str, ...] | None = None
    """Positive labels, in any case, whose probabilities are added up; None means those with a usual name."""

    @property
    def columns(self) -> dict[str, str]:
        return {self.column: "float64"}

    def create_scorer(self) -> "ClassifierScorer":
        return ClassifierScorer(self)


class NsfwSettings(ClassifierSettings):
    """A classifier of images that are not safe for work."""

    kind: Literal["nsfw"] = "nsfw"
    usual_labels = frozenset({"nsfw", "unsafe", "explicit", "porn", "hentai", "sexy", "medium", "high"})
    column = "nsfw"


class WatermarkSettings(ClassifierSettings):
    """A classifier of watermarked images."""

    kind: Literal["watermark"] = "watermark"
    usual_labels = frozenset({"watermark", "watermarked"})
    column = "watermark"


class ClassifierScorer(PretrainedScorer):
    """Fills one column with the probability, in [0, 1], that an image has a positive label."""

    VERSION = "1"
    settings: ClassifierSettings

    @functools.cached_property
    def label_indices(self) -> list[int]:
        """The indices of the positive labels."""
        config = load_hf_config(self.folder)
        indices = matching_label_indices(config.id2label, self.settings)
        if config.problem_type not in (None, "single_label_classification"):
            needs, fix = "a single-label classifier", f"It is for {config.problem_type}."
            raise SettingError(f"{self.name}.model", self.settings.model, needs, fix)
        return indices

    def version_inputs(self) -> tuple[Any, ...]:
        return (self.label_indices,)

    def rows(self, inputs: "Mapping[str, torch.Tensor]") -> list[dict[str, Any]]:
        probabilities = self._model(**inputs).logits.softmax(dim=-1)          # (B, L)
        positive = probabilities[:, self.label_indices].sum(dim=-1).clamp(max=1.0)   # (B,)
        return [{self.settings.column: value} for value in positive.tolist()]

    @functools.cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForImageClassification

        return load_pretrained_strict(AutoModelForImageClassification, self.folder).to(
            scorer_device(self.settings)
        )


def matching_label_indices(names: dict[int, str], settings: ClassifierSettings) -> list[int]:
    """Return the indices of the positive labels.

    Raises: SettingError for a label that the model lacks, and where no or every label is positive.
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
        needs = f"some, but not all, of the labels of {settings.model}"
        raise SettingError(setting, settings.unsafe_labels, needs, have)
    return found
