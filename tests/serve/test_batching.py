"""Continuous batching: which inputs share a batch, what fits, and which input an error belongs to."""

import pytest
import torch

from lens.errors import MemoryNeedError
from lens.serve.engine.batching import BatchExecutor, ForwardInput, preview_schedule, split_batches


def inputs(*lengths):
    """Inputs of these numbers of image tokens and two text tokens each, all of different values."""
    return [
        ForwardInput(torch.full((length, 3), float(number)), 0.5, [torch.zeros(2, 5)], (1, length))
        for number, length in enumerate(lengths)
    ]


class Doubling:
    """A denoiser whose velocity is twice the point; it fails at the points in `bad`."""

    dtype = torch.float32

    def __init__(self, max_tokens=10**9, bad=()):
        self.max_tokens, self.bad, self.calls = max_tokens, bad, []

    def __call__(self, hidden_states, encoder_hidden_states, timestep, img_shapes, **_):
        lengths = [len(x) for x in hidden_states]
        self.calls.append(lengths)
        if sum(lengths) > self.max_tokens:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if any(float(x[0, 0]) in self.bad for x in hidden_states):
            raise ValueError("a bad image")
        assert timestep.tolist() == [0.5] * len(lengths)
        assert img_shapes == [(1, 1, length) for length in lengths]
        is_tensor = isinstance(hidden_states, torch.Tensor)
        return (2 * hidden_states if is_tensor else [2 * x for x in hidden_states],)


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [(1000, [[4, 7, 3, 9]]), (15, [[4, 7], [3], [9]]), (16, [[4, 7], [3, 9]]), (1, [[4], [7], [3], [9]])],
)
def test_a_batch_holds_at_most_the_allowed_tokens_and_at_least_one_input(max_tokens, expected):
    found = [
        [len(one.image_tokens) for one in batch] for batch in split_batches(inputs(4, 7, 3, 9), max_tokens)
    ]
    assert found == expected


def test_each_input_gets_its_own_velocity_in_order():
    velocities = BatchExecutor(15).predict_velocities(Doubling(), inputs(4, 7, 3))
    assert [(len(one), float(one[0, 0])) for one in velocities] == [(4, 0.0), (7, 2.0), (3, 4.0)]


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_the_limit_stays():
    denoiser, executor = Doubling(max_tokens=10), BatchExecutor(1000)
    answers = executor.predict_velocities(denoiser, inputs(5, 5, 5, 5))
    assert [float(one[0, 0]) for one in answers] == [0.0, 2.0, 4.0, 6.0]
    assert denoiser.calls == [[5, 5, 5, 5], [5, 5], [5, 5]] and executor.max_batch_tokens == 14
    denoiser.calls.clear()
    executor.predict_velocities(denoiser, inputs(5, 5, 5, 5))
    assert denoiser.calls == [[5, 5], [5, 5]]


def test_an_image_too_large_for_memory_fails_alone_with_a_memory_error():
    answers = BatchExecutor(1000).predict_velocities(Doubling(max_tokens=10), inputs(5, 40, 5))
    assert [isinstance(one, MemoryNeedError) for one in answers] == [False, True, False]


def test_an_input_that_fails_a_batch_fails_alone():
    executor = BatchExecutor(1000)
    answers = executor.predict_velocities(Doubling(bad=(2.0,)), inputs(4, 4, 4, 4, 4))
    assert [isinstance(one, ValueError) for one in answers] == [False, False, True, False, False]
    assert executor.max_batch_tokens == 1000


@pytest.mark.parametrize(
    ("num_steps", "num_previews", "expected"),
    [(20, 3, (5, 10, 15)), (4, 3, (1, 2, 3)), (4, 1, (2,)), (6, 2, (2, 4)), (2, 3, (1,)), (1, 2, ())],
)
def test_previews_are_evenly_spaced_and_never_at_the_end(num_steps, num_previews, expected):
    assert preview_schedule(num_steps, num_previews) == expected
