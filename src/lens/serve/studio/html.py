"""HTML of the studio: batches with their progress, status lines, and the parts that pages share.

Every text that a person typed is escaped here. Knows nothing of the page around it; `theme` has the styles.
"""

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lens.core.prompt_text import TokenCount
from lens.errors import GenerationCancelledError, LensError, SettingError
from lens.reasoner.outcome import Reasoned
from lens.serve.api.errors import without_places
from lens.serve.engine.request import Failed, Queued, StepProgress
from lens.serve.studio.batches import BatchItem, StudioBatch
from lens.serve.studio.form import LABELS

PREVIEW_SIDE_PX = 512
SMALL_PX = 320
"""Up to this width an image shows its pixels as such: every tile has room for it, so none is shrunk."""
PRESSED = {True: "true", False: "false"}
NOTICE = (
    "Research model, not for unattended production: a person reviews every image before it is used. "
    "Each image carries its settings and a mark that says it is AI-generated."
)

HEADER = """
<p id="lens-gone" role="alert"></p>
<header class="lens-head">
 <span class="lens-mark" aria-hidden="true"></span>
 <h1>Lens</h1>
 <p class="lens-keys"><kbd>Ctrl</kbd>+<kbd>Enter</kbd> draws, <kbd>Esc</kbd> cancels</p>
 <button type="button" class="lens-dark" id="dark" aria-label="Toggle dark mode"
  onclick="lensDark(!document.body.classList.contains('dark'))">&#9680;</button>
</header>
"""
FOOTER = f'<footer class="lens-notice">{NOTICE}</footer>'
EMPTY_STAGE = (
    '<div class="lens-empty"><p>No image yet.</p>'
    "<p>Describe an image and press Draw.</p></div>"
)
INTERNAL_ERROR = "Internal error. The log of the server has the details."


def file_url(path: Path) -> str:
    """Return the URL of a gallery file, relative to the page."""
    return "gradio_api/file=" + quote(str(path.absolute()))


def batch_grid(batch: StudioBatch, favourites: Collection[str] = ()) -> str:
    """Return the images of a batch: finished, as previews, or as placeholders."""
    figures = "".join(_batch_item(item, number, favourites) for number, item in enumerate(batch.items, 1))
    widest = max(item.request.width for item in batch.items)
    css = f"lens-tiles lens-of-{min(len(batch.items), 4)}"
    return f'<div class="{css}" style="--widest:{widest}">{figures}</div>'


def _batch_item(item: BatchItem, number: int, favourites: Collection[str]) -> str:
    request, event = item.request, item.event
    label = f"{number}: {escape(request.prompt, quote=True)}"
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
    return (
        f'<figure class="lens-tile" data-state="{state}">{frame(request.width, request.height, inside)}'
        f"<figcaption>seed {request.seed}</figcaption>"
        f'<div class="lens-actions">{_tile_actions(item, favourites)}</div></figure>'
    )


def _tile_actions(item: BatchItem, favourites: Collection[str]) -> str:
    """Return what can be done with one image of a batch; nothing can until it is in the gallery."""
    name = item.gallery_item.name if item.gallery_item else ""
    path = item.gallery_item.path if item.gallery_item else None
    buttons = [
        action_button(
            "favourite", "Favourite", name, pressed=PRESSED[name in favourites], is_disabled=not name
        ),
        action_button("source", "Use as source", name, is_disabled=not name),
        action_button("larger", "Larger", name, event="larger", is_disabled=not name),
        action_button("seed", "Reuse seed", name, data={"seed": item.request.seed}, is_disabled=not name),
        download_link(path),
    ]
    return "".join(buttons)


def frame(width: int, height: int, inside: str, css: str = "", style: str = "") -> str:
    """Return a box in the shape of an image, which `studio.css` makes as large as its room allows."""
    small = " lens-small" * (width <= SMALL_PX)
    return f'<div class="lens-frame {css}{small}" style="--w:{width};--h:{height};{style}">{inside}</div>'


