"""Every layout that circulates, written at random on tiny sizes, loads with the project's own loaders."""

import json
import math

import make_full_size as script
import pytest
import random_weights
import torch
from safetensors.torch import load_file
from tiny_models import tiny_tokenizer

from lens import LensPipeline
from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.gguf_header import read_gguf_header
from lens.models.checkpoints.reader import read_header
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.checkpoints.single_file import load_denoiser
from lens.models.checkpoints.text_encoder import load_text_encoder
from lens.models.checkpoints.vae import load_vae
from lens.models.quantized import mxfp8, nvfp4
from lens.models.shapes import denoiser_shapes, vae_shapes

DENOISERS = {
    "folder": "lens",
    "folder-f32": "lens-f32",
    "single-bf16": "diffusion_models/lens_bf16.safetensors",
    "single-mxfp8": "diffusion_models/lens_mxfp8.safetensors",
    **{f"gguf-{kind.lower()}": f"diffusion_models/lens_{kind.lower()}.gguf" for kind in script.GGUF_KINDS},
}
ENCODERS = {
    "folder": "lens",
    "encoder-nvfp4": "text_encoders/gpt_oss_20b_nvfp4.safetensors",
    "encoder-gguf": "text_encoders/gpt_oss_20b_mxfp4.gguf",
}
VAES = {"folder": "lens", "vae-flux2": "vae/flux2-vae.safetensors", "vae-diffusers": "vae-diffusers"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    """A ComfyUI models folder with every layout."""
    out = tmp_path_factory.mktemp("models")
    for write in script.LAYOUTS.values():
        write(script.tiny_request(out, tokenizer))
    return out


@torch.no_grad()
def velocity(denoiser):
    config, generator = denoiser.config, torch.Generator().manual_seed(0)
    text = [torch.randn(1, 7, config["enc_hidden_dim"], generator=generator) for _ in range(2)]
    image = torch.randn(1, 24, config["in_channels"], generator=generator)
    return denoiser(
        hidden_states=image,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=torch.ones(1, 7, dtype=torch.bool),
        timestep=torch.tensor([0.7]),
        img_shapes=[(1, 4, 6)],
        return_dict=False,
    )[0]


@torch.no_grad()
def features(encoder):
    ids = torch.arange(5, 45).reshape(2, 20)
    return torch.stack(encoder.text_features(ids, torch.ones_like(ids), layers=(0, 2)))


@pytest.mark.parametrize("layout", DENOISERS)
def test_velocities_are_finite_and_of_the_same_size_in_every_layout(models, layout):
    loaded = load_denoiser(models / DENOISERS[layout], torch.float32)
    drawn, plain = velocity(loaded), velocity(load_denoiser(models / "lens", torch.float32))
    assert drawn.isfinite().all() and drawn.unique().numel() > 100
    assert 0.8 < drawn.std() / plain.std() < 1.25


def test_the_plain_layouts_hold_the_same_denoiser(models):
    names = ("folder", "folder-f32", "single-bf16")
    states = [load_denoiser(models / DENOISERS[name], torch.bfloat16).state_dict() for name in names]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) and torch.equal(value, states[2][name])


def test_the_released_sizes_are_the_default_and_need_no_configuration_in_the_file(tmp_path):
    request = script.Request(tmp_path)
    assert (request.denoiser, request.text_encoder, request.vae) == (LENS_DENOISER, GPT_OSS_20B, FLUX2_VAE)
    shapes = denoiser_shapes(request.denoiser)
    assert len(shapes) == 1264 and sum(map(math.prod, shapes.values())) == 4_104_225_152
    assert script._denoiser_metadata(request) == {"format": "pt"}


def test_widths_that_are_no_multiple_of_32_are_written_where_the_format_allows(tmp_path, tokenizer):
    narrow = {"attention_head_dim": 16, "inner_dim": 48, "axes_dims_rope": (4, 6, 6)}
    request = script.tiny_request(tmp_path, tokenizer)
    request = request._replace(denoiser=request.denoiser | narrow)
    for layout in ("single-bf16", "single-mxfp8", "gguf-q4_0"):
        (path,) = script.LAYOUTS[layout](request)
        loaded = load_denoiser(path, torch.float32)
        assert loaded.config["inner_dim"] == 48 and velocity(loaded).isfinite().all()
    header, _ = read_header(tmp_path / "diffusion_models/lens_mxfp8.safetensors")
    assert header["transformer_blocks.0.img_mlp.w2.weight"][0] == "F8_E4M3"  # 128 inputs
    assert header["transformer_blocks.0.attn.img_qkv.weight"][0] == "BF16"  # 48 inputs
    formats = read_gguf_header(tmp_path / "diffusion_models/lens_q4_0.gguf").tensors
    assert formats["transformer_blocks.0.img_mlp.w2.weight"].format == "Q4_0"
    assert formats["transformer_blocks.0.attn.img_qkv.weight"].format == "F16"


