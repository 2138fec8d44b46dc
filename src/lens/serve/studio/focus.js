// Keeps the studio usable by keyboard where Gradio is not. A control that has the focus may be disabled, hidden or
// removed, and the next Tab would then start anywhere; lists drop it when a value is chosen. Radio buttons of one
// choice have names of their own, so that the arrow keys do nothing, and tabs have no arrow keys either.
// `studio.js` has what else the page does without its server.
"use strict";

const LENS_FOCUSABLE = "button, a[href], input, textarea, select, summary, [tabindex='0']";
// Places that take the focus themselves where nothing in them can: what they show comes back with its buttons.
const LENS_PLACES = ["stage", "gallery"];
let lensFocus = null; // the control that had the focus last, and what was around it

function lensCanFocus(element) {
  return element.isConnected && !element.matches(":disabled") && element.getClientRects().length > 0;
}

document.addEventListener("focusin", ({ target }) => {
  const around = [];
  for (let place = target.parentElement; place; place = place.parentElement) around.push(place);
  lensFocus = { target, around, isSeen: target.matches(":focus-visible"), wasGone: false };
});
let lensLastKey = "";
document.addEventListener("pointerdown", () => { lensFocus = null; lensLastKey = ""; }, true);
document.addEventListener("keydown", ({ target, key }) => {
  lensLastKey = key;
  if (target.role !== "tab" || !["ArrowLeft", "ArrowRight"].includes(key)) return;
  const tabs = [...target.parentElement.querySelectorAll("[role=tab]")];
  tabs.at((tabs.indexOf(target) + (key === "ArrowLeft" ? -1 : 1)) % tabs.length).focus();
}, true);

// A list whose value was chosen by Enter gives its focus away: take it back, and close the list that opens then.
document.addEventListener("focusout", ({ target, relatedTarget }) => {
  if (relatedTarget || lensLastKey !== "Enter" || target.role !== "combobox") return;
  setTimeout(() => {
    if (document.activeElement !== document.body) return;
    target.focus();
    setTimeout(() => target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })));
  });
});

// Give the focus to the nearest control if the one that had it is gone, or was for a while.
function lensKeepFocus() {
  if (!lensFocus) return;
  const { target, around, isSeen, wasGone } = lensFocus, active = document.activeElement;
  const isGone = !lensCanFocus(target);
  const isLost = !active || active === document.body || (active === target && isGone);
  if (!isLost || !(isGone || wasGone)) return;
  const focus = (element) => element.focus({ preventScroll: !isSeen });
  if (!isGone) return focus(target);
  for (const place of around) {
    if (!place.isConnected || !place.getClientRects().length) continue;
    const next = [...place.querySelectorAll(LENS_FOCUSABLE)].find(lensCanFocus);
    if (next) return focus(next);
    if (LENS_PLACES.includes(place.id)) {
      place.tabIndex = -1;
      return focus(place);
    }
  }
}

// Let the arrow keys move among the radio buttons of one choice, which are one stop of Tab.
function lensJoinRadios() {
  for (const radio of document.querySelectorAll("fieldset[id] input[type=radio]")) {
    const { id } = radio.closest("fieldset");
    if (radio.name !== id) radio.name = id;
  }
}

// Keep what the keyboard has reached in sight where the page grows above it, until somebody scrolls.
for (const kind of ["wheel", "touchmove"]) {
  document.addEventListener(kind, () => { if (lensFocus) lensFocus.isSeen = false; }, { passive: true });
}
function lensKeepInSight() {
  if (!lensFocus?.isSeen || document.activeElement !== lensFocus.target) return;
  const { top, bottom } = lensFocus.target.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) lensFocus.target.scrollIntoView({ block: "nearest" });
}

document.addEventListener("DOMContentLoaded", () => new ResizeObserver(lensKeepInSight).observe(document.body));

// Let the keyboard scroll code that is longer than its box.
function lensLetScroll() {
  for (const box of document.querySelectorAll(".cm-scroller[tabindex='-1']")) box.tabIndex = 0;
}

let lensIsCheckDue = false;
new MutationObserver(() => {
  if (lensFocus && (!lensFocus.target.isConnected || lensFocus.target.matches(":disabled"))) {
    lensFocus.wasGone = true;
  }
  if (lensIsCheckDue) return;
  lensIsCheckDue = true;
  // A browser takes the focus from a control after it has drawn the page without it.
  requestAnimationFrame(() => setTimeout(() => {
    lensIsCheckDue = false;
    lensJoinRadios();
    lensLetScroll();
    lensKeepFocus();
    lensKeepInSight();
  }));
}).observe(document, { subtree: true, childList: true, attributes: true,
  attributeFilter: ["disabled", "style", "class", "hidden"] });
