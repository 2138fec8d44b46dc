"""Record files: records of named bytes, any one of which is read without the others.

They are files of Arrow's IPC format with a batch for each record. Knows nothing of what a record means.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lens.data.io.parquet import import_pyarrow
from lens.files import replace_file

Record = Mapping[str, bytes]
"""Has all names of its file, or none."""


@contextmanager
def record_writer(path: Path, names: Sequence[str]) -> Iterator[Callable[[Record], None]]:
    """Yield a function that adds a record; the file appears at the end of the block.

    Raises: FileWriteError; DiskFullError.
    """
    pa, _ = import_pyarrow()
    schema = pa.schema([(name, pa.binary()) for name in names])
    with replace_file(path) as partial, open(partial, "xb") as file, pa.ipc.new_file(file, schema) as writer:

        def add(record: Record) -> None:
            columns = [pa.array([record[name]] if record else [], pa.binary()) for name in names]
            writer.write_batch(pa.record_batch(columns, schema=schema))

        yield add


def read_record(path: Path, number: int) -> dict[str, bytes]:
    """Return the record of a number, from 0; empty where the file, or this record, is missing or damaged."""
    pa, _ = import_pyarrow()
    try:
        with pa.memory_map(str(path)) as file:
            batch = pa.ipc.open_file(file).get_batch(number)
            return {name: batch.column(name)[0].as_py() for name in batch.schema.names if batch.num_rows}
    except (OSError, ValueError):  # what pyarrow raises for damaged files is a ValueError
        return {}
