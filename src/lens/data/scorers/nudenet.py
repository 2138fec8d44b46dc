"""The NudeNet scorer: nudity, by the detector inside the package nudenet; nothing is downloaded.

The detector sees the image at 320 x 320 and returns classes; the score is computed here.
Paper: Lens report, data section (stage 3), with a fine-tuned classifier: see classifiers.py.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from lens.data.scorers.base import ScorerSettings, package_versions, version_hash

VERSION = "1"
"""Version of the score that is computed from the detections."""
MODEL_FILE = "320n.onnx"
EXPLICIT_CLASSES = frozenset(
    {
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
    }
)
"""The detector also finds faces, covered parts, feet, bellies and male chests; these do not count."""
MAX_SIDE_PX = 4096
"""Larger images are reduced: the detector pads to a square, and a long image would exhaust memory."""


class NudeNetSettings(ScorerSettings):
    """The NudeNet detector."""

    kind: Literal["nudenet"] = "nudenet"
    num_threads: int = Field(1, gt=0)
    """Threads for one image; builds run a process for each core."""

    @property
    def columns(self) -> dict[str, str]:
        return {"nsfw": "float64", "nsfw_classes": "list"}

    def create_scorer(self) -> "NudeNetScorer":
        return NudeNetScorer(self)


class NudeNetScorer:
    """Fills `nsfw` with the largest probability of an explicit class, `nsfw_classes` with all classes."""

    def __init__(self, settings: NudeNetSettings):
        self.settings = settings
        self.name = settings.kind
        self.columns = settings.columns
        packages = package_versions(self.name, "nudenet", "onnxruntime", "opencv-python-headless")
        self.version = version_hash(VERSION, packages)

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        return [score_row(self._detector.detect(to_bgr_array(image))) for image in images]

    @functools.cached_property
    def _detector(self) -> Any:
        import nudenet
        import onnxruntime

        path = Path(nudenet.__path__[0]) / MODEL_FILE
        detector = nudenet.NudeDetector(str(path))
        # Its own session uses all cores and has no option for fewer; parallel processes would compete.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.num_threads
        detector.onnx_session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        return detector


def to_bgr_array(image: Image.Image) -> np.ndarray:
    """Return the array that the detector reads from an image file, with blue first.

    Shapes: -> (H, W, 3), uint8.
    """
    small = image.copy()
    small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small)[:, :, ::-1])


def score_row(detections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the row of one image from its detections.

    Units: `nsfw` is 0, or a probability from 0.25, the lowest that the detector reports, to 1.
    """
    found: dict[str, float] = {}
    for one in detections:
        found[one["class"]] = max(one["score"], found.get(one["class"], 0.0))
    explicit = [score for name, score in found.items() if name in EXPLICIT_CLASSES]
    return {"nsfw": max(explicit, default=0.0), "nsfw_classes": sorted(found, key=lambda name: -found[name])}
