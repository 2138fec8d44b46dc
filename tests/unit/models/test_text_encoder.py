"""What the text encoder promises beyond parity: what it does not run, how it is kept on disk, MXFP4."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXT_WIDTH, tiny_encoder

from lens.errors import MemoryNeedError, SettingError
from lens.models.quantized import mxfp4
from lens.models.quantized.mxfp4 import mxfp4_plan, weight_bytes
from lens.models.text_encoder import LensGptOssEncoder, load_text_encoder_folder

GPT_OSS_20B = {
    "num_hidden_layers": 24, "num_local_experts": 32, "vocab_size": 201088, "hidden_size": 2880,
    "intermediate_size": 2880, "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip


def ids(length: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(0))


def calls_of(encoder: LensGptOssEncoder) -> list[str]:
    """Record which parts run."""
    called: list[str] = []
    parts = {"norm": encoder.model.norm, "head": encoder.lm_head}
    parts |= {f"block {index}": block for index, block in enumerate(encoder.model.layers)}
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    return called


def test_blocks_after_the_last_captured_one_and_the_head_do_not_run():
    encoder = tiny_encoder()
    called = calls_of(encoder)
    features = encoder.text_features(ids(7), None, (3, 0))
    assert called == ["block 0", "block 1", "block 2", "block 3"]
    assert [tuple(one.shape) for one in features] == [(2, 7, TEXT_WIDTH)] * 2
    assert not torch.equal(features[0], features[1])


def test_features_come_in_the_order_asked_for():
    encoder = tiny_encoder()
    first, second = encoder.text_features(ids(7), None, (4, 1))
    again, before = encoder.text_features(ids(7), None, (1, 4))
    assert torch.equal(first, before) and torch.equal(second, again)


def test_padding_on_the_right_leaves_real_tokens_as_they_are():
    encoder, tokens = tiny_encoder(), ids(30)
    mask = torch.ones_like(tokens)
    mask[1, 21:] = 0
    padded = encoder.text_features(tokens, mask, (0, 2, 5))
    alone = encoder.text_features(tokens[1:, :21], None, (0, 2, 5))
    for ours, theirs in zip(padded, alone, strict=True):
        torch.testing.assert_close(ours[1, :21], theirs[0], atol=2e-6, rtol=1e-5)


def test_what_is_under_the_padding_does_not_matter():
    encoder, tokens = tiny_encoder(), ids(12)
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    other = tokens.clone()
    other[1, 5:] = 3
    for ours, theirs in zip(
        encoder.text_features(tokens, mask, (2, 5)), encoder.text_features(other, mask, (2, 5)), strict=True
    ):
        torch.testing.assert_close(ours[1, :5], theirs[1, :5], atol=2e-6, rtol=1e-5)


def test_features_carry_no_gradients():
    assert not tiny_encoder().text_features(ids(3), None, (0,))[0].requires_grad


@pytest.mark.parametrize("layers", [(), (6,), (0, -1)])
def test_a_block_that_is_not_there_is_refused(layers):
    with pytest.raises(SettingError, match="blocks between 0 and 5"):
        tiny_encoder().text_features(ids(3), None, layers)


def test_an_offloading_hook_is_told_before_the_features_are_taken():
    class Hook:
        execution_device = torch.device("cpu")
        calls = 0

        def pre_forward(self, module):
            self.calls += 1

    encoder = tiny_encoder()
    encoder._hf_hook = Hook()
    encoder.text_features(ids(3), None, (0,))
    assert encoder._hf_hook.calls == 1


def test_a_saved_encoder_names_its_class_and_loads_to_the_same_features_and_yarn_factor(tmp_path):
    encoder = tiny_encoder()
    encoder.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LensGptOssEncoder"]
    assert config["rope_parameters"]["factor"] == 32.0
    loaded = load_text_encoder_folder(tmp_path, torch.float32)
    assert not loaded.training
    assert loaded.model.rotary_emb.attention_scaling == pytest.approx(1.3466, abs=5e-5)
    assert torch.equal(
        loaded.text_features(ids(7), None, (5,))[0], encoder.text_features(ids(7), None, (5,))[0]
    )


def test_yarn_written_in_the_older_way_keeps_its_factor(tmp_path):
    encoder = tiny_encoder()
    encoder.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    path.write_text(json.dumps(config))
    loaded = load_text_encoder_folder(tmp_path, torch.float32)
    assert loaded.model.rotary_emb.attention_scaling == pytest.approx(1.3466, abs=5e-5)
    assert torch.equal(
        loaded.text_features(ids(7), None, (5,))[0], encoder.text_features(ids(7), None, (5,))[0]
    )


# MXFP4: by hand, 4-bit codes with the low nibble first, and a scale of 2^(byte - 127) for 32 inputs.

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def packed(
    experts: int, outputs: int, inputs: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return blocks (E, out, in/32, 16), scales (E, out, in/32) and what they mean (E, in, out)."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (experts, outputs, inputs // 32, 32), generator=generator)
    scales = torch.randint(120, 126, codes.shape[:3], generator=generator, dtype=torch.uint8)
    values = E2M1[codes] * torch.exp2(scales.float() - 127)[..., None]
    blocks = (codes[..., 0::2] + 16 * codes[..., 1::2]).to(torch.uint8)
    return blocks, scales, values.flatten(2).transpose(1, 2)


@pytest.fixture
def mxfp4_folder(tmp_path):
    """Return a folder as published, experts in MXFP4, and the experts' true values."""
    encoder = tiny_encoder(hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    folder = tmp_path / "mxfp4"
    encoder.save_pretrained(folder)
    weights, truth = load_file(folder / "model.safetensors"), {}
    for layer in range(2):
        for name, outputs, inputs in (("gate_up_proj", 128, 32), ("down_proj", 32, 64)):
            key = f"model.layers.{layer}.mlp.experts.{name}"
            del weights[key]
            weights[f"{key}_blocks"], weights[f"{key}_scales"], truth[key] = packed(3, outputs, inputs, layer)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mxfp4_experts_are_dequantised_to_their_values_and_the_memory_is_said(mxfp4_folder, dtype, caplog):
    folder, truth = mxfp4_folder
    with caplog.at_level(logging.WARNING):
        weights = load_text_encoder_folder(folder, dtype, device="cpu").state_dict()
    for name, values in truth.items():
        assert weights[name].dtype == dtype
        assert torch.equal(weights[name].float(), values)
    assert f"GB dequantised to {8 * dtype.itemsize} bits, as the kernels need a CUDA device" in caplog.text


def test_a_dequantised_encoder_is_saved_as_what_it_is(mxfp4_folder, tmp_path):
    folder, truth = mxfp4_folder
    load_text_encoder_folder(folder, torch.float32, device="cpu").save_pretrained(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    weights = load_file(tmp_path / "plain" / "model.safetensors")
    assert not [name for name in weights if name.endswith(("_blocks", "_scales"))]
    for name, values in truth.items():
        assert torch.equal(weights[name], values)


def test_a_machine_without_the_memory_is_told_before_anything_is_loaded(mxfp4_folder, monkeypatch):
    monkeypatch.setattr(mxfp4, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryNeedError, match=r"takes 0\.0 GB dequantised .* cpu has 0\.0 GB free"):
        load_text_encoder_folder(mxfp4_folder[0], torch.float32, device="cpu")


def test_the_released_encoder_takes_13_gb_in_mxfp4_and_42_dequantised():
    # 20,914,757,184 parameters, of which 19,110,297,600 are in the matrices of the experts.
    assert weight_bytes(GPT_OSS_20B, 2, is_mxfp4=False) == 2 * 20_914_757_184
    assert weight_bytes(GPT_OSS_20B, 2, is_mxfp4=True) == 2 * 1_804_459_584 + 19_110_297_600 * 17 // 32


def plan(**changes):
    settings = {
        "device_type": "cuda",
        "capability": (9, 0),
        "missing": [],
        "free_bytes": 80 * 10**9,
    } | changes
    return mxfp4_plan(GPT_OSS_20B, **settings)


def test_mxfp4_stays_where_the_kernels_are():
    here = plan()
    assert here.is_native
    assert here.message == "The text encoder takes 13.8 GB in MXFP4."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device_type": "cpu", "capability": None}, "the kernels need a CUDA device and this is cpu"),
        ({"capability": (8, 6)}, "the kernels need compute capability 9.0 and this device has 8.6"),
        ({"missing": ["the package kernels"]}, "the kernels lack the package kernels"),
    ],
)
def test_elsewhere_it_is_dequantised_and_the_reason_is_named(changes, reason):
    here = plan(**changes)
    assert not here.is_native
    assert here.need_bytes == 2 * 20_914_757_184
    assert here.message == f"The text encoder takes 41.8 GB dequantised to 16 bits, as {reason}."


