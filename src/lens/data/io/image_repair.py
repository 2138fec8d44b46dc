"""What is left of damaged files: PNG with a bad chunk that no pixel needs, and JPEG that breaks off.

libjpeg fills what it cannot read with one colour and says nothing, so the rows that are there are measured:
other bytes behind a break change every pixel that was not decoded from bytes before it.
Knows nothing of colours.
"""

import io
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

MIN_DECODED = 0.95
"""A JPEG with a smaller share of its rows is corrupt; of others the rows that are there are kept."""
PNG_SIGNATURE_BYTES = 8
MAX_KEYWORD_BYTES = 80
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""A marker of JPEG in coded data, where 0 is a byte of data and D0 to D7 restart the coder.

Fill bytes before it are left to the data: to match them too makes the search fifteen times slower.
"""
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
START_OF_SCAN, END_OF_IMAGE, START_OF_FRAME = 0xDA, 0xD9, (0xC0, 0xC1, 0xC2)
BETWEEN_SCANS = {0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""Markers that may follow the data of a scan, beside the end of the image."""
HOLE = bytes(64)
"""No camera writes so many zeros into coded data, but a disk that lost a sector does."""
OTHER_BYTES = np.random.default_rng(0).integers(0, 255, 4096, np.uint8).tobytes()
"""Coded data of no image; no byte of it begins a marker."""
LAST_BYTES = 16
CORNER_PX = 16
WHITE = 250


class JpegCut(NamedTuple):
    """How far the coded data of a JPEG can be trusted."""

    start: int
    """First byte of the coded data."""
    end: int
    """First byte behind the data, or of what is no data."""
    is_whole: bool
    """Whether the image ends there as it should."""
    is_sharp: bool
    """Whether the scans that begin before the end hold every coefficient in full."""
    num_scans: int


def drop_bad_chunks(content: bytes) -> bytes:
    """Return a PNG without the ancillary chunks that it cannot be read with, as all viewers read it.

    Their checksum is wrong, or they are texts or a profile that are larger than Pillow allows.
    """
    kept, first, text_bytes = [], 0, 0
    view = memoryview(content)
    for start, end, name in _png_chunks(content):
        if not name[0] & 0x20:
            continue
        size = _expanded_bytes(name, view[start + 8 : end - 4])
        text_bytes += size
        is_damaged = zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(content[end - 4 : end])
        if is_damaged or size > MAX_TEXT_CHUNK or text_bytes > MAX_TEXT_MEMORY:
            text_bytes -= size
            kept.append(content[first:start])
            first = end
    return b"".join((*kept, content[first:])) if kept else content


def _expanded_bytes(name: bytes, data: memoryview) -> int:
    """Return the size of a text or a profile of a PNG, up to one more than Pillow allows; else 0."""
    if name not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
        return 0
    start = bytes(data[:MAX_KEYWORD_BYTES]).find(b"\0") + 2  # behind the keyword and its end
    is_packed = name in (b"zTXt", b"iCCP") or (name == b"iTXt" and data[start - 1 : start] == b"\x01")
    if not is_packed:
        return len(data)
    if name == b"iTXt":  # the method, the language and the keyword in it
        head = bytes(data[start + 1 : start + 1 + 2 * MAX_KEYWORD_BYTES]).split(b"\0", 2)
        start += 1 + sum(len(part) + 1 for part in head[:2])
    try:
        return len(zlib.decompressobj().decompress(data[start:], MAX_TEXT_CHUNK + 1))
    except zlib.error:  # Pillow ignores it
        return 0


def load_jpeg(opened: Image.Image, content: bytes) -> Image.Image:
    """Return an opened JPEG with its pixels, without the rows at its end that are not in the file.

    Raises: OSError for one of which too little can be decoded.
    """
    cut = find_cut(content)
    if cut.is_whole and cut.is_sharp:
        opened.load()
        hole = content.find(HOLE, cut.start, cut.end)
        if hole < 0 and not _has_flat_corner(opened):
            return opened
        if hole >= 0 and not (_restarts_in_order(content, cut) and _is_legible_behind(content, hole)):
            cut = cut._replace(end=hole)
    width, height = opened.size
    rows = _intact_rows(content, cut.end) if cut.is_sharp else 0
    if rows < MIN_DECODED * height:
        of_scans = "" if cut.is_sharp else "; scans are missing"
        raise OSError(f"only {rows} of {height} rows can be decoded{of_scans}")
    if cut.is_whole and rows == height:
        return opened
    return _decode(content[: cut.end]).crop((0, 0, width, rows))


