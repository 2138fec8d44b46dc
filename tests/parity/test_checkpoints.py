"""Every published layout of plain weights on tiny real models: written, read back, bit for bit the same."""

import json
import re

import pytest
import torch
from comparisons import same_state, saved, velocity
from safetensors.torch import load_file, save_file
from tiny_models import DENOISER_CONFIG, tiny_components, tiny_denoiser, tiny_vae

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.convert import FORMATS, convert
from lens.models.checkpoints.detect import DENOISER_PREFIXES
from lens.models.checkpoints.diffusers_folder import check_folder
from lens.models.checkpoints.reader import open_safetensors
from lens.models.checkpoints.registry import LENS_DENOISER
from lens.models.checkpoints.single_file import load_denoiser, save_denoiser
from lens.models.checkpoints.vae import load_vae, save_vae_single_file, to_flux2

# Denoisers.


@pytest.mark.parametrize("target", ["transformer", "lens.safetensors"])
def test_a_denoiser_comes_back_from_a_folder_and_from_a_file(tmp_path, target):
    model = tiny_denoiser()
    save_denoiser(model, tmp_path / target)
    loaded = load_denoiser(tmp_path / target, torch.float32)
    assert same_state(loaded, model) and not loaded.training
    assert dict(loaded.config)["axes_dims_rope"] in ((4, 6, 6), [4, 6, 6])
    assert torch.equal(velocity(loaded), velocity(model))


def test_a_sharded_folder_comes_back(tmp_path):
    model = tiny_denoiser()
    model.save_pretrained(tmp_path / "transformer", max_shard_size="50KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    assert same_state(load_denoiser(tmp_path, torch.float32), model)
    next((tmp_path / "transformer").glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-.*does not exist"):
        load_denoiser(tmp_path, torch.float32)


@pytest.mark.parametrize("prefix", [*DENOISER_PREFIXES, "module._orig_mod."])
def test_every_prefix_is_stripped(tmp_path, prefix):
    model = tiny_denoiser()
    save_file(
        {prefix + name: value for name, value in model.state_dict().items()}, tmp_path / "d.safetensors"
    )
    assert same_state(load_denoiser(tmp_path / "d.safetensors", torch.float32, DENOISER_CONFIG), model)


def test_the_released_configuration_is_read_off_the_shapes(tmp_path):
    small = {"num_layers": 2, "num_attention_heads": 1, "inner_dim": 64}
    model = tiny_denoiser(**(LENS_DENOISER | small))
    save_file(model.state_dict(), tmp_path / "d.safetensors")
    loaded = load_denoiser(tmp_path / "d.safetensors", torch.float32)
    assert {key: loaded.config[key] for key in LENS_DENOISER} == LENS_DENOISER | small


def test_what_shapes_cannot_tell_is_asked_for_and_not_guessed(tmp_path):
    save_file(tiny_denoiser().state_dict(), tmp_path / "d.safetensors")
    with pytest.raises(
        CheckpointError, match=r"which text layers it reads and how its rotary axes split. Give its config"
    ):
        load_denoiser(tmp_path / "d.safetensors")


def test_the_dtype_is_the_one_asked_for(tmp_path):
    save_denoiser(tiny_denoiser(), tmp_path / "d.safetensors")
    assert load_denoiser(tmp_path / "d.safetensors").dtype == torch.bfloat16
    assert load_denoiser(tmp_path / "d.safetensors", None).dtype == torch.float32


def test_missing_extra_and_misshaped_keys_are_each_listed(tmp_path):
    state = tiny_denoiser().state_dict()
    for index in range(3):
        del state[f"transformer_blocks.{index}.attn.norm_q.weight"]
    state |= {"img_in.bias": torch.zeros(5), "surplus.weight": torch.zeros(2)}
    save_file(state, tmp_path / "d.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_denoiser(tmp_path / "d.safetensors", config=DENOISER_CONFIG)
    message = str(caught.value)
    assert "3 missing (transformer_blocks.0.attn.norm_q.weight, transformer_blocks.1" in message
    assert (
        "1 extra (surplus.weight)" in message and "1 mis-shaped (img_in.bias is (5), needs (32))" in message
    )
    assert "It is probably a Lens denoiser of another configuration" in message


def test_of_many_missing_keys_the_first_ten_are_listed(tmp_path):
    save_file(tiny_denoiser(num_layers=2).state_dict(), tmp_path / "d.safetensors")
    with pytest.raises(CheckpointError, match=r"26 missing \(([^,)]+, ){9}[^,)]+ and 16 more\)"):
        load_denoiser(tmp_path / "d.safetensors", config=DENOISER_CONFIG)


def test_a_setting_that_a_denoiser_does_not_know_is_refused(tmp_path):
    save_denoiser(tiny_denoiser(), tmp_path / "t")
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    (tmp_path / "t" / "config.json").write_text(json.dumps(config | {"rope_theta": 5}))
    with pytest.raises(CheckpointError, match=r"does not have: rope_theta"):
        load_denoiser(tmp_path / "t")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"], "a FLUX.1 denoiser"),
        (
            [
                "transformer_blocks.0.attn.norm_added_q.weight",
                "transformer_blocks.0.img_mlp.net.0.proj.weight",
            ],
            "a Qwen-Image denoiser",
        ),
        (["double_stream_modulation_img.lin.weight"], "a FLUX.2 denoiser"),
        (
            ["decoder.up.0.block.0.conv1.weight", "encoder.down.0.block.0.conv1.weight", "bn.running_mean"],
            "a FLUX.2 VAE",
        ),
        (["transformer_blocks.0.attn.img_qkv.lora_A.weight"], "a LoRA for Lens"),
        (["model.layers.0.self_attn.sinks"], "a GPT-OSS text encoder"),
    ],
)
def test_another_models_file_is_named(tmp_path, names, kind):
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=rf"not a Lens denoiser. It is probably {re.escape(kind)}"):
        load_denoiser(tmp_path / "x.safetensors")


