"""Parquet tables, written atomically and read whole, by rows or by parts.

Schemas are plain names of types, so only this file needs pyarrow, and only when it is used.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import MissingExtraError
from lens.files import write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

Schema = Mapping[str, str]
"""Type by column: an Arrow type by its name, `list` for strings, `float32_list` for an embedding."""


def write_table(path: Path, columns: Mapping[str, Any], schema: Schema) -> None:
    """Write columns, arrays or lists by name, as one Parquet file, atomically."""
    pa, parquet = import_pyarrow()
    lists = {"list": pa.list_(pa.string()), "float32_list": pa.list_(pa.float32())}
    fields = [(name, lists.get(kind) or getattr(pa, kind)()) for name, kind in schema.items()]
    arrays = {name: _ascii_to_text(columns[name]) for name in schema}
    table = pa.table(arrays, schema=pa.schema(fields))
    write_atomic(path, lambda file: parquet.write_table(table, file))


def read_table(path: Path, **equal: str) -> "pa.Table":
    """Return a table: all rows, or those whose columns have the given values."""
    parquet = import_pyarrow()[1]
    if not equal:
        # Without a filter a file needs none of what `read_table` imports in each process.
        return parquet.ParquetFile(path).read()
    return parquet.read_table(path, filters=[(name, "=", value) for name, value in equal.items()])


def read_parts(folder: Path, num_parts: int, columns: Sequence[str] | None = None) -> "pa.Table":
    """Return the parts 0 to num_parts - 1 of a folder as one table, in their order."""
    pa, parquet = import_pyarrow()
    paths = (part_path(folder, part) for part in range(num_parts))
    return pa.concat_tables([parquet.ParquetFile(path).read(columns) for path in paths])


def column_types(path: Path) -> dict[str, str]:
    """Return the Arrow type of each column of a table, by its name, without reading the rows."""
    schema = import_pyarrow()[1].read_schema(path)
    return {field.name: str(field.type) for field in schema}


def part_path(folder: Path, part: int) -> Path:
    """Return the path of a part in a folder."""
    return folder / f"part-{part:06d}.parquet"


def _ascii_to_text(column: Any) -> Any:
    """Return an array of ASCII bytes as a column of text, and any other column unchanged."""
    is_ascii = getattr(getattr(column, "dtype", None), "kind", "") == "S"
    pa = import_pyarrow()[0]
    return pa.array(column, pa.binary()).cast(pa.string()) if is_ascii else column


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas, as it does to convert any list: a third of the start of a build.

    For a process of our own: pyarrow then takes what pandas holds for any other sequence. Where pandas is
    imported already nothing changes.
    """
    if "pandas" in sys.modules:
        return
    pa, _ = import_pyarrow()
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([])  # pyarrow looks for pandas once
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """A finder of modules that finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left out", name=name)


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module of Parquet. Raises: MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Building data", "pyarrow", "data") from error
    return pyarrow, pyarrow.parquet
