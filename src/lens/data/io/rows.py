"""Rows of JSONL, CSV and Parquet files that others wrote: a broken row is a row with its fault.

Knows nothing of what the columns mean. Embedded images are not read here, see `embedded_column`.
"""

import ast
import csv
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lens.data.io.parquet import import_pyarrow
from lens.data.io.sample import MAX_SIDECAR_BYTES
from lens.errors import first_line
from lens.text_files import BYTE_ORDER_MARKS, TextError, parse_json

ROW_FILE_EXTENSIONS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""In lower case."""


class Row(NamedTuple):
    """A row, or the reason why it cannot be read."""

    number: int
    """From 1: the line of a JSONL file, else the row without the header."""
    values: Mapping[str, Any]
    fault: str = ""
    """For people; empty for a sound row."""


def is_row_file(name: str) -> bool:
    """Return whether a file is one of rows, by its name."""
    return name.lower().endswith(ROW_FILE_EXTENSIONS)


def iter_file_rows(path: Path, name: str = "") -> Iterator[Row]:
    """Yield the rows of a file in their order; a file that breaks off ends with a faulty row.

    `name` is the name whose extension counts, where the path is the end of a link.
    """
    extension = Path(name or path.name).suffix.lower()
    number = 0
    try:
        if extension == ".parquet":
            rows = _parquet_rows(path)
        elif extension in (".csv", ".tsv"):
            rows = _csv_rows(path, "excel-tab" if extension == ".tsv" else "excel")
        else:
            rows = _jsonl_rows(path)
        for row in rows:
            number = row.number
            yield row
    except (OSError, ValueError) as error:
        yield Row(number + 1, {}, f"the file cannot be read further ({first_line(error)})")


def embedded_column(path: Path, preferred: str = "") -> str:
    """Return the column of a Parquet file that holds encoded images; empty for none.

    It is a column of bytes, or one of Hugging Face's structs of `bytes` and `path`.
    """
    pa, parquet = import_pyarrow()
    try:
        schema = parquet.read_schema(path)
    except (OSError, pa.ArrowException):
        return ""
    found = [field.name for field in schema if _holds_bytes(pa, field.type)]
    return preferred if preferred in found else next(iter(found), "")


def embedded_images(path: Path, column: str, rows: set[int]) -> Iterator[tuple[int, bytes | str]]:
    """Yield rows, counted from 0, with their embedded image, or the path that stands for it.

    Only the groups that hold the rows are read. Hugging Face writes paths of files that it does not embed.
    """
    with import_pyarrow()[1].ParquetFile(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            wanted = sorted(row for row in rows if first <= row < first + count)
            if wanted:
                images = file.read_row_group(group, columns=[column]).column(0)
                for row in wanted:
                    value = images[row - first].as_py()
                    content = value.get("bytes") or value.get("path") if isinstance(value, dict) else value
                    if content:
                        yield row, content
            first += count


def _holds_bytes(pa: Any, kind: Any) -> bool:
    is_binary = lambda one: pa.types.is_binary(one) or pa.types.is_large_binary(one)  # noqa: E731
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and is_binary(field.type) for field in kind)
    return is_binary(kind)


def _open_text(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
    # A byte that is not of UTF-8 becomes half a surrogate pair, which is a fault of its row alone.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return path.open(encoding=encoding, errors=errors, newline="")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with _open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = parse_json(line)
            except TextError as error:
                yield Row(number, {}, str(error))
                continue
            is_object = isinstance(values, dict)
            yield Row(number, values if is_object else {}, "" if is_object else "is not a JSON object")


def _csv_rows(path: Path, dialect: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_SIDECAR_BYTES)
    with _open_text(path) as lines:
        header = lines.readline()
        delimiter = csv.get_dialect(dialect).delimiter
        if stated := re.fullmatch(r'"?sep=(.)"?\s*', header, re.IGNORECASE):  # by Excel, in a line of its own
            delimiter, header = stated[1], lines.readline()
        elif "," not in header and ";" in header:  # of spreadsheets where the comma is that of decimals
            delimiter = ";"
        rows = csv.DictReader(
            chain((header,), lines), dialect=dialect, delimiter=delimiter, restkey="", skipinitialspace=True
        )
        number = 0
        while True:
            number += 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, {}, f"is not valid CSV ({first_line(error)})")
                continue
            is_long = "" in values and values[""] not in (None, "")
            fault = "has more cells than the header" if is_long else ""
            yield Row(number, {name.strip(): _cell(value) for name, value in values.items()}, fault)


def _cell(value: Any) -> Any:
    """Return a cell of CSV; a list that was written as text is a list again."""
    if isinstance(value, str) and value[:2] in ("['", '["') and value.endswith("]"):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return value
    return value


def _parquet_rows(path: Path) -> Iterator[Row]:
    pa, parquet = import_pyarrow()
    try:
        yield from _read_parquet_rows(pa, parquet, path)
    except pa.ArrowException as error:  # not all of them are a ValueError
        raise ValueError(first_line(error)) from error


def _read_parquet_rows(pa: Any, parquet: Any, path: Path) -> Iterator[Row]:
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        # Of an embedded image only its path, not the bytes of all images of the list.
        is_embedded = {field.name: _holds_bytes(pa, field.type) for field in schema}
        columns = [
            f"{field.name}.path" if is_embedded[field.name] else field.name
            for field in schema
            if not is_embedded[field.name] or _has_path(pa, field.type)
        ]
        if not columns:
            yield from (Row(number, {}) for number in range(1, file.metadata.num_rows + 1))
            return
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            for values in _batch_values(batch):
                number += 1
                yield Row(number, values or {}, "holds bytes that are not UTF-8" if values is None else "")


def _has_path(pa: Any, kind: Any) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "path" for field in kind)


def _batch_values(batch: Any) -> list[dict[str, Any] | None]:
    """Return the rows of a batch; None for a row with a text that is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [None]
        middle = len(batch) // 2
        return _batch_values(batch.slice(0, middle)) + _batch_values(batch.slice(middle))
