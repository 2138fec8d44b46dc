"""The folder of a run: what was asked of which model, its prompts, images and observations.

    run.json                settings of the images; a run with others needs a folder of its own
    prompts.jsonl           the prompts of the run, with the facts that their scores need
    images/                 laid out as the official scripts want them
    images.jsonl            one line an image: prompt, repeat, file, seed
    observations/NAME.jsonl what observers saw, in the format of `lens eval score NAME`
    scores.json, report.html
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lens.benchmarks.base import Benchmark, BenchmarkPrompt
from lens.config import Settings
from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.text_files import read_json, read_json_lines

NEEDS_LINES = "a readable UTF-8 file of JSON lines"


class Rewriting(Settings):
    """How prompts were rewritten before they were drawn: numbers with and without it never share a column."""

    model: str
    system_prompt: str
    system_prompt_hash: str
    sees_metadata: bool = False
    """Whether the rewriter saw what the scorer asks for."""


class EvalRunSettings(Settings):
    """What decides the images of a run."""

    benchmark: str
    data_hash: str
    has_official_data: bool
    model: str
    model_hash: str
    steps: int
    guidance: float
    solver: str
    width: int
    height: int
    seed: int
    num_images: int
    """Images of each prompt."""
    limit: int | None
    """Prompts, spread over the benchmark; None are all."""
    rewriting: Rewriting | None = None

    @property
    def column(self) -> str:
        """Return whose column a row of numbers stands in."""
        if self.rewriting is None:
            return "prompts as published"
        seen = ", which saw the scorer's metadata" if self.rewriting.sees_metadata else ""
        made = f"system prompt {self.rewriting.system_prompt} {self.rewriting.system_prompt_hash[:10]}"
        return f"prompts rewritten by {self.rewriting.model}, {made.strip()}{seen}"


class RunImage(NamedTuple):
    """An image of a run, drawn or to be drawn."""

    prompt: BenchmarkPrompt
    repeat: int
    seed: int
    name: str
    """Path below `images`."""


class RunFolder:
    """Reads and writes the files of a run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.images = folder / "images"

    def start(self, settings: EvalRunSettings, prompts: Iterable[BenchmarkPrompt]) -> None:
        """Write the settings and prompts of a run, or check that they are those of the run that is there.

        Raises: SettingError that names the first setting which differs.
        """
        path = self.folder / "run.json"
        if path.is_file():
            was = read_json(path, "--out")
            for name, value in settings.model_dump(mode="json").items():
                if was.get(name) != value:
                    needs = f"a folder of its own, as its run has {name} {was.get(name)!r}, not {value!r}"
                    raise SettingError("--out", str(self.folder), needs)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json_lines(self.folder / "prompts.jsonl", (prompt._asdict() for prompt in prompts))
        write_bytes_atomic(path, settings.model_dump_json(indent=1).encode())  # last: a run has its prompts

    def settings(self) -> EvalRunSettings:
        """Return the settings of the run. Raises: SettingError where there is none."""
        path = self.folder / "run.json"
        if not path.is_file():
            needs = "the folder of a run, with run.json"
            raise SettingError("RUN", str(self.folder), needs, "Make one: lens eval generate BENCHMARK.")
        return EvalRunSettings.of(read_json(path, "RUN"), source=str(path))

    def prompts(self) -> list[BenchmarkPrompt]:
        """Return the prompts of the run."""
        rows = read_json_lines(self.folder / "prompts.jsonl", "RUN", NEEDS_LINES)
        return [BenchmarkPrompt(**row) for _, row in rows]

    def planned(self, benchmark: Benchmark) -> Iterator[RunImage]:
        """Yield all images of the run, drawn or not, in order."""
        settings = self.settings()
        for prompt in self.prompts():
            for repeat in range(settings.num_images):
                name = benchmark.image_name(prompt, repeat)
                yield RunImage(prompt, repeat, image_seed(settings.seed, prompt.key, repeat), name)

    def observations_path(self, scorer: str) -> Path:
        """Return the file of the observations that a scorer reads."""
        return self.folder / "observations" / f"{scorer}.jsonl"


def image_seed(base: int, key: str, repeat: int) -> int:
    """Return the seed of an image, from the key of its prompt: runs of any limit are paired."""
    digest = hashlib.sha256(f"{base} {key} {repeat}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes_atomic(path, text.encode())
