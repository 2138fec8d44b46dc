"""Re-colouring of drawings that have one dominant hue: its pixels get another colour, the others stay.

Knows pixels, nothing of scenes or sentences. Letters: H height, W width. Hues are fractions of a turn.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.colours import OBJECT_COLOURS

MIN_SHARE = 0.62
"""Smallest share of the dominant hue in the coloured pixels of a drawing."""
MIN_AREA = 0.5
"""Smallest share of the dominant hue in all pixels of a drawing."""
MIN_DIFFERENCE = 32
"""Smallest distance of the mean colours of a sprite in two of its colours, in 8-bit RGB."""
NAMED_COLOURS = ("red apple", "green apple", "orange", "red heart")
"""Classes whose names are colours: these keep theirs."""
MANY_COLOURED = (
    "rainbow", "globe", "peacock", "dragon", "duck", "rooster", "planet", "birthday cake", "popcorn",
    "palm tree", "mango", "taco", "sandwich", "hamburger", "ship", "airplane",
)  # fmt: skip
"""Classes with one dominant hue whose drawings are still of several colours."""
COLOURABLE: dict[str, str] = {
    "fox": "orange", "cat": "yellow", "lion": "brown", "tiger": "orange", "bear": "brown", "frog": "green",
    "pig": "pink", "cow": "pink", "monkey": "brown", "chick": "yellow", "owl": "brown", "butterfly": "blue",
    "ladybug": "red", "snail": "brown", "octopus": "red", "crab": "orange", "whale": "blue",
    "turtle": "green", "hedgehog": "brown", "banana": "yellow", "lemon": "yellow", "pear": "green",
    "peach": "orange", "strawberry": "red", "cherry": "red", "pineapple": "yellow", "carrot": "orange",
    "broccoli": "green", "mushroom": "red", "ear of corn": "yellow", "eggplant": "purple",
    "pizza": "orange", "doughnut": "brown", "ice cream": "yellow", "cheese": "yellow",
    "croissant": "orange", "avocado": "yellow", "rose": "red", "tulip": "pink", "cactus": "green",
    "pine tree": "green", "maple leaf": "orange", "clover": "green", "sun": "yellow", "moon": "yellow",
    "star": "yellow", "snowflake": "blue", "fire": "orange", "car": "red", "taxi": "yellow",
    "fire engine": "red", "helicopter": "yellow", "sailboat": "orange", "balloon": "red", "tent": "orange",
    "basketball": "orange", "guitar": "red", "trumpet": "yellow", "gift": "orange", "crown": "yellow",
    "key": "yellow", "umbrella": "blue", "light bulb": "yellow", "book": "red", "bell": "yellow",
    "television": "blue", "teddy bear": "brown", "backpack": "red", "pumpkin": "orange", "diamond": "blue",
    "horse": "orange", "goat": "brown", "eagle": "brown", "flamingo": "pink", "dolphin": "blue",
    "lobster": "red", "bat": "brown", "giraffe": "orange", "rhinoceros": "blue", "camel": "orange",
    "squirrel": "brown", "dinosaur": "green", "crocodile": "green", "snake": "green", "deer": "brown",
    "jellyfish": "blue", "grapes": "purple", "melon": "green", "kiwi": "green", "tomato": "red",
    "potato": "brown", "cucumber": "green", "onion": "orange", "pancakes": "orange",
    "french fries": "orange", "hot dog": "orange", "tree": "green", "lightning bolt": "yellow",
    "anchor": "blue", "chair": "brown", "door": "brown", "pencil": "yellow", "bucket": "blue",
    "violin": "orange", "saxophone": "yellow", "dress": "blue", "shoe": "blue", "suitcase": "blue",
    "teapot": "red",
}  # fmt: skip
"""Classes that can be re-coloured, with the colour of their drawing; sprites.find_colourable finds them."""
_HALF_WINDOW = 28 / 360
_FADE = 12 / 360
"""Beyond the window, the effect fades out, as edges between two colours have the hues between."""
_MIN_SATURATION, _MIN_VALUE = 0.25, 0.2
_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)


class DominantHue(NamedTuple):
    """The hue of most coloured pixels of a drawing, their share, their area, and their median colour."""

    hue: float
    share: float
    area: float
    rgb: NDArray[np.float32]


def dominant_hue(drawing: NDArray[np.float32]) -> DominantHue | None:
    """Return the dominant hue of a drawing (H, W, 4) with straight alpha, if it has colours at all."""
    opaque = drawing[..., 3] > 0.5
    hue, saturation, value = _hue_saturation_value(drawing[..., :3])
    coloured = opaque & (saturation > _MIN_SATURATION) & (value > _MIN_VALUE)
    hues = hue[coloured]
    if not hues.size:
        return None
    centres = np.arange(72) / 72
    counts = [(_distance(hues, centre) < _HALF_WINDOW).sum() for centre in centres]
    near = _distance(hues, centres[int(np.argmax(counts))]) < _HALF_WINDOW
    # The first window that has most of the pixels may have them all on one side.
    angles = 2j * np.pi * hues[near]
    middle = float(np.angle(np.exp(angles).mean()) / (2 * np.pi)) % 1
    inside = _distance(hues, middle) < _HALF_WINDOW
    rgb = np.median(drawing[..., :3][coloured][inside], axis=0)
    return DominantHue(middle, float(inside.mean()), float(inside.sum() / opaque.sum()), rgb)


def natural_colour(rgb: NDArray[np.float32]) -> str:
    """Return what people call the colour of a drawing with this RGB in [0, 1], one of OBJECT_COLOURS."""
    hue, saturation, value = (float(part) for part in _hue_saturation_value(rgb))
    degrees = 360 * hue
    if degrees < 39 or degrees >= 345:
        is_warm = 12 <= degrees < 39 and not (degrees < 16 and saturation > 0.85)
        if value < (0.9 if is_warm else 0.68):
            return "brown"
        if saturation < 0.5:
            return "pink"
        return "orange" if is_warm else "red"
    names = {62: "yellow", 165: "green", 255: "blue", 300: "purple"}
    return next((name for end, name in names.items() if degrees < end), "pink" if value > 0.6 else "purple")


def smallest_difference(pixels: NDArray[np.float32], dominant: DominantHue) -> float:
    """Return the smallest distance of the mean colours of a sprite in two of its colours, in 8-bit RGB."""
    opaque, natural = pixels[..., 3] > 0.5, natural_colour(dominant.rgb)
    means = [
        (pixels if name == natural else recolour(pixels, dominant, name))[..., :3][opaque].mean(0)
        for name in OBJECT_COLOURS
    ]
    return 255 * min(float(np.linalg.norm(a - b)) for a, b in combinations(means, 2))


def recolour(pixels: NDArray[np.float32], dominant: DominantHue, colour: str) -> NDArray[np.float32]:
    """Return a sprite (H, W, 4) with another colour in place of its dominant hue; light and shade stay."""
    rgb = pixels[..., :3]
    hue, saturation, value = _hue_saturation_value(rgb)
    weight = 1 - (_distance(hue, dominant.hue) - _HALF_WINDOW) / _FADE
    # Greys have no hue of their own.
    weight = np.minimum(weight, (saturation - 0.08) / 0.1).clip(0, 1) * (value > 0.04)
    target = np.array(OBJECT_COLOURS[colour], np.float32) / 255
    ratio = (rgb @ _LUMINANCE / float(dominant.rgb @ _LUMINANCE))[..., None]  # (H, W, 1)
    shade = target * np.minimum(ratio, 1) ** 0.9
    light = target + (1 - target) * (1.1 * (ratio - 1)).clip(0, 0.85)
    painted = np.where(ratio <= 1, shade, light)
    result = pixels.copy()
    result[..., :3] += weight[..., None] * (painted - rgb)
    return result


def _hue_saturation_value(
    rgb: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the three parts of colours (..., 3), each in [0, 1]."""
    value, low = rgb.max(-1), rgb.min(-1)
    spread = np.maximum(value - low, 1e-6)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    sixths = np.where(
        value == red,
        (green - blue) / spread,
        np.where(value == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    return (sixths / 6) % 1, np.where(value > 0, (value - low) / np.maximum(value, 1e-6), 0), value


def _distance(hues: NDArray[np.float32], hue: float) -> NDArray[np.float32]:
    return np.abs((hues - hue + 0.5) % 1 - 0.5)
