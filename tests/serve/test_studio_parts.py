"""Parts of the studio without a page: gallery, contact sheets, snippets, forms as requests."""

import json
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import MODELS, image_metadata, render
from PIL import Image

from lens.core.noise import MAX_SEED, RANDOM_SEED
from lens.errors import LensError, SettingError
from lens.sampling.image_metadata import encode_image_file, read_image_metadata
from lens.serve.api.schemas import CreateImageEditRequest, CreateImageRequest, resolve_request
from lens.serve.engine.request import GenerationRequest, LoraRequest
from lens.serve.safety.provenance import embed_provenance
from lens.serve.settings.server import ServerSettings
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
    StudioForm,
    base_resolutions,
    randomize_seed,
    request_body,
    restore_form,
    shape_from_size,
    variant_labels,
)
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.snippets import curl_command, explicit_body, python_script

FORM = StudioForm(
    prompt=" two foxes ", model="lens-nano", aspect_ratio="3:2", base_resolution=128, seed=7, guidance=2.0
)


def request(prompt="two red apples", seed=3, **changed):
    return replace(GenerationRequest("lens-nano", prompt, seed, 96, 144, 20, 2.0), **changed)


def save(gallery, prompt="two red apples", seed=3, **changed):
    wanted = request(prompt, seed, **changed)
    metadata = image_metadata(wanted)
    return gallery.save(embed_provenance(render(wanted), metadata, "png", None), metadata)


def resolve(form, caller="", loras=("ink", "oil")):
    """Return the images of a form, as the service resolves them."""
    settings = ServerSettings.of({})
    return resolve_request(request_body(form), MODELS, list(loras), settings, caller, form.uploads)


# The gallery


def test_a_stored_image_carries_its_metadata_and_another_gallery_of_the_folder_finds_it(tmp_path):
    item = save(Gallery(tmp_path))
    assert read_image_metadata(item.path) == item.metadata
    assert [one.metadata for one in Gallery(tmp_path).items()] == [item.metadata]


def test_the_newest_image_is_first_and_a_search_matches_every_word(tmp_path):
    gallery = Gallery(tmp_path)
    names = [save(gallery, prompt).name for prompt in ("a red fox", "a Red apple", "a blue fox")]
    assert [item.name for item in gallery.items()] == names[::-1]
    assert [item.name for item in gallery.items("FOX red")] == [names[0]]
    assert gallery.items("red bear") == []


def test_favourites_survive_a_restart_and_are_deleted_with_their_image(tmp_path):
    gallery = Gallery(tmp_path)
    first, second = save(gallery), save(gallery, seed=4)
    gallery.set_favourite(first.name, True)
    gallery.set_favourite(second.name, True)
    gallery.set_favourite(second.name, False)
    again = Gallery(tmp_path)
    assert [item.name for item in again.items(only_favourites=True)] == [first.name]
    assert again.item(first.name).is_favourite and not again.item(second.name).is_favourite
    again.delete(first.name)
    assert gallery.items(only_favourites=True) == [] and not first.path.exists()
    assert json.loads((tmp_path / "favourites.json").read_text()) == []


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "a/b.png", ".hidden.png", "no.png", "x.txt", ""]
)
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "gallery"
    folder.mkdir()
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "x.txt").write_bytes(b"x")
    gallery = Gallery(folder)
    for act in (gallery.item, gallery.delete, lambda name: gallery.set_favourite(name, True)):
        with pytest.raises(LensError, match="no image"):
            act(name)
    assert (tmp_path / "secret.png").exists() and (folder / "x.txt").exists()


def test_a_link_out_of_the_folder_is_not_an_image_of_it(tmp_path):
    outside = save(Gallery(tmp_path / "other"))
    gallery = Gallery(tmp_path / "gallery")
    save(gallery)
    (gallery.folder / "link.png").symlink_to(outside.path)
    assert len(gallery.items()) == 1
    with pytest.raises(LensError, match="no image"):
        gallery.item("link.png")


