"""Monitors of a run as a plot: which panels there are, of which runs, and what is drawn."""

import builtins
import json
import logging
import re
from types import SimpleNamespace

import pytest
import yaml

from lens.cli import train
from lens.cli.main import main
from lens.errors import MissingExtraError
from lens.evals.training_curves import FILE_NAME, plot_training_curves, read_panels, running_mean


@pytest.fixture
def run_of(tmp_path):
    """Write a run's folder of some lines of metrics and a recipe."""

    def write(lines, tail="", **recipe):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text + tail)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        return folder

    return write


@pytest.fixture
def rl_run(run_of):
    lines = [
        {"step": 1, "loss": 0.0, "reward": 0.8, "diversity": 0.5, "kl": None, "reward/passed": 0.7,
         "grad_norm": 0.1, "grad_norm/theta.img_in": 0.1, "lr": 1e-4, "samples_per_s": 5.0},
        {"step": 2, "loss": 0.5, "reward": 0.9, "diversity": 0.3, "kl": 0.1, "reward/passed": 0.8,
         "grad_norm": 0.2, "grad_norm/theta.img_in": 0.2, "lr": 1e-4, "samples_per_s": 5.0},
        {"step": 2, "probe/mean": 0.6, "probe/guidance 2/mean": 0.75},
    ]  # fmt: skip
    collapse = {"min_diversity_ratio": 0.4, "min_reward_ratio": 0.5}
    return run_of(lines, stage="rl", probe_guidance=[1.0, 2.0], collapse=collapse)


def test_a_panel_a_monitor_what_tells_most_first_and_probes_last(rl_run):
    panels = {panel.name: panel for panel in read_panels(rl_run)}
    assert list(panels) == ["reward", "reward/passed", "diversity", "kl", "loss", "grad_norm", "probe/mean"]
    assert panels["reward"].curves == {"": [(1, 0.8), (2, 0.9)]}
    assert panels["kl"].curves == {"": [(2, 0.1)]}  # what is no number is not drawn


def test_guidances_of_a_probe_share_a_panel(rl_run):
    (probe,) = (panel for panel in read_panels(rl_run) if panel.is_probe)
    assert probe.curves == {"guidance 1": [(2, 0.6)], "guidance 2": [(2, 0.75)]}


def test_a_collapse_is_drawn_where_it_would_end_the_run(rl_run):
    floors = {panel.name: panel.collapse_threshold for panel in read_panels(rl_run)}
    assert floors["diversity"] == pytest.approx(0.2) and floors["reward"] == pytest.approx(0.4)
    assert floors["loss"] is None and floors["reward/passed"] is None


def test_updates_of_student_and_critics_have_a_loss_each(run_of):
    lines = [
        {"step": 1, "loss": 1.4, "fake": 0.1, "grad_norm": 0.3},
        {"step": 2, "loss": 0.01, "dm": 0.1, "gradient/dm": 0.02, "grad_norm": 0.001},
    ]
    panels = {panel.name: panel.curves[""] for panel in read_panels(run_of(lines, stage="distill"))}
    assert panels["loss of critics"] == [(1, 1.4)] and panels["loss of student"] == [(2, 0.01)]
    assert panels["grad_norm of critics"] == [(1, 0.3)] and panels["grad_norm of student"] == [(2, 0.001)]
    assert list(panels)[:2] == ["dm", "fake"]


def test_the_mean_is_of_the_last_ten_lines():
    means = running_mean([1.0] * 5 + [2.0] * 20)
    assert means[4] == 1.0 and means[9] == 1.5 and means[14:] == [2.0] * 11


def test_the_plot_is_the_same_whenever_it_is_drawn_and_its_text_is_text(rl_run):
    first = plot_training_curves(rl_run).read_bytes()
    path = plot_training_curves(rl_run)
    assert path.name == FILE_NAME and path.read_bytes() == first
    assert re.search(r"<text [^>]*>\s*reward/passed\s*</text>", path.read_text())
    assert {file.name for file in rl_run.iterdir()} == {"metrics.jsonl", "recipe.yaml", FILE_NAME}


def test_a_run_that_is_writing_a_line_is_drawn_without_it(run_of):
    folder = run_of([{"step": 1, "loss": 2.0}], tail='{"step": 2, "lo', stage="pretrain")
    (loss,) = read_panels(folder)
    assert loss.curves == {"": [(1, 2.0)]}


def test_the_command_prints_the_path_and_names_a_folder_that_is_no_run(rl_run, tmp_path, capsys):
    assert main(["train", "plot", str(rl_run)]) == 0
    assert capsys.readouterr().out == f"{rl_run / FILE_NAME}\n"
    assert main(["train", "plot", str(tmp_path)]) == 2
    assert "needs the folder of a run" in capsys.readouterr().err


def test_where_matplotlib_is_missing_a_run_says_so_and_goes_on(rl_run, monkeypatch, caplog):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        plot_training_curves(rl_run)
    with caplog.at_level(logging.WARNING, logger="lens"):
        train._plot_if_possible(rl_run)
    (line,) = caplog.messages
    assert 'pip install -c constraints.txt ".[train]"' in line and not (rl_run / FILE_NAME).exists()


@pytest.mark.parametrize("stage, is_drawn", [("rl", True), ("distill", True), ("pretrain", False)])
def test_runs_of_post_training_are_drawn_when_they_end(rl_run, monkeypatch, capsys, stage, is_drawn):
    monkeypatch.setattr("lens.train.run.load_settings", lambda *_: SimpleNamespace(stage=stage, out="run"))
    monkeypatch.setattr("lens.train.run.train_from_settings", lambda _: rl_run)
    assert main(["train", "recipe.yaml"]) == 0
    assert capsys.readouterr().out == f"{rl_run}\n"
    assert (rl_run / FILE_NAME).exists() == is_drawn
