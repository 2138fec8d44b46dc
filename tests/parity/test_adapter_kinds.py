"""Every kind of adapter, in every key style, on a tiny real denoiser against its formula in float64."""

import json

import pytest
import torch
from adapter_kinds import (
    ALPHA,
    COLUMNS,
    KINDS,
    MLP,
    OUT,
    PREFIXES,
    QKV,
    ROWS,
    adapter_file,
    assert_same_velocity,
    one_denoiser,
    velocity_with,
    with_values,
)
from comparisons import normal, same_state, velocity
from peft import BOFTConfig, LoraConfig, OFTConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.boft.layer import BOFTLayer
from safetensors.torch import load_file, save_file
from tiny_models import DENOISER_CONFIG, tiny_denoiser

from lens.errors import SettingError
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
from lens.models.checkpoints.adapters.rotation_assembly import peft_boft
from lens.models.checkpoints.adapters.weights import change_of_output, total_delta
from lens.models.checkpoints.convert import convert
from lens.models.checkpoints.single_file import load_denoiser
from lens.models.mapped_memory import is_mapped, release
from lens.models.quantized import mxfp8


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


ROTATIONS_OF_PEFT = {
    "OFT": OFTConfig(oft_block_size=8, target_modules=[QKV, OUT]),
    "OFT by its series to three terms": OFTConfig(
        oft_block_size=8, target_modules=[QKV, OUT], num_cayley_neumann_terms=3
    ),
    "OFT without a series": OFTConfig(oft_block_size=8, target_modules=[QKV, OUT], use_cayley_neumann=False),
    "OFT with a bound": OFTConfig(oft_block_size=8, target_modules=[QKV, OUT], coft=True, eps=0.5),
    "OFT of one block for all": OFTConfig(oft_block_size=8, target_modules=[QKV, OUT], block_share=True),
    "BOFT": BOFTConfig(boft_block_size=8, target_modules=[QKV, OUT]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROTATIONS_OF_PEFT)
def test_pefts_rotations_come_out_as_in_peft(tmp_path, kind):
    other, config = tiny_denoiser(), ROTATIONS_OF_PEFT[kind]
    inject_adapter_in_model(config, other, "it")
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(other.named_parameters()):
            if "oft_" in name:
                parameter.add_(0.2 * normal(*parameter.shape, seed=seed))
    wanted = velocity(other)
    stored = get_peft_model_state_dict(other, adapter_name="it")
    save_file({f"base_model.model.{n}": v for n, v in stored.items()}, tmp_path / "adapter_model.safetensors")
    config.save_pretrained(tmp_path)
    model = tiny_denoiser()
    load_lora(model, tmp_path)
    assert (wanted - velocity_with()).abs().max() > 0.01
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-4, atol=1e-4)
    fuse_loras(model)
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(SettingError, match="other than PEFT's OFT or BOFT"):
        save_lora(model, tmp_path / "b.safetensors", "kohya")


def test_the_stages_of_pefts_boft_are_multiplied_as_there():
    stages, layer = normal(3, 8, 4, 4, seed=50), BOFTLayer(torch.nn.Linear(32, 5))
    product = torch.eye(32)
    for index, blocks in enumerate(stages):
        order = layer.perm2mat(layer.block_butterfly_perm(32, 8 // 2**index, 2, n_butterfly_factor=2))
        product = order @ torch.block_diag(*layer.cayley_batch(blocks)) @ order.mT @ product
    weight, scale = normal(5, 32, seed=51), normal(5, 1, seed=52)
    part = peft_boft("layer", {"boft_R": stages, "boft_s": scale}, (5, 32))
    wanted = scale * (weight @ product.mT) - weight
    torch.testing.assert_close(part.delta(weight), wanted, rtol=1e-4, atol=1e-4)


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
    weight = normal(*part.shape, seed=41)
    with torch.no_grad():
        change = change_of_output(part, x, lambda vectors: vectors @ weight.mT)
        wanted = x @ total_delta(part._replace(magnitude=None), weight).mT
        torch.testing.assert_close(change, wanted, rtol=1e-4, atol=1e-4)


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
