"""Packs of running pictures: what goes into which, what fits, and whose error is whose."""

import pytest
import torch

from lens.errors import MemoryNeedError
from lens.serve.engine.batching import BatchExecutor, ForwardInput, preview_schedule, split_batches


def passes(*lengths):
    """Passes of so many image tokens and two text tokens each, told apart by their values."""
    return [
        ForwardInput(torch.full((length, 3), float(number)), 0.5, [torch.zeros(2, 5)], (1, length))
        for number, length in enumerate(lengths)
    ]


class Doubling:
    """A denoiser whose velocity is twice the point; some points it cannot stand."""

    dtype = torch.float32

    def __init__(self, max_tokens=10**9, bad=()):
        self.max_tokens, self.bad, self.calls = max_tokens, bad, []

    def __call__(self, hidden_states, encoder_hidden_states, timestep, img_shapes, return_dict):
        lengths = [len(x) for x in hidden_states]
        self.calls.append(lengths)
        if sum(lengths) > self.max_tokens:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if any(float(x[0, 0]) in self.bad for x in hidden_states):
            raise ValueError("a bad picture")
        assert timestep.tolist() == [0.5] * len(lengths)
        assert img_shapes == [(1, 1, length) for length in lengths]
        return ([2 * x for x in hidden_states],)


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [(1000, [[4, 7, 3, 9]]), (15, [[4, 7], [3], [9]]), (16, [[4, 7], [3, 9]]), (1, [[4], [7], [3], [9]])],
)
def test_a_pack_holds_as_many_tokens_as_are_allowed_and_one_picture_at_least(max_tokens, expected):
    found = [
        [len(one.image_tokens) for one in pack] for pack in split_batches(passes(4, 7, 3, 9), max_tokens)
    ]
    assert found == expected


def test_each_pass_gets_its_own_velocity_in_its_place():
    velocities = BatchExecutor(15).predict_velocities(Doubling(), passes(4, 7, 3))
    assert [(len(one), float(one[0, 0])) for one in velocities] == [(4, 0.0), (7, 2.0), (3, 4.0)]


def test_what_memory_did_not_hold_is_tried_in_halves_and_not_tried_again():
    denoiser, packer = Doubling(max_tokens=10), BatchExecutor(1000)
    answers = packer.predict_velocities(denoiser, passes(5, 5, 5, 5))
    assert [float(one[0, 0]) for one in answers] == [0.0, 2.0, 4.0, 6.0]
    assert denoiser.calls == [[5, 5, 5, 5], [5, 5], [5, 5]] and packer.max_batch_tokens == 14
    denoiser.calls.clear()
    packer.predict_velocities(denoiser, passes(5, 5, 5, 5))
    assert denoiser.calls == [[5, 5], [5, 5]]


def test_a_picture_too_large_for_memory_fails_alone_and_says_so():
    answers = BatchExecutor(1000).predict_velocities(Doubling(max_tokens=10), passes(5, 40, 5))
    assert [isinstance(one, MemoryNeedError) for one in answers] == [False, True, False]


def test_a_picture_that_breaks_a_pack_fails_alone():
    packer = BatchExecutor(1000)
    answers = packer.predict_velocities(Doubling(bad=(2.0,)), passes(4, 4, 4, 4, 4))
    assert [isinstance(one, ValueError) for one in answers] == [False, False, True, False, False]
    assert packer.max_batch_tokens == 1000


@pytest.mark.parametrize(
    ("num_steps", "wanted", "expected"),
    [(20, 3, (5, 10, 15)), (4, 3, (1, 2, 3)), (4, 1, (2,)), (6, 2, (2, 4)), (2, 3, (1,)), (1, 2, ())],
)
def test_previews_are_spread_evenly_and_never_at_the_end(num_steps, wanted, expected):
    assert preview_schedule(num_steps, wanted) == expected
