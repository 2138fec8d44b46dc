"""Types of files by their first bytes: what an extension claims may be wrong, or missing.

Knows nothing of decoding. A type is named as Pillow names its format.
"""

PREFIX_BYTES = 64
"""First bytes of a file that tell its type."""
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"), (6, b"JFIF\0", "JPEG"), (6, b"Exif\0", "JPEG"),
    # The signature of PNG shows damage by transfers as text: then only its letters are left.
    (0, b"\x89PNG\r\n\x1a\n", "PNG"), (1, b"PNG\r", "PNG"), (1, b"PNG\n", "PNG"), (12, b"IHDR", "PNG"),
    (0, b"GIF87a", "GIF"), (0, b"GIF89a", "GIF"), (8, b"WEBP", "WEBP"),
    (8, b"CR\x02\0", "camera raw"), (0, b"IIRO", "camera raw"), (0, b"IIU\0", "camera raw"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"), (0, b"FOVb", "camera raw"), (4, b"ftypcrx ", "camera raw"),
    (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"MM\0+", "TIFF"),
    (4, b"ftypavif", "AVIF"), (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIF"), (4, b"ftypheix", "HEIF"), (4, b"ftypheim", "HEIF"), (4, b"ftypheis", "HEIF"),
    (4, b"ftyphevc", "HEIF"), (4, b"ftyphevx", "HEIF"), (4, b"ftypmif1", "HEIF"), (4, b"ftypmsf1", "HEIF"),
    (0, b"\xff\x0a", "JXL"), (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"), (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"8BPS", "PSD"), (0, b"\x76\x2f\x31\x01", "EXR"), (0, b"#?RADIANCE", "HDR"), (0, b"qoif", "QOI"),
    (0, b"\0\0\x01\0", "ICO"), (0, b"DDS ", "DDS"), (0, b"gimp xcf ", "XCF"),
)  # fmt: skip
"""(offset, bytes, type); the first that fits decides."""
BRANDS = ((b"avif", "AVIF"), (b"heic", "HEIF"), (b"mif1", "HEIF"))
PNM_TYPES = b"1234567fF"


def image_type(prefix: bytes) -> str:
    """Return the type of an image by its first bytes; empty for a file of another kind."""
    found = next((name for at, magic, name in MAGIC if prefix.startswith(magic, at)), "")
    if found in ("HEIF", "") and prefix.startswith(b"\0\0"):
        # The main brand may be that of any container, or damaged; one of the compatible brands is its own.
        found = next((name for brand, name in BRANDS if brand in prefix[8:PREFIX_BYTES]), found)
    if found:
        return found
    # Two letters are too few to tell a bitmap: its header begins with one of a few sizes.
    if prefix.startswith(b"BM") and prefix[14:18] in _BITMAP_HEADERS:
        return "BMP"
    is_pnm = len(prefix) > 2 and prefix[:1] == b"P" and prefix[1] in PNM_TYPES and prefix[2:3].isspace()
    return "PNM" if is_pnm else ""


_BITMAP_HEADERS = [size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)]
