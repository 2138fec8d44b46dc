"""Resolutions of images: the buckets by base and aspect ratio, the limits, and the size of a request.

Sizes are (height, width) in pixels, aspect ratios are named W:H. Free of torch, so that commands start fast.
Errors speak in the words of a surface: Python's arguments, the command's options, the API's parameters.
Paper: Lens report, resolution buckets.
"""

from typing import NamedTuple

from lens.errors import SettingError

SIDE_STEP_PX = 16
"""Both sides are multiples of this, the side of the square of pixels behind one image token."""
MAX_AREA_PX = 1440 * 1440
MAX_RATIO = 2
ASPECT_RATIOS = ("1:2", "9:16", "2:3", "3:4", "1:1", "4:3", "3:2", "16:9", "2:1")

# The tall half of each table; the wide ratios are the same sizes with the sides swapped.
_TALL_TO_SQUARE = {
    512: ((704, 352), (672, 384), (640, 416), (608, 448), (512, 512)),
    768: ((1088, 544), (1024, 576), (960, 640), (896, 672), (768, 768)),
    1024: ((1472, 736), (1376, 768), (1248, 832), (1152, 864), (1024, 1024)),
    1440: ((2080, 1040), (1936, 1088), (1760, 1168), (1616, 1216), (1440, 1440)),
}
SMALL_BASES = (128, 192, 256)
"""Base resolutions of the nano model, whose sizes follow from a rule."""


class SizeWords(NamedTuple):
    """What a surface calls the values that decide a size, for the errors about them."""

    height: str = "height"
    """Empty where the surface has no height of its own, but a size."""
    width: str = "width"
    size: str = "size"
    base_resolution: str = "base_resolution"
    aspect_ratio: str = "aspect_ratio"
    exact: str = "give height and width"
    """How to ask for a size that is no bucket."""
    override: str = "pass allow_extreme=True"
    """How to lift the limits; empty where nobody can."""


PYTHON_WORDS = SizeWords()


def _all_aspect_ratios(tall: tuple[tuple[int, int], ...]) -> dict[str, tuple[int, int]]:
    wide = tuple((width, height) for height, width in tall[-2::-1])
    return dict(zip(ASPECT_RATIOS, tall + wide, strict=True))


RESOLUTION_BUCKETS = {base: _all_aspect_ratios(tall) for base, tall in _TALL_TO_SQUARE.items()}


def buckets_for(base_resolution: int, setting: str = "base_resolution") -> dict[str, tuple[int, int]]:
    """Return the nine sizes of a base resolution as {ratio: (height, width)}, from the table or by a rule.

    Raises: SettingError for a base that is not a positive multiple of 16.
    """
    if base_resolution in RESOLUTION_BUCKETS:
        return dict(RESOLUTION_BUCKETS[base_resolution])
    if base_resolution <= 0 or base_resolution % SIDE_STEP_PX:
        known = ", ".join(str(base) for base in RESOLUTION_BUCKETS)
        fix = f"Bases with a table are {known}; the nearest valid one is {_nearest_side_px(base_resolution)}."
        raise SettingError(setting, base_resolution, f"a positive multiple of {SIDE_STEP_PX}", fix)
    sizes = {}
    for name in ASPECT_RATIOS:
        width, height = (int(part) for part in name.split(":"))
        stretch = (height / width) ** 0.5
        sizes[name] = (
            _nearest_side_px(base_resolution * stretch),
            _nearest_side_px(base_resolution / stretch),
        )
    return sizes


