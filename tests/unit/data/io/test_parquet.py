"""Files are whole or not there, also where a disk is full."""

import subprocess
import sys

import pytest

from lens.data.io.parquet import read_table, remove_partials, write_bytes_atomic, write_table

SHORT_OF_ROOM = """
import resource, sys
from pathlib import Path
from lens.data.tables import DiskFull, write_bytes, write_table
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # what a full disk does, for one file
out = Path(sys.argv[1])
write_bytes(out / "small", b"x" * 10_000)
for write in (
    lambda path: write_bytes(path, b"x" * 30_000),
    lambda path: write_table(path, {"id": [f"{n:050d}{n * n}" for n in range(9_000)]}, {"id": "string"}),
):
    try:
        write(out / "large")
    except DiskFull as error:
        print(error)
"""


def test_without_room_a_file_is_not_there_and_the_error_says_what_to_do(tmp_path):
    command = [sys.executable, "-c", SHORT_OF_ROOM, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith(f"No room for large in {tmp_path}: File too large. Free some and run the same")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_what_stops_a_write_for_another_reason_is_passed_on_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_bytes_atomic(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    write_table(tmp_path / "deep" / "part.parquet", {"id": ["a"]}, {"id": "string"})
    (tmp_path / "deep" / "part.parquet.123.partial").write_bytes(b"half")
    remove_partials(tmp_path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["part.parquet"]
    assert read_table(tmp_path / "deep" / "part.parquet").to_pylist() == [{"id": "a"}]
