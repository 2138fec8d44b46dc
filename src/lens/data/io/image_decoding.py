"""Decoding of untrusted bytes to an upright image in sRGB, or a reason to reject them.

Knows nothing of where the bytes came from or how the image is used. Letters: H and W pixels.
"""

import hashlib
import io
import warnings
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from lens.core.images import to_srgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are decoded. Pillow knows dozens more, and each is code that reads untrusted bytes."""
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""File extensions of these formats, in lower case."""
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
    """`animated`, and those of `SrgbImage`."""


def sample_id(content: bytes) -> str:
    """Return the id of a sample: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Return the image of encoded bytes; of an animation the first frame.

    Raises: ImageError with the reason empty, unknown_type, bomb, or corrupt.
    """
    if not content:
        raise ImageError("empty", "no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit raises an error
            return _decode_unchecked(content, max_pixels)
    except UnidentifiedImageError as error:
        raise ImageError("unknown_type", f"not one of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("bomb", str(error)) from error
    # Decoders raise all kinds of errors for damaged files; none may stop a build.
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, MemoryError) as error:
        raise ImageError("corrupt", f"{type(error).__name__}: {error}") from error


def _decode_unchecked(content: bytes, max_pixels: int) -> DecodedImage:
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise ImageError("bomb", f"claims {width} x {height}, the limit is {max_pixels} pixels")
        notes = []
        if getattr(opened, "n_frames", 1) > 1:
            notes.append("animated")
            opened.seek(0)
        rgb, conversion_notes = to_srgb(opened)
        return DecodedImage(rgb, opened.format or "", (*notes, *conversion_notes))
