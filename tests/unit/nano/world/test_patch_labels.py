"""Labels of latent cells."""

import numpy as np

from lens.nano.world.colours import OBJECT_COLOURS
from lens.nano.world.full_scenes import random_full_scene
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.patch_labels import NUM_CLASS_LABELS, NUM_LABELS, NUM_PART_LABELS, patch_labels
from lens.nano.world.placement import Canvas
from lens.nano.world.scene_spec import SIGN_CHARACTERS, ObjectGroup, SceneSpec
from lens.nano.world.scenes import Scene, SceneObject, random_scene
from lens.nano.world.signs import Sign, sign_board


def scene_of(*placed: SceneObject, sign: Sign | None = None) -> Scene:
    spec = SceneSpec(tuple(ObjectGroup(thing.class_name) for thing in placed))
    return Scene("two", "white", (248, 248, 248), placed, 176, 96, spec, sign)


def test_each_quarter_of_a_small_object_has_its_own_label():
    names = list(OBJECT_CLASSES)
    things, parts, colours, letters = patch_labels(scene_of(SceneObject("cat", 48, 32, 32)))
    assert things.shape == parts.shape == colours.shape == letters.shape == (6, 11)
    assert (things > 0).sum() == 4
    assert (things[1:3, 2:4] == names.index("cat") + 1).all()
    assert parts[1:3, 2:4].tolist() == [[6, 8], [14, 16]]
    assert not colours.any() and not letters.any()


def test_a_large_object_has_sixteen_parts_of_its_own():
    labels = patch_labels(scene_of(SceneObject("fox", 32, 48, 64), SceneObject("cat", 160, 16, 32)))
    assert labels.parts[1:5, 0:4].ravel().tolist() == list(range(17, 33))
    assert set(labels.things[1:5, 0:4].ravel()) == {1}
    assert (labels.things > 0).sum() == 20


def test_only_a_re_coloured_object_has_a_colour():
    green, red = (SceneObject("car", x_px, 32, 32, colour) for x_px, colour in ((32, "green"), (96, "red")))
    colours = patch_labels(scene_of(green, red)).colours
    assert (colours[1:3, 1:3] == 1 + list(OBJECT_COLOURS).index("green")).all()
    assert (colours > 0).sum() == 4  # A car is red.


def test_each_letter_of_a_sign_labels_the_patches_of_its_cell():
    labels = patch_labels(scene_of(sign=sign_board("ABC2", Canvas(96, 176))))
    assert labels.letters[2, 2:10].tolist() == [1, 1, 2, 2, 3, 3, 29, 29]
    assert SIGN_CHARACTERS[28] == "2"
    board = labels.letters > 0
    assert (labels.things[board] == NUM_CLASS_LABELS - 1).all()
    assert (labels.parts[board] == NUM_PART_LABELS - 1).all()
    assert not labels.things[~board].any()


def test_labels_of_any_scene_are_classes_and_zero_together():
    rng = np.random.default_rng(0)
    for turn in range(60):
        scene = (random_full_scene if turn % 3 else random_scene)(rng, 144, 112)
        labels = patch_labels(scene)
        assert labels.things.shape == (9, 7)
        assert ((labels.things == 0) == (labels.parts == 0)).all()
        assert all(kind.max() < count for kind, count in zip(labels, NUM_LABELS, strict=True))
        num_classes = len({group.class_name for group in scene.groups}) + (scene.sign is not None)
        assert len(set(labels.things[labels.things > 0])) == num_classes
