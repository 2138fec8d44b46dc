"""Labels of latent cells."""

import numpy as np

from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.patch_labels import NUM_CLASS_LABELS, NUM_PART_LABELS, patch_labels
from lens.nano.world.scenes import Scene, SceneObject, random_scene


def scene_of(*placed: SceneObject) -> Scene:
    groups = tuple((thing.class_name, 1) for thing in placed)
    return Scene("two", "white", (248, 248, 248), placed, 176, 96, None, groups)


def test_each_quarter_of_a_small_object_has_its_own_label():
    names = list(OBJECT_CLASSES)
    things, parts = patch_labels(scene_of(SceneObject("cat", 48, 32, 32)))
    assert things.shape == parts.shape == (6, 11)
    assert (things > 0).sum() == 4
    assert (things[1:3, 2:4] == names.index("cat") + 1).all()
    assert parts[1:3, 2:4].tolist() == [[6, 8], [14, 16]]


def test_a_large_object_has_sixteen_parts_of_its_own():
    things, parts = patch_labels(scene_of(SceneObject("fox", 32, 48, 64), SceneObject("cat", 160, 16, 32)))
    assert parts[1:5, 0:4].ravel().tolist() == list(range(17, 33))
    assert set(things[1:5, 0:4].ravel()) == {1}
    assert (things > 0).sum() == 20


def test_labels_of_any_scene_are_classes_and_zero_together():
    for seed in range(20):
        scene = random_scene(np.random.default_rng(seed), 144, 112)
        things, parts = patch_labels(scene)
        assert things.shape == (9, 7)
        assert ((things == 0) == (parts == 0)).all()
        assert things.max() < NUM_CLASS_LABELS
        assert parts.max() < NUM_PART_LABELS
        assert len(set(things[things > 0])) == len(scene.groups)
