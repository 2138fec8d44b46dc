"""Ablations: arms trained from the same seeds, and their differences with confidence intervals.

An arm is a recipe with some settings changed. The settings of a run name its folder, so that ablations share
runs and finished runs are reused. Knows recipes and metrics files, nothing of torch.
"""

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from lens.config import Settings, deep_merge, read_recipe, write_yaml
from lens.errors import LensError, SettingError
from lens.evals.statistics import MeanEstimate, estimate_mean

logger = logging.getLogger(__name__)

TRAIN_COMMAND = (sys.executable, "-m", "lens", "train")


class AblationSettings(Settings):
    """The settings of an ablation."""

    question: str
    """The question of the experiment, in one sentence."""
    recipe: Path
    """Recipe of all arms; its path is relative to this file."""
    arms: dict[str, dict[str, Any]] = Field(min_length=2)
    """Settings that each arm changes; all arms are compared with the first."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2, max_length=10)
    """Seeds that every arm is trained from."""
    numbers: dict[str, str] = Field(min_length=1)
    """Numbers of the evaluation after the last update, with their names in the table."""
    best: Literal["highest", "lowest"] = "highest"
    """Which values are better."""
    out: Path
    """Folder of runs and results; ablations with the same folder share runs."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", self.seeds, "numbers that differ")
        return self


class AblationRun(NamedTuple):
    """One run of an ablation."""

    arm: str
    seed: int
    recipe: dict[str, Any]
    """Its complete recipe."""

    @property
    def out(self) -> Path:
        return Path(self.recipe["out"])

    @property
    def is_finished(self) -> bool:
        return (self.out / "export").is_dir() and self.last_eval_metrics().get("step") == self.recipe["steps"]

    def last_eval_metrics(self) -> dict[str, float]:
        """Return the latest numbers of the evaluation, by name; empty for a run without any."""
        path = self.out / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        probes = [line for line in lines if any(name.startswith("probe/") for name in line)]
        return {name.removeprefix("probe/"): value for name, value in (probes or [{}])[-1].items()}


class AblationRow(NamedTuple):
    """One number of one arm."""

    arm: str
    metric: str
    values: tuple[float, ...]
    """One value a seed."""
    mean: MeanEstimate
    difference: MeanEstimate | None
    """From the first arm, seed by seed; None for the first arm itself."""

    def verdict(self, best: str) -> str:
        """Return how it compares with the first arm: better, worse, or not significantly different."""
        if self.difference is None:
            return ""
        low, high = self.difference.interval
        if low <= 0 <= high:
            return "no significant difference"
        return "better" if (low > 0) == (best == "highest") else "worse"


def read_ablation(path: Path, overrides: Sequence[str] | None = None) -> AblationSettings:
    """Return the settings of an ablation, with the path of its recipe.

    Raises: SettingError for a file that is no ablation.
    """
    settings = AblationSettings.of(read_recipe(path, list(overrides or [])), str(path))
    return settings.model_copy(update={"recipe": path.parent / settings.recipe})


def ablation_runs(settings: AblationSettings) -> list[AblationRun]:
    """Return the runs of all arms and seeds, seed by seed."""
    common = read_recipe(settings.recipe)
    runs = []
    for seed in settings.seeds:
        for arm, changes in settings.arms.items():
            values = deep_merge(common, changes) | {"seed": seed}
            values.pop("out", None)
            name = hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=5).hexdigest()
            runs.append(AblationRun(arm, seed, values | {"out": str(settings.out / "runs" / name)}))
    return runs


def train_missing(runs: Sequence[AblationRun], num_jobs: int) -> None:
    """Train the unfinished runs, `num_jobs` at a time, each in its own process.

    Raises: LensError when a run fails or is stopped; the others then stop after their current update. All
    resume when called again.
    """
    missing = list({run.out: run for run in runs if not run.is_finished}.values())
    processes: list[subprocess.Popen[bytes]] = []

    def train(run: AblationRun) -> AblationRun:
        run.out.mkdir(parents=True, exist_ok=True)
        write_yaml(run.recipe, run.out / "wanted.yaml")
        with (run.out / "log.txt").open("ab") as log:
            processes.append(
                subprocess.Popen([*TRAIN_COMMAND, str(run.out / "wanted.yaml")], stdout=log, stderr=log)
            )
            processes[-1].wait()
        return run

    with ThreadPoolExecutor(num_jobs) as pool:
        try:
            for run in pool.map(train, missing):
                if not run.is_finished:
                    raise LensError(f"{run.arm}, seed {run.seed}, did not finish: {_last_line(run.out)}")
                logger.info("%s, seed %d: %s", run.arm, run.seed, run.out)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


def compare_arms(settings: AblationSettings, runs: Sequence[AblationRun]) -> list[AblationRow]:
    """Return a row for each number of each arm.

    Raises: SettingError for a number that the evaluation does not have.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        metrics = run.last_eval_metrics()
        for number in settings.numbers:
            if number not in metrics:
                known = ", ".join(name for name in metrics if name != "step")
                raise SettingError("numbers", number, f"one of {known}")
            values.setdefault((run.arm, number), []).append(metrics[number])
    first = next(iter(settings.arms))
    rows = []
    for number in settings.numbers:
        base = values[first, number]
        for arm in settings.arms:
            own = values[arm, number]
            differences = [one - other for one, other in zip(own, base, strict=True)]
            difference = None if arm == first else estimate_mean(differences)
            rows.append(AblationRow(arm, number, tuple(own), estimate_mean(own), difference))
    return rows


def format_table(settings: AblationSettings, rows: Sequence[AblationRow]) -> str:
    """Return the rows as a Markdown table, with the question above it."""
    first = next(iter(settings.arms))
    lines = [settings.question, "", f"| number | arm | mean and 95% interval | against {first} | |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in rows:
        against = (
            "" if row.difference is None else f"{row.difference.mean:+.3f} {row.difference.interval_text}"
        )
        cells = (
            settings.numbers[row.metric],
            row.arm,
            f"{row.mean.mean:.3f} {row.mean.interval_text}",
            against,
        )
        lines.append(f"| {' | '.join((*cells, row.verdict(settings.best)))} |")
    count = f"{len(settings.seeds)} seeds an arm; intervals by Student's t, differences seed by seed."
    return "\n".join([*lines, "", count])


def results_to_dict(settings: AblationSettings, rows: Sequence[AblationRow]) -> dict[str, Any]:
    """Return the values of the JSON file of results."""
    return {
        "question": settings.question,
        "seeds": list(settings.seeds),
        "rows": [
            {"arm": row.arm, "number": row.metric, "values": list(row.values), "mean": row.mean.mean,
             "interval": row.mean.interval, "verdict": row.verdict(settings.best),
             "difference": row.difference and row.difference.mean,
             "difference_interval": row.difference and row.difference.interval}
            for row in rows
        ],
    }  # fmt: skip


def _last_line(out: Path) -> str:
    lines = [line for line in (out / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'its log is empty'} (see {out / 'log.txt'})"
