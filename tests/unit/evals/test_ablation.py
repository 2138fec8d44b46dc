"""Ablations: which runs they need, what they answer, and what they say of a run that fails."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lens.core.statistics import MeanEstimate
from lens.errors import LensError, SettingError
from lens.evals import ablation, ablation_scores
from lens.evals.ablation import ClaimSettings, ablation_runs, missing_runs, read_ablation, train_missing
from lens.evals.ablation_findings import (
    arm_scores,
    claim_answers,
    findings_to_dict,
    format_findings,
    format_plan,
    verdict_of,
)
from lens.evals.ablation_scores import read_scores, score_missing
from lens.evals.paired import Spread
from lens.train.run import parse_settings

QUESTIONS = sorted(
    (Path(__file__).parents[3] / "recipes" / "nano" / "ablations" / "questions").glob("*.yaml")
)
TRAINER = """
import json, pathlib, sys, yaml
recipe = yaml.safe_load(open(sys.argv[-1]))
out = pathlib.Path(recipe["out"])
with (out / "calls").open("a") as calls:
    calls.write("x")
if recipe["rate"] < 0:
    sys.exit("lens: rate is negative")
if "model" in recipe and not pathlib.Path(recipe["model"]).is_dir():
    sys.exit("lens: model is missing")
(out / "metrics.jsonl").write_text(json.dumps({"step": 3, "loss": 1.0}) + "\\n")
(out / "export").mkdir(exist_ok=True)
"""


@pytest.fixture
def asked(tmp_path):
    """Write an ablation of three arms; return its path and a way to change it."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"steps": 3, "rate": 0.5, "net": {"a": 1, "b": 2}}))

    def write(**changes) -> Path:
        values = {
            "question": "Does the rate matter?", "recipe": "small.yaml", "seeds": [0, 1, 4],
            "arms": {"usual": {}, "high": {"rate": 0.7}, "other": {"net": {"b": 5}}},
            "scores": {"brief": {}, "dense": {"style": "dense"}},
            "claims": [
                {"arm": "high", "beats": "usual", "score": "brief"},
                {"arm": "usual", "beats": "high", "score": "brief"},
                {"arm": "other", "matches": "usual", "score": "dense"},
            ],
            "expected": {"seed": 0.02, "prompt": 0.1, "rest": 0.5}, "minutes": 6, "prompts_per_task": 10,
            "out": str(tmp_path / "out"),
        }  # fmt: skip
        path = tmp_path / "rates.yaml"
        path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
        return path

    return write


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Let a script stand for `lens train`, and images that pass at the rate of their run for drawn ones."""
    (tmp_path / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(ablation, "TRAIN_COMMAND", (sys.executable, str(tmp_path / "trainer.py")))
    drawn = []

    def draw(job, prompts):
        drawn.append(job)
        # Harder prompts and worse seeds, alike for all arms.
        rng = np.random.default_rng(job.run.seed)
        return [bool(draw < job.run.recipe["rate"]) for draw in rng.random(len(prompts))]

    monkeypatch.setattr(ablation_scores, "draw_and_score", draw)
    return drawn


def answer(path: Path):
    """Return the settings of a question and its scores."""
    settings = read_ablation(path)
    runs = ablation_runs(settings)
    train_missing(runs, num_jobs=3)
    score_missing(settings, runs, num_jobs=1)
    return settings, read_scores(settings, runs)


def test_every_arm_is_the_common_recipe_with_its_changes_from_every_seed(asked):
    runs = ablation_runs(read_ablation(asked()))
    assert [(run.arm, run.seed) for run in runs[1:4]] == [("high", 0), ("other", 0), ("usual", 1)]
    assert len({run.out for run in runs}) == 9
    assert runs[2].recipe | {"out": ""} == {
        "steps": 3, "rate": 0.5, "net": {"a": 1, "b": 5}, "seed": 0, "out": "",
    }  # fmt: skip


def test_ablations_that_need_the_same_run_share_its_folder(asked):
    first = {run.out for run in ablation_runs(read_ablation(asked()))}
    second = ablation_runs(
        read_ablation(asked(arms={"plain": {"rate": 0.5}, "higher": {"rate": 0.9}}, claims=[CLAIM]))
    )
    assert [run.out in first for run in second] == [True, False] * 3


CLAIM = {"arm": "higher", "beats": "plain", "score": "brief"}


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_every_arm_of_every_question_that_ships_is_a_recipe_that_can_be_run(path):
    settings = read_ablation(path)
    assert len(settings.seeds) >= 5
    runs = ablation_runs(settings)
    for run in (*runs, *(run.first for run in runs if run.first)):
        parsed = parse_settings(run.recipe["stage"], run.recipe, str(path))
        parsed.check_inputs()
        assert parsed.out == run.out
    assert len({run.out for run in runs}) == len(runs)
    assert all((run.first is None) == (settings.first is None) for run in runs)


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_every_question_that_ships_sees_three_points_with_a_power_of_eighty_percent(path):
    settings = read_ablation(path)
    spread = Spread(**settings.expected.model_dump())
    for name in settings.scores:
        assert spread.power(0.03, len(settings.seeds), settings.num_prompts(name)) >= 0.8


def test_questions_share_the_runs_of_the_micro_world():
    first, second, third = (
        ablation_runs(read_ablation(QUESTIONS[0].with_name(f"{name}.yaml")))
        for name in ("captions", "rl_prompts", "turbo_terms")
    )
    assert first[0].out == second[0].first.out == third[0].first.out
    counts = [run.recipe["nano_prompts"]["count"] for run in second[:3]]
    assert [count / counts[0] for count in counts] == [1, 0.5, 0.25]
    # As many updates of the student where a term leaves out the critics' updates would be another question.
    assert all(run.recipe["steps"] == third[0].recipe["steps"] for run in third)


def test_what_is_finished_is_not_trained_or_drawn_again(asked, trainer):
    settings = read_ablation(asked())
    runs = ablation_runs(settings)
    train_missing(runs[:4], num_jobs=2)
    score_missing(settings, runs[:2], num_jobs=1)
    assert [len(some) for some in missing_runs(runs)] == [0, 5]
    answer(asked())
    assert all((run.out / "calls").read_text() == "x" for run in runs)
    assert len(trainer) == len({job.path for job in trainer}) == 18


def test_the_export_of_the_first_run_of_a_seed_is_the_model_of_its_arms(asked, trainer, tmp_path):
    (tmp_path / "before.yaml").write_text(yaml.safe_dump({"steps": 3, "rate": 0.1}))
    runs = ablation_runs(read_ablation(asked(first="before.yaml")))
    assert len({run.first.out for run in runs}) == 3
    train_missing(runs, num_jobs=2)
    assert all(run.is_finished and run.first.is_finished for run in runs)
    assert runs[-1].recipe["model"] == str(runs[-1].first.out / "export")


def test_differences_are_paired_so_that_what_seeds_and_prompts_share_does_not_hide_them(asked, trainer):
    settings, scores = answer(asked())
    assert scores["high", "brief"].shape == (3, 60)
    better, worse, same = claim_answers(settings, scores)
    assert better.difference.estimate.mean == pytest.approx(-worse.difference.estimate.mean)
    assert better.difference.estimate.half_width < 0.12
    assert [one.text for one in (better, worse, same)] == ["agrees", "does not", "agrees"]
    means = {(row.arm, row.score): row.mean.mean for row in arm_scores(settings, scores)}
    assert means["high", "brief"] - means["usual", "brief"] == pytest.approx(
        better.difference.estimate.mean
    )
    text = format_findings(settings, scores)
    assert "| usual beats high on brief | -0." in text and "| does not |" in text
    assert "3 seeds and 60 prompts see a difference of 3 points with a probability of 0." in text
    assert json.loads(json.dumps(findings_to_dict(settings, scores)))["findings"][0]["answer"] == "agrees"


@pytest.mark.parametrize(
    "interval, beats, matches",
    [
        ((0.01, 0.05), "agrees", "agrees"),
        ((0.01, 0.02), "agrees", "agrees"),
        ((-0.02, 0.02), "does not", "agrees"),
        ((-0.02, 0.04), "cannot be told", "agrees"),
        ((-0.04, 0.02), "does not", "cannot be told"),
        ((-0.06, -0.01), "does not", "does not"),
        ((-0.06, 0.05), "cannot be told", "cannot be told"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero_or_without_the_margin(interval, beats, matches):
    low, high = interval
    estimate = MeanEstimate((low + high) / 2, (high - low) / 2)
    claims = [ClaimSettings.of({"arm": "a", verb: "b", "score": "s"}) for verb in ("beats", "matches")]
    assert [verdict_of(claim, estimate, 0.03) for claim in claims] == [beats, matches]


def test_what_cannot_be_told_says_how_many_times_as_much_it_needs(asked, trainer):
    arms = {"usual": {}, "high": {"rate": 0.52}}
    settings, scores = answer(asked(arms=arms, claims=[{"arm": "high", "beats": "usual", "score": "brief"}]))
    (found,) = claim_answers(settings, scores)
    spread = found.difference.spread
    assert found.text == f"cannot be told, needs {found.factor} times as much"
    assert spread.half_width(3 * found.factor, 60 * found.factor) <= 0.015


def test_the_plan_tells_runs_hours_and_power_and_trains_nothing(asked, trainer):
    settings = read_ablation(asked())
    runs = ablation_runs(settings)
    train_missing(runs[:4], num_jobs=1)
    plan = format_plan(settings, runs)
    assert "5 runs to train, 0.5 hours of one core. Computed beforehand: 3 seeds and 60 prompts" in plan
    assert not runs[-1].out.exists()


def test_the_hours_of_all_questions_count_the_runs_that_they_share_once():
    from typer.testing import CliRunner

    from lens.cli.main import app

    def plan(*names: str) -> dict:
        files = [str(QUESTIONS[0].with_name(f"{name}.yaml")) for name in names]
        out = ["--set", "out=no/such/folder", "--plan", "--json"]
        return json.loads(CliRunner().invoke(app, ["ablate", *files, *out]).stdout)

    alone, both = [plan(name) for name in ("captions", "layers")], plan("captions", "layers")
    assert [one["runs"] for one in alone] == [30, 20] and both["runs"] == 40
    assert both["hours"] < sum(one["hours"] for one in alone)


def test_a_run_that_fails_is_named_with_the_last_thing_it_said(asked, trainer):
    claim = {"arm": "bad", "beats": "usual", "score": "brief"}
    runs = ablation_runs(read_ablation(asked(arms={"usual": {}, "bad": {"rate": -1}}, claims=[claim])))
    with pytest.raises(LensError, match=r"bad, seed 0, did not finish: lens: rate is negative .see .*log"):
        train_missing(runs, num_jobs=1)


def test_runs_are_those_of_the_real_command(asked):
    claim = {"arm": "one", "beats": "two", "score": "brief"}
    arms = {"one": {"stage": "dream"}, "two": {"stage": "sleep"}}
    settings = read_ablation(asked(arms=arms, claims=[claim]))
    with pytest.raises(LensError, match="one, seed 0, did not finish: lens: stage is 'dream', but it"):
        train_missing(ablation_runs(settings), num_jobs=1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"arms": {"one": {}}}, "arms"),
        ({"seeds": [0]}, "seeds"),
        ({"seeds": [0, 0]}, "seeds is .0, 0., but it needs numbers that differ"),
        ({"recipe": "gone.yaml"}, "recipe is .*gone.yaml', but it needs the path of a YAML file"),
        ({"seed": 1}, "seed is 1, but it needs a known name"),
        ({"world": "tiny"}, "world is 'tiny', but it needs one of tasks, micro"),
        ({"base_resolution": 60}, "base_resolution is 60"),
        ({"scores": {"brief": {"style": "long"}}}, "scores.style is 'long', but it needs one of brief"),
        ({"scores": {"brief": {"ratios": ["5:4"]}}}, "scores.ratios is '5:4'"),
        ({"claims": [CLAIM]}, "claims: arm is 'higher', but it needs one of usual, high, other"),
        ({"claims": [{"arm": "high", "beats": "usual", "score": "it"}]}, "claims: score is 'it'"),
        ({"claims": [{"arm": "high", "score": "brief"}]}, "claims is 'neither', but it needs exactly one"),
    ],
)
def test_bad_settings_are_named(asked, changes, message):
    with pytest.raises(SettingError, match=message):
        ablation_runs(read_ablation(asked(**changes)))


def test_the_plot_is_the_same_whenever_it_is_drawn(asked, trainer, tmp_path):
    from lens.evals.ablation_plot import plot_ablation

    settings, scores = answer(asked())
    for name in ("one", "two"):
        plot_ablation(settings, arm_scores(settings, scores), tmp_path / f"{name}.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text() and "<svg" in drawn
