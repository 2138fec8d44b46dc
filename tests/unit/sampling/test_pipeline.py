"""LensPipeline on tiny real models: what each argument means, and that images and calls stay apart."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from png_files import HDR, with_colour_codes
from tiny_models import CAPTURED_LAYERS, TEXT_WIDTH, TOKEN_CHANNELS, tiny_pipeline

from lens.errors import GenerationCancelledError, NonFiniteError, SettingError, ShapeError

PROMPTS = [
    "a fox",
    "two red apples to the left of a fox, on a blue background, in the rain",
    "a cat and a dog",
]
BATCH_TOLERANCE = 2e-5
"""Float32 sums run in another order in a batch: 2.4e-6 was measured on latents of size 1."""


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture
def passes(pipeline):
    """The batch sizes that the denoiser was called with."""
    calls = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    yield calls
    hook.remove()


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def draw(pipeline, prompt="a fox", *, seed=0, **request):
    request = {"num_inference_steps": 3, "output_type": "pt", "generator": seeds(seed)[0]} | request
    return pipeline(prompt, **request).images


def speckled(width=64, height=64):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


# ---- one image, whatever company it is in


def test_prompts_of_different_lengths_in_one_call_give_what_each_gives_alone(pipeline):
    together = draw(pipeline, PROMPTS, generator=seeds(1, 2, 3), output_type="latent")
    for row, prompt in enumerate(PROMPTS):
        alone = draw(pipeline, prompt, generator=seeds(row + 1), output_type="latent")
        torch.testing.assert_close(together[row : row + 1], alone, atol=BATCH_TOLERANCE, rtol=0)


def test_negative_prompts_of_different_lengths_and_none_at_all_mix_in_one_call(pipeline):
    negatives = ["", "blurry", "a dog to the right of a cat"]
    request = {"output_type": "latent", "guidance_scale": 4.0}
    together = draw(pipeline, PROMPTS, negative_prompt=negatives, generator=seeds(1, 2, 3), **request)
    for row, (prompt, negative) in enumerate(zip(PROMPTS, negatives, strict=True)):
        alone = draw(pipeline, prompt, negative_prompt=negative, generator=seeds(row + 1), **request)
        torch.testing.assert_close(together[row : row + 1], alone, atol=BATCH_TOLERANCE, rtol=0)


def test_images_of_one_prompt_are_consecutive(pipeline):
    four = draw(pipeline, PROMPTS[:2], num_images_per_prompt=2, generator=seeds(1, 2, 3, 4))
    for row, (prompt, seed) in enumerate([(0, 1), (0, 2), (1, 3), (1, 4)]):
        alone = draw(pipeline, PROMPTS[prompt], generator=seeds(seed))
        torch.testing.assert_close(four[row : row + 1], alone, atol=BATCH_TOLERANCE, rtol=0)


def test_an_image_does_not_depend_on_how_many_are_requested(pipeline):
    first = draw(pipeline, num_images_per_prompt=3)[:1]
    torch.testing.assert_close(first, draw(pipeline), atol=BATCH_TOLERANCE, rtol=0)


def test_a_request_is_reproducible_to_the_bit_and_another_seed_gives_another_image(pipeline):
    assert torch.equal(draw(pipeline), draw(pipeline))
    assert (draw(pipeline) - draw(pipeline, seed=1)).abs().max() > 0.1


def test_prompt_negative_prompt_guidance_and_solver_change_the_image(pipeline):
    plain = draw(pipeline)
    for change in (
        {"prompt": "a cat"},
        {"negative_prompt": "a cat"},
        {"guidance_scale": 2.0},
        {"solver": "ab2"},
    ):
        assert (draw(pipeline, **change) - plain).abs().max() > 1e-3, change


# ---- text


def test_prompt_embeds_are_one_tensor_per_layer_and_zero_for_an_empty_negative(pipeline):
    features, mask, negative, negative_mask = pipeline.encode_prompt(PROMPTS, "", num_images_per_prompt=2)
    lengths = mask.sum(1)
    assert len(features) == len(negative) == len(CAPTURED_LAYERS)
    assert features[0].shape == (6, int(lengths.max()), TEXT_WIDTH)
    assert lengths[0] == lengths[1] < lengths[4] == lengths[5] < lengths[2] == lengths[3]
    assert all(torch.equal(one[2], one[3]) for one in features)
    assert negative[0].shape == features[0].shape and max(one.abs().max() for one in negative) == 0
    assert negative_mask.shape == mask.shape and not negative_mask.any()


def test_passed_prompt_embeds_give_the_image_of_their_prompt(pipeline):
    features, mask, negative, negative_mask = pipeline.encode_prompt(PROMPTS[:2], "a dog")
    ready = pipeline(
        prompt_embeds=features,
        prompt_mask=mask,
        negative_prompt_embeds=negative,
        negative_prompt_mask=negative_mask,
        generator=seeds(1, 2),
        num_inference_steps=3,
        output_type="pt",
    ).images
    assert torch.equal(ready, draw(pipeline, PROMPTS[:2], negative_prompt="a dog", generator=seeds(1, 2)))


def test_passed_prompt_embeds_without_negative_ones_use_no_text_and_repeat(pipeline):
    features, mask, *_ = pipeline.encode_prompt("a fox")
    request = {"prompt_embeds": features, "num_images_per_prompt": 2, "generator": seeds(1, 2)}
    ready = pipeline(**request, num_inference_steps=3, output_type="pt").images
    torch.testing.assert_close(
        ready, draw(pipeline, num_images_per_prompt=2, generator=seeds(1, 2)), atol=0, rtol=0
    )
    assert mask.all()


def test_an_empty_negative_prompt_is_not_encoded(pipeline):
    as_no_text = draw(pipeline)
    scaffold_only = pipeline.encode_prompt("x")  # what an encoded "" would look like: the closing scaffold
    encoded = draw(
        pipeline, negative_prompt_embeds=[one[:, 1:] for one in scaffold_only[0]], negative_prompt=None
    )
    assert (as_no_text - encoded).abs().max() > 1e-3


def test_without_guidance_the_unconditional_pass_is_skipped(pipeline, passes):
    draw(pipeline, guidance_scale=1.0)
    assert passes == [1, 1, 1]
    draw(pipeline, guidance_scale=3.0)
    assert passes == [1, 1, 1] + [1] * 6


@pytest.mark.parametrize(
    ("without_effect", "told"),
    [
        ({"guidance_scale": 1.0, "negative_prompt": "a cat"}, "negative prompt has no effect at guidance 1"),
        ({"strength": 0.5}, "strength has no effect without a source image"),
        ({"num_inference_steps": 1, "solver": "ab2"}, "solver ab2 has no effect on one step"),
        ({"image": speckled(), "strength": 1.0}, "source image decides the size alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_without_effect_change_nothing_and_are_told(pipeline, caplog, without_effect, told):
    others = {"negative_prompt", "strength", "solver", "image"}
    plain = {name: value for name, value in without_effect.items() if name not in others}
    assert torch.equal(draw(pipeline, **without_effect), draw(pipeline, **plain))
    assert [told in record.message for record in caplog.records] == [True]


def test_settings_that_act_are_not_told(pipeline, caplog):
    acting = {"guidance_scale": 2.0, "negative_prompt": "a cat", "solver": "ab2", "strength": 0.9}
    draw(pipeline, image=speckled(), **acting)
    assert caplog.text == ""


def test_prompt_embeds_without_masks_give_the_image_that_they_give_with_them(pipeline):
    for prompts, negative in (("a fox", PROMPTS[1]), (PROMPTS, "a dog"), (PROMPTS[1], "")):
        embeds, mask, negative_embeds, negative_mask = pipeline.encode_prompt(prompts, negative)
        both = {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds, "guidance_scale": 3.0}
        masks = {"prompt_mask": mask, "negative_prompt_mask": negative_mask}
        assert not (mask.all() and negative_mask.all()), "nothing is padded"
        first, second = (
            draw(pipeline, None, generator=seeds(*range(len(mask))), **both, **more) for more in (masks, {})
        )
        assert torch.equal(first, second)


def of_hdr(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Image.open(io.BytesIO(with_colour_codes(file.getvalue(), HDR)))


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"image": speckled(96, 64), "height": 64, "width": 64}, "33% of its width is cut off"),
        ({"image": speckled(64, 96), "aspect_ratio": "1:1"}, "33% of its height is cut off"),
        ({"image": speckled(300, 64)}, "57% of its width is cut off"),
        ({"image": of_hdr(speckled())}, "The source image has colours of HDR"),
        ({"image": speckled(), "mask_image": np.full((64, 64), 3, np.uint8)}, "The mask keeps nothing"),
        ({"image": speckled(), "mask_image": np.zeros((64, 64), np.uint8)}, "The mask redraws nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_cut_from_a_source_image_and_a_mask_of_one_colour_are_told(pipeline, caplog, request_, told):
    draw(pipeline, **request_)
    assert [told in record.message for record in caplog.records] == [True]


def test_a_source_image_of_the_shape_that_is_drawn_is_not_told(pipeline, caplog):
    draw(pipeline, image=speckled(96, 64))
    draw(pipeline, image=speckled(128, 128), height=64, width=64)
    assert caplog.text == ""


def test_a_long_prompt_is_cut_and_told_in_our_words_alone(pipeline, caplog, capfd):
    draw(pipeline, "fox " * 5000, num_inference_steps=1)
    assert [record.message.startswith("The prompt has ") for record in caplog.records] == [True]
    assert "indexing errors" not in capfd.readouterr().err


@pytest.mark.parametrize(("variant", "num_passes"), [("lens", 40), ("turbo", 4), ("base", 100), ("nano", 40)])
def test_steps_and_guidance_default_to_the_variant(pipeline, passes, variant, num_passes):
    own = tiny_pipeline(lens_variant=variant)
    own.transformer = pipeline.transformer
    own("a fox", output_type="latent", generator=seeds(0)[0])
    assert len(passes) == num_passes


# ---- latents and sizes


def test_latents_are_the_noise_to_start_from_and_come_back_undecoded(pipeline):
    noise = torch.randn(1, 16, TOKEN_CHANNELS, generator=seeds(5)[0])
    assert torch.equal(draw(pipeline, latents=noise, generator=None), draw(pipeline, seed=5))
    latents = draw(pipeline, output_type="latent")
    assert latents.shape == (1, 16, TOKEN_CHANNELS) and latents.dtype == torch.float32
    pixels = pipeline.decode(latents, 64, 64)
    torch.testing.assert_close(pixels / 2 + 0.5, draw(pipeline), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({}, (64, 64)),
        ({"height": 32, "width": 48}, (32, 48)),
        ({"aspect_ratio": "2:1"}, (48, 96)),
        ({"base_resolution": 32, "aspect_ratio": "1:2"}, (48, 16)),
    ],
)
def test_sizes_are_resolved_from_base_and_ratio_or_given(pipeline, size, expected):
    if size.get("base_resolution") == 32:
        size |= {"allow_extreme": True}  # rounded to 16 px the ratio is 1:3
    assert draw(pipeline, **size).shape == (1, 3, *expected)


def test_large_images_decode_in_tiles_on_request(pipeline):
    latents = draw(pipeline, height=128, width=128, output_type="latent")
    whole, told = pipeline.decode(latents, 128, 128), []
    pipeline.enable_vae_tiling(64)
    try:
        tiled = draw(pipeline, height=128, width=128, on_progress=lambda *progress: told.append(progress))
    finally:
        pipeline.disable_vae_tiling()
    assert told[-1] == ("decoding", 9, 9)
    assert tiled.shape == whole.shape


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": ""}, "prompt is"),
        ({"prompt": None}, "prompt is None"),
        ({"height": 60, "width": 64}, "48 or 64"),
        ({"height": 64}, "width is None"),
        ({"aspect_ratio": "5:4"}, "1:2, 9:16, 2:3, 3:4, 1:1, 4:3, 3:2, 16:9, 2:1"),
        ({"height": 16, "width": 160}, "1:2 to 2:1"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"output_type": "jpeg"}, "pil, np, pt, latent"),
        ({"solver": "magic"}, "euler, ab2"),
        ({"prompt": "a \udcff fox"}, "text in UTF-8"),
        ({"negative_prompt": "fog\0"}, "negative_prompt is .* without NUL"),
        ({"prompt": "x" * 32_001}, "at most 32000 characters"),
        ({"prompt_mask": torch.ones(1, 2)}, "the prompt_embeds that it masks"),
        (
            {"negative_prompt": "fog", "negative_prompt_embeds": [torch.ones(1, 2, TEXT_WIDTH)] * 4},
            "left out beside negative_prompt_embeds",
        ),
        ({"image": speckled(), "mask_image": speckled(64, 32)}, "the shape of the image, 64x64"),
        ({"mask_image": speckled()}, "mask_image"),
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"prompt_embeds": [torch.zeros(1, 2, TEXT_WIDTH)] * 4}, "left out beside prompt_embeds"),
        ({"callback_on_step_end_tensor_inputs": ["weights"]}, "names out of latents"),
        ({"generator": seeds(1, 2)}, "one generator for each of 1 images"),
        ({"image": [speckled(), speckled()]}, "a list of 2"),
    ],
)
def test_an_invalid_request_is_refused_before_anything_is_computed(pipeline, passes, request_, message):
    with pytest.raises(SettingError, match=message):
        draw(pipeline, **({"prompt": "a fox"} | request_))
    assert passes == []


def test_noise_of_the_wrong_size_is_refused(pipeline):
    with pytest.raises(ShapeError, match="latents are"):
        draw(pipeline, latents=torch.zeros(1, 9, TOKEN_CHANNELS))


def test_all_output_types_hold_the_same_image(pipeline):
    as_pt = draw(pipeline)
    as_np = draw(pipeline, output_type="np")
    (as_pil,) = draw(pipeline, output_type="pil")
    assert np.array_equal(as_np, as_pt.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.asarray(as_pil), np.rint(as_np[0] * 255).astype(np.uint8))
    (images,) = pipeline("a fox", num_inference_steps=1, return_dict=False)
    assert isinstance(images[0], Image.Image)


# ---- images to start from


def test_full_strength_ignores_the_source_image(pipeline):
    assert torch.equal(draw(pipeline, image=speckled(), strength=1.0), draw(pipeline))


def test_lower_strength_stays_closer_to_the_source_image_and_takes_fewer_steps(pipeline, passes):
    clean = pipeline.encode_image(speckled(), 64, 64)
    distances = []
    for strength, num_steps in ((0.1, 1), (0.5, 5), (0.9, 9)):
        passes.clear()
        request = {"strength": strength, "num_inference_steps": 10, "guidance_scale": 1.0}
        latents = draw(pipeline, image=speckled(), output_type="latent", **request)
        distances.append((latents - clean).abs().mean().item())
        assert len(passes) == num_steps
    assert distances == sorted(distances)


def test_a_source_image_sets_the_size_and_several_match_their_prompts(pipeline):
    assert draw(pipeline, image=speckled(80, 48)).shape == (1, 3, 48, 80)
    pair = [speckled(), speckled().transpose(Image.Transpose.ROTATE_90)]
    both = draw(pipeline, PROMPTS[:2], image=pair, generator=seeds(1, 2))
    second = draw(pipeline, PROMPTS[1], image=pair[1], generator=seeds(2))
    torch.testing.assert_close(both[1:], second, atol=BATCH_TOLERANCE, rtol=0)


def test_inpainting_keeps_black_areas_to_the_byte_and_redraws_white_areas(pipeline):
    image, mask = speckled(), np.zeros((64, 64), dtype=np.uint8)
    mask[10:40, 20:50] = 255
    (drawn,) = draw(pipeline, image=image, mask_image=Image.fromarray(mask), output_type="pil")
    before, after = np.asarray(image), np.asarray(drawn)
    assert np.array_equal(after[mask == 0], before[mask == 0])
    assert (after[mask == 255] != before[mask == 255]).mean() > 0.9


def test_kept_areas_end_as_their_own_latents(pipeline):
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, 32:] = 255
    latents = draw(pipeline, image=speckled(), mask_image=mask, output_type="latent").reshape(4, 4, -1)
    clean = pipeline.encode_image(speckled(), 64, 64).reshape(4, 4, -1)
    assert torch.equal(latents[:, :2], clean[:, :2])
    assert (latents[:, 2:] - clean[:, 2:]).abs().mean() > 0.1


def test_a_white_mask_redraws_everything(pipeline):
    white = Image.new("L", (64, 64), 255)
    assert torch.equal(draw(pipeline, image=speckled(), mask_image=white), draw(pipeline))


# ---- progress, callbacks, cancelling


def test_progress_is_reported_while_encoding_denoising_and_decoding(pipeline):
    told = []
    draw(pipeline, PROMPTS[:2], generator=seeds(1, 2), on_progress=lambda *progress: told.append(progress))
    expected = [("encoding", 1, 2), ("encoding", 2, 2)]
    expected += [("denoising", step, 3) for step in (1, 2, 3)]
    assert told == [*expected, ("decoding", 1, 2), ("decoding", 2, 2)]


def test_the_callback_sees_each_step_and_its_tensors_replace_ours(pipeline):
    seen = []

    def on_step_end(caller, step, timestep, tensors):
        assert caller is pipeline and set(tensors) == {"latents", "prompt_embeds"}
        seen.append((step, round(float(timestep), 1), caller.num_timesteps))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else None

    latents = draw(
        pipeline,
        callback_on_step_end=on_step_end,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
        output_type="latent",
    )
    assert [step for step, _, _ in seen] == [0, 1, 2] and seen[0][1:] == (1000.0, 3)
    assert latents.abs().max() == 0


def test_a_callback_object_names_its_own_tensor_inputs(pipeline):
    class Watcher:
        tensor_inputs = ("prompt_mask",)

        def __call__(self, caller, step, timestep, tensors):
            assert list(tensors) == ["prompt_mask"]
            return tensors

    draw(pipeline, callback_on_step_end=Watcher())


def test_the_callback_can_turn_guidance_off_midway(pipeline, passes):
    def on_step_end(caller, step, timestep, tensors):
        caller._guidance_scale = 1.0
        return tensors

    draw(pipeline, guidance_scale=5.0, callback_on_step_end=on_step_end)
    assert len(passes) == 4


def stop_by_raising(caller, step, timestep, tensors):
    raise GenerationCancelledError("Enough.")


def stop_by_flag(caller, step, timestep, tensors):
    caller._interrupt = True
    return tensors


def test_cancelling_stops_at_once_and_leaves_the_pipeline_as_it_was(pipeline, passes):
    before = draw(pipeline, guidance_scale=1.0)
    passes.clear()
    with pytest.raises(GenerationCancelledError):
        draw(pipeline, guidance_scale=1.0, callback_on_step_end=stop_by_raising)
    assert passes == [1]
    assert torch.equal(draw(pipeline, guidance_scale=1.0), before)


def test_the_interrupt_flag_ends_denoising_with_the_image_so_far(pipeline, passes):
    seen = []

    def watch(caller, step, timestep, tensors):
        seen.append(tensors["latents"])

    whole = draw(pipeline, guidance_scale=1.0, output_type="latent", callback_on_step_end=watch)
    passes.clear()
    stopped = draw(pipeline, guidance_scale=1.0, output_type="latent", callback_on_step_end=stop_by_flag)
    assert passes == [1] and torch.equal(stopped, seen[0])
    assert draw(pipeline, guidance_scale=1.0, callback_on_step_end=stop_by_flag).shape == (1, 3, 64, 64)
    assert torch.equal(draw(pipeline, guidance_scale=1.0, output_type="latent"), whole)


# ---- memory


def test_model_offloading_gives_the_same_image_also_after_a_cancelled_call(pipeline):
    expected, offloaded = draw(pipeline), tiny_pipeline()
    offloaded.enable_model_cpu_offload(device="cpu")
    with pytest.raises(GenerationCancelledError):
        draw(offloaded, callback_on_step_end=stop_by_raising)
    assert torch.equal(draw(offloaded), expected)
    image = draw(offloaded, image=speckled())
    assert torch.equal(image, draw(pipeline, image=speckled()))


@pytest.mark.parametrize(
    "how", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_group_offloading_of_the_denoiser_gives_the_same_image(pipeline, how):
    offloaded = tiny_pipeline()
    offloaded.transformer.enable_group_offload(onload_device=torch.device("cpu"), **how)
    assert torch.equal(draw(offloaded), draw(pipeline))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_about_the_same_image(pipeline, dtype):
    half = tiny_pipeline()
    half.transformer.to(dtype)
    drawn = draw(half, guidance_scale=1.0, output_type="latent")
    assert drawn.dtype == torch.float32
    exact = draw(pipeline, guidance_scale=1.0, output_type="latent")
    assert (drawn - exact).abs().max() < 0.1 < exact.abs().max()


# ---- numbers that are not finite


def broken_pipeline(part):
    broken = tiny_pipeline()
    last = broken.transformer.proj_out if part == "latents" else broken.vae.decoder.conv_out
    torch.nn.init.constant_(last.bias[:1], torch.nan)
    return broken


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
@pytest.mark.parametrize("part", ["latents", "pixels"])
def test_no_output_hides_values_that_are_not_finite(part, output_type):
    with pytest.raises(NonFiniteError, match=rf"^100% of the {part} are not finite"):
        draw(broken_pipeline(part), output_type=output_type)


def test_a_kept_area_does_not_hide_values_that_are_not_finite():
    with pytest.raises(NonFiniteError):
        draw(broken_pipeline("pixels"), image=speckled(), mask_image=Image.new("L", (64, 64), 0))


def test_a_whole_pipeline_in_float16_draws_about_the_same_image_where_the_autoencoder_overflows_it():
    images = []
    for dtype in (torch.float32, torch.float16):
        loud = tiny_pipeline()
        loud.vae.decoder.conv_in.weight.data *= 6e4  # a group norm follows, which takes the factor out again
        images.append(draw(loud.to(dtype)))
    assert (images[0] - images[1]).abs().mean() < 0.02 < images[0].std()
