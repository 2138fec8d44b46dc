"""Adapters through the pipeline: loaded, weighed, switched and taken off again."""

import huggingface_hub
import pytest
import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from tiny_models import tiny_pipeline

from lens.errors import CheckpointError, SettingError
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
        with pytest.raises(SettingError, match="nobody is not in the list of present adapters"):
            pipeline.set_adapters("nobody")
        for weights in ([1.0, 2.0], "strong", [True], {"text_encoder": 1.0}, [{"transformer": [1.0]}]):
            with pytest.raises(SettingError, match="adapter_weights"):
                pipeline.set_adapters([name], weights)
        for call in (pipeline.delete_adapters, lambda name: pipeline.set_lora_device([name], "cpu")):
            with pytest.raises(SettingError, match="a loaded adapter"):
                call("nobody")
        with pytest.raises(SettingError, match="components"):
            pipeline.fuse_lora(components=["text_encoder"])
        with pytest.raises(SettingError, match="a loaded adapter"):
            pipeline.fuse_lora(adapter_names=["nobody"])
        with pytest.raises(SettingError, match=r"weigth_name is 'x', but it needs to be one of weight_name"):
            pipeline.load_lora_weights(files, weigth_name="x")
        with pytest.raises(SettingError, match="transformer_lora_layers"):
            type(pipeline).save_lora_weights(files, transformer_lora_layers={})
    finally:
        pipeline.unload_lora_weights()


def test_a_saved_adapter_loads_again_to_the_same_image(pipeline, files, tmp_path):
    pipeline.load_lora_weights(files / "second.safetensors", adapter_name="other")
    name = pipeline.load_lora_weights(files / "first.safetensors")
    pipeline.set_adapters(name)
    image = draw(pipeline)
    path = pipeline.save_adapter(tmp_path, name)
    assert path == tmp_path / "pytorch_lora_weights.safetensors"
    with pytest.raises(SettingError, match="the name of a loaded adapter"):
        pipeline.save_adapter(tmp_path)
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


def test_a_name_that_torch_keeps_for_itself_is_refused_and_never_made(pipeline, files, tmp_path):
    for name in ("half", "training", "a.b", ""):
        with pytest.raises(SettingError, match=r"no attribute of torch\.nn\.Module"):
            pipeline.load_lora_weights(files / "first.safetensors", adapter_name=name)
    (tmp_path / "half.safetensors").write_bytes((files / "first.safetensors").read_bytes())
    assert pipeline.load_lora_weights(tmp_path / "half.safetensors") == "half_2"
    pipeline.unload_lora_weights()


@pytest.fixture
def unloaded(pipeline):
    """The pipeline, without adapters before and after."""
    yield pipeline
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()


def test_the_calls_of_diffusers_guide_work(unloaded, files, tmp_path):
    plain = draw(unloaded)
    unloaded.load_lora_weights(files, weight_name="first.safetensors", adapter_name="a")
    first = draw(unloaded)
    unloaded.load_lora_weights(load_file(files / "second.safetensors"), adapter_name="b")
    assert unloaded.get_active_adapters() == ["a", "b"]
    assert unloaded.get_list_adapters() == {"transformer": ["a", "b"]}
    both = draw(unloaded)
    unloaded.disable_lora()
    assert torch.equal(draw(unloaded), plain)
    unloaded.enable_lora()
    assert torch.equal(draw(unloaded), both)
    unloaded.set_lora_device(["a", "b"], "cpu")
    with pytest.raises(SettingError, match="b would have no effect beside fused ones"):
        unloaded.fuse_lora(adapter_names=["a"])
    unloaded.set_adapters("a")
    unloaded.fuse_lora(components=["transformer"], adapter_names=["a"], safe_fusing=True)
    assert unloaded.num_fused_loras == 1 and unloaded.fused_loras == {"a"}
    torch.testing.assert_close(draw(unloaded), first, atol=1e-4, rtol=0)
    with pytest.raises(SettingError, match="without fused adapters, beside which another one has no effect"):
        unloaded.load_lora_weights(files / "first.safetensors")
    unloaded.unfuse_lora()
    unloaded.fuse_lora(adapter_names=["b", "a"])
    assert unloaded.num_fused_loras == 2
    torch.testing.assert_close(draw(unloaded), both, atol=1e-4, rtol=0)
    unloaded.unfuse_lora()
    assert unloaded.num_fused_loras == 0
    unloaded.set_adapters(["a", "b"], [{"transformer": 1.0}, None])
    torch.testing.assert_close(draw(unloaded), both, atol=1e-4, rtol=0)
    unloaded.delete_adapters("b")
    assert unloaded.get_list_adapters() == {"transformer": ["a"]}
    torch.testing.assert_close(draw(unloaded), first, atol=1e-4, rtol=0)
    layers = get_peft_model_state_dict(unloaded.transformer, adapter_name="a")
    settings = unloaded.transformer.peft_config["a"].to_dict()
    type(unloaded).save_lora_weights(tmp_path, layers, transformer_lora_adapter_metadata=settings)
    unloaded.unload_lora_weights()
    unloaded.load_lora_weights(tmp_path)
    torch.testing.assert_close(draw(unloaded), first, atol=1e-4, rtol=0)


