"""Text encoders in folders: their class, their YaRN factor, experts in MXFP4."""

import json

import pytest
import torch
from mxfp4_encoder import write_mxfp4_encoder
from safetensors.torch import load_file
from tiny_models import tiny_encoder

from lens.models import memory
from lens.models.checkpoints.text_encoder import LensGptOssEncoder, load_text_encoder_folder
from lens.models.mapped_memory import is_mapped
from lens.models.quantized.packed_modules import packed_formats


def ids(length: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(0))


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


@pytest.fixture
def mxfp4_folder(tmp_path):
    """Return a folder as published, experts in MXFP4, and the experts' true values."""
    return tmp_path / "mxfp4", write_mxfp4_encoder(tmp_path / "mxfp4")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mxfp4_experts_stay_packed_and_have_the_values_of_their_bytes(mxfp4_folder, dtype):
    folder, truth = mxfp4_folder
    encoder = load_text_encoder_folder(folder, dtype, device="cpu")
    assert packed_formats(encoder) == ["MXFP4"]
    weights = encoder.state_dict()
    for name, values in truth.items():
        assert weights[name].dtype == dtype
        assert torch.equal(weights[name].float(), values)


def test_packed_experts_give_the_features_of_dequantised_ones(mxfp4_folder):
    folder, _ = mxfp4_folder
    packed = load_text_encoder_folder(folder, torch.float32)
    plain = load_text_encoder_folder(folder, torch.float32, keep_packed=False)
    assert packed_formats(plain) == []
    features = [encoder.text_features(ids(7), None, (0, 1)) for encoder in (packed, plain)]
    for one, other in zip(*features, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_library_loads_a_published_folder_packed(mxfp4_folder):
    folder, truth = mxfp4_folder
    encoder = LensGptOssEncoder.from_pretrained(folder.parent, subfolder=folder.name, dtype=torch.bfloat16)
    assert packed_formats(encoder) == ["MXFP4"]
    name = "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(encoder.state_dict()[name].float(), truth[name])


def test_sequences_go_through_the_blocks_together_and_do_not_depend_on_each_other(mxfp4_folder):
    folder, _ = mxfp4_folder
    encoder = load_text_encoder_folder(folder, torch.bfloat16)
    sequences = [ids(7, 1)[0], ids(11, 1)[0], ids(1, 1)[0]]
    done = []
    together = encoder.text_features_of_sequences(sequences, (1, 0), lambda *at: done.append(at))
    assert done == [(1, 2), (2, 2)]
    encoder.releases_blocks = True
    for sequence, rows in zip(sequences, together, strict=True):
        (alone,) = encoder.text_features_of_sequences([sequence], (1, 0))
        by_batch = encoder.text_features(sequence[None], None, (1, 0))
        for one, other, third in zip(rows, alone, by_batch, strict=True):
            assert one.shape == (len(sequence), 32)
            assert torch.equal(one, other) and torch.equal(one, third[0])


def test_a_dequantised_encoder_is_saved_as_what_it_is(mxfp4_folder, tmp_path):
    folder, truth = mxfp4_folder
    load_text_encoder_folder(folder, torch.float32, device="cpu").save_pretrained(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    weights = load_file(tmp_path / "plain" / "model.safetensors")
    assert not [name for name in weights if name.endswith(("_blocks", "_scales"))]
    for name, values in truth.items():
        assert torch.equal(weights[name], values)


def test_an_encoder_that_is_larger_than_the_free_memory_is_loaded_as_views_of_its_file(
    mxfp4_folder, monkeypatch
):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    encoder = load_text_encoder_folder(mxfp4_folder[0], torch.float32, device="cpu")
    experts = encoder.model.layers[0].mlp.experts
    assert is_mapped(experts.gate_up.part_0) and is_mapped(encoder.model.embed_tokens.weight)
