"""`lens grid` draws a cell for each pair of values, keeps it, and shows all on one sheet."""

import json

import numpy as np
import pytest
from PIL import Image

from lens.sampling.image_metadata import read_image_metadata


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def grid(lens, tiny_model):
    """Draw a grid with the tiny model in small steps; return the rows that are printed."""

    def run(*arguments):
        common = ["--model", tiny_model, "--json", "--out", "drawn"]
        ran = lens("grid", *arguments, *common)
        assert (ran.status, ran.err) == (0, ""), ran
        return [json.loads(line) for line in ran.out.splitlines()]

    return run


def test_a_grid_keeps_its_cells_which_are_the_images_of_generate(grid, lens, tiny_model, tmp_path):
    *cells, sheet = grid("a fox", "--x", "steps=1, 2, 3", "--y", "cfg=1, 2.5", "--seed", 4)
    assert [(cell["steps"], cell["guidance"]) for cell in cells] == [
        (steps, guidance) for guidance in (1.0, 2.5) for steps in (1, 2, 3)
    ]
    options = ["--model", tiny_model, "--seed", 4, "--steps", 2, "--cfg", 2.5, "--out", "alone.png"]
    lens("generate", "a fox", *options)
    assert (pixels("alone.png") == pixels(cells[4]["path"])).all()
    metadata = read_image_metadata(tmp_path / sheet["path"])
    names = [cell["path"].rpartition("/")[2] for cell in cells]
    assert metadata.sheet is not None and list(metadata.sheet.files) == names
    assert pixels(sheet["path"]).shape[1] > 3 * 64 and sheet["path"].startswith("drawn/grid-")
    assert len(list((tmp_path / "drawn").iterdir())) == 7


def test_all_cells_share_a_random_seed_and_a_sheet_is_drawn_again(grid, tmp_path):
    *cells, sheet = grid("--x", r"prompt=a fox\ntwo cats", "--steps", 1, "--cfg", 1)
    assert [cell["prompt"] for cell in cells] == ["a fox", "two cats"]
    assert len({cell["seed"] for cell in cells}) == 1
    *again, _ = grid("--like", sheet["path"])
    for cell, other in zip(cells, again, strict=True):
        assert (pixels(cell["path"]) == pixels(other["path"])).all()


def test_seeds_and_sizes_are_axes_too(grid):
    *cells, _ = grid("a fox", "--x", "seed=3..5", "--y", "ar=1:1, 16:9", "--steps", 1, "--size", "64x64")
    assert [(cell["seed"], cell["width"], cell["height"]) for cell in cells] == [
        *((seed, 64, 64) for seed in (3, 4, 5)),
        *((seed, 80, 48) for seed in (3, 4, 5)),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--x is None, but it needs the form SETTING=VALUES"),
        (["--x", "steps"], "--x is 'steps', but it needs the form SETTING=VALUES"),
        (["--x", "colour=1"], "Settings are seed, steps"),
        (["--x", "steps=1, many"], "steps is 'many'"),
        (["--x", "steps=1, 2", "--y", "steps=3"], "a setting that differs"),
        (["--x", "seed=1..9", "--y", "steps=1..9"], "at most 64"),
        (["--x", "steps=0, 1"], "--steps is 0"),
        (["--x", "steps=1, 2", "--count", "2"], "--count is 2"),
        (["a cat", "--x", "steps=1, 2"], "the prompt is 'several'"),
        (["--x", "steps=1, 2", "--out", "x.png"], "a folder for 3 images"),
        (["--x", "solver=magic"], "one of euler"),
    ],
)
def test_what_is_no_grid_is_an_error_before_anything_is_loaded(lens, tiny_model, arguments, message):
    assert message in lens("grid", "a fox", *arguments, "--model", tiny_model).error_line
