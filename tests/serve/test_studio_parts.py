"""What the studio is made of, without a page: the gallery's folder, sheets, code, choices as requests."""

import json
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_drawer import MODELS, painted, settings_of
from PIL import Image

from lens.errors import LensError, SettingError
from lens.sampling.image_metadata import encode_image_file, read_image_metadata
from lens.sampling.solvers import SOLVERS as KNOWN_SOLVERS
from lens.serve.api.schemas import CreateImageEditRequest, CreateImageRequest
from lens.serve.engine.request import GenerationRequest, LoraRequest
from lens.serve.studio.contact_sheet import (
    Axis,
    axis_names,
    grid_forms,
    metadata_differences,
    parse_axis,
    render_sheet,
    render_side_by_side,
)
from lens.serve.studio.form import (
    MAX_BROWSER_SEED,
    SOLVER_LABELS,
    StudioForm,
    base_resolutions,
    generation_requests,
    randomize_seed,
    restore_form,
    shape_from_size,
    variant_labels,
)
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.snippets import curl_command, python_script, request_body

FORM = StudioForm(
    prompt=" two foxes ", model="lens-nano", aspect_ratio="3:2", base_resolution=128, seed=7, guidance=2.0
)


def request(prompt="two red apples", seed=3, **changed):
    return replace(GenerationRequest("lens-nano", prompt, seed, 96, 144, 20, 2.0), **changed)


def keep(gallery, prompt="two red apples", seed=3, **changed):
    wanted = request(prompt, seed, **changed)
    return gallery.keep(painted(wanted), settings_of(wanted))


# The gallery


def test_a_kept_picture_has_its_settings_inside_and_is_found_by_another_gallery_of_the_folder(tmp_path):
    kept = keep(Gallery(tmp_path))
    assert read_image_metadata(kept.path) == kept.metadata
    assert [one.metadata for one in Gallery(tmp_path).items()] == [kept.metadata]


def test_pictures_are_marked_before_they_are_kept_and_not_kept_where_that_fails(tmp_path):
    def mark(*_):
        raise LensError("no mark")

    with pytest.raises(LensError, match="no mark"):
        keep(Gallery(tmp_path, mark))
    assert list(tmp_path.iterdir()) == []
    assert b"trainedAlgorithmicMedia" in keep(Gallery(tmp_path)).path.read_bytes()


def test_the_newest_comes_first_and_a_search_wants_every_word(tmp_path):
    gallery = Gallery(tmp_path)
    names = [keep(gallery, prompt).name for prompt in ("a red fox", "a Red apple", "a blue fox")]
    assert [kept.name for kept in gallery.items()] == names[::-1]
    assert [kept.name for kept in gallery.items("FOX red")] == [names[0]]
    assert gallery.items("red bear") == []


def test_favourites_outlive_a_restart_and_go_with_their_picture(tmp_path):
    gallery = Gallery(tmp_path)
    first, second = keep(gallery), keep(gallery, seed=4)
    gallery.set_favourite(first.name, True)
    gallery.set_favourite(second.name, True)
    gallery.set_favourite(second.name, False)
    again = Gallery(tmp_path)
    assert [kept.name for kept in again.items(only_favourites=True)] == [first.name]
    assert again.item(first.name).is_favourite and not again.item(second.name).is_favourite
    again.delete(first.name)
    assert gallery.items(only_favourites=True) == [] and not first.path.exists()
    assert json.loads((tmp_path / "favourites.json").read_text()) == []


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "a/b.png", ".hidden.png", "no.png", "x.txt", ""]
)
def test_names_lead_nowhere_else(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "gallery"
    folder.mkdir()
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "x.txt").write_bytes(b"x")
    gallery = Gallery(folder)
    for act in (gallery.item, gallery.delete, lambda name: gallery.set_favourite(name, True)):
        with pytest.raises(LensError, match="no picture"):
            act(name)
    assert (tmp_path / "secret.png").exists() and (folder / "x.txt").exists()


