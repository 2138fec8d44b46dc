"""Where images go: folders, exact files, and the formats that names and options agree on."""

from pathlib import Path

import pytest

from lens.cli.generation.output import OutputTarget
from lens.errors import SettingError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("out", "image_format", "like", "folder", "becomes", "file"),
    [
        (None, None, None, ".", "png", None),
        (None, "webp", None, ".", "webp", None),
        (None, None, "old.jpeg", ".", "jpg", None),
        (None, "png", "old.webp", ".", "png", None),
        ("drawn", None, None, "drawn", "png", None),
        ("fox.JPG", None, None, ".", "jpg", "fox.JPG"),
        ("drawn/fox.webp", "webp", None, "drawn", "webp", "drawn/fox.webp"),
        ("fox.png", None, "old.jpg", ".", "png", "fox.png"),
    ],
)
def test_the_target_of_a_single_image(out, image_format, like, folder, becomes, file):
    target = OutputTarget.of(out and Path(out), image_format, like and Path(like), 1)
    assert target == OutputTarget(Path(folder), becomes, file and Path(file))
    assert not list(Path().iterdir())


def test_an_existing_folder_with_a_dot_in_its_name_is_a_folder():
    Path("v1.0").mkdir()
    assert OutputTarget.of(Path("v1.0"), None, None, 3) == OutputTarget(Path("v1.0"), "png")


@pytest.mark.parametrize(
    ("out", "image_format", "num_images", "said"),
    [
        ("v1.0", None, 1, "may not have a dot"),
        ("fox.png", "jpg", 1, "agree"),
        ("fox.png", None, 2, "a folder for 2 images"),
    ],
)
def test_contradictions_are_refused(out, image_format, num_images, said):
    with pytest.raises(SettingError, match=said):
        OutputTarget.of(Path(out), image_format, None, num_images)
    assert not list(Path().iterdir())