def test_a_state_dict_keeps_its_scale_on_the_way_through_diffusers_functions(unloaded, files, tmp_path):
    layer = "transformer_blocks.1.attn.img_qkv"
    tensors = load_file(files / "first.safetensors")
    kohya = {
        f"lora_unet_{layer.replace('.', '_')}.lora_down.weight": tensors[f"{layer}.lora_A.weight"],
        f"lora_unet_{layer.replace('.', '_')}.lora_up.weight": tensors[f"{layer}.lora_B.weight"],
        f"lora_unet_{layer.replace('.', '_')}.alpha": torch.tensor(1.0),
    }
    state_dict = unloaded.lora_state_dict(kohya)
    parts = ("lora_A.weight", "lora_B.weight", "alpha")
    assert set(state_dict) == {f"transformer.{layer}.{part}" for part in parts}
    unloaded.load_lora_into_transformer(state_dict, unloaded.transformer, "weak")
    half = draw(unloaded)
    unloaded.unload_lora_weights()
    unloaded.load_lora_weights(files / "first.safetensors", weight=0.5)
    torch.testing.assert_close(draw(unloaded), half, atol=1e-5, rtol=0)
    unloaded.unload_lora_weights()
    settings = {"r": 2, "lora_alpha": 1.0}
    type(unloaded).save_lora_weights(tmp_path, tensors, transformer_lora_adapter_metadata=settings)
    state_dict, metadata = unloaded.lora_state_dict(tmp_path, return_lora_metadata=True)
    assert metadata == {"transformer.r": 2, "transformer.lora_alpha": 1.0}
    unloaded.load_lora_into_transformer(state_dict, unloaded.transformer, "weak", metadata=metadata)
    torch.testing.assert_close(draw(unloaded), half, atol=1e-5, rtol=0)


def test_a_hotswapped_adapter_acts_as_one_that_was_loaded(unloaded, files, tmp_path):
    layer = "transformer_blocks.1.attn.img_qkv"
    wide = {layer: LoraWeights(torch.randn(5, 32), torch.randn(96, 5), 2.0)}
    write_adapter(wide, tmp_path / "wide.safetensors", "kohya")
    unloaded.load_lora_weights(tmp_path / "wide.safetensors")
    wanted = draw(unloaded)
    unloaded.unload_lora_weights()
    unloaded.load_lora_weights(files / "second.safetensors")
    second = draw(unloaded)
    unloaded.unload_lora_weights()

    unloaded.load_lora_weights(files / "first.safetensors", adapter_name="it", weight=0.3)
    unloaded.load_lora_weights(files / "second.safetensors", adapter_name="it", hotswap=True)
    torch.testing.assert_close(draw(unloaded), second, atol=1e-5, rtol=0)
    with pytest.raises(SettingError, match=r"at most 2, .* Call enable_lora_hotswap\(target_rank=5\)"):
        unloaded.load_lora_weights(tmp_path / "wide.safetensors", adapter_name="it", hotswap=True)
    with pytest.raises(SettingError, match="the name of a loaded plain LoRA"):
        unloaded.load_lora_weights(files / "first.safetensors", adapter_name="other", hotswap=True)
    unloaded.unload_lora_weights()

    unloaded.enable_lora_hotswap(target_rank=5)
    unloaded.load_lora_weights(files / "second.safetensors", adapter_name="it")
    torch.testing.assert_close(draw(unloaded), second, atol=1e-5, rtol=0)
    unloaded.load_lora_weights(tmp_path / "wide.safetensors", adapter_name="it", hotswap=True)
    torch.testing.assert_close(draw(unloaded), wanted, atol=1e-5, rtol=0)
    unloaded.load_lora_weights(files / "second.safetensors", adapter_name="it", hotswap=True)
    torch.testing.assert_close(draw(unloaded), second, atol=1e-5, rtol=0)
    unloaded.save_adapter(tmp_path)
    unloaded.unload_lora_weights()
    unloaded.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(draw(unloaded), second, atol=1e-5, rtol=0)


def test_a_hub_id_is_downloaded_or_refused_by_name(unloaded, files, monkeypatch):
    names = ["README.md", "first.safetensors"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: names)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name, **__: str(files / name))
    assert unloaded.load_lora_weights("someone/style") == "first"
    names.append("second.safetensors")
    with pytest.raises(SettingError, match=r"weight_name .* one of first.safetensors, second.safetensors"):
        unloaded.load_lora_weights("someone/style")
    assert unloaded.load_lora_weights("someone/style", weight_name="second.safetensors") == "second"

    def unreachable(*_, **__):
        raise OSError("no route to the host")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    with pytest.raises(CheckpointError, match=r"someone/style is no file or folder here, .* no route"):
        unloaded.load_lora_weights("someone/style")


@pytest.mark.parametrize(
    "odd", [{"transformer.x": 0}, {"proj_out.lora_A.weight": [[1.0]]}, {3: torch.ones(2, 2)}], ids=str
)
def test_a_state_dict_of_other_things_than_tensors_is_refused(pipeline, odd):
    (key,) = odd
    for call in (pipeline.load_lora_weights, pipeline.lora_state_dict):
        with pytest.raises(CheckpointError, match=f"under {key!r}, but it needs names, each with a tensor"):
            call(odd)
