"""Images of the runs of an ablation: which of them show what their prompts ask for.

All arms of a seed draw the same prompts with the same noise. The result is kept beside the run, so that an
interrupted evaluation resumes.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.core.resolution import buckets_for
from lens.evals.ablation import AblationRun, AblationSettings, ScoreSettings
from lens.files import write_bytes_atomic
from lens.nano.tasks import TaskPrompt, WorldConfig, task_prompts

PROMPT_SEED = 2
"""Seed of the prompts: neither that of `lens eval nano` nor that of evaluations in training."""
BATCH_SIZE = 40


class ScoreJob(NamedTuple):
    """One run, and the images to score."""

    run: AblationRun
    score: ScoreSettings
    world: str
    base_resolution: int
    prompts_per_task: int

    @property
    def path(self) -> Path:
        """Return the file of the result, named after what is drawn."""
        drawn = [self.score.model_dump(mode="json"), self.world, self.base_resolution, self.prompts_per_task]
        name = hashlib.blake2b(json.dumps(drawn).encode(), digest_size=5).hexdigest()
        return self.run.out / "scores" / f"{name}.json"

    @property
    def prompts(self) -> list[TaskPrompt]:
        """Return the prompts, task by task."""
        world = WorldConfig.of(self.world, 0.0)
        return [
            prompt
            for task in self.score.tasks
            for prompt in task_prompts(task, self.prompts_per_task, PROMPT_SEED, world, self.score.style)
        ]

    def read(self) -> list[bool]:
        """Return which images show what their prompts ask for."""
        return json.loads(self.path.read_text())["passed"]


def score_missing(settings: AblationSettings, runs: Sequence[AblationRun], num_jobs: int) -> None:
    """Draw and score what is not scored yet, `num_jobs` runs at a time, each in its own process."""
    jobs = [job for name in settings.scores for job in _jobs(settings, runs, name)]
    missing = list({job.path: job for job in jobs if not job.path.is_file()}.values())
    if num_jobs == 1:
        for job in missing:
            score_run(job)
        return
    with ProcessPoolExecutor(num_jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(score_run, missing))


def read_scores(
    settings: AblationSettings, runs: Sequence[AblationRun]
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Return the scored images of each arm and each kind of scores, (seeds, prompts)."""
    passed: dict[tuple[str, str], list[list[bool]]] = {}
    for name in settings.scores:
        for job in _jobs(settings, runs, name):
            passed.setdefault((job.run.arm, name), []).append(job.read())
    return {key: np.array(rows, bool) for key, rows in passed.items()}


def score_run(job: ScoreJob) -> None:
    """Draw and score the images of a run, and write the result."""
    prompts = job.prompts
    passed = draw_and_score(job, prompts)
    lines = {"prompts": [prompt.prompt for prompt in prompts], "passed": passed}
    job.path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(job.path, json.dumps(lines).encode())


def draw_and_score(job: ScoreJob, prompts: Sequence[TaskPrompt]) -> list[bool]:
    """Return for each prompt whether its image shows what it asks for."""
    import torch

    from lens.core.noise import generator_for
    from lens.nano.scoring.scorer import detect, score_detections

    torch.set_num_threads(1)
    # In float32: a whole pipeline and a denoiser alone are loaded in different types.
    pipeline = _pipeline(job.run).to("cuda" if torch.cuda.is_available() else "cpu", torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    sizes = [buckets_for(job.base_resolution)[ratio] for ratio in job.score.ratios]
    passed = [False] * len(prompts)
    for turn, (height, width) in enumerate(sizes):
        items = list(range(turn, len(prompts), len(sizes)))
        for start in range(0, len(items), BATCH_SIZE):
            batch = items[start : start + BATCH_SIZE]
            noise = [generator_for(job.run.seed, "ablation/scores", 0, item) for item in batch]
            images = pipeline(
                [prompts[item].prompt for item in batch], height=height, width=width, generator=noise,
                output_type="np",
            ).images  # fmt: skip
            for item, image in zip(batch, (images * 255).round().astype(np.uint8), strict=True):
                passed[item] = score_detections(detect(image), prompts[item].spec).passed
    return passed


def _jobs(settings: AblationSettings, runs: Sequence[AblationRun], name: str) -> list[ScoreJob]:
    drawn = settings.scores[name], settings.world, settings.base_resolution, settings.prompts_per_task
    return [ScoreJob(run, *drawn) for run in runs]


def _pipeline(run: AblationRun) -> Any:
    """Return the pipeline of a run; a run that exports a denoiser alone has the rest of its `model`."""
    from lens.models.denoiser import LensTransformer2DModel
    from lens.sampling.pipeline import LensPipeline

    if (run.export / "model_index.json").is_file():
        return LensPipeline.from_pretrained(run.export)
    denoiser = LensTransformer2DModel.from_pretrained(run.export / "transformer")
    return LensPipeline.from_pretrained(run.recipe["model"], transformer=denoiser)
