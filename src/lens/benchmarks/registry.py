"""The benchmarks by name, and where their files lie on this machine."""

from pathlib import Path

from lens.benchmarks.base import Benchmark
from lens.benchmarks.cvtg import CVTG
from lens.benchmarks.dpg import DPG
from lens.benchmarks.geneval import GENEVAL
from lens.benchmarks.longtext import LONGTEXT
from lens.errors import SettingError
from lens.files import cache_folder

BENCHMARKS = {one.name: one for one in (GENEVAL, LONGTEXT, CVTG, DPG)}


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark. Raises: SettingError that lists the names."""
    if name not in BENCHMARKS:
        raise SettingError("BENCHMARK", name, f"one of {', '.join(BENCHMARKS)}", "See `lens eval list`.")
    return BENCHMARKS[name]


def data_folder(name: str) -> Path:
    """Return the folder of a benchmark's files, which `lens eval fetch` fills."""
    return cache_folder() / "benchmarks" / name
