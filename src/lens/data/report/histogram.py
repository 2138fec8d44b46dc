"""Histograms as inline SVG, with thresholds and the shaded part outside them.

Knows nothing of builds. Colours come from the page (html.py). Letters: N values, B bins.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lens.data.number_format import format_compact
from lens.data.report.html import escape_html

LABEL_WIDTH = 60
"""Width of the label of a threshold."""
NUM_BINS = 40
LOG_AXIS_MIN_RATIO = 50
"""Positive values whose largest and smallest differ by a larger factor get a logarithmic axis."""
WIDTH, HEIGHT, MARGIN, MARGIN_TOP, MARGIN_BOTTOM = 340, 150, 10, 22, 20
"""Size of the drawing, close to the width of a phone, so that text keeps its size there."""


class Threshold(NamedTuple):
    """A bound of a filter."""

    value: float
    is_lower_bound: bool
    reason: str

    def is_outside(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which values lie outside; the bound itself is inside."""
        return values < self.value if self.is_lower_bound else values > self.value


class Histogram(NamedTuple):
    """Counts (B,) between edges (B + 1,); every value is in exactly one bin."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    is_logarithmic: bool

    def position(self, value: float) -> float:
        """Return the position of a value between the first edge (0) and the last (1)."""
        edges = np.log(self.edges) if self.is_logarithmic else self.edges
        at = math.log(value) if self.is_logarithmic else value
        return float((at - edges[0]) / (edges[-1] - edges[0]))


def compute_histogram(
    values: ArrayLike, thresholds: Sequence[Threshold] = (), num_bins: int = NUM_BINS
) -> Histogram:
    """Count finite values in bins that cover all values and thresholds.

    A threshold outside of all values widens the axis, which shows its distance.

    Shapes: values (N,), at least one.
    """
    numbers = np.asarray(values, dtype=np.float64)
    ends = np.array([*(one.value for one in thresholds), numbers.min(), numbers.max()])
    low, high = float(ends.min()), float(ends.max())
    is_logarithmic = low > 0 and high / low > LOG_AXIS_MIN_RATIO
    if not is_logarithmic and np.equal(np.mod(numbers, 1), 0).all():
        # The same number of whole numbers in each bin, or the bars would look like a comb.
        step = math.ceil((high - low + 1) / num_bins)
        edges = np.arange(math.floor(low), high + step + 1, step) - 0.5
        return Histogram(edges, np.histogram(numbers, edges)[0], is_logarithmic)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, num_bins + 1) if is_logarithmic else np.linspace(low, high, num_bins + 1)
    edges[0], edges[-1] = low, high  # rounding may exclude the smallest or the largest value
    return Histogram(edges, np.histogram(numbers, edges)[0], is_logarithmic)


def axis_ticks(histogram: Histogram) -> list[float]:
    """Return three to six round numbers for the axis."""
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    if histogram.is_logarithmic:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            found = [factor * 10.0**power for power in decades for factor in factors]
            found = [value for value in found if low <= value <= high]
            if len(found) >= 3:
                break
        return found[:: math.ceil(len(found) / 6)]
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (step * factor) >= 3 or factor == 1)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def render_svg(histogram: Histogram, thresholds: Sequence[Threshold], label: str) -> str:
    """Return the SVG: bars, the shaded part outside the thresholds, a labelled line at each threshold."""
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
    ground = MARGIN_TOP + high
    pieces = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape_html(label)}">',
        *(_shaded_area(histogram, one, wide, high) for one in thresholds),
    ]
    bin_width, largest = wide / len(histogram.counts), max(1, int(histogram.counts.max()))
    for index, count in enumerate(histogram.counts.tolist()):
        if count:
            bar_height = max(1.5, high * count / largest)  # a bin with a count is visible
            at = f'x="{MARGIN + index * bin_width:.1f}" y="{ground - bar_height:.1f}"'
            size = f'width="{bin_width - 1:.1f}" height="{bar_height:.1f}"'
            low, end = (format_compact(float(edge)) for edge in histogram.edges[index : index + 2])
            tooltip = f"<title>{count} from {low} to {end}</title>"
            pieces.append(f'<rect class="b" {at} {size}>{tooltip}</rect>')
    pieces.append(f'<path class="a" d="M{MARGIN} {ground}h{wide}"/>')
    for value in axis_ticks(histogram):
        x = MARGIN + histogram.position(value) * wide
        pieces.append(f'<path class="a" d="M{x:.1f} {ground}v4"/>')
        side = "middle" if 14 <= x <= WIDTH - 14 else "start" if x < 14 else "end"
        pieces.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="{side}">{format_compact(value)}</text>'
        )
    for one in thresholds:
        x = MARGIN + histogram.position(one.value) * wide
        of = f'data-reason="{escape_html(one.reason)}"'
        pieces.append(f'<path class="t" {of} d="M{x:.1f} {MARGIN_TOP - 6}V{ground}"/>')
        words = f"{'at least' if one.is_lower_bound else 'at most'} {format_compact(one.value)}"
        # Where there is room, a label extends away from the kept part, so two close labels stay legible.
        anchor = _anchor(x, LABEL_WIDTH if one.is_lower_bound else WIDTH - LABEL_WIDTH)
        pieces.append(f'<text class="tt" x="{x:.1f}" y="{MARGIN_TOP - 10}" {anchor}>{words}</text>')
    return "".join([*pieces, "</svg>"])


def _shaded_area(histogram: Histogram, threshold: Threshold, wide: float, high: float) -> str:
    place = histogram.position(threshold.value)
    start, end = (0.0, place) if threshold.is_lower_bound else (place, 1.0)
    return (
        f'<rect class="f" x="{MARGIN + start * wide:.1f}" y="{MARGIN_TOP}" '
        f'width="{(end - start) * wide:.1f}" height="{high}"/>'
    )


def _anchor(x: float, border: float) -> str:
    """Return the anchor of a label: it extends right before the border, left beyond it."""
    return f'text-anchor="{"start" if x < border else "end"}"'
