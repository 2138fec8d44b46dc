"""The one call of the denoiser: batches of latents, packed sequences and tokens give the same velocities."""

from pathlib import Path

import pytest
import torch
from tiny_models import randomise, tiny_denoiser

import lens
from lens.core.latents import pack_latents
from lens.models.velocity import compute_dtype, predict_token_velocity, predict_velocity

SIZES = ((2, 3), (1, 5))


@pytest.fixture
def denoiser():
    denoiser = tiny_denoiser()
    randomise(denoiser, seed=0)
    return denoiser


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text(num_tokens: int, width: int, seed: int) -> list[torch.Tensor]:
    return [normal(num_tokens, width, seed=seed + layer) for layer in range(4)]


@torch.no_grad()
def test_a_packed_sequence_has_the_velocities_that_each_image_has_in_a_batch_of_one(denoiser):
    width, channels = denoiser.config.enc_hidden_dim, denoiser.config.in_channels
    latents = [normal(channels, *size, seed=number) for number, size in enumerate(SIZES)]
    t, texts = torch.tensor([0.2, 0.9]), [text(4, width, seed=10), text(7, width, seed=20)]
    packed = predict_velocity(denoiser, latents, t, texts)
    for number, one in enumerate(latents):
        features = [layer[None] for layer in texts[number]]
        alone = predict_velocity(denoiser, one[None], t[number : number + 1], features)
        assert alone.shape == (1, channels, *SIZES[number])
        torch.testing.assert_close(packed[number], alone[0])


@torch.no_grad()
def test_latents_and_their_tokens_have_the_same_velocity_in_float32(denoiser):
    denoiser.bfloat16()
    latents = normal(3, denoiser.config.in_channels, 2, 3, seed=0).bfloat16()
    t = torch.tensor([0.1, 0.5, 1.0])
    features = [normal(3, 5, denoiser.config.enc_hidden_dim, seed=1 + layer).bfloat16() for layer in range(4)]
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    of_latents = predict_velocity(denoiser, latents, t, features, mask)
    of_tokens = predict_token_velocity(
        denoiser, pack_latents(latents).float(), t, features, mask, latent_sizes=[(2, 3)],
        dtype=compute_dtype(denoiser),
    )  # fmt: skip
    assert of_latents.dtype == of_tokens.dtype == torch.float32
    assert torch.equal(pack_latents(of_latents), of_tokens)


def test_no_other_module_calls_the_denoiser():
    source = Path(lens.__file__).parent
    callers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if "encoder_hidden_states=" in path.read_text()
    }
    assert callers == {"models/velocity.py"}
