"""The studio's event handlers without a page: values in, values out, with a fake engine."""

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from fake_engine import FakeEngine, color
from PIL import Image, PngImagePlugin

from lens.errors import LensError, SettingError
from lens.prompts.styles import Style, edit_styles
from lens.reasoner.language_model import ReasoningStoppedError
from lens.reasoner.outcome import Check, Reasoned
from lens.sampling.image_metadata import read_image_metadata
from lens.sampling.solvers import SOLVERS
from lens.serve.api.generation import GenerationHooks, GenerationService
from lens.serve.safety.provenance import Signer, embed_provenance
from lens.serve.safety.verify import verify_image
from lens.serve.settings.server import ServerSettings, SigningSettings
from lens.serve.studio import gallery_html
from lens.serve.studio.controls import cache_choices
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.gallery_handlers import GallerySearch
from lens.serve.studio.handlers import FORM_FIELDS, StudioHandlers, editor_value, image_and_mask, parse_loras
from lens.serve.studio.html import error_line

GIVEN = {
    "prompt": "two foxes", "model": "lens-nano-turbo", "aspect_ratio": "1:1", "base_resolution": 128,
    "seed": 5, "is_seed_locked": True, "count": 1, "steps": 4, "guidance": 1.0, "negative_prompt": "",
    "solver": "euler", "cache": "", "size": "", "loras": [], "start": None, "strength": 0.6,
    "is_strength_set": False, "styles": [], "upscale": 1, "upscale_strength": 0.5,
}  # fmt: skip


def values(**changes):
    return [(GIVEN | changes)[name] for name in FORM_FIELDS]


def service_of(hooks=None, settings=None, **engine):
    settings = ServerSettings.of(settings or {})
    return GenerationService(FakeEngine(**engine), settings, hooks or GenerationHooks())


def studio(tmp_path, hooks=None, settings=None, **engine):
    return StudioHandlers(service_of(hooks, settings, **engine), Gallery(tmp_path / "gallery"))


def source_image(mask_box=None):
    """Return an editor's value: a red image, and a mask painted over the box."""
    layer = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    if mask_box:
        layer.paste((255, 255, 255, 255), mask_box)
    return {"background": Image.new("RGBA", (64, 48), "red"), "layers": [layer], "composite": None}


def words(html):
    return re.sub(r"<[^>]+>", " ", html).strip()


def until(claim, limit_s=5.0):
    ends_at = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.01)


def test_an_image_reports_each_step_and_is_stored(tmp_path):
    handlers = studio(tmp_path, step_s=0.12)
    views = list(handlers.draw(values(), "me"))
    lines = [words(view.status_html) for view in views]
    assert any(re.match(r"Step [1-3] of 4, less than a second left", line) for line in lines), lines
    assert lines[-1] == "Done: 1 image." and views[-1].is_finished
    assert any('data-state="preview"' in view.tiles_html for view in views)
    [item] = handlers.gallery.items()
    assert f'data-name="{item.name}"' in views[-1].tiles_html and item.metadata.seed == 5
    assert Image.open(item.path).getpixel((0, 0)) == color("two foxes", 5)
    assert handlers.engine.requests[0].caller == "me" and handlers.engine.requests[0].previews == 3
    [remembered] = handlers.batches.find(views[-1].batch_id).images
    assert max(remembered.size) == 64, "a batch keeps small copies of images in the gallery"


def test_queued_images_report_how_many_are_ahead(tmp_path):
    handlers = studio(tmp_path, step_s=0.05)
    busy = handlers.batches.start([handlers.resolve(handlers.parse_form(values(count=2)), "other")], None)
    until(lambda: len(handlers.engine.requests) == 2)
    views = list(handlers.draw(values(count=3), "me"))
    assert any("Queued: 1 image ahead" in view.status_html for view in views)
    assert any(", image 2 of 3" in view.status_html for view in views)
    assert [item.metadata.seed for item in handlers.gallery.items()] == [7, 6, 5] and busy.is_finished


