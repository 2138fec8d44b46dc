"""What `lens generate` draws, prints and keeps, and that --like finds the same pixels again."""

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens.core.noise import MAX_SEED
from lens.sampling.image_metadata import read_image_metadata


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def start(tmp_path):
    """An image to start from and a mask whose right half is white."""
    ramp = np.linspace(0, 255, 80 * 48 * 3).reshape(48, 80, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "start.png")
    mask = np.zeros((48, 80), np.uint8)
    mask[:, 40:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "start.png", tmp_path / "mask.png"


@pytest.fixture
def one_thread():
    """Compute with one thread in this process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    """A LoRA on the tiny denoiser's image attention, strong enough to be seen."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    name = "transformer_blocks.0.attn.img_qkv"
    path = tmp_path_factory.mktemp("loras") / "ink.safetensors"
    save_file(
        {
            f"{name}.lora_A.weight": torch.randn(4, 32, generator=generator),
            f"{name}.lora_B.weight": torch.randn(96, 4, generator=generator),
        },
        path,
    )
    return path


def test_a_process_generates_prompts_from_stdin_and_like_reproduces_the_pixels_in_another(
    process, lens, tiny_model, tmp_path, one_thread
):
    ran = process(
        "generate", "a fox", "-", "--model", tiny_model, "--count", 2, "--seed", 5, "--steps", 3,
        "--aspect-ratio", "16:9", "--json", "--out", "drawn", stdin="two cats\n\n", OMP_NUM_THREADS="2",
    )  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["prompt"], row["seed"]) for row in rows] == [
        ("a fox", 5),
        ("a fox", 6),
        ("two cats", 5),
        ("two cats", 6),
    ]
    assert set(rows[0]) == {"path", "prompt", "seed", "width", "height", "steps", "guidance", "model"}
    assert {(row["width"], row["height"], row["steps"], row["guidance"]) for row in rows} == {
        (80, 48, 3, 5.0)
    }
    paths = [tmp_path / row["path"] for row in rows]
    assert [path.name for path in paths] == ["a-fox_5.png", "a-fox_6.png", "two-cats_5.png", "two-cats_6.png"]
    assert sorted((tmp_path / "drawn").iterdir()) == sorted(paths)
    drawn = [pixels(path) for path in paths]
    assert drawn[0].shape == (48, 80, 3)
    assert all((one != other).any() for n, one in enumerate(drawn) for other in drawn[:n])

    again = lens("generate", "--like", paths[3])
    assert (again.status, again.out, again.err) == (0, "two-cats_6.png\n", "")
    assert (pixels(tmp_path / "two-cats_6.png") == drawn[3]).all()


@pytest.mark.parametrize("image_format", ["jpg", "webp"])
def test_like_reproduces_a_source_image_a_mask_and_a_lora_from_lossy_files(
    lens, tiny_model, start, lora_file, tmp_path, image_format
):
    image, mask = start
    first = lens(
        "generate", "a fox", "--model", tiny_model, "--steps", 4, "--cfg", 2.5, "--negative", "blur",
        "--seed", 9, "--init-image", image, "--mask", mask, "--strength", 0.8, "--lora", f"{lora_file}:0.7",
        "--solver", "ab2", "--format", image_format,
    )  # fmt: skip
    assert first.err == ""
    again = lens("generate", "--like", first.out.strip())
    assert again.out == f"a-fox_9-2.{image_format}\n"
    assert (pixels(first.out.strip()) == pixels(again.out.strip())).all()
    settings = read_image_metadata(tmp_path / again.out.strip())
    assert settings == read_image_metadata(tmp_path / first.out.strip())
    assert (settings.width, settings.height, settings.strength, settings.solver) == (80, 48, 0.8, "ab2")
    assert (settings.guidance, settings.negative_prompt, settings.loras[0].weight) == (2.5, "blur", 0.7)


def test_a_mask_with_a_transparent_hole_redraws_the_hole_as_a_white_area_does(lens, tiny_model, start):
    image, mask = start
    with Image.open(image) as opened, Image.open(mask) as white:
        holed = opened.convert("RGBA")
        holed.putalpha(white.point(lambda level: 255 - level))
        holed.save("holed.png")
    for name in (mask, "holed.png"):
        options = ("--model", tiny_model, "--seed", 3, "--steps", 2, "--init-image", image, "--mask", name)
        assert lens("generate", "a fox", *options, "--out", f"of-{Path(name).name}").status == 0
    drawn, kept = pixels("of-holed.png"), pixels(image)
    assert (drawn == pixels("of-mask.png")).all()
    assert (drawn[:, :40] == kept[:, :40]).all() and (drawn[:, 40:] != kept[:, 40:]).any()