def test_mxfp8_has_attention_and_mlps_in_8_bits_and_keeps_modulation_and_projections(models):
    path = models / DENOISERS["single-mxfp8"]
    header, metadata = read_header(path)
    layer = "transformer_blocks.1.attn.to_add_out"
    # 96 outputs and 3 groups of inputs, padded to whole tiles.
    assert header[f"{layer}.weight"] == ("F8_E4M3", (96, 96))
    assert header[f"{layer}.weight_scale"] == ("U8", (128, 4))
    kept = ("img_in", "txt_in", "proj_out", "norm_out.linear", "transformer_blocks.0.txt_mod.1")
    assert all(header[f"{name}.weight"][0] == "BF16" for name in kept)
    assert not any(f"{name}.weight_scale" in header for name in kept)
    assert "lens_config" in metadata
    stored = load_file(path)
    assert json.loads(bytes(stored[f"{layer}.comfy_quant"].tolist())) == {"format": "mxfp8"}
    values = mxfp8.dequantize(stored[f"{layer}.weight"], stored[f"{layer}.weight_scale"])
    assert values.std().item() == pytest.approx(96**-0.5, rel=0.05)
    assert stored[f"{layer}.weight_scale"].unique().numel() == 3  # two exponents, and zero as padding


def test_q8_0_has_the_blocks_in_8_bits_and_vectors_in_float32(models):
    tensors = read_gguf_header(models / DENOISERS["gguf-q8_0"]).tensors
    shapes = denoiser_shapes(script.TINY["denoiser"] | {"patch_size": 2})
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    assert tensors["transformer_blocks.0.txt_mod.1.weight"].format == "Q8_0"
    assert tensors["img_in.weight"].format == "F16" and tensors["img_in.bias"].format == "F32"


@pytest.mark.parametrize("layout", ENCODERS)
def test_features_are_finite_and_of_the_same_size_in_every_layout(models, layout):
    drawn = features(load_text_encoder(models / ENCODERS[layout], torch.float32))
    plain = features(load_text_encoder(models / "lens", torch.float32))
    assert drawn.isfinite().all()
    assert 0.8 < drawn.std() / plain.std() < 1.25


def test_every_expert_gets_tokens(models):
    encoder = load_text_encoder(models / "lens", torch.float32)
    chosen: list[torch.Tensor] = []
    for layer in encoder.model.layers:
        layer.mlp.router.register_forward_hook(lambda module, args, out: chosen.append(out[-1]))
    features(encoder)
    assert len(chosen) == 3
    assert all(set(layer.flatten().tolist()) == set(range(5)) for layer in chosen)


def test_the_nvfp4_encoder_is_as_comfyui_publishes_it(models, tokenizer):
    path = models / ENCODERS["encoder-nvfp4"]
    stored = load_file(path)
    assert not any(name.startswith(("model.", "lm_head")) for name in stored)
    assert bytes(stored["tokenizer_json"].tolist()) == (tokenizer / "tokenizer.json").read_bytes()
    experts = "layers.1.mlp.experts.down_proj"
    weight, scale, matrix_scale = (
        stored[f"{experts}.{part}"] for part in ("weight", "weight_scale", "weight_scale_2")
    )
    assert (weight.shape, weight.dtype) == ((5, 64, 16), torch.uint8)
    assert (scale.shape, scale.dtype) == ((5, 128, 4), torch.float8_e4m3fn)
    assert (matrix_scale.shape, matrix_scale.dtype) == ((5,), torch.float32)
    values = nvfp4.dequantize(weight, scale, matrix_scale)
    assert values.std().item() == pytest.approx(32**-0.5, rel=0.1)


