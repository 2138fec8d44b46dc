"""Decoding of untrusted bytes to an upright image in sRGB, or a reason to reject them.

Knows nothing of where the bytes came from or how the image is used. Letters: H and W pixels.
"""

import hashlib
import io
import warnings
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from lens.core.images import to_srgb
from lens.data.io.image_repair import drop_bad_chunks, load_jpeg
from lens.data.io.image_types import PREFIX_BYTES, image_type

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded. Pillow knows dozens more, and each is code that reads untrusted bytes."""
PLUGINS = {"HEIF": "pillow-heif", "JXL": "pillow-jxl-plugin"}
"""Packages that decode further formats, in the extra `formats`."""
IMAGE_EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".jxl",
)  # fmt: skip
"""File extensions of these formats, in lower case."""
REDUCED_IMAGE_TAG = 254
"""Tag of TIFF whose first bit says that an image is the preview of another one in the file."""
MAX_PIXELS = 178_956_970
"""Images of more pixels are rejected before they are decoded: the limit of Pillow.

At eight bytes a pixel an image of this size takes 1.4 GB.
"""


class ImageError(Exception):
    """Bytes that are not a usable image; the reason is one word for the ledger, the detail is for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class DecodedImage(NamedTuple):
    """A decoded image and the conversions that it needed."""

    image: Image.Image
    """RGB in sRGB, upright, of full size."""
    format: str
    notes: tuple[str, ...]
    """`animated`, `cut_off` for one that lacks its last rows, and those of `SrgbImage`."""


def sample_id(content: bytes) -> str:
    """Return the id of a sample: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


def decode_thumbnail(content: bytes, side_px: int) -> Image.Image:
    """Return the image of encoded bytes with its longer side reduced to at most `side_px`.

    A JPEG is decoded at a fraction of its size, so that a thumbnail of 120 megapixels takes 6 MB, not 360.
    Raises: ImageError, as `decode_image` does.
    """
    try:
        image = decode_image(content, draft_px=2 * side_px).image
    except ImageError:  # a part of a JPEG may be legible at full size alone
        image = decode_image(content).image
    image.thumbnail((side_px, side_px), reducing_gap=2.0)
    return image


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS, draft_px: int = 0) -> DecodedImage:
    """Return the image of encoded bytes; of an animation the first frame.

    With `draft_px`, a JPEG may come at a half, a quarter or an eighth of its size, no side below that.

    Raises: ImageError with the reason empty, unknown_type, unsupported_type, bomb, or corrupt.
    """
    if not content:
        raise ImageError("empty", "no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit raises an error
            return _decode_unchecked(content, max_pixels, draft_px)
    except UnidentifiedImageError as error:
        raise _unidentified(image_type(content[:PREFIX_BYTES])) from error
    except Image.DecompressionBombError as error:
        raise ImageError("bomb", str(error)) from error
    except ImageError:
        raise
    # Decoders raise all kinds of errors for damaged files; none may stop a build.
    except Exception as error:
        raise ImageError("corrupt", f"{type(error).__name__}: {error}") from error


def _decode_unchecked(content: bytes, max_pixels: int, draft_px: int) -> DecodedImage:
    kind = image_type(content[:PREFIX_BYTES])
    content = drop_bad_chunks(content) if kind == "PNG" else content
    with Image.open(io.BytesIO(content), formats=(*FORMATS, *_plugin_formats(kind))) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise ImageError("bomb", f"claims {width} x {height}, the limit is {max_pixels} pixels")
        notes = []
        if getattr(opened, "n_frames", 1) > 1:
            notes.append("animated")
            opened.seek(0)
        if isinstance(opened, TiffImageFile) and opened.tag_v2.get(REDUCED_IMAGE_TAG, 0) & 1:
            raise ImageError("unsupported_type", "a preview is all that can be read, as in camera raw files")
        if draft_px:
            opened.draft(None, (draft_px, draft_px))
        is_draft = opened.size != (width, height)
        loaded = load_jpeg(opened, content) if kind == "JPEG" and not is_draft else opened
        if loaded.size != opened.size:
            notes.append("cut_off")
        rgb, conversion_notes = to_srgb(loaded)
        return DecodedImage(rgb, opened.format or "", (*notes, *conversion_notes))


@lru_cache
def _plugin_formats(kind: str) -> tuple[str, ...]:
    """Return the format of a plugin, which is imported where an image needs it."""
    if kind not in PLUGINS:
        return ()
    try:
        if kind == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401 - registers itself
    except ImportError:
        return ()
    return (kind,)


def _unidentified(kind: str) -> ImageError:
    """Return the error of a file of a type that Pillow does not recognize."""
    if kind in PLUGINS and not _plugin_formats(kind):
        fix = '.venv/bin/pip install -c constraints.txt ".[formats]"'
        return ImageError("unsupported_type", f"{kind} needs the package {PLUGINS[kind]}: {fix}")
    if kind in (*FORMATS, *PLUGINS):
        return ImageError("corrupt", f"a damaged {kind} file")
    known = ", ".join((*FORMATS, *PLUGINS))
    return ImageError("unsupported_type" if kind else "unknown_type", f"{kind or 'it'} is not one of {known}")
