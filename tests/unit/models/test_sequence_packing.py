"""A packed sequence of images equals each of them alone: velocities, gradients, and nothing leaks."""

import sys
from pathlib import Path

import pytest
import torch

from lens.errors import ShapeError
from lens.models.sequence_packing import PackedSequence

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser

CELLS = [(3, 5), (2, 2), (6, 1), (4, 4)]
TEXTS = [7, 4, 0, 9]
"""Text tokens of each image; one has no text at all."""
TIMES = torch.tensor([0.3, 0.9, 0.05, 1.0])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image_inputs(dtype: torch.dtype = torch.float32):
    """Return tokens and features of images whose sizes and texts all differ."""
    tokens = [normal(h * w, TOKEN_CHANNELS, seed=n).to(dtype) for n, (h, w) in enumerate(CELLS)]
    features = [
        [normal(count, TEXT_WIDTH, seed=10 * n + layer + 5).to(dtype) for layer in range(4)]
        for n, count in enumerate(TEXTS)
    ]
    return tokens, features


def packed(denoiser, tokens, features, times=TIMES, cells=CELLS):
    shapes = [(1, h, w) for h, w in cells]
    return denoiser(tokens, features, timestep=times, img_shapes=shapes, return_dict=False)[0]


def one_by_one(denoiser, tokens, features):
    """The same images, each a batch of its own."""
    return [
        denoiser(
            one[None], [layer[None] for layer in layers], timestep=t[None], img_shapes=[(1, h, w)],
            return_dict=False,
        )[0][0]
        for one, layers, t, (h, w) in zip(tokens, features, TIMES, CELLS, strict=True)
    ]  # fmt: skip


def test_packed_velocities_are_those_of_each_image_alone():
    denoiser = tiny_denoiser()
    tokens, features = image_inputs()
    with torch.no_grad():
        found, expected = packed(denoiser, tokens, features), one_by_one(denoiser, tokens, features)
    assert [len(one) for one in found] == [15, 4, 6, 16]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_packed_gradients_are_the_sums_of_those_of_each_image_alone(is_checkpointed):
    denoiser = tiny_denoiser().train()
    if is_checkpointed:
        denoiser.enable_gradient_checkpointing()
    tokens, features = image_inputs()

    def gradients(velocity):
        denoiser.zero_grad()
        sum((index + 1) * one.square().sum() for index, one in enumerate(velocity)).backward()
        return {name: one.grad.clone() for name, one in denoiser.named_parameters() if one.grad is not None}

    found = gradients(packed(denoiser, tokens, features))
    expected = gradients(one_by_one(denoiser, tokens, features))
    assert found.keys() == expected.keys()
    for name in found:
        scale = expected[name].abs().max()
        assert (found[name] - expected[name]).abs().max() <= 2e-5 * scale, name


def test_what_one_image_shows_changes_no_other():
    denoiser = tiny_denoiser()
    tokens, features = image_inputs()
    with torch.no_grad():
        before = packed(denoiser, tokens, features)
        tokens[1] += 1
        features[1] = [layer + 1 for layer in features[1]]
        after = packed(denoiser, tokens, features, torch.tensor([0.3, 0.2, 0.05, 1.0]))
    for index in (0, 2, 3):
        torch.testing.assert_close(after[index], before[index], rtol=1e-6, atol=1e-6)
    assert (after[1] - before[1]).abs().max() > 0.01


def test_packed_bfloat16_is_as_close_to_float32_as_a_batch_is():
    denoiser = tiny_denoiser()
    exact = one_by_one(denoiser, *image_inputs())
    rounded = tiny_denoiser().to(torch.bfloat16)
    with torch.no_grad():
        found = packed(rounded, *image_inputs(torch.bfloat16))
        alone = one_by_one(rounded, *image_inputs(torch.bfloat16))
    for one, other, true in zip(found, alone, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - true).abs().mean() <= 1.3 * (other - true).abs().mean()


def test_a_packing_says_who_owns_which_token():
    packing = PackedSequence.of([2, 1], [1, 3], torch.device("cpu"))
    # Streams: a a b | a b b b; together: a a a, b b b b.
    assert packing.joint_index.tolist() == [0, 1, 3, 2, 4, 5, 6]
    assert packing.joint_index[packing.stream_index].tolist() == list(range(7))
    assert (packing.image_sequence_ids.tolist(), packing.text_sequence_ids.tolist()) == (
        [0, 0, 1],
        [0, 1, 1, 1],
    )
    assert (packing.image_cu_seqlens.tolist(), packing.cu_seqlens.tolist()) == ([0, 2, 3], [0, 3, 7])
    assert (packing.lengths, packing.num_image_tokens) == ((3, 4), 3)


def test_a_mask_beside_a_list_is_refused_not_ignored():
    tokens, features = image_inputs()
    with pytest.raises(ShapeError, match="needs None with a list of images"):
        tiny_denoiser()(tokens, features, torch.ones(4, 9, dtype=torch.bool), timestep=TIMES)


def test_under_autocast_times_stay_as_exact_as_in_a_batch():
    denoiser = tiny_denoiser()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, alone = packed(denoiser, *image_inputs()), one_by_one(denoiser, *image_inputs())
    for one, other in zip(found, alone, strict=True):
        assert (one.float() - other.float()).abs().max() <= 0.03 * other.float().abs().max()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda call: call["features"].pop(), "4 images came with 3 texts"),
        (lambda call: call.update(times=TIMES[:3]), r"timestep has shape \(3,\), but it needs \(4,\)"),
        (lambda call: call.update(cells=[*CELLS[:3], (4, 5)]), r"img_shapes is \(1, 4, 5\)"),
        (lambda call: call["features"][2].pop(), "a list of 3, but it needs a list of 4"),
        (lambda call: call["tokens"].__setitem__(0, torch.zeros(15, 3)), "hidden_states has shape"),
    ],
    ids=["a text missing", "a time missing", "another size", "a layer missing", "other channels"],
)
def test_what_does_not_fit_is_named(change, says):
    tokens, features = image_inputs()
    call = {"tokens": tokens, "features": features}
    change(call)
    with pytest.raises(ShapeError, match=says):
        packed(tiny_denoiser(), **call)