def test_a_link_out_of_the_folder_is_no_picture_of_it(tmp_path):
    outside = keep(Gallery(tmp_path / "other"))
    gallery = Gallery(tmp_path / "gallery")
    keep(gallery)
    (gallery.folder / "link.png").symlink_to(outside.path)
    assert len(gallery.items()) == 1
    with pytest.raises(LensError, match="no picture"):
        gallery.item("link.png")


def test_files_that_others_put_there_are_found_and_broken_ones_left_out_once(tmp_path, caplog):
    wanted = request("from elsewhere")
    for kind, suffix in (("jpg", ".jpg"), ("webp", ".webp")):
        with (tmp_path / f"other{suffix}").open("wb") as file:
            encode_image_file(painted(wanted), settings_of(wanted), kind, file)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    gallery = Gallery(tmp_path)
    assert [kept.metadata.prompt for kept in gallery.items()] == ["from elsewhere"] * 2
    gallery.items()
    assert len([record for record in caplog.records if "broken.png" in record.message]) == 1


def test_large_pictures_are_listed_by_a_small_copy_that_goes_with_them(tmp_path):
    gallery = Gallery(tmp_path)
    large, little = keep(gallery, width=512, height=256), keep(gallery)
    assert gallery.thumbnail(little) == little.path
    small = gallery.thumbnail(large)
    with Image.open(small) as image:
        assert image.size == (384, 192)
    gallery.delete(large.name)
    assert not small.exists()


def test_a_zip_holds_the_very_files(tmp_path):
    gallery = Gallery(tmp_path / "gallery")
    kept = [keep(gallery, seed=seed) for seed in (1, 2)]
    path = gallery.write_zip([one.name for one in kept], tmp_path / "all.zip")
    with zipfile.ZipFile(path) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == {
            one.name: one.path.read_bytes() for one in kept
        }


def test_inputs_are_kept_once_and_are_no_pictures_of_the_gallery(tmp_path):
    gallery = Gallery(tmp_path)
    first, second = (gallery.save_input(Image.new("RGB", (8, 8), colour)) for colour in ("red", "red"))
    assert first == second and gallery.find_input(first.stem) == first
    assert gallery.find_input("../" + first.stem) == first and gallery.find_input("0") is None
    assert gallery.items() == []


# Choices


def test_a_form_becomes_as_many_requests_as_pictures_with_seeds_that_follow():
    wanted = generation_requests(replace(FORM, count=3), "me")
    assert [(one.prompt, one.seed, one.height, one.width, one.caller) for one in wanted] == [
        ("two foxes", seed, 112, 160, "me") for seed in (7, 8, 9)
    ]
    assert wanted[0].strength is None and wanted[0].previews == 3


def test_what_has_no_effect_is_not_asked_for(tmp_path):
    form = replace(FORM, negative_prompt="blur", loras=(LoraRequest("ink", 0.0), LoraRequest("oil", 0.5)))
    assert generation_requests(form, "")[0].negative_prompt == "blur"
    assert generation_requests(form, "")[0].loras == (LoraRequest("oil", 0.5),)
    assert generation_requests(replace(form, guidance=1.0), "")[0].negative_prompt == ""
    assert generation_requests(replace(form, mask=tmp_path / "mask.png"), "")[0].mask is None


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"model": ""}, "model"),
        ({"count": 11}, "count"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_BROWSER_SEED + 1}, "seed"),
        ({"steps": 0}, "steps"),
        ({"size": "100"}, "size"),
        ({"size": "100x96"}, "width"),
        ({"base_resolution": 7}, "base_resolution"),
    ],
)
def test_a_choice_that_cannot_be_drawn_is_named(changes, setting):
    with pytest.raises(SettingError) as caught:
        generation_requests(replace(FORM, **changes), "")
    assert caught.value.setting == setting


def test_a_locked_seed_stays_and_another_does_not():
    assert randomize_seed(replace(FORM, is_seed_locked=True)).seed == 7
    assert len({randomize_seed(FORM).seed for _ in range(5)}) > 1


