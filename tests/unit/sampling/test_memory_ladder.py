"""The memory ladder: what the rungs take, which one is chosen, and that all draw the same."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import DENOISER_CONFIG, tiny_denoiser, tiny_pipeline

from lens.errors import CheckpointError, MemoryNeedError, SettingError
from lens.models.checkpoints.diffusers_folder import check_folder
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.mapped_memory import is_mapped
from lens.models.quantized import mxfp8
from lens.models.quantized.packed_modules import packed_formats
from lens.models.shapes import denoiser_shapes, num_parameters, text_encoder_shapes, vae_shapes
from lens.sampling.memory_ladder import (
    RUNGS,
    ComponentSize,
    apply_rung,
    choose_rung,
    component_sizes,
    memory_ladder,
    parse_memory,
)
from lens.sampling.pipeline import LensPipeline
from lens.sampling.resolved_model import ResolvedModel

GB = 1e9


def released_sizes() -> dict[str, ComponentSize]:
    """Return the sizes of the released model: bfloat16, and experts in MXFP4."""
    denoiser = 2 * num_parameters(denoiser_shapes(LENS_DENOISER))
    shapes = text_encoder_shapes(GPT_OSS_20B)
    experts = {name for name in shapes if name.endswith(("gate_up_proj", "down_proj"))}
    packed = num_parameters({name: shapes[name] for name in experts}) * 17 // 32
    plain = 2 * num_parameters({name: shape for name, shape in shapes.items() if name not in experts})
    tables = 2 * 2 * 201088 * 2880
    vae = 2 * num_parameters(vae_shapes(FLUX2_VAE))
    return {
        "text_encoder": ComponentSize(packed + plain, (packed + plain - tables) // 24, tables),
        "transformer": ComponentSize(denoiser, denoiser // 48, 0),
        "vae": ComponentSize(vae, vae, 0),
    }


def ladder(side: int = 512):
    return memory_ladder(released_sizes(), LENS_DENOISER, (side, side), 2)


def test_the_rungs_of_the_released_model_fit_the_machines_that_they_are_for():
    resident, parts, streamed, tiled = ladder(1024)
    assert [rung.name for rung in ladder()] == list(RUNGS)
    assert 20 * GB < resident.peak_bytes < 24 * GB
    assert 8.2 * GB < parts.peak_bytes < 12 * GB
    assert tiled.peak_bytes < streamed.peak_bytes < 3.4 * GB
    assert resident.peak_bytes == max(resident.stages.values())


def test_the_highest_rung_that_fits_is_chosen_and_a_command_goes_by_parts():
    assert choose_rung(ladder(), 32 * GB, is_one_shot=False).name == "resident"
    assert choose_rung(ladder(), 32 * GB, is_one_shot=True).name == "parts"
    assert choose_rung(ladder(), 24 * GB, is_one_shot=False).name == "parts"
    assert choose_rung(ladder(), 8 * GB, is_one_shot=True).name == "streamed"
    assert choose_rung(ladder(1024), 2 * GB, is_one_shot=False).name == "tiled"
    said = r"at least 1\.\d GB .*decoding in tiles.* 1\.0 GB may be used.*smaller size, or raise --memory"
    with pytest.raises(MemoryNeedError, match=said):
        choose_rung(ladder(1024), 1 * GB, is_one_shot=False)


def test_a_gpu_holds_a_whole_encoder_or_none():
    sizes = released_sizes()
    _, parts, streamed, _ = memory_ladder(sizes, LENS_DENOISER, (512, 512), 2, is_on_gpu=True)
    assert parts.stages["encoding"] > sizes["text_encoder"].loaded
    assert streamed.stages["encoding"] < GB


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("8GB", 8e9), ("3.5 gb", 3.5e9), ("900MB", 9e8), ("2GiB", 2**31), ("4g", 4e9), ("auto", None)],
)
def test_a_memory_is_a_number_with_a_unit_or_auto(text, num_bytes):
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize("text", ["8", "0GB", "-1GB", "lots", "", "8GB!"])
def test_another_memory_is_refused_by_name(text):
    with pytest.raises(SettingError, match=r"--memory is .* needs a size such as 8GB"):
        parse_memory(text)


@pytest.fixture
def mxfp8_model(tmp_path):
    """Return a tiny model whose denoiser is one file with linear layers in MXFP8."""
    folder = tmp_path / "lens"
    tiny_pipeline().save_pretrained(folder)
    tensors = dict(tiny_denoiser().state_dict())
    for name in [name for name in tensors if name.endswith(("_qkv.weight", "_mlp.w1.weight"))]:
        layer = name.removesuffix(".weight")
        tensors[name], tensors[f"{layer}.weight_scale"] = mxfp8.quantize(tensors[name])
    path = tmp_path / "lens_mxfp8.safetensors"
    save_file(tensors, path, {"lens_config": json.dumps(DENOISER_CONFIG)})
    return ResolvedModel.of(path, text_encoder=folder, vae=folder, tokenizer=folder)


def image_on(model: ResolvedModel, rung: str, dtype: torch.dtype) -> torch.Tensor:
    pipeline = LensPipeline.from_pretrained(model, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    apply_rung(pipeline, rung)
    images = [
        pipeline("two red apples", height=64, width=96, num_inference_steps=2, guidance_scale=2.0,
                 generator=torch.Generator().manual_seed(seed), output_type="pt").images
        for seed in (5, 6)
    ]  # fmt: skip
    return torch.cat(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_rung_draws_the_same_image_to_the_bit(mxfp8_model, dtype):
    resident = image_on(mxfp8_model, "resident", dtype)
    for rung in ("parts", "streamed", "tiled"):
        assert torch.equal(image_on(mxfp8_model, rung, dtype), resident), rung


def test_a_pipeline_takes_its_memory_and_stays_packed_and_mapped(mxfp8_model, monkeypatch):
    pipeline = LensPipeline.from_pretrained(mxfp8_model, torch_dtype=torch.bfloat16, memory="100GB")
    assert pipeline.memory_rung == "resident" and packed_formats(pipeline.transformer) == ["MXFP8"]
    layer = pipeline.transformer.transformer_blocks[1].attn.img_qkv
    assert is_mapped(layer.packed.part_0)
    with pytest.raises(MemoryNeedError):
        LensPipeline.from_pretrained(mxfp8_model, torch_dtype=torch.bfloat16, memory="1MB")


def test_weights_in_another_dtype_stay_views_of_their_file_when_they_are_streamed(mxfp8_model):
    from lens.sampling.loader import load_denoiser_of

    kept = load_denoiser_of(mxfp8_model, torch.bfloat16, keep_stored=True)
    cast = load_denoiser_of(mxfp8_model, torch.bfloat16)
    assert packed_formats(kept) == ["F32", "MXFP8"]
    assert is_mapped(kept.transformer_blocks[0].img_mlp.w2.packed.part_0)
    kept_state, cast_state = kept.state_dict(), cast.state_dict()
    assert set(kept_state) == set(cast_state)
    assert all(torch.equal(kept_state[name], cast_state[name]) for name in cast_state)


def test_sizes_count_packed_weights_as_stored_and_plain_ones_as_computed(mxfp8_model):
    sizes = component_sizes(mxfp8_model, torch.bfloat16)
    packed = {name: shape for name, shape in denoiser_shapes(DENOISER_CONFIG).items()
              if name.endswith(("_qkv.weight", "_mlp.w1.weight"))}  # fmt: skip
    plain = num_parameters(denoiser_shapes(DENOISER_CONFIG)) - num_parameters(packed)
    scales = sum(128 * 4 * -(-shape[0] // 128) * -(-(shape[1] // 32) // 4) for shape in packed.values())
    assert sizes["transformer"].loaded == 2 * plain + num_parameters(packed) + scales
    assert sizes["transformer"].streamed_block < sizes["transformer"].loaded


def test_a_truncated_shard_is_named_before_anything_is_computed(tmp_path):
    folder = tmp_path / "lens"
    tiny_pipeline().save_pretrained(folder, max_shard_size="100KB")
    shard = sorted((folder / "transformer").glob("*-of-*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match=rf"{shard.name} is truncated"):
        check_folder(folder)
    with pytest.raises(CheckpointError, match=rf"{shard.name} is truncated"):
        component_sizes(ResolvedModel.of(folder), torch.bfloat16)
