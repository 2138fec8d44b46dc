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

from lens.errors import GenerationCancelledError, LensError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.engine.request import Failed, Finished, Queued, StepProgress
from lens.serve.studio.batches import BatchItem, StudioBatch, seconds_left
from lens.serve.studio.gallery import Gallery, GalleryItem

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
FOOTER = f'<footer class="lens-notice" role="note">{NOTICE}</footer>'
EMPTY_STAGE = (
    '<div class="lens-empty"><p>Nothing drawn yet.</p>'
    "<p>Say what the picture shows, and press Draw.</p></div>"
)
INTERNAL_ERROR = "Something went wrong here; the server's log says what."
NOTHING_FOUND = '<div class="lens-empty"><p>No picture here.</p></div>'


def file_url(path: Path) -> str:
    """Return the address under which the page finds a file of the gallery."""
    return "gradio_api/file=" + quote(str(path.absolute()))


def batch_grid(batch: StudioBatch) -> str:
    """Return the pictures of a batch as far as they are."""
    figures = "".join(_batch_item(item, number) for number, item in enumerate(batch.items))
    return f'<div class="lens-tiles lens-of-{min(len(batch.items), 4)}">{figures}</div>'


def _batch_item(item: BatchItem, number: int) -> str:
    request, event = item.request, item.event
    shape = f"aspect-ratio:{request.width}/{request.height}"
    name = f"Picture {number + 1}: {escape(request.prompt, quote=True)}"
    if isinstance(event, Finished):
        source = file_url(item.gallery_item.path) if item.gallery_item else data_url(event.image)
        link = f'<a href="{source}" target="_blank" rel="noopener" aria-label="Open the full picture">'
        inside, state = f'{link}<img src="{source}" alt="{name}" draggable="true"></a>', "done"
    elif isinstance(event, Failed):
        what = "Cancelled" if isinstance(event.error, GenerationCancelledError) else "No picture"
        inside, state = f"<span>{what}</span>", "failed"
    elif item.preview is not None:
        inside, state = f'<img src="{data_url(item.preview)}" alt="Preview of {name}">', "preview"
    else:
        inside, state = "<span></span>", "waiting"
    caption = f"<figcaption>seed {request.seed}</figcaption>"
    return f'<figure class="lens-tile" data-state="{state}" style="{shape}">{inside}{caption}</figure>'


def progress(batch: StudioBatch) -> str:
    """Return where a batch is: in the queue, at which step, how long it still takes, or what went wrong."""
    num_done = sum(isinstance(tile.event, Finished) for tile in batch.items)
    num_items = len(batch.items)
    if batch.is_finished:
        error = batch.error
        if error is None:
            return status(f"Done: {num_items} picture{'s' * (num_items > 1)}.", share=1.0)
        if isinstance(error, GenerationCancelledError):
            return status(f"Cancelled; {num_done} of {num_items} done.")
        return error_line(error)
    in_progress = [tile.event for tile in batch.items if isinstance(tile.event, StepProgress)]
    share = (num_done + sum(event.step / max(1, event.num_steps) for event in in_progress)) / num_items
    pictures = f", picture {min(num_items, num_done + 1)} of {num_items}" if num_items > 1 else ""
    if in_progress:
        first = max(in_progress, key=lambda event: event.step / max(1, event.num_steps))
        left = seconds_left(batch)
        time_left = f", {left:.0f} s left" if left is not None and left >= 1 else ", less than a second left"
        return status(f"Step {first.step} of {first.num_steps}{time_left}{pictures}", share)
    positions = [tile.event.position for tile in batch.items if isinstance(tile.event, Queued)]
    if positions and min(positions):
        return status(f"In the queue, {min(positions)} before it{pictures}", share)
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


def error_line(error: Exception) -> str:
    """Return an error as a line; what is no LensError is a fault of ours and is not spelled out."""
    text = str(error) if isinstance(error, LensError) else INTERNAL_ERROR
    return f'<div class="lens-status lens-problem"><p role="alert">{escape(text)}</p></div>'


def status_with_notes(lines: Sequence[str], first: str) -> str:
    """Return what happened, and what a person should know about it."""
    return status(" ".join([first, *lines]))


def gallery_grid(gallery: Gallery, visible: Sequence[GalleryItem], num_found: int) -> str:
    """Return pictures as buttons that select them."""
    if not visible:
        return NOTHING_FOUND
    items = "".join(_gallery_item(kept, gallery.thumbnail(kept)) for kept in visible)
    count = f"{num_found} picture{'s' * (num_found != 1)}"
    more = f", the newest {len(visible)} shown" if len(visible) < num_found else ""
    return f'<p class="lens-count" role="status">{count}{more}</p><div class="lens-grid">{items}</div>'


def _gallery_item(item: GalleryItem, thumbnail: Path) -> str:
    prompt = escape(item.metadata.prompt, quote=True)
    star = f'<b aria-label="favourite">{STAR}</b>' if item.is_favourite else ""
    return (
        f'<button type="button" class="lens-item" data-name="{escape(item.name, quote=True)}"'
        f' title="{prompt}">'
        f'<img loading="lazy" src="{file_url(thumbnail)}" alt="{prompt}">{star}</button>'
    )


def image_detail(item: GalleryItem) -> str:
    """Return one picture, large, with its settings."""
    source, prompt = file_url(item.path), escape(item.metadata.prompt, quote=True)
    star = f'<b aria-label="favourite">{STAR}</b> ' if item.is_favourite else ""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in metadata_rows(item.metadata)
    )
    return (
        f'<article class="lens-detail"><a href="{source}" target="_blank" rel="noopener"'
        f' aria-label="Open the full picture"><img src="{source}" alt="{prompt}"></a>'
        f"<p>{star}{prompt}</p><dl>{rows}</dl></article>"
    )


def metadata_rows(metadata: ImageMetadata) -> list[tuple[str, str]]:
    """Return (name, value) of what a person wants to know of a picture."""
    rows = [
        ("model", Path(metadata.model).name),
        ("size", f"{metadata.width} x {metadata.height}"),
        ("seed", str(metadata.seed)),
        ("steps", str(metadata.steps)),
        ("guidance", f"{metadata.guidance:g}"),
        ("solver", metadata.solver),
    ]
    if metadata.negative_prompt:
        rows.append(("negative", metadata.negative_prompt))
    if metadata.loras:
        loras = ", ".join(f"{Path(lora.path).stem} {lora.weight:g}" for lora in metadata.loras)
        rows.append(("LoRAs", loras))
    if metadata.strength is not None:
        rows.append(("strength", f"{metadata.strength:g}"))
    return rows


def comparison(first: GalleryItem, second: GalleryItem, rows: Sequence[tuple[str, str, str]]) -> str:
    """Return two pictures over each other with a slider between them, and what they differ in."""
    first_url, second_url = file_url(first.path), file_url(second.path)
    width, height = first.metadata.width, first.metadata.height
    table = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(a)}</td><td>{escape(b)}</td></tr>'
        for name, a, b in rows
    )
    return (
        f'<div class="lens-ab" style="aspect-ratio:{width}/{height};--split:50%">'
        f'<img src="{second_url}" alt="B: {escape(second.metadata.prompt, quote=True)}">'
        f'<img class="lens-a" src="{first_url}" alt="A: {escape(first.metadata.prompt, quote=True)}">'
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
