"""The engine's pictures, on the nano models: those of the pipeline, in any company."""

import gc
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from heun_solver import HEUN
from PIL import Image

from lens.errors import CheckpointError, GenerationCancelledError, NonFiniteError
from lens.models.checkpoints.adapters.lora_formats import LoraWeights, write_adapter
from lens.models.checkpoints.hashing import content_hash
from lens.models.prompt_date import PINNED_DATE
from lens.models.step_cache import cache_settings
from lens.models.vae import decode_latents
from lens.sampling.guided_denoiser import upscaled_state
from lens.sampling.inputs import SourceImages, prepare_source
from lens.sampling.pipeline import LensPipeline
from lens.sampling.solvers import SOLVERS, get_solver
from lens.serve.engine.engine import Engine
from lens.serve.engine.model_registry import ModelRegistry
from lens.serve.engine.request import Failed, Finished, GenerationRequest, LoraRequest, Preview, StepProgress
from lens.serve.engine.source_cache import SourceCache

WAIT_S = 60.0
MODELS = ("lens-nano-turbo", "lens-nano-base")
APPLE = GenerationRequest(MODELS[0], "a red apple", seed=3, height=96, width=176, steps=4, guidance=1.0)
LAYER = "transformer_blocks.1.attn.img_qkv"
OTHER_LAYER = "transformer_blocks.0.attn.img_qkv"
LORA = LoraRequest("bold.one", 0.7)
FAINT = LoraRequest("faint", 1.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture, a mask of its right half, and LoRA files: a good one, no LoRA at all, one of no numbers."""
    folder = tmp_path_factory.mktemp("files")
    rows, columns = np.mgrid[0:96, 0:176]
    colours = np.stack([rows * 2, columns, 255 - columns], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(folder / "start.png")
    Image.fromarray((columns >= 88).astype(np.uint8) * 255).save(folder / "mask.png")
    denoiser = LensPipeline.from_pretrained(MODELS[0]).transformer
    num_out, num_in = denoiser.get_submodule(LAYER).weight.shape
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, num_in, generator=generator), torch.randn(num_out, 2, generator=generator)
    write_adapter({LAYER: LoraWeights(down, up, 2.0)}, folder / "bold.safetensors")
    write_adapter({LAYER: LoraWeights(down * float("nan"), up, 2.0)}, folder / "nan.safetensors")
    write_adapter({OTHER_LAYER: LoraWeights(-down, up, 1.0)}, folder / "faint.safetensors")
    (folder / "poisoned.safetensors").write_bytes(b"\x80\x04cos\nsystem\n" * 50)
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    loras = {"bold.one": "bold", "faint": "faint", "poisoned": "poisoned", "nan": "nan"}
    files = {name: folder / f"{stem}.safetensors" for name, stem in loras.items()}
    with Engine(ModelRegistry.from_names(MODELS, files)) as engine:
        engine.wait_until_ready(WAIT_S)
        yield engine


@pytest.fixture(scope="module")
def pipelines():
    """Pipelines of their own: what the engine does to its models must not reach them."""
    pipelines = {name: LensPipeline.from_pretrained(name, torch_dtype=torch.float32) for name in MODELS}
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    return pipelines


def pipeline_image(pipelines, request, **more):
    """The picture that the pipeline draws of the same request."""
    return pipelines[request.model](
        request.prompt,
        request.negative_prompt,
        height=request.height,
        width=request.width,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        image=request.image,
        mask_image=request.mask,
        strength=request.strength,
        solver=request.solver,
        **more,
    ).images[0]


def assert_same_picture(one, other):
    """Equal, or 1 of 255 apart in at most 0.1% of values: what a picture's company may change."""
    first, second = (np.asarray(image).astype(int) for image in (one, other))
    assert first.shape == second.shape
    apart = np.abs(first - second)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.001


def events_of(handle):
    events = []
    while not events or not isinstance(events[-1], Finished | Failed):
        events.append(handle.next_event(WAIT_S))
    return events


def joining_step_by_step(engine, requests, monkeypatch):
    """Submit a request, and at each step that the denoiser takes the next one.

    Returns their handles, and of each pack at which steps its pictures were.
    """
    step, left, steps_of_packs = engine._worker.step, list(requests), []
    handles = []

    def joined(model, loras, states):
        steps_of_packs.append([state.step for state in states])
        if left:
            handles.append(engine.submit(left.pop(0)))
        return step(model, loras, states)

    monkeypatch.setattr(engine._worker, "step", joined)
    first = engine.submit(left.pop(0))
    first.result(WAIT_S)
    assert not left
    return [first, *handles], steps_of_packs


def test_an_upscaled_image_is_drawn_again_from_its_own_latents(engine, pipelines):
    pipeline, before, after = pipelines[APPLE.model], (4, 6), (8, 12)
    small = replace(APPLE, height=64, width=96)
    latents = pipeline_image(pipelines, small, output_type="latent")[None]
    with torch.no_grad(), pipeline._call_context(APPLE.guidance, None, None):
        initial = upscaled_state(pipeline, latents, before, after, 4, 0.5, APPLE.seed)
        x = pipeline.denoise(initial, pipeline.encode_prompt(APPLE.prompt), after, get_solver("euler"))
        expected = pipeline.postprocess(x, SourceImages(128, 192), "pil")[0]
    events = events_of(engine.submit(replace(APPLE, height=128, width=192, upscale=2.0)))
    assert isinstance(events[-1], Finished)
    assert_same_picture(events[-1].image, expected)
    assert (events[-1].metadata.upscale, events[-1].metadata.width) == (2.0, 192)
    assert {event.num_steps for event in events if isinstance(event, StepProgress)} == {4, 2}


MIXED = [
    replace(APPLE, steps=12),
    replace(APPLE, prompt="two cats on a blue background", seed=5, height=128, width=128, steps=8),
    replace(APPLE, prompt="a dog left of a tree", height=64, width=128, solver="ab2", steps=5, guidance=2.0),
    replace(APPLE, prompt="three stars", width=96, guidance=3.0, negative_prompt="a green apple", steps=2),
    replace(APPLE, model="lens-nano-base", prompt="a fish", guidance=2.0, height=160, width=96),
]


def test_the_images_of_a_request_decode_its_source_once_wherever_its_file_lies(
    engine, folder, tmp_path, monkeypatch
):
    decoded = []

    def counted(image, mask, size, base):
        decoded.append((image.name, mask and mask.name, size))
        return prepare_source(image, mask, size, base)

    monkeypatch.setattr("lens.serve.engine.source_cache.prepare_source", counted)
    monkeypatch.setattr(engine._worker, "_sources", SourceCache())
    copy = shutil.copy(folder / "start.png", tmp_path / "copy.png")
    shown = replace(APPLE, image=folder / "start.png", steps=1)
    masked = replace(shown, mask=folder / "mask.png")
    for request in (shown, replace(shown, seed=4), replace(shown, image=copy, seed=5), masked,
                    replace(shown, height=64, width=128), masked, shown):  # fmt: skip
        engine.submit(request).result(WAIT_S)
    assert decoded == [
        ("start.png", None, (96, 176, None, None)), ("start.png", "mask.png", (96, 176, None, None)),
        ("start.png", None, (64, 128, None, None)), ("start.png", None, (96, 176, None, None)),
    ]  # fmt: skip


CACHED = [
    replace(APPLE, steps=14, height=64, width=64, guidance=2.0, cache="taylorseer"),
    replace(APPLE, steps=12, height=64, width=96, cache="first-block", prompt="two cats"),
    replace(APPLE, steps=6, height=64, width=64, prompt="a dog"),
    replace(APPLE, steps=12, height=64, width=64, cache="taylorseer", prompt="three stars"),
]


def test_pictures_with_caches_are_those_of_the_pipeline_in_any_company(engine, pipelines, monkeypatch):
    handles, _ = joining_step_by_step(engine, CACHED, monkeypatch)
    for request, handle in zip(CACHED, handles, strict=True):
        result, denoiser = handle.result(WAIT_S), pipelines[request.model].transformer
        plain = pipeline_image(pipelines, request)
        if request.cache is not None:
            denoiser.enable_cache(cache_settings(request.cache))
        try:
            assert_same_picture(result.image, pipeline_image(pipelines, request))
        finally:
            if request.cache is not None:
                denoiser.disable_cache()
                assert (np.asarray(result.image) != np.asarray(plain)).any()
        assert result.metadata.cache == request.cache


def test_pictures_that_join_and_leave_at_any_step_are_those_of_the_pipeline(engine, pipelines, monkeypatch):
    handles, steps_of_packs = joining_step_by_step(engine, MIXED, monkeypatch)
    for request, handle in zip(MIXED, handles, strict=True):
        assert_same_picture(handle.result(WAIT_S).image, pipeline_image(pipelines, request))
    assert [3, 2, 1, 0] in steps_of_packs  # the four of one model; the fifth goes by itself


def test_a_solver_of_several_velocities_a_step_is_served_like_any_other(engine, pipelines, monkeypatch):
    monkeypatch.setitem(SOLVERS, "test_heun", HEUN)
    two_a_step = replace(APPLE, solver="test_heun", steps=5, guidance=2.0, previews=2)
    requests = [two_a_step, replace(APPLE, steps=7)]
    events = [list(events_of(handle)) for handle in [engine.submit(request) for request in requests]]
    for request, told in zip(requests, events, strict=True):
        assert_same_picture(told[-1].image, pipeline_image(pipelines, request))
        steps = [event.step for event in told if isinstance(event, StepProgress)]
        assert steps == list(range(request.steps + 1))
    previews = [event.image for event in events[0] if isinstance(event, Preview)]
    assert [image.size for image in previews] == [(176, 96)] * 2


def test_pictures_are_the_same_with_another_company_and_alone(engine):
    alone = engine.submit(APPLE).result(WAIT_S).image
    company = [replace(APPLE, seed=seed, height=96 + 16 * seed, guidance=1.0 + seed) for seed in range(4)]
    handles = [engine.submit(request) for request in [*company, APPLE]]
    handles[1].cancel()
    assert_same_picture(handles[-1].result(WAIT_S).image, alone)
    with pytest.raises(GenerationCancelledError):
        handles[1].result(WAIT_S)


def test_pictures_drawn_from_pictures_are_those_of_the_pipeline(engine, pipelines, folder):
    start = folder / "start.png"
    requests = [
        replace(APPLE, image=start, strength=0.5, steps=6),
        replace(APPLE, image=start, mask=folder / "mask.png", guidance=2.0),
        replace(APPLE, image=start, height=128, width=128),
    ]
    handles = [engine.submit(request) for request in requests]
    results = [handle.result(WAIT_S) for handle in handles]
    for request, result in zip(requests, results, strict=True):
        assert_same_picture(result.image, pipeline_image(pipelines, request))
    kept, original = (np.asarray(image)[:, :88] for image in (results[1].image, Image.open(start)))
    assert np.array_equal(kept, original)
    assert [result.metadata.strength for result in results] == [0.5, 1.0, 0.6]
    assert results[1].metadata.init_image.sha256 == content_hash(start)
    assert results[1].metadata.mask.path == "mask.png", "and nothing of the server's folders"
    drawing = [
        event.num_steps for event in events_of(engine.submit(requests[0])) if isinstance(event, StepProgress)
    ]
    assert drawing == [3] * 4  # a strength of 0.5 takes half of the steps


def test_previews_are_the_ends_that_the_path_points_to(engine, pipelines):
    request = replace(APPLE, previews=2, steps=6)
    previews = [event for event in events_of(engine.submit(request)) if isinstance(event, Preview)]
    assert [preview.number for preview in previews] == [0, 1]
    points, levels, pipeline = [], [], pipelines[request.model]

    def keep(_, step, level, tensors):
        points.append(tensors["latents"])
        levels.append(float(level) / 1000)

    pipeline_image(pipelines, request, callback_on_step_end=keep)
    # The line from the point before the second and the fourth step through the point after them, to level 0.
    for preview, before in zip(previews, (0, 2), strict=True):
        start, stop = points[before : before + 2]
        share = levels[before + 1] / (levels[before + 1] - levels[before + 2])
        end = start + share * (stop - start)
        grid = end.transpose(1, 2).unflatten(2, (6, 11))
        with torch.no_grad():
            pixels = decode_latents(pipeline.vae, grid)[0]
        expected = ((pixels / 2 + 0.5) * 255).round().permute(1, 2, 0).numpy().astype(int)
        apart = np.abs(np.asarray(preview.image).astype(int) - expected)
        assert apart.max() <= 1 and (apart > 0).mean() < 0.01


def test_a_picture_says_everything_that_decided_it(engine):
    metadata = engine.submit(replace(APPLE, guidance=2.0, negative_prompt="blue")).result(WAIT_S).metadata
    packaged = ModelRegistry.from_names(MODELS).models[APPLE.model].folder
    stated = metadata.model_dump(exclude={"versions"}, exclude_none=True)
    assert stated == {
        "prompt": "a red apple", "negative_prompt": "blue", "seed": 3, "width": 176, "height": 96, "steps": 4,
        "guidance": 2.0, "solver": "euler", "model": "lens-nano-turbo", "model_hash": content_hash(packaged),
        "loras": (), "dtype": "float32", "device": "cpu", "threads": torch.get_num_threads(),
        "prompt_date": PINNED_DATE,
    }  # fmt: skip
    assert set(metadata.versions) == {"lens", "torch", "diffusers", "transformers"}


def test_adapters_act_on_the_pictures_that_ask_for_them_and_on_no_others(engine, pipelines, folder):
    with_lora = replace(APPLE, loras=(LORA,))
    before = engine.submit(APPLE).result(WAIT_S).image
    handles = [engine.submit(request) for request in (with_lora, APPLE, replace(with_lora, seed=4))]
    results = [handle.result(WAIT_S) for handle in handles]
    assert_same_picture(results[1].image, before)
    used = results[0].metadata.loras[0]
    assert (used.weight, used.sha256) == (0.7, content_hash(folder / "bold.safetensors"))
    pipeline = pipelines[APPLE.model]
    pipeline.load_lora_weights(folder / "bold.safetensors", weight=0.7)
    try:
        expected = pipeline_image(pipelines, APPLE)
    finally:
        pipeline.unload_lora_weights()
    assert_same_picture(results[0].image, expected)
    assert np.abs(np.asarray(expected).astype(int) - np.asarray(before)).mean() > 1


def difference(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean()


def test_pictures_of_different_adapters_drawn_at_once_are_those_that_each_adapter_draws_alone(engine):
    sets = [(LORA,), (FAINT,), (), (LORA, FAINT), (replace(LORA, weight=-0.7),)]
    small = replace(APPLE, height=64, width=64)
    requests = [replace(small, loras=loras, steps=2 + number) for number, loras in enumerate(sets)]
    alone = [engine.submit(request).result(WAIT_S).image for request in requests]
    handles = [engine.submit(request) for request in [*requests, *reversed(requests)]]
    at_once = [handle.result(WAIT_S).image for handle in handles]
    for expected, first, again in zip(alone, at_once[:5], reversed(at_once[5:]), strict=True):
        assert_same_picture(first, expected)
        assert_same_picture(again, expected)
    plain = [engine.submit(replace(request, loras=())).result(WAIT_S).image for request in requests]
    assert [difference(*pair) > 1 for pair in zip(alone, plain, strict=True)] == [bool(one) for one in sets]


def test_one_that_is_cancelled_among_three_leaves_the_two_others_as_they_are(engine, monkeypatch):
    small = replace(APPLE, height=64, width=64)
    requests = [replace(small, seed=seed, steps=6, guidance=2.0) for seed in range(3)]
    alone = [engine.submit(request).result(WAIT_S).image for request in requests]
    step, steps_of_packs, handles = engine._worker.step, [], []

    def cancelling(model, loras, states):
        steps_of_packs.append([state.step for state in states])
        if steps_of_packs[-1] == [2, 2, 2]:
            handles[1].cancel()
        return step(model, loras, states)

    with engine._changed:  # all three are admitted together
        handles += [engine.submit(request) for request in requests]
        monkeypatch.setattr(engine._worker, "step", cancelling)
    assert_same_picture(handles[0].result(WAIT_S).image, alone[0])
    assert_same_picture(handles[2].result(WAIT_S).image, alone[2])
    with pytest.raises(GenerationCancelledError):
        handles[1].result(WAIT_S)
    assert [2, 2, 2] in steps_of_packs and steps_of_packs[-1] == [5, 5]


def test_fifty_pictures_in_a_row_leave_the_engine_as_it_was(engine):
    small = replace(APPLE, height=64, width=64, steps=1)
    kinds = [small, replace(small, loras=(LORA,)), replace(small, guidance=2.0, negative_prompt="fog")]

    def drawn(number):
        request = kinds[number % 3]
        return engine.submit(replace(request, seed=number // 10)).result(WAIT_S).image

    images = [drawn(number) for number in range(10)]
    threads, before = threading.active_count(), engine.state()
    held = len(gc.get_objects())
    images += [drawn(number) for number in range(10, 50)]
    assert len(gc.get_objects()) - held < 0.02 * held
    assert threading.active_count() == threads
    after = engine.state()
    assert (after.finished - before.finished, after.num_running, after.num_waiting) == (40, 0, 0)
    assert_same_picture(images[0], images[3])
    assert_same_picture(drawn(0), images[0])
    assert len({image.tobytes() for image in images}) == 15


@pytest.mark.parametrize(("name", "kind"), [("poisoned", CheckpointError), ("nan", NonFiniteError)])
def test_a_bad_adapter_fails_its_own_request_alone(engine, pipelines, name, kind):
    requests = [APPLE, replace(APPLE, loras=(LoraRequest(name),)), replace(APPLE, loras=(LORA,))]
    handles = [engine.submit(request) for request in requests]
    with pytest.raises(kind):
        handles[1].result(WAIT_S)
    assert_same_picture(handles[0].result(WAIT_S).image, pipeline_image(pipelines, APPLE))
    handles[2].result(WAIT_S)


def test_models_of_a_family_share_what_is_alike(engine):
    turbo, base = (engine._worker.load(name).pipeline for name in MODELS)
    assert turbo.vae is base.vae and turbo.text_encoder is base.text_encoder
    assert turbo.transformer is not base.transformer
    assert [(model.name, model.default_steps, model.default_guidance, model.base_resolution, model.variant)
            for model in engine.models()] == [
        ("lens-nano-turbo", 4, 1.0, 128, "nano-turbo"), ("lens-nano-base", 20, 2.0, 128, "nano-base"),
    ]  # fmt: skip


def test_a_prompt_is_encoded_once_for_all_models_that_read_it_alike(engine):
    before = engine.state()
    prompt = "a prompt that no other test has"
    for request in (APPLE, replace(APPLE, seed=9), replace(APPLE, model="lens-nano-base")):
        engine.submit(replace(request, prompt=prompt)).result(WAIT_S)
    after = engine.state()
    assert (
        after.prompt_cache_misses - before.prompt_cache_misses,
        after.prompt_cache_hits - before.prompt_cache_hits,
    ) == (1, 2)
    num_text = engine._worker.prompt_cache.get_or_encode(
        engine._worker.load(MODELS[0]).text_encoder_key, prompt, None
    )[0].shape[0]
    assert after.num_tokens - before.num_tokens == 3 * 4 * (6 * 11 + num_text)
