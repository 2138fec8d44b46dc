"""PNG files with chunks that Pillow does not write."""

import struct
import zlib

HEADER_BYTES = 33
DISPLAY_P3 = bytes([12, 13, 0, 1])
HDR = bytes([9, 16, 0, 1])
"""The codes of BT.2020 with the curve of PQ."""


def with_colour_codes(png: bytes, codes: bytes) -> bytes:
    """Return a PNG file with a cICP chunk behind its header."""
    chunk = struct.pack(">I4s4sI", len(codes), b"cICP", codes, zlib.crc32(b"cICP" + codes))
    return png[:HEADER_BYTES] + chunk + png[HEADER_BYTES:]
