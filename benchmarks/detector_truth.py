"""How far the SSD detector of GenEval can be trusted on the art of the nano world: rendered truth, no model.

For each class that GenEval and the nano world share, scenes with one large object are rendered, and the
detector looks for it.

    lens eval fetch ssd
    python benchmarks/detector_truth.py --side 128
"""

import argparse

import numpy as np
from PIL import Image

from lens.benchmarks.geneval import CLASSES
from lens.evals.observers.ssd import SsdDetector
from lens.nano.prompt_scenes import scene_of
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.nano.world.scenes import draw_scene

THRESHOLD = 0.3
"""GenEval's, for all tasks but counting."""


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--side", type=int, default=128, help="side of the scenes in pixels")
    parser.add_argument("--scenes", type=int, default=3, help="scenes of each class")
    options = parser.parse_args()
    detector = SsdDetector()
    names = [name for name in CLASSES if name in OBJECT_CLASSES]
    found: dict[str, list[bool]] = {}
    for name in names:
        spec = SceneSpec((ObjectGroup(name, 1, None, "large"),), None, (), None)
        for seed in range(options.scenes):
            scene = scene_of(spec, np.random.default_rng(seed), options.side, options.side)
            pixels = np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5)       # (H, W, 3)
            seen = detector.detect(Image.fromarray(pixels.astype(np.uint8)))
            scores = [one.score for one in seen if one.class_name == name]
            found.setdefault(name, []).append(max(scores, default=0.0) > THRESHOLD)
        print(f"{name:<16} {sum(found[name])} of {options.scenes}")
    total = [one for own in found.values() for one in own]
    print(f"{len(names)} classes, {sum(total)} of {len(total)} scenes: {sum(total) / len(total):.3f}")


if __name__ == "__main__":
    main()
