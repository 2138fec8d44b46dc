"""The registry of data sources: a new source is one file and one line here."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from lens.data.io.entry import Entry
from lens.data.sources.base import DataSource
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.sources.manifest import ManifestSource
from lens.data.sources.synthetic_text import SyntheticTextSource
from lens.data.sources.webdataset import WebDatasetSource

SOURCES: tuple[type[DataSource], ...] = (
    ImageFolderSource,
    WebDatasetSource,
    ManifestSource,
    SyntheticTextSource,
)
"""All sources; a recipe chooses one by its `kind`."""

if TYPE_CHECKING:
    AnySource = DataSource
else:
    AnySource = Annotated[Union[SOURCES], Field(discriminator="kind")]  # noqa: UP007 - made from a tuple

NumberedEntry = tuple[int, Entry]
"""An entry, and before it the number of its source."""
