"""`lens generate` with settings a line, and with syntax inside prompts: what is drawn and recorded."""

import json
import weakref

import numpy as np
import pytest
from PIL import Image

from lens.sampling.image_metadata import read_image_metadata


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """A folder of LoRAs on the tiny denoiser, one of them in a folder below."""
    import torch
    from safetensors.torch import save_file

    folder, name = tmp_path_factory.mktemp("loras"), "transformer_blocks.0.attn.img_qkv"
    (folder / "old").mkdir()
    for seed, path in enumerate(("ink", "sea", "old/ochre")):
        generator = torch.Generator().manual_seed(seed)
        down, up = (torch.randn(shape, generator=generator) for shape in ((4, 32), (96, 4)))
        tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        save_file(tensors, folder / f"{path}.safetensors")
    return folder


@pytest.fixture
def draw(lens, tiny_model):
    """Generate with the tiny model in one step; return the rows that are printed, and stderr."""

    def run(*arguments, stdin=""):
        common = ["--model", tiny_model, "--steps", 1, "--cfg", 1, "--json", "--out", "drawn"]
        ran = lens("generate", *arguments, *common, stdin=stdin)
        assert ran.status == 0, ran.err
        return [json.loads(line) for line in ran.out.splitlines()], ran.err

    return run


def test_what_json_prints_is_drawn_again_from_a_file_and_from_stdin(draw, loras, tmp_path):
    ink = loras / "ink.safetensors"
    options = ["--lora", f"{ink}:0.5", "--negative", "fog", "--solver", "ab2", "--aspect-ratio", "16:9"]
    rows = draw("a fox", "two cats", "--seed", 5, *options)[0] + draw("a bear")[0]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    again, _ = draw("--from-file", "rows.jsonl")
    piped, _ = draw("-", stdin="\n".join(map(json.dumps, rows)))
    for row, one, other in zip(rows, again, piped, strict=True):
        assert (pixels(row["path"]) == pixels(one["path"])).all()
        assert len({row["path"], one["path"], other["path"]}) == 3
        assert one | {"path": ""} == other | {"path": ""} == row | {"path": ""}


def test_lines_of_one_batch_do_not_change_one_another(draw, loras, tmp_path):
    lines = [
        {"prompt": "a fox", "seed": 1, "loras": [{"path": str(loras / "ink.safetensors"), "weight": 0.7}]},
        {"prompt": "a fox", "seed": 1, "size": "48x80", "steps": 2},
        {"prompt": "a fox <lora:sea:-1>", "seed": 1},
        {"prompt": "a fox", "seed": 1},
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    together, _ = draw("--from-file", "all.jsonl", "--lora-folder", loras)
    for line, row in zip(lines, together, strict=True):
        (tmp_path / "one.jsonl").write_text(json.dumps(line))
        [alone], _ = draw("--from-file", "one.jsonl", "--lora-folder", loras)
        assert (pixels(alone["path"]) == pixels(row["path"])).all()
    drawn = [pixels(row["path"]) for row in together]
    assert drawn[1].shape == (80, 48, 3)
    assert (drawn[0] != drawn[3]).any() and (drawn[2] != drawn[3]).any()


def test_a_batch_keeps_no_source_image_in_memory_but_the_one_that_is_drawn_from(draw, tmp_path, monkeypatch):
    from lens.cli.generation import resolve, run

    opened, alive = [], []
    open_image, generate = resolve.open_source_image, run._generate_one

    def tracked(path):
        image = open_image(path)
        opened.append(weakref.ref(image))
        return image

    def count(*arguments):
        alive.append(sum(one() is not None for one in opened))
        return generate(*arguments)

    monkeypatch.setattr(resolve, "open_source_image", tracked)
    monkeypatch.setattr(run, "_generate_one", count)
    Image.new("RGB", (64, 48), "red").save(tmp_path / "start.png")
    line = json.dumps({"prompt": "a fox", "init_image": "start.png", "strength": 0.5})
    rows, _ = draw("-", stdin=f"{line}\n" * 3)
    assert len(rows) == 3 and len(opened) == 6 and set(alive) == {0}


def test_a_lora_in_the_prompt_is_that_of_the_option(draw, loras, tmp_path):
    [inline], _ = draw("a fox, <lora:ochre:0.6>", "--seed", 2, "--lora-folder", loras)
    [option], _ = draw("a fox", "--seed", 2, "--lora", f"{loras / 'old' / 'ochre.safetensors'}:0.6")
    assert (pixels(inline["path"]) == pixels(option["path"])).all()
    assert inline["prompt"] == "a fox" and inline["loras"] == option["loras"]
    assert read_image_metadata(tmp_path / inline["path"]).prompt_template == "a fox, <lora:ochre:0.6>"


def test_alternatives_and_wildcards_are_chosen_by_the_seed_and_recorded(draw, lens, tmp_path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "colour.txt").write_text("red\nblue\n")
    prompt = "a __colour__ {fox|cat}"
    request = [prompt, "--count", 8, "--seed", 0, "--wildcards", "cards"]
    rows, _ = draw(*request)
    prompts = [row["prompt"] for row in rows]
    assert set(prompts) <= {f"a {colour} {what}" for colour in ("red", "blue") for what in ("fox", "cat")}
    assert len(set(prompts)) > 1 and [row["prompt"] for row in draw(*request)[0]] == prompts
    metadata = read_image_metadata(tmp_path / rows[0]["path"])
    assert (metadata.prompt, metadata.prompt_template) == (prompts[0], prompt)
    again = lens("generate", "--like", rows[0]["path"], "--out", "again.png")
    assert again.status == 0 and (pixels("again.png") == pixels(rows[0]["path"])).all()


def test_weights_are_told_to_have_no_effect_and_draw_the_words(draw):
    [weighted], told = draw("a (red:1.3) fox", "--seed", 3)
    [plain], silent = draw("a red fox", "--seed", 3)
    assert (pixels(weighted["path"]) == pixels(plain["path"])).all() and weighted["prompt"] == "a red fox"
    assert "weights of words have no effect" in told and "(red:1.3)" in told and silent == ""


def test_a_style_is_put_around_the_prompt(draw, tmp_path):
    (tmp_path / "mine.yaml").write_text('night: "{prompt}, at night"\n')
    [row], _ = draw("a fox", "--seed", 3, "--style", "night", "--style-file", "mine.yaml")
    [plain], _ = draw("a fox, at night", "--seed", 3)
    assert row["prompt"] == "a fox, at night" and (pixels(row["path"]) == pixels(plain["path"])).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a fox <lora:gone:1>"], "gone.safetensors in the folder of LoRAs. --lora-folder names"),
        (["a __gone__ fox"], "gone.txt in the folder of wildcards. --wildcards names"),
        (["a fox", "--style", "gone"], "--style is 'gone'"),
        (["a fox", "--lora-folder", "gone"], "--lora-folder is 'gone'"),
        (["a fox", "--wildcards", "gone"], "--wildcards is 'gone'"),
        (["a fox", "--style-file", "gone"], "--style-file is 'gone'"),
    ],
)
def test_what_is_not_there_is_an_error_before_a_model_is_loaded(
    lens, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.setenv("LENS_CONFIG", str(tmp_path / "config"))
    assert message in lens("generate", *arguments, "--model", "lens-nano").error_line
