"""Near duplicates: every near pair and no other, groups through intermediates, the best one is kept."""

import numpy as np
import pytest

from lens.data.build import dedup
from lens.data.build.dedup import (
    duplicate_groups,
    group_representatives,
    held_out_matches,
    pairs_by_embedding,
    pairs_by_hash,
    pairs_of_like_words,
)


def test_images_of_other_words_are_no_pair_and_a_misread_letter_does_not_part_copies():
    sale = ["Summer", "sale", "ends", "Sunday"]
    words = [["EXIT"], ["BEER"], ["exit"], [], sale, ["Sumner", "sale", "ends", "Sunday"]]
    pairs = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [4, 5]])
    assert pairs_of_like_words(pairs, words).tolist() == [[0, 2], [0, 3], [4, 5]]
    assert pairs_of_like_words(pairs[:0], words).shape == (0, 2)


def hashes_with_copies(count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    own = rng.integers(0, 2**64, count, dtype=np.uint64)
    near = own[:20] ^ (np.uint64(1) << rng.integers(0, 64, 20).astype(np.uint64))
    return np.concatenate([own, near, own[:5], own[:5]])


@pytest.mark.parametrize("rows_at_once", [7, 1024])
def test_hashes_are_paired_up_to_the_bound_and_equal_ones_chained(rows_at_once, monkeypatch):
    monkeypatch.setattr(dedup, "BLOCK_ROWS", rows_at_once)
    hashes = hashes_with_copies()
    groups = duplicate_groups(len(hashes), pairs_by_hash(hashes, max_bits=3))
    slow = [
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if int(hashes[one] ^ hashes[other]).bit_count() <= 3
    ]
    np.testing.assert_array_equal(groups, duplicate_groups(len(hashes), np.array(slow)))


@pytest.mark.parametrize("max_bits", [0, 1, 4, 9])
def test_bands_find_the_pairs_that_comparing_all_with_all_finds(max_bits, monkeypatch):
    rng = np.random.default_rng(max_bits)
    own = rng.integers(0, 2**64, 900, dtype=np.uint64)
    # Copies that differ in just as many bits as are allowed, and in one more; many with one band in common.
    flips = [rng.permutation(64)[: max_bits + item % 2] for item in range(400)]
    copies = own[:400] ^ np.array([sum(1 << int(bit) for bit in bits) for bits in flips], dtype=np.uint64)
    alike = (own[:300] >> np.uint64(24)) | (np.uint64(5) << np.uint64(40))
    hashes = np.concatenate([own, copies, alike])
    all_with_all = pairs_by_hash(hashes, max_bits)
    monkeypatch.setattr(dedup, "num_comparisons", lambda count, max_bits: 0)
    np.testing.assert_array_equal(pairs_by_hash(hashes, max_bits), all_with_all)
    assert len(all_with_all) >= 200


def test_many_hashes_are_compared_with_few():
    assert dedup.num_comparisons(100, 4) == 100**2 / 2
    assert dedup.num_comparisons(10_000_000, 4) < (10_000_000**2 / 2) / 3_000


def test_no_pair_stands_twice_and_the_smaller_index_comes_first():
    pairs = pairs_by_hash(hashes_with_copies(), max_bits=3)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_embeddings_are_paired_by_cosine_whatever_their_length():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(40, 11)).astype(np.float32)
    copies = 3 * own[:10] + 0.01 * rng.normal(size=(10, 11)).astype(np.float32)
    nothing = np.zeros((2, 11), np.float32)
    found = pairs_by_embedding(np.concatenate([own, copies, nothing]), min_cosine=0.985)
    assert found.tolist() == [[index, 40 + index] for index in range(10)]


def test_what_is_connected_through_others_is_one_group():
    groups = duplicate_groups(7, np.array([(5, 6), (1, 2), (2, 4), (4, 5)]))
    assert groups.tolist() == [0, 1, 1, 3, 1, 1, 1]
    assert duplicate_groups(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def test_the_first_key_decides_then_the_next_then_the_order():
    groups = np.array([0, 0, 0, 3, 3, 5])
    area = np.array([100, 400, 400, 9, 9, 1])
    aesthetics = np.array([9.0, 4.0, 5.0, 6.0, 6.0, 0.0])
    assert group_representatives(groups, area, aesthetics).tolist() == [2, 2, 2, 3, 3, 5]
    assert group_representatives(groups, aesthetics).tolist() == [0, 0, 0, 3, 3, 5]


def test_many_embeddings_are_paired_by_an_index_that_misses_next_to_none(monkeypatch):
    monkeypatch.setattr(dedup, "EXACT_UP_TO", 100)
    rng = np.random.default_rng(0)
    own = rng.normal(size=(3000, 16)).astype(np.float32)
    copies = own[:300] + 0.02 * rng.normal(size=(300, 16)).astype(np.float32)
    found = pairs_by_embedding(np.concatenate([own, copies]), min_cosine=0.985)
    wanted = {(index, 3000 + index) for index in range(300)}
    assert len(wanted & set(map(tuple, found.tolist()))) >= 297


def test_a_match_names_the_first_held_out_image_by_hash_else_by_embedding():
    own = np.array([0b1111, 1 << 40, 1 << 50], dtype=np.uint64)
    held = np.array([1 << 63, 0b0111, 0b1111], dtype=np.uint64)
    vectors = np.eye(4, dtype=np.float32)[:3]
    theirs = np.stack([vectors[2], vectors[2], np.eye(4, dtype=np.float32)[3]])
    assert held_out_matches(own, held, 1, None, None, None).tolist() == [1, -1, -1]
    assert held_out_matches(own, held, 1, vectors, theirs, 0.985).tolist() == [1, -1, 0]
    assert held_out_matches(own, held, None, None, None, None).tolist() == [-1, -1, -1]
