"""The studio by keyboard alone, in a real Chromium: every control is reached, set and left."""

import pytest
from browser import DESKTOP, DONE, NOT_TESTED, chromium, new_page
from running import until
from test_studio_pages import fill_gallery

pytestmark = pytest.mark.skipif(chromium() is None, reason=NOT_TESTED)
MAX_STOPS, SLOW_MS = 140, 90_000
STOP = """() => {
  const element = document.activeElement, box = element.getBoundingClientRect();
  const styles = [element, element.closest("label")].filter(Boolean).map((one) => getComputedStyle(one));
  const outline = (style) => style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
  const named = element.closest("[id]:not([id^=component]):not([id^=range]):not([id^=html])");
  return {
    place: named?.id ?? "", tag: element.tagName.toLowerCase(), action: element.dataset.action ?? "",
    name: (element.ariaLabel || element.innerText || "").trim().slice(0, 40),
    isBody: element === document.body, outline: Math.max(...styles.map(outline)),
  };
}"""
IS_SEEN = """() => {
  const element = document.activeElement, box = element.getBoundingClientRect();
  const [x, y] = [box.left + box.width / 2, (Math.max(box.top, 0) + Math.min(box.bottom, innerHeight)) / 2];
  const top = document.elementFromPoint(x, y); // the focus may be behind a bar that stays in sight
  return box.bottom > 0 && box.top < innerHeight && (element.contains(top) || top?.contains(element));
}"""


def focus(page):
    """Return what has the focus."""
    return page.evaluate(STOP)


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def go_to(page, key="Tab", **wanted):
    """Press Tab until what has the focus has these properties; at each stop the focus can be seen."""
    stops = []
    for _ in range(MAX_STOPS):
        press(page, key)
        stops.append(stop := focus(page))
        assert stop["isBody"] or stop["outline"] >= 2, f"{stop} cannot be seen"
        if not stop["isBody"]:
            page.wait_for_function(IS_SEEN, timeout=SLOW_MS)  # at once, unless the page still moves
        if wanted.items() <= stop.items():
            return stops
    raise AssertionError(f"{wanted} is not reached: {stops[-5:]}")


def choose(page, *keys):
    """Choose from the list that has the focus; return its value; the list closes, the focus stays."""
    page.wait_for_function("document.activeElement.ariaExpanded === 'true'")
    before = page.evaluate("document.activeElement.value")
    press(page, *keys, "Enter")
    page.wait_for_function("document.activeElement.ariaExpanded === 'false'")
    page.wait_for_function("before => document.activeElement.value !== before", arg=before)
    return page.evaluate("document.activeElement.value")


def is_edited(page):
    """Press Enter in a cell of a table, which may still be drawn anew; return whether it takes text now."""
    is_text = "document.activeElement.matches('input, textarea')"
    if not page.evaluate(is_text):
        press(page, "Enter")
        page.wait_for_timeout(100)
    return page.evaluate(is_text)


def test_a_prompt_is_drawn_and_its_tile_acts_while_the_focus_stays(page, site, monkeypatch):
    page.wait_for_function("document.activeElement.closest('#prompt')")
    page.keyboard.type("a red fox")
    press(page, "Control+Enter")
    page.wait_for_selector(DONE)
    page.wait_for_selector("#status [role=status][aria-live=polite] >> text=Done: 1 image.")
    go_to(page, place="stage", action="favourite")
    press(page, "Enter")
    page.wait_for_selector("#stage [data-action=favourite][aria-pressed=true]")
    assert focus(page)["action"] == "favourite"
    go_to(page, action="seed")
    press(page, "Space")
    page.wait_for_function("document.querySelector('#lock input').checked")
    go_to(page, "Shift+Tab", action="larger")
    press(page, "Enter")
    page.wait_for_function("document.querySelector('#stage img')?.naturalWidth == 256")
    page.wait_for_function("document.activeElement.closest('#stage')")
    monkeypatch.setattr(site[1], "step_s", 2)
    press(page, "Control+Enter")
    page.wait_for_selector("#status >> text=/Step/")
    go_to(page, "Shift+Tab", place="cancel")
    press(page, "Enter")
    page.wait_for_selector("#status >> text=Cancelled")
    page.wait_for_function("document.activeElement.id === 'draw'")


