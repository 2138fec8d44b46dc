"""LensPipeline as diffusers' guides use a pipeline: offloading, other loaders, parts alone, properties."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from tiny_models import CAPTURED_LAYERS, TOKEN_CHANNELS, tiny_components, tiny_denoiser, tiny_pipeline

from lens import LensPipeline
from lens.errors import SettingError

REQUEST = {"height": 32, "width": 48, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "lens-tiny"
    pipeline.save_pretrained(path)
    return path


def draw(pipeline, **request):
    pipeline.set_progress_bar_config(disable=True)
    request = REQUEST | {"output_type": "pt", "generator": torch.Generator().manual_seed(0)} | request
    return pipeline(**({} if "prompt_embeds" in request else {"prompt": "a fox"}), **request).images


# ---- offloading and other pipelines


def test_sequential_offloading_gives_the_same_image_also_with_a_source_image(pipeline):
    offloaded = tiny_pipeline()
    offloaded.enable_sequential_cpu_offload(device="cpu")  # the same hooks as for a GPU
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    for request in ({}, {"image": source, "negative_prompt": "a dog"}):
        torch.testing.assert_close(
            draw(offloaded, **request), draw(pipeline, **request), atol=1e-5, rtol=0
        )
    assert all(weight.is_meta for weight in offloaded.text_encoder.parameters())


@pytest.mark.parametrize("auto", ["Text2Image", "Image2Image", "Inpainting"])
def test_auto_pipelines_load_lens_and_make_it_of_another_pipeline(pipeline, folder, auto):
    auto_class = getattr(diffusers, f"AutoPipelineFor{auto}")
    loaded = auto_class.from_pretrained(folder)
    assert type(loaded) is LensPipeline
    torch.testing.assert_close(draw(loaded), draw(pipeline), atol=2e-5, rtol=0)
    assert auto_class.from_pipe(pipeline).components == pipeline.components


def test_a_pipeline_made_of_another_shares_its_components_and_settings():
    first = tiny_pipeline(lens_variant="turbo", default_guidance=3.0)
    second = LensPipeline.from_pipe(first)
    assert second.components == first.components
    assert second.defaults == first.defaults
    other = tiny_denoiser(seed=7)
    assert LensPipeline.from_pipe(first, transformer=other).transformer is other


def test_a_pipeline_made_of_another_keeps_what_was_set_and_leaves_the_weights_alone():
    first = tiny_pipeline()
    first.to(torch.bfloat16)
    first.enable_vae_tiling(64)
    first.transformer.memory_rung = "streamed"
    first.logs_warnings = False
    first.set_progress_bar_config(disable=True)
    first.image_processor = VaeImageProcessor(do_normalize=False)
    down, up = torch.ones(2, 32), torch.ones(TOKEN_CHANNELS, 2)
    first.load_lora_weights({"proj_out.lora_A.weight": down, "proj_out.lora_B.weight": up})
    first.fuse_lora()
    for second in (LensPipeline.from_pipe(first), LensPipeline(**first.components)):
        assert (second.tile_px, second.memory_rung, second.num_fused_loras) == (64, "streamed", 1)
    second = LensPipeline.from_pipe(first)
    assert {part.dtype for part in (first.transformer, second.transformer, second.vae)} == {torch.bfloat16}
    assert second.image_processor is first.image_processor and not second.logs_warnings
    assert second._progress_bar_config == {"disable": True}
    other = tiny_denoiser(seed=7)
    replaced = LensPipeline.from_pipe(first, transformer=other, default_steps=9)
    assert (replaced.memory_rung, replaced.num_fused_loras, replaced.defaults.num_inference_steps) == (
        "resident", 0, 9
    )  # fmt: skip
    assert LensPipeline.from_pipe(replaced, torch_dtype=torch.float32).transformer.dtype == torch.float32
    first.unfuse_lora()
    assert second.num_fused_loras == 0
    second.disable_vae_tiling()
    assert first.tile_px is None


def test_offloading_goes_on_in_a_pipeline_made_of_another():
    first = tiny_pipeline()
    first.enable_model_cpu_offload(device="cpu")
    second = LensPipeline.from_pipe(first)
    assert second._all_hooks == first._all_hooks and second._offload_device == torch.device("cpu:0")
    torch.testing.assert_close(draw(second), draw(tiny_pipeline()), atol=1e-5, rtol=0)
    assert not hasattr(LensPipeline.from_pipe(first, transformer=tiny_denoiser(seed=7)), "_all_hooks")


# ---- parts alone


def test_embeds_of_a_pipeline_without_denoiser_draw_in_one_without_text_encoder(pipeline, folder):
    encoding = LensPipeline.from_pretrained(folder, transformer=None, vae=None)
    embeds, mask, negative, negative_mask = encoding.encode_prompt("a fox")
    drawing = LensPipeline.from_pretrained(folder, text_encoder=None, tokenizer=None)
    drawn = draw(
        drawing, prompt_embeds=embeds, prompt_mask=mask, negative_prompt_embeds=negative,
        negative_prompt_mask=negative_mask,
    )  # fmt: skip
    torch.testing.assert_close(drawn, draw(pipeline), atol=2e-5, rtol=0)
    with pytest.raises(SettingError, match="text encoder"):
        draw(drawing)
    with pytest.raises(SettingError, match=r"^transformer is None"):
        draw(encoding)


def test_without_a_denoiser_the_text_layers_are_those_of_the_settings_or_told(caplog):
    parts = tiny_components() | {"transformer": None, "vae": None}
    told = LensPipeline(**parts).encode_prompt("a fox")[0]
    assert "0, 2, 3, 5" in caplog.text
    stated = LensPipeline(**parts, selected_layer_index=list(CAPTURED_LAYERS)).encode_prompt("a fox")[0]
    expected = tiny_pipeline().encode_prompt("a fox")[0]
    assert all(torch.equal(one, other) for one, other in zip(stated, expected, strict=True))
    assert not torch.equal(told[1], expected[1])


def test_latents_need_no_vae_and_pixels_ask_for_it(pipeline):
    without = LensPipeline(**tiny_components() | {"vae": None})
    assert without.vae_scale_factor == pipeline.vae_scale_factor == 16
    latents = draw(without, output_type="latent")
    assert torch.equal(latents, draw(pipeline, output_type="latent"))
    for request in ({"output_type": "pil"}, {"output_type": "latent", "image": Image.new("RGB", (48, 32))}):
        with pytest.raises(SettingError, match=r"^vae is None"):
            draw(without, **request)
    with pytest.raises(SettingError, match=r"^vae is None"):
        without.decode(latents, 32, 48)


def test_a_pipeline_without_parts_is_saved_and_loaded_without_them(folder, tmp_path):
    encoding = LensPipeline.from_pretrained(folder, transformer=None, vae=None)
    encoding.save_pretrained(tmp_path / "encoding")
    for load in (LensPipeline.from_pretrained, diffusers.DiffusionPipeline.from_pretrained):
        loaded = load(tmp_path / "encoding")
        assert loaded.transformer is None and loaded.vae is None
        assert torch.equal(loaded.encode_prompt("a fox")[0][1], encoding.encode_prompt("a fox")[0][1])


# ---- state, checks and noise by diffusers' names


def test_a_callback_reads_the_state_of_the_call_by_diffusers_names(pipeline):
    seen = []

    def look(caller, step, timestep, tensors):
        seen.append((caller.guidance_scale, caller.do_classifier_free_guidance, caller.num_timesteps,
                     caller.attention_kwargs, caller.interrupt))  # fmt: skip
        return tensors

    draw(pipeline, guidance_scale=3.0, attention_kwargs={"scale": 1.0}, callback_on_step_end=look)
    draw(pipeline, guidance_scale=1.0, callback_on_step_end=look)
    assert seen == [(3.0, True, 2, {"scale": 1.0}, False)] * 2 + [(1.0, False, 2, None, False)] * 2


def test_the_image_processor_of_the_pipeline_makes_its_images():
    changed = tiny_pipeline()
    plain = draw(changed)
    processor = changed.image_processor
    changed.image_processor.postprocess = lambda pixels, output_type: 1 - (pixels / 2 + 0.5)
    torch.testing.assert_close(draw(changed), 1 - plain)
    assert processor.config.vae_scale_factor == 16


def test_prepared_latents_are_the_noise_that_a_call_draws(pipeline):
    generator = torch.Generator().manual_seed(0)
    noise = pipeline.prepare_latents(1, TOKEN_CHANNELS, 32, 48, torch.float32, "cpu", generator)
    assert noise.shape == (1, 2 * 3, TOKEN_CHANNELS)
    assert torch.equal(draw(pipeline, latents=noise, generator=None), draw(pipeline))


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        (("", 32, 48), "prompt"), ((None, 32, 48), "prompt"), (("a fox", 31, 48), "height"),
        (("a fox", 32.0, 48), "height"), (("a fox", 32, 48, [torch.zeros(1, 2, 3)]), "prompt"),
        (("a fox", 32, 48, None, ["noise"]), "callback_on_step_end_tensor_inputs"),
    ],
)  # fmt: skip
def test_checks_alone_name_what_a_call_would_refuse(pipeline, given, setting):
    pipeline.check_inputs("a fox", 32, 48, None, ["latents"])
    with pytest.raises(SettingError, match=f"^{setting} is"):
        pipeline.check_inputs(*given)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_inference_steps", 2.0), ("num_inference_steps", "2"), ("num_images_per_prompt", 1.5),
        ("num_images_per_prompt", None), ("guidance_scale", "5"), ("height", 32.0), ("base_resolution", "64"),
        ("aspect_ratio", 1.5), ("max_sequence_length", None), ("max_sequence_length", 0),
        ("generator", 0), ("generator", [None]), ("latents", [0.0]), ("attention_kwargs", 0.5),
        ("negative_prompt", 5), ("negative_prompt", ["a", 5]), ("callback_on_step_end", True),
        ("callback_on_step_end_tensor_inputs", "latents"), ("output_type", None), ("solver", ["euler"]),
        ("on_progress", 3), ("prompt_embeds", [None]), ("prompt_embeds", []),
        ("negative_prompt_embeds", [None]),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_by_name(pipeline, setting, value):
    with pytest.raises(SettingError, match=f"^{setting} is"):
        draw(pipeline, **({"guidance_scale": 2.0} | {setting: value}))


def test_no_requested_tensors_are_none(pipeline):
    seen = []
    draw(
        pipeline, callback_on_step_end_tensor_inputs=None,
        callback_on_step_end=lambda caller, step, time, tensors: seen.append(tensors),
    )  # fmt: skip
    assert seen == [{}, {}]


@pytest.mark.parametrize(
    ("scheduler", "setting"),
    [
        (diffusers.DDIMScheduler(), "scheduler is 'DDIMScheduler'"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), "scheduler.use_dynamic_shifting is False"),
        (diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, use_karras_sigmas=True),
         "scheduler.use_karras_sigmas is True"),
    ],
)  # fmt: skip
def test_a_scheduler_whose_levels_would_not_be_used_is_refused(scheduler, setting):
    changed = tiny_pipeline()
    changed.scheduler = scheduler
    with pytest.raises(SettingError, match=f"^{setting}"):
        draw(changed)
