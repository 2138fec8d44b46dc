"""Ablations: which runs they need, what they conclude, and what they say of a run that fails."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from lens.config import read_recipe
from lens.errors import LensError, SettingError
from lens.evals import ablation
from lens.evals.ablation import ablation_runs, compare_arms, format_table, read_ablation, train_missing
from lens.nano.tasks import TASKS
from lens.train.run import parse_settings

ABLATIONS = sorted((Path(__file__).parents[3] / "recipes" / "nano" / "ablations").glob("*.yaml"))
TRAINER = """
import json, pathlib, sys, yaml
recipe = yaml.safe_load(open(sys.argv[-1]))
out = pathlib.Path(recipe["out"])
with (out / "calls").open("a") as calls:
    calls.write("x")
if recipe["rate"] < 0:
    sys.exit("lens: rate is negative")
lines = [{"step": 3, "loss": 1.0}, {"step": 3, "probe/score": recipe["rate"] + 0.01 * recipe["seed"]}]
(out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
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
            "numbers": {"score": "the score"}, "out": str(tmp_path / "out"),
        }  # fmt: skip
        path = tmp_path / "rates.yaml"
        path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
        return path

    return write


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Let a script stand for `lens train`: its score is the rate and a hundredth of the seed."""
    (tmp_path / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(ablation, "TRAIN_COMMAND", (sys.executable, str(tmp_path / "trainer.py")))


def test_every_arm_is_the_common_recipe_with_its_changes_from_every_seed(asked):
    runs = ablation_runs(read_ablation(asked()))
    assert [(run.arm, run.seed) for run in runs[1:4]] == [("high", 0), ("other", 0), ("usual", 1)]
    assert len({run.out for run in runs}) == 9
    assert runs[2].recipe | {"out": ""} == {
        "steps": 3, "rate": 0.5, "net": {"a": 1, "b": 5}, "seed": 0, "out": "",
    }  # fmt: skip


def test_ablations_that_need_the_same_run_share_its_folder(asked):
    first = {run.out for run in ablation_runs(read_ablation(asked()))}
    second = ablation_runs(read_ablation(asked(arms={"plain": {"rate": 0.5}, "higher": {"rate": 0.9}})))
    assert [run.out in first for run in second] == [True, False] * 3


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_arm_of_every_ablation_that_ships_is_a_recipe_that_can_be_run(path):
    runs = ablation_runs(read_ablation(path))
    for run in runs:
        settings = parse_settings(run.recipe["stage"], run.recipe, str(path))
        settings.check_inputs()
        assert settings.out == run.out
    assert len({run.out for run in runs}) == len(runs)


@pytest.mark.parametrize("name", ["rl_prompts", "rl_kinds", "turbo_terms"])
def test_ablations_of_post_training_are_scored_by_the_six_tasks(name):
    settings = read_ablation(ABLATIONS[0].with_name(f"{name}.yaml"))
    assert set(settings.numbers) in ({"mean"}, set(TASKS))
    first = read_recipe(settings.recipe)
    cycle = 1 if first["stage"] == "rl" else first.get("critic_updates", 4) + 1
    last = first["steps"] // cycle
    assert last == 20


def test_each_kind_of_prompt_and_each_share_of_them_is_left_out_once():
    path = ABLATIONS[0].with_name("rl_kinds.yaml")
    kinds, prompts = (read_ablation(one) for one in (path, path.with_name("rl_prompts.yaml")))
    for kind in TASKS:
        left = kinds.arms[f"without {kind}"]["nano_prompts"]["kinds"]
        assert left == [other for other in TASKS if other != kind]
    counts = [run.recipe["nano_prompts"]["count"] for run in ablation_runs(prompts)[:3]]
    assert counts[0] == read_recipe(prompts.recipe)["nano_prompts"]["count"]
    assert [count / counts[0] for count in counts] == [1, 0.5, 0.25]
    assert ablation_runs(prompts)[0].out == ablation_runs(kinds)[0].out


def test_what_is_finished_is_not_trained_again(asked, trainer):
    runs = ablation_runs(read_ablation(asked()))
    train_missing(runs[:4], num_jobs=2)
    train_missing(runs, num_jobs=3)
    assert all(run.is_finished for run in runs)
    assert all((run.out / "calls").read_text() == "x" for run in runs)


def test_differences_are_taken_seed_by_seed_so_that_what_seeds_share_does_not_hide_them(asked, trainer):
    settings = read_ablation(asked())
    runs = ablation_runs(settings)
    train_missing(runs, num_jobs=2)
    usual, high, other = compare_arms(settings, runs)
    assert usual.values == pytest.approx((0.50, 0.51, 0.54))
    assert usual.difference is None and usual.mean.half_width > 0.05
    assert high.difference.mean == pytest.approx(0.2) and high.difference.half_width == pytest.approx(
        0, abs=1e-9
    )
    verdicts = [row.verdict("highest") for row in (usual, high, other)]
    assert verdicts == ["", "better", "no significant difference"]
    assert high.verdict("lowest") == "worse"
    assert "| the score | high | 0.717 (0.665 to 0.768) | +0.200 (0.200 to 0.200) | better |" in format_table(
        settings, [usual, high, other]
    )


def test_a_run_that_fails_is_named_with_the_last_thing_it_said(asked, trainer):
    runs = ablation_runs(read_ablation(asked(arms={"usual": {}, "bad": {"rate": -1}})))
    with pytest.raises(LensError, match=r"bad, seed 0, did not finish: lens: rate is negative .see .*log"):
        train_missing(runs, num_jobs=1)


def test_runs_are_those_of_the_real_command(asked):
    settings = read_ablation(asked(arms={"one": {"stage": "dream"}, "two": {"stage": "sleep"}}))
    with pytest.raises(LensError, match="one, seed 0, did not finish: lens: stage is 'dream', but it"):
        train_missing(ablation_runs(settings), num_jobs=1)


def test_a_number_that_no_probe_gives_is_refused_with_those_that_there_are(asked, trainer):
    settings = read_ablation(asked(numbers={"fid": "FID"}))
    runs = ablation_runs(settings)
    train_missing(runs, num_jobs=3)
    with pytest.raises(SettingError, match="numbers is 'fid', but it needs one of score"):
        compare_arms(settings, runs)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"arms": {"one": {}}}, "arms"),
        ({"seeds": [0]}, "seeds"),
        ({"seeds": [0, 0]}, "seeds is .0, 0., but it needs numbers that differ"),
        ({"recipe": "gone.yaml"}, "recipe is .*gone.yaml', but it needs the path of a YAML file"),
        ({"seed": 1}, "seed is 1, but it needs a known name"),
    ],
)
def test_bad_settings_are_named(asked, changes, message):
    with pytest.raises(SettingError, match=message):
        ablation_runs(read_ablation(asked(**changes)))


def test_the_plot_is_the_same_whenever_it_is_drawn(asked, trainer, tmp_path):
    from lens.evals.ablation_plot import plot_ablation

    settings = read_ablation(asked())
    runs = ablation_runs(settings)
    train_missing(runs, num_jobs=3)
    rows = compare_arms(settings, runs)
    plot_ablation(settings, rows, tmp_path / "one.svg")
    plot_ablation(settings, rows, tmp_path / "two.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text() and "<svg" in drawn
    assert json.loads(json.dumps(ablation.results_to_dict(settings, rows)))["rows"][1]["verdict"] == "better"
