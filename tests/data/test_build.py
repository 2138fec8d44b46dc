"""Whole builds, some as processes: every image is accounted for once, even if a build is killed."""

import base64
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from local_server import Answering, started_server
from PIL import Image

from lens.data.build.settings import BuildSettings
from lens.data.build.verify import verify_build
from lens.data.captions.requests import encode_for_model
from lens.data.io.image_decoding import sample_id
from lens.data.io.parquet import read_table
from lens.data.io.webdataset import read_shard
from lens.data.pipeline import build_dataset
from lens.errors import LensError

NUM_KILLS = int(os.environ.get("LENS_KILLS", "2"))
"""The long test: LENS_KILLS=10 python -m pytest tests/data -k kill"""
NUM_GOOD, NUM_SMALL, NUM_COPIES = 40, 6, 4


def textured(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Squares of random colours: no two images are alike, none is blurred."""
    coarse = rng.integers(0, 256, (-(-height // 20), -(-width // 20), 3), dtype=np.uint8)
    return Image.fromarray(np.kron(coarse, np.ones((20, 20, 1), np.uint8))[:height, :width])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    (root / "deep" / "deeper").mkdir(parents=True)
    sizes = ((520, 530), (430, 650), (800, 770), (710, 360))
    for index in range(NUM_GOOD):
        path = root / ("deep/deeper" if index % 3 else "deep") / f"{index:02d}.jpg"
        textured(rng, *sizes[index % 4]).save(path, quality=92)
        path.with_suffix(".txt").write_text(f"Squares, number {index}.\n")
    for index in range(NUM_SMALL):
        textured(rng, 100, 120 + index).save(root / f"small{index}.png")
    for index in range(NUM_COPIES - 1):
        (root / f"same{index}.jpg").write_bytes((root / "deep" / "00.jpg").read_bytes())
    Image.open(root / "deep" / "03.jpg").save(root / "again.jpg", quality=60)
    Image.new("RGB", (600, 600), (90, 90, 90)).save(root / "flat.png")
    (root / "broken.jpg").write_bytes((root / "deep" / "06.jpg").read_bytes()[:3000])
    (root / "page.png").write_text("<html>404</html>")
    (root / "notes.md").write_text("no picture")
    (root / "link.jpg").symlink_to(root / "deep" / "00.jpg")
    return root


def values_of(pictures: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """The values of a recipe that builds the pictures into a folder."""
    without = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None, "min_entropy": 1.0}
    return {
        "out": str(out), "source": {"kind": "folder", "path": str(pictures)}, "part_size": 8,
        "num_workers": 2, "filters": without, "shards": {"samples_per_shard": 5},
    } | changes  # fmt: skip


def started(values: dict[str, Any], folder: Path) -> subprocess.Popen:
    """Start `lens data build` as a process."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "lens", "data", "build", str(recipe)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ, **pipes)



def finished(process) -> Path:
    """Wait for a build and return the folder of its view."""
    printed, log = process.communicate(timeout=240)
    assert process.returncode == 0, log
    assert "INFO" not in log, "what Ray tells itself is not for the people who build"
    return Path(printed.strip()).parent


def built_here(values: dict[str, Any]) -> Path:
    """Build in this process and return the folder of the view."""
    settings = BuildSettings.of(values)
    return settings.out / "views" / build_dataset(settings)["view"]


def bytes_of(view: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(view.glob("shards/*.tar"))}


@pytest.fixture(scope="module")
def built(tmp_path_factory, pictures) -> tuple[Path, Path]:
    """One uninterrupted build for all tests that only look: its folder and its view's."""
    folder = tmp_path_factory.mktemp("built")
    return folder / "out", finished(started(values_of(pictures, folder / "out"), folder))


def test_every_image_is_in_a_shard_or_in_the_ledger_with_its_reason(built):
    out, view = built
    reasons = Counter(read_table(view / "ledger.parquet").column("reason").to_pylist())
    assert reasons == {
        "too_small": NUM_SMALL, "near_duplicate": 1, "little_information": 1, "corrupt": 1, "unknown_type": 1,
    }  # fmt: skip
    verdict = verify_build(out)
    assert verdict.faults == ()
    assert verdict.num_in_shards == NUM_GOOD
    assert verdict.num_samples == NUM_GOOD + sum(reasons.values())
    assert verdict.num_entries == verdict.num_samples + NUM_COPIES


def test_a_near_duplicate_names_the_kept_sample_and_exact_copies_their_first_address(built):
    _, view = built
    ledger = read_table(view / "ledger.parquet").to_pylist()
    (near,) = [row for row in ledger if row["reason"] == "near_duplicate"]
    kept = {key for path in view.glob("shards/*.tar") for key, _ in read_shard(path)}
    assert near["detail"].removeprefix("of ") in kept
    copies = read_table(view / "copies.parquet").to_pylist()
    assert len(copies) == NUM_COPIES
    assert {copy["first_address"] for copy in copies} == {"deep/00.jpg"}


def test_samples_have_image_caption_and_facts_at_the_size_of_their_bucket(built):
    _, view = built
    seen = set()
    for path in view.glob("shards/*.tar"):
        for key, files in read_shard(path):
            facts = json.loads(files["json"])
            image = Image.open(io.BytesIO(files["jpg"]))
            assert path.name.startswith(f"{facts['base']}_{facts['ratio'].replace(':', 'x')}-")
            number = int(Path(facts["address"]).stem)
            assert files["txt"].decode() == f"Squares, number {number}."
            assert facts["id"] == key and image.width * image.height <= facts["width_px"] * facts["height_px"]
            seen.add((facts["base"], facts["ratio"], image.size))
    assert (512, "1:1", (512, 512)) in seen and (768, "1:1", (768, 768)) in seen


def test_killed_builds_with_other_workers_and_parts_give_the_same_bytes(built, pictures, tmp_path):
    _, view = built
    values = values_of(pictures, tmp_path / "killed", num_workers=1, part_size=2)
    started_at = time.monotonic()
    draw, kills = random.Random(0), 0
    scores = tmp_path / "killed" / "scores"
    while kills < NUM_KILLS:
        process = started(values, tmp_path)
        before = sum(1 for _ in scores.rglob("*.parquet"))
        # Not before there is work to lose: most of the time goes into starting.
        while process.poll() is None and sum(1 for _ in scores.rglob("*.parquet")) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is not None:
            shutil.rmtree(tmp_path / "killed")  # it was quicker: once more from the beginning
            continue
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    print(f"{kills} kills in {time.monotonic() - started_at:.0f} s")
    resumed = finished(started(values, tmp_path))
    assert bytes_of(resumed) == bytes_of(view) and len(bytes_of(view)) > 5
    for name, columns in (
        ("kept", ["id", "base", "ratio", "shard"]), ("ledger", ["id", "reason", "detail"]),
        ("copies", ["id", "address", "first_address"]),
    ):  # fmt: skip
        one, other = (read_table(folder / f"{name}.parquet") for folder in (resumed, view))
        assert one.select(columns) == other.select(columns)
    assert verify_build(tmp_path / "killed").faults == ()
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_another_threshold_makes_another_view_from_the_stored_scores(built, pictures):
    out, view = built
    before = {path: path.stat().st_mtime_ns for path in (out / "scores").rglob("*.parquet")}
    changed = values_of(pictures, out)
    changed["filters"] = changed["filters"] | {"min_area_px": 300_000}
    other = built_here(changed)
    assert other != view
    assert {path: path.stat().st_mtime_ns for path in (out / "scores").rglob("*.parquet")} == before
    verdict = verify_build(out, other.name)
    assert verdict.faults == () and 0 < verdict.num_in_shards < NUM_GOOD
    assert verify_build(out, view.name).num_in_shards == NUM_GOOD, "the first view is still there"


def test_captions_of_an_endpoint_withdrawn_and_held_out_samples_make_a_view_of_their_own(
    built, pictures, tmp_path
):
    out, view = built
    kept = read_table(view / "kept.parquet").to_pylist()
    withdrawn, refused = kept[0]["id"], kept[1]["id"]
    (tmp_path / "withdrawn.txt").write_text(f"{withdrawn}  # asked for by its author\n\n")
    (tmp_path / "benchmark").mkdir()
    shown = pictures / "deep" / "09.jpg"
    Image.open(shown).resize((400, 300)).save(tmp_path / "benchmark" / "reference.png")
    said = "Squares of many colours stand close together in even rows and fill the picture to its edges."

    class Handler(Answering):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            picture = body["messages"][1]["content"][1]["image_url"]["url"].partition(",")[2]
            with Handler.lock:
                Handler.asked.append(picture)
            message = {"content": said}
            if picture == Handler.refused_picture:
                message = {"content": None, "refusal": "I'm sorry, I can't describe this."}
            answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
            self.send(200, {}, json.dumps(answer).encode())

    (entry,) = [path for path in pictures.rglob("*.jpg") if sample_id(path.read_bytes()) == refused][:1]
    Handler.lock, Handler.asked = threading.Lock(), []
    Handler.refused_picture = base64.b64encode(encode_for_model(entry.read_bytes(), 256)).decode()
    server = started_server(Handler)
    endpoint = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "seer"}
    values = values_of(
        pictures, out, withdrawn=str(tmp_path / "withdrawn.txt"), held_out=str(tmp_path / "benchmark"),
        captions={
            "kind": "openai", "endpoint": endpoint, "side_px": 256, "max_tries": 2, "audit": {"min_words": 10}
        },
    )  # fmt: skip
    other = built_here(values)
    server.shutdown()
    reasons = {row["id"]: row["reason"] for row in read_table(other / "ledger.parquet").to_pylist()}
    assert reasons[withdrawn] == "withdrawn"
    assert reasons[refused] == "caption_refusal"
    assert reasons[sample_id(shown.read_bytes())] == "held_out"
    assert verify_build(out, other.name).faults == ()
    captions = [files["txt"] for path in other.glob("shards/*.tar") for _, files in read_shard(path)]
    assert captions == [said.encode()] * (NUM_GOOD - 3)
    assert len(Handler.asked) == NUM_GOOD - 3 + 2, "the refused one was asked for twice"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda view: next(view.glob("shards/*.tar")).unlink(), "is missing"),
        (lambda view: (view / "shards" / "extra-00000.tar").write_bytes(b""), "the manifest does not list"),
        (lambda view: _cut_short(next(view.glob("shards/*.tar"))), "in no shard and not in the ledger"),
    ],
    ids=["a shard is gone", "a tar too many", "a shard is cut short"],
)
def test_damage_is_found(damage, says, built, tmp_path):
    out, view = built
    shutil.copytree(out, tmp_path / "out")
    damage(tmp_path / "out" / "views" / view.name)
    assert any(says in fault for fault in verify_build(tmp_path / "out", view.name).faults)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def test_a_build_that_never_ended_cannot_be_verified(tmp_path):
    with pytest.raises(LensError, match="Run `lens data build` to its end first"):
        verify_build(tmp_path)
