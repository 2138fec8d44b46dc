"""Plots of results, as SVG files that do not change when they are drawn again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lens.errors import SettingError
from lens.evals.ablation import AblationSettings, Row


def plot_ablation(settings: AblationSettings, rows: Sequence[Row], path: Path) -> None:
    """Draw every arm's mean with its interval, and each seed as a dot; a panel a number.

    Raises: SettingError where matplotlib is missing.
    """
    figure, axes = _panels(len(settings.numbers))
    arms = list(settings.arms)
    for panel, (number, label) in zip(axes, settings.numbers.items(), strict=True):
        for place, row in enumerate(row for row in rows if row.number == number):
            panel.errorbar(place, row.mean.mean, row.mean.half, fmt="_", capsize=8, color="black")
            panel.plot([place] * len(row.values), row.values, "o", alpha=0.6, color=f"C{place}")
        panel.set_xticks(range(len(arms)), arms)
        panel.set_xlim(-0.5, len(arms) - 0.5)
        panel.set_title(label, fontsize=9)
    figure.suptitle(settings.question, fontsize=10, wrap=True)
    figure.savefig(path, metadata={"Date": None})


def _panels(count: int) -> tuple[Any, list[Any]]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        fix = 'Install it: pip install "lens-t2i[train]".'
        raise SettingError("matplotlib", None, "to be installed, to draw the plot", fix) from error
    matplotlib.rcParams["svg.hashsalt"] = "lens"
    figure = Figure(figsize=(3.6 * count, 3.4), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])
