"""Quantised files of whole tiny models: written number by number, read by the package, compared in value.

GGUF's K formats are packed by hand from llama.cpp's description, since the gguf package only reads them.
"""

import json

import gguf
import numpy as np
import pytest
import torch
from comparisons import relative_error, velocity
from safetensors.torch import save_file
from tiny_models import DENOISER_CONFIG, tiny_denoiser, tiny_encoder, tiny_tokenizer

from lens.errors import CheckpointError, LensError
from lens.models.checkpoints.single_file import load_denoiser
from lens.models.checkpoints.text_encoder import load_text_encoder
from lens.models.quantized import mxfp8, nvfp4
from lens.models.quantized.packed_modules import PackedExperts, packed_formats

# Width 96 and MLP width 256 divide by 32; no side divides by 128, so every scale matrix is padded.
WIDE = {
    "attention_head_dim": 32,
    "num_attention_heads": 3,
    "inner_dim": 96,
    "axes_dims_rope": (8, 12, 12),
    "num_layers": 2,
}
WIDE_CONFIG = DENOISER_CONFIG | WIDE


def is_linear(name, value):
    return name.endswith(".weight") and value.ndim == 2 and value.shape[1] % 32 == 0


def json_bytes(values):
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_an_mxfp8_denoiser_has_the_values_that_its_bytes_say(tmp_path, prefix):
    model = tiny_denoiser(**WIDE)
    tensors, expected = {}, {}
    for name, value in model.state_dict().items():
        if not is_linear(name, value):
            tensors[prefix + name] = expected[name] = value
            continue
        weight, scale = mxfp8.quantize(value)
        layer = prefix + name.removesuffix(".weight")
        tensors |= {
            f"{layer}.weight": weight,
            f"{layer}.weight_scale": scale,
            f"{layer}.comfy_quant": json_bytes({"format": "mxfp8"}),
        }
        expected[name] = mxfp8.dequantize(weight, scale)
    path = tmp_path / "lens_mxfp8.safetensors"
    save_file(tensors, path)
    loaded = load_denoiser(path, torch.float32, config=WIDE_CONFIG)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in expected.items())
    assert 0.001 < relative_error(velocity(loaded), velocity(model)) < 0.05
    assert load_denoiser(path, torch.bfloat16, config=WIDE_CONFIG).dtype == torch.bfloat16


def q8_0(values):
    """Blocks of 32: a float16 scale, 32 signed bytes."""
    return gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)


def k_scales(scales, mins):
    """Pack eight 6-bit scales and mins into the 12 bytes of Q4_K and Q5_K."""
    packed = [0] * 12
    for j in range(4):
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6
        packed[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] & 15) << 4
    return bytes(packed)


def half_bytes(value):
    return np.float16(value).tobytes()


def q4_k_block(rng):
    """256 numbers: value = d * scale * q - dmin * min, q of 4 bits, eight groups of 32."""
    scales, mins, q = rng.integers(0, 64, 8), rng.integers(0, 64, 8), rng.integers(0, 16, (8, 32))
    low_then_high = [q[2 * pair] | q[2 * pair + 1] << 4 for pair in range(4)]
    block = half_bytes(0.01) + half_bytes(0.02) + k_scales(scales.tolist(), mins.tolist())
    block += np.stack(low_then_high).astype(np.uint8).tobytes()
    values = (
        np.float16(0.01).astype(float) * scales[:, None] * q - np.float16(0.02).astype(float) * mins[:, None]
    )
    return block, values.reshape(256)


def q5_k_block(rng):
    """As Q4_K with a fifth bit: bit g of byte j of the high bits belongs to number j of group g."""
    scales, mins, q = rng.integers(0, 64, 8), rng.integers(0, 64, 8), rng.integers(0, 32, (8, 32))
    high = sum((q[group] >> 4) << group for group in range(8)).astype(np.uint8)
    low = q & 15
    low_then_high = np.stack([low[2 * pair] | low[2 * pair + 1] << 4 for pair in range(4)]).astype(np.uint8)
    block = half_bytes(0.01) + half_bytes(0.02) + k_scales(scales.tolist(), mins.tolist())
    block += high.tobytes() + low_then_high.tobytes()
    values = (
        np.float16(0.01).astype(float) * scales[:, None] * q - np.float16(0.02).astype(float) * mins[:, None]
    )
    return block, values.reshape(256)


def q6_k_block(rng):
    """256 numbers: value = d * scale * (q - 32), 16 signed scales, q of 4 low and 2 high bits."""
    scales, q = rng.integers(-128, 128, 16), rng.integers(0, 64, 256)
    low, high = np.zeros(128, np.uint8), np.zeros(64, np.uint8)
    for half in range(2):
        for lane in range(32):
            four = [int(q[128 * half + 32 * part + lane]) for part in range(4)]
            low[64 * half + lane] = four[0] & 15 | (four[2] & 15) << 4
            low[64 * half + 32 + lane] = four[1] & 15 | (four[3] & 15) << 4
            high[32 * half + lane] = sum((four[part] >> 4) << 2 * part for part in range(4))
    block = low.tobytes() + high.tobytes() + scales.astype(np.int8).tobytes() + half_bytes(0.003)
    values = np.float16(0.003).astype(float) * np.repeat(scales, 16) * (q - 32)
    return block, values


