"""Make training data of a LoRA: images with captions of one object that the nano world lacks.

Run: python scripts/make_new_thing.py kangaroo runs/nano/new_thing   (needs npm; the art is Apache 2.0)
The object is an icon of the Noto set (src/lens/nano/NOTICE), on backgrounds of the nano world in its nine
aspect ratios; in every third image an object of the world is beside it. Captions read like those of a person.
Examples of the training data of lens-nano-base are added: without them, the model forgets (docs/log.md).
"""

import argparse
import itertools
import json
from importlib import resources
from pathlib import Path

import numpy as np
from make_nano_art import PACKAGE, icons_of
from PIL import Image

from lens.core.resolution import buckets_for
from lens.nano.tasks import training_example
from lens.nano.world import sprites
from lens.nano.world.colours import COLOURS
from lens.nano.world.english import with_article
from lens.nano.world.objects import OBJECT_CLASSES, ObjectClass
from lens.nano.world.scenes import arrange_scene, draw_scene

RELATIONS = {
    "left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below",
}  # fmt: skip
KNOWN_SEED = 7
"""Seed of examples that the model was not trained on."""
NEIGHBOURS = ("fox", "red apple", "key", "tulip", "robot", "cloud", "pizza")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("icon", help="name of an icon in the Noto set, and of the object")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=20, help="images of the object")
    parser.add_argument("--known", type=int, default=240, help="images of objects that the model knows")
    asked = parser.parse_args()
    sizes = itertools.cycle(buckets_for(128).values())
    asked.out.mkdir(parents=True, exist_ok=True)
    for number, size in zip(range(asked.known), sizes, strict=False):
        scene, caption = training_example(KNOWN_SEED, number, *size)
        write(asked.out / f"known_{number:03d}", draw_scene(scene), caption)
    add_thing(asked.icon)
    rng = np.random.default_rng(0)
    for number, (size, background) in enumerate(zip(sizes, itertools.cycle(COLOURS), strict=False)):
        if number == asked.count:
            break
        groups = [(asked.icon, 1)]
        relation = None
        if number % 3 == 2:
            groups.append((NEIGHBOURS[number // 3 % len(NEIGHBOURS)], 1))
            relation = tuple(RELATIONS)[number // 3 % 4]
        scene = arrange_scene(rng, tuple(groups), background, relation, *size)
        words = with_article(asked.icon.replace("-", " "))
        if relation:
            words += f" {RELATIONS[relation]} {with_article(groups[1][0])}"
        caption = f"{words}, on {with_article(background)} background"
        write(asked.out / f"new_{number:02d}", draw_scene(scene), caption)
    print(asked.out)


def write(path: Path, pixels: np.ndarray, caption: str) -> None:
    """Write an image, (3, H, W) in [-1, 1], and its caption beside it."""
    bytes_ = ((pixels.transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(bytes_).save(path.with_suffix(".png"))
    path.with_suffix(".txt").write_text(caption + "\n")


def add_thing(icon: str) -> None:
    """Add an icon of the Noto set to the objects of the world, in this process only."""
    icons = icons_of(PACKAGE)
    known = json.loads(resources.files("lens.nano.world").joinpath("sprites.json").read_text())["icons"]
    known[icon] = {"width": icons["width"], "height": icons["height"]} | icons["icons"][icon]
    sprites._icons = lambda: known
    OBJECT_CLASSES[icon] = ObjectClass(icon.replace("-", " "), icon.replace("-", " ") + "s", (), icon)


if __name__ == "__main__":
    main()
