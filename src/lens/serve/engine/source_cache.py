"""The source images that were used last, ready for the denoiser: all images of a request have the same one.

Files are known by their content, as a replica gets them in a new folder each time.
"""

from collections import OrderedDict
from pathlib import Path

from lens.models.checkpoints.hashing import file_hash
from lens.sampling.inputs import SourceImages, prepare_source

MAX_SOURCES = 2
"""A source of 2 megapixels takes 25 MB."""


class SourceCache:
    """Prepared source images, the least recently used first out; for one thread."""

    def __init__(self):
        self._entries: OrderedDict[tuple[object, ...], SourceImages] = OrderedDict()

    def prepare(
        self, image: Path | None, mask: Path | None, size: tuple[int, int], base: int
    ) -> SourceImages:
        """Return the source image and the mask at a size (height, width); `base` is that of the model.

        Raises: SettingError for a file that cannot be used.
        """
        asked = (*size, None, None)
        if image is None:
            return prepare_source(image, mask, asked, base)
        key = (file_hash(image), mask and file_hash(mask), size, base)
        if key not in self._entries:
            self._entries[key] = prepare_source(image, mask, asked, base)
        self._entries.move_to_end(key)
        while len(self._entries) > MAX_SOURCES:
            self._entries.popitem(last=False)
        return self._entries[key]
