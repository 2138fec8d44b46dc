"""The denoiser as a module: its names and counts, its text, its adapters, its errors."""

import copy
import logging
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from lens.core import products
from lens.errors import SettingError, ShapeError
from lens.models import denoiser as module
from lens.models.attention import SHORT_SEQUENCE_TOKENS, MaskCache, attention
from lens.models.denoiser import LensTransformer2DModel
from lens.models.quantized.torchao import quantize_weights

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser

BLOCK_SHAPES = {
    "img_mod.1.weight": (9216, 1536), "img_mod.1.bias": (9216,), "img_norm1.weight": (1536,),
    "img_norm2.weight": (1536,), "img_mlp.w1.weight": (4096, 1536), "img_mlp.w2.weight": (1536, 4096),
    "img_mlp.w3.weight": (4096, 1536), "txt_mod.1.weight": (9216, 1536), "txt_mod.1.bias": (9216,),
    "txt_norm1.weight": (1536,), "txt_norm2.weight": (1536,), "txt_mlp.w1.weight": (4096, 1536),
    "txt_mlp.w2.weight": (1536, 4096), "txt_mlp.w3.weight": (4096, 1536),
    "attn.img_qkv.weight": (4608, 1536), "attn.img_qkv.bias": (4608,), "attn.txt_qkv.weight": (4608, 1536),
    "attn.txt_qkv.bias": (4608,), "attn.norm_q.weight": (64,), "attn.norm_k.weight": (64,),
    "attn.norm_added_q.weight": (64,), "attn.norm_added_k.weight": (64,),
    "attn.to_out.0.weight": (1536, 1536), "attn.to_out.0.bias": (1536,),
    "attn.to_add_out.weight": (1536, 1536), "attn.to_add_out.bias": (1536,),
}  # fmt: skip
OTHER_SHAPES = {
    "img_in.weight": (1536, 128), "img_in.bias": (1536,),
    "txt_in.weight": (1536, 11520), "txt_in.bias": (1536,),
    "txt_norm.0.weight": (2880,), "txt_norm.1.weight": (2880,), "txt_norm.2.weight": (2880,),
    "txt_norm.3.weight": (2880,), "norm_out.linear.weight": (3072, 1536), "norm_out.linear.bias": (3072,),
    "time_text_embed.timestep_embedder.linear_1.weight": (1536, 256),
    "time_text_embed.timestep_embedder.linear_1.bias": (1536,),
    "time_text_embed.timestep_embedder.linear_2.weight": (1536, 1536),
    "time_text_embed.timestep_embedder.linear_2.bias": (1536,), "proj_out.weight": (128, 1536),
    "proj_out.bias": (128,),
}  # fmt: skip


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call(denoiser, num_text: int = 7, **changes):
    """Return the velocity of a batch of two images of 3 x 5 tokens, arguments changed at will."""
    dtype = denoiser.dtype
    arguments = {
        "hidden_states": normal(2, 15, TOKEN_CHANNELS, seed=1).to(dtype),
        "encoder_hidden_states": [normal(2, num_text, TEXT_WIDTH, seed=2 + n).to(dtype) for n in range(4)],
        "timestep": torch.tensor([0.3, 0.9]),
        "img_shapes": [(1, 3, 5)],
    }
    return denoiser(**(arguments | changes), return_dict=False)[0]


def test_the_default_configuration_has_the_released_tensors():
    with torch.device("meta"):
        state = LensTransformer2DModel().state_dict()
    expected = dict(OTHER_SHAPES)
    for index in range(48):
        expected |= {f"transformer_blocks.{index}.{name}": shape for name, shape in BLOCK_SHAPES.items()}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
    assert len(state) == 1264
    assert sum(tensor.numel() for tensor in state.values()) == 4_104_225_152


def test_the_config_round_trips_through_a_folder(tmp_path):
    denoiser = tiny_denoiser()
    denoiser.save_pretrained(tmp_path)
    again = LensTransformer2DModel.from_pretrained(tmp_path)
    assert dict(again.config)["selected_layer_index"] == [0, 1, 3, 4]
    assert torch.equal(call(again), call(denoiser))


