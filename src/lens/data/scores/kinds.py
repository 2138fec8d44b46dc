"""The scorers that a recipe can name, by their `kind`."""

from typing import Annotated

from pydantic import Field

from lens.data.scores.aesthetics import AestheticsSettings
from lens.data.scores.classifiers import NsfwSettings, WatermarkSettings
from lens.data.scores.embeddings import EmbeddingSettings
from lens.data.scores.nudity import NudeNetSettings
from lens.data.scores.text_in_picture import OcrSettings

AnyScorer = Annotated[
    NudeNetSettings | OcrSettings | AestheticsSettings | NsfwSettings | WatermarkSettings | EmbeddingSettings,
    Field(discriminator="kind"),
]
