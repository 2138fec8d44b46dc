"""Texts inside image files: text chunks of PNG, and EXIF, whose UserComment has a character set of its own.

Knows nothing of what the texts mean.
"""

import struct
from typing import Any

from PIL import ExifTags, Image

UNICODE, ASCII, JIS, UNDEFINED = b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8)
"""EXIF's marks of the character set that follows in a UserComment."""
EXIF_ERRORS = (SyntaxError, ValueError, OSError, LookupError, TypeError, struct.error)
"""What Pillow raises for damaged EXIF data."""
COMMENT_NAME = "UserComment"


def encode_user_comment(text: str) -> bytes:
    """Return a UserComment in UTF-16, big-endian and without a byte order mark, as most readers expect it."""
    return UNICODE + text.encode("utf-16-be")


def decode_user_comment(value: Any) -> str:
    """Return the text of a UserComment in any character set; bytes that are no text become question marks."""
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return ""
    charset, content = value[:8], value[8:]
    if charset == UNICODE:
        return content.decode(_utf16_order(content), "replace").strip("\ufeff\0")
    if charset == JIS:
        return content.decode("iso2022_jp", "replace").strip("\0")
    text = content if charset in (ASCII, UNDEFINED) else value  # some programs write no character set
    return text.decode("utf-8", "replace").strip("\0")


def _utf16_order(content: bytes) -> str:
    """Return the codec of UTF-16 text, whose order EXIF leaves open."""
    if content[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return "utf-16-be" if content[0] == 0xFE else "utf-16-le"
    # Settings always have ASCII characters, whose upper byte is zero.
    return "utf-16-be" if content[0::2].count(0) >= content[1::2].count(0) else "utf-16-le"


def exif_texts(image: Image.Image) -> dict[str, str]:
    """Return the texts in an image's EXIF data by the names of their tags.

    Raises: EXIF_ERRORS for damaged data.
    """
    exif = image.getexif()
    texts = {}
    for tag, value in exif.items():
        if isinstance(value, bytes | str):
            texts[ExifTags.TAGS.get(tag, str(tag))] = _tag_text(value)
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if comment is None:  # some programs write it beside the description
        comment = exif.get(ExifTags.Base.UserComment)
    if comment is not None:
        texts[COMMENT_NAME] = decode_user_comment(comment)
    return texts


def image_texts(image: Image.Image) -> dict[str, str]:
    """Return all texts of an open image by name; of damaged EXIF data, none."""
    texts = {
        name: value for name, value in image.info.items() if isinstance(name, str) and isinstance(value, str)
    }
    comment = image.info.get("comment")
    if isinstance(comment, bytes):  # GIF, and JPEG outside of EXIF
        texts["comment"] = comment.decode("utf-8", "replace")
    try:
        return texts | exif_texts(image)
    except EXIF_ERRORS:
        return texts


def _tag_text(value: bytes | str) -> str:
    """Return the text of a tag; many programs write UTF-8 where EXIF has ASCII."""
    content = value.encode("latin-1", "replace") if isinstance(value, str) else value
    return content.decode("utf-8", "replace").strip("\0")
