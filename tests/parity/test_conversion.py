"""Conversion of tiny models from every layout into every other: values are those of the formats' formulas."""

import json
import re

import gguf
import numpy as np
import pytest
import torch
from comparisons import relative_error, velocity
from safetensors.torch import load_file, save_file
from test_quantized_formats import nvfp4_tensors
from tiny_models import tiny_denoiser, tiny_encoder, tiny_tokenizer

from lens.errors import CheckpointError, LensError, SettingError
from lens.models.checkpoints.components.tokenizer import load_tokenizer_backend
from lens.models.checkpoints.conversion.formats import FORMATS, formats_of
from lens.models.checkpoints.convert import convert
from lens.models.checkpoints.gguf_header import read_gguf_header
from lens.models.checkpoints.single_file import load_denoiser
from lens.models.checkpoints.text_encoder import load_text_encoder
from lens.models.quantized import mxfp8, nvfp4

# Widths 96 and 256 divide by 32 and not by 128; text features of 24 do not divide by 32, and stay plain.
WIDE = {
    "attention_head_dim": 32,
    "num_attention_heads": 3,
    "inner_dim": 96,
    "axes_dims_rope": (8, 12, 12),
    "num_layers": 2,
}
# Experts of 64 inputs and 2 x 96 outputs, then 96 and 64.
ENCODER = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
KEPT = ("img_mod", "txt_mod", "img_in", "txt_in", "proj_out", "time_text_embed", "norm_out")
DENOISER_FORMATS, ENCODER_FORMATS = formats_of("denoiser"), formats_of("text-encoder")
DENOISER_SOURCES = ("folder", "single-bf16", "mxfp8", "gguf-f16", "gguf-q8_0", "gguf-q4_0")
ENCODER_SOURCES = ("folder", "single-bf16", "nvfp4", "mxfp4", "gguf-bf16", "gguf-q8_0", "gguf-mxfp4")
EXACT = {
    "mxfp4": ("mxfp4", "gguf-mxfp4", "nvfp4"), "gguf-mxfp4": ("mxfp4", "gguf-mxfp4", "nvfp4"),
    "nvfp4": ("nvfp4",),
}  # fmt: skip
"""The formats that hold the experts of another format without a change."""


def bf16(values: torch.Tensor) -> torch.Tensor:
    return values.bfloat16().float()


def q8_0(values: torch.Tensor) -> torch.Tensor:
    """32 numbers have a float16 scale, the largest of them 127."""
    blocks = values.unflatten(-1, (-1, 32))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(scale > 0, blocks * (1 / scale), 0)
    away = steps.sign() * (steps.abs() + 0.5).floor()
    return (away * scale.half().float()).flatten(-2)


def q4_0(values: torch.Tensor) -> torch.Tensor:
    """32 numbers have a float16 scale, the largest of them -8 of it."""
    blocks = values.unflatten(-1, (-1, 32))
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    steps = torch.where(scale != 0, (blocks * (1 / scale) + 8.5).trunc().clamp(0, 15) - 8, 0)
    return (steps * scale.half().float()).flatten(-2)


def mxfp4(values: torch.Tensor) -> torch.Tensor:
    """32 numbers have a power of two, at which the largest, rounded to two bits, is at most 6."""
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    blocks = values.unflatten(-1, (-1, 32))
    largest = blocks.abs().amax(-1, keepdim=True).double()
    exponent = (largest.log2().floor() - 2).clamp(min=-127)
    exponent += largest / 2**exponent > 7
    scale = (2.0**exponent).float()
    nearest = ((blocks / scale).abs()[..., None] - levels).abs().argmin(-1)
    return (levels[nearest] * blocks.sign() * scale).flatten(-2)


def by_matrix(function):
    """Let a function of one matrix apply to each expert of a stack."""
    return lambda values: torch.stack([function(v) for v in values]) if values.ndim == 3 else function(values)


