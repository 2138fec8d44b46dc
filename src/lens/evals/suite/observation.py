"""Third step: what observers see in the images of a run, one line an image, in the format of the scorers.

A line holds the hash of its image and the observers that made it. A later run keeps the lines for which both
are the same, and makes the others.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lens.benchmarks.base import Benchmark, BenchmarkPrompt
from lens.benchmarks.geneval import CLASSES, COLOURS
from lens.errors import SettingError
from lens.evals.observers.base import ColourClassifier, Detector, ObserverInfo, TextReader
from lens.evals.observers.judge import VlmJudge
from lens.evals.suite.generation import OnProgress
from lens.evals.suite.run_folder import NEEDS_LINES, RunFolder, RunImage, write_json_lines
from lens.text_files import read_json_lines

BLACK_LEVEL = 8
"""An image without a brighter value is black: its generation failed, or a filter blanked it."""


class Observers(NamedTuple):
    """The observers of a run; None where there is none."""

    detector: Detector | None = None
    colours: ColourClassifier | None = None
    reader: TextReader | None = None
    judge: VlmJudge | None = None

    @property
    def infos(self) -> list[ObserverInfo]:
        return [one.info for one in self if one is not None]


class ObservationCount(NamedTuple):
    """What happened to the images of a run."""

    observed: int
    kept: int
    """Lines of an earlier run."""
    missing: list[str]
    """Names of images that are not there, or cannot be read."""
    black: list[str]
    """Names of images without light. They are scored as they are, as the official scripts do."""
    doubled: list[str]
    """Names of images equal to another image of their prompt."""
    unanswered: list[str]
    """Names of images for which a question has no answer, which counts as wrong."""


def observe_run(
    run: RunFolder, benchmark: Benchmark, scorer: str, observers: Observers, on_progress: OnProgress
) -> ObservationCount:
    """Write the observations of a scorer and return what was met.

    Raises: SettingError for a scorer whose observer is missing.
    """
    see = OBSERVE[scorer](observers)
    path = run.observations_path(scorer)
    stamps = [info._asdict() for info in observers.infos]
    earlier = _earlier_lines(path, stamps)
    planned = list(run.planned(benchmark))
    lines: list[dict[str, Any]] = []
    missing: list[str] = []
    num_kept = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path).open("a", encoding="utf-8") as journal:
        for number, image in enumerate(planned):
            on_progress(f"observing for {scorer}", number, len(planned))
            content = _read(run.images / image.name)
            if content is None:
                missing.append(image.name)
                continue
            digest = hashlib.sha256(content).hexdigest()
            line = earlier.get((image.prompt.key, image.repeat, digest))
            num_kept += line is not None
            if line is None:
                line = {
                    **_observe(image, content, see), "key": image.prompt.key, "image": image.name,
                    "image_sha256": digest, "observers": stamps,
                }  # fmt: skip
                journal.write(json.dumps(line, ensure_ascii=False) + "\n")
                journal.flush()
            lines.append(line)
    write_json_lines(path, lines)
    _partial(path).unlink()
    on_progress(f"observing for {scorer}", len(planned), len(planned))
    black = [line["image"] for line in lines if line["is_black"]]
    unanswered = [line["image"] for line in lines if line.get("failures")]
    num_observed = len(lines) - num_kept
    return ObservationCount(num_observed, num_kept, missing, black, _doubled(lines), unanswered)


def _observe(image: RunImage, content: bytes, see: "See") -> dict[str, Any]:
    """Return the fields of a line that come from its prompt and its image."""
    pixels = Image.open(io.BytesIO(content)).convert("RGB")
    is_black = int(np.asarray(pixels).max()) < BLACK_LEVEL
    facts = {name: value for name, value in image.prompt.facts.items() if name != "questions"}
    numbers = {"repeat": image.repeat, "crop": image.repeat}  # DPG-Bench calls it a crop
    return {**facts, **numbers, **see(image.prompt, pixels), "is_black": is_black}


def _read(path: Path) -> bytes | None:
    """Return a file whose image can be decoded wholly; None for any other."""
    try:
        content = path.read_bytes()
        Image.open(io.BytesIO(content)).load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return content


def _doubled(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of images that are equal to an earlier image of their prompt."""
    seen: set[tuple[str, str]] = set()
    found = []
    for line in lines:
        image = line["key"], line["image_sha256"]
        if image in seen:
            found.append(line["image"])
        seen.add(image)
    return found


def _partial(path: Path) -> Path:
    """Return the file of the lines of a run that has not ended."""
    return path.with_suffix(".partial")


def _earlier_lines(path: Path, stamps: list[dict[str, Any]]) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Return the lines of a file, and of a run that was stopped, that the same observers made."""
    found = {}
    for source in filter(Path.is_file, (path, _partial(path))):
        content = source.read_bytes()
        if not content.endswith(b"\n"):  # a kill cut off its last line
            source.write_bytes(content[: content.rfind(b"\n") + 1])
        for _, line in read_json_lines(source, "RUN", NEEDS_LINES):
            if line.get("observers") == stamps:
                found[line["key"], line["repeat"], line["image_sha256"]] = line
    return found


See = Callable[[BenchmarkPrompt, Image.Image], dict[str, Any]]
"""Returns the fields of a line that come from the image."""


def _see_objects(observers: Observers) -> See:
    detector, colours = observers.detector, observers.colours
    if detector is None or colours is None:
        raise SettingError("--observer", "none", "a detector for geneval", "Such as --observer ssd.")

    def see(prompt: BenchmarkPrompt, image: Image.Image) -> dict[str, Any]:
        clauses = prompt.facts["include"]
        coloured = {clause["class"] for clause in clauses if "color" in clause}
        detections = []
        for found in detector.detect(image):
            if found.class_name in CLASSES:
                scores = colours.scores(image, found, COLOURS) if found.class_name in coloured else None
                row = {"class": found.class_name, "score": found.score, "box": list(found.box)}
                detections.append(row | {"color_scores": scores})
        return {"width": image.width, "height": image.height, "detections": detections}

    return see


def _see_text(observers: Observers) -> See:
    reader = _reader(observers)
    return lambda prompt, image: {"ocr": "\n".join(reader.read(image))}


def _see_lines(observers: Observers) -> See:
    """The cosine of CLIP is 0 without CLIP; the report says that it was not measured."""
    reader = _reader(observers)
    return lambda prompt, image: {"ocr": reader.read(image), "clip_cosine": 0.0, "has_clip": False}


def _see_answers(observers: Observers) -> See:
    judge = observers.judge
    if judge is None:
        raise SettingError("--judge-url", None, "the endpoint of a judge for this benchmark")

    def see(prompt: BenchmarkPrompt, image: Image.Image) -> dict[str, Any]:
        answers, failures = judge.ask_all(image, prompt.facts["questions"])
        return {"answers": answers, "failures": failures}

    return see


def _reader(observers: Observers) -> TextReader:
    if observers.reader is None:
        raise SettingError("--observer", "none", "a reader of text", "Such as --observer rapidocr.")
    return observers.reader


OBSERVE: dict[str, Callable[[Observers], See]] = {
    "geneval": _see_objects,
    "longtext": _see_text,
    "cvtg": _see_lines,
    "dpg": _see_answers,
}
"""What each scorer needs to be seen."""
