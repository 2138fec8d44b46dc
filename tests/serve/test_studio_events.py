"""What pressing things in the studio does, without a page: values in, values out, a fake drawer behind."""

import re
import subprocess
import sys
import time
import zipfile

import pytest
from fake_engine import FakeEngine, color
from PIL import Image

from lens.errors import LensError
from lens.serve.api.generation import GenerationHooks
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import FORM_FIELDS, StudioHandlers, editor_value, image_and_mask, parse_loras
from lens.serve.studio.html import error_line

GIVEN = {
    "prompt": "two foxes", "model": "lens-nano-turbo", "aspect_ratio": "1:1", "base_resolution": 128,
    "seed": 5, "is_seed_locked": True, "count": 1, "steps": 4, "guidance": 1.0, "negative_prompt": "",
    "solver": "euler", "size": "", "loras": [], "start": None, "strength": 0.6,
}  # fmt: skip


def values(**changes):
    return [(GIVEN | changes)[name] for name in FORM_FIELDS]


def studio(tmp_path, hooks=None, **drawer):
    return StudioHandlers(FakeEngine(**drawer), Gallery(tmp_path / "gallery"), hooks or GenerationHooks())


def words(html):
    return re.sub(r"<[^>]+>", " ", html).strip()


def until(claim, limit_s=5.0):
    ends_at = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.01)


def test_a_picture_is_told_of_step_by_step_and_kept(tmp_path):
    events = studio(tmp_path, step_s=0.12)
    screens = list(events.draw(values(), "me"))
    told = [words(screen.status_html) for screen in screens]
    assert any(re.match(r"Step [1-3] of 4, less than a second left", line) for line in told), told
    assert told[-1] == "Done: 1 picture." and screens[-1].is_finished
    assert any('data-state="preview"' in screen.tiles_html for screen in screens)
    [kept] = events.gallery.items()
    assert screens[-1].last_item == kept.name and kept.metadata.seed == 5
    assert Image.open(kept.path).getpixel((0, 0)) == color("two foxes", 5)
    assert events.engine.requests[0].caller == "me" and events.engine.requests[0].previews == 3
    [remembered] = events.batches.find(screens[-1].batch_id).images
    assert max(remembered.size) == 64, "pictures are remembered small, as they are on disk"


def test_several_pictures_wait_and_say_how_many_go_before(tmp_path):
    events = studio(tmp_path, step_s=0.05)
    busy = events.batches.start(_requests(events, 2), None)
    until(lambda: len(events.engine.requests) == 2)
    screens = list(events.draw(values(count=3), "me"))
    assert any("In the queue, 1 before it" in screen.status_html for screen in screens)
    assert any(", picture 2 of 3" in screen.status_html for screen in screens)
    assert [kept.metadata.seed for kept in events.gallery.items()] == [7, 6, 5] and busy.is_finished


def _requests(events, count):
    from lens.serve.studio.form import generation_requests

    return generation_requests(events.form(values(count=count)), "other")


def test_cancelling_stops_what_is_drawn_and_what_waits(tmp_path):
    events = studio(tmp_path, step_s=0.1)
    screens = []
    for screen in events.draw(values(count=3, steps=50), "me"):
        screens.append(screen)
        if "Step" in screen.status_html:
            events.cancel(screen.batch_id)
    assert words(screens[-1].status) == "Cancelled; 0 of 3 done."
    assert screens[-1].tiles.count("Cancelled") == 3
    assert events.gallery.items() == []
    events.cancel(None)
    events.cancel("unknown")


def test_a_batch_outlives_the_page_that_asked_for_it_and_another_watches_it(tmp_path):
    events = studio(tmp_path, step_s=0.05)
    page = events.draw(values(count=2), "me")
    name = next(page).batch_id
    page.close()
    screens = list(events.watch(name))
    assert words(screens[-1].status_html) == "Done: 2 pictures." and len(events.gallery.items()) == 2
    assert list(events.watch("unknown")) == [] and list(events.watch(None)) == []


def test_a_queue_without_room_is_fed_as_room_appears(tmp_path):
    events = studio(tmp_path, max_open=2, step_s=0.01)
    screens = list(events.draw(values(count=9), "me"))
    assert words(screens[-1].status_html) == "Done: 9 pictures." and len(events.engine.requests) == 9


