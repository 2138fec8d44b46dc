"""What the studio shows, as HTML: the tiles of a batch, its progress, the gallery, a picture, two compared.

Everything that a person typed is escaped here. Knows nothing of the page around it; it is styled by
`studio_look`.
"""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lens.errors import Cancelled, LensError
from lens.sampling.image_metadata import PictureSettings
from lens.serve.engine.request import Done, Drawing, Failed, Waiting
from lens.serve.studio.batches import Batch, Tile, seconds_left
from lens.serve.studio.gallery import Gallery, Kept

PREVIEW_SIDE_PX = 512
STAR = "&#9733;"
NOTICE = (
    "A research model. A person looks at every picture before it is used; it is not for unattended "
    "production. Pictures carry their settings and a mark that a machine made them."
)

HEADER = """
<header class="lens-head">
 <span class="lens-mark" aria-hidden="true"></span>
 <h1>Lens</h1>
 <p class="lens-keys"><kbd>Ctrl</kbd>+<kbd>Enter</kbd> draws, <kbd>Esc</kbd> cancels</p>
 <button type="button" class="lens-dark" id="dark" aria-label="Dark or light"
  onclick="lensDark(!document.body.classList.contains('dark'))">&#9680;</button>
</header>
"""
FOOT = f'<footer class="lens-notice" role="note">{NOTICE}</footer>'
EMPTY = (
    '<div class="lens-empty"><p>Nothing drawn yet.</p>'
    "<p>Say what the picture shows, and press Draw.</p></div>"
)
FAULT = "Something went wrong here; the server's log says what."
NOTHING_FOUND = '<div class="lens-empty"><p>No picture here.</p></div>'


def file_url(path: Path) -> str:
    """Return the address under which the page finds a file of the gallery."""
    return "gradio_api/file=" + quote(str(path.absolute()))


def tiles(batch: Batch) -> str:
    """Return the pictures of a batch as far as they are."""
    shown = "".join(_tile(tile, number) for number, tile in enumerate(batch.tiles))
    return f'<div class="lens-tiles lens-of-{min(len(batch.tiles), 4)}">{shown}</div>'


def _tile(tile: Tile, number: int) -> str:
    request, event = tile.request, tile.event
    shape = f"aspect-ratio:{request.width}/{request.height}"
    name = f"Picture {number + 1}: {escape(request.prompt, quote=True)}"
    if isinstance(event, Done):
        source = file_url(tile.kept.path) if tile.kept else data_url(event.image)
        link = f'<a href="{source}" target="_blank" rel="noopener" aria-label="Open the full picture">'
        inside, state = f'{link}<img src="{source}" alt="{name}" draggable="true"></a>', "done"
    elif isinstance(event, Failed):
        what = "Cancelled" if isinstance(event.error, Cancelled) else "No picture"
        inside, state = f"<span>{what}</span>", "failed"
    elif tile.preview is not None:
        inside, state = f'<img src="{data_url(tile.preview)}" alt="Preview of {name}">', "preview"
    else:
        inside, state = "<span></span>", "waiting"
    caption = f"<figcaption>seed {request.seed}</figcaption>"
    return f'<figure class="lens-tile" data-state="{state}" style="{shape}">{inside}{caption}</figure>'


def progress(batch: Batch) -> str:
    """Return where a batch is: in the queue, at which step, how long it still takes, or what went wrong."""
    num_done = sum(isinstance(tile.event, Done) for tile in batch.tiles)
    num = len(batch.tiles)
    if batch.is_over:
        error = batch.error
        if error is None:
            return status(f"Done: {num} picture{'s' * (num > 1)}.", share=1.0)
        if isinstance(error, Cancelled):
            return status(f"Cancelled; {num_done} of {num} done.")
        return problem(error)
    drawing = [tile.event for tile in batch.tiles if isinstance(tile.event, Drawing)]
    share = (num_done + sum(event.step / max(1, event.steps) for event in drawing)) / num
    pictures = f", picture {min(num, num_done + 1)} of {num}" if num > 1 else ""
    if drawing:
        first = max(drawing, key=lambda event: event.step / max(1, event.steps))
        left = seconds_left(batch)
        time_left = f", {left:.0f} s left" if left is not None and left >= 1 else ", less than a second left"
        return status(f"Step {first.step} of {first.steps}{time_left}{pictures}", share)
    waiting = [tile.event.position for tile in batch.tiles if isinstance(tile.event, Waiting)]
    if waiting and min(waiting):
        return status(f"In the queue, {min(waiting)} before it{pictures}", share)
    return status(f"Next in the queue{pictures}", share)


