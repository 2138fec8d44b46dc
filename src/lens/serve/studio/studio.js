// What the studio's page does without its server: dark mode, shortcuts, pages in the history, the gallery's
// dialog and selection, and whether the server answers. Names that start with `lens` are used by the page.
"use strict";

const LENS_PAGES = ["draw", "gallery", "compare", "grid"];
const LENS_CHECK_MS = 3000;

// Return an element of this id if it can be seen.
function lensShown(id) {
  const element = document.getElementById(id);
  return element?.getClientRects().length ? element : null;
}

function lensDark(dark) {
  document.body.classList.toggle("dark", dark);
  try { localStorage.setItem("lens-dark", dark ? "1" : ""); } catch (error) {}
}

// Run once the page is there.
function lensLoad() {
  let dark = null;
  try { dark = localStorage.getItem("lens-dark"); } catch (error) {}
  if (dark !== null) document.body.classList.toggle("dark", dark === "1");
  const open = () => { if (!lensOpen(lensPage())) setTimeout(open, 50); };
  open();
  const check = async () => { // one at a time, also of a server that is slow
    if (!document.hidden) await lensCheckServer();
    setTimeout(check, LENS_CHECK_MS);
  };
  setTimeout(check, LENS_CHECK_MS);
}

// Pages: each is an entry of the history, so that Back leads to the one before.

function lensPage() {
  const name = location.hash.slice(1);
  return LENS_PAGES.includes(name) ? name : LENS_PAGES[0];
}

// Select a page; return whether it is there.
function lensOpen(page) {
  const tab = document.querySelector(`#pages button[role=tab][data-tab-id=${page}]`);
  if (tab?.getAttribute("aria-selected") === "false") tab.click();
  return Boolean(tab);
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest?.("#pages button[role=tab]");
  if (!tab) return;
  if (tab.dataset.tabId !== lensPage()) history.pushState(null, "", "#" + tab.dataset.tabId);
  document.title = lensPage() === LENS_PAGES[0] ? "Lens" : `${tab.textContent.trim()} - Lens`;
});
window.addEventListener("popstate", () => {
  const viewer = document.querySelector("dialog.lens-viewer");
  if (viewer) viewer.dispatchEvent(new Event("cancel", { cancelable: true }));
  else lensOpen(lensPage());
});

// Shortcuts act on the page that is shown.
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input:not([type=checkbox]), textarea, [contenteditable=true]");
  const viewer = document.querySelector("dialog.lens-viewer");
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    event.preventDefault();
    event.stopPropagation(); // an open list would choose
    (lensShown("draw") ?? lensShown("draw-grid"))?.click();
  } else if (event.key === "Escape" && !viewer) {
    const isListOpen = document.activeElement?.getAttribute("aria-expanded") === "true";
    const stop = lensShown("stop-enhancing");
    const cancel = lensShown("cancel") ?? lensShown("cancel-grid");
    if (!isListOpen) (stop && !stop.disabled ? stop : cancel)?.click();
  } else if (viewer && !isTyping && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    viewer.querySelector(`[aria-keyshortcuts=${event.key}]`)?.click();
  }
}, true);

// Bring what is drawn into view: on a phone it lies below the settings.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("#draw, #draw-grid");
  if (!button || button.disabled) return;
  if (matchMedia("(pointer: coarse)").matches) document.activeElement?.blur(); // closes the keyboard
  const place = lensShown("stage") ?? lensShown("sheet");
  const top = place?.getBoundingClientRect().top ?? 0;
  if (top < 0 || top > innerHeight / 2) place?.scrollIntoView({ block: "start" });
});

// Small images are shown at whole multiples of the screen's own pixels; `studio.css` has the sizes.
function lensDevicePixel() {
  document.documentElement.style.setProperty("--device-px", `${1 / devicePixelRatio}px`);
}
lensDevicePixel();
window.addEventListener("resize", lensDevicePixel);

// A server that is gone must not leave a page that looks as if all were well.
const LENS_GONE = "The server does not answer. Finished images are in the gallery, and your settings are "
  + "kept; this page goes on as soon as the server answers.";