def test_a_queue_that_others_fill_is_told(tmp_path):
    [screen] = [one for one in studio(tmp_path, max_open=0).draw(values(), "me") if one.is_finished]
    assert "The queue is full" in screen.status_html and 'role="alert"' in screen.status_html


@pytest.mark.parametrize(
    "changes", [{"prompt": " "}, {"steps": "x"}, {"size": "5"}, {"loras": [["ink", "much"]]}]
)
def test_what_cannot_be_drawn_is_told_and_nothing_asked_for(tmp_path, changes):
    events = studio(tmp_path)
    [screen] = events.draw(values(**changes), "me")
    assert 'role="alert"' in screen.status_html and screen.is_finished and events.engine.requests == []


def test_what_the_engine_refuses_is_told_and_faults_keep_their_insides(tmp_path, caplog):
    events = studio(tmp_path)
    assert "another word" in list(events.draw(values(prompt="refuse this"), "me"))[-1].status_html
    last = list(events.draw(values(prompt="fail"), "me"))[-1]
    assert "secret" not in last.status_html and "log says what" in last.status_html
    assert any("secret of the inside" in str(record.exc_info) for record in caplog.records)


def test_words_are_escaped_wherever_they_are_shown(tmp_path):
    events = studio(tmp_path)
    evil = "<script>alert(1)</script>\" onerror='x'"
    last = list(events.draw(values(prompt=evil, negative_prompt=evil), "me"))[-1]
    kept = events.find_item(last.last_item)
    from lens.serve.studio import html as html

    compared = html.comparison(kept, kept, [("prompt", evil, evil)])
    listing, told = events.search_gallery("", False), error_line(LensError(evil))
    for text in (last.tiles_html, listing, html.image_detail(kept), compared, told):
        assert "<script" not in text and "&lt;script" in text and '" onerror' not in text


def test_the_operators_hooks_are_asked_about_words_and_pictures(tmp_path):
    def no_words(text, caller):
        if "bad" in text:
            raise LensError("These words are refused.")

    def no_pictures(image, caller):
        if image.width == 192:
            raise LensError("This picture is refused.")

    events = studio(tmp_path, GenerationHooks(check_prompt=no_words, check_image=no_pictures))
    refused = list(events.draw(values(negative_prompt="bad", guidance=2.0), "me"))
    assert "These words are refused." in refused[-1].status_html and events.engine.requests == []
    screens = list(events.draw(values(base_resolution=192), "me"))
    assert "This picture is refused." in screens[-1].status_html and events.gallery.items() == []
    assert not any("preview" in screen.tiles_html for screen in screens)
    grid = list(events.draw_grid(values(prompt="bad"), "steps", "1", "seed", "1", "me"))
    assert "These words are refused." in grid[-1][1]


def test_enhancing_gives_words_to_change_or_says_why_not(tmp_path):
    def enhance(prompt):
        if prompt == "no":
            raise LensError("declined")
        return f"{prompt}, in the rain"

    events = studio(tmp_path, GenerationHooks(enhance_prompt=enhance))
    assert events.enhance("a fox")[0] == "a fox, in the rain"
    assert events.enhance("no")[0] == "no" and "declined" in events.enhance("no")[1]
    assert 'role="alert"' in events.enhance(" ")[1]
    assert studio(tmp_path).enhance("a fox")[0] == "a fox"


def test_a_dropped_picture_sets_every_control_so_that_drawing_it_gives_the_same(tmp_path):
    events = studio(tmp_path)
    painted = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    painted.paste((255, 255, 255, 255), (8, 8, 20, 20))
    start = {"background": Image.new("RGBA", (64, 48), "red"), "layers": [painted], "composite": None}
    chosen = values(
        model="lens-nano", aspect_ratio="16:9", base_resolution=192, steps=7, guidance=3.0, solver="ab2",
        negative_prompt="fog", loras=[["ink", 0.4]], start=start, strength=0.3,
    )  # fmt: skip
    list(events.draw(chosen, "me"))
    changes, line = events.restore(events.gallery.items()[0].path, values())
    assert words(line) == "Settings restored; the seed is locked."
    assert set(changes) == set(FORM_FIELDS)
    list(events.draw([changes[name] for name in FORM_FIELDS], "me"))
    first, second = events.engine.requests
    assert first == second and first.mask is not None and first.strength == 0.3


