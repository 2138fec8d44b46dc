"""Files of adapters that are damaged, of another kind or do not fit: each is refused by name."""

import pytest
import torch
from adapter_kinds import FULL, KINDS, MLP, QK_NORM, QKV, QKV_DOWN, QKV_UP, adapter_file, one_denoiser
from comparisons import same_state
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_models import tiny_denoiser

from lens.errors import CheckpointError
from lens.models.checkpoints.adapters.lora import (
    adaptable_weights,
    load_lora,
)
from lens.models.checkpoints.adapters.lora_formats import read_adapter
from lens.models.checkpoints.adapters.weights import total_delta

LOW = {"lora_A.weight": QKV_DOWN, "lora_B.weight": QKV_UP}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{QKV}.oft_R.weight": torch.ones(4, 8)}, r"has a rotation of the shape \(4, 8\)"),
        ({f"{QKV}.oft_R.weight": torch.ones(3, 28)}, "has 3 blocks of 8, but it needs 32 axes"),
        ({f"{QKV}.boft_R": torch.ones(1, 4, 8, 8)}, "has only boft_R"),
        ({f"{QKV}.boft_R": torch.ones(4, 8), f"{QKV}.boft_s": torch.ones(96)}, "blocks of the shape"),
        ({f"{QKV}.oft_blocks": torch.ones(4, 8, 8)}, "has 4 blocks of 8, but it needs 96 axes"),
        ({f"{QKV}.oft_blocks": torch.ones(3, 32, 3, 3)}, "has 3 stages of blocks of 3, which 96 axes"),
        ({f"{QKV}.oft_blocks": torch.full((12, 8, 8), torch.nan)}, "has blocks that are not finite"),
        ({f"{QKV}.oft_blocks": torch.ones(12, 8, 8), f"{QKV}.rescale": torch.ones(5)},
         r"a scale of the shape \(5,\)"),
        ({f"{QKV}.rescale": torch.ones(96, 1)}, "has only rescale"),
        ({f"{QK_NORM}.oft_blocks": torch.ones(2, 8, 8)}, "is a norm, which has no axes to rotate"),
        ({f"{QKV}.{name}.weight": torch.ones(2, 2) for name in ("a1", "a2", "b1", "b2")},
         r"is for \(2, 2\), the layer is \(96, 32\)"),
        ({f"{QKV}.{name}.weight": torch.ones(2, 2) for name in ("a1", "a2", "b1")}, "has only a1 and a2"),
        ({f"{QKV}.{name}.weight": torch.ones(2, 2) for name in ("a1", "a2", "b1", "b2", "bm")},
         "1 of the kind GLoRA of a kernel"),
        ({f"{QKV}.oft_diag": torch.ones(4, 8)}, "1 of the kind OFT of its own names"),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(2, 2)},
         "has no adapter weights, only 1 keys of a text encoder"),
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
        ('{"peft_type": "VERA"}', "an adapter of the kind VERA, which is not supported"),
        ('{"layer_replication": [[0, 4], [2, 5]]}', "layer_replication, which Lens cannot apply"),
        ('{"init_lora_weights": "pissa"}', "init_lora_weights=pissa, which Lens cannot apply"),
        ('{"use_qalora": true}', "use_qalora, which Lens cannot apply"),
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


def test_keys_of_a_text_encoder_beside_those_of_layers_are_told(tmp_path, caplog):
    text = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(3, 8),
        "text_encoder.layers.0.q_proj.lora_A.weight": torch.ones(3, 8),
    }
    layer = {f"transformer.{QKV}.{name}": value for name, value in LOW.items()}
    save_file(text | layer, tmp_path / "a.safetensors")
    adapter = read_adapter(tmp_path / "a.safetensors", adaptable_weights(one_denoiser()))
    assert list(adapter) == [QKV]
    (message,) = caplog.messages
    assert all(key in message for key in text) and "2 keys of a text encoder" in message


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
