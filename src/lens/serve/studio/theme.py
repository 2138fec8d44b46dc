"""The studio's styles: colours, fonts, shapes of the aspect ratios, phone width, dark mode, shortcuts.

Everything is in this file or on the machine: no font, script or style comes from a network.
"""

from typing import Any

from lens.core.resolution import ASPECT_RATIOS

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
SHAPE_PX = 30
"""Longer side of the icon of an aspect ratio."""

ACCENT = {
    50: "#fff4ed", 100: "#ffe6d5", 200: "#feccaa", 300: "#fdac74", 400: "#fb8a3c", 500: "#e8590c",
    600: "#c2410c", 700: "#9a3412", 800: "#7c2d12", 900: "#5f2410", 950: "#431407",
}  # fmt: skip
NEUTRAL = {
    50: "#fafaf7", 100: "#f3f2ed", 200: "#e5e3dc", 300: "#d1cec4", 400: "#a3a097", 500: "#73716a",
    600: "#57554f", 700: "#403e3a", 800: "#28272a", 900: "#1b1b1e", 950: "#121214",
}  # fmt: skip

CSS = """
footer:not(.lens-notice) { display: none !important; }
.lens-head { display: flex; align-items: center; gap: 12px; padding: 14px 0 6px; }
.lens-head h1 { font-size: 22px; letter-spacing: -0.02em; font-weight: 650; margin: 0; flex: 1; }
.lens-mark { width: 22px; height: 22px; border-radius: 50%; border: 5px solid var(--color-accent);
  box-shadow: inset 0 0 0 3px var(--body-background-fill); background: var(--color-accent); }
.lens-keys { margin: 0; font-size: 12px; color: var(--body-text-color-subdued); }
.lens-keys kbd { font: inherit; border: 1px solid var(--border-color-primary); border-radius: 4px;
  padding: 1px 5px; }
.lens-dark { width: 36px; height: 36px; border-radius: 50%; border: 1px solid var(--border-color-primary);
  background: none; color: inherit; font-size: 16px; line-height: 1; padding: 0; cursor: pointer; }
.lens-notice { font-size: 12px; color: var(--body-text-color-subdued); text-align: center;
  padding: 16px 0 0; }

#ratios .wrap { display: grid; grid-template-columns: repeat(9, minmax(0, 1fr)); gap: 4px; }
#ratios label { display: flex; flex-direction: column; align-items: center; justify-content: flex-end;
  gap: 6px;
  padding: 8px 0 6px; min-height: 66px; cursor: pointer; box-shadow: none; position: relative; }
#ratios label input { position: absolute; opacity: 0; width: 1px; height: 1px; }
#ratios label span { margin: 0; padding: 0; font-size: 11px; }
#ratios label::before { content: ""; border: 2px solid currentColor; border-radius: 3px; opacity: 0.55;
  margin: auto; }
#ratios label:has(input:checked)::before { opacity: 1; background: currentColor; }
#ratios label:has(input:focus-visible) { outline: 2px solid var(--color-accent); outline-offset: 1px; }

#size-line { margin: -8px 0 -4px; }
#size-line p { margin: 0 0 0 2px; }
#lock { padding-top: 34px; }
#lock span { white-space: nowrap; }
#variant .wrap { display: flex; flex-wrap: wrap; gap: 6px; }
#actions { align-items: stretch; }
#stage-column { gap: 8px; }
#draw { font-weight: 600; }
#stage-column { position: sticky; top: 12px; align-self: flex-start; }
.lens-empty { display: grid; place-content: center; text-align: center; min-height: 340px;
  border-radius: 12px;
  border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued); }
.lens-empty p { margin: 2px; }
.lens-tiles { display: grid; gap: 12px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.lens-tiles.lens-of-1 { grid-template-columns: minmax(0, 1fr); justify-items: center; }
.lens-tile { position: relative; margin: 0; overflow: hidden; border-radius: 12px; width: 100%;
  background: var(--block-background-fill); border: 1px solid var(--border-color-primary); max-height: 72vh; }
.lens-of-1 .lens-tile { max-width: 640px; }
.lens-tile > a, .lens-tile > img { position: absolute; inset: 0; padding: 0; border: 0; }
.lens-tile img, .lens-tile a { display: block; border-radius: 0; width: 100%; height: 100%;
  object-fit: contain; margin: 0; }
.lens-tile > span { display: grid; place-content: center; height: 100%;
  color: var(--body-text-color-subdued); }
.lens-tile[data-state="preview"] img { filter: saturate(0.9); }
.lens-tile[data-state="waiting"] { animation: lens-breathe 1.6s ease-in-out infinite; }
.lens-tile figcaption { position: absolute; left: 8px; bottom: 8px; font: 11px ui-monospace, monospace;
  color: #fff; background: rgb(0 0 0 / 55%); border-radius: 6px; padding: 2px 6px; }
@keyframes lens-breathe { 50% { opacity: 0.55; } }
@media (prefers-reduced-motion: reduce) { .lens-tile { animation: none !important; } }

.lens-status { min-height: 34px; padding: 4px 0; }
.lens-status p { margin: 0 0 6px; font-size: 14px; font-variant-numeric: tabular-nums; }
.lens-problem p { color: #b42318; font-weight: 550; }
.dark .lens-problem p { color: #ff9b8f; }
#prompt-warnings:not(:has(p)) { display: none; }
.lens-hint { margin: 0 0 4px 2px; font-size: 13px; color: #92400e; }
.dark .lens-hint { color: #fcd34d; }
.lens-bar { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden; }
.lens-bar i { display: block; height: 100%; background: var(--color-accent); transition: width 0.2s; }

.lens-grid { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); }
.lens-item { position: relative; padding: 0; border: 2px solid transparent; border-radius: 10px;
  overflow: hidden;
  background: var(--block-background-fill); aspect-ratio: 1; cursor: pointer; }
.lens-item img { width: 100%; height: 100%; object-fit: cover; display: block; margin: 0; }
.lens-item:focus-visible, .lens-item:hover { border-color: var(--color-accent); }
.lens-item b { position: absolute; right: 6px; top: 2px; color: #ffc53d; text-shadow: 0 0 3px #000; }
.lens-count { font-size: 12px; color: var(--body-text-color-subdued); margin: 0 0 6px; }
.lens-detail img { width: 100%; border-radius: 12px; margin: 0; max-height: 52vh; object-fit: contain; }
.lens-detail p { margin: 10px 0; }
.lens-detail dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 14px; font-size: 13px; margin: 0; }
.lens-detail dt { color: var(--body-text-color-subdued); }
.lens-detail dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }

.lens-ab { position: relative; max-width: 640px; margin: 0 auto; overflow: hidden; border-radius: 12px; }
.lens-ab img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; margin: 0; }
.lens-ab .lens-a { clip-path: inset(0 calc(100% - var(--split)) 0 0); }
.lens-ab span { position: absolute; top: 8px; color: #fff; background: rgb(0 0 0 / 55%); border-radius: 6px;
  padding: 1px 8px; font-size: 12px; left: 8px; }
.lens-ab span:last-child { left: auto; right: 8px; }
.lens-split { display: block; width: 100%; max-width: 640px; margin: 10px auto;
  accent-color: var(--color-accent); }
.lens-table { width: 100%; font-size: 13px; border-collapse: collapse; }
.lens-table th, .lens-table td { text-align: left; padding: 4px 8px; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--border-color-primary); }

@media (max-width: 760px) {
  .lens-keys { display: none; }
  #draw-columns { flex-direction: column; }
  #draw-columns > * { width: 100%; min-width: 0 !important; }
  #draw-columns > .column:first-child { display: contents; }
  #stage-column { position: static; order: 2; }
  #advanced, #restore { order: 3; }
  #numbers .form { display: grid !important; grid-template-columns: 1fr 1fr; }
  #ratios .wrap { gap: 2px; }
  #ratios label { min-height: 58px; }
  #actions { position: sticky; bottom: 0; z-index: 20; padding: 8px 0;
    background: var(--body-background-fill); }
  .lens-empty { min-height: 180px; }
  .lens-grid { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
"""

