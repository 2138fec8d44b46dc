"""HTML of the studio: batches with their progress, the gallery, one image, two images compared.

Every text that a person typed is escaped here. Knows nothing of the page around it; `theme` has the styles.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lens.errors import GenerationCancelledError, LensError, SettingError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.api.errors import without_places
from lens.serve.engine.request import Failed, Queued, StepProgress
from lens.serve.studio.batches import BatchItem, StudioBatch
from lens.serve.studio.gallery import Gallery, GalleryItem

PREVIEW_SIDE_PX = 512
STAR = "&#9733;"
NOTICE = (
    "Research model, not for unattended production: a person reviews every image before it is used. "
    "Each image carries its settings and a mark that says it is AI-generated."
)

HEADER = """
<header class="lens-head">
 <span class="lens-mark" aria-hidden="true"></span>
 <h1>Lens</h1>
 <p class="lens-keys"><kbd>Ctrl</kbd>+<kbd>Enter</kbd> draws, <kbd>Esc</kbd> cancels</p>
 <button type="button" class="lens-dark" id="dark" aria-label="Toggle dark mode"
  onclick="lensDark(!document.body.classList.contains('dark'))">&#9680;</button>
</header>
"""
FOOTER = f'<footer class="lens-notice" role="note">{NOTICE}</footer>'
EMPTY_STAGE = (
    '<div class="lens-empty"><p>No image yet.</p>'
    "<p>Describe an image and press Draw.</p></div>"
)
INTERNAL_ERROR = "Internal error. The log of the server has the details."
NOTHING_FOUND = '<div class="lens-empty"><p>No images found.</p></div>'


def file_url(path: Path) -> str:
    """Return the URL of a gallery file, relative to the page."""
    return "gradio_api/file=" + quote(str(path.absolute()))


def batch_grid(batch: StudioBatch) -> str:
    """Return the images of a batch: finished, as previews, or as placeholders."""
    figures = "".join(_batch_item(item, number) for number, item in enumerate(batch.items))
    return f'<div class="lens-tiles lens-of-{min(len(batch.items), 4)}">{figures}</div>'


def _batch_item(item: BatchItem, number: int) -> str:
    request, event = item.request, item.event
    shape = f"aspect-ratio:{request.width}/{request.height}"
    label = f"{number + 1}: {escape(request.prompt, quote=True)}"
    if item.image is not None:
        source = file_url(item.gallery_item.path) if item.gallery_item else data_url(item.image)
        link = f'<a href="{source}" target="_blank" rel="noopener" aria-label="Open the full-size image">'
        inside, state = f'{link}<img src="{source}" alt="Image {label}" draggable="true"></a>', "done"
    elif isinstance(event, Failed):
        what = "Cancelled" if isinstance(event.error, GenerationCancelledError) else "Failed"
        inside, state = f"<span>{what}</span>", "failed"
    elif item.preview is not None:
        inside, state = f'<img src="{data_url(item.preview)}" alt="Preview of image {label}">', "preview"
    else:
        inside, state = "<span></span>", "waiting"
    caption = f"<figcaption>seed {request.seed}</figcaption>"
    return f'<figure class="lens-tile" data-state="{state}" style="{shape}">{inside}{caption}</figure>'


def progress(batch: StudioBatch) -> str:
    """Return the state of a batch: place in the queue, step and time left, result or error."""
    num_done, num_items = batch.num_done, len(batch.items)
    if batch.is_finished:
        error = batch.error
        if error is None:
            return status(f"Done: {num_images_text(num_items)}.", share=1.0)
        if isinstance(error, GenerationCancelledError):
            return status(f"Cancelled: {num_done} of {num_images_text(num_items)} done.")
        return error_line(error)
    in_progress = [item.event for item in batch.items if isinstance(item.event, StepProgress)]
    share = (num_done + sum(event.step / max(1, event.num_steps) for event in in_progress)) / num_items
    count = f", image {min(num_items, num_done + 1)} of {num_items}" if num_items > 1 else ""
    if in_progress:
        first = max(in_progress, key=lambda event: event.step / max(1, event.num_steps))
        left = batch.remaining_s
        time_left = f", {left:.0f} s left" if left is not None and left >= 1 else ", less than a second left"
        return status(f"Step {first.step} of {first.num_steps}{time_left}{count}", share)
    positions = [item.event.position for item in batch.items if isinstance(item.event, Queued)]
    if positions and min(positions):
        return status(f"Queued: {num_images_text(min(positions))} ahead{count}", share)
    return status(f"Next in the queue{count}", share)


def num_images_text(count: int) -> str:
    """Return `1 image`, `2 images`."""
    return f"{count} image{'s' * (count != 1)}"


def status(text: str, share: float | None = None) -> str:
    """Return a status line, which screen readers announce, and a progress bar if `share` is given."""
    bar = ""
    if share is not None:
        percent = round(100 * min(1.0, share))
        bar = (
            f'<div class="lens-bar" role="progressbar" aria-label="Progress" aria-valuemin="0"'
            f' aria-valuemax="100" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
        )
    return f'<div class="lens-status"><p role="status" aria-live="polite">{escape(text)}</p>{bar}</div>'


def error_line(error: Exception) -> str:
    """Return an error as a line; only the text of a LensError is shown, without places of the server."""
    text = str(error) if isinstance(error, LensError) else INTERNAL_ERROR
    text = text if isinstance(error, SettingError) else without_places(text)
    return f'<div class="lens-status lens-problem"><p role="alert">{escape(text)}</p></div>'


def warning_lines(warnings: Iterable[str]) -> str:
    """Return what a model does not know of a request as lines; empty without warnings."""
    return "".join(f'<p class="lens-hint" role="status">{escape(text)}</p>' for text in warnings)


def status_with_notes(lines: Sequence[str], first: str) -> str:
    """Return a status line with notes after it."""
    return status(" ".join([first, *lines]))


def gallery_grid(gallery: Gallery, visible: Sequence[GalleryItem], num_found: int) -> str:
    """Return images as buttons that select them."""
    if not visible:
        return NOTHING_FOUND
    items = "".join(_gallery_item(item, gallery.thumbnail(item)) for item in visible)
    count = num_images_text(num_found)
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
    """Return one image at full size with its metadata."""
    source, prompt = file_url(item.path), escape(item.metadata.prompt, quote=True)
    star = f'<b aria-label="favourite">{STAR}</b> ' if item.is_favourite else ""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in metadata_rows(item.metadata)
    )
    return (
        f'<article class="lens-detail"><a href="{source}" target="_blank" rel="noopener"'
        f' aria-label="Open the full-size image"><img src="{source}" alt="{prompt}"></a>'
        f"<p>{star}{prompt}</p><dl>{rows}</dl></article>"
    )


def metadata_rows(metadata: ImageMetadata) -> list[tuple[str, str]]:
    """Return (name, value) of the metadata that a person needs most."""
    rows = [
        ("model", Path(metadata.model).name),
        ("size", f"{metadata.width} x {metadata.height}"),
        ("seed", str(metadata.seed)),
        ("steps", str(metadata.steps)),
        ("guidance", f"{metadata.guidance:g}"),
        ("solver", metadata.solver),
    ]
    if metadata.negative_prompt:
        rows.append(("negative prompt", metadata.negative_prompt))
    if metadata.loras:
        loras = ", ".join(f"{Path(lora.path).stem} {lora.weight:g}" for lora in metadata.loras)
        rows.append(("LoRAs", loras))
    if metadata.strength is not None:
        rows.append(("strength", f"{metadata.strength:g}"))
    return rows


def comparison(first: GalleryItem, second: GalleryItem, rows: Sequence[tuple[str, str, str]]) -> str:
    """Return two images under a slider that reveals one or the other, and a table of their differences."""
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
        ' aria-label="Share of image A"'
        " oninput=\"this.previousElementSibling.style.setProperty('--split', this.value + '%')\">"
        '<table class="lens-table"><thead><tr><th scope="col">setting</th><th scope="col">A</th>'
        f'<th scope="col">B</th></tr></thead><tbody>{table}</tbody></table>'
    )


def data_url(image: Image.Image) -> str:
    """Return an image as a data URL, scaled down."""
    image = image.convert("RGB")
    image.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX))
    data = BytesIO()
    image.save(data, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
