"""Uploaded images: checks untrusted bytes and stores them as PNG files for the engine.

Knows nothing of HTTP; errors name the parameter.
"""

import base64
import binascii
import io
import warnings
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from lens.errors import SettingError
from lens.serve.api.schemas import UploadedImages

if TYPE_CHECKING:
    from lens.serve.storage.server_state import UploadStore

UPLOAD_FORMATS = ("PNG", "JPEG", "WEBP")


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

    opened = _open_image(image, "image", max_px)
    mask_image = None if mask is None else _inpaint_mask(_open_image(mask, "mask", max_px), opened.size)
    return UploadedImages(
        uploads.put(
            _encode_png(opened.convert("RGBA" if "A" in opened.getbands() else "RGB").convert("RGB"))
        ),
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


def _open_image(content: bytes, name: str, max_px: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is stricter
            image = Image.open(io.BytesIO(content), formats=UPLOAD_FORMATS)
        check_image_size(image.size, name, max_px)
        image.load()
        return ImageOps.exif_transpose(image)
    except SettingError:
        raise
    except Exception as error:  # decoders raise any exception for broken files
        raise SettingError(name, "unreadable", "a PNG, JPEG or WebP image", f"({error})") from error


def _inpaint_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a mask that is white where the uploaded one is transparent or, if it is opaque, white."""
    if mask.size != size:
        needs = f"the size of the image, {size[0]}x{size[1]}"
        raise SettingError("mask", f"{mask.size[0]}x{mask.size[1]}", needs)
    if mask.mode == "P" or "A" in mask.getbands():
        mask = mask.convert("RGBA")
        alpha = mask.getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point([255] * 128 + [0] * 128)
    return mask.convert("L")


def _encode_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