def test_the_mxfp4_folder_is_as_published(models):
    config = json.loads((models / "lens/text_encoder/config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "mxfp4"
    assert config["rope_parameters"]["rope_type"] == "yarn" and config["rope_parameters"]["factor"] == 32.0
    index = json.loads((models / "lens/text_encoder/model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 1
    header = {}
    for shard in shards:
        header |= read_header(models / "lens/text_encoder" / shard)[0]
    experts = "model.layers.2.mlp.experts"
    assert header[f"{experts}.gate_up_proj_blocks"] == ("U8", (5, 64, 2, 16))
    assert header[f"{experts}.gate_up_proj_scales"] == ("U8", (5, 64, 2))
    assert header[f"{experts}.down_proj_bias"] == ("BF16", (5, 64))
    assert "lm_head.weight" in header
    index = json.loads((models / "lens/model_index.json").read_text())
    assert index["text_encoder"] == ["transformers", "LensGptOssEncoder"]
    vae = json.loads((models / "lens/vae/config.json").read_text())
    assert vae["force_upcast"] is True  # as published, though diffusers' class does not take it


def test_the_gguf_encoder_is_as_llama_cpp_stores_it(models):
    header = read_gguf_header(
        models / ENCODERS["encoder-gguf"],
        arrays=[f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges")],
    )
    assert header.tensors["blk.1.ffn_gate_exps.weight"].format == "MXFP4"
    assert header.tensors["blk.1.ffn_gate_exps.weight"].shape == (5, 32, 64)
    assert header.tensors["blk.1.ffn_up_exps.bias"].shape == (5, 32)
    assert header.tensors["blk.0.attn_sinks.weight"].format == "F32"
    assert (
        header.tensors["token_embd.weight"].format == header.tensors["blk.0.attn_q.weight"].format == "Q8_0"
    )
    settings, tokenizer = header.settings, tiny_tokenizer()
    assert settings["general.architecture"] == "gpt-oss" and settings["gpt-oss.expert_count"] == 5
    assert (settings["tokenizer.ggml.model"], settings["tokenizer.ggml.pre"]) == ("gpt2", "gpt-4o")
    tokens = settings["tokenizer.ggml.tokens"]
    assert tokens == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert settings["tokenizer.ggml.token_type"][tokenizer.eos_token_id] == 3
    assert all(len(merge.split(" ")) == 2 for merge in settings["tokenizer.ggml.merges"])


def test_all_layouts_of_the_vae_hold_the_same_values(models):
    vaes = [load_vae(models / path) for path in VAES.values()]
    shapes = vae_shapes(FLUX2_VAE | script.TINY["vae"])
    first = vaes[0].state_dict()
    assert {name: tuple(value.shape) for name, value in first.items()} == shapes
    for vae in vaes[1:]:
        assert all(torch.equal(value, first[name]) for name, value in vae.state_dict().items())
    assert (first["bn.running_var"] > 0).all()
    with torch.no_grad():
        assert vaes[0].decode(torch.ones(1, 4, 3, 5)).sample.isfinite().all()


def test_a_vae_with_settings_of_another_model_is_refused(models, tmp_path):
    settings = json.loads((models / "vae-diffusers/config.json").read_text()) | {"scaling_factor": 0.3}
    with pytest.raises(CheckpointError, match=r"settings that the FLUX.2 VAE does not have: scaling_factor"):
        load_vae(models / "vae-diffusers", config={k: v for k, v in settings.items() if k[0] != "_"})


def test_the_folder_draws_an_image(models):
    pipeline = LensPipeline.from_pretrained(models / "lens")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a fox", height=32, width=48, num_inference_steps=1, guidance_scale=1.0).images[0]
    assert image.size == (48, 32) and len(image.getcolors(maxcolors=10_000) or []) > 100


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(tmp_path, tokenizer):
    request = script.tiny_request(tmp_path, tokenizer)
    contents = []
    for seed in (0, 0, 1):
        (path,) = script.write_single_mxfp8(request._replace(seed=seed))
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("kind", random_weights.GGUF_SCALES)
def test_random_blocks_have_the_size_that_is_asked_for(kind):
    import gguf

    stored = random_weights.gguf_blocks(0, "w", (37, 1280), kind, 0.02)
    blocks = torch.cat(list(stored.read())).numpy()
    values = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert values.size == 37 * 1280
    assert values.std() == pytest.approx(0.02, rel=0.1) and abs(values.mean()) < 0.002


def test_values_are_normal_and_come_in_small_pieces():
    huge = random_weights.normal(0, "w", (10**6, 10**6), "BF16", std=3.0, mean=1.0)
    piece = next(iter(huge.read())).float()
    assert len(piece) <= random_weights.PIECE
    assert piece.mean().item() == pytest.approx(1.0, abs=0.02) and piece.std().item() == pytest.approx(
        3, rel=0.01
    )
    # Of a normal distribution, 4.55 % lie beyond two standard deviations.
    assert ((piece - 1).abs() > 6).float().mean().item() == pytest.approx(0.0455, rel=0.05)


def test_the_command_prints_a_line_for_each_layout_and_takes_other_sizes(tmp_path, capsys):
    script.main([str(tmp_path), "--tiny", "--layout", "single-bf16", "folder", "--components", "transformer",
                 "--denoiser", '{"num_layers": 1}'])  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["single-bf16", "folder"]
    assert all(" s, peak " in line for line in said)
    assert not (tmp_path / "lens/text_encoder").exists()
    assert load_denoiser(tmp_path / "lens").config["num_layers"] == 1


def test_a_text_encoder_without_a_tokenizer_is_an_error(tmp_path):
    with pytest.raises(SettingError, match="--tokenizer"):
        script.write_encoder_nvfp4(script.Request(tmp_path))