def test_cancelling_stops_images_in_progress_and_in_the_queue(tmp_path):
    handlers = studio(tmp_path, step_s=0.1)
    views = []
    for view in handlers.draw(values(count=3, steps=50), "me"):
        views.append(view)
        if "Step" in view.status_html:
            handlers.cancel(view.batch_id)
    assert words(views[-1].status_html) == "Cancelled: 0 of 3 images done."
    assert views[-1].tiles_html.count("Cancelled") == 3
    assert handlers.gallery.items() == []
    handlers.cancel(None)
    handlers.cancel("unknown")


def test_a_batch_goes_on_when_its_page_is_closed_and_another_page_watches_it(tmp_path):
    handlers = studio(tmp_path, step_s=0.05)
    page = handlers.draw(values(count=2), "me")
    name = next(page).batch_id
    page.close()
    views = list(handlers.watch(name))
    assert words(views[-1].status_html) == "Done: 2 images." and len(handlers.gallery.items()) == 2
    assert list(handlers.watch("unknown")) == [] and list(handlers.watch(None)) == []


def test_a_batch_larger_than_the_queue_is_submitted_as_room_appears(tmp_path):
    handlers = studio(tmp_path, max_open=2, step_s=0.01)
    views = list(handlers.draw(values(count=9), "me"))
    assert words(views[-1].status_html) == "Done: 9 images." and len(handlers.engine.requests) == 9


def test_a_queue_filled_by_others_is_an_error(tmp_path):
    [view] = [view for view in studio(tmp_path, max_open=0).draw(values(), "me") if view.is_finished]
    assert "The queue is full" in view.status_html and 'role="alert"' in view.status_html


@pytest.mark.parametrize(
    "changes", [{"prompt": " "}, {"steps": "x"}, {"size": "5"}, {"loras": [["ink", "much"]]}]
)
def test_a_value_that_cannot_be_used_is_an_error_and_nothing_is_submitted(tmp_path, changes):
    handlers = studio(tmp_path)
    [view] = handlers.draw(values(**changes), "me")
    assert 'role="alert"' in view.status_html and view.is_finished and handlers.engine.requests == []


def test_the_engines_refusals_are_shown_and_internal_errors_are_not(tmp_path, caplog):
    handlers = studio(tmp_path)
    assert "another word" in list(handlers.draw(values(prompt="refuse this"), "me"))[-1].status_html
    last = list(handlers.draw(values(prompt="fail"), "me"))[-1]
    assert "secret" not in last.status_html and "log of the server has the details" in last.status_html
    assert any("secret of the inside" in str(record.exc_info) for record in caplog.records)


def test_texts_are_escaped_wherever_they_are_shown(tmp_path):
    handlers = studio(tmp_path)
    evil = "<script>alert(1)</script>\" onerror='x'"
    last = list(handlers.draw(values(prompt=evil, negative_prompt=evil), "me"))[-1]
    [item] = handlers.gallery.items()
    compared = gallery_html.comparison(item, item, [("prompt", evil, evil)])
    listing, line = handlers.in_gallery.search(GallerySearch())[0], error_line(LensError(evil))
    dialog = handlers.in_gallery.act_on_one("open", item.name, GallerySearch()).viewer_html
    for text in (last.tiles_html, listing, dialog, compared, line):
        assert "<script" not in text and "&lt;script" in text and '" onerror' not in text


def test_the_operators_hooks_check_prompts_and_images(tmp_path):
    def check_prompt(text, caller):
        if "bad" in text:
            raise LensError("These words are refused.")

    def check_image(image, caller):
        if image.width == 192:
            raise LensError("This image is refused.")

    handlers = studio(tmp_path, GenerationHooks(check_prompt=check_prompt, check_image=check_image))
    refused = list(handlers.draw(values(prompt="bad"), "me"))
    assert "These words are refused." in refused[-1].status_html and handlers.engine.requests == []
    views = list(handlers.draw(values(base_resolution=192), "me"))
    assert "This image is refused." in views[-1].status_html and handlers.gallery.items() == []
    assert not any("preview" in view.tiles_html for view in views)
    grid = list(handlers.draw_grid(values(prompt="bad"), "steps", "1", "seed", "1", "me"))
    assert "These words are refused." in grid[-1][1]


