"""The studio in a real Chromium, with a fake engine, then with the engine itself.

LENS_SCREENSHOTS=1 writes the screenshots of the documentation.
"""

import os
import threading
from pathlib import Path

import pytest
from browser import DESKTOP, DONE, NOT_TESTED, PHONE, PREVIEW, app_of, chromium, draw, open_tab, served
from fake_engine import image_metadata
from PIL import Image

from lens.sampling.image_metadata import encode_image_file, read_image_metadata
from lens.serve.engine.request import GenerationRequest
from lens.serve.studio.gallery import Gallery

pytestmark = pytest.mark.skipif(chromium() is None, reason=NOT_TESTED)
SCREENSHOTS = Path(__file__).parents[2] / "docs" / "pictures"


def test_shortcuts_draw_a_prompt_with_previews_and_time_left_and_a_reload_keeps_it(
    page, site, monkeypatch
):
    _, engine, gallery = site
    monkeypatch.setattr(engine, "step_s", 0.7)
    page.get_by_label("16:9").check()
    page.fill("#prompt textarea", "two red apples")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(PREVIEW)
    page.wait_for_selector(r"#status >> text=/Step \d of 4, .*left/")
    page.wait_for_selector(DONE)
    assert page.evaluate(f"document.querySelector('{DONE}').naturalWidth") == 176
    assert (engine.requests[-1].width, engine.requests[-1].height) == (176, 96)
    assert page.locator(DONE).get_attribute("alt") == "Image 1: two red apples"
    page.reload()
    page.wait_for_selector(DONE)
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'two red apples'")
    open_tab(page, "Gallery")
    page.get_by_title("two red apples").click()
    page.wait_for_selector("#detail >> text=176 x 96")
    assert gallery.items()[0].metadata.prompt == "two red apples"


def test_escape_cancels_images_in_progress_and_in_the_queue(page, site):
    page.fill("#prompt textarea", "a slow bear")
    page.fill("#count input", "4")
    page.get_by_label("Base - 20 steps").check()
    page.click("#draw")
    page.wait_for_selector("#status >> text=image 1 of 4")
    page.keyboard.press("Escape")
    page.wait_for_selector("#status >> text=Cancelled: 0 of 4 images done.")
    assert site[2].items("slow bear") == []
    asked = site[1].requests[-1]
    assert (asked.model, asked.steps, asked.guidance) == ("lens-nano-base", 20, 2.0)


def test_a_reload_during_generation_loses_nothing(page, site):
    page.fill("#prompt textarea", "a patient fox")
    page.get_by_label("Lens - 20 steps").check()
    page.click("#draw")
    page.wait_for_selector("#status >> text=/Step [1-9]/")
    page.reload()
    page.wait_for_selector(DONE)
    assert len(site[2].items("patient fox")) == 1


def test_gallery_images_are_searched_favoured_compared_exported_and_deleted(page, site):
    for prompt in ("a green hat", "a green boat"):
        draw(page, prompt)
    open_tab(page, "Gallery")
    page.fill("#search textarea, #search input", "green")
    page.wait_for_selector("#gallery >> text=2 images")
    for prompt, letter in (("a green hat", "A"), ("a green boat", "B")):
        page.get_by_title(prompt).click()
        page.wait_for_selector(f"#detail >> text={prompt}")
        page.get_by_role("button", name=f"Compare as {letter}").click()
        page.wait_for_selector(f"#detail >> text=Selected as image {letter}")
        page.keyboard.press("Escape")
    page.get_by_label("Select: a green hat").check()
    page.get_by_label("Selected images").get_by_text("Favourite").click()
    page.wait_for_selector("#gallery b")
    open_tab(page, "Compare")
    page.wait_for_selector(".lens-ab")
    assert "a green hat" in page.inner_text(".lens-table")
    open_tab(page, "Gallery")
    page.get_by_label("Favourites only").check()
    page.wait_for_selector("#gallery >> text=1 image")
    page.click("#pack")
    page.wait_for_selector("#packed")
    with page.expect_download() as download:
        page.click("#packed")
    assert Path(download.value.path()).read_bytes()[:2] == b"PK"
    page.get_by_label("Favourites only").uncheck()
    page.wait_for_selector("#gallery >> text=2 images")
    replies = iter(("dismiss", "accept"))  # a question may come after its click returned
    page.on("dialog", lambda dialog: getattr(dialog, next(replies))())
    page.get_by_title("a green boat").click()
    page.click("#detail .lens-delete")
    page.click("#detail .lens-delete")
    page.wait_for_selector("#detail >> text=The image was deleted.")
    page.wait_for_selector('#detail dialog[data-name*="green-hat"]')
    assert [item.metadata.prompt for item in site[2].items("green")] == ["a green hat"]