@pytest.mark.parametrize(("changes", "message"), [
    ({"gate_mlp": False}, "gate_mlp is False, but it needs true"),
    ({"inner_dim": 48}, "inner_dim is 48, but it needs num_attention_heads x attention_head_dim = 32"),
    ({"axes_dims_rope": (4, 6, 8)}, "add up to attention_head_dim = 16"),
    ({"out_channels": 5}, "in_channels is 16, but it needs patch_size\\^2 x out_channels"),
])  # fmt: skip
def test_a_configuration_that_cannot_work_is_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        tiny_denoiser(**changes)


def test_a_full_mask_means_no_mask(monkeypatch):
    masks = []
    real = torch.nn.functional.scaled_dot_product_attention

    def noted(*args, attn_mask=None, **kwargs):
        masks.append(attn_mask)
        return real(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    denoiser = tiny_denoiser()
    without = call(denoiser)
    with_full = call(denoiser, encoder_hidden_states_mask=torch.ones(2, 7, dtype=torch.bool))
    assert masks == [None] * 6
    assert torch.equal(without, with_full)


@torch.no_grad()
def test_a_mask_changed_in_place_is_read_again():
    denoiser, mask = tiny_denoiser(), torch.ones(2, 7, dtype=torch.bool)
    full = call(denoiser, encoder_hidden_states_mask=mask)
    mask[:, 3:] = False
    cut = call(denoiser, encoder_hidden_states_mask=mask)
    assert not torch.allclose(cut, full)
    features = [normal(2, 7, TEXT_WIDTH, seed=2 + n)[:, :3] for n in range(4)]
    torch.testing.assert_close(cut, call(denoiser, encoder_hidden_states=features))


@torch.no_grad()
def test_a_compiled_layer_of_16_bits_takes_the_float32_of_the_denoiser_around_it():
    x, weight, bias = normal(2, 3, 5, seed=0), normal(7, 5, seed=1).bfloat16(), normal(7, seed=2).bfloat16()
    compiled = torch.compile(products.linear, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias), x @ weight.float().T + bias.float())


def test_two_masks_by_turns_are_read_once_each(monkeypatch):
    reads, real = [], MaskCache._measure
    monkeypatch.setattr(MaskCache, "_measure", staticmethod(lambda mask: reads.append(mask) or real(mask)))
    cache, features = MaskCache(), torch.zeros(2, 7, TEXT_WIDTH)
    cond, uncond = torch.ones(2, 7, dtype=torch.bool), torch.zeros(2, 7, dtype=torch.bool)
    for _ in range(3):
        assert cache.get(cond, features) == (7, False)
        assert cache.get(uncond, features) == (0, False)
    assert len(reads) == 2
    for _ in range(9):
        cache.get(torch.ones(2, 7, dtype=torch.bool), features)
    assert len(cache._entries) <= MaskCache.MAX_ENTRIES


@torch.no_grad()
def test_all_padding_equals_zero_text_tokens_and_what_it_holds_does_not_matter():
    denoiser, nothing = tiny_denoiser(), torch.zeros(2, 7, dtype=torch.bool)
    padded = call(denoiser, encoder_hidden_states_mask=nothing)
    assert padded.isfinite().all()
    assert torch.equal(padded, call(denoiser, num_text=0))
    zeros = [torch.zeros(2, 7, TEXT_WIDTH)] * 4
    other = call(denoiser, encoder_hidden_states=zeros, encoder_hidden_states_mask=nothing)
    assert torch.equal(padded, other)


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch():
    denoiser, mask = tiny_denoiser(), torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    together = call(denoiser, encoder_hidden_states_mask=mask)
    alone = call(
        denoiser,
        hidden_states=normal(2, 15, TOKEN_CHANNELS, seed=1)[1:],
        encoder_hidden_states=[normal(2, 7, TEXT_WIDTH, seed=2 + n)[1:, :4] for n in range(4)],
        timestep=torch.tensor([0.9]),
    )
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_size_can_be_given_once_or_for_each_sample_and_the_time_for_all():
    denoiser = tiny_denoiser()
    assert torch.equal(call(denoiser), call(denoiser, img_shapes=[(1, 3, 5), (1, 3, 5)]))
    assert torch.equal(call(denoiser), call(denoiser, img_shapes=[[(1, 3, 5)], [(1, 3, 5)]]))
    assert not torch.allclose(call(denoiser), call(denoiser, img_shapes=[(1, 5, 3)]))
    both = call(denoiser, timestep=torch.tensor(0.4))
    assert torch.equal(both, call(denoiser, timestep=torch.tensor([0.4, 0.4])))


