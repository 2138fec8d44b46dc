"""Uploaded images: checks untrusted bytes and stores them as PNG files for the engine.

Knows nothing of HTTP; errors name the parameter.
"""

import base64
import binascii
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from lens.core.images import alpha_channel, to_srgb
from lens.errors import SettingError
from lens.serve.api.errors import without_places
from lens.serve.api.schemas import UploadedImages

if TYPE_CHECKING:
    from lens.serve.storage.server_state import UploadStore

UPLOAD_FORMATS = ("PNG", "JPEG", "WEBP")


class SourceFiles(NamedTuple):
    """The source image and the mask of a request, as they were sent."""

    image: bytes | None = None
    mask: bytes | None = None


def store_source_images(
    uploads: "UploadStore", image: bytes | None, mask: bytes | None, max_px: int, base_resolution: int
) -> UploadedImages:
    """Check and store a source image and its mask.

    Raises: SettingError that names the parameter; LensError if a file cannot be stored.
    """
    if image is None:
        if mask is not None:
            raise SettingError("mask", "given", "an image that it is a mask of", "Send image too.")
        return UploadedImages()
    from lens.sampling.image_processor import size_from_image

    opened = _open_image(image, "image", max_px, lambda file: to_srgb(file).image)
    mask_image = None if mask is None else _open_image(mask, "mask", max_px, _inpaint_mask)
    if mask_image is not None and mask_image.size != opened.size:
        needs = f"the size of the image, {opened.width}x{opened.height}"
        raise SettingError("mask", f"{mask_image.width}x{mask_image.height}", needs)
    return UploadedImages(
        uploads.put(_encode_png(opened)),
        None if mask_image is None else uploads.put(_encode_png(mask_image)),
        size_from_image(opened, base_resolution),
    )


def check_image_size(size: tuple[int, int], name: str, max_px: int) -> None:
    """Raise SettingError for an image, of (width, height), that has too many pixels."""
    width, height = size
    if width * height > max_px:
        raise SettingError(name, f"{width}x{height}", f"at most {max_px} pixels", "Send a smaller copy.")


def decode_base64(text: str, name: str) -> bytes:
    """Return the bytes of base64, or of a data URL. Raises: SettingError."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingError(name, f"{text[:20]}...", "an image in base64") from error


def _open_image(
    content: bytes, name: str, max_px: int, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Return what `convert` makes of an upload."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is stricter
            image = Image.open(io.BytesIO(content), formats=UPLOAD_FORMATS)
        check_image_size(image.size, name, max_px)
        return convert(image)
    except SettingError:
        raise
    except Exception as error:  # decoders raise any exception for broken files
        reason = f"({without_places(str(error))})"
        raise SettingError(name, "unreadable", "a PNG, JPEG or WebP image", reason) from error


def _inpaint_mask(mask: Image.Image) -> Image.Image:
    """Return a mask that is white where the uploaded one is transparent or, if it is opaque, white."""
    alpha = alpha_channel(mask)
    if alpha is not None and alpha.getextrema() != (255, 255):
        return alpha.point([255] * 128 + [0] * 128)
    return to_srgb(mask).image.convert("L")


def _encode_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
