"""Connected parts of a mask."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def mask_components(mask: Mask) -> list[Mask]:
    """Return the 8-connected parts of a mask, by joining runs of neighbouring rows."""
    runs: list[tuple[int, int, int]] = []  # row, start, end
    owner: list[int] = []

    def root(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    above: list[int] = []
    for row in range(len(mask)):
        starts, ends = np.flatnonzero(edges[row] == 1), np.flatnonzero(edges[row] == -1)
        current = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            index = len(runs)
            runs.append((row, start, end))
            owner.append(index)
            current.append(index)
            for other in above:
                if runs[other][1] <= end and start <= runs[other][2]:
                    owner[root(other)] = root(index)
        above = current
    parts: dict[int, Mask] = {}
    for index, (row, start, end) in enumerate(runs):
        part = parts.setdefault(root(index), np.zeros_like(mask))
        part[row, start:end] = True
    return list(parts.values())
