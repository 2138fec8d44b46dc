"""Near duplicates: pairs by hash or embedding, connected groups, and the kept sample of each group.

Knows nothing of images. Paper: Lens report, data section (stage 9). Letters: N samples, M held-out ones,
E embedding width, P pairs.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens.errors import MissingExtraError

Pairs = NDArray[np.int64]
"""(P, 2) indices of samples, the smaller one first."""

EXACT_UP_TO = 200_000
"""Up to this number of embeddings the search is exact; above, only the nearest cells are searched."""
SORT_COST = 12
"""Cost of sorting one hash, in comparisons of two hashes."""
NPROBE = 64
MIN_LIKE_DETAIL = 0.54
"""Share of marks that all blocks of two detail hashes have in common where the images are the same.

The worst block of copies that were resized or compressed again has 0.58 or more, that of signs with other
large words 0.50 or less (measured on 30 drawings and photographs, and on drawn signs).
"""
MIN_MARKS = 12
"""A block of an image with fewer marks says too little by itself."""
MIN_LIKE_TEXT = 0.9
"""Share of equal characters from which on two texts are the same, read by OCR."""
BLOCK_ROWS = 1024
"""Samples compared with all others at a time: bounds the memory of a block to 8 x this x N bytes."""


def pairs_by_hash(hashes: NDArray[np.uint64], max_bits: int) -> Pairs:
    """Return all pairs of 64-bit hashes that differ in at most `max_bits` bits.

    Equal hashes are found by sorting and are compared once. Where there are many hashes, each is compared
    only with those that share two of its bands (Norouzi et al., arXiv 1307.2982): no pair is missed.

    Shapes: hashes (N,) -> (P, 2); of k equal hashes k - 1 pairs, a chain.
    """
    order = np.argsort(hashes, kind="stable")
    is_repeat = np.r_[False, hashes[order][1:] == hashes[order][:-1]]
    chains = np.stack([order[:-1], order[1:]], axis=1)[is_repeat[1:]]
    distinct = order[~is_repeat]
    if num_comparisons(len(distinct), max_bits) < len(distinct) ** 2 / 2:
        near = _pairs_within_bands(hashes[distinct], max_bits)
    else:
        near = _blockwise_pairs(
            len(distinct),
            lambda rows: np.bitwise_count(hashes[distinct[rows], None] ^ hashes[distinct]) <= max_bits,
        )
    return _sorted_unique([chains, *(distinct[block] for block in near)])


def pairs_by_detail(
    hashes: NDArray[np.uint64], details: NDArray[np.uint64], max_bits: int,
    words: Sequence[Sequence[str]] | None = None,
) -> Pairs:  # fmt: skip
    """Return the pairs of `pairs_by_hash` whose detail hashes, and words where they are read, are alike too.

    Of equal hashes those alike are one set, paired with its first; sets are compared by the first.

    Shapes: hashes (N,), details (N, B, D), a row for each block of an image -> (P, 2).
    """

    def alike(one: int, others: NDArray[np.int64]) -> NDArray[np.int64]:
        like = others[_is_like_detail(details[others], details[one])]
        if words is None:
            return like
        return like[np.array([_is_like(words[one], words[int(other)]) for other in like], dtype=bool)]

    _, group = np.unique(hashes, return_inverse=True)
    order = np.argsort(group, kind="stable")
    equal = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    firsts, pairs = {}, [np.empty((0, 2), np.int64)]
    for members in equal:
        own = members[:1]
        for member in members[1:]:
            if len(like := alike(int(member), own)):
                pairs.append(np.array([[like[0], member]]))
            else:
                own = np.append(own, member)
        firsts[int(members[0])] = own
    one_each = np.array([members[0] for members in equal], dtype=np.int64)
    for one, other in one_each[pairs_by_hash(hashes[one_each], max_bits)].tolist():
        for first in firsts[one]:
            like = alike(int(first), firsts[other])
            pairs.append(np.stack([np.full_like(like, first), like], axis=1))
    return _sorted_unique(pairs)


def _is_like_detail(details: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images have the details of another, as a whole and in each block with enough marks.

    Shapes: details (N, B, D), other (B, D) -> (N,).
    """
    common = np.bitwise_count(details & other).sum(axis=2, dtype=np.int64)        # (N, B)
    marks = np.bitwise_count(details | other).sum(axis=2, dtype=np.int64)
    is_like = (common >= MIN_LIKE_DETAIL * marks) | (marks < MIN_MARKS)
    return is_like.all(axis=1) & (common.sum(axis=1) >= MIN_LIKE_DETAIL * marks.sum(axis=1))


def num_comparisons(count: int, max_bits: int) -> float:
    """Return the expected number of comparisons for evenly distributed hashes."""
    masks = _band_masks(max_bits)
    within = sum(count**2 / 2 / 2 ** int(mask).bit_count() for mask in masks)
    # Sorting by each pair of bands costs about as much as that many comparisons.
    return min(count**2 / 2, within + SORT_COST * count * len(masks))


def pairs_by_embedding(embeddings: NDArray[np.float32], min_cosine: float) -> Pairs:
    """Return all pairs of embeddings whose cosine is above `min_cosine`; zero vectors match nothing.

    Above EXACT_UP_TO samples the index is approximate and misses a few pairs.

    Shapes: embeddings (N, E) -> (P, 2).
    """
    unit = _normalize(embeddings)
    one, other = _range_search(_build_index(unit), unit, min_cosine)
    return _sorted_unique([np.stack([one, other], axis=1)[one < other]])


