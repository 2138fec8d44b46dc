"""What a benchmark is: its files, its prompts, and the names of their images. Knows nothing of models."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lens.errors import SettingError


class DataFile(NamedTuple):
    """A file of a benchmark."""

    name: str
    """Its path below the folder of the data."""
    sha256: str | None = None
    """None for a benchmark whose versions we have not seen."""
    url: str | None = None
    """Address at one revision; None where the licence or the size leaves the download to the user."""


class BenchmarkPrompt(NamedTuple):
    """One prompt, and the facts that its score needs."""

    key: str
    """Identifies the prompt within its benchmark, such as 00007 or en/000."""
    prompt: str
    group: str
    """The task, category or language by which a smaller number of prompts is spread."""
    facts: dict[str, Any]
    """Fields of each line of observations; their meaning is that of the benchmark's scorer."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: where its prompts are, and how its images are laid out for the official scripts."""

    name: str
    title: str
    licence: str
    files: tuple[DataFile, ...]
    read: Callable[[Mapping[str, Path]], list[BenchmarkPrompt]]
    """Returns the prompts in files by name."""
    num_images: int
    """Images of each prompt in published numbers."""
    image_name: Callable[[BenchmarkPrompt, int], str]
    """Returns the path of an image below the folder of images, from the prompt and the repeat."""
    scorers: tuple[str, ...]
    """Scorers of lens.evals.scores that its observations go to."""
    notes: tuple[str, ...] = ()
    """What differs between this suite and the official scripts, and what readers of numbers should know."""

    @property
    def can_be_fetched(self) -> bool:
        """Whether all files have an address."""
        return all(file.url for file in self.files)


class BenchmarkData(NamedTuple):
    """Prompts of a benchmark that were read, and what identifies them."""

    prompts: list[BenchmarkPrompt]
    sha256: str
    """Over the hashes of all files."""
    has_official_files: bool
    """Whether every file has the hash of the published one."""


def read_data(benchmark: Benchmark, folder: Path, setting: str = "--data") -> BenchmarkData:
    """Return the prompts of a benchmark in a folder: the official repository, or its files alone.

    Raises: SettingError that names the missing file, or what is wrong in one.
    """
    paths = {file.name: _find_file(benchmark, folder, file, setting) for file in benchmark.files}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
    try:
        prompts = benchmark.read(paths)
    except SettingError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of another form
        needs = f"files of {benchmark.title} in their published form"
        raise SettingError(setting, str(folder), needs, f"Reading them failed at {error}.") from error
    if not prompts:
        raise SettingError(setting, str(folder), f"files of {benchmark.title} with at least one prompt")
    total = hashlib.sha256("".join(f"{name} {hashes[name]}\n" for name in sorted(hashes)).encode())
    is_official = all(file.sha256 == hashes[file.name] for file in benchmark.files)
    return BenchmarkData(prompts, total.hexdigest(), is_official)


def spread(prompts: Sequence[BenchmarkPrompt], limit: int | None) -> list[BenchmarkPrompt]:
    """Return at most `limit` prompts, evenly from all of a benchmark, in its order."""
    if limit is None or limit >= len(prompts):
        return list(prompts)
    return [prompts[index * len(prompts) // limit] for index in range(limit)]


def _find_file(benchmark: Benchmark, folder: Path, file: DataFile, setting: str) -> Path:
    """Return the path of a file, which may lie anywhere below the folder under its name."""
    if (folder / file.name).is_file():
        return folder / file.name
    found = [path for path in sorted(folder.rglob(Path(file.name).name)) if _ends_like(path, file.name)]
    if not found:
        needs = f"a folder with {file.name} of {benchmark.title}"
        fix = f"Licence: {benchmark.licence}"
        if benchmark.can_be_fetched:
            fix = f"Download it: lens eval fetch {benchmark.name}."
        raise SettingError(setting, str(folder), needs, fix)
    return found[0]


def _ends_like(path: Path, name: str) -> bool:
    """Return whether a path is that of a file whose name has as many parts."""
    parts = Path(name).parts
    return path.is_file() and path.parts[-len(parts) :] == parts
