"""Plot of an ablation: the share of every arm with its interval."""

from collections.abc import Sequence
from pathlib import Path

from lens.evals.ablation import AblationSettings
from lens.evals.ablation_findings import ArmScore
from lens.evals.figures import new_figure, save_svg


def plot_ablation(settings: AblationSettings, rows: Sequence[ArmScore], path: Path) -> None:
    """Plot the mean of every arm with its interval, and each seed as a dot; one panel for each score.

    Raises: MissingExtraError.
    """
    figure = new_figure((3.6 * len(settings.scores), 3.4))
    axes = figure.subplots(1, len(settings.scores), squeeze=False)[0]
    arms = list(settings.arms)
    for panel, name in zip(axes, settings.scores, strict=True):
        for place, row in enumerate(row for row in rows if row.score == name):
            panel.errorbar(place, row.mean.mean, row.mean.half_width, fmt="_", capsize=8, color="black")
            panel.plot([place] * len(row.shares), row.shares, "o", alpha=0.6, color=f"C{place}")
        panel.set_xticks(range(len(arms)), arms)
        panel.set_xlim(-0.5, len(arms) - 0.5)
        panel.set_title(name, fontsize=9)
    figure.suptitle(settings.question, fontsize=10, wrap=True)
    save_svg(figure, path)