def test_a_dropped_file_without_settings_changes_nothing_and_does_not_tell_folders(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("plain.png", "text.png"):
        changes, line = studio(tmp_path).restore(tmp_path / name, values())
        assert changes == {} and 'role="alert"' in line and str(tmp_path) not in line


def test_what_is_painted_is_the_mask_and_comes_back(tmp_path):
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


def test_a_table_of_loras_leaves_empty_rows_out():
    assert [(lora.name, lora.weight) for lora in parse_loras([["ink", ""], ["", 1], ["oil", "0.5"], []])] == [
        ("ink", 1.0), ("oil", 0.5)
    ]  # fmt: skip


def test_a_grid_is_drawn_as_one_sheet_and_its_cells_are_not_kept(tmp_path):
    events = studio(tmp_path)
    told = list(events.draw_grid(values(is_seed_locked=False), "steps", "1..3", "guidance", "1, 2", "me"))
    _, line, path = told[-1]
    assert words(line) == "Done: 6 pictures." and path.parent == events.gallery.folder / "sheets"
    assert sorted((one.steps, one.guidance) for one in events.engine.requests) == [
        (steps, guidance) for steps in (1, 2, 3) for guidance in (1.0, 2.0)
    ]
    assert len({one.seed for one in events.engine.requests}) == 1 and events.gallery.items() == []
    assert Image.open(path).width > 3 * 128
    assert "another setting" in list(events.draw_grid(values(), "seed", "1", "seed", "2", "me"))[-1][1]


def test_the_gallery_is_searched_marked_deleted_compared_and_packed(tmp_path):
    events = studio(tmp_path)
    for prompt in ("a fox", "a bear"):
        list(events.draw(values(prompt=prompt), "me"))
    fox, bear = (events.gallery.items(prompt)[0].name for prompt in ("fox", "bear"))
    assert "2 pictures" in events.search_gallery("", False) and "1 picture<" in events.search_gallery(
        "fox", False
    )
    events.toggle_favourite(fox)
    assert "favourite" in events.search_gallery("", True) and bear not in events.search_gallery("", True)
    with zipfile.ZipFile(events.export_zip("", True)) as packed:
        assert packed.namelist() == [fox]
    text, sheet = events.compare(fox, bear)
    assert "a bear" in text and Image.open(sheet).width > 256
    assert "Choose B" in events.compare(fox, None)[0]
    events.toggle_favourite(fox)
    events.delete(fox)
    events.delete(fox)
    events.delete("../../x.png")
    events.toggle_favourite(None)
    assert events.export_zip("", True) is None and events.find_item(fox) is None
    assert "1 picture<" in events.search_gallery("", False)


def test_code_of_wrong_choices_says_what_is_wrong(tmp_path):
    events = studio(tmp_path)
    assert "/v1/images/generations" in events.code_snippets(values(), "http://h/")[0]
    assert events.code_snippets(values(size="5"), "http://h/")[1].startswith("# size is")


def test_the_page_reports_nothing_takes_the_machines_letters_and_names_every_control(tmp_path):
    from lens.serve.studio.app import create_studio as page_of
    from lens.serve.studio.theme import theme

    page = page_of(FakeEngine(), Gallery(tmp_path))
    assert not page.analytics_enabled and theme()._stylesheets == []
    kinds = {"textbox", "number", "slider", "radio", "dropdown", "image", "imageeditor", "file", "dataframe"}
    controls = [block for block in page.blocks.values() if block.get_block_name() in kinds]
    assert len(controls) >= 20 and [control for control in controls if not control.label] == []


def test_without_gradio_the_extra_is_named():
    script = (
        "import sys; sys.modules['gradio'] = None\n"
        "from lens.errors import LensError\nfrom lens.serve.studio.app import studio\n"
        "try: studio(None, None)\nexcept LensError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert 'pip install -c constraints.txt ".[serve]"' in done.stdout, done.stderr


