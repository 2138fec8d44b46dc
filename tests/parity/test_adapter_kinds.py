"""Every kind of adapter, in every key style, on a tiny real denoiser against its formula in float64."""

import json
from functools import cache

import pytest
import torch
from comparisons import normal, same_state, velocity
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tiny_models import DENOISER_CONFIG, tiny_denoiser

from lens.errors import CheckpointError, LensError, SettingError
from lens.models.block_streaming import stream_blocks
from lens.models.checkpoints.adapters.lora import (
    adaptable_weights,
    fuse_loras,
    load_lora,
    load_loras,
    save_lora,
    set_lora_weights,
    unfuse_loras,
    unload_loras,
)
from lens.models.checkpoints.adapters.lora_formats import STYLES, read_adapter
from lens.models.checkpoints.adapters.weights import total_delta
from lens.models.checkpoints.convert import convert
from lens.models.checkpoints.single_file import load_denoiser
from lens.models.mapped_memory import is_mapped, release
from lens.models.quantized import mxfp8

QKV, MLP, OUT = (
    "transformer_blocks.1.attn.img_qkv",  # (96, 32), with a bias
    "transformer_blocks.2.img_mlp.w2",    # (32, 85), without
    "transformer_blocks.0.attn.to_out.0",
)  # fmt: skip
QK_NORM, TEXT_NORM, BLOCK_NORM = (
    "transformer_blocks.0.attn.norm_q",
    "txt_norm.2",
    "transformer_blocks.1.img_norm1",
)

W1_A, W1_B, W2_A, W2_B = (
    normal(32, 3, seed=1), normal(3, 85, seed=2), normal(32, 5, seed=3), normal(5, 85, seed=4),
)  # fmt: skip
W3_A, W3_B = normal(32, 6, seed=27), normal(6, 85, seed=28)
T1, T2 = normal(3, 3, seed=5), normal(5, 5, seed=6)
K1_A, K1_B, K2_A, K2_B = (
    normal(4, 3, seed=7), normal(3, 5, seed=8), normal(8, 3, seed=9), normal(3, 17, seed=10),
)  # fmt: skip
T3 = normal(3, 3, seed=11)
UP, DOWN, MID = normal(32, 4, seed=12), normal(3, 85, seed=13), normal(4, 3, seed=14)
SQUARE_UP, SQUARE_DOWN = normal(32, 3, seed=15), normal(3, 32, seed=16)
QKV_UP, QKV_DOWN, QKV_BIAS = normal(96, 3, seed=17), normal(3, 32, seed=18), normal(96, seed=19)
ROWS, COLUMNS = 1 + normal(32, 1, seed=20).abs(), 1 + normal(1, 32, seed=21).abs()
WIDE_ROWS = 1 + normal(32, 1, seed=22).abs()
FULL = normal(96, 32, seed=23)
ALPHA = torch.tensor(1.5)


def dora(weight, delta, magnitude):
    """The weight that a DoRA makes: every row, or every column, has the norm that the magnitude says."""
    axis = 1 if magnitude.shape[1] == 1 else 0
    adapted = weight + delta
    return magnitude * adapted / (adapted**2).sum(axis, keepdim=True).sqrt()


