"""Caches of denoising steps on a tiny pipeline: what they compute again, and what they leave alone."""

from contextlib import nullcontext

import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import TextKVCacheConfig
from tiny_models import CAPTURED_LAYERS, TEXT_WIDTH, TOKEN_CHANNELS, tiny_pipeline

from lens.errors import SettingError
from lens.models.step_cache import CACHES, ImageCache, cache_settings
from lens.models.velocity import predict_token_velocity

NUM_STEPS = 8


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture
def cached(pipeline):
    """The pipeline, without a cache before and after."""
    yield pipeline
    if pipeline.transformer.is_cache_enabled:
        pipeline.transformer.disable_cache()


def draw(pipeline, seed=0, guidance_scale=3.0, **request):
    return pipeline(
        "a fox", "a red apple", num_inference_steps=NUM_STEPS, guidance_scale=guidance_scale,
        height=64, width=64, output_type="latent", generator=torch.Generator().manual_seed(seed),
        allow_extreme=True, **request,
    ).images  # fmt: skip


def settings_of(pipeline):
    """Settings of each method under which it computes everything, and under which it reuses something."""
    when = {"current_timestep_callback": lambda: pipeline.current_timestep}
    never, always = (1001, 1002), (-1, 1001)
    taylor = {"cache_interval": 2, "disable_cache_before_step": 2, "taylor_factors_dtype": torch.float32}
    mag = {"num_inference_steps": NUM_STEPS, "mag_ratios": torch.ones(NUM_STEPS)}
    return {
        "first block": (FirstBlockCacheConfig(threshold=-1.0), FirstBlockCacheConfig(threshold=1e9)),
        "taylorseer of attention": (
            TaylorSeerCacheConfig(disable_cache_before_step=NUM_STEPS), TaylorSeerCacheConfig(**taylor)
        ),
        "taylorseer lite": (
            TaylorSeerCacheConfig(disable_cache_before_step=NUM_STEPS, use_lite_mode=True),
            TaylorSeerCacheConfig(**taylor, use_lite_mode=True),
        ),
        "pyramid": tuple(
            PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=times, **when
            )
            for times in (never, always)
        ),
        "mag": (MagCacheConfig(**mag, threshold=-1.0), MagCacheConfig(**mag, threshold=1.0)),
        "faster": tuple(
            FasterCacheConfig(
                is_guidance_distilled=True, spatial_attention_timestep_skip_range=times,
                attention_weight_callback=lambda _: 0.5, **when,
            )
            for times in (never, (-1, 900))
        ),
    }  # fmt: skip


METHODS = ("first block", "taylorseer of attention", "taylorseer lite", "pyramid", "mag", "faster")


@pytest.mark.parametrize("method", METHODS)
def test_a_cache_that_reuses_nothing_changes_nothing_and_one_that_does_is_close(cached, method):
    idle, active = settings_of(cached)[method]
    plain = draw(cached)
    cached.transformer.enable_cache(idle)
    torch.testing.assert_close(draw(cached), plain, atol=1e-5, rtol=0)
    cached.transformer.disable_cache()
    cached.transformer.enable_cache(active)
    first = draw(cached)
    assert 1e-4 < (first - plain).abs().mean() < 1
    draw(cached, seed=1)
    assert torch.equal(draw(cached), first)  # a call leaves nothing behind
    cached.transformer.disable_cache()
    assert torch.equal(draw(cached), plain)
    assert cached.current_timestep is None


@pytest.mark.parametrize("method", METHODS)
def test_the_two_passes_of_guidance_have_states_of_their_own(cached, method):
    """With one prompt for both passes guidance is idle, so a guided call equals an unguided one."""
    cached.transformer.enable_cache(settings_of(cached)[method][1])
    alone = draw(cached, guidance_scale=1.0)
    same = cached(
        "a fox", "a fox", num_inference_steps=NUM_STEPS, guidance_scale=3.0, height=64, width=64,
        output_type="latent", generator=torch.Generator().manual_seed(0), allow_extreme=True,
    ).images  # fmt: skip
    torch.testing.assert_close(same, alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CACHES)
def test_a_named_cache_computes_less_attention(cached, name):
    attention, computed = cached.transformer.transformer_blocks[1].attn, []
    hook = attention.img_qkv.register_forward_hook(lambda *_: computed.append(1))
    try:
        config = cache_settings(name)
        if name == "first-block":
            config.threshold = 2.0  # the first blocks of random weights change more than trained ones
        cached.transformer.enable_cache(config)
        draw(cached)
        assert len(computed) < 2 * NUM_STEPS
    finally:
        hook.remove()


def test_what_does_not_work_here_is_refused_by_name(cached):
    with pytest.raises(SettingError, match="cache is 'fast', but it needs one of first-block, taylorseer"):
        cache_settings("fast")
    with pytest.raises(SettingError, match=r"is_guidance_distilled is False, .* one after the other"):
        cached.transformer.enable_cache(FasterCacheConfig(current_timestep_callback=lambda: 0))
    with pytest.raises(SettingError, match="config is 'TextKVCacheConfig', but it needs one of FirstBlock"):
        cached.transformer.enable_cache(TextKVCacheConfig())
    assert not cached.transformer.is_cache_enabled
    cached.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(ValueError, match="already been enabled"):
        cached.transformer.enable_cache(FirstBlockCacheConfig())


def velocities(denoiser, seed, contexts):
    """The velocities of neighbouring points of one image, each computed in the next of the contexts."""
    generator = torch.Generator().manual_seed(seed)
    x, way = torch.randn(2, 1, 12, TOKEN_CHANNELS, generator=generator)
    texts = [torch.randn(1, 5, TEXT_WIDTH, generator=generator) for _ in CAPTURED_LAYERS]
    for step, context in enumerate(contexts):
        t, near = torch.tensor([1 - 1e-6 * step]), x + 0.005 * step * way
        with context, torch.no_grad():
            velocity = predict_token_velocity(denoiser, near, t, texts, latent_sizes=[(3, 4)])
        yield velocity


def test_images_that_take_turns_have_caches_of_their_own_and_the_others_none(cached):
    denoiser, steps = cached.transformer, 10
    alone = [list(velocities(denoiser, seed, [nullcontext()] * steps)) for seed in range(3)]
    for seed, name in enumerate(CACHES):
        plain = alone[seed]
        denoiser.enable_cache(cache_settings(name))
        contexts = [denoiser.cache_context("cond") for _ in range(steps)]
        alone[seed] = list(velocities(denoiser, seed, contexts))
        assert not torch.equal(torch.cat(alone[seed]), torch.cat(plain)), f"{name} computes everything"
        denoiser._reset_stateful_cache()
        denoiser.disable_cache()
    caches = [*map(ImageCache, CACHES), None]
    in_turn = [
        velocities(denoiser, seed, [
            nullcontext() if cache is None else denoiser.cached_pass(cache, "cond") for _ in range(steps)
        ]) for seed, cache in enumerate(caches)
    ]  # fmt: skip
    for step in range(steps):
        if step == 6:
            denoiser.release_cached_passes()  # as where an adapter replaces layers
        for seed, one in enumerate(in_turn):
            assert torch.equal(next(one), alone[seed][step]), (seed, step)
    assert not any(hook for hook in denoiser._hooks() if hook.state_manager._state_cache)
    assert not denoiser.is_cache_enabled
    denoiser.release_cached_passes()
    assert not list(denoiser._hooks())