FORMULAS = {
    "mxfp8": lambda values: mxfp8.dequantize(*mxfp8.quantize(values)),
    "nvfp4": by_matrix(lambda values: nvfp4.dequantize(*nvfp4.quantize(values))),
    "mxfp4": mxfp4,
    "gguf-mxfp4": mxfp4,
    "gguf-q8_0": q8_0,
    "gguf-q4_0": q4_0,
    "gguf-f16": lambda values: values.half().float(),
}
"""The values (O, I) that a format gives layers that it quantizes; bfloat16 elsewhere."""


def converted_denoiser_value(name: str, value: torch.Tensor, target: str, is_float32: bool) -> torch.Tensor:
    if target == "single-f32" or (target == "folder" and is_float32):
        return value
    if target.startswith("gguf") and value.ndim < 2:
        return value  # float32
    if value.ndim == 2 and not any(piece in KEPT for piece in name.split(".")):
        return FORMULAS.get(target, bf16)(value)
    return FORMULAS[target](value) if target == "gguf-f16" else bf16(value)


def converted_encoder_value(name: str, value: torch.Tensor, target: str, is_float32: bool) -> torch.Tensor:
    formula = FORMULAS.get(target, bf16)
    if target == "folder" and is_float32:
        return value
    if target.startswith("gguf") and (value.ndim < 2 or "router" in name or name.endswith("_bias")):
        return value
    if value.ndim == 3:
        return formula(value.transpose(1, 2)).transpose(1, 2)
    if "_proj." in name and target in ("gguf-q8_0", "gguf-q4_0"):
        return formula(value)
    return value.half().float() if target == "gguf-f16" else bf16(value)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's folder with a denoiser, a text encoder and a tokenizer, and its parts in every format."""
    root = tmp_path_factory.mktemp("conversion")
    tiny_denoiser(**WIDE).save_pretrained(root / "model" / "transformer")
    tiny_encoder(**ENCODER).save_pretrained(root / "model" / "text_encoder")
    tiny_tokenizer().save_pretrained(root / "model" / "tokenizer")
    for name in (*DENOISER_FORMATS, *ENCODER_FORMATS):
        for part in FORMATS[name].parts:
            if not (root / place(name, part)).exists():
                convert(root / "model", root / place(name, part), name, part)
    return root


def place(name: str, part: str) -> str:
    return f"{part}-{name}{FORMATS[name].suffix}"


def denoiser_state(path):
    return load_denoiser(path, torch.float32, keep_packed=False).state_dict()


def encoder_state(path):
    return load_text_encoder(path, torch.float32, keep_packed=False).state_dict()


@pytest.mark.parametrize("target", DENOISER_FORMATS)
def test_a_denoiser_of_any_layout_gets_the_values_of_the_formats_formula(model, tmp_path, target):
    for source in DENOISER_SOURCES:
        before = denoiser_state(model / place(source, "denoiser"))
        path = tmp_path / f"{source}{FORMATS[target].suffix}"
        convert(model / place(source, "denoiser"), path, target)
        after, is_float32 = denoiser_state(path), source in ("folder", "single-f32")
        assert list(after) == list(before)
        for name, value in before.items():
            expected = converted_denoiser_value(name, value, target, is_float32)
            assert torch.equal(after[name], expected), (source, name)


@pytest.mark.parametrize("target", ENCODER_FORMATS)
def test_a_text_encoder_of_any_layout_gets_the_values_of_the_formats_formula(model, tmp_path, target):
    for source in ENCODER_SOURCES:
        before = encoder_state(model / place(source, "text-encoder"))
        path = tmp_path / f"{source}{FORMATS[target].suffix}"
        tokenizer = model / "model" / "tokenizer"
        convert(model / place(source, "text-encoder"), path, target, tokenizer=tokenizer)
        after = encoder_state(path)
        heads = {"lm_head.weight"} if "nvfp4" in (source, target) else set()
        assert set(after) - heads == set(before) - heads
        for name in set(before) - heads:
            expected = converted_encoder_value(name, before[name], target, source == "folder")
            is_exact = before[name].ndim == 3 and target in EXACT.get(source, ())
            assert torch.equal(after[name], before[name] if is_exact else expected), (source, name)


