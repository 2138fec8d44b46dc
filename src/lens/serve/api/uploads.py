"""Uploaded images: checks untrusted bytes and stores them as PNG files for the engine.

Knows nothing of HTTP; errors name the parameter.
"""

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lens.core.images import OTHER_COLOURS, to_mask, to_srgb
from lens.core.resolution import MAX_AREA_PX
from lens.data.io.image_types import PREFIX_BYTES, image_type
from lens.errors import SettingError
from lens.serve.api.errors import without_places
from lens.serve.api.schemas import UploadedImages

if TYPE_CHECKING:
    from lens.serve.storage.server_state import UploadStore

UPLOAD_FORMATS = ("PNG", "JPEG", "WEBP")
MAX_STORED_PX = 2 * MAX_AREA_PX
"""Larger images are stored smaller: no image that is drawn from one has as many pixels."""
MAX_JPEG_SCANS = 100
"""Files have about ten. Each takes the time of the whole image, in a few bytes if it changes nothing."""
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
URL_ALPHABET = str.maketrans("-_", "+/")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9


class SourceFiles(NamedTuple):
    """The source image and the mask of a request, as they were sent."""

    image: bytes | None = None
    mask: bytes | None = None


NO_FILES = SourceFiles()


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

    opened, size = _open_image(image, "image", max_px, lambda file: to_srgb(file).image)
    content, drawn_size = _encode_png(opened), size_from_image(opened, base_resolution)
    del opened  # one image is decoded at a time
    mask_content = None
    if mask is not None:
        mask_image, mask_size = _open_image(mask, "mask", max_px, to_mask)
        if mask_size != size:
            needs = f"the size of the image, {size[0]}x{size[1]}"
            raise SettingError("mask", f"{mask_size[0]}x{mask_size[1]}", needs)
        mask_content = _encode_png(mask_image)
    image_path = uploads.put(content)
    return UploadedImages(image_path, None if mask_content is None else uploads.put(mask_content), drawn_size)


def check_image_size(size: tuple[int, int], name: str, max_px: int) -> None:
    """Raise SettingError for an image, of (width, height), that has too many pixels."""
    width, height = size
    if width * height > max_px:
        raise SettingError(name, f"{width}x{height}", f"at most {max_px} pixels", "Send a smaller copy.")


def decode_base64(text: str, name: str) -> bytes:
    """Return the bytes of base64, or of a data URL. Raises: SettingError.

    Lines, the alphabet of URLs and left-out padding are taken: each has one meaning.
    """
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    try:
        plain = "".join(text.split()).rstrip("=").translate(URL_ALPHABET)
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingError(name, f"{text[:20]}...", "an image in base64") from error


def _open_image(
    content: bytes, name: str, max_px: int, convert: Callable[[Image.Image], Image.Image]
) -> tuple[Image.Image, tuple[int, int]]:
    """Return what `convert` makes of an upload, at most MAX_STORED_PX large, and the size of the upload."""
    try:
        if (num_scans := _num_jpeg_scans(content)) > MAX_JPEG_SCANS:
            raise SettingError(name, f"a JPEG of {num_scans} scans", f"at most {MAX_JPEG_SCANS}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is stricter
            image = Image.open(io.BytesIO(content), formats=UPLOAD_FORMATS)
        check_image_size(image.size, name, max_px)
        shrink = min(1.0, (MAX_STORED_PX / (image.width * image.height)) ** 0.5)
        width, height = (max(1, round(side * shrink)) for side in image.size)
        full_size = image.width, image.height
        if shrink < 1:
            image.draft(image.mode, (width, height))  # JPEG is decoded at a half, a quarter or an eighth
        converted = convert(image)
        if _is_turned(image):  # not before: it loads the pixels of a PNG, whose colours are then not known
            full_size, width, height = (full_size[1], full_size[0]), height, width
        if converted.size != (width, height):
            converted = converted.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        return converted, full_size
    except SettingError:
        raise
    except UnidentifiedImageError as error:
        shown = image_type(content[:PREFIX_BYTES]) if content else "empty"
        raise SettingError(name, shown or "no image", "a PNG, JPEG or WebP image") from error
    except Exception as error:  # decoders raise any exception for broken files
        reason = f"({without_places(str(error))})"
        raise SettingError(name, "unreadable", "a PNG, JPEG or WebP image", reason) from error


def _is_turned(image: Image.Image) -> bool:
    """Return whether width and height change places when the image is upright."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # damaged EXIF raises any exception
        return False


def _num_jpeg_scans(content: bytes) -> int:
    """Return the number of scans of a JPEG file, up to its first end; 0 for other files."""
    num_scans, at = 0, 2
    while content.startswith(b"\xff\xd8") and (marker := JPEG_MARKER.search(content, at)):
        kind, at = marker[0][1], marker.end()
        if kind == END_OF_IMAGE:
            break
        num_scans += kind == START_OF_SCAN
        at += int.from_bytes(content[at : at + 2], "big")
    return num_scans


def _encode_png(image: Image.Image) -> bytes:
    file, texts = io.BytesIO(), PngInfo()
    if OTHER_COLOURS in image.info:  # so that the request is told of it
        texts.add_text(OTHER_COLOURS, image.info[OTHER_COLOURS])
    image.save(file, format="PNG", compress_level=1, pnginfo=texts)
    return file.getvalue()
