"""Plots of results, as SVG files that do not change when they are drawn again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lens.errors import MissingExtraError
from lens.evals.ablation import AblationRow, AblationSettings
from lens.files import write_atomic


def plot_ablation(settings: AblationSettings, rows: Sequence[AblationRow], path: Path) -> None:
    """Draw every arm's mean with its interval, and each seed as a dot; a panel a number.

    Raises: MissingExtraError.
    """
    figure = new_figure((3.6 * len(settings.numbers), 3.4))
    axes = figure.subplots(1, len(settings.numbers), squeeze=False)[0]
    arms = list(settings.arms)
    for panel, (number, label) in zip(axes, settings.numbers.items(), strict=True):
        for place, row in enumerate(row for row in rows if row.metric == number):
            panel.errorbar(place, row.mean.mean, row.mean.half_width, fmt="_", capsize=8, color="black")
            panel.plot([place] * len(row.values), row.values, "o", alpha=0.6, color=f"C{place}")
        panel.set_xticks(range(len(arms)), arms)
        panel.set_xlim(-0.5, len(arms) - 0.5)
        panel.set_title(label, fontsize=9)
    figure.suptitle(settings.question, fontsize=10, wrap=True)
    save_svg(figure, path)


def new_figure(size_inches: tuple[float, float]) -> Any:
    """Return an empty figure.

    Raises: MissingExtraError.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("A plot", "matplotlib", "train") from error
    return Figure(figsize=size_inches, layout="constrained")


def save_svg(figure: Any, path: Path) -> Path:
    """Write a figure as SVG and return its path: text as text, and the same bytes whenever it is drawn."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "lens", "svg.fonttype": "none"}):
        return write_atomic(
            path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None})
        )
