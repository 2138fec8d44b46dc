"""A table that is written comes back; the leftovers of killed processes do not."""

from lens.data.io.parquet import read_table, write_table
from lens.files import remove_partials


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    write_table(tmp_path / "deep" / "part.parquet", {"id": ["a"]}, {"id": "string"})
    (tmp_path / "deep" / "part.parquet.123.partial").write_bytes(b"half")
    remove_partials(tmp_path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["part.parquet"]
    assert read_table(tmp_path / "deep" / "part.parquet").to_pylist() == [{"id": "a"}]
