"""Exact scorer of nano images: what an image shows, and whether it shows what its prompt asks for.

Counts are exact, as in GenEval: one object too many fails an image, as one too few does. segmentation.py
finds the objects and template_matching.py names them; there is no learned judge. Knows nothing of models.
Units: positions and sizes are pixels, x right, y down; the place of an object is the centre of its sprite.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.errors import ShapeError
from lens.nano.scoring.segmentation import Foreground, Segment, estimate_background, segment_objects, smooth
from lens.nano.scoring.template_matching import UNKNOWN, build_template_bank
from lens.nano.world.colours import COLOURS
from lens.nano.world.scenes import SceneSpec, base_px

ImageArray = NDArray[np.uint8]
"""(H, W, 3)."""

_MIN_SIMILARITY = 0.6
"""Regions that are less similar to every object are unknown."""
_MIN_SIDE_SHARE = 0.16
"""Smallest side of an object as a fraction of base_px; the smallest in scenes is 0.205."""
_MIN_UNKNOWN_SHARE = 0.35
"""Unknown parts below this fraction of the square of the smallest object are noise."""
_LEFTOVER_OVERLAP = 0.6
"""An unknown part with this share inside the square of a known object belongs to that object."""
_RELATION_MARGIN = 0.1
"""Centres of objects in a relation differ by at least this fraction of the sum of their sides."""


class DetectedObject(NamedTuple):
    """One object in an image; its name is UNKNOWN if it is no object of the world."""

    class_name: str
    x_px: float
    y_px: float
    size_px: float
    similarity: float


class Detections(NamedTuple):
    """The background and all objects of an image."""

    background: str
    background_rgb: tuple[int, int, int]
    objects: tuple[DetectedObject, ...]


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
    pixels = image.astype(np.float32) / 255
    background = estimate_background(pixels)
    height, width = image.shape[:2]
    min_object_px = _MIN_SIDE_SHARE * base_px(height, width)
    foreground = Foreground(
        smooth(pixels) - np.asarray(background, np.float32), build_template_bank(background), min_object_px
    )
    red, green, blue = (round(255 * channel) for channel in background)
    objects = tuple(_name_segments(segment_objects(foreground), min_object_px))
    return Detections(colour_name((red, green, blue)), (red, green, blue), objects)


def score_detections(detections: Detections, spec: SceneSpec) -> SceneScore:
    """Compare what an image shows with what it must show: objects and exact counts, relations, background."""
    reasons = [*_count_errors(detections, spec), *_relation_errors(detections, spec)]
    if spec.background not in (None, detections.background):
        reasons.append(f"the background is {detections.background}, not {spec.background}")
    return SceneScore(not reasons, tuple(reasons), detections)


def is_related(detections: Detections, first: str, relation: str, second: str) -> bool:
    """Return whether both classes are present and all objects of the first relate so to the second."""
    one, other = (
        [found for found in detections.objects if found.class_name == name] for name in (first, second)
    )
    return bool(one and other) and _is_related(one, other, relation)


def colour_name(rgb: tuple[int, int, int]) -> str:
    """Return the name of the background colour that is nearest to an 8-bit colour."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], rgb, strict=True)))


def _name_segments(segments: list[Segment], min_object_px: float) -> list[DetectedObject]:
    """Return segments as named objects, largest first, without noise and leftovers of known objects."""
    known = [segment for segment in segments if segment.match.similarity >= _MIN_SIMILARITY]
    objects = [DetectedObject(*group.match[:5]) for group in known]
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


def _count_errors(detections: Detections, spec: SceneSpec) -> list[str]:
    counts = Counter(thing.class_name for thing in detections.objects)
    expected_counts = Counter({group.class_name: group.count or 0 for group in spec.groups})
    return [
        f"{counts[thing]} x {thing} found, {expected_counts[thing]} expected"
        for thing in sorted({*counts, *expected_counts})
        if counts[thing] != expected_counts[thing]
    ]


def _relation_errors(detections: Detections, spec: SceneSpec) -> list[str]:
    detected_names = {thing.class_name for thing in detections.objects}
    wrong = []
    for first, relation, second in spec.relations:
        names = spec.groups[first][0], spec.groups[second][0]
        # Missing objects are errors of the counts.
        if detected_names.issuperset(names) and not is_related(detections, names[0], relation, names[1]):
            wrong.append(f"{names[0]} is not {relation} {names[1]}")
    return wrong


def _is_related(first: list[DetectedObject], second: list[DetectedObject], relation: str) -> bool:
    """Return whether all of one group have the relation to all of the other, mostly along its axis."""
    axis = 0 if relation in ("left of", "right of") else 1
    before, after = (first, second) if relation in ("left of", "above") else (second, first)
    is_ordered = all(
        _centre(b)[axis] - _centre(a)[axis] > _RELATION_MARGIN * (a.size_px + b.size_px)
        for a in before
        for b in after
    )
    middles = [np.mean([_centre(thing) for thing in group], axis=0) for group in (first, second)]
    apart = np.abs(middles[0] - middles[1])
    return is_ordered and bool(apart[1 - axis] <= apart[axis])


def _centre(thing: DetectedObject) -> tuple[float, float]:
    return thing.x_px, thing.y_px
