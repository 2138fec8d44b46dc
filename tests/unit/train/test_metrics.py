"""What a run writes: lines of JSON, and the same to a tracker, here a tiny module of the same functions."""

import json
import sys
from pathlib import Path

import pytest
from tiny_stage import Tiny, settings_of

from lens.errors import SettingError
from lens.train.metrics import MetricsLogger, load_tracker
from lens.train.run import train
from lens.train.trainer import fit

LANGUAGE = Path(__file__).parents[3] / "recipes" / "nano" / "language.yaml"
TRACKER = """
told = []
def init(project, **settings):
    print("a greeting")
    told.append(("init", project, settings))
def log(numbers, step=None):
    told.append(("log", step, numbers))
def finish():
    told.append(("finish",))
"""


@pytest.fixture(params=["trackio", "wandb"])
def tracker(request, tmp_path, monkeypatch):
    """The name of a tracker whose package is a stand-in, as neither is among the packages of the tests."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / f"{request.param}.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    yield request.param
    sys.modules.pop(request.param, None)


def test_a_tracker_is_told_every_line_of_the_run_and_one_that_goes_on_is_the_same_run(
    tracker, tmp_path, capsys
):
    changes = {"tracker": tracker, "tracker_project": "apples"}
    fit(Tiny(), settings_of(tmp_path, steps=2, **changes))
    fit(Tiny(), settings_of(tmp_path, steps=4, **changes))
    told = sys.modules[tracker].told
    inits = [call for call in told if call[0] == "init"]
    assert [kind for kind, *_ in told] == ["init", "log", "log", "log", "finish"] * 2
    first, second = (settings for _, _, settings in inits)
    assert [project for _, project, _ in inits] == ["apples"] * 2
    assert first["name"] == second["name"] and first["name"].startswith("run-")
    assert first["resume"] == "allow" and first["config"]["seed"] == 3
    assert first.get("id") == (first["name"] if tracker == "wandb" else None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [{"step": step, **numbers} for kind, step, numbers in (c for c in told if c[0] == "log")]
    assert [one.keys() for one in logged] == [one.keys() for one in lines]
    assert [one.get("loss") for one in logged] == pytest.approx([one.get("loss") for one in lines], abs=1e-6)
    assert capsys.readouterr().out == "", "stdout is for the result of the command"


def test_a_tracker_receives_no_line_twice_however_often_a_run_is_killed(tracker, tmp_path):
    settings = settings_of(tmp_path, tracker=tracker)
    for checkpoint, last in ((0, 6), (2, 4), (2, 8)):  # each call resumes at a checkpoint and is killed later
        with MetricsLogger(settings, checkpoint) as metrics:
            for step in range(checkpoint + 1, last + 1):
                metrics.write(step, {"loss": 1 / step})
            metrics.write(last, {"probe/score": 0.5})
    told = [(step, *numbers) for _, step, numbers in (c for c in sys.modules[tracker].told if c[0] == "log")]
    losses = [(step, "loss") for step in range(1, 9)]
    assert sorted(told) == sorted([*losses, *((step, "probe/score") for step in (4, 6, 8))])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_a_number_that_is_none_is_null_in_the_file_and_not_told_to_the_tracker(tracker, tmp_path):
    with MetricsLogger(settings_of(tmp_path, tracker=tracker), 0) as metrics:
        metrics.write(1, {"loss": float("nan"), "lr": 0.25})
    written = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert written == {"step": 1, "loss": None, "lr": 0.25}
    assert ("log", 1, {"lr": 0.25}) in sys.modules[tracker].told


def test_only_the_main_rank_writes(tracker, tmp_path):
    with MetricsLogger(settings_of(tmp_path, tracker=tracker), 0, is_main=False) as metrics:
        metrics.write(1, {"loss": 1.0})
    assert not (tmp_path / "run").exists() and tracker not in sys.modules


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_told_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    says = rf"tracker is '{name}', but it needs the package {name}\. Run: \.venv/bin/pip install {name}"
    with pytest.raises(SettingError, match=says):
        train(LANGUAGE, [f"out={tmp_path}/run", f"tracker={name}"])
    assert not (tmp_path / "run").exists()


def test_no_tracker_needs_no_package():
    assert load_tracker("none") is None