def test_too_little_memory_is_refused_with_the_need_the_reason_and_what_to_do():
    with pytest.raises(MemoryNeedError) as refusal:
        plan(capability=(8, 6), free_bytes=24 * 10**9)
    for part in (
        "takes 41.8 GB",
        "this device has 8.6",
        "cuda has 24.0 GB free",
        "NVFP4 or GGUF",
        "prompt_embeds",
    ):
        assert part in str(refusal.value)
    assert plan(free_bytes=24 * 10**9).is_native
    assert plan(free_bytes=None, capability=(8, 6)).need_bytes > 24 * 10**9


@pytest.mark.parametrize("num_before", [3, 40])  # the second is longer than what the sliding blocks see
def test_tokens_after_others_that_were_read_before_are_as_in_one_sequence(num_before):
    encoder, tokens = tiny_encoder(), ids(num_before + 9, rows=1)
    assert encoder.config.sliding_window < 40
    whole = encoder.text_features(tokens, None, (0, 2, 5))
    before = encoder.prefill(tokens[:, :num_before], (0, 2, 5))
    for _ in range(2):  # what was read can be used again
        after = encoder.text_features(tokens[:, num_before:], None, (0, 2, 5), before)
        for ours, theirs in zip(after, whole, strict=True):
            torch.testing.assert_close(ours, theirs[:, num_before:], atol=2e-6, rtol=1e-5)