def test_files_that_others_copy_in_are_found_and_broken_ones_are_reported_once(tmp_path, caplog):
    wanted = request("from elsewhere")
    for kind, suffix in (("jpg", ".jpg"), ("webp", ".webp")):
        with (tmp_path / f"other{suffix}").open("wb") as file:
            encode_image_file(render(wanted), image_metadata(wanted), kind, file)
    (tmp_path / "broken.png").write_bytes(b"no image")
    gallery = Gallery(tmp_path)
    assert [item.metadata.prompt for item in gallery.items()] == ["from elsewhere"] * 2
    gallery.items()
    assert len([record for record in caplog.records if "broken.png" in record.message]) == 1


def test_large_images_have_a_thumbnail_that_is_deleted_with_them(tmp_path):
    gallery = Gallery(tmp_path)
    large, little = save(gallery, width=512, height=256), save(gallery)
    assert gallery.thumbnail(little) == little.path
    small = gallery.thumbnail(large)
    with Image.open(small) as image:
        assert image.size == (384, 192)
    gallery.delete(large.name)
    assert not small.exists()


def test_a_zip_holds_the_files_unchanged(tmp_path):
    gallery = Gallery(tmp_path / "gallery")
    items = [save(gallery, seed=seed) for seed in (1, 2)]
    path = gallery.write_zip([item.name for item in items], tmp_path / "all.zip")
    with zipfile.ZipFile(path) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == {
            item.name: item.path.read_bytes() for item in items
        }


def test_source_images_are_stored_once_and_are_not_in_the_gallery(tmp_path):
    gallery = Gallery(tmp_path)
    first, second = (gallery.save_input(Image.new("RGB", (8, 8), colour)) for colour in ("red", "red"))
    assert first == second and gallery.find_input(first.stem) == first
    assert gallery.find_input("../" + first.stem) == first and gallery.find_input("0") is None
    assert gallery.items() == []


# Forms


def test_a_form_becomes_one_request_per_image_with_seeds_that_follow():
    requests = resolve(replace(FORM, count=3), "me").requests()
    assert [(one.prompt, one.seed, one.height, one.width, one.caller) for one in requests] == [
        ("two foxes", seed, 112, 160, "me") for seed in (7, 8, 9)
    ]
    assert requests[0].strength is None and requests[0].previews == 3


def test_values_without_effect_reach_the_api_which_tells_of_them(tmp_path):
    form = replace(FORM, negative_prompt="blur", loras=(LoraRequest("ink", 0.0), LoraRequest("oil", 0.5)))
    assert resolve(form).draw.negative_prompt == "blur"
    assert resolve(form).draw.loras == (LoraRequest("oil", 0.5),)
    assert resolve(replace(form, guidance=1.0, strength=0.4)).draw.negative_prompt == "blur"
    assert "strength" not in curl_command(resolve(replace(form, strength=0.4)), "http://h")
    assert resolve(replace(form, mask=tmp_path / "mask.png")).draw.mask is None