@pytest.mark.parametrize("form", [FORM, replace(FORM, size="208x144"), replace(FORM, base_resolution=512)])
def test_a_picture_gives_the_choices_back_that_draw_it(tmp_path, form):
    gallery = Gallery(tmp_path)
    image = gallery.save_input(Image.new("RGB", (16, 16), "red"))
    mask = gallery.save_input(Image.new("L", (16, 16), 255))
    form = replace(form, negative_prompt="blur", loras=(LoraRequest("ink", 0.7),), image=image, mask=mask)
    [wanted] = generation_requests(form, "")
    again, notes = restore_form(settings_of(wanted), StudioForm(), MODELS, ["ink"], gallery)
    assert generation_requests(again, "") == [wanted] and notes == []
    assert again.is_seed_locked


def test_what_is_not_here_is_told(tmp_path):
    wanted = request(
        model="other", loras=(LoraRequest("gone"),), image=Path("0.png"), mask=Path("1.png"), strength=0.4
    )
    form, notes = restore_form(settings_of(wanted), FORM, MODELS, ["ink"], Gallery(tmp_path))
    assert len(notes) == 3 and "other" in notes[0] and "gone" in notes[1]
    assert form.model == "lens-nano" and form.image is None and form.loras == ()


def test_sizes_have_the_names_of_their_table_and_others_say_themselves():
    assert shape_from_size(160, 112) == ("3:2", 128, "")
    assert shape_from_size(1248, 832) == ("3:2", 1024, "")
    assert shape_from_size(336, 208) == ("1:1", None, "336x208")


def test_models_are_offered_at_their_bases_under_names_that_tell_them_apart():
    large = replace(MODELS[0], base_resolution=1024)
    assert base_resolutions(MODELS[0]) == [128, 192, 256] and base_resolutions(large) == [
        512,
        768,
        1024,
        1440,
    ]
    labels = [label for label, _ in variant_labels(MODELS)]
    assert labels == ["Turbo - 4 steps", "Lens - 20 steps", "Base - 20 steps"]
    assert variant_labels([MODELS[0], replace(large, name="big")])[1] == ("big - 4 steps", "big")


def test_the_studios_solvers_are_those_there_are():
    assert set(SOLVER_LABELS) == set(KNOWN_SOLVERS)


# Sheets


def test_values_of_an_axis_are_numbers_ranges_names_or_lines():
    assert parse_axis("steps", "1, 4..6", MODELS).values == (1, 4, 5, 6)
    assert parse_axis("guidance", "1,2.5", MODELS).labels == ["guidance 1.0", "guidance 2.5"]
    assert parse_axis("prompt", "a fox, red\n\na bear", MODELS).labels == ["a fox, red", "a bear"]
    assert parse_axis("model", "lens-nano-base", MODELS).values == ("lens-nano-base",)
    assert parse_axis("LoRA ink", "0, 0.5", MODELS).values == (0.0, 0.5)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("steps", "1.5"),
        ("steps", ""),
        ("model", "gpt"),
        ("aspect_ratio", "5:1"),
        ("seed", "1..1000"),
        ("prompt", " "),
    ],
)
def test_values_that_a_setting_cannot_have_are_refused(setting, text):
    with pytest.raises(SettingError) as caught:
        parse_axis(setting, text, MODELS)
    assert caught.value.setting == setting


def test_every_setting_on_offer_can_be_varied_and_reaches_the_request(tmp_path):
    texts = {
        "guidance": "3", "steps": "5", "seed": "9", "prompt": "a bear", "negative_prompt": "fog",
        "solver": "ab2", "aspect_ratio": "2:1", "base_resolution": "192", "model": "lens-nano-base",
        "strength": "0.3", "LoRA ink": "0.9",
    }  # fmt: skip
    start = replace(FORM, image=tmp_path / "a.png", size="")
    [base] = generation_requests(start, "")
    for name in axis_names(MODELS, ["ink"]):
        other = "seed" if name != "seed" else "steps"
        axis, fixed = parse_axis(name, texts[name], MODELS), Axis(other, (7,))
        [cell] = grid_forms(start, axis, fixed)
        assert generation_requests(cell, "")[0] != replace(base, **{other: 7}), name