def status(text: str, share: float | None = None) -> str:
    """Return a line that screen readers tell, over a bar where a share is given."""
    bar = ""
    if share is not None:
        percent = round(100 * min(1.0, share))
        bar = (
            f'<div class="lens-bar" role="progressbar" aria-label="Progress" aria-valuemin="0"'
            f' aria-valuemax="100" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
        )
    return f'<div class="lens-status"><p role="status" aria-live="polite">{escape(text)}</p>{bar}</div>'


def problem(error: Exception) -> str:
    """Return an error as a line; what is no LensError is a fault of ours and is not spelled out."""
    text = str(error) if isinstance(error, LensError) else FAULT
    return f'<div class="lens-status lens-problem"><p role="alert">{escape(text)}</p></div>'


def notes(lines: Sequence[str], first: str) -> str:
    """Return what happened, and what a person should know about it."""
    return status(" ".join([first, *lines]))


def listing(gallery: Gallery, shown: Sequence[Kept], num_found: int) -> str:
    """Return pictures as buttons that select them."""
    if not shown:
        return NOTHING_FOUND
    items = "".join(_item(kept, gallery.small(kept)) for kept in shown)
    found = f"{num_found} picture{'s' * (num_found != 1)}"
    more = f", the newest {len(shown)} shown" if len(shown) < num_found else ""
    return f'<p class="lens-count" role="status">{found}{more}</p><div class="lens-grid">{items}</div>'


def _item(kept: Kept, small: Path) -> str:
    prompt = escape(kept.settings.prompt, quote=True)
    star = f'<b aria-label="favourite">{STAR}</b>' if kept.is_favourite else ""
    return (
        f'<button type="button" class="lens-item" data-name="{escape(kept.name, quote=True)}"'
        f' title="{prompt}">'
        f'<img loading="lazy" src="{file_url(small)}" alt="{prompt}">{star}</button>'
    )


def picture(kept: Kept) -> str:
    """Return one picture, large, with its settings."""
    source, prompt = file_url(kept.path), escape(kept.settings.prompt, quote=True)
    star = f'<b aria-label="favourite">{STAR}</b> ' if kept.is_favourite else ""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts(kept.settings))
    return (
        f'<article class="lens-detail"><a href="{source}" target="_blank" rel="noopener"'
        f' aria-label="Open the full picture"><img src="{source}" alt="{prompt}"></a>'
        f"<p>{star}{prompt}</p><dl>{rows}</dl></article>"
    )


def facts(settings: PictureSettings) -> list[tuple[str, str]]:
    """Return (name, value) of what a person wants to know of a picture."""
    rows = [
        ("model", Path(settings.model).name),
        ("size", f"{settings.width} x {settings.height}"),
        ("seed", str(settings.seed)),
        ("steps", str(settings.steps)),
        ("guidance", f"{settings.guidance:g}"),
        ("solver", settings.solver),
    ]
    if settings.negative_prompt:
        rows.append(("negative", settings.negative_prompt))
    if settings.loras:
        loras = ", ".join(f"{Path(lora.path).stem} {lora.weight:g}" for lora in settings.loras)
        rows.append(("LoRAs", loras))
    if settings.strength is not None:
        rows.append(("strength", f"{settings.strength:g}"))
    return rows


def compared(first: Kept, second: Kept, rows: Sequence[tuple[str, str, str]]) -> str:
    """Return two pictures over each other with a slider between them, and what they differ in."""
    one, other = file_url(first.path), file_url(second.path)
    width, height = first.settings.width, first.settings.height
    table = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(a)}</td><td>{escape(b)}</td></tr>'
        for name, a, b in rows
    )
    return (
        f'<div class="lens-ab" style="aspect-ratio:{width}/{height};--split:50%">'
        f'<img src="{other}" alt="B: {escape(second.settings.prompt, quote=True)}">'
        f'<img class="lens-a" src="{one}" alt="A: {escape(first.settings.prompt, quote=True)}">'
        "<span>A</span><span>B</span></div>"
        '<input class="lens-split" type="range" min="0" max="100" value="50"'
        ' aria-label="How much of A is shown"'
        " oninput=\"this.previousElementSibling.style.setProperty('--split', this.value + '%')\">"
        '<table class="lens-table"><thead><tr><th scope="col">setting</th><th scope="col">A</th>'
        f'<th scope="col">B</th></tr></thead><tbody>{table}</tbody></table>'
    )


def data_url(image: Image.Image) -> str:
    """Return a picture as text that a page shows without another request."""
    image = image.convert("RGB")
    image.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX))
    data = BytesIO()
    image.save(data, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
