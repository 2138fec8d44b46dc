"""Plot of the metrics of a run over its updates: one panel a metric.

Reads the folder of a run, finished or not. Knows nothing of training. docs/how-to/rl.md explains the metrics
of RL and distillation.
"""

import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from lens.errors import SettingError
from lens.evals.figures import new_figure, save_svg
from lens.text_files import TextError, parse_json, read_text, read_yaml

FILE_NAME = "monitors.svg"
COLUMNS = 4
RUNNING_MEAN_WINDOW = 10
"""Lines of metrics in a running mean."""
EXCLUDED_METRICS = re.compile(
    r"grad_norm/.*|lr|samples_per_s|tokens_per_s|tflops_per_s|mfu|data_wait|peak_memory_gib"
)
"""Metrics of speed and of single blocks, which are not plotted."""
METRIC_ORDER = (
    "reward", "reward/passed", "diversity", "even_groups", "failed", "drift", "kl", "policy",
    "dm", "ca", "adversarial", "cosine/dm_ca", "fake", "discriminator", "loss", "grad_norm",
)  # fmt: skip
"""Order of the first panels; other metrics follow in their order in the file, evaluations last."""
COLLAPSE_SETTINGS = {"diversity": "min_diversity_ratio", "reward": "min_reward_ratio"}
"""Settings of `collapse` that stop a run, as shares of the value of the first update."""

Curve = list[tuple[int, float]]
"""(step, value) by increasing step."""


class Panel(NamedTuple):
    """The curves of one metric."""

    name: str
    curves: dict[str, Curve]
    """Curves by label; an evaluation has one for each guidance scale."""
    collapse_threshold: float | None = None
    """Value below which the run stops, if any."""

    @property
    def is_probe(self) -> bool:
        return self.name.startswith("probe/")


def plot_training_curves(folder: Path) -> Path:
    """Plot the metrics of a run to a file in its folder; return the path of the file.

    Raises: SettingError for a folder without metrics; MissingExtraError.
    """
    panels = read_panels(folder)
    num_rows = ceil(len(panels) / COLUMNS)
    figure = new_figure((3.4 * COLUMNS, 2.1 * num_rows))
    axes = list(figure.subplots(num_rows, COLUMNS, squeeze=False).flat)
    last = max(step for panel in panels for curve in panel.curves.values() for step, _ in curve)
    for axis, panel in zip(axes, panels, strict=False):
        _plot_panel(axis, panel)
        axis.set_xlim(0, last + 1)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return save_svg(figure, folder / FILE_NAME)


def read_panels(folder: Path) -> list[Panel]:
    """Return the panels of a run in order of importance.

    Raises: SettingError for a folder without metrics.
    """
    lines = _read_metrics(folder / "metrics.jsonl")
    path = folder / "recipe.yaml"
    recipe = read_yaml(path, "run") if path.is_file() else {}
    if not isinstance(recipe, dict):
        raise SettingError("run", str(path), "a mapping of settings")
    curves: dict[str, dict[str, Curve]] = {}
    for line in lines:
        for key, value in _label_by_role(line, recipe).items():
            if key != "step" and isinstance(value, int | float) and not EXCLUDED_METRICS.fullmatch(key):
                name, label = _panel_and_label(key, recipe)
                curves.setdefault(name, {}).setdefault(label, []).append((line["step"], value))
    if not curves:
        needs = "the folder of a run with at least one line in metrics.jsonl"
        raise SettingError("run", str(folder), needs)
    panels = [Panel(name, found, _collapse_threshold(name, found, recipe)) for name, found in curves.items()]
    return sorted(panels, key=_sort_key)


def running_mean(values: list[float]) -> list[float]:
    """Return for each value the mean of the last RUNNING_MEAN_WINDOW values up to it."""
    windows = (values[max(0, end - RUNNING_MEAN_WINDOW) : end] for end in range(1, len(values) + 1))
    return [fmean(window) for window in windows]


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a metrics file; a run may be writing the last one."""
    needs = "the lines of metrics of a run, each with a step"
    text = read_text(path, "run", needs) if path.is_file() else ""
    found = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            values = parse_json(line)
        except TextError:
            values = None
        if not isinstance(values, dict) or type(values.get("step")) is not int:
            raise SettingError("run", f"{path}, line {number}", needs)
        found.append(values)
    return found


def _label_by_role(line: dict[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line; in distillation, loss and gradient norm are named by the role that was updated."""
    if recipe.get("stage") != "distill" or "loss" not in line:
        return line
    whose = "student" if any(name.startswith("gradient/") for name in line) else "critics"
    return {
        f"{name} of {whose}" if name in ("loss", "grad_norm") else name: value
        for name, value in line.items()
    }


def _panel_and_label(key: str, recipe: Mapping[str, Any]) -> tuple[str, str]:
    """Return panel and label of a metric; the guidance scales of an evaluation share a panel."""
    if match := re.fullmatch(r"probe/(guidance [^/]+)/(.+)", key):
        return f"probe/{match[2]}", match[1]
    guidance = recipe.get("probe_guidance") or [1.0]
    has_many = key.startswith("probe/") and len(guidance) > 1
    return key, f"guidance {guidance[0]:g}" if has_many else ""


def _collapse_threshold(name: str, curves: dict[str, Curve], recipe: Mapping[str, Any]) -> float | None:
    """Return the running mean of a metric at which a run of the stage `rl` stops, if any."""
    share = (recipe.get("collapse") or {}).get(COLLAPSE_SETTINGS.get(name, ""))
    step, first = curves.get("", [(0, 0.0)])[0]
    return share * first if share and step == 1 else None


def _sort_key(panel: Panel) -> tuple[bool, int]:
    name = panel.name.partition(" of ")[0]
    return panel.is_probe, METRIC_ORDER.index(name) if name in METRIC_ORDER else len(METRIC_ORDER)


def _plot_panel(axis: Any, panel: Panel) -> None:
    for number, (label, curve) in enumerate(panel.curves.items()):
        steps, values = ([pair[side] for pair in curve] for side in (0, 1))
        if panel.is_probe:
            axis.plot(steps, values, "o-", markersize=4, linewidth=0.5, color=f"C{number}", label=label)
        else:
            axis.plot(steps, values, linewidth=0.5, color="0.6")
            axis.plot(steps, running_mean(values), linewidth=1.5, color="C0")
    if panel.collapse_threshold is not None:
        axis.axhline(panel.collapse_threshold, linestyle="--", linewidth=0.8, color="C3")
    if any(panel.curves):
        axis.legend(fontsize=6)
    axis.set_title(panel.name, fontsize=9)
    axis.tick_params(labelsize=7)