def test_like_takes_over_what_another_tool_recorded_and_names_the_rest(lens, tiny_model, tmp_path):
    text = (
        "a fox <lora:ink:0.8>\nNegative prompt: blur\n"
        "Steps: 3, Sampler: DPM++ 2M, CFG scale: 2.5, Seed: 11, Size: 96x64, Clip skip: 2"
    )
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    Image.new("RGB", (96, 64)).save(tmp_path / "other.webp", exif=exif.tobytes())
    done = lens("generate", "--like", "other.webp", "--model", tiny_model, "--steps", 2)
    assert done.status == 0 and done.out.endswith(".webp\n")
    settings = read_image_metadata(tmp_path / done.out.strip())
    assert (settings.prompt, settings.negative_prompt, settings.seed) == ("a fox", "blur", 11)
    assert (settings.width, settings.height, settings.steps, settings.guidance) == (96, 64, 2, 2.5)
    assert "Not taken over: <lora:ink:0.8>, Sampler DPM++ 2M, Clip skip 2." in done.err


def test_explicit_options_override_like(lens, tiny_model, tmp_path):
    first = lens(
        "generate", "a fox", "--model", tiny_model, "--steps", 2, "--seed", 3, "--cfg", 2
    ).out.strip()
    changed = lens(
        "generate", "a cat", "--like", first, "--seed", 0, "--cfg", 0, "--count", 2, "--aspect-ratio", "2:1"
    )
    assert changed.out.split() == ["a-cat_0.png", "a-cat_1.png"]
    settings = read_image_metadata(tmp_path / "a-cat_0.png")
    assert (settings.seed, settings.guidance, settings.steps) == (0, 0, 2)
    assert (settings.width, settings.height) == (96, 48)


def test_an_image_does_not_depend_on_how_many_are_generated_with_it(lens, tiny_model):
    common = ["--model", tiny_model, "--steps", 2]
    lens("generate", "a fox", "two cats", *common, "--count", 2, "--seed", 0, "--out", "many")
    lens("generate", "two cats", *common, "--seed", 1, "--out", "one")
    assert (pixels("many/two-cats_1.png") == pixels("one/two-cats_1.png")).all()


def test_a_seed_that_nobody_chose_is_random_printed_and_recorded(lens, tiny_model, tmp_path):
    request = ["generate", "a fox", "--model", tiny_model, "--steps", 1, "--cfg", 1]
    seeds = []
    for said in ([], ["--seed", "random"], ["--seed", -1]):
        ran = lens(*request, *said, "--out", "fox.png")
        seeds.append(read_image_metadata(tmp_path / "fox.png").seed)
        assert ran.err == f"lens: random seed {seeds[-1]}\n"
    assert len(set(seeds)) == 3
    drawn = pixels("fox.png")
    assert lens(*request, "--seed", seeds[-1], "--out", "again.png").err == ""
    assert (pixels("again.png") == drawn).all()
    ran = lens(*request, "--seed", MAX_SEED, "--count", 2)
    assert ran.out.split() == [f"a-fox_{MAX_SEED}.png", "a-fox_0.png"]