def test_cells_go_row_by_row_and_share_their_seed():
    forms = grid_forms(FORM, Axis("steps", (1, 2, 3)), Axis("guidance", (1.0, 4.0)))
    assert [(form.steps, form.guidance) for form in forms] == [(s, g) for g in (1.0, 4.0) for s in (1, 2, 3)]
    assert {form.seed for form in forms} == {7}
    with pytest.raises(SettingError, match="another setting"):
        grid_forms(FORM, Axis("steps", (1,)), Axis("steps", (2,)))
    with pytest.raises(SettingError, match="at most 64"):
        grid_forms(FORM, Axis("steps", tuple(range(1, 14))), Axis("seed", tuple(range(5))))


def test_a_sheet_has_every_picture_in_its_place_under_its_label():
    colours = ["red", "green", "blue", "yellow", "purple"]
    images = [Image.new("RGB", (30, 20), colour) for colour in colours]
    page = render_sheet([*images, None], ["a", "b", "c"], ["one", "two"], "a title " * 30)
    centres = {page.getpixel((x, y)) for x in range(0, page.width, 3) for y in range(0, page.height, 3)}
    assert {image.getpixel((0, 0)) for image in images} <= centres
    right = page.crop((page.width - 42, page.height - 32, page.width - 12, page.height - 12))
    assert right.getpixel((15, 10)) == page.getpixel((1, 1)), "the missing picture's place is empty"
    without = render_sheet(images, ["", "", ""], ["", ""])
    assert page.height > without.height and page.tobytes() != without.tobytes()


def test_two_pictures_stand_side_by_side_with_what_they_differ_in():
    one, other = request(), request(seed=4, negative_prompt="fog")
    both = render_side_by_side(painted(one), painted(other), "foxes")
    assert both.width > one.width + other.width
    rows = metadata_differences(settings_of(one), settings_of(other))
    assert rows == [("negative prompt", "", "fog"), ("seed", "3", "4")]


# Code


def test_code_asks_for_what_the_interface_knows(tmp_path):
    loras = (LoraRequest("ink", 0.5),)
    form = replace(FORM, prompt="it's a \"fox\"\n$HOME", loras=loras, negative_prompt="fog")
    assert CreateImageRequest(**request_body(form)).loras[0].weight == 0.5
    assert CreateImageEditRequest(**request_body(replace(form, image=tmp_path / "a.png"))).strength == 0.6
    words = shlex.split(curl_command(form, "http://127.0.0.1:8000/").replace("\\\n", " "))
    assert words[2] == "http://127.0.0.1:8000/v1/images/generations"
    assert json.loads(words[words.index("-d") + 1]) == request_body(form)


def test_python_code_runs_with_openais_client(tmp_path):
    form = replace(FORM, prompt="it's a \"fox\"", count=2, image=tmp_path / "a.png", mask=tmp_path / "b.png")
    client = '''
import base64, sys, types
class OpenAI:
    def __init__(self, base_url, api_key):
        assert base_url == "http://h:1/v1", base_url
        self.images = self
    def generate(self, **given):
        print(sorted(given), given["prompt"])
        picture = types.SimpleNamespace(b64_json=base64.b64encode(b"picture").decode())
        return types.SimpleNamespace(data=[picture] * given["n"])
    def edit(self, image, mask, **given):
        return self.generate(**given)
sys.modules["openai"] = types.SimpleNamespace(OpenAI=OpenAI)
'''
    for name in ("start.png", "mask.png"):
        (tmp_path / name).write_bytes(b"")
    for one in (form, replace(form, image=None)):
        script = client + python_script(one, "http://h:1/")
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        names = "['extra_body', 'model', 'n', 'prompt', 'response_format', 'size']"
        assert done.stdout.startswith(f"{names} it's"), done.stderr
    assert (tmp_path / "picture-1.png").read_bytes() == b"picture"
