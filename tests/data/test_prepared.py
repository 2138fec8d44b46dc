"""An image is decoded once: its shard takes what was made beside its scores, or makes the same again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens.data.build.inventory import take_inventory
from lens.data.build.prepared import Preparation
from lens.data.build.reader import EntryReader
from lens.data.build.scoring import score_part
from lens.data.build.settings import BuildSettings
from lens.data.build.verify import verify_build
from lens.data.io.parquet import part_path
from lens.data.io.record_file import read_record
from lens.data.pipeline import build_dataset

SIZES = {"a": (520, 530), "b": (600, 512), "c": (530, 900), "small": (100, 100), "wide": (512, 2000)}
COMMAND = """
import sys
from lens.cli.main import main
status = main(["data", "build", sys.argv[1]])
print(status, *(name in sys.modules for name in ("pandas", "httpx2", "ray", "torch")))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Three images that stay, a copy of one, and three that do not stay, each for another reason."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, size in (SIZES | {"mute": (520, 520)}).items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{name}.jpg")
        if name != "mute":
            (root / f"{name}.txt").write_text(f"Noise named {name}.")
    shutil.copy(root / "a.jpg", root / "a_again.jpg")
    (root / "a_again.txt").write_text("A copy.")
    return root


def settings_of(images: Path, out: Path, **changes) -> BuildSettings:
    source = {"kind": "folder", "path": str(images)}
    return BuildSettings.of({"out": out, "source": source, "part_size": 4, "num_workers": 1} | changes)


def shards_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("views/*/shards/*.tar"))}


@pytest.fixture(scope="module")
def decoded_twice(images, tmp_path_factory) -> dict[str, bytes]:
    """The shards of a build that ended after its scores and prepared nothing."""
    out = tmp_path_factory.mktemp("twice")
    build_dataset(settings_of(images, out), until="scores")
    assert not (out / "prepared").exists()
    build_dataset(settings_of(images, out))
    return shards_of(out)


def test_each_image_is_decoded_once_and_the_shards_are_the_same(
    images, decoded_twice, tmp_path, monkeypatch
):
    def refuse(content: bytes) -> None:
        raise AssertionError("a shard decodes an image")

    monkeypatch.setattr("lens.data.build.shard_writer.decode_image", refuse)
    assert build_dataset(settings_of(images, tmp_path))["counts"]["kept"] == 3
    assert shards_of(tmp_path) == decoded_twice
    assert verify_build(tmp_path).faults == ()
    assert not (tmp_path / "prepared").exists(), "what was prepared is removed at the end"


def test_only_what_may_stay_is_prepared_with_its_facts(images, tmp_path):
    settings = settings_of(images, tmp_path, part_size=100)
    inventory, preparation = take_inventory(settings), Preparation.of(settings)
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    score_part(inventory, 0, tmp_path / "scores", reader, preparation=preparation)
    path = part_path(preparation.folder, 0).with_suffix(".arrow")
    addresses = [entry.address for _, entry in inventory.part(0)]
    prepared = {name: read_record(path, place) for place, name in enumerate(addresses)}
    assert {name for name, files in prepared.items() if files} == {"a.jpg", "b.jpg", "c.jpg"}
    facts = json.loads(prepared["c.jpg"]["json"])
    assert (facts["address"], facts["height_px"], facts["width_px"]) == ("c.jpg", 530, 900)
    assert read_record(path, len(addresses)) == {}


@pytest.mark.parametrize("damage", ["removed", "cut", "other settings"])
def test_a_shard_decodes_again_what_is_not_prepared_for_it(images, decoded_twice, damage, tmp_path):
    settings = settings_of(images, tmp_path)
    inventory, preparation = take_inventory(settings), Preparation.of(settings)
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    scores = tmp_path / "scores" / inventory.folder.name
    of_other = Preparation.of(settings_of(images, tmp_path, shards={"quality": 50}))
    used = of_other if damage == "other settings" else preparation
    for number in range(inventory.num_parts):
        score_part(inventory, number, scores, reader, preparation=used)
    files = sorted(used.folder.glob("*.arrow"))
    assert len(files) == inventory.num_parts == 2
    for path in files if damage == "removed" else ():
        path.unlink()
    for path in files if damage == "cut" else ():
        os.truncate(path, path.stat().st_size // 2)
    build_dataset(settings)
    assert shards_of(tmp_path) == decoded_twice


def test_a_small_build_imports_neither_pandas_nor_what_it_does_not_use(images, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(settings_of(images, tmp_path / "out").model_dump_json())
    command = [sys.executable, "-c", COMMAND, str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False False False False", done.stderr
