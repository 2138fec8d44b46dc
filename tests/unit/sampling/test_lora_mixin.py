"""Adapters through the pipeline: loaded, weighed, switched and taken off again."""

import pytest
import torch
from tiny_models import tiny_pipeline

from lens.errors import SettingError
from lens.models.checkpoints.adapters.lora_formats import LoraWeights, write_adapter


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two LoRA files for one layer, of different random weights."""
    folder = tmp_path_factory.mktemp("loras")
    for number, name in enumerate(("first", "second")):
        generator = torch.Generator().manual_seed(number)
        down, up = torch.randn(2, 32, generator=generator), torch.randn(96, 2, generator=generator)
        adapter = {"transformer_blocks.1.attn.img_qkv": LoraWeights(down, up, 2.0)}
        write_adapter(adapter, folder / f"{name}.safetensors", "peft")
    return folder


def draw(pipeline, **request):
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        "a fox", num_inference_steps=2, output_type="latent", generator=generator, **request
    ).images


def test_adapters_add_by_weight_and_unload_without_a_trace(pipeline, files):
    plain = draw(pipeline)
    first = pipeline.load_lora_weights(files / "first.safetensors", weight=0.5)
    half = draw(pipeline)
    pipeline.set_adapters(first, 1.0)
    whole = draw(pipeline)
    second = pipeline.load_lora_weights(files / "second.safetensors", adapter_name="other")
    both = draw(pipeline)
    assert second == "other"
    for one, another in ((plain, half), (half, whole), (whole, both)):
        assert (one - another).abs().max() > 1e-3
    pipeline.set_adapters([first, second], [1.0, 0.0])
    torch.testing.assert_close(draw(pipeline), whole, atol=1e-5, rtol=0)
    pipeline.set_adapters([first], 0.5)
    torch.testing.assert_close(draw(pipeline, attention_kwargs={"scale": 2.0}), whole, atol=1e-5, rtol=0)
    pipeline.unload_lora_weights()
    assert torch.equal(draw(pipeline), plain)


def test_names_and_weights_that_do_not_fit_are_refused(pipeline, files):
    name = pipeline.load_lora_weights(files / "first.safetensors")
    try:
        with pytest.raises(SettingError, match="a loaded adapter"):
            pipeline.set_adapters("nobody")
        with pytest.raises(SettingError, match="adapter_weights"):
            pipeline.set_adapters([name], [1.0, 2.0])
    finally:
        pipeline.unload_lora_weights()


def test_a_saved_adapter_loads_again_to_the_same_image(pipeline, files, tmp_path):
    pipeline.load_lora_weights(files / "second.safetensors", adapter_name="other")
    name = pipeline.load_lora_weights(files / "first.safetensors")
    pipeline.set_adapters(name)
    image = draw(pipeline)
    path = pipeline.save_lora_weights(tmp_path, name)
    assert path == tmp_path / "pytorch_lora_weights.safetensors"
    with pytest.raises(SettingError, match="the name of a loaded adapter"):
        pipeline.save_lora_weights(tmp_path)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(draw(pipeline), image, atol=1e-5, rtol=0)
    pipeline.unload_lora_weights()


def test_fused_adapters_give_the_same_image_and_can_be_unfused(pipeline, files):
    plain = draw(pipeline)
    pipeline.load_lora_weights(files / "first.safetensors", weight=0.5)
    pipeline.load_lora_weights(files / "second.safetensors", adapter_name="other")
    beside = draw(pipeline)
    before = pipeline.transformer.transformer_blocks[1].attn.img_qkv.weight.clone()
    pipeline.fuse_lora()
    pipeline.fuse_lora()  # a second time changes nothing
    assert (pipeline.transformer.transformer_blocks[1].attn.img_qkv.weight - before).abs().max() > 0.01
    torch.testing.assert_close(draw(pipeline), beside, atol=1e-4, rtol=0)
    pipeline.unfuse_lora()
    torch.testing.assert_close(draw(pipeline), beside, atol=1e-4, rtol=0)
    pipeline.fuse_lora(lora_scale=0.0)
    torch.testing.assert_close(draw(pipeline), plain, atol=1e-4, rtol=0)
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()
    torch.testing.assert_close(draw(pipeline), plain, atol=1e-4, rtol=0)