let lensIsGone = false;
async function lensCheckServer() {
  let isThere = false;
  try {
    const answer = await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    isThere = answer.status < 500;
  } catch (error) {}
  const isBack = lensIsGone && isThere;
  lensIsGone = !isThere;
  document.body.classList.toggle("lens-is-gone", lensIsGone);
  const line = document.getElementById("lens-gone");
  if (line) line.textContent = lensIsGone ? LENS_GONE : "";
  // A page that waited for an image would wait forever: the settings are kept, so it can start anew.
  const isWaiting = document.querySelector("#cancel:not(:disabled), #cancel-grid:not(:disabled)");
  if (isBack && isWaiting) location.reload();
}

// Buttons inside HTML send their data to the server: `data-event` is the event, click if there is none.
function lensActions(element, trigger) {
  element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]:not([data-many])");
    if (!button || button.disabled) return;
    if (button.dataset.confirm && !confirm(button.dataset.confirm)) return;
    trigger(button.dataset.event ?? "click", { ...button.dataset, shown: lensGalleryPage() });
  });
}

function lensGalleryPage() {
  return Number(document.querySelector("#gallery [data-page-shown]")?.dataset.pageShown ?? 1);
}

// The gallery's list: images are opened one by one, or selected for an action on several.
function lensGallery(element, trigger, watch) {
  const selected = new Set();
  const boxes = () => [...element.querySelectorAll("input[data-name]")];
  const show = () => {
    const names = boxes().map((box) => box.dataset.name);
    for (const name of selected) if (!names.includes(name)) selected.delete(name);
    // A list that is drawn anew keeps its boxes, which then stand for other images.
    for (const box of boxes()) box.checked = selected.has(box.dataset.name);
    for (const button of element.querySelectorAll("button[data-many]")) button.disabled = !selected.size;
    const all = element.querySelector("button[data-all]");
    if (all) all.textContent = selected.size ? "Select none" : "Select all";
    const count = element.querySelector(".lens-selected");
    if (count) count.textContent = `${selected.size} selected`;
  };
  element.addEventListener("change", (event) => {
    const { name } = event.target.dataset;
    if (event.target.checked) selected.add(name); else selected.delete(name);
    show();
  });
  element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || button.disabled) return;
    if (button.dataset.all !== undefined) {
      const names = selected.size ? [] : boxes().map((box) => box.dataset.name);
      selected.clear();
      names.forEach((name) => selected.add(name));
      show();
    } else if (button.dataset.many !== undefined) {
      const question = `Delete ${selected.size} image${selected.size === 1 ? "" : "s"}?`;
      if (button.dataset.action === "delete" && !confirm(question)) return;
      trigger("click", { action: button.dataset.action, names: [...selected], shown: lensGalleryPage() });
    }
  });
  watch("value", show);
}

// The gallery's dialog: one image at full size with what can be done with it. Back closes it.
function lensViewer(element, trigger, props, watch) {
  const dialog = () => element.querySelector("dialog");
  const close = (goesBack = true) => {
    const name = dialog()?.dataset.name;
    dialog()?.close(); // before the focus goes back: what is behind a modal dialog takes none
    props.value = "";
    const opener = document.querySelector(`#gallery button[data-name="${CSS.escape(name ?? "")}"]`)
      ?? document.querySelector("#gallery button:not(:disabled)");
    const height = scrollY;
    const focus = () => { scrollTo(0, height); opener?.focus({ preventScroll: true }); };
    focus();
    // An address that ends in #gallery moves the focus and the page when the history comes to it.
    setTimeout(focus);
    if (!history.state?.lensViewer) return;
    if (goesBack) window.addEventListener("popstate", () => setTimeout(focus), { once: true });
    if (goesBack) history.back(); else history.replaceState(null, "");
  };
  lensActions(element, (event, data) => {
    if (data.action === "close") return close();
    trigger(event, data);
    if (data.event) close(false); // the action goes on at another page
  });
  element.addEventListener("click", (event) => { if (event.target === dialog()) close(); });
  element.addEventListener("cancel", (event) => { event.preventDefault(); close(); }, true);
  watch("value", () => {
    const shown = dialog();
    if (!shown) { // the last image was deleted
      if (history.state?.lensViewer) history.back();
      return;
    }
    if (!shown.matches(":modal")) {
      shown.removeAttribute("open"); // it came open, but not as a modal one
      shown.showModal();
      history.pushState({ lensViewer: true }, "");
    }
    if (!shown.contains(document.activeElement)) shown.querySelector("[data-action=close]").focus();
  });
}