FEATURES = [torch.zeros(2, 7, TEXT_WIDTH)] * 4
SHORT = torch.zeros(2, 6, TEXT_WIDTH)


@pytest.mark.parametrize(("changes", "message"), [
    ({"timestep": None}, "timestep is missing"),
    ({"timestep": torch.zeros(3)}, r"timestep has shape \(3,\), but it needs \(2,\)"),
    ({"hidden_states": torch.zeros(2, 15, 9)}, r"hidden_states has shape .* it needs \(batch, tokens, 16\)"),
    ({"hidden_states": torch.zeros(15, 16)}, r"hidden_states has shape \(15, 16\)"),
    ({"img_shapes": None}, "img_shapes is None, but it needs one"),
    ({"img_shapes": [(1, 3, 5), (1, 5, 3)]}, "img_shapes is .* but it needs one"),
    ({"img_shapes": [(1, 3, 4)]}, r"img_shapes is \(1, 3, 4\), but it needs one frame of 15 cells"),
    ({"encoder_hidden_states": FEATURES[:3]}, "a list of 3, but it needs a list of 4 tensors"),
    ({"encoder_hidden_states": FEATURES[0]}, "encoder_hidden_states is one tensor"),
    ({"encoder_hidden_states": [*FEATURES[:3], SHORT]}, r"encoder_hidden_states\[3\]"),
    ({"encoder_hidden_states": [torch.zeros(2, 7, 5)] * 4}, r"it needs \(2, 7, 24\)"),
    ({"encoder_hidden_states_mask": SHORT[..., 0] == 0}, "encoder_hidden_states_mask is torch.bool"),
    ({"encoder_hidden_states_mask": torch.ones(2, 7)}, "encoder_hidden_states_mask is torch.float32"),
])  # fmt: skip
def test_an_input_that_does_not_fit_is_named(changes, message):
    with pytest.raises(ShapeError, match=message):
        call(tiny_denoiser(), **changes)


def test_rotary_tables_are_kept_per_size_and_stay_out_of_the_state_dict():
    denoiser = tiny_denoiser()
    names = set(denoiser.state_dict())
    first = denoiser._rotary_cache.get(3, 5, 7, torch.device("cpu"))
    assert denoiser._rotary_cache.get(3, 5, 7, torch.device("cpu")) is first
    assert first.dtype == torch.float32 and first.shape == (22, 8, 2)
    for num_text in range(100):
        denoiser._rotary_cache.get(3, 5, num_text, torch.device("cpu"))
    assert len(denoiser._rotary_cache._tables) == denoiser._rotary_cache.MAX_ENTRIES
    assert set(denoiser.state_dict()) == names


def test_a_denoiser_that_has_drawn_in_inference_mode_can_still_be_trained_and_copied():
    denoiser = tiny_denoiser()
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    with torch.inference_mode():
        drawn = call(denoiser, encoder_hidden_states_mask=mask.clone())
    velocity = call(denoiser, encoder_hidden_states_mask=mask)
    velocity.sum().backward()
    assert torch.equal(velocity.detach(), drawn)
    assert torch.equal(call(copy.deepcopy(denoiser), encoder_hidden_states_mask=mask), velocity)


def test_times_closer_than_bfloat16_can_tell_are_told_apart():
    denoiser = tiny_denoiser().bfloat16()
    near, far = torch.full((2,), 0.8970), torch.full((2,), 0.9000)
    assert near.bfloat16().equal(far.bfloat16())
    assert not torch.equal(call(denoiser, timestep=near), call(denoiser, timestep=far))


def test_float16_clips_the_features_with_one_warning(caplog):
    module._warn_of_float16.cache_clear()
    denoiser = tiny_denoiser()
    # Every channel far beyond the limit: clipped they are alike, and so is the norm of what is alike.
    huge, clipped = ([torch.full((2, 7, TEXT_WIDTH), value)] * 4 for value in (1e6, 6e4))
    exact = call(denoiser, encoder_hidden_states=clipped)
    with caplog.at_level(logging.WARNING):
        half = call(denoiser.half(), encoder_hidden_states=huge)
        call(denoiser, encoder_hidden_states=[layer.bfloat16() for layer in huge])
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)
    assert caplog.text.count("text features beyond 60000 are clipped") == 1