# Whole folders.


def test_a_whole_folder_is_checked_from_headers_alone(tmp_path):
    from lens import LensPipeline

    LensPipeline(**tiny_components()).save_pretrained(tmp_path)
    check_folder(tmp_path)
    path = tmp_path / "text_encoder" / "model.safetensors"
    state = load_file(path)
    state["model.norm.scale"] = state.pop("model.norm.weight")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"GPT-OSS text encoder: 1 missing \(model.norm.weight\); 1 extra"
    ):
        check_folder(tmp_path)


# VAEs.


@pytest.mark.parametrize(
    "changes", [{}, {"layers_per_block": 2}, {"decoder_block_out_channels": (8, 8, 4, 8)}]
)
def test_a_vae_comes_back_under_both_namings(tmp_path, changes):
    vae = tiny_vae(**changes)
    save_vae_single_file(vae, tmp_path / "flux2-vae.safetensors")
    vae.save_pretrained(tmp_path / "vae")
    assert same_state(load_vae(tmp_path / "flux2-vae.safetensors"), vae)
    assert same_state(load_vae(tmp_path / "vae"), vae)
    save_file(vae.state_dict(), tmp_path / "diffusers_names.safetensors")
    assert same_state(load_vae(tmp_path / "diffusers_names.safetensors", config=vae.config), vae)
    with pytest.raises(CheckpointError, match=r"no multiples of 32.*Give its config"):
        load_vae(tmp_path / "diffusers_names.safetensors")


def test_the_configuration_of_a_plain_vae_is_read_off_the_shapes(tmp_path):
    vae = tiny_vae(block_out_channels=(32, 32, 64, 32), layers_per_block=2, norm_num_groups=32)
    own = to_flux2(
        open_safetensors(saved(vae.state_dict(), tmp_path / "a.safetensors")).tensors, num_levels=4
    )
    saved({name: tensor.read() for name, tensor in own.items()}, tmp_path / "b.safetensors")
    for name in ("a", "b"):
        loaded = load_vae(tmp_path / f"{name}.safetensors")
        assert same_state(loaded, vae) and loaded.config["layers_per_block"] == 2


