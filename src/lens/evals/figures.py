"""Figures of matplotlib as SVG files that are the same for the same values."""

from pathlib import Path
from typing import Any

from lens.errors import MissingExtraError
from lens.files import write_atomic


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
    """Write a figure as SVG with text as text, reproducible to the byte, and return its path."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "lens", "svg.fonttype": "none"}):
        return write_atomic(
            path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None})
        )
