"""The studio's pages in a real Chromium: phones, keyboards, reloads, the history, errors, accessibility."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import DESKTOP, DONE, NOT_TESTED, PHONE, chromium, draw, new_page, open_tab
from fake_engine import image_metadata, render

from lens.sampling.image_metadata import encode_image_file
from lens.serve.engine.request import GenerationRequest
from lens.serve.studio import gallery_handlers

pytestmark = pytest.mark.skipif(chromium() is None, reason=NOT_TESTED)
PAGES = ("Draw", "Gallery", "Compare", "Grid")
BOX = "element => { const box = element.getBoundingClientRect(); return [box.top, box.bottom]; }"
SMALL_TARGETS = """() => {
  const own = (element) => element.closest("label:has(input[type=radio], input[type=checkbox])") ?? element;
  const controls = [...document.querySelectorAll("button, a[href], input, textarea, select, [role=tab]")];
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true });
  const isHidden = (element) => element.type === "file" || element.closest("[inert], [aria-hidden=true]");
  return controls.filter((element) => isShown(element) && !isHidden(element))
    .map((element) => [own(element).getBoundingClientRect(), element.outerHTML.slice(0, 120)])
    .filter(([box]) => box.width && Math.min(box.width, box.height) < 43.5)
    .map(([box, html]) => `${box.width} x ${box.height}: ${html}`);
}"""
CONTRAST = """([selector, pseudo]) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => parse(color).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const element = document.querySelector(selector);
  let ground = element;
  while (parse(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const both = [getComputedStyle(element, pseudo).color, getComputedStyle(ground).backgroundColor].map(light);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""

OUTLINE_PX = """() => {
  const places = [document.activeElement, document.activeElement.closest("label")].filter(Boolean);
  const styles = places.map((place) => getComputedStyle(place));
  const width = (style) => style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
  return Math.max(...styles.map(width));
}"""


def fill_gallery(gallery, count, word):
    """Copy images into the gallery; their names make them the oldest."""
    gallery.folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        request = GenerationRequest("lens-nano", f"{word} {number}", number, 128, 128, 4, 1.0)
        with (gallery.folder / f"0-{word}-{number:03}.png").open("wb") as file:
            encode_image_file(render(request), image_metadata(request), "png", file)


def focused(page):
    return page.evaluate("document.activeElement.id || document.activeElement.dataset.name || ''")


def is_in_view(page, selector, bottom=0):
    top, lower = page.locator(selector).first.evaluate(BOX)
    return top >= -1 and lower <= page.viewport_size["height"] - bottom + 1


def test_on_a_phone_the_image_and_the_status_line_are_in_view_after_draw(browser, site):
    page = new_page(browser, site[0], viewport=PHONE, has_touch=True)
    assert is_in_view(page, "#draw") and is_in_view(page, "#status")
    page.fill("#prompt textarea", "a small fox")
    page.tap("#draw")
    page.wait_for_selector(DONE)
    bar = page.locator("#actions").bounding_box()
    assert is_in_view(page, DONE, bottom=bar["height"]), "the image is above the bar"
    assert is_in_view(page, "#status") and "Done" in page.inner_text("#status")
    assert abs(bar["y"] + bar["height"] - PHONE["height"]) < 2, "the bar stays at the lower edge"
    page.context.close()


def test_on_a_phone_every_page_fits_and_every_target_has_44_pixels(browser, site):
    page = new_page(browser, site[0], viewport=PHONE, has_touch=True)
    draw(page, "a small fox")
    page.click("#advanced > button")
    small = {}
    for name in PAGES:
        open_tab(page, name)
        page.wait_for_timeout(150)
        small[name] = page.evaluate(SMALL_TARGETS)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
    open_tab(page, "Gallery")
    page.locator("#gallery .lens-item").first.click()
    page.wait_for_selector("dialog:modal")
    small["dialog"] = page.evaluate(SMALL_TARGETS)
    assert {name: found for name, found in small.items() if found} == {}
    page.context.close()


def test_dark_mode_is_remembered(browser, site):
    page = new_page(browser, site[0], viewport=PHONE)
    assert page.locator("body.dark").count() == 0
    page.click("#dark")
    page.reload()
    page.wait_for_selector("body.dark #draw")
    page.context.close()


def test_a_lower_image_opens_in_a_dialog_in_view_and_closes_where_it_was_opened(page, site, monkeypatch):
    monkeypatch.setattr(gallery_handlers, "PAGE_SIZE", 24)
    fill_gallery(site[2], 40, "stone")
    open_tab(page, "Gallery")
    page.fill("#search textarea, #search input", "stone")
    page.wait_for_selector("#gallery >> text=40 images, page 1 of 2")
    lowest = page.locator("#gallery .lens-item").last
    lowest.click()
    page.wait_for_selector("dialog:modal")
    scrolled = page.evaluate("scrollY")
    assert is_in_view(page, "dialog img") and is_in_view(page, "dialog >> text=Download")
    assert page.locator("dialog >> text=24 of 40").count() == 1
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("dialog >> text=25 of 40")
    page.wait_for_selector("#gallery >> text=page 2 of 2")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#gallery >> text=page 1 of 2")
    page.wait_for_selector("dialog >> text=24 of 40")
    with page.expect_download() as download:
        page.click("dialog >> text=Download")
    assert download.value.suggested_filename == "0-stone-016.png"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.wait_for_function("!history.state?.lensViewer")
    page.wait_for_function("document.activeElement.dataset.name === '0-stone-016.png'")
    assert page.evaluate("scrollY") == scrolled
    lowest.click()
    page.wait_for_selector("dialog:modal")
    page.go_back()
    page.wait_for_selector("dialog", state="detached")
    assert page.url.endswith("#gallery")
    page.get_by_role("button", name="Older").click()
    page.wait_for_selector("#gallery >> text=page 2 of 2")
    assert page.locator("#gallery .lens-item").count() == 16


def test_several_images_are_selected_and_a_selection_does_not_slip_to_others(page, site):
    fill_gallery(site[2], 5, "pebble")
    open_tab(page, "Gallery")
    page.fill("#search textarea, #search input", "pebble")
    page.wait_for_selector("#gallery >> text=5 images")
    bar = page.get_by_label("Selected images")
    assert all(bar.get_by_text(text, exact=True).is_disabled() for text in ("Favourite", "ZIP", "Delete"))
    for number in (4, 2):
        page.get_by_label(f"Select: pebble {number}").check()
    page.wait_for_selector("#gallery >> text=2 selected")
    bar.get_by_text("Favourite").click()
    page.wait_for_function("document.querySelectorAll('#gallery .lens-grid b').length == 2")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Select: pebble 2").uncheck()
    bar.get_by_text("Delete").click()
    page.wait_for_selector("#gallery >> text=4 images")
    assert page.locator("#gallery input:checked").count() == 0
    bar.get_by_text("Select all").click()
    page.wait_for_selector("#gallery >> text=4 selected")
    bar.get_by_text("ZIP").click()
    page.wait_for_selector("#gallery-line >> text=4 images is ready")
    assert len(site[2].items("pebble")) == 4


def test_a_tile_acts_on_its_image_and_a_cancelled_batch_offers_nothing(page, site):
    page.fill("#prompt textarea", "a star of four")
    page.fill("#count input", "4")
    page.click("#draw")
    page.wait_for_function(f"document.querySelectorAll('{DONE}').length == 4")
    page.locator("#stage >> text=Favourite").nth(2).click()
    page.wait_for_selector("#status >> text=added to the favourites")
    assert page.locator("#stage [aria-pressed=true]").count() == 1
    [starred] = [item for item in site[2].items("star of four") if item.is_favourite]
    assert starred.metadata.seed == site[1].requests[-2].seed
    page.fill("#prompt textarea", "a slow star")
    page.get_by_label("Base - 20 steps").check()
    page.click("#draw")
    page.wait_for_selector("#status >> text=image 1 of 4")
    page.keyboard.press("Escape")
    page.wait_for_selector("#status >> text=Cancelled")
    assert page.locator("#stage button:enabled, #stage .lens-actions a").count() == 0


def test_a_reload_keeps_every_setting(page):
    page.fill("#prompt textarea", "a kept fox")
    page.get_by_label("3:2").check()
    page.get_by_label("Lens - 20 steps").check()
    page.fill("#count input", "3")
    page.get_by_label("Lock seed").check()
    page.click("#advanced > button")
    page.click("#base input")
    page.get_by_role("option", name="192").click()
    page.fill("#negative textarea, #negative input", "fog")
    page.fill("#guidance input[type=number]", "3.5")
    page.fill("#steps input[type=number]", "9")
    page.fill("#seed input", "1234567890123")
    page.fill("#size textarea, #size input", "208x144")
    page.keyboard.press("Tab")
    open_tab(page, "Grid")
    page.fill("#x-values textarea", "5, 6")
    read = """() => Object.fromEntries(['#prompt textarea', '#count input', '#seed input', '#base input',
      '#negative textarea, #negative input', '#guidance input[type=number]', '#steps input[type=number]',
      '#size textarea, #size input', '#x-values textarea', '#lock input', '#ratios input:checked',
      '#variant input:checked'].map((one) => { const e = document.querySelector(one);
      return [one, e.type === 'checkbox' ? e.checked : e.value]; }))"""
    before = page.evaluate(read)
    assert before["#seed input"] == "1234567890123" and before["#base input"] == "192"
    page.wait_for_timeout(300)
    page.reload()
    page.wait_for_function("window.lensKeeps")
    assert page.get_by_role("tab", name="Grid").get_attribute("aria-selected") == "true"
    open_tab(page, "Draw")
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'a kept fox'")
    page.click("#advanced > button")
    page.wait_for_selector("#size :is(textarea, input)")
    assert page.evaluate(read) == before


def test_shortcuts_act_on_the_page_that_is_shown(page, site):
    page.fill("#prompt textarea", "a shortcut")
    open_tab(page, "Gallery")
    num_before = len(site[1].requests)
    page.keyboard.press("Control+Enter")
    open_tab(page, "Grid")
    page.fill("#x-values textarea", "1, 2")
    page.fill("#y-values textarea", "20")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#grid-status >> text=/Step/")
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid-status >> text=Cancelled")
    assert {request.steps for request in site[1].requests[num_before:]} == {20}, "no image of the first page"
    assert page.locator("#cancel-grid").is_disabled()


def test_pages_are_entries_of_the_history(page, site):
    for name in ("Gallery", "Grid"):
        open_tab(page, name)
    assert page.url.endswith("#grid") and page.title() == "Grid - Lens"
    selected = "#pages [role=tab][aria-selected=true]"
    for name in ("Gallery", "Draw"):
        page.go_back()
        page.wait_for_selector(f"{selected} >> text={name}")
    page.go_forward()
    page.wait_for_selector(f"{selected} >> text=Gallery")
    page.goto(f"{site[0]}/#compare")
    page.wait_for_selector(f"{selected} >> text=Compare")


def test_draw_is_the_next_stop_after_the_prompt_and_focus_is_seen_everywhere(page):
    page.focus("#prompt textarea")
    stops = []
    for _ in range(3):
        page.keyboard.press("Tab")
        stops.append(focused(page))
    assert "draw" in stops
    for selector in ("#prompt textarea", "#ratios input", "#variant input", "#seed input", "#lock input"):
        page.focus(selector)
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert page.evaluate(OUTLINE_PX) >= 2, selector


@pytest.mark.parametrize("width", [1280, 1024, 390])
def test_a_seed_of_16_digits_fits_and_neighbours_have_one_height(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.fill("#seed input", "9007199254740981")
    assert page.evaluate("(() => { const e = document.querySelector('#seed input');"
                         " return e.scrollWidth <= e.clientWidth; })()")  # fmt: skip
    # At once, as the page may still move.
    base, count = page.evaluate("['#base', '#count'].map((one) =>"
                                " document.querySelector(one).getBoundingClientRect().toJSON())")  # fmt: skip
    assert abs(base["y"] - count["y"]) < 1 and abs(base["height"] - count["height"]) < 1
    assert abs(base["width"] - count["width"]) < 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_placeholders_have_enough_contrast(browser, site, scheme):
    page = new_page(browser, site[0], viewport=DESKTOP, color_scheme=scheme)
    page.click("#advanced > button")
    for selector in ("#prompt textarea", "#size :is(textarea, input)"):
        page.wait_for_selector(selector)
        assert page.evaluate(CONTRAST, [selector, "::placeholder"]) >= 4.5, selector
    page.context.close()


@pytest.mark.parametrize("scale", [1, 1.5])
def test_small_images_are_shown_at_whole_multiples_of_the_screens_pixels(browser, site, scale):
    page = new_page(browser, site[0], viewport=DESKTOP, device_scale_factor=scale)
    draw(page, "a crisp cube")
    shown = "(e) => [e.getBoundingClientRect().width, e.naturalWidth, getComputedStyle(e).imageRendering]"
    open_tab(page, "Gallery")
    page.locator("#gallery .lens-item").first.click()
    page.wait_for_selector("dialog:modal")
    sizes = [page.locator("dialog img").evaluate(shown)]
    page.keyboard.press("Escape")
    open_tab(page, "Draw")
    sizes.append(page.locator(DONE).first.evaluate(shown))
    for width, own, rendering in sizes:
        multiple = width * scale / own
        assert multiple >= 2 and abs(multiple - round(multiple)) < 0.01 and rendering == "pixelated"
    page.context.close()


@pytest.mark.parametrize(
    ("selector", "value", "says"),
    [
        ("#count input", "99", "Images is 99"),
        ("#seed input", "-5", "Seed is -5"),
        ("#steps input[type=number]", "1000000", "Steps is"),
        ("#guidance input[type=number]", "-3", "Guidance is"),
        ("#count input", "", "Images is ''"),
    ],
)
def test_a_number_out_of_range_is_named_in_the_status_line_and_is_no_traceback(
    page, site, capfd, selector, value, says
):
    draw(page, "a good fox")
    page.wait_for_selector("#status >> text=Done")
    num_before = len(site[1].requests)
    if not page.locator(selector).is_visible():
        page.click("#advanced > button")
    page.get_by_label("Lock seed").check()
    page.fill(selector, value)
    page.click("#draw")
    line = "document.querySelector('#status').innerText"
    page.wait_for_function(f"!{line}.includes('Done')")
    page.wait_for_function(f"document.querySelector('#status [role=alert]') || /Done|Step/.test({line})")
    line = page.inner_text("#status")
    if "Done" not in line and "Step" not in line:  # a slider may put the value into its range by itself
        assert says in line and len(site[1].requests) == num_before
    else:
        assert selector.startswith(("#steps", "#guidance"))
    assert "Traceback" not in capfd.readouterr().err


def test_a_range_with_too_many_values_is_told_with_the_limit(page):
    page.fill("#prompt textarea", "a lemon")
    open_tab(page, "Grid")
    page.fill("#x-values textarea", "1..100")
    page.click("#draw-grid")
    page.wait_for_selector("#grid-status >> text=at most 64 values; this range has 100")


def test_a_server_that_stops_with_a_page_open_ends_soon_and_quietly_and_the_page_tells(browser, tmp_path):
    command = [sys.executable, str(Path(__file__).parent / "studio_process.py"), str(tmp_path), "0.1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    try:
        first, second = process.stderr.readline(), process.stderr.readline()
        [address] = re.findall(r"^open (http://127\.0\.0\.1:\d+)/ in a browser", first)
        assert "test certificate" in second, "where to open the page comes before what to know"
        page = new_page(browser, address, viewport=DESKTOP)
        page.fill("#prompt textarea", "a last fox")
        page.get_by_label("Lens - 20 steps").check()
        page.click("#draw")
        page.wait_for_selector("#status >> text=/Step [1-9]/")
        process.terminate()
        page.wait_for_selector("#status >> text=Done: 1 image.")
        _, rest = process.communicate(timeout=30)
        assert process.returncode == 0 and len(rest.splitlines()) <= 3 and "Traceback" not in rest, rest
        page.wait_for_selector("#lens-gone >> text=The server does not answer")
        assert not page.locator("#status .lens-status").is_visible(), "Done says nothing any more"
        page.context.close()
    finally:
        process.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_on_any_page(browser, site, scheme, viewport):
    from axe_playwright_python.sync_playwright import Axe

    axe, found = Axe(), {}
    page = new_page(browser, site[0], viewport=viewport, color_scheme=scheme)
    draw(page, "an open door")
    for panel in ("advanced", "guide", "edit-styles"):
        page.click(f"#{panel} > button")
    for button in ("enhance", "copy-curl"):
        page.click(f"#{button}")
    page.wait_for_selector("#curl >> text=v1/images")
    page.wait_for_selector("#after textarea")

    def check(name):
        page.wait_for_timeout(300)  # colours change slowly
        for problem in axe.run(page).response["violations"]:
            found.setdefault(problem["id"], []).extend(
                f"{name}: {node['html'][:150]}" for node in problem["nodes"]
            )

    for name in PAGES:
        open_tab(page, name)
        check(name)
    open_tab(page, "Gallery")
    for letter in "AB":
        page.locator("#gallery .lens-item").first.click()
        page.get_by_role("button", name=f"Compare as {letter}").click()
        page.wait_for_selector(f"dialog >> text=Selected as image {letter}")
        if letter == "A":
            check("dialog")
        page.keyboard.press("Escape")
    open_tab(page, "Compare")
    page.wait_for_selector(".lens-ab")
    check("two images")
    assert found == {}
    page.context.close()