def resolve_resolution(
    height: int | None = None,
    width: int | None = None,
    base_resolution: int | None = None,
    aspect_ratio: str | None = None,
    *,
    default_base: int = 1024,
    allow_extreme: bool = False,
    words: SizeWords = PYTHON_WORDS,
) -> tuple[int, int]:
    """Return the (height, width) of a request: its explicit size, or the bucket of its base and ratio.

    Units: pixels. The ratio defaults to 1:1, the base to `default_base`. Errors speak in `words`.
    Raises: SettingError for one side alone, a size that contradicts the base and ratio, an unknown ratio, a
        side that is not a multiple of 16, and (without `allow_extreme`) a ratio or area outside the limits.
    """
    base = default_base if base_resolution is None else base_resolution
    ratio = "1:1" if aspect_ratio is None else aspect_ratio
    if height is None and width is None:
        return _check_limits(*_bucket(base, ratio, words), allow_extreme, words)
    if height is None or width is None:
        given = f"{words.width} {width}" if height is None else f"{words.height} {height}"
        missing, other = words.height if height is None else words.width, given
        raise SettingError(missing, None, f"a number, as {other} is given", "Give both or neither.")
    _check_sides(height, width, words)
    if base_resolution is not None or aspect_ratio is not None:
        bucket = _bucket(base, ratio, words)
        if bucket != (height, width):
            named = f"{bucket[1]}x{bucket[0]}"
            needs = f"to be {named}, the size of the base and ratio that are given too"
            raise SettingError(words.size, f"{width}x{height}", needs, "Give a size, or a base and a ratio.")
    return _check_limits(height, width, allow_extreme, words)


def _bucket(base_resolution: int, aspect_ratio: str, words: SizeWords) -> tuple[int, int]:
    sizes = buckets_for(base_resolution, words.base_resolution)
    if aspect_ratio not in sizes:
        fix = f"For any other ratio, {words.exact}."
        raise SettingError(words.aspect_ratio, aspect_ratio, f"one of {', '.join(ASPECT_RATIOS)}", fix)
    return sizes[aspect_ratio]


def _nearest_side_px(side: float) -> int:
    return max(SIDE_STEP_PX, int(side / SIDE_STEP_PX + 0.5) * SIDE_STEP_PX)


def _check_sides(height: int, width: int, words: SizeWords) -> None:
    for name, own, side in (("height", words.height, height), ("width", words.width, width)):
        if side > 0 and side % SIDE_STEP_PX == 0:
            continue
        below = side // SIDE_STEP_PX * SIDE_STEP_PX
        near = [valid for valid in (below, below + SIDE_STEP_PX) if valid > 0] or [SIDE_STEP_PX]
        fix = f"The nearest valid {name} is {' or '.join(str(side) for side in near)}."
        needs = f"a positive multiple of {SIDE_STEP_PX}"
        if not own:
            raise SettingError(words.size, f"{width}x{height}", f"{needs} as {name}", fix)
        raise SettingError(own, side, needs, fix)


def _check_limits(height: int, width: int, allow_extreme: bool, words: SizeWords) -> tuple[int, int]:
    # The longest buckets at base 1440 exceed 1440 x 1440 by a little; every bucket is allowed.
    if allow_extreme or find_bucket(height, width) is not None:
        return height, width
    override = f"To generate it anyway, {words.override}; expect poorer images." if words.override else ""
    if max(height, width) > MAX_RATIO * min(height, width):
        raise SettingError(words.size, f"{width}x{height}", "an aspect ratio from 1:2 to 2:1", override)
    if height * width > MAX_AREA_PX:
        raise SettingError(words.size, f"{width}x{height}", "an area of at most 1440 x 1440", override)
    return height, width


def upscaled_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """Return a (height, width) times a factor of 1 or more, each side at the nearest multiple of 16."""
    return _nearest_side_px(height * factor), _nearest_side_px(width * factor)


def size_before_upscaling(height: int, width: int, factor: float | None) -> tuple[int, int]:
    """Return the (height, width) that `upscaled_size` was given; without a factor, the size itself."""
    if factor is None:
        return height, width
    return _nearest_side_px(height / factor), _nearest_side_px(width / factor)


def find_bucket(height: int, width: int) -> tuple[int, str] | None:
    """Return the base resolution and the aspect ratio of a size in pixels, or None if it is no bucket."""
    for base in (*SMALL_BASES, *RESOLUTION_BUCKETS):
        for ratio, size in buckets_for(base).items():
            if size == (height, width):
                return base, ratio
    return None
