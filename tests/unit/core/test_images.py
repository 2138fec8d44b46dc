"""A picture means the same colours in whatever way its file writes them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lens.core.images import alpha_channel, to_srgb

P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
D50_FROM_D65 = [[1.0478, 0.0229, -0.0501], [0.0295, 0.9905, -0.0170], [-0.0092, 0.0150, 0.7521]]


def xyz_from_rgb(primaries) -> np.ndarray:
    """Return the matrix (3, 3) from linear light to XYZ, for a white of D65."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1, 0.3583 / 0.3290])
    return columns * np.linalg.solve(columns, white)


def profile_bytes(primaries, gamma: float = 2.2, space: bytes = b"RGB ") -> bytes:
    """Return an ICC profile of primaries and one gamma, or of a gamma alone for grey."""
    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags: dict[bytes, bytes] = {}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        matrix = np.array(D50_FROM_D65) @ xyz_from_rgb(primaries)
        names = (b"rXYZ", b"gXYZ", b"bXYZ")
        tags |= {name: xyz(column) for name, column in zip(names, matrix.T, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return icc_file(space, b"XYZ ", tags)


def icc_file(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile of version 2 that holds these tags and those that every profile needs."""
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": white} | tags
    table, data, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(data), 0x02400000, kind, space, connection, b"acsp")
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data


def ink_profile(corners: dict[str, tuple[int, int, int]]) -> bytes:
    """Return an ICC profile of four inks: Lab by the letters of the inks that are fully on, else black."""
    lab = [corners.get("".join(c for c, bit in zip("CMYK", f"{n:04b}", strict=True) if bit == "1"), (0, 0, 0))
           for n in range(16)]  # fmt: skip
    table = bytes(range(256))
    clut = b"".join(bytes((round(light * 2.55), a + 128, b + 128)) for light, a, b in lab)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    return icc_file(b"CMYK", b"Lab ", {b"A2B0": lut + table * 4 + clut + table * 3})


def encode(light: np.ndarray) -> np.ndarray:
    """Return the sRGB levels of linear light, clipped to the range of a display."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def colours() -> np.ndarray:
    """Return colours that all three spaces can show, (24, 24, 3)."""
    return np.random.default_rng(0).integers(90, 170, (24, 24, 3), dtype=np.uint8)


def expected_srgb(levels: np.ndarray, primaries, gamma: float = 2.2) -> np.ndarray:
    matrix = np.linalg.inv(xyz_from_rgb(SRGB)) @ xyz_from_rgb(primaries)
    return encode((levels / 255) ** gamma @ matrix.T)


def reopened(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def png(depth: int, colour_type: int, rows: list[bytes], width: int, **chunks: bytes) -> Image.Image:
    """Return a PNG made by hand, with chunks and depths that Pillow does not write."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + pixels + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("primaries", [P3, ADOBE], ids=["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_the_colours_of_a_profile_are_those_that_its_matrix_says(primaries, mode):
    image = Image.fromarray(colours())
    image = image.quantize(200) if mode == "P" else image.convert(mode)
    levels = np.asarray(image.convert("RGB"))
    converted = to_srgb(reopened(image, icc_profile=profile_bytes(primaries)))
    assert "profile" in converted.notes
    np.testing.assert_allclose(np.asarray(converted.image), expected_srgb(levels, primaries), atol=2)
    assert "icc_profile" not in converted.image.info


def test_a_profile_holds_below_transparency_and_white_stays_white():
    levels = np.dstack([colours(), np.full((24, 24), 255, np.uint8)])
    levels[:9, :, 3] = 0
    converted = to_srgb(reopened(Image.fromarray(levels), icc_profile=profile_bytes(P3)))
    pixels = np.asarray(converted.image)
    assert converted.notes == ("profile", "alpha") and (pixels[:9] == 255).all()
    np.testing.assert_allclose(pixels[9:], expected_srgb(levels[9:, :, :3], P3), atol=2)


def test_grey_of_another_gamma_is_converted_at_8_and_at_16_bits():
    ramp = np.arange(16, 256, dtype=np.uint8)[None].repeat(3, axis=0)
    icc = profile_bytes(None, gamma=1.0, space=b"GRAY")
    for image in (Image.fromarray(ramp), Image.fromarray(ramp.astype(np.uint16) * 257)):
        converted = np.asarray(to_srgb(reopened(image, icc_profile=icc)).image)
        np.testing.assert_allclose(converted[..., 1], encode(ramp / 255), atol=2)


def test_inks_look_as_their_profile_says():
    # A red of Lab (50, 60, 40), as CIE defines it for D50, is (213.7, 60.3, 55.4) in sRGB.
    icc = ink_profile({"": (100, 0, 0), "MY": (50, 60, 40), "K": (0, 0, 0)})
    inks = Image.new("CMYK", (3, 1), (0, 0, 0, 0))
    inks.putpixel((1, 0), (0, 255, 255, 0))
    inks.putpixel((2, 0), (0, 0, 0, 255))
    converted = to_srgb(reopened(inks, "TIFF", icc_profile=icc))
    assert converted.notes == ("profile", "cmyk")
    expected = [[255, 255, 255], [213.7, 60.3, 55.4], [0, 0, 0]]
    np.testing.assert_allclose(np.asarray(converted.image)[0], expected, atol=2)


def test_a_profile_of_srgb_changes_no_byte():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    converted = to_srgb(reopened(image, icc_profile=icc))
    assert converted.notes == ()
    np.testing.assert_array_equal(np.asarray(converted.image), np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "icc"),
    [
        ("RGB", b"not a profile"),
        ("RGB", profile_bytes(P3)[:150]),
        ("RGB", profile_bytes(None, space=b"GRAY")),
        ("CMYK", profile_bytes(P3)),
    ],
    ids=["no profile", "a cut profile", "of grey for colours", "of light for inks"],
)
def test_a_profile_that_cannot_be_meant_is_ignored_and_noted(mode, icc):
    image = Image.fromarray(colours()).convert(mode)
    converted = to_srgb(reopened(image, "JPEG" if mode == "CMYK" else "PNG", icc_profile=icc))
    assert "bad_profile" in converted.notes
    np.testing.assert_allclose(np.asarray(converted.image.convert("RGB")), colours(), atol=40)


def test_the_gamma_of_a_png_is_heeded_unless_it_is_that_of_srgb_or_overruled():
    ramp = bytes(range(20, 250))
    def shown(**chunks: bytes) -> np.ndarray:
        return np.asarray(to_srgb(png(8, 0, [ramp], len(ramp), **chunks)).image)[0, :, 0]

    linear, usual = struct.pack(">I", 100000), struct.pack(">I", 45455)
    np.testing.assert_allclose(shown(gAMA=linear), encode(np.frombuffer(ramp, np.uint8) / 255), atol=0.51)
    for chunks in ({}, {"gAMA": usual}, {"sRGB": b"\0", "gAMA": linear}):
        np.testing.assert_array_equal(shown(**chunks), np.frombuffer(ramp, np.uint8))


PAGES = {
    "rgb": (8, 2, [bytes([0, 0, 0, 200, 40, 40])], struct.pack(">3H", 0, 0, 0), [200, 40, 40]),
    "rgb of 16 bits": (16, 2, [struct.pack(">6H", 900, 800, 700, 51400, 10280, 10280)],
                       struct.pack(">3H", 900, 800, 700), [200, 40, 40]),
    "grey of 2 bits": (2, 0, [bytes([0b11010000])], struct.pack(">H", 3), [85, 85, 85]),
    "grey of 4 bits": (4, 0, [bytes([0xA3])], struct.pack(">H", 10), [51, 51, 51]),
    "grey of 16 bits": (16, 0, [struct.pack(">2H", 300, 25700)], struct.pack(">H", 300), [100, 100, 100]),
}  # fmt: skip


@pytest.mark.parametrize("case", PAGES)
def test_the_one_transparent_colour_of_a_png_is_white_and_the_others_stay(case):
    depth, colour_type, rows, clear, other = PAGES[case]
    converted = to_srgb(png(depth, colour_type, rows, 2, tRNS=clear))
    assert np.asarray(converted.image)[0].tolist() == [[255, 255, 255], other]
    alpha = alpha_channel(png(depth, colour_type, rows, 2, tRNS=clear))
    assert alpha is not None and np.asarray(alpha)[0].tolist() == [0, 255]


@pytest.mark.parametrize("top", [200, 255, 256, 300, 65535])
def test_a_dark_image_of_16_bits_is_as_dark_as_it_says(top):
    levels = np.linspace(0, top, 64).astype(np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF"):
        shown = np.asarray(to_srgb(reopened(Image.fromarray(levels), kind)).image)[..., 0]
        np.testing.assert_allclose(shown, levels / 257, atol=0.51)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats_keep_their_levels_whatever_their_white(white):
    levels = np.linspace(0, white, 64).astype(np.float32).reshape(8, 8)
    levels[0, 0] = np.nan  # as scientific files mark missing pixels
    shown = np.asarray(to_srgb(reopened(Image.fromarray(levels), "TIFF")).image)[..., 0]
    np.testing.assert_allclose(shown, np.nan_to_num(levels) / white * 255, atol=0.51)


def test_highlights_above_white_do_not_darken_floats():
    levels = np.full((4, 4), 0.5, np.float32)
    levels[0, 0] = 3.0
    shown = np.asarray(to_srgb(Image.fromarray(levels)).image)[..., 0]
    assert (shown[0, 0], shown[1, 1]) == (255, 128)


@pytest.mark.parametrize(
    ("bits", "sample_format", "levels"),
    [
        (32, 1, np.array([[0, 2**31, 2**32 - 1]], np.uint32)),
        (32, 2, np.array([[0, 2**30, 2**31 - 1]], np.int32)),
        (16, 2, np.array([[0, 2**14, 2**15 - 1]], np.int16)),
    ],
)
def test_white_is_what_the_type_of_a_tiff_says(bits, sample_format, levels):
    shown = to_srgb(tiff(levels, bits, sample_format, photometric=1)).image
    assert np.asarray(shown)[0, :, 0].tolist() == [0, 128, 255]


def test_a_tiff_whose_zero_is_white_is_shown_so_at_16_bits_too():
    shown = to_srgb(tiff(np.array([[0, 65535]], np.uint16), 16, 1, photometric=0)).image
    assert np.asarray(shown)[0, :, 0].tolist() == [255, 0]


def tiff(levels: np.ndarray, bits: int, sample_format: int, photometric: int) -> Image.Image:
    """Return an uncompressed TIFF of grey made by hand."""
    data = levels.tobytes()
    height, width = levels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height,
            279: len(data), 339: sample_format}  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return Image.open(io.BytesIO(head + data + struct.pack("<H", len(tags)) + table + bytes(4)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_an_image_as_it_is():
    image = Image.fromarray(colours())
    converted = to_srgb(reopened(image, exif=b"Exif\0\0MM\0*\0\0\0\xff"))
    np.testing.assert_array_equal(np.asarray(converted.image), colours())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_upright_once_and_the_callers_image_is_unchanged(orientation):
    turned_back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose values that undo each one
    stored = Image.fromarray(colours()[:, :20])
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(turned_back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = reopened(stored, exif=exif)
    np.testing.assert_array_equal(np.asarray(to_srgb(opened).image), colours()[:, :20])
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(stored))


def primaries_chunk(primaries, white=(0.3127, 0.3290)) -> bytes:
    return struct.pack(">8I", *(round(value * 1e5) for pair in (white, *primaries) for value in pair))


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("exponent", [45455, 55556, 100000])
def test_primaries_of_a_png_without_a_profile_are_converted(exponent, has_alpha):
    # sRGB's red, green, blue and a grey, and what Display P3 calls them
    in_p3 = [[234, 51, 35], [117, 251, 76], [0, 0, 245], [128, 128, 128]]
    levels = np.array([in_p3], dtype=np.uint8)
    if exponent != 45455:
        light = np.where(levels <= 10, levels / 255 / 12.92, ((levels / 255 + 0.055) / 1.055) ** 2.4)
        levels = (light ** (exponent / 1e5) * 255 + 0.5).astype(np.uint8)
    rows = np.dstack([levels, np.full((1, 4), 255, np.uint8)]) if has_alpha else levels
    chunks = {"gAMA": struct.pack(">I", exponent), "cHRM": primaries_chunk(P3)}
    image = png(8, 6 if has_alpha else 2, [rows[0].tobytes()], 4, **chunks)
    found = to_srgb(image)
    expected = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]]
    deep = np.array(expected) > 100
    np.testing.assert_allclose(np.asarray(found.image)[deep], np.array(expected)[deep], atol=3)
    assert np.asarray(found.image)[~deep].max() <= 20  # dark levels are few where the gamma is low
    assert "profile" in found.notes


@pytest.mark.parametrize(
    "chunks",
    [{"cHRM": primaries_chunk(SRGB)}, {"cHRM": primaries_chunk(P3), "sRGB": b"\0"},
     {"cHRM": primaries_chunk(((0.3, 0.3), (0.3, 0.3), (0.3, 0.3)))}, {"cHRM": bytes(32)},
     {"cHRM": primaries_chunk(P3, (0.4476, 0.4074))}],
    ids=["sRGB", "beside sRGB", "on one point", "zeros", "a lamp's white"],
)  # fmt: skip
def test_primaries_that_are_those_of_srgb_or_none_change_nothing(chunks):
    levels = colours()
    image = png(8, 2, [row.tobytes() for row in levels], 24, gAMA=struct.pack(">I", 45455), **chunks)
    np.testing.assert_array_equal(np.asarray(to_srgb(image).image), levels)


def in_space(levels: np.ndarray, primaries, linear: bool) -> bytes:
    """Return a row of colours of sRGB as levels of primaries, on the curve of sRGB or a line."""
    light = np.where(levels <= 10, levels / 255 / 12.92, ((levels / 255 + 0.055) / 1.055) ** 2.4)
    own = light @ np.linalg.solve(xyz_from_rgb(primaries), xyz_from_rgb(SRGB)).T
    return (own * 255 if linear else encode(own)).round().astype(np.uint8).tobytes()


BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))


@pytest.mark.parametrize(
    ("cicp", "primaries", "linear"),
    [((12, 13, 0, 1), P3, False), ((9, 13, 0, 1), BT2020, False), ((1, 8, 0, 1), SRGB, True),
     ((1, 13, 0, 1), SRGB, False)],
    ids=["Display P3", "BT.2020", "linear", "sRGB"],
)  # fmt: skip
def test_colours_that_a_png_names_by_code_are_converted_and_count_before_a_profile(cicp, primaries, linear):
    levels = np.array([[200, 60, 40], [90, 180, 70], [60, 70, 190], [128, 128, 128]], dtype=np.uint8)
    row, adobe = in_space(levels, primaries, linear), zlib.compress(profile_bytes(ADOBE))
    others = ({}, {"iCCP": b"adobe\0\0" + adobe}, {"gAMA": struct.pack(">I", 100000)}, {"sRGB": b"\0"})
    for other in others:
        found = to_srgb(png(8, 2, [row], 4, cICP=bytes(cicp), **other))
        np.testing.assert_allclose(np.asarray(found.image)[0], levels, atol=4 if linear else 2)
        assert ("profile" in found.notes) == (cicp != (1, 13, 0, 1))
    behind = png(8, 2, [row], 4, pHYs=bytes(9), cICP=bytes(cicp))
    np.testing.assert_array_equal(np.asarray(to_srgb(behind).image), np.asarray(found.image))


def container(row: bytes, kind: str, codes: tuple[int, int], **options) -> Image.Image:
    """Return an opened AVIF or HEIF file of a row of colours, 16 px each, that names colours by code."""
    pixels = np.frombuffer(row, np.uint8).reshape(1, -1, 3).repeat(16, axis=0).repeat(16, axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=100, **options)
    content = file.getvalue()
    at = content.index(b"colrnclx") + 8
    return Image.open(io.BytesIO(content[:at] + struct.pack(">2H", *codes) + content[at + 4 :]))


@pytest.fixture(params=["AVIF", "HEIF"])
def kind(request) -> str:
    if request.param == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    return request.param


@pytest.mark.parametrize(
    ("codes", "primaries", "linear"),
    [((12, 13), P3, False), ((9, 1), BT2020, False), ((1, 8), SRGB, True), ((2, 2), SRGB, False)],
    ids=["Display P3", "BT.2020", "linear", "unspecified"],
)
def test_colours_that_a_container_names_by_code_are_converted(kind, codes, primaries, linear):
    levels = np.array([[200, 60, 40], [90, 180, 70], [60, 70, 190], [128, 128, 128]], dtype=np.uint8)
    image = container(in_space(levels, primaries, linear), kind, codes)
    found = to_srgb(image)
    np.testing.assert_allclose(np.asarray(found.image)[8, 8::16], levels, atol=8)
    assert found.notes == (() if primaries is SRGB and not linear else ("profile",))
    assert to_srgb(image).image.size == (64, 16)  # once more, where the file is closed or replaced


def test_a_profile_counts_before_the_codes_of_a_container():
    levels = np.full((4, 3), 100, np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    row = levels.tobytes()
    plain = container(row, "AVIF", (1, 13))
    assert to_srgb(container(row, "AVIF", (12, 8))).notes == ("profile",)
    image = container(row, "AVIF", (12, 8), icc_profile=srgb)
    np.testing.assert_array_equal(np.asarray(to_srgb(image).image), np.asarray(to_srgb(plain).image))


@pytest.mark.parametrize("codes", [(9, 16), (12, 18), (22, 13)])
def test_colours_of_hdr_in_a_container_are_left_and_told(kind, codes):
    row = bytes(range(0, 120, 10))
    found = to_srgb(container(row, kind, codes))
    assert found.notes == ("other_colours",) and "other_colours" in found.image.info
    plain = to_srgb(container(row, kind, (1, 13)))
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(plain.image))
    assert "other_colours" not in plain.image.info


@pytest.mark.parametrize("cicp", [(9, 16, 0, 1), (9, 18, 0, 1), (12, 13, 0, 0), (1, 13, 1, 1), (2, 2, 0, 1)])
def test_colours_of_hdr_and_unknown_codes_are_left_and_told(cicp):
    levels = colours()
    rows = [row.tobytes() for row in levels]
    found = to_srgb(png(8, 2, rows, 24, cICP=bytes(cicp)))
    np.testing.assert_array_equal(np.asarray(found.image), levels)
    assert found.notes == ("other_colours",) and "other_colours" in found.image.info
    for cut in (b"", bytes(cicp)[:3]):
        assert to_srgb(png(8, 2, rows, 24, cICP=cut)).notes == ()