def test_flux2s_own_names_are_the_published_ones(tmp_path):
    vae = tiny_vae()
    save_vae_single_file(vae, tmp_path / "v.safetensors")
    own, state = load_file(tmp_path / "v.safetensors"), vae.state_dict()
    pairs = {
        "encoder.down.2.block.0.nin_shortcut.weight": "encoder.down_blocks.2.resnets.0.conv_shortcut.weight",
        "encoder.down.1.downsample.conv.bias": "encoder.down_blocks.1.downsamplers.0.conv.bias",
        "decoder.up.3.block.1.conv2.weight": "decoder.up_blocks.0.resnets.1.conv2.weight",
        "decoder.up.1.upsample.conv.weight": "decoder.up_blocks.2.upsamplers.0.conv.weight",
        "decoder.mid.block_2.norm1.weight": "decoder.mid_block.resnets.1.norm1.weight",
        "encoder.mid.attn_1.norm.bias": "encoder.mid_block.attentions.0.group_norm.bias",
        "encoder.norm_out.weight": "encoder.conv_norm_out.weight",
        "encoder.quant_conv.weight": "quant_conv.weight",
        "decoder.post_quant_conv.bias": "post_quant_conv.bias",
        "bn.running_var": "bn.running_var",
    }
    assert len(own) == len(state)
    assert all(torch.equal(own[name], state[library]) for name, library in pairs.items())
    q = own["decoder.mid.attn_1.q.weight"]
    assert q.shape == (8, 8, 1, 1) and torch.equal(
        q[..., 0, 0], state["decoder.mid_block.attentions.0.to_q.weight"]
    )
    assert own["decoder.mid.attn_1.proj_out.weight"].shape == (8, 8, 1, 1)


def test_a_vae_of_flux1_is_named(tmp_path):
    state = {name: value for name, value in tiny_vae().state_dict().items() if not name.startswith("bn.")}
    save_file(state, tmp_path / "ae.safetensors")
    with pytest.raises(
        CheckpointError, match=r"not a FLUX.2 VAE. It is probably a VAE without latent statistics"
    ):
        load_vae(tmp_path / "ae.safetensors")


# Conversion.


def test_a_denoiser_goes_from_folder_to_files_and_back(tmp_path):
    model = tiny_denoiser()
    save_denoiser(model, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b.safetensors", "single-f32")
    convert(tmp_path / "b.safetensors", tmp_path / "c", "folder")
    assert str(tmp_path) not in (tmp_path / "c" / "config.json").read_text()
    assert same_state(load_denoiser(tmp_path / "c", None), model)
    convert(tmp_path / "c", tmp_path / "d.safetensors", "single-bf16")
    assert all(value.dtype == torch.bfloat16 for value in load_file(tmp_path / "d.safetensors").values())


def test_a_vae_goes_from_one_naming_to_the_other_and_back(tmp_path):
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "vae")
    convert(tmp_path / "vae", tmp_path / "v.safetensors", "vae-flux2")
    convert(tmp_path / "v.safetensors", tmp_path / "again", "vae-diffusers")
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()
    assert same_state(load_vae(tmp_path / "again"), vae)


def test_a_target_that_exists_and_an_unknown_format_are_refused(tmp_path):
    save_denoiser(tiny_denoiser(), tmp_path / "a")
    with pytest.raises(SettingError, match=r"a path that does not exist yet"):
        convert(tmp_path / "a", tmp_path / "a", "folder")
    with pytest.raises(SettingError, match=rf"one of {', '.join(FORMATS)}"):
        convert(tmp_path / "a", tmp_path / "b", "zip")
    with pytest.raises(SettingError, match=r"ends in .safetensors"):
        convert(tmp_path / "a", tmp_path / "b", "single-f32")
