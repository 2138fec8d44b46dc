"""The registry of scorers that a recipe can name, by their `kind`."""

from typing import Annotated

from pydantic import Field

from lens.data.scorers.aesthetics import AestheticsSettings
from lens.data.scorers.classifiers import NsfwSettings, WatermarkSettings
from lens.data.scorers.clip import EmbeddingSettings
from lens.data.scorers.nudenet import NudeNetSettings
from lens.data.scorers.ocr import OcrSettings

AnyScorerSettings = Annotated[
    NudeNetSettings | OcrSettings | AestheticsSettings | NsfwSettings | WatermarkSettings | EmbeddingSettings,
    Field(discriminator="kind"),
]