def test_every_setting_is_set_by_keys_and_no_control_keeps_the_focus(browser, site):
    page = new_page(browser, site[0], viewport=DESKTOP)
    page.keyboard.type("an owl")
    go_to(page, place="ratios")
    press(page, "ArrowRight")
    go_to(page, place="variant")
    press(page, "ArrowDown")
    go_to(page, place="base")
    assert choose(page, "ArrowDown") == "192"
    go_to(page, place="count")
    press(page, "Control+a", "2")
    go_to(page, place="seed")
    press(page, "Control+a", "7")
    go_to(page, place="lock")
    press(page, "Space")
    go_to(page, place="advanced")
    press(page, "Enter")
    for name in ("steps", "loras", "edit-styles", "start"):
        page.wait_for_selector(f"#{name} :is(input, button)", timeout=SLOW_MS)
    go_to(page, place="steps", tag="input")
    press(page, "Control+a", "5")
    go_to(page, place="guidance", name="range slider for Guidance")
    press(page, "ArrowRight")
    guidance = float(page.evaluate("document.activeElement.value"))
    go_to(page, place="negative")
    page.keyboard.type("fog")
    go_to(page, place="solver")
    assert choose(page, "ArrowDown").startswith("Adams")
    go_to(page, place="loras")
    page.wait_for_function("document.activeElement.ariaExpanded === 'true'")
    press(page, "ArrowDown", "Enter", "Escape")
    page.wait_for_selector("#lora-weights [role=gridcell]")
    go_to(page, place="lora-weights", tag="div")
    press(page, "ArrowRight")
    until(lambda: is_edited(page))
    press(page, "Control+a")
    page.keyboard.type("0.4")
    press(page, "Enter")
    go_to(page, place="edit-styles")
    press(page, "Enter")
    page.wait_for_selector("#style-negative :is(input, textarea)", timeout=SLOW_MS)
    for place, text in (("style-name", "misty"), ("style-pattern", "{prompt} in mist")):
        go_to(page, place=place)
        page.keyboard.type(text)
    go_to(page, place="save-style")
    press(page, "Enter")
    page.wait_for_selector("#style-line >> text=The style is saved.")
    press(page, "Control+Enter")
    page.wait_for_function(f"document.querySelectorAll('{DONE}').length == 2")
    asked = site[1].requests[-1]
    assert (asked.prompt, asked.negative_prompt, asked.solver) == ("an owl", "fog", "ab2")
    assert (asked.model, asked.seed, asked.steps, asked.guidance) == ("lens-nano", 8, 5, guidance)
    assert asked.height != asked.width and guidance > 2
    assert [(lora.name, lora.weight) for lora in asked.loras] == [("ink", 0.4)]
    go_to(page, place="delete-style")
    press(page, "Enter")
    page.wait_for_selector("#style-line >> text=The style is deleted.")
    around = {stop["place"] for stop in go_to(page, place="prompt")}
    assert {"guide", "restore", "stage", "dark", "pages"} <= around, "once around the page"
    page.context.close()


def test_gallery_dialog_and_pages_by_keys(page, site):
    fill_gallery(site[2], 3, "reed")
    go_to(page, "Shift+Tab", place="pages", name="Grid")
    press(page, "ArrowRight", "ArrowRight", "Enter")  # from the last tab to the first
    page.wait_for_selector("#gallery .lens-item")
    go_to(page, place="search")
    page.keyboard.type("reed")
    page.wait_for_selector("#gallery >> text=3 images")
    go_to(page, place="gallery", action="open")
    press(page, "Enter")
    page.wait_for_selector("dialog:modal >> text=1 of 3")
    press(page, "ArrowRight")
    page.wait_for_selector("dialog >> text=2 of 3")
    go_to(page, place="detail", action="open", name="Next")
    press(page, "Enter")
    page.wait_for_selector("dialog >> text=3 of 3")
    page.wait_for_function("document.activeElement.closest('dialog')")
    press(page, "Escape")
    page.wait_for_selector("dialog", state="detached")
    page.wait_for_function("document.activeElement.dataset.name === '0-reed-000.png'")
    page.on("dialog", lambda dialog: dialog.accept())
    go_to(page, place="gallery", name="Select: reed 0")
    press(page, "Space")
    go_to(page, "Shift+Tab", action="delete")
    press(page, "Enter")
    page.wait_for_selector("#gallery >> text=2 images")
    page.wait_for_function("document.activeElement.closest('#gallery')")
    go_to(page, action="open")
    press(page, "Enter")
    page.wait_for_selector("dialog:modal")
    go_to(page, action="delete")
    for left in ("1 of 1", None):  # the dialog goes on to the next image, and closes after the last
        press(page, "Enter")
        page.wait_for_selector(f"dialog >> text={left}") if left else None
    page.wait_for_selector("#gallery-line >> text=The image was deleted.")
    page.wait_for_function("document.activeElement !== document.body")
    go_to(page, "Shift+Tab", place="pages", name="Grid")
    press(page, "Enter")
    go_to(page, place="x")
    assert choose(page, "ArrowDown") == "steps"
