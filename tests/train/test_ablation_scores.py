"""Images of ablations: drawn by the exported model of a run, alike for all arms of a seed, and kept."""

import shutil

import numpy as np
import pytest

from lens.evals.ablation import AblationRun, ScoreSettings
from lens.evals.ablation_scores import ScoreJob, score_run
from lens.nano.scoring import scorer


@pytest.fixture
def drawn(monkeypatch):
    """Collect the images that are scored."""
    images = []
    detect = scorer.detect
    monkeypatch.setattr(scorer, "detect", lambda image: images.append(image) or detect(image))
    return images


@pytest.fixture
def job_of(finished, tmp_path):
    """Return the job of a run that exported a whole pipeline, or its denoiser alone."""
    export = finished("pretrain").out / "export"

    def of(arm: str, seed: int, is_whole: bool = True, **score) -> ScoreJob:
        out = tmp_path / arm
        part = "" if is_whole else "transformer"
        shutil.copytree(export / part, out / "export" / part)
        run = AblationRun(arm, seed, {"out": str(out), "steps": 6, "model": str(export)})
        return ScoreJob(run, ScoreSettings.of({"tasks": ["two", "colour"], **score}), "micro", 48, 2)

    return of


def test_arms_of_a_seed_draw_alike_whether_they_export_a_pipeline_or_a_denoiser(job_of, drawn):
    for job in (job_of("whole", 3), job_of("part", 3, is_whole=False), job_of("other seed", 4)):
        score_run(job)
        assert len(job.read()) == len(job.prompts) == 4
    whole, part, other = drawn[:4], drawn[4:8], drawn[8:]
    assert np.array_equal(whole, part) and not np.array_equal(whole, other)
    assert len({image.tobytes() for image in whole}) == 4


def test_prompts_alternate_between_the_ratios_and_each_kind_of_scores_has_its_file(job_of, drawn):
    mixed = job_of("mixed", 0, ratios=["2:3", "3:2"], style="de")
    score_run(mixed)
    assert [image.shape[:2] for image in drawn] == [(64, 32)] * 2 + [(32, 64)] * 2
    assert mixed.path != mixed._replace(score=ScoreSettings()).path
    assert mixed.path.is_file()
