"""The denoiser against its literal second version: same random weights, equal results at equal precision."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).parent))
import literal_denoiser
from tiny_models import DENOISER_CONFIG, TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser

# Float32 on both sides; three blocks of width 32 differ by the order of their sums alone.
TIGHT = {"atol": 1e-5, "rtol": 1e-5}


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(lengths: list[int], num_text: int, height: int, width: int):
    batch = len(lengths)
    tokens = normal(batch, height * width, TOKEN_CHANNELS, seed=1)
    features = [10 * normal(batch, num_text, TEXT_WIDTH, seed=2 + layer) for layer in range(4)]
    mask = torch.arange(num_text) < torch.tensor(lengths)[:, None]
    return tokens, features, mask, torch.linspace(0.05, 1.0, batch)


def both(lengths, num_text, height, width, **changes):
    denoiser = tiny_denoiser(**changes)
    tokens, features, mask, t = inputs(lengths, num_text, height, width)
    config = DENOISER_CONFIG | changes
    with torch.no_grad():
        ours = denoiser(tokens, features, mask, t, [(1, height, width)]).sample
        weights = denoiser.state_dict()
        literal = literal_denoiser.velocity(weights, config, tokens, features, mask, t, height, width)
    return ours, literal


@pytest.mark.parametrize(("lengths", "num_text"), [
    ([7, 7], 7),      # nothing padded: no mask is used
    ([7, 3], 7),      # a padded sample
    ([5, 2, 3], 11),  # columns that no sample uses
    ([4, 0], 4),      # one sample without text
    ([0, 0], 6),      # no text at all
])  # fmt: skip
def test_velocities_agree_whatever_is_padded(lengths, num_text):
    ours, literal = both(lengths, num_text, 3, 5)
    assert literal.std() > 0.1
    torch.testing.assert_close(ours, literal, **TIGHT)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (2, 9), (11, 6)])
def test_velocities_agree_at_any_size(height, width):
    ours, literal = both([5, 4], 5, height, width)
    torch.testing.assert_close(ours, literal, **TIGHT)


def test_velocities_agree_with_the_released_head_and_more_layers():
    changes = {"attention_head_dim": 64, "inner_dim": 128, "axes_dims_rope": (8, 28, 28), "num_layers": 5}
    ours, literal = both([9, 6], 9, 6, 4, **changes)
    torch.testing.assert_close(ours, literal, **TIGHT)


def test_a_hole_in_the_mask_is_not_seen_either():
    denoiser = tiny_denoiser()
    tokens, features, mask, t = inputs([6, 6], 6, 3, 5)
    mask[0, 2] = False
    with torch.no_grad():
        ours = denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample
        literal = literal_denoiser.velocity(
            denoiser.state_dict(), DENOISER_CONFIG, tokens, features, mask, t, 3, 5
        )
    torch.testing.assert_close(ours, literal, **TIGHT)


def gradients(weights: dict[str, torch.Tensor], velocity: torch.Tensor, goal: torch.Tensor):
    loss = (velocity - goal).square().mean()
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: grad for name, grad in zip(weights, found, strict=True)}


def test_gradients_agree_and_only_what_cannot_reach_the_output_has_none():
    denoiser = tiny_denoiser()
    tokens, features, mask, t = inputs([7, 3], 7, 3, 5)
    weights, goal = dict(denoiser.named_parameters()), normal(2, 15, TOKEN_CHANNELS, seed=9)
    ours = gradients(weights, denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample, goal)
    literal_velocity = literal_denoiser.velocity(weights, DENOISER_CONFIG, tokens, features, mask, t, 3, 5)
    literal = gradients(weights, literal_velocity, goal)
    unreached = {name for name, grad in ours.items() if grad is None}
    for name in weights:
        expected = torch.zeros_like(weights[name]) if literal[name] is None else literal[name]
        found = torch.zeros_like(expected) if ours[name] is None else ours[name]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    last = "transformer_blocks.2."
    assert unreached == {last + name for name in (
        "txt_norm2.weight", "txt_mlp.w1.weight", "txt_mlp.w2.weight", "txt_mlp.w3.weight",
        "attn.norm_added_q.weight", "attn.to_add_out.weight", "attn.to_add_out.bias",
    )}  # fmt: skip


def test_bf16_stays_near_float32():
    # bfloat16 keeps 8 bits: some 40 roundings in a row, each of up to 0.4%.
    tokens, features, mask, t = inputs([7, 3], 7, 3, 5)
    denoiser = tiny_denoiser()
    with torch.no_grad():
        exact = denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample
        features = [layer.bfloat16() for layer in features]
        half = denoiser.bfloat16()(tokens.bfloat16(), features, mask, t, [(1, 3, 5)]).sample
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.1 * exact.std()


def test_training_in_bf16_on_the_cpu_gives_the_gradients_of_float32_to_its_precision():
    denoiser = tiny_denoiser()
    tokens, features, mask, t = inputs([7, 3], 7, 3, 5)
    weights, goal = dict(denoiser.named_parameters()), normal(2, 15, TOKEN_CHANNELS, seed=9)
    exact = gradients(weights, denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample, goal)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample
    half = gradients(weights, velocity.float(), goal)
    exact, half = (torch.cat([g.flatten() for g in side.values() if g is not None]) for side in (exact, half))
    assert torch.nn.functional.cosine_similarity(exact, half, dim=0) > 0.999


def test_the_small_number_in_every_norm_is_the_released_one():
    # Activations of about 1e-3 have squares near the 1e-6 and 1e-5 that the norms add: a wrong one shows.
    denoiser = tiny_denoiser()
    tokens, features, mask, t = inputs([7, 3], 7, 3, 5)
    features = [3e-4 * layer for layer in features]
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if any(part in name for part in ("img_in", "txt_in", "_mod.", "_qkv")):
                parameter.mul_(1e-3)
            elif "to_out" in name or "to_add_out" in name:
                parameter.mul_(1e3)  # small queries, keys and values, yet attention still counts
        ours = denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample
        weights = denoiser.state_dict()
        literal = literal_denoiser.velocity(weights, DENOISER_CONFIG, tokens, features, mask, t, 3, 5)
        torch.testing.assert_close(ours, literal, atol=2e-5, rtol=2e-5)
        for name, other in (("txt_norm.2", 1e-6), ("transformer_blocks.0.attn.norm_added_k", 1e-5)):
            norm = denoiser.get_submodule(name)
            right, norm.eps = norm.eps, other
            wrong = denoiser(tokens, features, mask, t, [(1, 3, 5)]).sample
            assert (wrong - literal).abs().max() > 1e-4, name
            norm.eps = right