def pairs_of_like_words(pairs: Pairs, words: Sequence[Sequence[str]]) -> Pairs:
    """Return the pairs without those whose images show other words: signs that differ in nothing else.

    An image in which no words were read is compared by its look alone. OCR misreads a letter now and then.
    """
    is_like = [_is_like(words[int(one)], words[int(other)]) for one, other in pairs]
    return pairs[np.array(is_like, dtype=bool)]


def _is_like(one: Sequence[str], other: Sequence[str]) -> bool:
    text, other_text = (" ".join(words).casefold() for words in (one, other))
    if not text or not other_text:
        return True
    return SequenceMatcher(None, text, other_text, autojunk=False).ratio() >= MIN_LIKE_TEXT


def held_out_matches(
    hashes: NDArray[np.uint64], held_hashes: NDArray[np.uint64], max_bits: int | None,
    embeddings: NDArray[np.float32] | None, held_embeddings: NDArray[np.float32] | None,
    min_cosine: float | None,
) -> NDArray[np.int64]:  # fmt: skip
    """Return a near held-out sample for each sample, by hash, else by embedding; -1 for none.

    Shapes: hashes (N,), held_hashes (M,), embeddings (N, E), held_embeddings (M, E) -> (N,).
    """
    near = np.full(len(hashes), -1, dtype=np.int64)
    if min_cosine is not None and embeddings is not None and held_embeddings is not None:
        one, other = _range_search(
            _build_index(_normalize(held_embeddings)), _normalize(embeddings), min_cosine
        )
        near[one[::-1]] = other[::-1]  # the first of several is written last
    for start in range(0, len(hashes) if max_bits is not None else 0, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        is_near = np.bitwise_count(hashes[rows, None] ^ held_hashes) <= max_bits
        near[rows] = np.where(is_near.any(axis=1), is_near.argmax(axis=1), near[rows])
    return near


def duplicate_groups(num_samples: int, pairs: Pairs) -> NDArray[np.int64]:
    """Return the group of each sample: the smallest index in its connected component.

    Shapes: -> (num_samples,).
    """
    parent: dict[int, int] = {}  # only of samples in pairs, which are few

    def root(index: int) -> int:
        while (above := parent.get(index, index)) != index:
            parent[index] = index = parent.get(above, above)  # path halving
        return index

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    groups = np.arange(num_samples)
    for index in list(parent):
        groups[index] = root(index)
    return groups


def group_representatives(groups: NDArray[np.int64], *sort_keys: Sequence | NDArray) -> NDArray[np.int64]:
    """Return the kept sample of the group of each sample; a kept sample has itself.

    Keys decide in their order, and larger is better. At equal keys the earlier sample is kept.

    Shapes: groups (N,), each key (N,) -> (N,).
    """
    order = np.lexsort((np.arange(len(groups)), *(-np.asarray(key, float) for key in reversed(sort_keys))))
    names, first = np.unique(groups[order], return_index=True)
    return order[first][np.searchsorted(names, groups)]


def _normalize(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.divide(embeddings, lengths, out=np.zeros_like(embeddings), where=lengths > 0)


def _build_index(unit: NDArray[np.float32]) -> Any:
    """Return a FAISS index of unit vectors, by inner product."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("Comparing embeddings", "faiss-cpu", "data") from error
    count, width = unit.shape
    if count <= EXACT_UP_TO:
        index = faiss.IndexFlatIP(width)
    else:
        cells = int(4 * count**0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = NPROBE
        index.train(unit[:: max(1, count // (64 * cells))])  # type: ignore[call-arg]
    index.add(unit)  # type: ignore[call-arg]
    return index


def _range_search(index: Any, unit: NDArray[np.float32], min_cosine: float) -> tuple[NDArray, NDArray]:
    """Return the queries and their neighbours, (P,) and (P,), sorted by both."""
    limits, _, found = index.range_search(unit, min_cosine)
    queries = np.repeat(np.arange(len(unit)), np.diff(limits.astype(np.int64)))
    order = np.lexsort((found, queries))
    return queries[order], found[order].astype(np.int64)


def _blockwise_pairs(count: int, is_near) -> Iterator[Pairs]:
    """Yield the pairs (i, j), i < j, for which `is_near(rows)` is true, a block of rows at a time."""
    for start in range(0, count, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, count))
        one, other = np.nonzero(is_near(rows))
        pairs = np.stack([rows[one], other], axis=1)
        yield pairs[pairs[:, 0] < pairs[:, 1]]


def _band_masks(max_bits: int) -> list[np.uint64]:
    """Return masks of two bands each; hashes that differ in `max_bits` bits are equal under one of them.

    There are max_bits + 2 bands, so at least two of them hold no differing bit.
    """
    edges = [64 * band // (max_bits + 2) for band in range(max_bits + 3)]
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(one | other) for one, other in combinations(bands, 2)]


def _pairs_within_bands(hashes: NDArray[np.uint64], max_bits: int) -> Iterator[Pairs]:
    """Yield near pairs of distinct hashes; a pair may come several times."""
    for mask in _band_masks(max_bits):
        keys = hashes & mask
        order = np.argsort(keys)
        keys, step = keys[order], 1
        left = np.arange(len(keys) - 1)
        # Compare each hash with the next, then with the one after it, as long as the keys are equal.
        while len(left := left[: np.searchsorted(left, len(keys) - step)]):
            left = left[keys[left] == keys[left + step]]
            one, other = order[left], order[left + step]
            is_near = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_bits
            yield np.stack([one[is_near], other[is_near]], axis=1)
            step += 1


def _sorted_unique(parts) -> Pairs:
    pairs = np.concatenate([*parts, np.empty((0, 2), np.int64)]).astype(np.int64)
    pairs.sort(axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)]] if len(pairs) else pairs
