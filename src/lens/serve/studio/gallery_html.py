"""HTML of the gallery: the list of images, the dialog with one of them, two images compared.

Every text that a person typed is escaped here. `studio.js` sends what the buttons stand for.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from lens.sampling.image_metadata import ImageMetadata
from lens.serve.studio.gallery import Gallery, GalleryItem
from lens.serve.studio.html import (
    PRESSED,
    action_button,
    download_link,
    file_url,
    frame,
    num_images_text,
    status,
)

STAR = '<b role="img" aria-label="favourite">&#9733;</b>'
NOTHING_FOUND = '<div class="lens-empty"><p>No images found.</p></div>'


class Place(NamedTuple):
    """Where an image is among those that a search found, the newest first."""

    previous: str | None
    """Name of the image before it, which is newer."""
    next: str | None
    number: int
    count: int


def gallery_list(
    gallery: Gallery, visible: Sequence[GalleryItem], num_found: int, page: int, num_pages: int
) -> str:
    """Return one page of images as buttons that open them, with boxes that select them."""
    if not visible:
        return NOTHING_FOUND
    pages, pages_text = "", ""
    if num_pages > 1:
        pages_text = f", page {page} of {num_pages}"
        newer = action_button("page", "Newer", data={"page": page - 1}, is_disabled=page == 1)
        older = action_button("page", "Older", data={"page": page + 1}, is_disabled=page == num_pages)
        pages = f'<nav class="lens-actions" aria-label="Pages of the gallery">{newer}{older}</nav>'
    items = "".join(_list_item(item, gallery.thumbnail(item)) for item in visible)
    return (
        f'<div class="lens-toolbar" data-page-shown="{page}">'
        f'<p class="lens-count" role="status">{num_images_text(num_found)}{pages_text}</p>{pages}'
        f'<div class="lens-actions" role="group" aria-label="Selected images">{_SELECTION_BUTTONS}</div>'
        f'</div><ul class="lens-grid">{items}</ul>'
    )


_SELECTION_BUTTONS = (
    '<span class="lens-selected" role="status">0 selected</span>'
    '<button type="button" data-all>Select all</button>'
    '<button type="button" data-many data-action="favour" disabled>Favourite</button>'
    '<button type="button" data-many data-action="zip" disabled>ZIP</button>'
    '<button type="button" data-many data-action="delete" class="lens-delete" disabled>Delete</button>'
)


def _list_item(item: GalleryItem, thumbnail: Path) -> str:
    prompt, name = escape(item.metadata.prompt, quote=True), escape(item.name, quote=True)
    star = STAR if item.is_favourite else ""
    return (
        f'<li><button type="button" class="lens-item" data-action="open" data-name="{name}" title="{prompt}">'
        f'<img loading="lazy" src="{file_url(thumbnail)}" alt="{prompt}"></button>'
        f'<label class="lens-pick"><input type="checkbox" data-name="{name}" aria-label="Select: {prompt}">'
        f"</label>{star}</li>"
    )


def viewer(item: GalleryItem, place: Place, note: str = "") -> str:
    """Return the dialog of one image: at full size, with its metadata and what can be done with it."""
    metadata = item.metadata
    prompt, name = escape(metadata.prompt, quote=True), escape(item.name, quote=True)
    source = file_url(item.path)
    previous, following = (
        action_button("open", text, other or "", keys=keys, is_disabled=other is None)
        for text, other, keys in (
            ("Previous", place.previous, "ArrowLeft"), ("Next", place.next, "ArrowRight"),
        )
    )  # fmt: skip
    actions = "".join(
        [
            download_link(item.path),
            action_button("favourite", "Favourite", item.name, pressed=PRESSED[item.is_favourite]),
            action_button("restore", "Restore settings", item.name, event="restore"),
            action_button("source", "Use as source", item.name, event="source"),
            action_button("compare-a", "Compare as A", item.name),
            action_button("compare-b", "Compare as B", item.name),
            action_button("delete", "Delete", item.name, css="lens-delete", confirm="Delete this image?"),
        ]
    )
    rows = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in metadata_rows(metadata)
    )
    image = (
        f'<a href="{source}" target="_blank" rel="noopener" aria-label="Open the full-size image">'
        f'<img src="{source}" alt="{prompt}"></a>'
    )
    return (
        f'<dialog open class="lens-viewer lens-detail" data-name="{name}" aria-label="Image of the gallery">'
        f'<div class="lens-viewer-bar lens-actions">{previous}<p>{place.number} of {place.count}</p>'
        f"{following}{action_button('close', 'Close')}</div>"
        f"{frame(metadata.width, metadata.height, image)}"
        f"<p>{STAR if item.is_favourite else ''} {prompt}</p>"
        f'<div class="lens-actions">{actions}</div>{status(note)}<dl>{rows}</dl></dialog>'
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
    if metadata.cache is not None:
        rows.append(("cache", metadata.cache))
    if metadata.negative_prompt:
        rows.append(("negative prompt", metadata.negative_prompt))
    if metadata.loras:
        loras = ", ".join(f"{Path(lora.path).stem} {lora.weight:g}" for lora in metadata.loras)
        rows.append(("LoRAs", loras))
    if metadata.strength is not None:
        rows.append(("strength", f"{metadata.strength:g}"))
    if (record := metadata.reasoner) is not None:
        if metadata.request != metadata.prompt:
            rows.append(("asked for", metadata.request))
        made = [record.outcome, record.model and f"by {record.model}"]
        rows.append(("reasoner", " ".join(filter(None, made))))
        if record.system_prompt is not None:
            rows.append(("system prompt", f"{record.system_prompt} {(record.system_prompt_hash or '')[:12]}"))
    return rows


def comparison(first: GalleryItem, second: GalleryItem, rows: Sequence[tuple[str, str, str]]) -> str:
    """Return two images under a slider that reveals one or the other, and a table of their differences."""
    first_url, second_url = file_url(first.path), file_url(second.path)
    table = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(a)}</td><td>{escape(b)}</td></tr>'
        for name, a, b in rows
    )
    images = (
        f'<img src="{second_url}" alt="B: {escape(second.metadata.prompt, quote=True)}">'
        f'<img class="lens-a" src="{first_url}" alt="A: {escape(first.metadata.prompt, quote=True)}">'
        "<span>A</span><span>B</span>"
    )
    return (
        frame(first.metadata.width, first.metadata.height, images, css="lens-ab", style="--split:50%")
        + '<input class="lens-split" type="range" min="0" max="100" value="50"'
        ' aria-label="Share of image A"'
        " oninput=\"this.previousElementSibling.style.setProperty('--split', this.value + '%')\">"
        '<table class="lens-table"><thead><tr><th scope="col">setting</th><th scope="col">A</th>'
        f'<th scope="col">B</th></tr></thead><tbody>{table}</tbody></table>'
    )
