"""Plot of an ablation: the mean of every arm with its interval."""

from collections.abc import Sequence
from pathlib import Path

from lens.evals.ablation import AblationRow, AblationSettings
from lens.evals.figures import new_figure, save_svg


def plot_ablation(settings: AblationSettings, rows: Sequence[AblationRow], path: Path) -> None:
    """Plot the mean of every arm with its interval, and each seed as a dot; one panel a number.

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
