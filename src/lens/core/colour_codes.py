"""What an image file says of its colours by the codes of ITU-T H.273, which Pillow does not tell.

PNG has them in its chunk cICP, AVIF and HEIF in a box named nclx. Knows nothing of pixels.
"""

import io
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from PIL import Image

PNG_SIGNATURE_BYTES = 8
MAX_BOX_BYTES = 2**20
"""Larger boxes of settings are not read; those of cameras have some kilobytes."""
SRGB_CHROMATICITY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of the white, red, green and blue of sRGB, as a PNG file states them."""
SRGB_GAMMA = 1 / 2.2
PRIMARIES = {
    1: SRGB_CHROMATICITY,
    5: (0.3127, 0.329, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (0.3127, 0.329, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (0.3127, 0.329, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
"""Primaries by their code: sRGB, those of PAL and NTSC, BT.2020, Display P3."""
GAMMAS = {5: 1 / 2.8, 8: 1.0, **dict.fromkeys((1, 4, 6, 13, 14, 15), SRGB_GAMMA)}
"""Gammas by the code of the curve. Those of video count as that of sRGB, as in browsers; HDR has no gamma."""
UNSPECIFIED = 2


class ColourCodes(NamedTuple):
    """Codes of colours that are red, green and blue of full range."""

    primaries: int
    curve: int

    @property
    def is_known(self) -> bool:
        """Whether their colours can be converted."""
        return self.primaries in PRIMARIES and self.curve in GAMMAS


RESERVED = ColourCodes(0, 0)
"""For pixels that are no such colours."""


def colour_codes(image: Image.Image) -> ColourCodes | None:
    """Return the codes of an opened file, best before its pixels are loaded; None where it has none.

    In PNG they count before a profile, in AVIF and HEIF a profile counts before them.
    """
    if image.format == "PNG":
        return _from_file(image, _png_codes)
    if image.format not in ("AVIF", "HEIF") or image.info.get("icc_profile"):
        return None
    nclx = image.info.get("nclx_profile")  # of pillow-heif
    if nclx is None:
        return _from_file(image, _avif_codes)
    return _said_or_srgb(nclx["color_primaries"], nclx["transfer_characteristics"])


def _from_file(
    image: Image.Image, read: Callable[[IO[bytes]], ColourCodes | None]
) -> ColourCodes | None:
    file: Any = getattr(image, "fp", None)
    if file is None or file.closed:
        return None
    place = file.tell()
    try:
        file.seek(0)
        return read(file)
    finally:
        file.seek(place)


def _png_codes(file: IO[bytes]) -> ColourCodes | None:
    file.seek(PNG_SIGNATURE_BYTES)
    while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
        num_bytes = int.from_bytes(head[:4])
        if head[4:] == b"cICP":
            codes = file.read(4)
            if num_bytes != 4 or len(codes) != 4:
                return None
            primaries, curve, matrix, is_full = codes
            return ColourCodes(primaries, curve) if (matrix, is_full) == (0, 1) else RESERVED
        file.seek(num_bytes + 4, io.SEEK_CUR)
    return None


def _avif_codes(file: IO[bytes]) -> ColourCodes | None:
    """Return the codes of the first box that has some: a gain map's come after those of the image."""
    if file.read(8)[4:] != b"ftyp":  # Pillow has put the decoded pixels in place of the file
        return None
    file.seek(0)
    while len(head := file.read(8)) == 8:
        num_bytes, name = int.from_bytes(head[:4]), head[4:]
        if num_bytes == 1:
            num_bytes = int.from_bytes(file.read(8)) - 8
        if name == b"meta":
            properties = _boxes(file.read(min(num_bytes - 8, MAX_BOX_BYTES))[4:], b"iprp")
            found = [one for inner in properties for items in _boxes(inner, b"ipco")
                     for one in _boxes(items, b"colr") if one.startswith(b"nclx")]  # fmt: skip
            codes = found[0][4:8] if found else b""
            return _said_or_srgb(*struct.unpack(">2H", codes)) if len(codes) == 4 else None
        if num_bytes < 8:
            return None
        file.seek(num_bytes - 8, io.SEEK_CUR)
    return None


def _boxes(data: bytes, wanted: bytes) -> Iterator[bytes]:
    """Yield what the boxes of a name hold that lie side by side in data, up to the first that is no box."""
    start = 0
    while start + 8 <= len(data):
        num_bytes = int.from_bytes(data[start : start + 4])
        if num_bytes < 8:
            return
        if data[start + 4 : start + 8] == wanted:
            yield data[start + 8 : start + num_bytes]
        start += num_bytes


def _said_or_srgb(primaries: int, curve: int) -> ColourCodes:
    return ColourCodes(1 if primaries == UNSPECIFIED else primaries, 13 if curve == UNSPECIFIED else curve)