HEAD_HTML = """
<style>
gradio-app > .gradio-container { max-width: 1440px !important; width: 100% !important;
  margin: 0 auto !important;
  padding: 0 24px 24px !important; }
gradio-app > .gradio-container > .main { padding: 0 !important; max-width: none !important;
  width: 100% !important; }
@media (max-width: 760px) { gradio-app > .gradio-container { padding: 0 10px 20px !important; } }
</style>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<script>
function lensDark(dark) {
  document.body.classList.toggle("dark", dark);
  try { localStorage.setItem("lens-dark", dark ? "1" : ""); } catch (error) {}
}
document.addEventListener("keydown", (event) => {
  const press = (id) => { const button = document.getElementById(id); if (button) button.click(); };
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") { event.preventDefault(); press("draw"); }
  const opened = document.activeElement?.getAttribute("aria-expanded") === "true";
  if (event.key === "Escape" && !opened) press("cancel");
}, true);
</script>
"""

ON_LOAD_JS = """() => {
  let dark = null;
  try { dark = localStorage.getItem("lens-dark"); } catch (error) {}
  if (dark !== null) document.body.classList.toggle("dark", dark === "1");
}"""

SELECT_JS = """element.addEventListener("click", (event) => {
  const item = event.target.closest("[data-name]");
  if (item) trigger("click", {name: item.dataset.name});
});"""
"""Of the gallery's list: a click on an image sends its name."""


def css() -> str:
    """Return all styles, with an icon in the shape of each aspect ratio."""
    return CSS + "\n".join(_shape_css(number, ratio) for number, ratio in enumerate(ASPECT_RATIOS, 1))


def _shape_css(number: int, ratio: str) -> str:
    width, height = (int(side) for side in ratio.split(":"))
    scale = SHAPE_PX / max(width, height)
    size = f"width: {width * scale:.0f}px; height: {height * scale:.0f}px;"
    return f"#ratios label:nth-child({number})::before {{ {size} }}"


def theme() -> Any:
    """Return the colours, fonts and corners as a Gradio theme."""
    from gradio import themes

    accent, neutral = (
        themes.Color(**{f"c{shade}": colour for shade, colour in shades.items()}, name=name)
        for name, shades in (("lens", ACCENT), ("paper", NEUTRAL))
    )
    return themes.Base(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue=neutral,
        font=SANS,
        font_mono=MONO,
        radius_size=themes.sizes.radius_lg,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="*neutral_50",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        block_label_text_color="*neutral_600",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
        checkbox_label_background_fill_selected="*primary_100",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_text_color_selected="*primary_800",
        checkbox_label_text_color_selected_dark="*primary_100",
    )
