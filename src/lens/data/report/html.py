"""Self-contained HTML: escaped text, tables, bars, and images as data URLs.

No scripts and no links: the policy of the page forbids browsers to load anything. Text is escaped here only.
Knows nothing of builds.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image

THUMBNAIL_PX = 96
PIXELATED_SIDE_PX = 6
"""Squares a side of a pixelated image."""
MAX_TEXT_CHARS = 160
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --card: #ffffff; --text: #22211f; --soft: #6b675f;
  --line: #e2ded6; --bar: #3f74a8; --fall: #b5482f; --shade: #b5482f1f; }
@media (prefers-color-scheme: dark) { :root { --page: #161719; --card: #1e2023; --text: #e7e4de;
  --soft: #9d998f; --line: #34363a; --bar: #6fa3d6; --fall: #e58467; --shade: #e5846726; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; max-width: 72rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { max-width: 44rem; margin: .4rem 0 .8rem; }
.soft, figcaption, th { color: var(--soft); font-weight: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; max-width: 52rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; white-space: nowrap; }
td.bars { width: 40%; min-width: 5rem; }
@media (max-width: 30rem) { td.bars { width: 20%; min-width: 3.5rem; } }
.bar { display: block; height: .7rem; border-radius: 2px; background: var(--bar); min-width: 2px; }
.bar.fell { background: var(--fall); } .bar.none { min-width: 0; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem .9rem; }
.card h3 { margin: 0; } .card p { margin: .2rem 0 0; font-size: .85rem; color: var(--soft); }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 10.5px; fill: var(--soft); }
svg .b { fill: var(--bar); } svg .a { stroke: var(--soft); fill: none; } svg .f { fill: var(--shade); }
svg .t { stroke: var(--fall); stroke-width: 1.5; fill: none; } svg text.tt { fill: var(--fall); }
.sheet { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
figure { margin: 0; font-size: .75rem; line-height: 1.35; overflow-wrap: anywhere; }
figure img { border-radius: 4px; max-width: 100%; margin-right: 4px; vertical-align: top; }
figure .pair { display: flex; } figure .pair img { min-width: 0; max-width: 48%; object-fit: contain; }
.nothing { width: 96px; min-height: 72px; border: 1px dashed var(--line); border-radius: 4px; padding: .4rem;
  color: var(--fall); }
"""


class Bar(NamedTuple):
    """A table cell with a bar."""

    share: float
    is_loss: bool = False


Cell = str | int | Bar
"""Text is escaped and left-aligned; a number gets separators and is right-aligned."""


def page(title: str, body: Iterable[str]) -> str:
    """Return the whole page around pieces of HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_html(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def escape_html(text: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return untrusted text as HTML: truncated, escaped, without unprintable characters."""
    cut = text if len(text) <= max_chars else text[: max_chars - 3] + "..."
    # An unprintable character could change the direction of a line, or end it.
    words = " ".join(cut.split())
    return html.escape("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in words))


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]], numeric_columns: Sequence[int] = ()) -> str:
    """Return a table; text in `numeric_columns` is right-aligned too."""
    right = {*numeric_columns}
    top = "".join(
        f"<th{_class(index in right)}>{escape_html(head)}</th>" for index, head in enumerate(headers)
    )
    lines = ("".join(_cell(cell, index in right) for index, cell in enumerate(row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    inside = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def figure(
    originals: Sequence[Image.Image], lines: Sequence[str], placeholder: str = "", is_pixelated: bool = False
) -> str:
    """Return thumbnails of one image, or of a pair, above lines of text.

    `placeholder` is shown where there is no image; `is_pixelated` leaves only its colours.
    """
    images = "".join(_thumbnail(one, is_pixelated) for one in originals)
    if len(originals) > 1:
        images = f'<div class="pair">{images}</div>'
    shown = images or f'<div class="nothing">{escape_html(placeholder)}</div>'
    words = "<br>".join(escape_html(line) for line in lines if line)
    return f"<figure>{shown}<figcaption>{words}</figcaption></figure>"


def _thumbnail(image: Image.Image, is_pixelated: bool) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BICUBIC, reducing_gap=2.0)
    size = small.size
    if is_pixelated:
        squares = small.resize((PIXELATED_SIDE_PX, PIXELATED_SIDE_PX), Image.Resampling.BOX)
        small = squares.resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=70)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" width="{size[0]}" height="{size[1]}" alt="">'


def _cell(cell: Cell, is_right: bool) -> str:
    if isinstance(cell, Bar):
        kind = "bar" + (" fell" if cell.is_loss else "") + ("" if cell.share else " none")
        return f'<td class="bars"><span class="{kind}" style="width:{100 * cell.share:.2f}%"></span></td>'
    if isinstance(cell, int):
        return f'<td class="n{"" if cell else " soft"}">{cell:,}</td>'
    return f"<td{_class(is_right)}>{escape_html(cell)}</td>"


def _class(is_right: bool) -> str:
    return ' class="n"' if is_right else ""
