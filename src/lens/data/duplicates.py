"""Near duplicates: pairs by hash or embedding, groups of what is connected, and the one of each that stays.

Knows nothing of pictures. Paper: Lens report, data section (stage 9). Letters: N samples, M held-out ones,
E embedding width, P pairs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens.errors import LensError

Pairs = NDArray[np.int64]
"""(P, 2) indices of samples, the smaller one first."""

EXACT_UP_TO = 200_000
"""Embeddings that are all compared with all; beyond, each with those in the nearest cells."""
CELLS_SEARCHED = 64
ROWS_AT_ONCE = 1024
"""Samples that are compared with all others at once: bounds the memory of a block to 8 x this x N bytes."""


def pairs_by_hash(hashes: NDArray[np.uint64], max_bits: int) -> Pairs:
    """Return all pairs of 64-bit hashes that differ in at most so many bits.

    Equal hashes are found by sorting and enter the comparison once.

    Shapes: hashes (N,) -> (P, 2); of k equal hashes k - 1 pairs, a chain.
    """
    order = np.argsort(hashes, kind="stable")
    is_repeat = np.r_[False, hashes[order][1:] == hashes[order][:-1]]
    chains = np.stack([order[:-1], order[1:]], axis=1)[is_repeat[1:]]
    distinct = order[~is_repeat]
    near = [
        distinct[block]
        for block in _blocks_where(
            len(distinct),
            lambda rows: np.bitwise_count(hashes[distinct[rows], None] ^ hashes[distinct]) <= max_bits,
        )
    ]
    return _ordered([chains, *near])


def pairs_by_embedding(embeddings: NDArray[np.float32], min_cosine: float) -> Pairs:
    """Return all pairs of embeddings whose cosine is above a bound; zero vectors are near to nothing.

    Above EXACT_UP_TO samples the index is approximate, and a few pairs are missed.

    Shapes: embeddings (N, E) -> (P, 2).
    """
    unit = _unit(embeddings)
    one, other = _near(_index(unit), unit, min_cosine)
    return _ordered([np.stack([one, other], axis=1)[one < other]])


def near_to_any(
    hashes: NDArray[np.uint64], held_hashes: NDArray[np.uint64], max_bits: int | None,
    embeddings: NDArray[np.float32] | None, held_embeddings: NDArray[np.float32] | None,
    min_cosine: float | None,
) -> NDArray[np.int64]:  # fmt: skip
    """Return for each sample a held-out one that it is near to, by hash, else by embedding; -1 for none.

    Shapes: hashes (N,), held_hashes (M,), embeddings (N, E), held_embeddings (M, E) -> (N,).
    """
    near = np.full(len(hashes), -1, dtype=np.int64)
    if min_cosine is not None and embeddings is not None and held_embeddings is not None:
        one, other = _near(_index(_unit(held_embeddings)), _unit(embeddings), min_cosine)
        near[one[::-1]] = other[::-1]  # the first of several is written last
    for start in range(0, len(hashes) if max_bits is not None else 0, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        is_near = np.bitwise_count(hashes[rows, None] ^ held_hashes) <= max_bits
        near[rows] = np.where(is_near.any(axis=1), is_near.argmax(axis=1), near[rows])
    return near


def groups_of(num_samples: int, pairs: Pairs) -> NDArray[np.int64]:
    """Return the group of each sample: the smallest index that it is connected to, directly or not.

    Shapes: -> (num_samples,).
    """
    parent = list(range(num_samples))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]  # halve the way for the next one
            index = parent[index]
        return index

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return np.array([root(index) for index in range(num_samples)], dtype=np.int64)


def kept_of_groups(groups: NDArray[np.int64], *better_first: Sequence | NDArray) -> NDArray[np.int64]:
    """Return for each sample the one of its group that stays; one that stays has itself.

    Keys decide in their order, larger is better; at equal keys the earlier sample stays.

    Shapes: groups (N,), each key (N,) -> (N,).
    """
    order = np.lexsort((np.arange(len(groups)), *(-np.asarray(key, float) for key in reversed(better_first))))
    best: dict[int, int] = {}
    for index in order.tolist():
        best.setdefault(int(groups[index]), index)
    return np.array([best[group] for group in groups.tolist()], dtype=np.int64)


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.divide(embeddings, lengths, out=np.zeros_like(embeddings), where=lengths > 0)


def _index(unit: NDArray[np.float32]) -> Any:
    """Return a FAISS index of vectors of length one, by inner product."""
    try:
        import faiss
    except ImportError as error:
        raise LensError('Embeddings are compared by FAISS: pip install "lens-t2i[data]".') from error
    count, width = unit.shape
    if count <= EXACT_UP_TO:
        index = faiss.IndexFlatIP(width)
    else:
        cells = int(4 * count**0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = CELLS_SEARCHED
        index.train(unit[:: max(1, count // (64 * cells))])  # type: ignore[call-arg]
    index.add(unit)  # type: ignore[call-arg]
    return index


def _near(index: Any, unit: NDArray[np.float32], min_cosine: float) -> tuple[NDArray, NDArray]:
    """Return queries and what is near to each, (P,) and (P,), in the order of both."""
    limits, _, found = index.range_search(unit, min_cosine)
    queries = np.repeat(np.arange(len(unit)), np.diff(limits.astype(np.int64)))
    order = np.lexsort((found, queries))
    return queries[order], found[order].astype(np.int64)


def _blocks_where(count: int, is_near) -> Iterator[Pairs]:
    """Yield pairs (i, j), i < j, for which is_near(rows) says so, a block of rows at a time."""
    for start in range(0, count, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, count))
        one, other = np.nonzero(is_near(rows))
        pairs = np.stack([rows[one], other], axis=1)
        yield pairs[pairs[:, 0] < pairs[:, 1]]


def _ordered(parts) -> Pairs:
    pairs = np.concatenate([*parts, np.empty((0, 2), np.int64)]).astype(np.int64)
    pairs.sort(axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
