"""Work through Ray sees a GPU only if it asks for one."""

import os

import numpy as np
import pytest
from PIL import Image

from lens.data import pipeline
from lens.data.build.ray_executor import has_gpus, map_parallel
from lens.data.build.settings import BuildSettings
from lens.data.pipeline import _gpus_per_worker, build_dataset
from lens.files import DiskFullError

ALONE = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None}


def settings_with(*scorers: dict, **changes) -> BuildSettings:
    values = {"out": "out", "source": {"kind": "folder", "path": "in"}, "filters": ALONE}
    return BuildSettings.of(values | {"scorers": scorers} | changes)


def test_only_work_that_asks_for_a_gpu_is_given_one(two_gpus):
    def seen(_):
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    assert list(map_parallel(seen, [0], 1)) == [""]
    assert set(map_parallel(seen, [0, 1], 1, 1.0)) <= {"0", "1"}


def test_a_build_by_ray_has_the_bytes_of_one_by_processes(two_gpus, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (512, 512 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.jpg")
        (tmp_path / "in" / f"{number}.txt").write_text("noise")
    shards = []
    for name, is_ray in (("ray", True), ("processes", False)):
        monkeypatch.setattr(pipeline, "is_connected", lambda is_ray=is_ray: is_ray)
        source = {"kind": "folder", "path": str(tmp_path / "in")}
        settings = BuildSettings.of({"out": str(tmp_path / name), "source": source, "part_size": 2})
        view = tmp_path / name / "views" / build_dataset(settings)["view"]
        shards.append({path.name: path.read_bytes() for path in sorted(view.glob("shards/*.tar"))})
    assert shards[0] == shards[1] and len(shards[0]) == 1


def test_what_a_worker_says_to_people_arrives_as_it_was_said(two_gpus):
    def full(_):
        raise DiskFullError("No room for part-000001.parquet.")

    with pytest.raises(DiskFullError, match=r"^No room for part-000001\.parquet\.$"):
        list(map_parallel(full, [0], 1))


def test_a_worker_takes_a_gpu_where_a_scorer_has_weights_for_it_unless_set_otherwise(two_gpus):
    assert has_gpus()
    weights, detector = {"kind": "embedding", "model": "clip"}, {"kind": "nudenet"}
    assert _gpus_per_worker(settings_with(weights, detector)) == 1.0
    assert _gpus_per_worker(settings_with(detector)) == 0.0
    assert _gpus_per_worker(settings_with(weights | {"device": "cpu"})) == 0.0
    assert _gpus_per_worker(settings_with(weights, gpus_per_worker=0.25)) == 0.25