def action_button(
    action: str,
    text: str,
    name: str = "",
    *,
    data: Mapping[str, object] | None = None,
    event: str = "",
    keys: str = "",
    pressed: str = "",
    css: str = "",
    confirm: str = "",
    is_disabled: bool = False,
) -> str:
    """Return a button whose click sends an action on the image of a name, and further data."""
    sent = {"data-action": action, "data-name": name, "data-event": event, "data-confirm": confirm}
    sent |= {f"data-{key}": value for key, value in (data or {}).items()}
    sent |= {"aria-keyshortcuts": keys, "aria-pressed": pressed, "class": css}
    attributes = "".join(f' {key}="{escape(str(value), quote=True)}"' for key, value in sent.items() if value)
    return f'<button type="button"{attributes}{" disabled" * is_disabled}>{escape(text)}</button>'


def download_link(path: Path | None) -> str:
    """Return a link that downloads a file of the gallery; a button that is disabled without one."""
    if path is None:
        return '<button type="button" disabled>Download</button>'
    return f'<a href="{file_url(path)}" download="{escape(path.name, quote=True)}">Download</a>'


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
    return f'<div class="lens-status lens-problem"><p role="alert">{escape(error_text(error))}</p></div>'


def error_text(error: Exception) -> str:
    """Return an error in the words of the page, which has labels for the settings."""
    if not isinstance(error, LensError):
        return INTERNAL_ERROR
    if not isinstance(error, SettingError):
        return without_places(str(error))
    name = error.setting
    return LABELS.get(name, name) + str(error).removeprefix(name)


def warning_lines(warnings: Iterable[str]) -> str:
    """Return what is told of a request as lines; empty without warnings."""
    return "".join(f'<p class="lens-hint" role="status">{escape(text)}</p>' for text in warnings)


def reasoned_lines(reasoned: Reasoned, template: str | None = None) -> str:
    """Return what a reasoner made of a prompt: outcome, reason and checks in words.

    `template` is the prompt before its alternatives were chosen, where it had any.
    """
    reason = f" {without_places(reasoned.reason)}" if reasoned.reason else ""
    if reasoned.outcome == "failed":
        lines = [f'<p role="alert">{escape(without_places(reasoned.warning or ""))}</p>']
    elif reasoned.outcome == "refined":
        by = f" by {reasoned.model}" if reasoned.model else ""
        text = f"Refined{by}. Edit the new prompt, then use it or keep the original.{reason}"
        lines = [f'<p role="status" aria-live="polite">{escape(text)}</p>']
    else:
        text = f"Unchanged: the prompt can be drawn as it is.{reason}"
        lines = [f'<p role="status" aria-live="polite">{escape(text)}</p>']
    if template is not None:
        lines.append('<p class="lens-hint">Alternatives and wildcards were chosen before.</p>')
    kept = [check.rule.replace("_", " ") for check in reasoned.checks if check.is_kept]
    if kept:
        lines.append(f'<p class="lens-hint">Kept, as a program checked: {escape(", ".join(kept))}.</p>')
    for check in reasoned.checks:
        if not check.is_kept:
            text = f"Not kept: {check.rule.replace('_', ' ')}{f' ({check.detail})' if check.detail else ''}."
            lines.append(f'<p class="lens-hint">{escape(text)}</p>')
    css = "lens-status lens-problem" if reasoned.outcome == "failed" else "lens-status"
    return f'<div class="{css}">{"".join(lines)}</div>'


def token_line(count: TokenCount) -> str:
    """Return how much of the room for a prompt is taken."""
    return f'<p class="lens-count" id="token-count">{count.num_tokens} of {count.room} tokens</p>'


def status_with_notes(lines: Sequence[str], first: str) -> str:
    """Return a status line with notes after it."""
    return status(" ".join([first, *lines]))


def data_url(image: Image.Image) -> str:
    """Return an image as a data URL, scaled down."""
    image = image.convert("RGB")
    image.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX))
    data = BytesIO()
    image.save(data, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
