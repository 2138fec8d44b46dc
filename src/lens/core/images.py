"""Any picture that Pillow opens as every reader of Lens sees it: upright, opaque, 8-bit RGB in sRGB.

Knows nothing of files, limits or models. Free of torch, so that commands start fast. Letters: H and W pixels.
"""

import functools
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from lens.core.colour_codes import (
    GAMMAS,
    PRIMARIES,
    SRGB_CHROMATICITY,
    SRGB_GAMMA,
    ColourCodes,
    colour_codes,
)

STRIP_PIXELS = 2**16
ALPHA_BACKGROUND = (255, 255, 255)
"""Transparent images are composited on white."""
FLOAT_WHITES = (1.0, 255.0, 65535.0)
"""White of floating-point grey: the smallest that the brightest pixel does not exceed."""
MAX_HIGHLIGHT = 16.0
"""Floating-point grey up to here has its white at 1; highlights above white are clipped."""
GAMMA_TOLERANCE = 0.05
"""A PNG whose gamma differs by a smaller share from that of sRGB is left alone, as libpng does."""
CHROMATICITY_TOLERANCE = 0.005
SAME_WHITE = 0.02
"""Whites that differ by more in x or y are not adapted: such files are rare, and their cHRM often wrong."""
PROFILE_TOLERANCE = 1
"""A profile that changes no colour by more than this many levels is that of sRGB."""
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Mode of the pixels that a profile of this colour space describes."""
MAX_PROFILES = 32

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""By the EXIF orientation. Other values mean nothing."""
MODE_NOTES = {"CMYK": ("cmyk",), "P": ("palette",), "L": ("grey",), "1": ("grey",)}

OTHER_COLOURS = "other_colours"

Notes = tuple[str, ...]


class SrgbImage(NamedTuple):
    """An image in sRGB and the conversions that it needed."""

    image: Image.Image
    """RGB, upright, of full size."""
    notes: Notes
    """Some of: rotated, profile, bad_profile, other_colours, deep, grey, palette, cmyk, alpha.

    `other_colours` is a file whose codes name colours that are not converted, such as those of HDR. The image
    has this note in its `info`, too.
    """


def to_srgb(image: Image.Image) -> SrgbImage:
    """Return an image upright and in sRGB, transparent pixels composited on white.

    Where nothing has to be converted it is the image itself. Best before its pixels are loaded: Pillow then
    forgets how many bits the file has a pixel. A profile that cannot be used is ignored and noted.
    """
    codes = colour_codes(image)
    shallow, is_deep, method = _load(image)
    coloured, profile_notes = _apply_profile(shallow) if codes is None else _apply_codes(shallow, codes)
    opaque, alpha_notes = _flatten_alpha(coloured)
    rgb = opaque.convert("RGB") if opaque.mode != "RGB" else opaque
    if method is not None:
        rgb = rgb.transpose(method)
    if OTHER_COLOURS in profile_notes:
        rgb = rgb.copy() if rgb is image else rgb
        rgb.info[OTHER_COLOURS] = "read as sRGB"
    mode_notes = ("deep", "grey") if is_deep else () if alpha_notes else MODE_NOTES.get(image.mode, ())
    return SrgbImage(rgb, (*(("rotated",) if method else ()), *profile_notes, *mode_notes, *alpha_notes))


