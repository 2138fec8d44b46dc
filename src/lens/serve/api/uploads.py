"""Pictures that callers send: untrusted bytes to files that the engine can start from.

Knows nothing of HTTP; errors name the parameter.
"""

import base64
import binascii
import io
import warnings
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from lens.errors import SettingError
from lens.serve.api.schemas import Sources

if TYPE_CHECKING:
    from lens.serve.storage.server_state import Uploads

FORMATS = ("PNG", "JPEG", "WEBP")


def stored_sources(
    uploads: "Uploads", image: bytes | None, mask: bytes | None, max_px: int, base_resolution: int
) -> Sources:
    """Check and store a picture to start from, and its mask.

    Raises: SettingError that names what cannot be used; LensError where it cannot be stored.
    """
    if image is None:
        if mask is not None:
            raise SettingError("mask", "given", "an image that it is a mask of", "Send image too.")
        return Sources()
    from lens.sampling.image_processor import size_like

    picture = _opened(image, "image", max_px)
    stencil = None if mask is None else _mask(_opened(mask, "mask", max_px), picture.size)
    return Sources(
        uploads.put(_png(picture.convert("RGBA" if "A" in picture.getbands() else "RGB").convert("RGB"))),
        None if stencil is None else uploads.put(_png(stencil)),
        size_like(picture, base_resolution),
    )


def from_base64(text: str, name: str) -> bytes:
    """Return the bytes of base64, or of a data URL. Raises: SettingError."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingError(name, f"{text[:20]}...", "a picture in base64") from error


def _opened(content: bytes, name: str, max_px: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit comes next
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > max_px:
            raise SettingError(name, f"{width}x{height}", f"at most {max_px} pixels", "Send a smaller copy.")
        image.load()
        return ImageOps.exif_transpose(image)
    except SettingError:
        raise
    except Exception as error:  # decoders raise whatever they like at broken files
        raise SettingError(name, "what was sent", "a PNG, JPEG or WebP picture", f"({error})") from error


def _mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return white where the picture is drawn anew: where a mask is transparent, else where it is white."""
    if mask.size != size:
        needs = f"the size of the image, {size[0]}x{size[1]}"
        raise SettingError("mask", f"{mask.size[0]}x{mask.size[1]}", needs)
    if mask.mode == "P" or "A" in mask.getbands():
        mask = mask.convert("RGBA")
        alpha = mask.getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point([255] * 128 + [0] * 128)
    return mask.convert("L")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