def test_gradient_checkpointing_changes_no_gradient():
    plain, saving = tiny_denoiser(), tiny_denoiser()
    saving.enable_gradient_checkpointing()
    for denoiser in (plain, saving):
        call(denoiser.train()).square().mean().backward()
    kept = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert len(kept) > 80
    for name, parameter in saving.named_parameters():
        if name in kept:
            torch.testing.assert_close(parameter.grad, kept[name])


def test_fresh_weights_predict_zero_and_pass_gradients_to_the_output_layer():
    denoiser = tiny_denoiser()
    denoiser.init_weights(torch.Generator().manual_seed(0))
    velocity = call(denoiser)
    assert torch.equal(velocity, torch.zeros_like(velocity))
    velocity.sub(1).square().mean().backward()
    assert denoiser.proj_out.weight.grad.abs().max() > 0
    again = tiny_denoiser(seed=5)
    again.init_weights(torch.Generator().manual_seed(0))
    assert torch.equal(again.txt_in.weight, denoiser.txt_in.weight)


@pytest.mark.parametrize("is_padded", [False, True])
def test_attention_for_short_training_on_the_cpu_agrees_with_the_fused_kernel(is_padded):
    q, k, v = (normal(2, 3, 7, 8, seed=n).bfloat16() for n in range(3))
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    mask = mask if is_padded else None
    fused = attention(q, k, v, mask)
    plain = attention(q.requires_grad_(), k, v, mask)
    assert SHORT_SEQUENCE_TOKENS >= 7 and plain.requires_grad
    # Scores of up to 4 are rounded to bfloat16 before the softmax.
    torch.testing.assert_close(plain.float(), fused.float(), atol=0.02, rtol=0.02)


ADAPTED = ["img_qkv", "txt_qkv", "to_out.0", "to_add_out", "img_mlp.w2"]
ADAPTER = LoraConfig(r=2, lora_alpha=2, target_modules=ADAPTED)