def test_values_that_a_form_leaves_open_are_the_apis_defaults(tmp_path):
    body, settings = CreateImageRequest(prompt="two foxes", seed=7), ServerSettings.of({})
    draw = resolve(StudioForm(prompt="two foxes", seed=7)).draw
    assert replace(draw, previews=0) == resolve_request(body, MODELS, [], settings, "").draw
    image, mask = tmp_path / "a.png", tmp_path / "b.png"
    assert resolve(replace(FORM, image=image)).draw.strength == 0.6
    assert resolve(replace(FORM, image=image, mask=mask)).draw.strength == 1.0


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"model": ""}, "model"),
        ({"count": 11}, "count"),
        ({"seed": -2}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"steps": 0}, "steps"),
        ({"size": "100"}, "size"),
        ({"size": "100x96"}, "size"),
        ({"base_resolution": 7}, "base_resolution"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_names_its_field(changes, setting):
    with pytest.raises(SettingError) as caught:
        resolve(replace(FORM, **changes))
    assert caught.value.setting == setting


def test_a_seed_is_random_unless_it_is_locked():
    assert randomize_seed(replace(FORM, is_seed_locked=True)).seed == 7
    asks_for_random = replace(FORM, is_seed_locked=True, seed=RANDOM_SEED)
    for form in (FORM, asks_for_random):
        assert len({randomize_seed(form).seed for _ in range(5)}) > 1


def test_the_largest_seed_is_that_of_every_surface_and_0_follows_it():
    requests = resolve(replace(FORM, seed=MAX_SEED, count=3)).requests()
    assert [one.seed for one in requests] == [MAX_SEED, 0, 1]


@pytest.mark.parametrize("form", [FORM, replace(FORM, size="208x144"), replace(FORM, base_resolution=512)])
def test_metadata_restores_the_form_that_generates_the_same_image(tmp_path, form):
    gallery = Gallery(tmp_path)
    image = gallery.save_input(Image.new("RGB", (16, 16), "red"))
    mask = gallery.save_input(Image.new("L", (16, 16), 255))
    form = replace(form, negative_prompt="blur", loras=(LoraRequest("ink", 0.7),), image=image, mask=mask)
    wanted = resolve(form).draw
    again, notes = restore_form(image_metadata(wanted), StudioForm(), MODELS, ["ink"], gallery)
    assert resolve(again).requests() == [wanted] and notes == []
    assert again.is_seed_locked


def test_each_part_that_is_not_available_has_a_note(tmp_path):
    wanted = request(
        model="other", loras=(LoraRequest("gone"),), image=Path("0.png"), mask=Path("1.png"), strength=0.4
    )
    form, notes = restore_form(image_metadata(wanted), FORM, MODELS, ["ink"], Gallery(tmp_path))
    assert len(notes) == 3 and "other" in notes[0] and "gone" in notes[1]
    assert form.model == "lens-nano" and form.image is None and form.loras == ()


def test_a_named_size_becomes_ratio_and_base_and_another_stays_a_size():
    assert shape_from_size(160, 112) == ("3:2", 128, "")
    assert shape_from_size(1248, 832) == ("3:2", 1024, "")
    assert shape_from_size(336, 208) == ("1:1", None, "336x208")


def test_models_have_base_resolutions_and_unambiguous_labels():
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


# Contact sheets


def test_values_of_an_axis_are_numbers_ranges_names_or_lines():
    assert parse_axis("steps", "1, 4..6", MODELS).values == (1, 4, 5, 6)
    assert parse_axis("seed", "1..64", MODELS).values == tuple(range(1, 65))
    assert parse_axis("guidance", "3..1, -1..0", MODELS).values == (3.0, 2.0, 1.0, -1.0, 0.0)
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
def test_a_value_that_a_setting_does_not_accept_is_an_error(setting, text):
    with pytest.raises(SettingError) as caught:
        parse_axis(setting, text, MODELS)
    assert caught.value.setting == setting


def test_a_range_with_too_many_values_names_the_limit_and_an_unknown_axis_the_list():
    with pytest.raises(SettingError, match="at most 64 values; this range has 100"):
        parse_axis("seed", "1..100", MODELS)
    for setting in ("magic", None):
        with pytest.raises(SettingError, match="a setting of the list"):
            parse_axis(setting, "1", MODELS)


def test_every_axis_changes_the_request(tmp_path):
    texts = {
        "guidance": "3", "steps": "5", "seed": "9", "prompt": "a bear", "negative_prompt": "fog",
        "solver": "ab2", "aspect_ratio": "2:1", "base_resolution": "192", "model": "lens-nano-base",
        "strength": "0.3", "LoRA ink": "0.9", "cache": "taylorseer",
    }  # fmt: skip
    start = replace(FORM, image=tmp_path / "a.png", size="")
    base = resolve(start).draw
    for name in axis_names(MODELS, ["ink"]):
        other = "seed" if name != "seed" else "steps"
        axis, fixed = parse_axis(name, texts[name], MODELS), Axis(other, (7,))
        [cell] = grid_forms(start, axis, fixed)
        assert resolve(cell).draw != replace(base, **{other: 7}), name


def test_cells_are_in_row_order_and_share_the_seed():
    forms = grid_forms(FORM, Axis("steps", (1, 2, 3)), Axis("guidance", (1.0, 4.0)))
    assert [(form.steps, form.guidance) for form in forms] == [(s, g) for g in (1.0, 4.0) for s in (1, 2, 3)]
    assert {form.seed for form in forms} == {7}
    with pytest.raises(SettingError, match="a setting that differs from X"):
        grid_forms(FORM, Axis("steps", (1,)), Axis("steps", (2,)))
    with pytest.raises(SettingError, match="at most 64"):
        grid_forms(FORM, Axis("steps", tuple(range(1, 14))), Axis("seed", tuple(range(5))))


def test_a_sheet_has_every_image_in_its_place_under_its_label():
    colours = ["red", "green", "blue", "yellow", "purple"]
    images = [Image.new("RGB", (30, 20), colour) for colour in colours]
    page = render_sheet([*images, None], ["a", "b", "c"], ["one", "two"], "a title " * 30)
    centres = {page.getpixel((x, y)) for x in range(0, page.width, 3) for y in range(0, page.height, 3)}
    assert {image.getpixel((0, 0)) for image in images} <= centres
    right = page.crop((page.width - 42, page.height - 32, page.width - 12, page.height - 12))
    assert right.getpixel((15, 10)) == page.getpixel((1, 1)), "the place of the missing image is empty"
    without = render_sheet(images, ["", "", ""], ["", ""])
    assert page.height > without.height and page.tobytes() != without.tobytes()


def test_two_images_are_side_by_side_and_their_differences_are_listed():
    one, other = request(), request(seed=4, negative_prompt="fog")
    both = render_side_by_side(render(one), render(other), "foxes")
    assert both.width > one.width + other.width
    rows = metadata_differences(image_metadata(one), image_metadata(other))
    assert rows == [("negative prompt", "", "fog"), ("seed", "3", "4")]


# Snippets


def test_snippets_are_bodies_of_the_api(tmp_path):
    loras = (LoraRequest("ink", 0.5),)
    form = replace(FORM, prompt="it's a \"fox\"\n$HOME", loras=loras, negative_prompt="fog")
    spec = resolve(form)
    assert CreateImageRequest(**explicit_body(spec)).loras[0].weight == 0.5
    edit = explicit_body(resolve(replace(form, image=tmp_path / "a.png")))
    assert CreateImageEditRequest(**edit).strength == 0.6
    words = shlex.split(curl_command(spec, "http://127.0.0.1:8000/").replace("\\\n", " "))
    assert words[2] == "http://127.0.0.1:8000/v1/images/generations"
    assert json.loads(words[words.index("-d") + 1]) == explicit_body(spec)


def test_a_snippet_repeats_the_request_of_the_form():
    spec = resolve(replace(FORM, count=2, steps=5, solver="ab2", loras=(LoraRequest("ink", 0.5),)))
    body = CreateImageRequest(**explicit_body(spec))
    again = resolve_request(body, MODELS, ["ink"], ServerSettings.of({}), "")
    assert again == replace(spec, draw=replace(spec.draw, previews=0))


def test_the_python_script_runs_with_openais_client(tmp_path):
    form = replace(FORM, prompt="it's a \"fox\"", count=2, image=tmp_path / "a.png", mask=tmp_path / "b.png")
    client = '''
import base64, sys, types
class OpenAI:
    def __init__(self, base_url, api_key):
        assert base_url == "http://h:1/v1", base_url
        self.images = self
    def generate(self, **given):
        print(sorted(given), given["prompt"])
        image = types.SimpleNamespace(b64_json=base64.b64encode(b"image").decode())
        return types.SimpleNamespace(data=[image] * given["n"])
    def edit(self, image, mask, **given):
        return self.generate(**given)
sys.modules["openai"] = types.SimpleNamespace(OpenAI=OpenAI)
'''
    for name in ("source.png", "mask.png"):
        (tmp_path / name).write_bytes(b"")
    for one in (form, replace(form, image=None)):
        script = client + python_script(resolve(one), "http://h:1/")
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        names = "['extra_body', 'model', 'n', 'prompt', 'response_format', 'size']"
        assert done.stdout.startswith(f"{names} it's"), done.stderr
    assert (tmp_path / "image-1.png").read_bytes() == b"image"