# Parts in the file by layer, and the new values of parameters at strength 1, as functions of the old ones.
KINDS = {
    "LoRA": (
        {MLP: {"lora_up.weight": UP[:, :3], "lora_down.weight": DOWN, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * UP[:, :3] @ DOWN},
    ),
    "LoRA of 1 x 1 kernels": (
        {MLP: {"lora_up.weight": UP[:, :3, None, None], "lora_down.weight": DOWN[..., None, None]}},
        {f"{MLP}.weight": lambda w: w + UP[:, :3] @ DOWN},
    ),
    "LoRA with a factor between": (
        {MLP: {"lora_up.weight": UP, "lora_mid.weight": MID, "lora_down.weight": DOWN, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * UP @ MID @ DOWN},
    ),
    "LoRA with a bias": (
        {QKV: {"lora_B.weight": QKV_UP, "lora_B.bias": QKV_BIAS, "lora_A.weight": QKV_DOWN, "alpha": ALPHA}},
        {f"{QKV}.weight": lambda w: w + 0.5 * QKV_UP @ QKV_DOWN, f"{QKV}.bias": lambda b: b + 0.5 * QKV_BIAS},
    ),
    "LoRA under old names": (
        {MLP: {"lora.up.weight": UP[:, :3], "lora.down.weight": DOWN},
         QKV: {"lora_linear_layer.up.weight": QKV_UP, "lora_linear_layer.down.weight": QKV_DOWN}},
        {f"{MLP}.weight": lambda w: w + UP[:, :3] @ DOWN, f"{QKV}.weight": lambda w: w + QKV_UP @ QKV_DOWN},
    ),
    "DoRA by rows": (
        {OUT: {"lora_up.weight": SQUARE_UP, "lora_down.weight": SQUARE_DOWN, "alpha": ALPHA,
               "dora_scale": ROWS}},
        {f"{OUT}.weight": lambda w: dora(w, 0.5 * SQUARE_UP @ SQUARE_DOWN, ROWS)},
    ),
    "DoRA by columns": (
        {OUT: {"lora_up.weight": SQUARE_UP, "lora_down.weight": SQUARE_DOWN, "dora_scale": COLUMNS}},
        {f"{OUT}.weight": lambda w: dora(w, SQUARE_UP @ SQUARE_DOWN, COLUMNS)},
    ),
    "DoRA of PEFT": (
        {OUT: {"lora_B.weight": SQUARE_UP, "lora_A.weight": SQUARE_DOWN,
               "lora_magnitude_vector": ROWS.flatten()}},
        {f"{OUT}.weight": lambda w: dora(w, SQUARE_UP @ SQUARE_DOWN, ROWS)},
    ),
    "LoHa": (
        {MLP: {"hada_w1_a": W1_A, "hada_w1_b": W1_B, "hada_w2_a": W2_A, "hada_w2_b": W2_B, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * (W1_A @ W1_B) * (W2_A @ W2_B)},
    ),
    "LoHa of a high rank": (
        {MLP: {"hada_w1_a": W3_A, "hada_w1_b": W3_B, "hada_w2_a": W2_A, "hada_w2_b": W2_B, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.25 * (W3_A @ W3_B) * (W2_A @ W2_B)},
    ),
    "LoHa with Tucker factors": (
        {MLP: {"hada_w1_a": W1_A.mT, "hada_w1_b": W1_B, "hada_t1": T1[..., None, None],
               "hada_w2_a": W2_A.mT, "hada_w2_b": W2_B, "hada_t2": T2[..., None, None]}},
        {f"{MLP}.weight": lambda w: w + (W1_A @ T1 @ W1_B) * (W2_A @ T2 @ W2_B)},
    ),
    "LoHa as DoRA": (
        {MLP: {"hada_w1_a": W1_A, "hada_w1_b": W1_B, "hada_w2_a": W2_A, "hada_w2_b": W2_B,
               "dora_scale": WIDE_ROWS}},
        {f"{MLP}.weight": lambda w: dora(w, (W1_A @ W1_B) * (W2_A @ W2_B), WIDE_ROWS)},
    ),
    "LoKr of two products": (
        {MLP: {"lokr_w1_a": K1_A, "lokr_w1_b": K1_B, "lokr_w2_a": K2_A, "lokr_w2_b": K2_B, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * torch.kron(K1_A @ K1_B, K2_A @ K2_B)},
    ),
    "LoKr with a Tucker factor": (
        {MLP: {"lokr_w1": K1_A @ K1_B, "lokr_w2_a": K2_A.mT, "lokr_t2": T3, "lokr_w2_b": K2_B,
               "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * torch.kron(K1_A @ K1_B, K2_A @ T3 @ K2_B)},
    ),
    "LoKr as DoRA": (
        {MLP: {"lokr_w1": K1_A @ K1_B, "lokr_w2": K2_A @ K2_B, "dora_scale": WIDE_ROWS}},
        {f"{MLP}.weight": lambda w: dora(w, torch.kron(K1_A @ K1_B, K2_A @ K2_B), WIDE_ROWS)},
    ),
    "differences of weight and bias": (
        {QKV: {"diff": FULL, "diff_b": QKV_BIAS}, MLP: {"diff": W1_A @ W1_B}},
        {f"{QKV}.weight": lambda w: w + FULL, f"{QKV}.bias": lambda b: b + QKV_BIAS,
         f"{MLP}.weight": lambda w: w + W1_A @ W1_B},
    ),
    "a LoRA beside a difference of the bias": (
        {QKV: {"lora_up.weight": QKV_UP, "lora_down.weight": QKV_DOWN, "alpha": ALPHA, "diff_b": QKV_BIAS}},
        {f"{QKV}.weight": lambda w: w + 0.5 * QKV_UP @ QKV_DOWN, f"{QKV}.bias": lambda b: b + QKV_BIAS},
    ),
    "differences of norms": (
        {QK_NORM: {"diff": normal(16, seed=24)}, BLOCK_NORM: {"w_norm": normal(32, seed=25)},
         TEXT_NORM: {"set_weight": normal(24, seed=26)}},
        {f"{QK_NORM}.weight": lambda w: w + normal(16, seed=24),
         f"{BLOCK_NORM}.weight": lambda w: w + normal(32, seed=25),
         f"{TEXT_NORM}.weight": lambda w: normal(24, seed=26)},
    ),
    "a weight that is replaced": (
        {QKV: {"set_weight": FULL}},
        {f"{QKV}.weight": lambda w: FULL},
    ),
}  # fmt: skip

PREFIXES = {
    "bare": "{}", "transformer": "transformer.{}", "PEFT": "base_model.model.{}",
    "ComfyUI": "diffusion_model.{}",
    "kohya": "lora_unet_{}", "LyCORIS": "lycoris_{}",
}  # fmt: skip


def adapter_file(path, layers, style="ComfyUI"):
    """Write the parts of layers under the keys of a style."""
    tensors = {}
    for layer, parts in layers.items():
        front = PREFIXES[style].format(layer.replace(".", "_") if "_{}" in PREFIXES[style] else layer)
        tensors |= {f"{front}.{name}": value.contiguous().clone() for name, value in parts.items()}
    save_file(tensors, path)
    return path


@cache
def velocity_with(*kinds_and_strengths):
    """The velocity of the denoiser that `with_values` returns."""
    return velocity(with_values(*kinds_and_strengths))


def with_values(*kinds_and_strengths):
    """A tiny denoiser whose parameters are W + sum of strength * (value - W)."""
    model = tiny_denoiser()
    changes = {}
    for kind, strength in kinds_and_strengths:
        for name, value in KINDS[kind][1].items():
            old = model.get_parameter(name).data.double()
            changes[name] = changes.get(name, 0) + strength * (value(old.float()).double() - old)
    for name, change in changes.items():
        parameter = model.get_parameter(name)
        parameter.data = (parameter.data.double() + change).float()
    return model


def assert_same_velocity(model, *kinds_and_strengths, tolerance=1e-4):
    wanted = velocity_with(*kinds_and_strengths)
    torch.testing.assert_close(velocity(model), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("style", PREFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_in_a_style_adds_its_formula(tmp_path, kind, style):
    model = tiny_denoiser()
    load_lora(model, adapter_file(tmp_path / "a.safetensors", KINDS[kind][0], style), weight=0.7)
    assert_same_velocity(model, (kind, 0.7))
    assert (velocity_with() - velocity_with((kind, 0.7))).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_weighed_switched_fused_and_unloaded(tmp_path, kind):
    model, plain = tiny_denoiser(), velocity_with()
    name = load_lora(model, adapter_file(tmp_path / "a.safetensors", KINDS[kind][0]), weight=0.5)
    half, whole = (kind, 0.5), (kind, 1.0)
    assert_same_velocity(model, half)
    set_lora_weights(model, {name: 1.0})
    assert_same_velocity(model, whole)
    assert_same_velocity(scaled(model, 0.5), half)
    assert_same_velocity(model, whole)
    model.disable_lora()
    torch.testing.assert_close(velocity(model), plain, rtol=1e-5, atol=1e-5)
    model.enable_lora()
    assert_same_velocity(model, whole)
    set_lora_weights(model, {name: 0.5})
    fuse_loras(model)
    fuse_loras(model)  # a second time changes nothing
    assert_same_velocity(model, half)
    fused = {name.replace(".base_layer", ""): value for name, value in model.named_parameters()}
    for weight in KINDS[kind][1]:
        wanted = with_values(half).get_parameter(weight)
        torch.testing.assert_close(fused[weight], wanted, rtol=1e-4, atol=1e-4)
    set_lora_weights(model, {name: 1.0})
    assert_same_velocity(model, half)
    unfuse_loras(model)
    assert_same_velocity(model, whole)
    unload_loras(model)
    torch.testing.assert_close(velocity(model), plain, rtol=1e-4, atol=1e-4)


class scaled:
    """A denoiser whose adapters are scaled for the one call."""

    def __init__(self, model, scale):
        self.model, self.scale = model, scale

    def __call__(self, *arguments):
        return self.model(*arguments, attention_kwargs={"scale": self.scale})


@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "DoRA by rows", "LoKr as DoRA"])
def test_a_file_that_changes_after_loading_changes_nothing(tmp_path, kind):
    path = adapter_file(tmp_path / "a.safetensors", KINDS[kind][0])
    model = tiny_denoiser()
    load_lora(model, path, weight=0.7)
    with path.open("r+b") as file:
        file.seek(-500, 2)
        file.write(bytes(500))
    assert_same_velocity(model, (kind, 0.7))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unloaded_kind_leaves_no_trace(tmp_path, kind):
    model = tiny_denoiser()
    load_loras(model, [(adapter_file(tmp_path / f"{i}.safetensors", KINDS[kind][0]), 0.5) for i in range(2)])
    unload_loras(model)
    assert same_state(model, tiny_denoiser())
    assert [name for name, _ in model.named_modules()] == [
        name for name, _ in tiny_denoiser().named_modules()
    ]
    assert [name for name, _ in model.named_buffers()] == [
        name for name, _ in tiny_denoiser().named_buffers()
    ]
    assert not any(module._forward_hooks for module in model.modules())


def test_adapters_of_all_kinds_add_up_in_any_order_and_fuse_together(tmp_path):
    files = {
        kind: adapter_file(tmp_path / f"{i}.safetensors", KINDS[kind][0]) for i, kind in enumerate(KINDS)
    }
    weights = {kind: (-1) ** i * (0.1 + 0.02 * i) for i, kind in enumerate(KINDS)}
    for order in (list(KINDS), list(KINDS)[::-1]):
        model = tiny_denoiser()
        names = load_loras(model, [(files[kind], weights[kind]) for kind in order])
        assert_same_velocity(model, *weights.items())
        fuse_loras(model)
        assert_same_velocity(model, *weights.items())
        unfuse_loras(model)
        set_lora_weights(model, {names[order.index("LoHa")]: 0.7})
        assert_same_velocity(model, ("LoHa", 0.7))
        unload_loras(model)
        torch.testing.assert_close(velocity(model), velocity_with(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_kind_comes_back(tmp_path, kind, style):
    model = tiny_denoiser()
    load_lora(model, adapter_file(tmp_path / "a.safetensors", KINDS[kind][0]), weight=0.7)
    if kind == "DoRA by columns" and style in ("peft", "transformer", "base_model"):
        with pytest.raises(
            SettingError, match="kohya or diffusion_model for a DoRA with a magnitude for each input"
        ):
            save_lora(model, tmp_path / "b.safetensors", style)
        return
    save_lora(model, tmp_path / "b.safetensors", style)
    again = tiny_denoiser()
    load_lora(again, tmp_path / "b.safetensors", weight=0.7)
    torch.testing.assert_close(velocity(again), velocity(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_converted_to_kohyas_names(tmp_path, kind):
    adapter_file(tmp_path / "a.safetensors", KINDS[kind][0], "bare")
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "lora-kohya")
    assert all(name.startswith(("lora_unet_", "lycoris_")) for name in load_file(tmp_path / "b.safetensors"))
    model = tiny_denoiser()
    load_lora(model, tmp_path / "b.safetensors", weight=0.7)
    assert_same_velocity(model, (kind, 0.7))


def test_a_dora_agrees_with_pefts_in_both_directions(tmp_path):
    other = tiny_denoiser()
    other.add_adapter(LoraConfig(r=3, lora_alpha=5, target_modules=[QKV, OUT], use_dora=True), "it")
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(other.named_parameters()):
            if "lora_" in name:
                parameter.add_(0.1 * normal(*parameter.shape, seed=seed))
    wanted = velocity(other)
    save_lora(other, tmp_path / "a.safetensors", "peft")
    model = tiny_denoiser()
    load_lora(model, tmp_path / "a.safetensors")
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-4, atol=1e-4)
    save_lora(model, tmp_path / "b.safetensors", "peft")
    again = tiny_denoiser()
    again.load_lora_adapter(load_file(tmp_path / "b.safetensors"), prefix=None)
    torch.testing.assert_close(velocity(again), wanted, rtol=1e-4, atol=1e-4)


def test_pefts_loha_and_dora_are_scaled_by_their_settings(tmp_path):
    parts = KINDS["LoHa"][0][MLP]
    save_file({f"base_model.model.{MLP}.{name}": v for name, v in parts.items() if name != "alpha"},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    config = {"r": 3, "alpha": 1.5, "peft_type": "LOHA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    model = tiny_denoiser()
    load_lora(model, tmp_path)
    assert_same_velocity(model, ("LoHa", 1.0))


def test_what_is_fused_into_a_mapped_weight_outlives_its_pages(tmp_path):
    save_file(
        {name: value.contiguous() for name, value in tiny_denoiser().state_dict().items()},
        tmp_path / "d.safetensors",
    )
    model = load_denoiser(tmp_path / "d.safetensors", torch.float32, DENOISER_CONFIG)
    assert is_mapped(model.get_submodule(MLP).weight)
    kinds = ["LoRA", "LoHa", "differences of norms", "differences of weight and bias"]
    for i, kind in enumerate(kinds):
        load_lora(model, adapter_file(tmp_path / f"{i}.safetensors", KINDS[kind][0]), weight=0.5)
    fuse_loras(model)
    release(model)
    assert_same_velocity(model, *((kind, 0.5) for kind in kinds))


def test_adapters_go_on_packed_weights_and_cannot_be_fused_into_them(tmp_path):
    wide = {
        "attention_head_dim": 32,
        "num_attention_heads": 3,
        "inner_dim": 96,
        "axes_dims_rope": (8, 12, 12),
    }
    tensors = {}
    for name, value in tiny_denoiser(**wide).state_dict().items():
        tensors[name] = value
        if value.ndim == 2 and "transformer_blocks" in name:
            layer = name.removesuffix(".weight")
            tensors[name], tensors[f"{layer}.weight_scale"] = mxfp8.quantize(value)
    save_file(tensors, tmp_path / "d.safetensors")
    model = load_denoiser(tmp_path / "d.safetensors", torch.float32, DENOISER_CONFIG | wide)
    plain = tiny_denoiser(**wide)
    plain.load_state_dict(model.state_dict())
    before = velocity(model)
    up, down, rows, columns = (
        normal(288, 3, seed=1),
        normal(3, 96, seed=2),
        ROWS.repeat(9, 1),
        COLUMNS.repeat(1, 3),
    )
    first, second = normal(4, 8, seed=4), normal(24, 32, seed=5)
    low = {"lora_up.weight": up, "lora_down.weight": down, "alpha": ALPHA}
    layers = [f"transformer_blocks.{block}.attn.{name}_qkv" for block in (0, 1) for name in ("img", "txt")]
    file = adapter_file(tmp_path / "a.safetensors", {
        layers[0]: low | {"diff_b": normal(288, seed=3)},
        layers[1]: low | {"dora_scale": rows},
        layers[2]: low | {"dora_scale": columns},
        layers[3]: {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": up, "hada_w2_b": down},
        "transformer_blocks.2.img_mlp.w2": {"lokr_w1": first, "lokr_w2": second},
    })  # fmt: skip
    load_lora(model, file, weight=0.6)
    load_lora(plain, file, weight=0.6)
    torch.testing.assert_close(velocity(model), velocity(plain), rtol=1e-4, atol=1e-4)
    resident = velocity(model)
    stream_blocks(model.transformer_blocks)
    assert torch.equal(velocity(model), resident) and torch.equal(velocity(model), resident)
    with pytest.raises(SettingError, match="cannot be fused into weights kept in MXFP8"):
        fuse_loras(model)
    torch.testing.assert_close(velocity(model), velocity(plain), rtol=1e-4, atol=1e-4)
    unload_loras(model)
    assert torch.equal(velocity(model), before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if MLP in KINDS[kind][0]])
def test_inputs_in_float32_meet_weights_of_16_bits_without_rounding(tmp_path, kind):
    adapter = read_adapter(
        adapter_file(tmp_path / "a.safetensors", KINDS[kind][0]), adaptable_weights(one_denoiser())
    )
    part, x = adapter[MLP], normal(7, 85, seed=30)
    halves = {name: value.bfloat16() for name, value in part._asdict().items() if torch.is_tensor(value)}
    part = part._replace(**halves)
    with torch.no_grad():
        torch.testing.assert_close(part.apply(x), x @ part.delta().mT, rtol=1e-4, atol=1e-4)


LOW = {"lora_A.weight": QKV_DOWN, "lora_B.weight": QKV_UP}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{QKV}.oft_R.weight": torch.ones(4, 8)}, "1 of the kind OFT, which is not supported"),
        ({f"{QKV}.boft_R": torch.ones(4, 8)}, "of the kind BOFT, which is not supported"),
        ({f"{QKV}.{name}.weight": torch.ones(2, 2) for name in ("a1", "a2", "b1", "b2")},
         "4 of the kind GLoRA"),
        ({f"{QKV}.ia3_l": torch.ones(32)}, "of the kind IA3"),
        ({f"{QKV}.weight": torch.ones(32), f"{QKV}.on_input": torch.ones(1)}, "of the kind IA3"),
        ({f"{QKV}.lora_E": torch.ones(3, 1)}, "of the kind AdaLoRA"),
        ({f"{QKV}.reshape_weight": torch.ones(2)}, "LoRA that changes a layer's shape"),
        ({f"{QKV}.lora_A.one.weight": QKV_DOWN, f"{QKV}.lora_B.one.weight": QKV_UP,
          f"{QKV}.lora_A.two.weight": QKV_DOWN, f"{QKV}.lora_B.two.weight": QKV_UP},
         r"holds 2 adapters \(one, two\); save each to a file of its own"),
        ({f"{prefix}{QKV}.{name}": v for prefix in ("", "transformer.") for name, v in LOW.items()},
         "2 given twice"),
        ({**{f"{QKV}.{name}": v for name, v in LOW.items()}, f"{QKV}.diff": FULL},
         "has parts of two kinds, LoRA and full difference"),
        ({f"{QKV}.lora_A.weight": QKV_DOWN, f"{QKV}.lora_B.weight": QKV_UP[:, :2].contiguous()},
         r"factors of the shapes \(96, 2\) and \(3, 32\), which have no product"),
        ({f"{QKV}.lora_A.weight": torch.ones(0, 32), f"{QKV}.lora_B.weight": torch.ones(96, 0)},
         "no product"),
        ({**{f"{QKV}.{name}": v for name, v in LOW.items()}, f"{QKV}.alpha": torch.tensor(torch.nan)},
         "an alpha is nan"),
        ({**{f"{QKV}.{name}": v for name, v in LOW.items()}, f"{QKV}.alpha": torch.tensor(torch.inf)},
         "an alpha is inf"),
        ({**{f"{QKV}.{name}": v for name, v in LOW.items()}, f"{QKV}.alpha": torch.ones(3)},
         "an alpha has 3 values"),
        ({**{f"{QKV}.{name}": v for name, v in LOW.items()}, f"{QKV}.dora_scale": torch.ones(5)},
         r"a magnitude of the shape \(5,\)"),
        ({**{f"{QKV}.{name}": v for name, v in LOW.items()}, f"{QKV}.lora_A.bias": torch.ones(3)},
         "has only down and down_bias and up"),
        ({f"{QKV}.lora_A.weight": torch.ones(3, 32, dtype=torch.int32), f"{QKV}.lora_B.weight": QKV_UP},
         "has a down of dtype I32"),
        ({f"{QKV}.dora_scale": torch.ones(96)}, "has only magnitude"),
        ({f"{QKV}.alpha": torch.ones(())}, "has only alpha"),
        ({f"{MLP}.diff_b": torch.ones(32)}, "has no bias, but the file has one for it"),
        ({f"{QKV}.diff": torch.ones(32, 96)}, r"is for \(32, 96\), the layer is \(96, 32\)"),
        ({f"{QK_NORM}.diff": torch.ones(7)}, r"is for \(7,\), the layer is \(16,\)"),
        ({f"{QKV}.hada_w1_a": torch.ones(96, 2), f"{QKV}.hada_w1_b": torch.ones(2, 32)},
         "has only hada_w1_a and hada_w1_b"),
        ({f"{QKV}.lokr_w1": torch.ones(4, 4), f"{QKV}.lokr_t2": torch.ones(4, 4)},
         "has only lokr_t2 and lokr_w1"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_named(tmp_path, tensors, message):
    save_file(
        {name: value.contiguous().clone() for name, value in tensors.items()}, tmp_path / "a.safetensors"
    )
    model = tiny_denoiser()
    with pytest.raises(CheckpointError, match=message):
        load_lora(model, tmp_path / "a.safetensors")
    assert same_state(model, tiny_denoiser())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"peft_type": "OFT"}', "an adapter of the kind OFT, which is not supported"),
        ('{"use_dora": true}', "is a DoRA by its settings, but it has no magnitudes"),
        ('{"lora_alpha": "twelve"}', "'twelve' as an alpha or a rank"),
        ('{"lora_alpha": NaN}', "nan as an alpha or a rank"),
        ('{"alpha_pattern": {"(": 3}}', "patterns that cannot be read"),
        ('{"alpha_pattern": 3}', "patterns that cannot be read"),
        ("[]", "must be a JSON object"),
        ('{"r": ', "is not valid JSON"),
    ],
)
def test_damaged_settings_are_named(tmp_path, content, message):
    save_file({f"{QKV}.{name}": value for name, value in LOW.items()}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_lora(tiny_denoiser(), tmp_path)


def test_bytes_behind_the_end_of_an_adapter_are_an_error_of_ours(tmp_path):
    path = adapter_file(tmp_path / "a.safetensors", KINDS["LoRA"][0])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="it has 1 bytes behind its last tensor"):
        load_lora(tiny_denoiser(), path)


def test_a_dora_is_not_loaded_onto_fused_weights(tmp_path):
    model = tiny_denoiser()
    load_lora(model, adapter_file(tmp_path / "a.safetensors", KINDS["LoRA"][0]))
    fuse_loras(model)
    with pytest.raises(SettingError, match="a denoiser without fused adapters"):
        load_lora(model, adapter_file(tmp_path / "d.safetensors", KINDS["DoRA by rows"][0]))


def test_a_deleted_adapter_is_gone(tmp_path):
    model = tiny_denoiser()
    kinds = ["LoRA", "LoHa", "differences of norms"]
    names = load_loras(
        model, [(adapter_file(tmp_path / f"{k}.safetensors", KINDS[k][0]), 0.5) for k in kinds]
    )
    model.delete_adapters(names[1:])
    assert_same_velocity(model, ("LoRA", 0.5))
    assert issubclass(SettingError, LensError)


PARTS = sorted({part for layers, _ in KINDS.values() for parts in layers.values() for part in parts})
STRANGE = [
    torch.tensor(3), torch.tensor(torch.nan), torch.ones(0), torch.ones(3, 0), torch.ones(0, 3),
    torch.ones(3, 3, 3), torch.ones(2, 3, dtype=torch.int8), torch.ones(3, 85, dtype=torch.bool),
    torch.ones(32, 3, dtype=torch.float8_e4m3fn), torch.ones(3, 32, dtype=torch.complex64), torch.ones(1, 1),
]  # fmt: skip
METADATA = [
    "{}",
    "[]",
    "{",
    "3",
    '{"r": 0, "lora_alpha": 1}',
    '{"r": -2, "alpha": 4}',
    "[" * 2000,
    '{"r": "x"}',
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_a_file_of_random_parts_is_refused_or_fits_its_layers(tmp_path_factory, data):
    parts = dict(
        data.draw(st.sampled_from([parts for layers, _ in KINDS.values() for parts in layers.values()]))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(parts) or PARTS))
        action = data.draw(st.sampled_from(["drop", "rename", "replace", "add"]))
        if action == "add":
            parts[data.draw(st.sampled_from(PARTS))] = data.draw(st.sampled_from(STRANGE))
        elif name in parts:
            value = parts.pop(name)
            if action == "rename":
                parts[data.draw(st.sampled_from(PARTS))] = value
            elif action == "replace":
                parts[name] = data.draw(st.sampled_from(STRANGE))
    layer = data.draw(st.sampled_from([QKV, MLP, QK_NORM, "proj_out", "txt_norm.9"]))
    metadata = {key: data.draw(st.sampled_from(METADATA)) for key in ("lora_adapter_metadata", "alpha")}
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    save_file(
        {f"{layer}.{name}": value.contiguous().clone() for name, value in parts.items()}, path, metadata
    )
    shapes = adaptable_weights(one_denoiser())
    try:
        adapter = read_adapter(path, shapes)
    except CheckpointError:
        return
    for target, weights in adapter.items():
        assert tuple(total_delta(weights, torch.ones(shapes[target])).shape) == shapes[target]


one_denoiser = cache(tiny_denoiser)
