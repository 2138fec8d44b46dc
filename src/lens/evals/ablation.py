"""Ablations: the arms of a question, trained from the same seeds, and the images that they are judged by.

An arm is a recipe with some settings changed. The settings of a run name its folder, so that questions share
runs and finished runs are reused. Knows recipes and files, nothing of torch.
"""

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from lens.config import Settings, deep_merge, read_recipe, write_yaml
from lens.core.resolution import buckets_for
from lens.errors import LensError, SettingError, first_line
from lens.nano.tasks import PROMPT_STYLES, TASKS, WorldConfig

logger = logging.getLogger(__name__)

TRAIN_COMMAND = (sys.executable, "-m", "lens", "train")


class ScoreSettings(Settings):
    """Images that arms are compared on: held-out prompts of the tasks, all arms with the same noise."""

    style: str = "brief"
    """Style of the prompts: brief, dense, or the code of a language."""
    ratios: tuple[str, ...] = Field(("1:1",), min_length=1)
    """Aspect ratios; the prompts alternate between them."""
    tasks: tuple[str, ...] = Field(TASKS, min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        named = (
            ("style", (self.style,), PROMPT_STYLES), ("tasks", self.tasks, TASKS),
            ("ratios", self.ratios, tuple(buckets_for(1024))),
        )  # fmt: skip
        for setting, values, known in named:
            if unknown := [value for value in values if value not in known]:
                raise SettingError(f"scores.{setting}", unknown[0], f"one of {', '.join(known)}")
        return self


class ClaimSettings(Settings):
    """A finding to repeat: one arm beats another, or is no worse than it, on some images."""

    arm: str
    beats: str = ""
    """Arm that has a lower score."""
    matches: str = ""
    """Arm that is better by less than `margin`, if at all."""
    score: str
    """Name of the scores."""

    @model_validator(mode="after")
    def _has_one_other_arm(self) -> Self:
        if bool(self.beats) == bool(self.matches):
            got = "both" if self.beats else "neither"
            raise SettingError("claims", got, "exactly one of beats and matches in each claim")
        return self

    @property
    def other(self) -> str:
        return self.beats or self.matches

    @property
    def text(self) -> str:
        verb = "beats" if self.beats else "is as good as"
        return f"{self.arm} {verb} {self.other} on {self.score}"


class SpreadSettings(Settings):
    """Standard deviations of the difference of two paired images, for the power; see `paired.Spread`."""

    seed: float = Field(ge=0)
    prompt: float = Field(ge=0)
    rest: float = Field(gt=0)


class AblationSettings(Settings):
    """The settings of an ablation."""

    question: str
    """The question of the experiment, in one sentence."""
    recipe: Path
    """Recipe of all arms; its path is relative to this file."""
    first: Path | None = None
    """Recipe that is trained before from the same seed; its export is the `model` of all arms."""
    arms: dict[str, dict[str, Any]] = Field(min_length=2)
    """Settings that each arm changes."""
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=2)
    """Seeds that every arm is trained from."""
    scores: dict[str, ScoreSettings] = Field(min_length=1)
    """Images of an evaluation after the last update, by name."""
    claims: tuple[ClaimSettings, ...] = Field(min_length=1)
    """The findings that are asked for."""
    margin: float = Field(0.03, gt=0, lt=1)
    """Least difference of two shares that matters."""
    world: str = "micro"
    """World of the prompts."""
    base_resolution: int = 64
    """Base resolution of the images."""
    prompts_per_task: int = Field(40, ge=2)
    """Prompts of each task, each drawn once after the training from every seed."""
    expected: SpreadSettings
    """Spread that the power is computed from before the runs."""
    minutes: float = Field(gt=0)
    """Expected minutes of one core for a run with its scores."""
    first_minutes: float = Field(0.0, ge=0)
    """Expected minutes of one core for a run of `first`."""
    out: Path
    """Folder of runs and results; ablations with the same folder share runs."""

    @model_validator(mode="after")
    def _names_and_seeds_fit(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", self.seeds, "numbers that differ")
        for claim in self.claims:
            for setting, name, known in (
                ("arm", claim.arm, self.arms), ("beats or matches", claim.other, self.arms),
                ("score", claim.score, self.scores),
            ):  # fmt: skip
                if name not in known:
                    raise SettingError(f"claims: {setting}", name, f"one of {', '.join(known)}")
        WorldConfig.of(self.world, 0.0)
        buckets_for(self.base_resolution)
        return self

    def num_prompts(self, score: str) -> int:
        """Return the number of prompts of some scores."""
        return self.prompts_per_task * len(self.scores[score].tasks)


@dataclass(frozen=True)
class AblationRun:
    """One run of an ablation."""

    arm: str
    seed: int
    recipe: dict[str, Any]
    """Its complete recipe."""
    first: "AblationRun | None" = None
    """Run whose export it starts from."""

    @property
    def out(self) -> Path:
        return Path(self.recipe["out"])

    @property
    def export(self) -> Path:
        """Return the folder of the trained model."""
        return self.out / "export"

    @property
    def is_finished(self) -> bool:
        return self.export.is_dir() and self._last_step() == self.recipe["steps"]

    def _last_step(self) -> int:
        path = self.out / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return json.loads(lines[-1])["step"] if lines else -1


def read_ablation(path: Path, overrides: Sequence[str] | None = None) -> AblationSettings:
    """Return the settings of an ablation, with the paths of its recipes.

    Raises: SettingError for a file that is no ablation.
    """
    settings = AblationSettings.of(read_recipe(path, list(overrides or [])), str(path))
    first = None if settings.first is None else path.parent / settings.first
    return settings.model_copy(update={"recipe": path.parent / settings.recipe, "first": first})


def ablation_runs(settings: AblationSettings) -> list[AblationRun]:
    """Return the runs of all arms and seeds, seed by seed."""
    common = read_recipe(settings.recipe)
    before = None if settings.first is None else read_recipe(settings.first)
    runs = []
    for seed in settings.seeds:
        first = None if before is None else _run(settings, "first", seed, before, None)
        runs += [
            _run(settings, arm, seed, deep_merge(common, changes), first)
            for arm, changes in settings.arms.items()
        ]
    return runs


def _run(
    settings: AblationSettings, arm: str, seed: int, recipe: dict[str, Any], first: AblationRun | None
) -> AblationRun:
    """Return a run in a folder that is named after its settings."""
    values = recipe | {"seed": seed} | ({"model": str(first.export)} if first else {})
    values.pop("out", None)
    try:
        text = json.dumps(values, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise SettingError("arms", arm, f"values of JSON ({first_line(error)})") from error
    name = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
    return AblationRun(arm, seed, values | {"out": str(settings.out / "runs" / name)}, first)


def missing_runs(runs: Sequence[AblationRun]) -> tuple[list[AblationRun], list[AblationRun]]:
    """Return the unfinished runs that others start from, and the unfinished others, each once."""
    firsts = [run.first for run in runs if run.first is not None]
    before, own = (
        list({run.out: run for run in some if not run.is_finished}.values()) for some in (firsts, runs)
    )
    return before, own


def train_missing(runs: Sequence[AblationRun], num_jobs: int) -> None:
    """Train the unfinished runs, `num_jobs` at a time, each in its own process.

    Raises: LensError when a run fails or is stopped; the others then stop after their current update. All
    resume when called again.
    """
    for some in missing_runs(runs):
        _train(some, num_jobs)


def _train(missing: Sequence[AblationRun], num_jobs: int) -> None:
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


def _last_line(out: Path) -> str:
    lines = [line for line in (out / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'its log is empty'} (see {out / 'log.txt'})"
