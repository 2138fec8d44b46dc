"""Fourth step: scores of a run's observations, with intervals, and what stands against a headline."""

from pathlib import Path
from typing import Any, NamedTuple

from lens.benchmarks.base import Benchmark
from lens.errors import LensError
from lens.evals.scores.intervals import AGGREGATIONS, Interval, difference_interval, headline_interval
from lens.evals.scores.observations import BenchmarkScore
from lens.evals.scores.registry import score_file
from lens.evals.suite.run_folder import NEEDS_LINES, EvalRunSettings, RunFolder
from lens.text_files import read_json_lines


class MissingImagesError(LensError):
    """A headline that would be of fewer images than the run has."""


class RunScore(NamedTuple):
    """The score of a run by one scorer."""

    scorer: str
    settings: EvalRunSettings
    lines: list[dict[str, Any]]
    score: BenchmarkScore
    interval: Interval | None
    """None for a scorer that has none, and where nothing counts."""
    num_planned: int
    """Images that the run has when it is complete."""

    @property
    def num_images(self) -> int:
        return len(self.lines)

    @property
    def notes(self) -> list[str]:
        """Return what readers have to know of these numbers."""
        stamps = self.lines[0]["observers"] if self.lines else []
        found = [stamp["note"] for stamp in stamps if stamp["note"]]
        if not self.settings.has_official_data:
            found.append("prompts are not those of the published files")
        if self.settings.limit is not None:
            found.append(f"a part of the benchmark: {self.settings.limit} prompts")
        if self.num_images < self.num_planned:
            num_missing = self.num_planned - self.num_images
            found.append(f"{num_missing} of {self.num_planned} images are missing")
        if any(line.get("has_clip") is False for line in self.lines):
            found.append("clipscore was not measured, as no CLIP was there")
        made = [line["rewriting"]["outcome"] for line in self.lines if "rewriting" in line]
        if as_published := sum(outcome != "refined" for outcome in made):
            found.append(f"{as_published} of {len(made)} images have their published prompt")
        unanswered = sum(len(line.get("failures", ())) for line in self.lines)
        if unanswered:
            found.append(f"{unanswered} questions have no answer and count as wrong")
        black = sum(bool(line.get("is_black")) for line in self.lines)
        return found + ([f"{black} images are black"] if black else [])

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of a run, with all that they depend on."""
        stamps = self.lines[0]["observers"] if self.lines else []
        return {
            **self.score.to_json(self.scorer), "settings": self.settings.model_dump(mode="json"),
            "column": self.settings.column, "observers": stamps, "notes": self.notes,
            "interval": self.interval._asdict() if self.interval else None,
            "num_images": self.num_images, "num_planned": self.num_planned,
        }  # fmt: skip


def score_run(run: RunFolder, benchmark: Benchmark, allow_missing: bool = False) -> list[RunScore]:
    """Return the scores of all observations of a run.

    Raises: MissingImagesError unless missing images are allowed; LensError where nothing was observed.
    """
    settings = run.settings()
    num_planned = sum(1 for _ in run.planned(benchmark))
    found = []
    for scorer in benchmark.scorers:
        path = run.observations_path(scorer)
        if not path.is_file():
            continue
        lines = [line for _, line in read_json_lines(path, "RUN", NEEDS_LINES)]
        if len(lines) < num_planned and not allow_missing:
            raise MissingImagesError(
                f"{num_planned - len(lines)} of the {num_planned} images of {run.folder} are missing. Draw "
                "and observe them, or pass --allow-missing for a headline of those that are there."
            )
        score = score_file(scorer, path)
        interval = headline_interval(scorer, lines, score) if scorer in AGGREGATIONS else None
        found.append(RunScore(scorer, settings, lines, score, interval, num_planned))
    if not found:
        raise LensError(f"{run.folder} has no observations. Make them: lens eval observe {run.folder}.")
    return found


def compare(one: RunScore, other: RunScore) -> Interval | None:
    """Return the first headline less the second over their common prompts, with its paired interval."""
    if one.scorer != other.scorer or one.scorer not in AGGREGATIONS:
        return None
    return difference_interval(one.scorer, one.lines, one.score, other.lines, other.score)


def prompts_by_score(found: RunScore) -> list[tuple[float, list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Return each prompt's lines and cases with the share that it reached, the worst first."""
    groups: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for line, case in zip(found.lines, found.score.cases, strict=True):
        groups.setdefault(line["key"], []).append((line, case))
    scored = [(sum(case_share(case) for _, case in own) / len(own), own) for own in groups.values()]
    return sorted(scored, key=lambda pair: pair[0])


def case_share(case: dict[str, Any]) -> float:
    """Return how good an image is, from 0 to 1, for sorting alone."""
    if "correct" in case and isinstance(case["correct"], bool):
        return float(case["correct"])
    if "words" in case:
        return case["correct"] / case["words"] if case["words"] else 0.0
    if "matched" in case:
        return case["matched"] / case["reference"] if case["reference"] else 0.0
    return float(case.get("score") or 0.0)


def read_run(folder: Path) -> RunFolder:
    """Return a run's folder. Raises: SettingError where there is none."""
    run = RunFolder(folder)
    run.settings()
    return run