def with_adapter(name: str, seed: int) -> LensTransformer2DModel:
    denoiser = tiny_denoiser()
    denoiser.add_adapter(ADAPTER, adapter_name=name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in sorted(denoiser.named_parameters()):
            if "lora_" in parameter_name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return denoiser


@torch.no_grad()
def test_adapters_load_weigh_and_switch_off():
    trained = with_adapter("default", seed=3)
    state = get_peft_model_state_dict(trained)
    assert len(state) == 2 * 5 * 3
    denoiser = tiny_denoiser()
    plain, adapted = call(denoiser), call(trained)
    assert not torch.allclose(plain, adapted)
    denoiser.load_lora_adapter(state, prefix=None, adapter_name="style")
    torch.testing.assert_close(call(denoiser), adapted)
    denoiser.set_adapters(["style"], [0.0])
    torch.testing.assert_close(call(denoiser), plain)
    denoiser.set_adapters(["style"], [0.5])
    half = call(denoiser)
    torch.testing.assert_close(call(denoiser, attention_kwargs={"scale": 2.0}), adapted)
    torch.testing.assert_close(call(denoiser, attention_kwargs={"scale": 0.0}), plain)
    assert torch.equal(call(denoiser), half) and not torch.allclose(half, adapted)
    denoiser.disable_adapters()
    torch.testing.assert_close(call(denoiser), plain)


def test_training_an_adapter_leaves_the_base_alone():
    denoiser = with_adapter("default", seed=3)
    call(denoiser).square().mean().backward()
    moved = {name for name, parameter in denoiser.named_parameters() if parameter.grad is not None}
    assert moved and all("lora_" in name for name in moved)
    assert denoiser.transformer_blocks[0].attn.img_qkv.lora_A["default"].weight.grad.abs().max() > 0


def test_the_weights_called_unread_are_those_that_get_no_gradient():
    denoiser = tiny_denoiser()
    call(denoiser).square().mean().backward()
    unread = {id(parameter) for parameter in denoiser.unused_parameters()}
    assert unread == {id(parameter) for parameter in denoiser.parameters() if parameter.grad is None}
    assert len(unread) == 7


def packed_call(denoiser):
    """Return the velocities of two images as one packed sequence, joined."""
    dtype = denoiser.dtype
    images = [normal(15, TOKEN_CHANNELS, seed=1).to(dtype), normal(6, TOKEN_CHANNELS, seed=2).to(dtype)]
    texts = [[normal(count, TEXT_WIDTH, seed=n).to(dtype) for n in range(4)] for count in (7, 5)]
    sizes = [(1, 3, 5), (1, 2, 3)]
    return torch.cat(denoiser(images, texts, None, torch.tensor([0.3, 0.9]), sizes, return_dict=False)[0])


@pytest.mark.parametrize("prefers_float32", [False, True])
@pytest.mark.parametrize("velocity", [call, packed_call])
def test_bfloat16_on_the_cpu_is_no_further_from_float32_in_inference_than_in_training(
    monkeypatch, prefers_float32, velocity
):
    monkeypatch.setattr(products, "_prefers_float32", lambda dtype: prefers_float32)
    denoiser = tiny_denoiser().bfloat16()
    trained = velocity(denoiser).detach()
    with torch.no_grad():
        drawn, exact = velocity(denoiser), velocity(denoiser.float())
    assert drawn.dtype == trained.dtype == torch.bfloat16
    error, error_in_training = ((one.float() - exact).norm() for one in (drawn, trained))
    assert error < (0.7 if prefers_float32 else 1.2) * error_in_training


@torch.no_grad()
def test_adapters_act_the_same_where_the_cpu_computes_in_float32(monkeypatch):
    adapted, plain = with_adapter("default", seed=3), tiny_denoiser()
    change = call(adapted) - call(plain)
    monkeypatch.setattr(products, "_prefers_float32", lambda dtype: True)
    change_in_half = (call(adapted.bfloat16()) - call(plain.bfloat16())).float()
    assert (change_in_half - change).norm() < 0.05 * change.norm()


@torch.no_grad()
def test_quantized_weights_keep_their_products_where_the_cpu_computes_in_float32(monkeypatch):
    denoiser = tiny_denoiser(inner_dim=64, attention_head_dim=32, axes_dims_rope=(8, 12, 12)).bfloat16()
    quantize_weights(denoiser, "int8")
    drawn = []
    for prefers_float32 in (False, True):
        monkeypatch.setattr(products, "_prefers_float32", lambda dtype, choice=prefers_float32: choice)
        drawn.append(call(denoiser).float())
    assert (drawn[0] - drawn[1]).norm() < 0.03 * drawn[0].norm()


@torch.no_grad()
def test_layerwise_casting_computes_in_its_own_dtype_which_adapters_need(monkeypatch):
    monkeypatch.setattr(products, "_prefers_float32", lambda dtype: True)  # as on a CPU without bfloat16
    denoiser = tiny_denoiser().to(torch.bfloat16)
    denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_out.0"], init_lora_weights=False))
    given = {
        "hidden_states": torch.ones(1, 6, TOKEN_CHANNELS, dtype=torch.bfloat16),
        "encoder_hidden_states": [torch.ones(1, 5, TEXT_WIDTH, dtype=torch.bfloat16)] * 4,
        "timestep": torch.tensor([0.5]), "img_shapes": [(1, 2, 3)],
    }  # fmt: skip
    expected = denoiser(**given).sample
    denoiser.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    assert denoiser.transformer_blocks[0].attn.img_qkv.weight.dtype == torch.float8_e4m3fn
    drawn = denoiser(**given).sample
    assert (drawn - expected).abs().mean() < 0.2 * expected.abs().mean()


def test_a_factor_on_the_features_of_some_words_does_not_act_as_they_are_normalized():
    denoiser = tiny_denoiser()
    features = [normal(2, 7, TEXT_WIDTH, seed=2 + n) for n in range(4)]
    factors = torch.tensor([1, 1.3, 0.5, 2, 1, 1, 1])[None, :, None]
    weighted = [layer * factors for layer in features]
    plain, scaled = (call(denoiser, encoder_hidden_states=layers) for layers in (features, weighted))
    torch.testing.assert_close(scaled, plain, atol=1e-4, rtol=1e-4)
    other = [layer.roll(1, dims=1) for layer in features]
    assert not torch.allclose(call(denoiser, encoder_hidden_states=other), plain, atol=1e-2)