K_FORMATS = {"Q4_K": q4_k_block, "Q5_K": q5_k_block, "Q6_K": q6_k_block}


def write_gguf(path, tensors, raw=()):
    """Write float arrays as they are and (name, bytes, type) as stored."""
    writer = gguf.GGUFWriter(path, "lens")
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    for name, value, kind in raw:
        writer.add_tensor(name, value, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", list(K_FORMATS))
def test_a_gguf_denoiser_in_a_k_format_has_the_hand_packed_values(tmp_path, kind):
    rng, model = np.random.default_rng(0), tiny_denoiser(**WIDE)
    plain, raw, expected = {}, [], {}
    for name, value in model.state_dict().items():
        if not name.endswith("mlp.w2.weight"):
            plain[name], expected[name] = value.numpy(), value
            continue
        blocks = [K_FORMATS[kind](rng) for _ in range(len(value))]
        packed = np.stack([np.frombuffer(block, np.uint8) for block, _ in blocks])
        raw.append((name, packed, gguf.GGMLQuantizationType[kind]))
        expected[name] = torch.tensor(np.stack([values for _, values in blocks]), dtype=torch.float32)
    loaded = load_denoiser(write_gguf(tmp_path / "lens.gguf", plain, raw), torch.float32, config=WIDE_CONFIG)
    for name, value in expected.items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "bound"), [("F16", 1e-3), ("Q8_0", 2e-2), ("BF16", 1e-2)])
def test_a_gguf_denoiser_draws_what_the_plain_one_draws(tmp_path, kind, bound):
    model = tiny_denoiser(**WIDE)
    kind = gguf.GGMLQuantizationType[kind]
    plain = {name: value.numpy() for name, value in model.state_dict().items() if not is_linear(name, value)}
    raw = [
        (f"model.diffusion_model.{name}", gguf.quantize(value.numpy(), kind), kind)
        for name, value in model.state_dict().items()
        if is_linear(name, value)
    ]
    plain = {f"model.diffusion_model.{name}": value for name, value in plain.items()}
    loaded = load_denoiser(write_gguf(tmp_path / "lens.gguf", plain, raw), torch.float32, config=WIDE_CONFIG)
    assert 0 < relative_error(velocity(loaded), velocity(model)) < bound


def test_a_truncated_gguf_and_a_file_that_is_none_are_named(tmp_path):
    path = write_gguf(
        tmp_path / "lens.gguf", {name: v.numpy() for name, v in tiny_denoiser().state_dict().items()}
    )
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"truncated or damaged"):
        load_denoiser(path, config=DENOISER_CONFIG)
    path.write_bytes(b"something else" * 10)
    with pytest.raises(CheckpointError, match=r"is not a GGUF file"):
        load_denoiser(path)


# Text encoders. Hidden 48 and experts' width 32 differ and divide by 16.
ENCODER = {
    "hidden_size": 48,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
}


def features_of(encoder):
    ids = torch.arange(7, 27).reshape(2, 10)
    return torch.stack(encoder.text_features(ids, torch.ones_like(ids), layers=(0, 1)))


def expert_matrices(state):
    return {name: value for name, value in state.items() if name.endswith(("gate_up_proj", "down_proj"))}


def nvfp4_tensors(encoder, *, separator=".", outputs_first=True):
    """Write an encoder in NVFP4's layout; return the file's tensors and the values that they stand for."""
    state = {name: value for name, value in encoder.state_dict().items() if name != "lm_head.weight"}
    tensors, expected = {}, dict(state)
    for name, value in state.items():
        own = name.removeprefix("model.")
        if name not in expert_matrices(state):
            tensors[own.replace("_proj_bias", f"_proj{separator}bias")] = value
            continue
        parts = [nvfp4.quantize(expert.T if outputs_first else expert) for expert in value]
        packed, scales, matrix_scales = (torch.stack(part) for part in zip(*parts, strict=True))
        tensors |= {
            f"{own}.weight": packed,
            f"{own}.weight_scale": scales,
            f"{own}.weight_scale_2": matrix_scales,
        }
        values = nvfp4.dequantize(packed, scales, matrix_scales, torch.float32)
        expected[name] = values.transpose(1, 2) if outputs_first else values
    text = tiny_tokenizer().backend_tokenizer.to_str().encode()
    return tensors | {"tokenizer_json": torch.tensor(list(text), dtype=torch.uint8)}, expected