def test_the_image_equals_that_of_the_pipeline_with_a_cpu_generator(lens, tiny_model):
    import torch

    from lens import LensPipeline

    lens("generate", "a fox", "--model", tiny_model, "--seed", 4, "--steps", 3, "--out", "fox.png")
    pipeline = LensPipeline.from_pretrained(tiny_model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a fox", num_inference_steps=3, generator=torch.Generator().manual_seed(4)).images[0]
    assert (np.asarray(image) == pixels("fox.png")).all()


def test_steps_and_guidance_default_to_those_of_the_pipeline(lens, tiny_model):
    from lens import LensPipeline

    row = json.loads(lens("generate", "a fox", "--model", tiny_model, "--json").out)
    defaults = LensPipeline.from_pretrained(tiny_model).defaults
    assert (row["steps"], row["guidance"]) == (defaults.num_inference_steps, defaults.guidance_scale)
    assert row["width"] == row["height"] == defaults.base_resolution


def test_options_change_the_image(lens, tiny_model, lora_file):
    options = {
        "plain": [],
        "seed": ["--seed", 1],
        "steps": ["--steps", 4],
        "guidance": ["--cfg", 1],
        "negative": ["--negative", "blur"],
        "solver": ["--solver", "ab2"],
        "lora": ["--lora", lora_file],
        "bfloat16": ["--dtype", "bfloat16"],
        "int8": ["--quantize", "int8"],
    }
    drawn = {}
    for name, more in options.items():
        request = ["a fox", "--model", tiny_model, "--steps", 3, "--seed", 0, *more]
        ran = lens("generate", *request, "--out", f"{name}.png")
        assert ran.status == 0, ran.err
        drawn[name] = pixels(f"{name}.png")
    for name, image in drawn.items():
        same = [other for other in drawn if (drawn[other] == image).all()]
        assert same == [name]


def test_quantising_logs_the_memory_before_loading(lens, tiny_model):
    ran = lens("generate", "a fox", "--model", tiny_model, "--quantize", "int8", "--steps", 1)
    assert "Loading takes about" in ran.err
    assert "Quantized to int8 the weights take" in ran.err


def test_a_named_file_is_replaced_and_a_folder_is_created(lens, tiny_model, tmp_path):
    (tmp_path / "fox.webp").write_text("old")
    one = ["generate", "a fox", "--model", tiny_model, "--steps", 1, "--seed", 0]
    assert lens(*one, "--out", "fox.webp").out == "fox.webp\n"
    with Image.open("fox.webp") as image:
        assert image.format == "WEBP"
    assert lens(*one, "--out", "new/deep").out == "new/deep/a-fox_0.png\n"
    assert lens(*one, "--out", "new/deep").out == "new/deep/a-fox_0-2.png\n"


def test_like_refuses_files_that_changed_and_says_which_option_replaces_them(
    lens, tiny_model, start, lora_file
):
    import shutil

    image, _ = start
    shutil.copy(lora_file, "ink.safetensors")
    shutil.copytree(tiny_model, "model")
    drawn = lens(
        "generate", "a fox", "--model", "model", "--steps", 1,
        "--init-image", image, "--lora", "ink.safetensors", "--out", "fox.png",
    )  # fmt: skip
    assert drawn.out == "fox.png\n"

    Image.new("RGB", (80, 48)).save(image)
    assert (
        "start.png, which has changed since. Add --init-image"
        in lens("generate", "--like", "fox.png").error_line
    )
    again = ["generate", "--like", "fox.png", "--init-image", image]
    shutil.move("ink.safetensors", "gone.safetensors")
    line = lens(*again).error_line
    assert "ink.safetensors, which does not exist. Restore it, or replace it with --lora" in line
    again += ["--lora", "gone.safetensors"]
    assert lens(*again).status == 0
    with open("model/scheduler/scheduler_config.json", "a") as config:
        config.write("\n")
    line = lens(*again).error_line
    assert "other weights" in line and "--model" in line
    assert lens(*again, "--model", "model").status == 0


def test_an_interrupted_process_leaves_no_temporary_file_and_exits_with_130(tiny_model, tmp_path):
    command = ["generate", "a fox", "--model", tiny_model, "--steps", 60, "--seed", 0]
    command += ["--count", 500, "--json"]
    # A shell starts what it puts into the background deaf to SIGINT, and so would be all that it starts.
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "-m", "lens", *map(str, command)], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        preexec_fn=hearing,
    ) as running:  # fmt: skip
        path = json.loads(running.stdout.readline())["path"]
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        assert running.wait(600) == 130
    assert path == "a-fox_0.png"
    for file in tmp_path.iterdir():
        assert read_image_metadata(file).steps == 60


def test_a_failure_after_some_images_keeps_exactly_those(lens, tiny_model, tmp_path, monkeypatch):
    from lens.cli.generation import run
    from lens.errors import LensError

    draw_one = run._generate_one

    def fails_at_the_second(pipeline, prompt_embeds, seed, *others):
        if seed == 1:
            raise LensError("No more.")
        return draw_one(pipeline, prompt_embeds, seed, *others)

    monkeypatch.setattr(run, "_generate_one", fails_at_the_second)
    ran = lens("generate", "a fox", "--model", tiny_model, "--steps", 1, "--seed", 0, "--count", 3)
    assert (ran.status, ran.out, ran.err) == (2, "a-fox_0.png\n", "lens: No more.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a-fox_0.png"]
