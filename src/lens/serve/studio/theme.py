"""The studio's theme: colours, fonts, shapes of the aspect ratios, with `studio.css` and `studio.js`.

Everything is in this folder or on the machine: no font, script or style comes from a network.
"""

from pathlib import Path
from typing import Any

from lens.core.resolution import ASPECT_RATIOS

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
FOLDER = Path(__file__).parent
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

HEAD_HTML = f"""
<style>
gradio-app > .gradio-container {{ max-width: 1440px !important; width: 100% !important;
  margin: 0 auto !important; overflow: clip !important; /* hidden would let nothing stick */
  padding: 0 24px 24px !important; }}
gradio-app > .gradio-container > .main {{ padding: 0 !important; max-width: none !important;
  width: 100% !important; }}
/* What has the focus is not behind the bar with Draw. */
html {{ scroll-padding: 120px 0 24px; }}
@media (max-width: 760px) {{
  html {{ scroll-padding: 8px 0 150px; }}
  gradio-app > .gradio-container {{ padding: 0 10px 20px !important; }}
  html {{ overflow-anchor: none; }} /* an image that grows must not push its own top out of sight */
}}
</style>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<script>
{(FOLDER / "studio.js").read_text()}
{(FOLDER / "focus.js").read_text()}
</script>
"""

ON_LOAD_JS = "() => lensLoad()"
ACTIONS_JS = "lensActions(element, trigger); // sends 'larger', besides click"
"""Of HTML with buttons: `studio.js` sends what they stand for. Gradio reads there which events it has."""


def css() -> str:
    """Return all styles, with an icon in the shape of each aspect ratio."""
    shapes = (_shape_css(number, ratio) for number, ratio in enumerate(ASPECT_RATIOS, 1))
    return "\n".join([(FOLDER / "studio.css").read_text(), *shapes])


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
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
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
