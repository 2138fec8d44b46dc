"""Latents: their order and statistics, both ways, decoding in tiles, float16, values that are not finite."""

import copy

import accelerate
import numpy as np
import pytest
import torch
from diffusers.hooks.group_offloading import apply_group_offloading
from tiny_models import LATENT_CHANNELS, TOKEN_CHANNELS, tiny_vae
from torch import nn

from lens.core import products
from lens.core.latents import unpatchify
from lens.errors import GenerationCancelledError, NonFiniteError, SettingError, ShapeError
from lens.models.vae import (
    decode_latents,
    denormalize_latents,
    encode_pixels,
    normalize_latents,
    spatial_compression_ratio,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth_latents(vae, height: int, width: int) -> torch.Tensor:
    """Return the latents of an image of soft colour ramps, as images mostly are."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 5, width), indexing="ij")
    return encode_pixels(vae, torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()])[None])


def without_norms(vae):
    """Take out what looks at a whole tile at once: then a tile's inside cannot know of its borders."""
    for module in list(vae.decoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return vae


def test_encoded_channels_run_latent_channel_then_row_then_column_and_are_normalised_by_the_vaes_statistics():
    vae, pixels = tiny_vae(), normal(2, 3, 48, 80).clamp(-1, 1)
    latents = encode_pixels(vae, pixels)
    assert latents.shape == (2, TOKEN_CHANNELS, 3, 5)
    grid = vae.encode(pixels).latent_dist.mean.numpy()
    mean, var = vae.bn.running_mean.numpy(), vae.bn.running_var.numpy()
    for channel, row, column in np.ndindex(LATENT_CHANNELS, 2, 2):
        k = (channel * 2 + row) * 2 + column
        expected = (grid[:, channel, row::2, column::2] - mean[k]) / np.sqrt(var[k] + 1e-4)
        np.testing.assert_allclose(latents[:, k].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_decoding_undoes_the_order_and_the_statistics():
    vae, latents = tiny_vae(), normal(2, TOKEN_CHANNELS, 3, 5)
    grid = np.zeros((2, LATENT_CHANNELS, 6, 10), dtype=np.float32)
    mean, var = vae.bn.running_mean.numpy(), vae.bn.running_var.numpy()
    for channel, row, column in np.ndindex(LATENT_CHANNELS, 2, 2):
        k = (channel * 2 + row) * 2 + column
        grid[:, channel, row::2, column::2] = latents[:, k].numpy() * np.sqrt(var[k] + 1e-4) + mean[k]
    expected = vae.decode(torch.from_numpy(grid)).sample.clamp(-1, 1)
    decoded = decode_latents(vae, latents)
    assert decoded.shape == (2, 3, 48, 80)
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-5)
    assert decoded.abs().max() <= 1


def test_the_epsilon_is_the_configurations():
    vae = tiny_vae(batch_norm_eps=0.5)
    one = normalize_latents(vae, torch.ones(1, TOKEN_CHANNELS, 1, 1)).flatten()
    torch.testing.assert_close(one, (1 - vae.bn.running_mean) / (vae.bn.running_var + 0.5).sqrt())


def test_denormalising_undoes_normalising():
    vae, patches = tiny_vae(), normal(2, TOKEN_CHANNELS, 3, 5)
    torch.testing.assert_close(denormalize_latents(vae, normalize_latents(vae, patches)), patches)


def test_without_a_generator_the_posteriors_mean_is_taken_with_one_a_sample_that_repeats():
    vae, pixels = tiny_vae(), normal(1, 3, 32, 48)
    assert torch.equal(encode_pixels(vae, pixels), encode_pixels(vae, pixels))
    draws = [encode_pixels(vae, pixels, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], encode_pixels(vae, pixels))


def test_an_image_does_not_depend_on_its_batch_to_the_bit():
    vae, latents = tiny_vae(), normal(3, TOKEN_CHANNELS, 2, 3)
    assert torch.equal(decode_latents(vae, latents)[2:], decode_latents(vae, latents[2:]))


def test_latent_cells_are_16_pixels_wide_and_other_sizes_are_refused():
    vae = tiny_vae()
    assert spatial_compression_ratio(vae) == 16
    with pytest.raises(ShapeError, match="divisible by 16"):
        encode_pixels(vae, torch.zeros(1, 3, 32, 40))
    with pytest.raises(ShapeError, match="Latents have 12 channels"):
        decode_latents(vae, torch.zeros(1, 12, 2, 2))


@pytest.mark.parametrize(("height", "width"), [(192, 608), (608, 176), (320, 352)])
def test_tiles_join_without_a_seam(height, width):
    vae = without_norms(tiny_vae(mid_block_add_attention=False))
    latents = smooth_latents(vae, height, width)
    whole, tiled = decode_latents(vae, latents), decode_latents(vae, latents, tile_px=256)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() < 0.15
    assert (tiled - whole).abs().mean() < 1e-3


def test_a_constant_decoder_stays_constant_under_blending():
    vae = tiny_vae()
    nn.init.zeros_(vae.decoder.conv_out.weight)
    nn.init.constant_(vae.decoder.conv_out.bias, 0.375)
    decoded = decode_latents(vae, normal(1, TOKEN_CHANNELS, 11, 17), tile_px=64)
    torch.testing.assert_close(decoded, torch.full((1, 3, 176, 272), 0.375))


def test_tiles_differ_from_the_whole_by_less_than_a_tenth():
    # Group norms and attention see one tile instead of the image; this much of it is left after blending.
    vae, latents = tiny_vae(), normal(1, TOKEN_CHANNELS, 24, 40)
    whole, tiled = decode_latents(vae, latents), decode_latents(vae, latents, tile_px=512)
    assert (tiled - whole).abs().max() < 0.12
    assert (tiled - whole).abs().mean() < 0.01
    assert whole.std() > 0.5


def test_an_image_that_fits_one_tile_is_decoded_whole():
    vae, latents = tiny_vae(), normal(1, TOKEN_CHANNELS, 4, 7)
    assert torch.equal(decode_latents(vae, latents, tile_px=112), decode_latents(vae, latents))


def test_progress_counts_tiles_over_all_images_and_can_stop_the_work():
    vae, told = tiny_vae(), []
    latents = normal(2, TOKEN_CHANNELS, 4, 7)
    decode_latents(vae, latents, on_progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]
    told.clear()
    decode_latents(vae, latents, tile_px=64, on_progress=lambda *done: told.append(done))
    assert told == [(done, 4) for done in (1, 2, 3, 4)]

    def stop(done: int, total: int) -> None:
        raise GenerationCancelledError("enough")

    with pytest.raises(GenerationCancelledError):
        decode_latents(vae, latents, on_progress=stop)


@pytest.mark.parametrize("tile_px", [40, 48, 0, -64])
def test_a_tile_that_does_not_fit_the_cells_is_refused(tile_px):
    with pytest.raises(SettingError, match="a multiple of 16 of at least 64"):
        decode_latents(tiny_vae(), normal(1, TOKEN_CHANNELS, 2, 2), tile_px=tile_px)


@pytest.fixture(params=[False, True], ids=["bfloat16 is fast", "float32 is faster"])
def prefers_float32(request, monkeypatch):
    """Let this CPU be one that computes faster in bfloat16, or one that does in float32."""
    monkeypatch.setattr(products, "_prefers_float32", lambda dtype: request.param)
    return request.param


def test_a_bfloat16_vae_takes_float32_pixels_and_latents(prefers_float32):
    vae = tiny_vae().to(torch.bfloat16)
    latents = encode_pixels(vae, normal(1, 3, 32, 48))
    expected = torch.float32 if prefers_float32 else torch.bfloat16
    assert latents.dtype == expected
    assert decode_latents(vae, latents.float()).dtype == expected


# ---- float16 and values that are not finite


def overflowing_vae():
    """Return an autoencoder of weights that float16 holds and activations that it does not."""
    vae = tiny_vae()
    for convolution in (vae.decoder.conv_in, vae.encoder.conv_in):
        convolution.weight.mul_(6e4)  # a group norm follows, which makes the activations small again
    return vae.half()


def widened(vae):
    return copy.deepcopy(vae).float()


@pytest.mark.parametrize("tile_px", [None, 64])
def test_an_autoencoder_in_float16_decodes_as_in_float32_where_float16_overflows(tile_px):
    vae, latents = overflowing_vae(), normal(2, TOKEN_CHANNELS, 3, 5)
    assert not torch.isfinite(vae.decode(normal(1, LATENT_CHANNELS, 6, 10).half()).sample).all()
    decoded = decode_latents(vae, latents, tile_px)
    assert decoded.dtype == torch.float32 and torch.equal(
        decoded, decode_latents(widened(vae), latents, tile_px)
    )
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float16}


def test_an_autoencoder_in_float16_encodes_as_in_float32_where_float16_overflows():
    vae, pixels = overflowing_vae(), normal(2, 3, 48, 80).clamp(-1, 1)
    assert not torch.isfinite(vae.encode(pixels.half()).latent_dist.mean).all()
    assert torch.equal(encode_pixels(vae, pixels), encode_pixels(widened(vae), pixels))
    draws = (encode_pixels(one, pixels, torch.Generator().manual_seed(4)) for one in (vae, widened(vae)))
    assert torch.equal(*draws)


@pytest.mark.parametrize("offload", ["sequential", "group"])
def test_an_offloaded_autoencoder_in_float16_decodes_as_in_float32(offload):
    vae, latents = overflowing_vae(), normal(1, TOKEN_CHANNELS, 3, 5)
    expected, cpu = decode_latents(widened(vae), latents), torch.device("cpu")
    if offload == "sequential":
        accelerate.cpu_offload(vae, cpu)
        assert vae.decoder.conv_in.weight.is_meta
    else:
        apply_group_offloading(vae, cpu, cpu, offload_type="leaf_level")
    assert torch.equal(decode_latents(vae, latents), expected)


def test_bfloat16_is_decoded_in_the_dtype_that_the_cpu_computes_faster_in(prefers_float32):
    vae, latents = tiny_vae().bfloat16(), normal(1, TOKEN_CHANNELS, 3, 5)
    decoded = decode_latents(vae, latents)
    same = copy.deepcopy(vae).float() if prefers_float32 else vae
    grid = unpatchify(denormalize_latents(same, latents)).to(same.dtype)
    assert decoded.dtype == same.dtype and torch.equal(decoded, same.decode(grid).sample.clamp(-1, 1))
    assert vae.dtype == torch.bfloat16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tile_px", [None, 64])
def test_pixels_that_are_not_finite_are_an_error_with_their_share(value, tile_px):
    vae = tiny_vae()
    nn.init.constant_(vae.decoder.conv_out.bias[1:2], value)
    with pytest.raises(
        NonFiniteError, match=r"^100% of the pixels .* in float32, .*compute in bfloat16 or float32"
    ):
        decode_latents(vae, normal(2, TOKEN_CHANNELS, 3, 5), tile_px)


def test_latents_that_are_not_finite_are_an_error_before_anything_is_decoded():
    latents = normal(2, TOKEN_CHANNELS, 3, 5)
    latents[1, 4, 2, 3] = latents[1, 5, 2, 3] = float("inf")
    with pytest.raises(NonFiniteError, match=r"^3\.33% of the latents .* LoRA"):
        decode_latents(tiny_vae(), latents, on_progress=lambda *done: pytest.fail("decoded"))