def test_a_dropped_image_restores_its_settings(page, site, tmp_path):
    request = GenerationRequest("lens-nano-base", "an old ship", 77, 192, 384, 9, 23.5, "fog", solver="ab2")
    with (tmp_path / "ship.webp").open("wb") as file:
        encode_image_file(Image.new("RGB", (384, 192), "blue"), image_metadata(request), "webp", file)
    page.set_input_files("#restore input[type=file]", tmp_path / "ship.webp")
    page.wait_for_selector("#status >> text=Settings restored")
    assert page.input_value("#prompt textarea") == "an old ship"
    assert page.input_value("#seed input") == "77" and page.is_checked("#lock input")
    page.click("#draw")
    page.wait_for_selector(DONE)
    asked = site[1].requests[-1]
    assert (asked.model, asked.seed, asked.width, asked.height) == ("lens-nano-base", 77, 384, 192)
    assert (asked.steps, asked.guidance, asked.negative_prompt, asked.solver) == (9, 23.5, "fog", "ab2")


def test_a_source_image_a_mask_and_a_weighted_lora_are_used(page, site):
    draw(page, "a start")
    page.click("#stage >> text=Use as source")
    page.wait_for_selector("#status >> text=source image now")
    page.wait_for_selector("#start canvas")
    page.click("#loras input")
    page.get_by_role("option", name="ink").click()
    page.wait_for_function("document.querySelector('#lora-weights')?.innerText.includes('ink')")
    draw(page, "a goal")
    asked = site[1].requests[-1]
    assert asked.prompt == "a goal" and asked.image is not None and asked.mask is None
    assert asked.strength == 0.6
    page.locator("#start canvas").last.scroll_into_view_if_needed()
    box = page.locator("#start canvas").last.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.45)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.55, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    draw(page, "a painted goal")
    asked = site[1].requests[-1]
    share = sum(value > 0 for value in Image.open(asked.mask).getdata()) / 128**2
    assert 0.001 < share < 0.5
    assert [(lora.name, lora.weight) for lora in asked.loras] == [("ink", 1.0)]
    assert asked.strength == 1.0
    page.wait_for_function("document.querySelector('#strength input[type=number]').value == '1'")
    page.fill("#strength input[type=number]", "0.5")
    page.keyboard.press("Tab")
    draw(page, "a goal of half the strength")
    assert site[1].requests[-1].strength == 0.5


def test_the_seed_is_locked_and_reused(page, site):
    draw(page, "one")
    page.click("#stage >> text=Reuse seed")
    page.wait_for_function("document.querySelector('#lock input').checked")
    draw(page, "two")
    assert site[1].requests[-1].seed == site[1].requests[-2].seed


def test_larger_draws_a_tile_again_at_twice_its_size(page, site):
    draw(page, "a fox")
    num_asked = len(site[1].requests)
    page.click("#stage >> text=Larger")
    page.wait_for_function("document.querySelector('#stage img')?.naturalWidth == 256")
    first, larger = site[1].requests[num_asked - 1 : num_asked + 1]
    assert (larger.seed, larger.width, larger.upscale) == (first.seed, 2 * first.width, 2.0)


def test_an_enhanced_prompt_is_shown_beside_the_original_and_can_be_edited(page):
    page.fill("#prompt textarea", "a fox")
    page.click("#enhance")
    page.wait_for_function("document.querySelector('#after textarea')?.value == 'a fox, in the rain'")
    assert page.input_value("#before textarea") == "a fox"
    page.fill("#after textarea", "a fox in snow")
    page.click("#use-enhanced")
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'a fox in snow'")


def test_the_reasoner_can_be_stopped_and_the_prompt_stays(page):
    for stop in (lambda: page.click("#stop-enhancing"), lambda: page.keyboard.press("Escape")):
        page.fill("#prompt textarea", "an endless fox")
        page.click("#enhance")
        page.wait_for_selector("#enhance-line >> text=The reasoner is asked")
        page.wait_for_selector("#stop-enhancing:enabled")
        stop()
        page.wait_for_selector("#enhance-line >> text=Stopped")
        assert page.input_value("#prompt textarea") == "an endless fox"