def alpha_channel(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel of an image, upright; None for an image without any transparency."""
    shallow, _, method = _load(image)
    alpha = _alpha(shallow)
    return alpha.transpose(method) if alpha is not None and method is not None else alpha


def to_mask(image: Image.Image) -> Image.Image:
    """Return an inpainting mask of either convention as grey: white is redrawn, black is kept.

    In a mask with transparency, as OpenAI's API asks for, what is transparent is redrawn; in an opaque one,
    as of diffusers, what is white. Levels of alpha count as clear or opaque: lossy formats leave 254 of 255.
    """
    alpha = alpha_channel(image)
    lowest: Any = 255 if alpha is None else alpha.getextrema()[0]
    if alpha is not None and lowest < 128:
        return alpha.point([255] * 128 + [0] * 128)
    if lowest < 255:
        image = image.convert("RGBA")
        image.putalpha(255)
    return to_srgb(image).image.convert("L")


def cut_share(size: tuple[int, int], new_size: tuple[int, int]) -> float:
    """Return the share of a side that is lost where an image is resized to cover a size and cropped.

    Units: both sizes (width, height) in pixels, in [0, 1).
    """
    ratio, new_ratio = size[0] / size[1], new_size[0] / new_size[1]
    return 1 - min(ratio, new_ratio) / max(ratio, new_ratio)


def _load(image: Image.Image) -> tuple[Image.Image, bool, Image.Transpose | None]:
    """Return an image at 8 bits, whether it had more, and how it is turned upright."""
    if image.format == "EPS":
        raise ValueError("EPS is a program, which would be run. Save what it draws as a PNG file")
    scaled = _scale_transparency(image)
    scaled.load()
    method = UPRIGHT.get(_orientation(scaled))
    is_deep = scaled.mode.startswith("I") or scaled.mode == "F"
    return _eight_bit(scaled) if is_deep else scaled, is_deep, method


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises any exception; viewers show such an image as it is
        return 1


def _scale_transparency(image: Image.Image) -> Image.Image:
    """Return an image whose transparent colour is at the depth of its pixels, not at that of a PNG file."""
    colour, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    raw_mode = str(tiles[0].args) if tiles else ""
    if isinstance(colour, int) and raw_mode in ("L;2", "L;4"):
        scaled: Any = colour * 255 // (2 ** int(raw_mode[-1]) - 1)
    elif isinstance(colour, tuple) and max(colour) > 255:
        scaled = tuple(level >> 8 for level in colour)  # Pillow reads the upper byte of 16-bit RGB
    else:
        return image
    copy = image.copy()
    copy.info["transparency"] = scaled
    return copy


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return grey of more than 8 bits at 8 bits; the conversion of Pillow clips instead of scaling.

    White is what the file's type says, not its brightest pixel: a dark image stays dark.
    """
    tags = getattr(image, "tag_v2", {})  # of TIFF files
    levels, white = _levels_and_white(image, tags)                              # (H, W)
    if white == 65535 and levels.dtype.kind == "u":
        grey = (np.arange(65536) / 257 + 0.5).astype(np.uint8)[levels]
    else:
        unit = np.nan_to_num(levels.astype(np.float64), nan=0.0) / white
        grey = (unit.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if tags.get(262) == 0:  # white is zero, which Pillow heeds at 8 bits only
        grey = 255 - grey
    shallow, clear = Image.fromarray(grey), image.info.get("transparency")
    if clear is not None:
        shallow.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    shallow.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return shallow


def _levels_and_white(image: Image.Image, tags: Any) -> tuple[NDArray[Any], float]:
    """Return the pixels of deep grey, and the level of white."""
    levels = np.asarray(image)                                                  # (H, W)
    if image.mode == "F":
        brightest = float(np.nan_to_num(levels).max())
        if brightest <= MAX_HIGHLIGHT:
            return levels, FLOAT_WHITES[0]
        return levels, next((white for white in FLOAT_WHITES if brightest <= white), brightest)
    bits, sample_format = (int(np.ravel(tags.get(name, other))[0]) for name, other in ((258, 0), (339, 1)))
    if bits > 8:
        is_signed = sample_format == 2
        levels = levels if is_signed or bits < 32 else levels.view(np.uint32)
        return levels, 2 ** (bits - is_signed) - 1
    if image.mode != "I":
        return levels, 65535
    # An image made in memory: Pillow keeps the levels of 8 or 16 bits in this mode.
    return levels, next((white for white in (255, 65535) if levels.max() <= white), 2**31 - 1)


def _apply_codes(image: Image.Image, codes: ColourCodes) -> tuple[Image.Image, Notes]:
    """Return the image with the colours of its codes converted; a profile counts where they are not known."""
    if codes.is_known:
        return _apply_colours(image, GAMMAS[codes.curve], PRIMARIES[codes.primaries])
    converted, notes = _apply_profile(image)
    return converted, (*notes, OTHER_COLOURS)


def _apply_profile(image: Image.Image) -> tuple[Image.Image, Notes]:
    """Return the image with its colour profile, or the gamma of a PNG, converted to sRGB."""
    content = image.info.get("icc_profile")
    if not content:
        return _apply_gamma(image)
    try:
        mode, transform = _srgb_transform(content)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image, ("bad_profile",)
    is_grey, is_cmyk = image.mode in ("1", "L", "LA", "La"), image.mode == "CMYK"
    if (mode == "L" and not is_grey) or (mode == "CMYK") != is_cmyk or image.mode == "LAB":
        return image, ("bad_profile",)
    if transform is None:
        return image, ()
    alpha = _alpha(image)
    coloured: Image.Image = transform.apply(image if image.mode == mode else image.convert(mode))
    if alpha is not None:
        coloured.putalpha(alpha)
    coloured.info = {}
    return coloured, ("profile",)


@functools.lru_cache(maxsize=MAX_PROFILES)
def _srgb_transform(content: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode of the pixels that a profile describes, and its transform; None for that of sRGB.

    Raises: PyCMSError, OSError, ValueError for a damaged profile and for a colour space that no file has.
    """
    profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(content))
    space = profile.profile.xcolor_space.strip()
    if space not in PROFILE_MODES:
        raise ValueError(f"profile of {space}")
    mode = PROFILE_MODES[space]
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    probe = Image.fromarray(colours) if mode == "RGB" else Image.fromarray(steps[None])
    converted = np.asarray(transform.apply(probe)).astype(int)
    is_srgb = np.abs(converted - np.asarray(probe.convert("RGB"))).max() <= PROFILE_TOLERANCE
    return mode, None if is_srgb else transform


def _apply_gamma(image: Image.Image) -> tuple[Image.Image, Notes]:
    """Return the image with the gamma and the primaries of its PNG file turned into those of sRGB."""
    if "srgb" in image.info or "gamma" not in image.info:
        return image, ()
    chromaticity = image.info.get("chromaticity", SRGB_CHROMATICITY)
    return _apply_colours(image, image.info["gamma"] or SRGB_GAMMA, chromaticity)


def _apply_colours(
    image: Image.Image, gamma: float, chromaticity: tuple[float, ...]
) -> tuple[Image.Image, Notes]:
    """Return the image with a gamma and primaries turned into those of sRGB."""
    is_grey = image.mode in ("1", "L", "LA")
    matrix = None if is_grey else _primaries_matrix(chromaticity)
    is_gamma_own = abs(gamma / SRGB_GAMMA - 1) > GAMMA_TOLERANCE
    if matrix is None and not is_gamma_own:
        return image, ()
    levels = np.linspace(0, 1, 256)
    light = levels ** (1 / gamma) if is_gamma_own else _light_of(levels)
    alpha, colours = _alpha(image), image.convert("L" if is_grey else "RGB")
    if matrix is None:
        table = _levels_of(light).tolist()
        coloured = colours.point(table * len(colours.getbands()))
    else:
        pixels = np.asarray(colours)                                            # (H, W, 3)
        num_rows = max(1, STRIP_PIXELS // image.width)
        strips = [
            _levels_of(light[pixels[top : top + num_rows]] @ matrix.T)
            for top in range(0, image.height, num_rows)
        ]
        coloured = Image.fromarray(np.concatenate(strips))
    if alpha is not None:
        coloured.putalpha(alpha)
    coloured.info = {}
    return coloured, ("profile",)


def _light_of(levels: NDArray[Any]) -> NDArray[Any]:
    """Return the light of levels of sRGB, both in [0, 1]."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def _levels_of(light: NDArray[Any]) -> NDArray[Any]:
    """Return light as bytes of sRGB; colours that sRGB lacks are clipped."""
    light = light.clip(0, 1)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (levels * 255 + 0.5).astype(np.uint8)


def _primaries_matrix(chromaticity: tuple[float, ...]) -> NDArray[Any] | None:
    """Return what turns linear colours of primaries into those of sRGB; None where they are its own.

    Shapes: -> (3, 3).
    """
    own = np.array(chromaticity)
    difference = np.abs(own - SRGB_CHROMATICITY)
    is_same = difference.max() <= CHROMATICITY_TOLERANCE
    if is_same or difference[:2].max() > SAME_WHITE or own[1::2].min() <= 0:
        return None
    try:
        return np.linalg.solve(_xyz_matrix(np.array(SRGB_CHROMATICITY)), _xyz_matrix(own))
    except np.linalg.LinAlgError:  # primaries on one line
        return None


def _xyz_matrix(chromaticity: NDArray[Any]) -> NDArray[Any]:
    """Return the matrix from linear colours to XYZ. Shapes: (8,) -> (3, 3)."""
    x, y = chromaticity.reshape(4, 2).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])                         # (3, 4)
    white, primaries = xyz[:, 0], xyz[:, 1:]
    return primaries * np.linalg.solve(primaries, white)


def _alpha(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel of an image that has any transparency, whatever its mode."""
    return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None


def _flatten_alpha(image: Image.Image) -> tuple[Image.Image, Notes]:
    """Return an image composited on ALPHA_BACKGROUND, and a note where it is not opaque.

    Strip by strip, so that intermediate results stay in the cache of the processor: on huge images, whole
    passes took as long as decoding, and three times the memory.
    """
    if not image.has_transparency_data:
        return image, ()
    if image.mode == "P":
        return _flatten_palette_alpha(image)
    mode = "L" if image.mode == "LA" else "RGB"
    width, height = image.size
    page = Image.new(mode, image.size, ALPHA_BACKGROUND[: len(mode)])
    is_opaque = True
    num_rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, num_rows):
        strip = image.crop((0, top, width, min(height, top + num_rows)))
        if image.mode not in ("LA", "RGBA"):
            strip = strip.convert("RGBA")
        alpha = strip.getchannel("A")
        if alpha.getextrema()[0] == 255:
            page.paste(strip.convert(mode), (0, top))
            continue
        is_opaque = False
        if box := alpha.getbbox():
            seen = strip.crop(box).convert(mode)
            page.paste(seen, (box[0], top + box[1]), alpha.crop(box))
    # Full-colour images with an opaque alpha channel are as common as transparent ones.
    return page, () if is_opaque else ("alpha",)


def _flatten_palette_alpha(image: Image.Image) -> tuple[Image.Image, Notes]:
    """Composite the colours of the palette, not the pixels that have them."""
    colours = Image.fromarray(np.arange(256, dtype=np.uint8)[None], "P")
    palette_mode = image.palette.mode if image.palette else "RGB"
    colours.putpalette(image.getpalette(palette_mode) or [], palette_mode)
    if "transparency" in image.info:
        colours.info["transparency"] = image.info["transparency"]
    layered = colours.convert("RGBA")
    shown = np.array(image.histogram()) > 0
    is_opaque = (np.asarray(layered)[0, shown, 3] == 255).all()
    on_page, _ = _flatten_alpha(layered)
    solid = image.copy()
    solid.info.pop("transparency", None)
    solid.putpalette(on_page.tobytes())
    return solid.convert("RGB"), ("palette",) if is_opaque else ("alpha",)
