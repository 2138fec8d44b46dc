"""A file is complete or not there, also where a disk is full, and a taken name is never replaced."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from lens.errors import SettingError
from lens.files import (
    DiskFullError,
    apply_umask,
    check_writable,
    hold_folder,
    remove_partials,
    write_atomic,
    write_bytes_atomic,
    write_unique,
)

FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from typing import BinaryIO
import torch
from lens.data.io.parquet import write_table
from lens.files import DiskFullError, write_bytes_atomic
from lens.models.checkpoints.writer import write_safetensors
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # what a full disk does, for one file
out = Path(sys.argv[1])
write_bytes_atomic(out / "small", b"x" * 10_000)
for write in (
    lambda path: write_bytes_atomic(path, b"x" * 30_000),
    lambda path: write_table(path, {"id": [f"{n:050d}{n * n}" for n in range(9_000)]}, {"id": "string"}),
    lambda path: write_safetensors(path, {"w": torch.zeros(90, 90)}),
):
    try:
        write(out / "large.safetensors")
    except DiskFullError as error:
        print(error)
"""


def test_without_room_a_file_is_not_there_and_the_error_says_what_to_do(tmp_path):
    command = [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 3
    for line in said:
        assert line.startswith(
            f"Cannot write {tmp_path}/large.safetensors: File too large. Free some space and run the same"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_what_stops_a_write_for_another_reason_is_passed_on_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_bytes_atomic(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_that_cannot_be_read_for_a_write_is_not_said_to_be_the_written_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source\.png"):
        write_atomic(tmp_path / "copy.png", lambda file: file.write((tmp_path / "source.png").read_bytes()))
    assert not list(tmp_path.iterdir())


def test_the_permissions_of_a_private_file_hold_from_its_first_byte(tmp_path):
    def write(file: BinaryIO) -> None:
        (partial,) = tmp_path.iterdir()
        assert partial.stat().st_mode & 0o777 == 0o600
        file.write(b"key")

    path = write_atomic(tmp_path / "key.pem", write, mode=0o600)
    assert path.read_bytes() == b"key" and path.stat().st_mode & 0o777 == 0o600


def test_partial_files_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    kill = "import os; from lens.files import write_atomic; from pathlib import Path; import sys\n"
    kill += "write_atomic(Path(sys.argv[1]) / 'deep' / 'part', lambda file: os._exit(1))"
    subprocess.run([sys.executable, "-c", kill, str(tmp_path)])
    write_bytes_atomic(tmp_path / "deep" / "whole", b"x")
    assert len(list((tmp_path / "deep").iterdir())) == 2
    remove_partials(tmp_path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["whole"]


def test_a_taken_name_gets_a_number_and_is_never_replaced(tmp_path):
    paths = [
        write_unique(tmp_path, "fox_7", ".png", lambda file, n=n: file.write(b"%d" % n)) for n in range(3)
    ]
    assert [path.name for path in paths] == ["fox_7.png", "fox_7-2.png", "fox_7-3.png"]
    assert [path.read_bytes() for path in paths] == [b"0", b"1", b"2"]


def test_racing_writers_each_get_a_file_of_their_own(tmp_path):
    def write(number: int) -> Path:
        return write_unique(tmp_path, "fox", ".png", lambda file: file.write(b"%d" % number))

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(write, range(24)))
    assert len(set(paths)) == 24
    assert sorted(int(path.read_bytes()) for path in paths) == list(range(24))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    old = tmp_path / "fox.png"
    old.write_bytes(b"old")

    def fail_half_way(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomic(old, fail_half_way)
    with pytest.raises(error):
        write_unique(tmp_path, "cat", ".png", fail_half_way)
    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]
    assert old.read_bytes() == b"old"


def test_a_full_disk_is_an_error_that_says_where(tmp_path):
    def no_space(file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFullError, match=f"Cannot write {tmp_path}/fox.png: No space left on device"):
        write_atomic(tmp_path / "fox.png", no_space)


def test_a_file_in_the_way_of_the_out_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SettingError, match=r"--out.*in the way"):
        check_writable(tmp_path / "out")
    with pytest.raises(SettingError, match=r"--out.*in the way"):
        check_writable(tmp_path / "out" / "deep")


def test_a_missing_folder_is_made_with_the_first_file_only(tmp_path):
    check_writable(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    path = write_unique(tmp_path / "new" / "deep", "fox", ".png", lambda file: file.write(b"1"))
    assert path == tmp_path / "new" / "deep" / "fox.png"
    assert path.read_bytes() == b"1"


def test_private_files_of_a_folder_get_the_permissions_of_new_ones(tmp_path):
    inside = tmp_path / "model" / "transformer"
    inside.mkdir(parents=True)
    for path in (tmp_path / "model" / "index.json", inside / "weights"):
        path.touch(mode=0o600)
    before = os.umask(0o027)
    try:
        apply_umask(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"index.json": 0o640, "weights": 0o640}


HOLD = """
import sys, time
from pathlib import Path
from lens.files import hold_folder
with hold_folder(Path(sys.argv[1]), "out"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_until_it_ends_in_whatever_way(tmp_path, monkeypatch):
    monkeypatch.setattr("lens.files.MAX_HELD_S", 0.0)
    folder = tmp_path / "deep" / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        says = r"out is .*no other run is writing into"
        with pytest.raises(SettingError, match=says), hold_folder(folder, "out"):
            pass
        other.kill()
        other.wait()
    monkeypatch.undo()
    with hold_folder(folder, "out"):
        pass
    assert folder.is_dir()


def test_a_run_that_fails_leaves_no_folder_that_it_made_and_keeps_what_was_there(tmp_path):
    for folder, is_left in ((tmp_path / "deep" / "out", False), (tmp_path, True)):
        with pytest.raises(ZeroDivisionError), hold_folder(folder, "out"):
            _ = 1 / 0
        assert folder.exists() == is_left
    assert not (tmp_path / "deep").exists()
