"""Small builds run in plain processes without Ray, and say why they end when one is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens.data.build.process_executor import WorkerKilledError, map_in_processes
from lens.data.build.settings import BuildSettings
from lens.data.pipeline import needs_ray
from lens.files import DiskFullError

SCRIPT = """
import sys
from lens.data.build.settings import BuildSettings
from lens.data.pipeline import build_dataset
source = {"kind": "folder", "path": sys.argv[1]}
settings = BuildSettings.of({"out": sys.argv[2], "source": source, "part_size": 2, "num_workers": 2})
counts = build_dataset(settings)["counts"]
print(counts["kept"], "ray" in sys.modules)
"""


def piece(folder: Path, number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 13:
        raise DiskFullError("No room for part-000013.parquet.")
    (folder / str(number)).write_text(str(os.getpid()))
    return number * number


def forever(folder: Path, number: int) -> int:
    (folder / f"pid{number}").write_text(str(os.getpid()))
    time.sleep(600)
    return number


def test_every_piece_is_done_once_by_other_processes(tmp_path):
    assert sorted(map_in_processes(partial(piece, tmp_path), [3, 1, 2], 2)) == [1, 4, 9]
    workers = {int((tmp_path / str(number)).read_text()) for number in (1, 2, 3)}
    assert os.getpid() not in workers and 1 <= len(workers) <= 2
    assert list(map_in_processes(partial(piece, tmp_path), [], 2)) == []


def test_what_a_worker_says_to_people_arrives_as_it_was_said(tmp_path):
    with pytest.raises(DiskFullError, match=r"^No room for part-000013\.parquet\.$"):
        list(map_in_processes(partial(piece, tmp_path), [1, 13, 2], 1))


def test_a_worker_that_is_killed_ends_the_build_with_the_remedy(tmp_path):
    with pytest.raises(WorkerKilledError, match="Lower num_workers"):
        list(map_in_processes(partial(piece, tmp_path), [1, -1, 2], 1))


def test_nobody_waits_for_the_workers_of_a_build_that_is_given_up(tmp_path):
    results = map_in_processes(partial(forever, tmp_path), [0], 1)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            next(results)
        pid = int((tmp_path / "pid0").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert process.poll() is None, "processes of others are left alone"
    finally:
        process.kill()
        process.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_small_build_does_not_start_ray(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in "abc":
        pixels = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.jpg")
        (tmp_path / "in" / f"{name}.txt").write_text("noise")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "3 False\n", done.stderr


@pytest.mark.parametrize(
    ("changes", "num_entries", "expected"),
    [
        ({}, 300, False),
        ({}, 100_000, True),
        ({"ray_address": "auto"}, 3, True),
        ({"gpus_per_worker": 0.5}, 3, True),
        ({"scorers": [{"kind": "embedding", "model": "clip"}]}, 3, True),
        ({"scorers": [{"kind": "embedding", "model": "clip", "device": "cpu"}]}, 3, False),
        ({"captions": {"kind": "vllm", "model": "m"}}, 3, True),
    ],
)
def test_ray_is_used_for_clusters_gpus_and_large_builds(changes, num_entries, expected, monkeypatch):
    monkeypatch.setattr("lens.data.pipeline.is_connected", lambda: False)
    settings = BuildSettings.of({"out": "out", "source": {"kind": "folder", "path": "in"}} | changes)
    assert needs_ray(settings, num_entries) is expected