def find_cut(content: bytes) -> JpegCut:
    """Return how far the coded data of a JPEG goes: to its end mark, a stray marker, or the last byte."""
    at, start, num_scans, precision = 2, 0, 0, {}
    while True:
        found = MARKER.search(content, at)
        is_stray = found is not None and start and found[1][0] not in {END_OF_IMAGE, *BETWEEN_SCANS}
        if found is None or is_stray or found[1][0] == END_OF_IMAGE:
            is_sharp = all(bits == 0 for bits in precision.values())
            end = len(content) if found is None else found.start()
            return JpegCut(start, end, found is not None and not is_stray, is_sharp, num_scans)
        marker, at = found[1][0], found.end()
        body = content[at + 2 : at + int.from_bytes(content[at : at + 2])]
        at += 2 + len(body)
        if marker in START_OF_FRAME and len(body) >= 6:
            components = body[6 : 6 + 3 * body[5] : 3]
            precision = {(one, place): 1 for one in components for place in range(64)}
        elif marker == START_OF_SCAN and body:
            start, num_scans = start or at, num_scans + 1
            components, (first, last, bits) = body[1 : 1 + 2 * body[0] : 2], body[-3:].ljust(3, b"\0")
            of_scan = ((one, place) for one in components for place in range(first, last + 1))
            precision |= dict.fromkeys(of_scan, bits & 15)


def _png_chunks(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the chunks of a PNG, up to the last one that is whole: first byte, byte behind, name."""
    start = PNG_SIGNATURE_BYTES
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if end > len(content):
            return
        yield start, end, content[start + 4 : start + 8]
        start = end


def _decode(coded: bytes) -> Image.Image:
    """Return the image of a JPEG that ends inside its data; what is missing is filled."""
    image = Image.open(io.BytesIO(coded.rstrip(b"\xff") + b"\xff\xd9"), formats=("JPEG",))
    image.load()
    return image


def _intact_rows(content: bytes, end: int) -> int:
    """Return the rows from the top that bytes behind `end` have no part in."""
    coded = content[:end].rstrip(b"\xff")
    one, other = np.asarray(_decode(coded)), np.asarray(_decode(coded + OTHER_BYTES))        # (H, W, ...)
    differs = (one != other).reshape(len(one), -1).any(axis=1)                               # (H,)
    return int(differs.argmax()) // 8 * 8 if differs.any() else len(one)


def _is_legible_behind(content: bytes, place: int) -> bool:
    """Return whether the last bytes of the scan at a place, and none behind them, decide its last pixels.

    A decoder that lost its way in the scan needs more data than there is, or less.
    """
    found = MARKER.search(content, place)
    end = found.start() if found else len(content)
    whole = np.asarray(_decode(content[:end]))
    changed = np.asarray(_decode(content[: end - LAST_BYTES].rstrip(b"\xff") + OTHER_BYTES))
    return bool((whole != changed).any()) and _intact_rows(content, end) == len(whole)


def _restarts_in_order(content: bytes, cut: JpegCut) -> bool:
    """Return whether no restart of the coder is missing; each has a number from 0 to 7, in a circle."""
    restarts = RESTART.finditer(content, cut.start, cut.end)
    return cut.num_scans > 1 or all(one[1][0] & 7 == place % 8 for place, one in enumerate(restarts))


def _has_flat_corner(image: Image.Image) -> bool:
    """Return whether the last pixels of an image are of one colour, as libjpeg fills what is missing.

    White does not count: it would cost every picture of a product three more decodings.
    """
    width, height = image.size
    corner = np.asarray(image.crop((max(0, width - CORNER_PX), max(0, height - CORNER_PX), width, height)))
    return bool((corner == corner[:1, :1]).all() and corner.min() < WHITE)