def test_a_grid_has_each_prompt_moderated_once(tmp_path):
    checked = []
    handlers = studio(tmp_path, GenerationHooks(check_prompt=lambda *args: checked.append(args)))
    list(handlers.draw_grid(values(), "steps", "1..3", "prompt", "a fox\na bear", "me"))
    assert checked == [("a fox", "me"), ("a bear", "me")]


def test_images_are_marked_before_they_are_stored_and_not_stored_if_that_fails(tmp_path):
    def embed(*_):
        raise LensError("no mark")

    failing = studio(tmp_path, GenerationHooks(embed_provenance=embed))
    assert "no mark" in list(failing.draw(values(), "me"))[-1].status_html
    assert failing.gallery.items() == []
    handlers = studio(tmp_path)
    list(handlers.draw(values(), "me"))
    assert b"trainedAlgorithmicMedia" in handlers.gallery.items()[0].path.read_bytes()


def test_a_server_that_shuts_down_accepts_no_batch(tmp_path):
    handlers = studio(tmp_path)
    handlers.service.is_draining = True
    grid = list(handlers.draw_grid(values(), "steps", "1", "seed", "1", "me"))
    for line in (list(handlers.draw(values(), "me"))[-1].status_html, grid[-1][1]):
        assert "shutting down" in line
    assert handlers.engine.requests == []


@pytest.mark.parametrize(
    ("settings", "changes", "says"),
    [
        ({"limits": {"picture_px": 20_000}}, {"base_resolution": 192}, "at most 20000 pixels"),
        ({"limits": {"prompt_characters": 8}}, {}, "at most 8 characters"),
        ({"limits": {"upload_px": 3000}}, {"start": source_image()}, "at most 3000 pixels"),
        ({"engine": {"max_steps": 3}}, {}, "Steps is 4"),
        ({}, {"count": 11}, "Images is 11, but it needs at most 10."),
        ({}, {"guidance": 101.0}, "Guidance is 101.0"),
        ({}, {"loras": [["none", 1]]}, "one of ink"),
        ({}, {"seed": 1.5}, "Seed is 1.5, but it needs a whole number."),
        ({}, {"seed": -7}, "Seed is -7"),
        ({}, {"count": None}, "Images is &#x27;&#x27;, but it needs a whole number."),
        ({}, {"count": 0}, "Images is 0"),
        ({}, {"steps": 1e400}, "Steps is inf, but it needs a whole number."),
        ({}, {"guidance": -1}, "Guidance is -1"),
        ({}, {"strength": 1.5, "is_strength_set": True, "start": "source"}, "Strength is 1.5"),
        ({}, {"model": "gone"}, "Model is &#x27;gone&#x27;"),
        ({}, {"aspect_ratio": "5:1"}, "Aspect ratio is &#x27;5:1&#x27;"),
        ({}, {"base_resolution": 7}, "Base resolution is 7"),
        ({}, {"solver": "magic"}, "Solver is &#x27;magic&#x27;"),
        ({}, {"start": SettingError("image", "the file", "words")}, "Source image is"),
    ],
)
def test_the_limits_of_the_server_hold_in_the_studio(tmp_path, settings, changes, says):
    handlers = studio(tmp_path, settings=settings)
    if changes.get("start") == "source":
        changes = changes | {"start": source_image()}
    [view] = handlers.draw(values(**changes), "me")
    assert says in view.status_html and handlers.engine.requests == []


