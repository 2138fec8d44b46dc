"""Packs keep their budget, show every sample once an epoch, and follow from the seed and a number alone."""

from itertools import count

import numpy as np
import pytest

from lens.errors import SettingError
from lens.train.data.batch_sampler import TokenBatchSampler

LENGTHS = np.random.default_rng(0).choice([256, 1024, 2304, 4096], 300)
BUDGET = 24_576


def epochs(packs: TokenBatchSampler, num_samples: int, num_epochs: int) -> list[list[np.ndarray]]:
    """The packs of the first epochs, told apart by how many samples they have shown."""
    found, shown = [[]], 0
    for number in count():
        found[-1].append(packs[number])
        shown += len(packs[number])
        if shown == num_samples:
            found.append([])
            shown = 0
            if len(found) > num_epochs:
                return found[:-1]


@pytest.mark.parametrize("groups", [None, LENGTHS])
def test_every_epoch_shows_every_sample_once_within_the_budget(groups):
    for packs in epochs(TokenBatchSampler(LENGTHS, BUDGET, 5, groups), len(LENGTHS), 3):
        assert sorted(np.concatenate(packs).tolist()) == list(range(len(LENGTHS)))
        assert max(LENGTHS[pack].sum() for pack in packs) <= BUDGET


def test_packs_are_nearly_full_but_for_the_last():
    for packs in epochs(TokenBatchSampler(LENGTHS, BUDGET, 5), len(LENGTHS), 3):
        assert min(LENGTHS[pack].sum() for pack in packs[:-1]) > BUDGET - 4096


def test_of_one_bucket_a_pack_holds_as_many_as_in_the_paper():
    packs = epochs(TokenBatchSampler(LENGTHS, BUDGET, 5, LENGTHS), len(LENGTHS), 1)[0]
    sizes = {length: [len(pack) for pack in packs if LENGTHS[pack[0]] == length] for length in set(LENGTHS)}
    assert all(len(set(LENGTHS[pack])) == 1 for pack in packs)
    largest = {length: max(found) for length, found in sizes.items() if length >= 1024}
    assert largest == {1024: 24, 2304: 10, 4096: 6}
    order = [int(LENGTHS[pack[0]]) for pack in packs]
    assert order != sorted(order), "buckets come mixed, not one after another"


def test_a_pack_follows_from_the_seed_and_its_number_whatever_was_asked_before():
    ahead, behind = TokenBatchSampler(LENGTHS, BUDGET, 5), TokenBatchSampler(LENGTHS, BUDGET, 5)
    numbers = [90, 3, 47, 0, 91]
    late = {number: ahead[number].tolist() for number in numbers}
    assert late == {number: behind[number].tolist() for number in sorted(numbers)}
    assert TokenBatchSampler(LENGTHS, BUDGET, 6)[3].tolist() != late[3]
    first, second = epochs(TokenBatchSampler(LENGTHS, BUDGET, 5), len(LENGTHS), 2)
    assert np.concatenate(first).tolist() != np.concatenate(second).tolist()


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 6])
def test_an_update_sees_the_same_packs_on_any_number_of_ranks(num_ranks):
    packs = TokenBatchSampler(LENGTHS, BUDGET, 5)
    of_ranks = [packs.batches_of_step(7, 6)[rank::num_ranks] for rank in range(num_ranks)]
    seen = sorted(sample for packs in of_ranks for pack in packs for sample in pack.tolist())
    assert seen == sorted(sample for number in range(42, 48) for sample in packs[number].tolist())
    assert {len(packs) for packs in of_ranks} == {6 // num_ranks}


def test_a_sample_that_fits_no_pack_is_named():
    with pytest.raises(SettingError, match=r"tokens is 4000, but it needs at least 4096.*leave out sample"):
        TokenBatchSampler(LENGTHS, 4000, 0)
    with pytest.raises(SettingError, match="at least one sample"):
        TokenBatchSampler([], 4000, 0)
