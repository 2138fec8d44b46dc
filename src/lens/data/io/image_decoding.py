"""Untrusted bytes to a picture that can be trained on: whole, upright, 8-bit RGB; or refused with the reason.

Knows nothing of where the bytes came from or what is done with the picture. Letters: H and W pixels.
"""

import hashlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded; Pillow knows dozens more, each of them code that reads strangers' bytes."""
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""File extensions of these formats, in lower case."""
MAX_PIXELS = 178_956_970
"""Pictures that claim more are refused before any of them is decoded: Pillow's own limit.

At eight bytes a pixel one of this size takes a worker 1.4 GB.
"""
STRIP_PIXELS = 2**16
ALPHA_BACKGROUND = (255, 255, 255)
"""Transparent pictures are put on white, as a page would show them."""


class ImageError(Exception):
    """Bytes that are no usable picture; the reason is one word for the ledger, the detail is for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class DecodedImage(NamedTuple):
    """A decoded picture and what had to be done to it."""

    image: Image.Image
    """RGB, upright, of full size."""
    format: str
    notes: tuple[str, ...]
    """Out of: rotated, alpha, animated, cmyk, deep, palette, grey."""


def sample_id(content: bytes) -> str:
    """Return the name of a sample everywhere downstream: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Return the picture that bytes hold; of an animation the first frame.

    Raises: Unreadable with the reason empty, unknown_type, bomb, or corrupt.
    """
    if not content:
        raise ImageError("empty", "no bytes at all")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit is ours, and it is an error
            return _decode_unchecked(content, max_pixels)
    except UnidentifiedImageError as error:
        raise ImageError("unknown_type", f"none of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("bomb", str(error)) from error
    # Decoders meet damaged files with whatever breaks first in them; none of it may stop a build.
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
        opened.load()
        upright: Image.Image = opened
        if opened.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
            upright = ImageOps.exif_transpose(opened)  # copies the picture even where it has nothing to do
            notes.append("rotated")
        rgb, conversion_notes = _to_rgb(upright)
        return DecodedImage(rgb, opened.format or "", (*notes, *conversion_notes))


def _to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the picture in 8-bit RGB and what that took."""
    if image.mode == "RGB":
        return image, ()
    if image.mode.startswith("I") or image.mode == "F":
        return _from_high_bit_depth(image), ("deep", "grey")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _flatten_alpha(image)
    notes = {"CMYK": ("cmyk",), "P": ("palette",), "L": ("grey",), "1": ("grey",)}
    return image.convert("RGB"), notes.get(image.mode, ())


def _flatten_alpha(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return a picture with transparency on a page of BEHIND, and whether anything shows through.

    Strip by strip, so that what is made on the way stays in the processor's cache: over giants, whole passes
    took as long as decoding, and three times the memory.
    """
    if image.mode == "P":
        return _flatten_palette_alpha(image)
    mode = "L" if image.mode == "LA" else "RGB"
    width, height = image.size
    page = Image.new(mode, image.size, ALPHA_BACKGROUND[: len(mode)])
    is_opaque = True
    num_rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, num_rows):
        strip = image.crop((0, top, width, min(height, top + num_rows)))
        if image.mode not in ("LA", "RGBA"):
            strip = strip.convert("RGBA")
        alpha = strip.getchannel("A")
        if alpha.getextrema()[0] == 255:
            page.paste(strip.convert(mode), (0, top))
            continue
        is_opaque = False
        if box := alpha.getbbox():
            seen = strip.crop(box).convert(mode)
            page.paste(seen, (box[0], top + box[1]), alpha.crop(box))
    # Full-colour pictures that carry an opaque alpha channel are as common as transparent ones.
    rgb = page if mode == "RGB" else page.convert("RGB")
    return rgb, () if is_opaque else ("alpha",)


def _flatten_palette_alpha(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Put the colours of a palette on the page, not the pixels that have them."""
    colours = Image.fromarray(np.arange(256, dtype=np.uint8)[None], "P")
    colours.putpalette(image.getpalette() or [])
    colours.info["transparency"] = image.info["transparency"]
    layered = colours.convert("RGBA")
    shown = np.array(image.histogram()) > 0
    is_opaque = (np.asarray(layered)[0, shown, 3] == 255).all()
    on_page, _ = _flatten_alpha(layered)
    solid = image.copy()
    solid.info.pop("transparency")
    solid.putpalette(on_page.tobytes())
    return solid.convert("RGB"), ("palette",) if is_opaque else ("alpha",)


def _from_high_bit_depth(image: Image.Image) -> Image.Image:
    """Return 16-bit and floating-point grey at 8 bits; Pillow's own conversion clips instead of scaling."""
    levels = np.asarray(image).astype(np.float64)                           # (H, W)
    top = 1.0 if levels.max() <= 1 and image.mode == "F" else 65535.0 if levels.max() > 255 else 255.0
    return Image.fromarray((levels.clip(0, top) / top * 255 + 0.5).astype(np.uint8)).convert("RGB")