@pytest.mark.parametrize(("separator", "outputs_first"), [(".", True), ("_", True), ("_", False)])
def test_an_nvfp4_text_encoder_has_the_values_that_its_bytes_say(tmp_path, separator, outputs_first):
    encoder = tiny_encoder(**ENCODER)
    tensors, expected = nvfp4_tensors(encoder, separator=separator, outputs_first=outputs_first)
    save_file(tensors, tmp_path / "gpt_oss_nvfp4.safetensors")
    loaded = load_text_encoder(tmp_path / "gpt_oss_nvfp4.safetensors", torch.float32)
    state = loaded.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert loaded.model.rotary_emb.attention_scaling == pytest.approx(1.3466, abs=1e-4)
    with pytest.raises(LensError, match=r"no LM head"):
        loaded.generate(torch.tensor([[7, 8]]), max_new_tokens=1)


def test_the_features_of_an_nvfp4_encoder_are_near_those_of_the_plain_one(tmp_path):
    encoder = tiny_encoder(**ENCODER)
    tensors, _ = nvfp4_tensors(encoder)
    save_file(tensors, tmp_path / "e.safetensors")
    loaded = load_text_encoder(tmp_path / "e.safetensors", torch.float32, config=encoder.config.to_dict())
    assert relative_error(features_of(loaded), features_of(encoder)) < 0.1


def test_experts_kept_packed_give_the_features_of_the_unpacked_ones(tmp_path):
    encoder = tiny_encoder(**ENCODER)
    tensors, _ = nvfp4_tensors(encoder)
    path, config = tmp_path / "e.safetensors", encoder.config.to_dict()
    save_file(tensors, path)
    packed = load_text_encoder(path, torch.float32, config)
    assert packed_formats(packed) == ["NVFP4"]
    assert all(isinstance(layer.mlp.experts, PackedExperts) for layer in packed.model.layers)
    plain = load_text_encoder(path, torch.float32, config, keep_packed=False)
    assert packed_formats(plain) == []
    wanted = features_of(plain)
    torch.testing.assert_close(features_of(packed), wanted, rtol=1e-5, atol=1e-5)
    assert relative_error(features_of(packed.to(torch.bfloat16)).float(), wanted) < 0.05
    del tensors["layers.1.mlp.experts.down_proj.weight_scale_2"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError):
        load_text_encoder(path, torch.float32, config)


GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.sinks": "attn_sinks",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.router": "ffn_gate_inp",
}


def llama_cpp_tensors(state):
    """Write an encoder in llama.cpp's gpt-oss naming: experts (E, O, I), gate and up apart."""
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    for name, value in state.items():
        if not name.startswith("model.layers."):
            continue
        index, inside = name.removeprefix("model.layers.").split(".", 1)
        block = f"blk.{index}"
        if inside == "mlp.experts.gate_up_proj":
            tensors[f"{block}.ffn_gate_exps.weight"] = value[:, :, 0::2].transpose(1, 2)
            tensors[f"{block}.ffn_up_exps.weight"] = value[:, :, 1::2].transpose(1, 2)
        elif inside == "mlp.experts.gate_up_proj_bias":
            tensors[f"{block}.ffn_gate_exps.bias"], tensors[f"{block}.ffn_up_exps.bias"] = (
                value[:, 0::2],
                value[:, 1::2],
            )
        elif inside == "mlp.experts.down_proj":
            tensors[f"{block}.ffn_down_exps.weight"] = value.transpose(1, 2)
        elif inside == "mlp.experts.down_proj_bias":
            tensors[f"{block}.ffn_down_exps.bias"] = value
        else:
            own, _, leaf = inside.rpartition(".")
            own, leaf = (inside, "weight") if leaf == "sinks" else (own, leaf)
            tensors[f"{block}.{GGUF_NAMES[own]}.{leaf}"] = value
    return {name: value.contiguous().numpy() for name, value in tensors.items()}


def test_a_gguf_text_encoder_gives_the_same_features_and_keeps_generating(tmp_path):
    encoder = tiny_encoder(**ENCODER)
    path = write_gguf(tmp_path / "gpt-oss.gguf", llama_cpp_tensors(encoder.state_dict()))
    loaded = load_text_encoder(path, torch.float32, config=encoder.config.to_dict())
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in encoder.state_dict().items())
    torch.testing.assert_close(features_of(loaded), features_of(encoder), rtol=0, atol=0)
    ids = torch.tensor([[7, 8, 9]])
    assert torch.equal(loaded.generate(ids, max_new_tokens=3), encoder.generate(ids, max_new_tokens=3))


def test_a_gguf_text_encoder_without_its_up_matrices_is_refused(tmp_path):
    tensors = llama_cpp_tensors(tiny_encoder(**ENCODER).state_dict())
    del tensors["blk.1.ffn_up_exps.weight"]
    path = write_gguf(tmp_path / "gpt-oss.gguf", tensors)
    with pytest.raises(
        CheckpointError, match=r"1 missing \(model.layers.1.mlp.experts.gate_up_proj\).*ffn_gate_exps"
    ):
        load_text_encoder(path, torch.float32)


def test_a_denoiser_given_as_text_encoder_is_named(tmp_path):
    save_file(tiny_denoiser().state_dict(), tmp_path / "d.safetensors")
    with pytest.raises(CheckpointError, match=r"not a GPT-OSS text encoder.*probably a Lens denoiser"):
        load_text_encoder(tmp_path / "d.safetensors")
