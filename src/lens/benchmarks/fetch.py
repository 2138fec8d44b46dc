"""Downloads of the files of benchmarks: each at one revision, checked by its SHA-256."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from lens.benchmarks.base import Benchmark, DataFile
from lens.errors import LensError, SettingError
from lens.files import write_bytes_atomic

TIMEOUT_S = 60.0
BY_HAND = "Download it by hand, and name its folder: --data PATH."


class FetchError(LensError):
    """A file that cannot be downloaded, or is another one than the one that was published."""


def fetch(
    benchmark: Benchmark, folder: Path, on_progress: Callable[[str, int, int], None] = lambda *_: None
) -> list[Path]:
    """Download the files of a benchmark that are not in the folder yet, and return the paths of all.

    Raises: SettingError for a benchmark that the user has to bring; FetchError.
    """
    if not benchmark.can_be_fetched:
        fix = f"Licence: {benchmark.licence} Name the folder: --data PATH."
        raise SettingError("BENCHMARK", benchmark.name, "files that may be downloaded", fix)
    paths = []
    for number, file in enumerate(benchmark.files):
        on_progress(file.name, number, len(benchmark.files))
        path = folder / file.name
        if not (path.is_file() and _hash(path.read_bytes()) == file.sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, _download(file))
        paths.append(path)
    on_progress("done", len(benchmark.files), len(benchmark.files))
    return paths


def _download(file: DataFile) -> bytes:
    import httpx2

    try:
        response = httpx2.get(str(file.url), timeout=TIMEOUT_S, follow_redirects=True)
    except httpx2.HTTPError as error:
        raise FetchError(f"{file.url} cannot be downloaded ({error}). {BY_HAND}") from error
    if response.status_code != 200:
        raise FetchError(f"{file.url} answers {response.status_code}. {BY_HAND}")
    found = _hash(response.content)
    if found != file.sha256:
        raise FetchError(
            f"{file.url} has the SHA-256 {found[:12]}..., but the published file has "
            f"{str(file.sha256)[:12]}.... Nothing was saved."
        )
    return response.content


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
