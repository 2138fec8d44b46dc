"""The store: what comes out is what went in, a key says what a sample is made of, damage is told."""

import pytest
import torch

from lens.errors import CheckpointError
from lens.train.data.latent_cache import EncodedSample, LatentCache, dequantize_int8, quantize_int8


def sample_of(h: int, w: int, num_text: int, seed: int) -> EncodedSample:
    draw = torch.Generator().manual_seed(seed)
    latents, features = (torch.randn(shape, generator=draw) for shape in ((6, h, w), (2, num_text, 10)))
    return EncodedSample(latents.bfloat16(), features.bfloat16())


SAMPLES = {"one": sample_of(3, 5, 7, 0), "two": sample_of(4, 2, 0, 1), "three": sample_of(2, 2, 11, 2)}


def test_samples_of_all_sizes_come_back_to_the_bit_also_to_who_opens_the_store_later(tmp_path):
    store = LatentCache(tmp_path / "store")
    store.add({"one": SAMPLES["one"], "two": SAMPLES["two"]})
    store.add({"three": SAMPLES["three"]})
    for opened in (store, LatentCache(tmp_path / "store")):
        assert len(opened) == 3 and "two" in opened and "four" not in opened
        for key, sample in SAMPLES.items():
            assert all(torch.equal(*pair) for pair in zip(opened[key], sample, strict=True))
        assert opened.token_counts("one") == (15, 7) and opened.token_counts("two") == (8, 0)


def test_eight_bit_features_err_by_half_a_step_of_their_tokens_largest_value_at_most(tmp_path):
    store = LatentCache(tmp_path, feature_bits=8)
    store.add(SAMPLES)
    for key, sample in SAMPLES.items():
        assert torch.equal(store[key].latents, sample.latents)
        error = (store[key].features.float() - sample.features.float()).abs()
        largest = sample.features.float().abs().amax(-1, keepdim=True)
        assert (error <= largest * (1 / 254 + 1 / 256)).all(), "the second part is bfloat16's own rounding"
    features = SAMPLES["one"].features
    assert not torch.equal(dequantize_int8(*quantize_int8(features)), features)


def test_eight_bits_take_about_half_the_room(tmp_path):
    large = {"large": EncodedSample(torch.zeros(6, 2, 2), torch.randn(4, 100, 256))}
    for bits in (8, 16):
        LatentCache(tmp_path / str(bits), feature_bits=bits).add(large)
    small, whole = (next((tmp_path / bits).iterdir()).stat().st_size for bits in ("8", "16"))
    assert 0.45 < small / whole < 0.55


def test_a_damaged_shard_is_named(tmp_path):
    LatentCache(tmp_path).add(SAMPLES)
    (shard,) = tmp_path.iterdir()
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=rf"{shard.name} is damaged.*Delete it"):
        LatentCache(tmp_path)