def test_the_features_and_velocities_of_converted_models_are_near_those_of_the_first(model):
    bounds = {"mxfp8": 0.05, "gguf-q8_0": 0.02, "gguf-q4_0": 0.1}
    expected = velocity(load_denoiser(model / "model", torch.float32))
    for name in DENOISER_FORMATS:
        got = velocity(load_denoiser(model / place(name, "denoiser"), torch.float32))
        assert relative_error(got, expected) < bounds.get(name, 0.01), name
    ids = torch.arange(7, 27).reshape(2, 10)

    def features(path):
        return torch.stack(load_text_encoder(path, torch.float32).text_features(ids, layers=(0, 1)))

    expected = features(model / "model")
    for name in ENCODER_FORMATS:
        bound = 0.3 if name == "gguf-q4_0" else 0.05
        assert relative_error(features(model / place(name, "text-encoder")), expected) < bound, name


# Bytes that stay.


def stored_in_gguf(path):
    return {
        tensor.name: (tensor.tensor_type.name, np.array(tensor.data))
        for tensor in gguf.GGUFReader(path).tensors
    }


def test_mxfp4_goes_to_gguf_and_back_without_a_changed_byte(model, tmp_path):
    published = model / place("mxfp4", "text-encoder")
    convert(published, tmp_path / "a.gguf", "gguf-mxfp4")
    convert(tmp_path / "a.gguf", tmp_path / "back", "mxfp4")
    before, after = (load_file(folder / "model.safetensors") for folder in (published, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    kinds = {name: kind for name, (kind, _) in stored_in_gguf(tmp_path / "a.gguf").items()}
    assert {kind for name, kind in kinds.items() if name.endswith("_exps.weight")} == {"MXFP4"}


def test_mxfp4_comes_back_from_nvfp4_with_its_values(model, tmp_path):
    published, tokenizer = model / place("mxfp4", "text-encoder"), model / "model" / "tokenizer"
    convert(published, tmp_path / "a.safetensors", "nvfp4", tokenizer=tokenizer)
    convert(tmp_path / "a.safetensors", tmp_path / "back", "mxfp4")
    before, after = encoder_state(published), encoder_state(tmp_path / "back")
    assert all(torch.equal(after[name], before[name]) for name in after)


@pytest.mark.parametrize("name", ["gguf-q8_0", "gguf-q4_0", "gguf-mxfp4"])
def test_a_gguf_file_in_the_same_type_is_copied(model, tmp_path, name):
    source = model / place(name, "text-encoder")
    convert(source, tmp_path / "a.gguf", name)
    before, after = stored_in_gguf(source), stored_in_gguf(tmp_path / "a.gguf")
    assert before.keys() == after.keys()
    for key, (kind, values) in before.items():
        assert after[key][0] == kind and np.array_equal(after[key][1], values), key


@pytest.mark.parametrize(("part", "name"), [("denoiser", "mxfp8"), ("text-encoder", "nvfp4")])
def test_a_safetensors_file_in_the_same_format_is_copied(model, tmp_path, part, name):
    source = model / place(name, part)
    convert(source, tmp_path / "a.safetensors", name)
    before, after = load_file(source), load_file(tmp_path / "a.safetensors")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.dtype == after[key].dtype
        assert torch.equal(value.view(torch.uint8), after[key].view(torch.uint8)), key


# Names, and what stays in high precision.


def test_an_nvfp4_file_is_as_published(model):
    stored = load_file(model / place("nvfp4", "text-encoder"))
    experts = "layers.1.mlp.experts.gate_up_proj"
    assert {name for name in stored if name.startswith(experts)} == {
        f"{experts}.{part}" for part in ("weight", "weight_scale", "weight_scale_2", "bias", "comfy_quant")
    }
    assert stored[f"{experts}.weight"].shape == (3, 192, 32)
    assert stored[f"{experts}.weight_scale"].shape == (3, 256, 4)
    assert stored[f"{experts}.weight_scale_2"].shape == (3,)
    assert "lm_head.weight" not in stored and not any(name.startswith("model.") for name in stored)
    assert (
        bytes(stored["tokenizer_json"].tolist())
        == (model / "model" / "tokenizer" / "tokenizer.json").read_bytes()
    )
    plain = {
        value.dtype for name, value in stored.items() if "experts" not in name and name != "tokenizer_json"
    }
    assert plain == {torch.bfloat16}


@pytest.mark.parametrize("name", ["mxfp8", "gguf-q8_0", "gguf-q4_0"])
def test_modulation_and_projections_of_a_denoiser_keep_their_precision(model, name):
    path = model / place(name, "denoiser")
    if name == "mxfp8":
        kinds = {key: str(value.dtype) for key, value in load_file(path).items() if key.endswith(".weight")}
    else:
        kinds = {key: kind for key, (kind, _) in stored_in_gguf(path).items() if key.endswith(".weight")}
    shapes = {key: value.shape for key, value in load_denoiser(path, torch.float32).state_dict().items()}
    kept = {key for key in kinds if any(piece in KEPT for piece in key.split("."))}
    assert len(kept) == 2 * 2 + 6
    assert {kinds[key] for key in kept} == {"torch.bfloat16" if name == "mxfp8" else "BF16"}
    rest = {kinds[key] for key in kinds if key not in kept and len(shapes[key]) == 2}
    assert rest == {{"mxfp8": "torch.float8_e4m3fn", "gguf-q8_0": "Q8_0", "gguf-q4_0": "Q4_0"}[name]}


def test_router_embeddings_norms_sinks_and_biases_of_an_encoder_keep_their_precision(model):
    stored = stored_in_gguf(model / place("gguf-q8_0", "text-encoder"))
    kinds = {re.sub(r"blk\.\d\.", "", name): kind for name, (kind, _) in stored.items()}
    quantized = {name for name, kind in kinds.items() if kind == "Q8_0"}
    assert quantized == {
        *(f"attn_{name}.weight" for name in ("q", "k", "v", "output")),
        *(f"ffn_{name}_exps.weight" for name in ("gate", "up", "down")),
    }
    assert {name for name, kind in kinds.items() if kind == "BF16"} == {"token_embd.weight", "output.weight"}


def test_a_gguf_encoder_has_the_sizes_and_the_tokenizer_that_llama_cpp_reads(model):
    path = model / place("gguf-mxfp4", "text-encoder")
    settings = read_gguf_header(path, arrays=["tokenizer.ggml.tokens"]).settings
    assert settings["general.architecture"] == "gpt-oss"
    sizes = {"block_count": 2, "embedding_length": 64, "expert_count": 3, "attention.sliding_window": 16}
    assert sizes.items() <= {key.removeprefix("gpt-oss."): value for key, value in settings.items()}.items()
    assert settings["gpt-oss.rope.scaling.type"] == "yarn"
    assert settings["gpt-oss.rope.scaling.factor"] == 32.0
    assert len(settings["tokenizer.ggml.tokens"]) == settings["gpt-oss.vocab_size"]
    text = "<|start|>two red apples, on a blue background<|end|>"
    # Not the backend alone: whether it knows control tokens is a state, which other uses of it change.
    ours = tiny_tokenizer()(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    assert load_tokenizer_backend(path).encode(text).ids == ours


def test_the_tokenizer_goes_along_from_a_file_to_a_folder_and_on(model, tmp_path):
    convert(model / place("nvfp4", "text-encoder"), tmp_path / "folder", "mxfp4")
    text = (model / "model" / "tokenizer" / "tokenizer.json").read_bytes()
    assert (tmp_path / "folder" / "tokenizer.json").read_bytes() == text
    convert(tmp_path / "folder", tmp_path / "b.safetensors", "single-bf16")
    assert bytes(load_file(tmp_path / "b.safetensors")["tokenizer_json"].tolist()) == text


def test_an_nvfp4_file_without_a_tokenizer_is_refused_and_nothing_is_left(model, tmp_path):
    convert(model / "model" / "text_encoder", tmp_path / "alone", "mxfp4")
    with pytest.raises(SettingError, match=r"tokenizer.json, as nvfp4 has one inside.*Use --tokenizer FILE"):
        convert(tmp_path / "alone", tmp_path / "a.safetensors", "nvfp4")
    assert [path.name for path in tmp_path.iterdir()] == ["alone"]


def test_a_folder_names_its_class_and_its_quantization(model):
    config = json.loads((model / place("mxfp4", "text-encoder") / "config.json").read_text())
    assert config["architectures"] == ["LensGptOssEncoder"] and config["model_type"] == "gpt_oss"
    assert config["quantization_config"]["quant_method"] == "mxfp4"
    config = json.loads((model / place("folder", "text-encoder") / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float32"


def test_a_folder_that_comes_from_a_file_without_an_lm_head_encodes_and_refuses_to_generate(model, tmp_path):
    convert(model / place("nvfp4", "text-encoder"), tmp_path / "folder", "folder")
    loaded = load_text_encoder(tmp_path / "folder", torch.float32)
    with pytest.raises(LensError, match="no LM head"):
        loaded.generate(torch.tensor([[7, 8]]), max_new_tokens=1)


def test_a_quantized_file_with_inputs_first_becomes_a_folder_in_bfloat16(tmp_path):
    encoder = tiny_encoder(**ENCODER)
    tensors, values = nvfp4_tensors(encoder, separator="_", outputs_first=False)
    plain = {name: tensor.float() if tensor.ndim < 3 and tensor.is_floating_point() else tensor
             for name, tensor in tensors.items()}  # fmt: skip
    save_file(plain, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "folder", "folder")
    stored = load_file(tmp_path / "folder" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    for name in ("gate_up_proj", "down_proj"):
        name = f"model.layers.1.mlp.experts.{name}"
        assert torch.equal(stored[name], values[name].bfloat16())


# Widths that blocks do not divide.


@pytest.mark.parametrize("name", ["mxfp8", "gguf-q8_0", "gguf-q4_0"])
def test_a_denoiser_whose_width_blocks_do_not_divide_is_refused_by_the_tensors_name(tmp_path, name):
    tiny_denoiser(num_layers=1).save_pretrained(tmp_path / "d")  # the MLP has 85 inner channels
    said = r"transformer_blocks.0.img_mlp.w2.weight has 85 inputs, but .* needs a multiple of 32.*gguf-bf16"
    with pytest.raises(CheckpointError, match=said):
        convert(tmp_path / "d", tmp_path / f"a{FORMATS[name].suffix}", name)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_other_formats_take_any_width(tmp_path):
    model = tiny_denoiser(num_layers=1)
    model.save_pretrained(tmp_path / "d")
    for name in ("gguf-bf16", "gguf-f16"):
        convert(tmp_path / "d", tmp_path / f"{name}.gguf", name)
        error = relative_error(
            velocity(load_denoiser(tmp_path / f"{name}.gguf", torch.float32)), velocity(model)
        )
        assert error < 0.01


def test_nvfp4_takes_16_inputs_where_mxfp4_needs_32(tmp_path):
    encoder = tiny_encoder(hidden_size=48, intermediate_size=32, num_hidden_layers=1)
    encoder.save_pretrained(tmp_path / "e")
    tokenizer = tmp_path / "tokenizer.json"
    tiny_tokenizer().backend_tokenizer.save(str(tokenizer))
    convert(tmp_path / "e", tmp_path / "a.safetensors", "nvfp4", tokenizer=tokenizer)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    before, after = encoder.state_dict()[name], encoder_state(tmp_path / "a.safetensors")[name]
    assert torch.equal(after, FORMULAS["nvfp4"](before.transpose(1, 2)).transpose(1, 2))
    with pytest.raises(CheckpointError, match=rf"{name} has 48 inputs, but mxfp4 needs a multiple of 32"):
        convert(tmp_path / "e", tmp_path / "b", "mxfp4")


def test_values_that_are_not_finite_are_named_and_not_written(tmp_path):
    model = tiny_denoiser(**WIDE)
    weight = model.transformer_blocks[1].img_mlp.w1.weight
    for name, value in (("gguf-f16", 1e6), ("mxfp8", float("nan"))):
        weight.data[3, 5] = value
        model.save_pretrained(tmp_path / "d")
        with pytest.raises(
            CheckpointError, match=r"transformer_blocks.1.img_mlp.w1.weight has values that are"
        ):
            convert(tmp_path / "d", tmp_path / f"a{FORMATS[name].suffix}", name)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