def test_a_grid_becomes_a_contact_sheet_that_restores_it_and_snippets_can_be_copied(page, tmp_path):
    page.fill("#prompt textarea", "a lemon")
    page.click("#copy-python")
    page.wait_for_selector("#python >> text=client.images.generate")
    page.click("#copy-curl")
    page.wait_for_selector("#curl >> text=v1/images/generations")
    open_tab(page, "Grid")
    page.fill("#x-values textarea", "1, 2")
    page.fill("#y-values textarea", "1..2")
    page.click("#draw-grid")
    page.wait_for_selector("#grid-status >> text=Done: 4 images.")
    page.wait_for_selector("#sheet img")
    downloaded = tmp_path / "sheet.png"
    downloaded.write_bytes(page.request.get(page.locator("#sheet img").get_attribute("src")).body())
    sheet = read_image_metadata(downloaded).sheet
    assert sheet is not None and len(sheet.files) == 4
    page.fill("#x-values textarea", "7")
    page.locator("#x input").fill("seed")
    open_tab(page, "Draw")
    page.set_input_files("#restore input[type=file]", downloaded)
    page.wait_for_selector("#status >> text=The Grid page has the axes of this sheet.")
    open_tab(page, "Grid")
    page.wait_for_function("document.querySelector('#x-values textarea').value == '1.0, 2.0'")
    assert page.input_value("#x input") == "guidance"
    assert page.input_value("#y-values textarea") == "1, 2"


def test_every_control_has_an_accessible_name_and_the_notice_is_shown(page):
    for role, name in (
        ("textbox", "Prompt"), ("radio", "16:9"), ("radio", "Turbo - 4 steps"), ("checkbox", "Lock seed"),
        ("spinbutton", "Seed"), ("spinbutton", "Images"), ("button", "Draw"), ("tab", "Gallery"),
        ("button", "Toggle dark mode"),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name).count() >= 1, (role, name)
    assert page.get_by_role("status").count() >= 1
    assert "not for unattended production" in page.inner_text("footer.lens-notice")
    assert page.locator("footer:visible").count() == 1, "the footer of the studio alone"
    nameless = page.evaluate(
        "[...document.querySelectorAll('#draw-columns button')].filter(b => b.offsetParent"
        " && !(b.innerText.trim() || b.ariaLabel || b.title)).map(b => b.outerHTML)"
    )
    assert nameless == []


def test_the_nano_model_generates_images_in_the_studio(browser, tmp_path):
    """The engine itself behind the page; the screenshots of the documentation are made here."""
    from lens.serve.engine.engine import Engine
    from lens.serve.engine.model_registry import ModelRegistry
    from lens.serve.settings.engine import EngineSettings

    names = ("lens-nano-turbo", "lens-nano", "lens-nano-base")
    engine = Engine(ModelRegistry.from_names(names), EngineSettings(threads=1, loads_at_start=False))
    prompt = "two red apples to the left of a fox, on a blue background"
    other = "a fox above three lemons, on a green background"
    threads = threading.active_count()
    try:
        with served(app_of(tmp_path / "gallery", engine)) as address:
            context = browser.new_context(viewport=DESKTOP, color_scheme="light")
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(address)
            page.wait_for_selector("#draw")
            assert page.locator("#enhance").count() == 0, "no language model is configured"
            draw(page, other)
            page.fill("#prompt textarea", prompt)
            page.fill("#count input", "4")
            page.click("#draw")
            page.wait_for_function(f"document.querySelectorAll('{DONE}').length == 4")
            screenshot(page, "studio_desktop.png")
            page.set_viewport_size(PHONE)
            screenshot(page, "studio_phone.png", full_page=True)
            page.set_viewport_size(DESKTOP)
            page.click("#dark")
            open_tab(page, "Gallery")
            page.locator(".lens-item").first.click()
            page.wait_for_selector("#detail >> text=lens-nano-turbo")
            screenshot(page, "studio_dark.png")
            context.close()
    finally:
        engine.drain(10)
    items = Gallery(tmp_path / "gallery").items()
    assert [one.metadata.prompt for one in items] == [prompt] * 4 + [other] and items[0].metadata.model_hash
    assert len({Image.open(one.path).convert("RGB").tobytes() for one in items}) == 5
    assert threading.active_count() < threads + 20


def screenshot(page, name, full_page=False):
    if os.environ.get("LENS_SCREENSHOTS") != "1":
        return
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    path = SCREENSHOTS / name
    page.screenshot(path=path, full_page=full_page)
    shot = Image.open(path).convert("RGB")
    shot.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 200_000