@pytest.mark.parametrize(
    ("mask_box", "chosen", "strength"),
    [(None, None, 0.6), ((8, 8, 20, 20), None, 1.0), ((8, 8, 20, 20), 0.6, 0.6), (None, 0.9, 0.9)],
)
def test_a_strength_that_nobody_set_is_the_default_with_or_without_a_mask(
    tmp_path, mask_box, chosen, strength
):
    handlers = studio(tmp_path)
    start, slider = source_image(mask_box), 0.6 if chosen is None else chosen
    changes = {"start": start, "strength": slider, "is_strength_set": chosen is not None}
    list(handlers.draw(values(**changes), "me"))
    [request] = handlers.engine.requests
    assert request.strength == strength and (request.mask is not None) == (mask_box is not None)
    assert handlers.shown_strength(start, slider, chosen is not None) == strength
    assert f"'strength': {strength}" in handlers.code_snippets(values(**changes), "http://h/")[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"negative_prompt": "fog"}, "The negative prompt has no effect at guidance 1."),
        ({"strength": 0.3, "is_strength_set": True}, "The strength has no effect without a source image."),
        ({"solver": "ab2", "steps": 1}, "The solver ab2 has no effect on one step"),
        ({"start": source_image()}, "25% of its width is cut off"),
        ({"start": source_image((0, 0, 64, 48)), "size": "64x48"}, "The mask keeps nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_told_of_a_request_is_beside_its_status_and_the_image_is_drawn(tmp_path, changes, told):
    handlers = studio(tmp_path)
    views = list(handlers.draw(values(**changes), "me"))
    assert all(told in view.status_html for view in views)
    assert words(views[-1].status_html).startswith("Done: 1 image.")
    grid = list(handlers.draw_grid(values(**changes), "seed", "1, 2", "guidance", "1", "me"))
    assert grid[-1][1].count(told) == 1


def rainy(prompt, *, seed=0, should_stop=None):
    """A reasoner with an outcome for each kind of prompt."""
    checks = (Check("numbers", True), Check("quoted_text", "loses" not in prompt, "<OPEN> is gone"))
    if "blood" in prompt:
        return Reasoned("refused", prompt, prompt, reason="Gore.", category="violence", model="scribe")
    if "loses" in prompt:
        return Reasoned("failed", prompt, prompt, reason="it lost a text at http://inside/v1", checks=checks)
    if "rain" in prompt:
        return Reasoned("unchanged", prompt, prompt, reason="It is detailed already.")
    return Reasoned("refined", f"{prompt}, in the rain", prompt, checks=checks, model="scribe <1>")


def with_reasoner(reasoner=rainy, **hooks):
    return GenerationHooks(find_reasoner=lambda _: reasoner, **hooks)


@pytest.mark.parametrize(
    ("prompt", "shown", "told"),
    [
        ("a fox", "a fox, in the rain",
         ["Refined by scribe &lt;1&gt;", "Edit the new prompt", "checked: numbers, quoted text."]),
        ("rain", "rain", ["Unchanged", "It is detailed already."]),
        ("blood", "blood", ["(category violence)", "Gore", "Nothing is drawn", 'role="alert"']),
        ("it loses", "it loses",
         ["could not be refined: it lost a text at (an address)", 'role="alert"',
          "Not kept: quoted text (&lt;OPEN&gt; is gone)"]),
        (" ", " ", ['role="alert"', "some words"]),
    ],
    ids=["refined", "unchanged", "refused", "failed", "no words"],
)  # fmt: skip
def test_each_outcome_of_the_reasoner_is_told_in_words_and_only_a_refined_prompt_is_another(
    tmp_path, prompt, shown, told
):
    view = studio(tmp_path, with_reasoner()).enhance(prompt, "me")
    assert view.prompt == shown
    assert [text for text in told if text not in view.line_html] == []


def test_without_a_reasoner_the_prompt_stays_and_the_line_says_why(tmp_path):
    prompt, line = studio(tmp_path).enhance("a fox", "me")
    assert prompt == "a fox" and "no language model" in line


def test_the_prompt_is_read_before_it_is_refined_and_what_comes_back_is_not_read_again(tmp_path):
    def write(prompt, *, seed=0, should_stop=None):
        return Reasoned("refined", f"{prompt} (day:1.3) {{dawn|dusk}}", prompt)

    handlers = studio(tmp_path, with_reasoner(write))
    view = handlers.enhance("a (red:1.2) fox <lora:ink:0.5>", "me")
    assert "were chosen before" in view.line_html
    list(handlers.draw(values(prompt=view.prompt), "me"))
    drawn = handlers.engine.requests[-1]
    assert drawn.prompt == "a red fox (day:1.3) {dawn|dusk}"
    assert [(lora.name, lora.weight) for lora in drawn.loras] == [("ink", 0.5)]


def test_an_image_of_a_refined_prompt_records_the_request_also_when_it_is_restored_or_made_larger(tmp_path):
    handlers = studio(tmp_path, with_reasoner())
    refined = handlers.enhance("a fox", "me").prompt
    list(handlers.draw(values(prompt=refined), "me"))
    item = handlers.gallery.items()[0]
    later = StudioHandlers(handlers.service, handlers.gallery)  # after a new start of the server
    list(later.draw_larger(item.name, 0.3, "me"))
    changes, _ = later.restore(item.path, values())
    list(later.draw(values(prompt=changes["prompt"]), "me"))
    records = [item.metadata for item in handlers.gallery.items()]
    assert [(one.prompt, one.original_prompt) for one in records] == [("a fox, in the rain", "a fox")] * 3
    assert [one.reasoner.model for one in records] == ["scribe <1>"] * 3
    rows = dict(gallery_html.metadata_rows(records[0]))
    assert (rows["asked for"], rows["reasoner"]) == ("a fox", "refined by scribe <1>")
    list(handlers.draw(values(prompt="a fox, in the sun"), "me"))
    assert handlers.gallery.items()[0].metadata.original_prompt is None


def test_a_page_can_stop_the_reasoner_and_only_its_own(tmp_path):
    is_asked = threading.Event()

    def think(prompt, *, seed=0, should_stop=None):
        is_asked.set()
        until(should_stop)
        raise ReasoningStoppedError("stopped")

    handlers = studio(tmp_path, with_reasoner(think))
    with ThreadPoolExecutor(1) as thread:
        view = thread.submit(handlers.enhance, "a fox", "me")
        assert is_asked.wait(5)
        handlers.stop_enhancing("another")
        assert not view.done()
        handlers.stop_enhancing("me")
        assert view.result(5).prompt == "a fox" and "Stopped" in view.result().line_html
    handlers.stop_enhancing("me")  # nothing is asked any more


def test_prompts_are_moderated_before_and_after_they_are_enhanced(tmp_path):
    def check_prompt(prompt, caller):
        if "bad" in prompt:
            raise LensError(f"{caller}: refused")

    def worsen(prompt, *, seed=0, should_stop=None):
        return Reasoned("refined", f"{prompt} or bad", prompt)

    handlers = studio(tmp_path, with_reasoner(worsen, check_prompt=check_prompt))
    for prompt in ("bad", "good"):
        text, line = handlers.enhance(prompt, "me")
        assert text == prompt and "me: refused" in line


def test_a_tile_is_drawn_larger_from_the_settings_of_its_image_and_larger_again(tmp_path):
    handlers = studio(tmp_path)
    list(handlers.draw(values(negative_prompt="fog", guidance=2.0, aspect_ratio="16:9"), "me"))
    for factor in (2, 4):
        last = list(handlers.draw_larger(handlers.gallery.items()[0].name, 0.3, "me"))[-1]
        assert words(last.status_html) == "Done: 1 image."
        drawn, first = handlers.engine.requests[-1], handlers.engine.requests[0]
        size = {"width": first.width * factor, "height": first.height * factor}
        assert drawn == replace(first, **size, upscale=float(factor), upscale_strength=0.3)
    last = list(handlers.draw_larger(handlers.gallery.items()[0].name, 0.3, "me"))[-1]
    assert "Upscale is 8" in words(last.status_html) and len(handlers.engine.requests) == 3
    [view] = handlers.draw_larger("gone.png", 0.3, "me")
    assert "no longer in the gallery" in view.status_html


def test_styles_and_upscaling_are_asked_for_by_their_controls(tmp_path):
    handlers = studio(tmp_path, settings={"state": tmp_path})
    edit_styles(tmp_path / "styles.yaml", lambda styles: styles.update(dusk=Style(prompt="{prompt} at dusk")))
    assert "dusk" in handlers.styles()
    list(handlers.draw(values(styles=["dusk"], upscale=1.5, upscale_strength=0.4), "me"))
    [asked] = handlers.engine.requests
    assert asked.prompt == "two foxes at dusk" and (asked.upscale, asked.upscale_strength) == (1.5, 0.4)
    changes, _ = handlers.restore(handlers.gallery.items()[0].path, values())
    assert (changes["prompt"], changes["styles"], changes["upscale"]) == ("two foxes at dusk", [], 1.5)
    list(handlers.draw([changes[name] for name in FORM_FIELDS], "me"))
    assert handlers.engine.requests[1] == asked
    [view] = handlers.draw(values(styles=["gone"]), "me")
    assert re.search("Styles is .*gone.* needs one of .*dusk", words(view.status_html))


def test_a_dropped_image_sets_every_control_so_that_drawing_repeats_its_request(tmp_path):
    handlers = studio(tmp_path)
    chosen = values(
        model="lens-nano", aspect_ratio="16:9", base_resolution=192, steps=12, guidance=3.0, solver="ab2",
        cache="taylorseer", negative_prompt="fog", loras=[["ink", 0.4]], start=source_image((8, 8, 20, 20)),
        strength=0.3, is_strength_set=True,
    )  # fmt: skip
    list(handlers.draw(chosen, "me"))
    changes, line = handlers.restore(handlers.gallery.items()[0].path, values())
    assert words(line) == "Settings restored; the seed is locked."
    assert set(changes) == set(FORM_FIELDS)
    list(handlers.draw([changes[name] for name in FORM_FIELDS], "me"))
    first, second = handlers.engine.requests
    assert first == second and first.mask is not None and first.strength == 0.3
    assert first.cache == "taylorseer"


def test_a_dropped_file_without_metadata_changes_nothing_and_hides_its_folder(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image")
    for name in ("plain.png", "text.png"):
        changes, line = studio(tmp_path).restore(tmp_path / name, values())
        assert changes == {} and 'role="alert"' in line and str(tmp_path) not in line


def test_the_painted_area_is_the_mask_and_can_be_restored(tmp_path):
    assert image_and_mask(None) == (None, None)
    empty = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert image_and_mask({"background": empty, "layers": [empty], "composite": empty}) == (None, None)
    red = Image.new("RGBA", (8, 6), "red")
    image, mask = image_and_mask({"background": red, "layers": [empty.resize((8, 6))]})
    assert image.size == (8, 6) and mask is None
    gallery = Gallery(tmp_path)
    stroke = Image.new("L", (8, 6), 0)
    stroke.paste(255, (2, 1, 5, 4))
    value = editor_value(gallery.save_input(image), gallery.save_input(stroke))
    again, mask = image_and_mask(value)
    assert again.tobytes() == image.tobytes() and mask.tobytes() == stroke.tobytes()


def test_empty_rows_of_a_lora_table_are_skipped():
    assert [(lora.name, lora.weight) for lora in parse_loras([["ink", ""], ["", 1], ["oil", "0.5"], []])] == [
        ("ink", 1.0), ("oil", 0.5)
    ]  # fmt: skip


def test_a_grid_is_one_contact_sheet_and_its_cells_are_in_the_gallery(tmp_path):
    handlers = studio(tmp_path)
    lines = list(handlers.draw_grid(values(is_seed_locked=False), "steps", "1..3", "guidance", "1, 2", "me"))
    _, line, path = lines[-1]
    assert words(line) == "Done: 6 images." and path.parent == handlers.gallery.folder / "sheets"
    assert sorted((request.steps, request.guidance) for request in handlers.engine.requests) == [
        (steps, guidance) for steps in (1, 2, 3) for guidance in (1.0, 2.0)
    ]
    assert len({request.seed for request in handlers.engine.requests}) == 1
    items = handlers.gallery.items()
    assert sorted((item.metadata.steps, item.metadata.guidance) for item in items) == [
        (steps, guidance) for steps in (1, 2, 3) for guidance in (1.0, 2.0)
    ]
    with Image.open(path) as sheet:
        assert sheet.width > 3 * 128
        centre = sheet.getpixel((sheet.width - 12 - 64, sheet.height - 12 - 64))
    assert centre == color("two foxes", items[0].metadata.seed)
    wrong = list(handlers.draw_grid(values(), "seed", "1", "seed", "2", "me"))
    assert "a setting that differs from X" in wrong[-1][1]


def signed_studio(folder):
    """Return handlers whose images are signed, as a server's are."""
    signer = Signer.from_settings(SigningSettings(), folder / "keys")
    return studio(folder, GenerationHooks(partial(embed_provenance, signer=signer)))


def test_sheets_have_settings_xmp_and_signature_as_every_image(tmp_path):
    handlers = signed_studio(tmp_path)
    *_, (_, _, grid) = handlers.draw_grid(values(), "steps", "1, 2", "prompt", "a fox\na bear", "me")
    first, second = (item.name for item in handlers.gallery.items("fox"))
    _, pair = handlers.in_gallery.compare(first, second)
    for path, names, columns in ((grid, 4, "steps"), (pair, 2, None)):
        report = verify_image(path)
        assert report.is_valid, report.failure_message
        assert {one.check: one.state for one in report.findings} == dict.fromkeys(
            ("settings", "xmp", "c2pa"), "holds"
        )
        sheet = read_image_metadata(path).sheet
        assert sheet is not None and (sheet.columns and sheet.columns.setting) == columns
        assert len(set(sheet.files)) == len(sheet.images) == names
        for name, metadata in zip(sheet.files, sheet.images, strict=True):
            assert handlers.gallery.item(name).metadata == metadata


def test_a_grid_is_drawn_again_from_its_sheet(tmp_path):
    handlers = studio(tmp_path)
    axes = ("guidance", "1, 2.5", "prompt", "a fox\na bear, asleep")
    *_, (_, _, sheet) = handlers.draw_grid(values(is_seed_locked=False, steps=3), *axes, "me")
    changes, line = handlers.restore(sheet, values())
    assert words(line).endswith("The Grid page has the axes of this sheet.")
    again = handlers.restored_axes(sheet)
    assert again == ["guidance", "1.0, 2.5", "prompt", "a fox\na bear, asleep"]
    *_, (_, _, second) = handlers.draw_grid([changes[name] for name in FORM_FIELDS], *again, "me")
    requests = handlers.engine.requests
    assert requests[:4] == requests[4:] and len(requests) == 8
    with Image.open(sheet) as one, Image.open(second) as other:
        assert one.tobytes() == other.tobytes()
    assert handlers.restored_axes(handlers.gallery.items()[0].path) == []


def test_an_image_that_is_deleted_while_its_grid_is_drawn_leaves_its_place_empty(tmp_path):
    handlers = studio(tmp_path)
    for _, line, path in handlers.draw_grid(values(), "steps", "1, 2", "seed", "3", "me"):
        if "Done" in line and path is None:
            handlers.in_gallery.delete([handlers.gallery.items()[-1].name])
    assert path is not None and len(handlers.gallery.items()) == 1


def test_a_dropped_image_of_another_tool_fills_what_lens_has_and_names_the_rest(tmp_path):
    text = (
        "a fox <lora:ink:0.8>\nNegative prompt: fog\n"
        "Steps: 7, Sampler: Euler a, CFG scale: 2.5, Seed: 11, Size: 192x128, Clip skip: 2"
    )
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png", pnginfo=chunks)
    handlers = studio(tmp_path)
    chosen = values(model="lens-nano", solver="ab2", loras=[["ink", 1]], start=source_image())
    changes, line = handlers.restore(tmp_path / "other.png", chosen)
    assert "Not taken over: &lt;lora:ink:0.8&gt;, Sampler Euler a, Clip skip 2." in line
    list(handlers.draw([changes[name] for name in FORM_FIELDS], "me"))
    [request] = handlers.engine.requests
    assert (request.prompt, request.negative_prompt, request.seed) == ("a fox", "fog", 11)
    assert (request.width, request.height, request.steps, request.guidance) == (192, 128, 7, 2.5)
    assert (request.model, request.solver) == ("lens-nano", "ab2")
    assert request.loras == () and request.image is None


def test_snippets_of_values_that_cannot_be_used_are_the_error(tmp_path):
    handlers = studio(tmp_path)
    assert "/v1/images/generations" in handlers.code_snippets(values(), "http://h/")[0]
    assert handlers.code_snippets(values(size="5"), "http://h/")[1].startswith("# Exact size is")


def test_a_tile_acts_on_its_own_image_and_offers_nothing_where_there_is_none(tmp_path):
    handlers = studio(tmp_path, step_s=0.02)
    list(handlers.draw(values(prompt="an earlier bear"), "me"))
    last = None
    for view in handlers.draw(values(count=2, steps=50), "me"):
        last = view
        if "Step" in view.status_html:
            handlers.cancel(view.batch_id)
    assert last is not None and handlers.gallery.items()[0].name not in last.tiles_html
    buttons = re.findall("<button[^>]*>", last.tiles_html)
    assert len(buttons) == 2 * 5 and all(button.endswith(" disabled>") for button in buttons)
    views = list(handlers.draw(values(count=4), "me"))
    third = handlers.gallery.items()[1]
    tiles, line = handlers.toggle_favourite(third.name, views[-1].batch_id)
    assert handlers.gallery.favourites() == {third.name} and "added to the favourites" in line
    [pressed] = re.findall('<button[^>]*aria-pressed="true"[^>]*>', tiles)
    assert f'data-name="{third.name}"' in pressed
    handlers.gallery.delete(third.name)
    assert 'role="alert"' in handlers.toggle_favourite(third.name, None)[1]


def test_settings_that_a_browser_kept_come_back_without_those_that_the_server_lost(tmp_path):
    handlers = studio(tmp_path)
    kept = {name: value for name, value in GIVEN.items() if value is not None and name != "loras"}
    kept |= {"prompt": "a kept fox", "is_seed_locked": False, "steps": 7, "cache": "none"}
    kept |= {"loras": {"headers": ["LoRA", "Weight"], "data": [["ink", 0.3], ["gone", 1]]}}
    source = handlers.keep_source(source_image((8, 8, 20, 20)))
    changes = handlers.kept_values(kept, source)
    assert {name: changes[name] for name in kept} == kept | {"loras": [["ink", 0.3]]}
    image, mask = image_and_mask(changes["start"])
    assert image.size == (64, 48) and mask.getbbox() == (8, 8, 20, 20)
    lost = {"model": "gone", "base_resolution": 7, "solver": "magic", "aspect_ratio": "5:1", "prompt": ["x"]}
    assert handlers.kept_values(lost, ["0", "1"]) == {} == handlers.kept_values(None, None)


def test_the_page_has_no_telemetry_and_no_web_fonts_and_labels_every_control(tmp_path):
    from lens.serve.studio.app import create_studio
    from lens.serve.studio.theme import theme

    page = create_studio(service_of(), Gallery(tmp_path))
    assert not page.analytics_enabled and theme()._stylesheets == []
    kinds = {"textbox", "number", "slider", "radio", "dropdown", "image", "imageeditor", "file", "dataframe"}
    controls = [block for block in page.blocks.values() if block.get_block_name() in kinds]
    assert len(controls) >= 20 and [control for control in controls if not control.label] == []


def test_the_choices_of_the_page_are_those_of_the_solver_table_and_the_settings(tmp_path):
    from lens.serve.studio.app import create_studio

    page = create_studio(service_of(settings={"engine": {"max_steps": 77}}), Gallery(tmp_path))
    controls = {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}
    assert controls["solver"].choices == [(solver.label, name) for name, solver in SOLVERS.items()]
    names = [("none", "none"), ("first-block", "first-block"), ("taylorseer", "taylorseer")]
    assert controls["cache"].choices == names and controls["cache"].value == "none"
    assert cache_choices("taylorseer") == [("taylorseer, from 12 steps on", ""), *names]
    assert controls["steps"].maximum == 77 and controls["strength"].value == 0.6


def test_without_gradio_the_extra_is_named():
    script = (
        "import sys; sys.modules['gradio'] = None\n"
        "from lens.errors import LensError\nfrom lens.serve.studio.app import import_gradio\n"
        "try: import_gradio()\nexcept LensError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert 'pip install -c constraints.txt ".[serve]"' in done.stdout, done.stderr


