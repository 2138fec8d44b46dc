"""Exact scorer of nano images: what an image shows, and whether it shows what its prompt asks for.

Counts are exact, as in GenEval: one object too many fails an image, as one too few does, and so does a sign
that was not asked for. segmentation.py finds the objects, template_matching.py names them, and a reader of
text reads signs; no other judge is learned. Knows nothing of models.
Units: positions and sizes are pixels, x right, y down; the place of an object is the centre of its sprite.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from lens.errors import ShapeError
from lens.nano.scoring.detections import DetectedObject, Detections, ImageArray
from lens.nano.scoring.matching_groups import scene_errors
from lens.nano.scoring.segmentation import Foreground, Segment, estimate_background, segment_objects, smooth
from lens.nano.scoring.sign_finder import find_signs
from lens.nano.scoring.sign_reader import read_board
from lens.nano.scoring.template_bank import build_template_bank, frequent_colours
from lens.nano.scoring.template_matching import UNKNOWN, VISIBLE_THRESHOLD
from lens.nano.world.colours import COLOURS
from lens.nano.world.scenes import SceneSpec, base_px

__all__ = [
    "DetectedObject", "Detections", "ImageArray", "SceneScore", "colour_name", "detect",
    "score_detections", "score_image", "sign_errors",
]  # fmt: skip

_MIN_SIMILARITY = 0.6
"""Regions that are less similar to every object are unknown."""
_BASE_PX, _LARGEST_PX = 128, 160
"""Base that objects are found at in images of a larger base than the second."""
_MIN_SIDE_SHARE = 0.16
"""Smallest side of an object as a fraction of base_px; the smallest in scenes is 0.205."""
_MIN_UNKNOWN_SHARE = 0.35
"""Unknown parts below this fraction of the square of the smallest object are noise."""
_LEFTOVER_OVERLAP = 0.6
"""An unknown part with this share inside the square of a known object belongs to that object."""
_MIN_COLOURED_SHARE = 0.2
"""Colours of fewer pixels, as a share of the square of the smallest object, are on no re-coloured one."""


class SceneScore(NamedTuple):
    """Whether an image passes, the reasons if it does not, and what it shows."""

    passed: bool
    reasons: tuple[str, ...]
    detections: Detections


def detect(image: ImageArray) -> Detections:
    """Return the background colour and all objects of an 8-bit image, (H, W, 3).

    Raises: ShapeError for any other array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"An image is uint8 (height, width, 3), not {image.dtype} {image.shape}.")
    full_px = base_px(*image.shape[:2])
    signs = find_signs(image, full_px)
    # Larger images are no easier to name, only slower.
    scale = full_px / _BASE_PX if full_px > _LARGEST_PX else 1.0
    pixels = _resized(image, scale).astype(np.float32) / 255
    background = estimate_background(pixels)
    min_object_px = _MIN_SIDE_SHARE * base_px(*pixels.shape[:2])
    difference = smooth(pixels) - np.asarray(background, np.float32)
    for _, box in signs:
        rows, columns = (slice(int(side.start / scale), math.ceil(side.stop / scale)) for side in box)
        difference[rows, columns] = 0
    is_visible = np.abs(difference).max(-1) > VISIBLE_THRESHOLD
    colours = frequent_colours(pixels, is_visible, _MIN_COLOURED_SHARE * min_object_px**2)
    foreground = Foreground(difference, build_template_bank(background, colours), min_object_px)
    red, green, blue = (round(255 * channel) for channel in background)
    objects = tuple(
        thing._replace(x_px=scale * thing.x_px, y_px=scale * thing.y_px, size_px=scale * thing.size_px)
        for thing in _name_segments(segment_objects(foreground), min_object_px)
    )
    name = colour_name((red, green, blue))
    return Detections(name, (red, green, blue), objects, tuple(sign for sign, _ in signs), full_px)


def _resized(image: ImageArray, scale: float) -> ImageArray:
    """Return an image that is smaller by a factor."""
    if scale == 1:
        return image
    size = round(image.shape[1] / scale), round(image.shape[0] / scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def score_image(image: ImageArray, spec: SceneSpec) -> SceneScore:
    """Compare an 8-bit image, (H, W, 3), with what it must show."""
    return score_detections(detect(image), spec)


def score_detections(detections: Detections, spec: SceneSpec) -> SceneScore:
    """Compare what an image shows with what it must show: objects and exact counts, relations, background."""
    reasons = [*scene_errors(detections, spec), *sign_errors(detections, spec.text)]
    if spec.background not in (None, detections.background):
        reasons.append(f"the background is {detections.background}, not {spec.background}")
    return SceneScore(not reasons, tuple(reasons), detections)


def sign_errors(detections: Detections, text: str | None) -> list[str]:
    """Return what is wrong with signs: none where one is asked for, one too many, another text."""
    num_signs = len(detections.signs)
    if text is None:
        return [f"{num_signs} x sign found, 0 expected"] if num_signs else []
    if num_signs != 1:
        return [f"{num_signs} x sign found, 1 expected"]
    found = read_board(detections.signs[0].board)
    return [] if found == text else [f"the sign says {found!r}, not {text!r}"]


def colour_name(rgb: tuple[int, int, int]) -> str:
    """Return the name of the background colour that is nearest to an 8-bit colour."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], rgb, strict=True)))


def _name_segments(segments: list[Segment], min_object_px: float) -> list[DetectedObject]:
    """Return segments as named objects, largest first, without noise and leftovers of known objects."""
    known = [segment for segment in segments if segment.match.similarity >= _MIN_SIMILARITY]
    objects = [DetectedObject(*group.match[:5], group.match.colour) for group in known]
    for group in segments:
        if (
            group.match.similarity >= _MIN_SIMILARITY
            or group.mask.sum() < _MIN_UNKNOWN_SHARE * min_object_px**2
        ):
            continue
        if all(_share_inside(group, thing) < _LEFTOVER_OVERLAP for thing in objects[: len(known)]):
            objects.append(DetectedObject(UNKNOWN, *group.match[1:5]))
    return sorted(objects, key=lambda thing: -thing.size_px)


def _share_inside(segment: Segment, thing: DetectedObject) -> float:
    """Return the fraction of the pixels of a segment that lie in the square of an object."""
    rows, columns = np.nonzero(segment.mask)
    half = thing.size_px / 2
    return float(((np.abs(rows - thing.y_px) <= half) & (np.abs(columns - thing.x_px) <= half)).mean())
