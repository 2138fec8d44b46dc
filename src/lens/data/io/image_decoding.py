"""Decoding of untrusted bytes to an upright 8-bit RGB image, or a reason to reject them.

Knows nothing of where the bytes came from or how the image is used. Letters: H and W pixels.
"""

import hashlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are decoded. Pillow knows dozens more, and each is code that reads untrusted bytes."""
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""File extensions of these formats, in lower case."""
MAX_PIXELS = 178_956_970
"""Images of more pixels are rejected before they are decoded: the limit of Pillow.

At eight bytes a pixel an image of this size takes 1.4 GB.
"""
STRIP_PIXELS = 2**16
ALPHA_BACKGROUND = (255, 255, 255)
"""Transparent images are composited on white."""


class ImageError(Exception):
    """Bytes that are not a usable image; the reason is one word for the ledger, the detail is for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class DecodedImage(NamedTuple):
    """A decoded image and the conversions that it needed."""

    image: Image.Image
    """RGB, upright, of full size."""
    format: str
    notes: tuple[str, ...]
    """Some of: rotated, alpha, animated, cmyk, deep, palette, grey."""


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
        opened.load()
        upright: Image.Image = opened
        if opened.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
            upright = ImageOps.exif_transpose(opened)  # copies the image even where there is nothing to do
            notes.append("rotated")
        rgb, conversion_notes = _to_rgb(upright)
        return DecodedImage(rgb, opened.format or "", (*notes, *conversion_notes))


def _to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the image in 8-bit RGB, and notes on its conversion."""
    if image.mode == "RGB":
        return image, ()
    if image.mode.startswith("I") or image.mode == "F":
        return _from_high_bit_depth(image), ("deep", "grey")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _flatten_alpha(image)
    notes = {"CMYK": ("cmyk",), "P": ("palette",), "L": ("grey",), "1": ("grey",)}
    return image.convert("RGB"), notes.get(image.mode, ())


def _flatten_alpha(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return an image composited on ALPHA_BACKGROUND, and a note where it is not opaque.

    Strip by strip, so that intermediate results stay in the cache of the processor: on huge images, whole
    passes took as long as decoding, and three times the memory.
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
    # Full-colour images with an opaque alpha channel are as common as transparent ones.
    rgb = page if mode == "RGB" else page.convert("RGB")
    return rgb, () if is_opaque else ("alpha",)


def _flatten_palette_alpha(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Composite the colours of the palette, not the pixels that have them."""
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
    """Return 16-bit and floating-point grey at 8 bits; the conversion of Pillow clips instead of scaling."""
    levels = np.asarray(image).astype(np.float64)                           # (H, W)
    top = 1.0 if levels.max() <= 1 and image.mode == "F" else 65535.0 if levels.max() > 255 else 255.0
    return Image.fromarray((levels.clip(0, top) / top * 255 + 0.5).astype(np.uint8)).convert("RGB")
