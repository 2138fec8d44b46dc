"""Attention in diffusers' terms: backends and processors act, or their own error says why they cannot."""

import pytest
import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    attention_backend,
)
from tiny_models import CAPTURED_LAYERS, TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser

from lens.models.layers import JointAttnProcessor

MATH = AttentionBackendName._NATIVE_MATH


def velocity(denoiser):
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(1, 5, dtype=torch.bool)
    mask[0, 1] = False
    with torch.no_grad():
        return denoiser(
            torch.randn(1, 6, TOKEN_CHANNELS, generator=generator),
            [torch.randn(1, 5, TEXT_WIDTH, generator=generator) for _ in CAPTURED_LAYERS],
            mask, torch.tensor([0.4]), [(1, 2, 3)],
        ).sample  # fmt: skip


@pytest.fixture
def math_calls(monkeypatch):
    """Count the calls of one of diffusers' kernels; its default kernel is active again afterwards."""
    calls, kernel = [], _AttentionBackendRegistry._backends[MATH]
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE)

    def count(**inputs):
        calls.append(inputs["query"].shape)
        return kernel(**inputs)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, MATH, count)
    return calls


def test_a_chosen_attention_backend_computes_every_block(math_calls):
    denoiser = tiny_denoiser()
    expected = velocity(denoiser)
    denoiser.set_attention_backend("_native_math")
    torch.testing.assert_close(velocity(denoiser), expected, rtol=1e-4, atol=1e-4)
    assert len(math_calls) == 3
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)
    denoiser.reset_attention_backend()
    assert torch.equal(velocity(denoiser), expected) and len(math_calls) == 3


def test_the_backend_of_a_with_block_computes_every_block(math_calls):
    denoiser = tiny_denoiser()
    with attention_backend("_native_math"):
        velocity(denoiser)
    assert len(math_calls) == 3


def test_processors_are_listed_and_replaced_by_diffusers_names():
    class Silent(JointAttnProcessor):
        def __call__(self, attn, *inputs):
            return torch.zeros_like(super().__call__(attn, *inputs))

    denoiser = tiny_denoiser()
    before = velocity(denoiser)
    assert sorted(denoiser.attn_processors) == [f"transformer_blocks.{n}.attn.processor" for n in range(3)]
    denoiser.set_attn_processor(Silent())
    assert not torch.equal(velocity(denoiser), before)
