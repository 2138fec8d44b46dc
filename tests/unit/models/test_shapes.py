"""Names and shapes from a configuration are those of the modules themselves."""

import pytest
import tiny_models
import torch
from diffusers import AutoencoderKLFlux2

from lens.errors import CheckpointError
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.checkpoints.text_encoder import LensGptOssEncoder
from lens.models.denoiser import LensTransformer2DModel
from lens.models.shapes import (
    check_config,
    denoiser_shapes,
    linear_modules,
    num_parameters,
    text_encoder_shapes,
    vae_shapes,
)


def on_meta(build):
    with torch.device("meta"):
        return build()


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_the_released_denoiser_has_1264_tensors_and_4104225152_parameters():
    shapes = denoiser_shapes(LENS_DENOISER)
    assert (len(shapes), num_parameters(shapes)) == (1264, 4_104_225_152)
    assert shapes == shapes_of(on_meta(lambda: LensTransformer2DModel(**LENS_DENOISER)))


def test_the_table_holds_the_denoisers_own_defaults():
    config = on_meta(LensTransformer2DModel).config
    assert {key: config[key] for key in LENS_DENOISER} == LENS_DENOISER


def test_the_released_text_encoder_is_gpt_oss_20b():
    from transformers import GptOssConfig

    shapes = text_encoder_shapes(GPT_OSS_20B)
    assert num_parameters(shapes) == 20_914_757_184
    encoder = on_meta(lambda: LensGptOssEncoder(GptOssConfig(**GPT_OSS_20B)))
    assert shapes == shapes_of(encoder)
    assert encoder.model.rotary_emb.attention_scaling == pytest.approx(1.3466, abs=1e-4)


def test_the_released_vae_is_the_librarys_default():
    assert vae_shapes(FLUX2_VAE) == shapes_of(on_meta(AutoencoderKLFlux2))


def test_small_models_have_the_same_names():
    assert denoiser_shapes(tiny_models.DENOISER_CONFIG) == shapes_of(tiny_models.tiny_denoiser())
    encoder = tiny_models.tiny_encoder()
    assert text_encoder_shapes(encoder.config.to_dict()) == shapes_of(encoder)
    for changes in ({}, {"layers_per_block": 2}, {"decoder_block_out_channels": (8, 8, 4, 8)}):
        vae = tiny_models.tiny_vae(**changes)
        assert vae_shapes(vae.config) == shapes_of(vae)


def test_linear_layers_are_those_of_the_module():
    model = tiny_models.tiny_denoiser()
    modules = {
        name: (m.out_features, m.in_features)
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear)
    }
    assert linear_modules(denoiser_shapes(tiny_models.DENOISER_CONFIG)) == modules


@pytest.mark.parametrize(
    ("name", "value"), [("out_channels", None), ("patch_size", None), ("patch_size", "2x2")]
)
def test_an_autoencoder_whose_optional_values_are_no_numbers_is_refused_by_their_name(name, value):
    config = {"latent_channels": 4, "layers_per_block": 1, "block_out_channels": [8, 16]}
    check_config("vae", config, "config.json")
    with pytest.raises(CheckpointError, match=name):
        check_config("vae", config | {name: value}, "config.json")
