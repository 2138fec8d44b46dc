"""Handlers of the gallery and of the page that compares: names of images in, HTML and files out.

Knows nothing of Gradio and of how images are generated.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

from lens.errors import LensError
from lens.sampling.image_metadata import open_image
from lens.serve.api.generation import ProvenanceEmbedder
from lens.serve.safety.provenance import embed_provenance
from lens.serve.studio import gallery_html, html
from lens.serve.studio.contact_sheet import metadata_differences, render_side_by_side, sheet_metadata
from lens.serve.studio.gallery import Gallery, GalleryItem

PAGE_SIZE = 120
"""Images on one page of the gallery."""


class GallerySearch(NamedTuple):
    """What a visitor sees of the gallery."""

    words: str = ""
    only_favourites: bool = False
    page: int = 1


class GalleryView(NamedTuple):
    """What an action changes on the page; None leaves a part as it is, an empty dialog is a closed one."""

    list_html: str | None = None
    viewer_html: str | None = None
    zip_path: Path | None = None
    line_html: str | None = None


class GalleryHandlers:
    """The event handlers of one server's gallery; safe to share among pages."""

    def __init__(self, gallery: Gallery, embed: ProvenanceEmbedder = embed_provenance):
        self.gallery, self._embed = gallery, embed
        self._downloads = TemporaryDirectory(prefix="lens-studio-")

    def find_item(self, name: str | None) -> GalleryItem | None:
        """Return an image of the gallery, or None if it no longer exists."""
        with suppress(LensError):
            return self.gallery.item(name) if name else None
        return None

    def search(self, search: GallerySearch) -> tuple[str, bool]:
        """Return one page of the images that match as HTML, and whether there are any."""
        items = self.gallery.items(search.words, search.only_favourites)
        num_pages = max(1, -(-len(items) // PAGE_SIZE))
        page = min(max(1, search.page), num_pages)
        visible = items[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        return gallery_html.gallery_list(self.gallery, visible, len(items), page, num_pages), bool(items)

    def act(self, action: str, names: Sequence[str], search: GallerySearch) -> GalleryView:
        """Do what a button of the list stands for, on the images that are selected."""
        if action == "zip":
            path = self.write_zip([name for name in names if self.find_item(name)])
            return GalleryView(zip_path=path, line_html=html.status(_zip_text(path, len(names))))
        line = ""
        if action == "favour":
            is_favourite = not set(names) <= self.gallery.favourites()
            self.set_favourites(names, is_favourite)
            line = f"{html.num_images_text(len(names))} {favourite_text(is_favourite)}"
        if action == "delete":
            self.delete(names)
            line = f"{html.num_images_text(len(names))} deleted."
        return GalleryView(self.search(search)[0], line_html=html.status(line))

    def act_on_one(self, action: str, name: str, search: GallerySearch) -> GalleryView:
        """Do what a button of the dialog stands for, on the image that it shows, or show another image."""
        note = ""
        if action == "favourite":
            is_favourite = name not in self.gallery.favourites()
            self.set_favourites([name], is_favourite)
            note = f"The image is {favourite_text(is_favourite)}"
        if action in ("compare-a", "compare-b"):
            note = f"Selected as image {action[-1].upper()}; see the Compare page."
        place = self._place(name, search)
        if action == "delete":
            self.delete([name])
            name = place.next or place.previous or ""
            place, note = self._place(name, search), "The image was deleted."
        item = self.find_item(name)
        page = (place.number - 1) // PAGE_SIZE + 1
        is_changed = action in ("favourite", "delete") or page != search.page or item is None
        list_html = self.search(search._replace(page=page))[0] if is_changed else None
        if item is None:
            note = note or "The image is no longer in the gallery."
            return GalleryView(list_html, "", line_html=html.status(note))
        return GalleryView(list_html, gallery_html.viewer(item, place, note), line_html=html.status(""))

    def set_favourites(self, names: Sequence[str], is_favourite: bool) -> None:
        """Add images to the favourites, or remove them; those that no longer exist are left out."""
        for name in names:
            with suppress(LensError):
                self.gallery.set_favourite(name, is_favourite)

    def delete(self, names: Sequence[str]) -> None:
        """Delete images."""
        for name in names:
            with suppress(LensError):  # somebody else has deleted it
                self.gallery.delete(name)

    def export_zip(self, search: GallerySearch) -> tuple[Path | None, str]:
        """Return a ZIP file of all images that match, or None without a match, and a status line."""
        names = [item.name for item in self.gallery.items(search.words, search.only_favourites)]
        path = self.write_zip(names)
        return path, html.status(_zip_text(path, len(names)))

    def write_zip(self, names: Sequence[str]) -> Path | None:
        """Return a ZIP file of images; None without any."""
        return self.gallery.write_zip(names, self._download_path("lens-images.zip")) if names else None

    def compare(self, first: str | None, second: str | None) -> tuple[str, Path | None]:
        """Return two images with their differences as HTML, and a file that shows both."""
        a, b = self.find_item(first), self.find_item(second)
        if a is None or b is None:
            missing = " and ".join(name for name, item in (("A", a), ("B", b)) if item is None)
            line = f"Select {missing} in the gallery: open an image, then Compare as A or as B."
            return html.status(line), None
        text = gallery_html.comparison(a, b, metadata_differences(a.metadata, b.metadata))
        first_image, second_image = (open_image(item.path).convert("RGB") for item in (a, b))
        sheet = render_side_by_side(first_image, second_image, a.metadata.prompt)
        metadata = sheet_metadata(sheet, [(item.name, item.metadata) for item in (a, b)])
        try:
            content = self._embed(sheet, metadata, "png", None)
        except LensError as error:
            return html.error_line(error) + text, None
        path = self._download_path("a-b.png")
        path.write_bytes(content)
        return text, path

    def _place(self, name: str, search: GallerySearch) -> gallery_html.Place:
        """Return the place of an image, also of one that the search no longer finds."""
        names = [item.name for item in self.gallery.items(search.words, search.only_favourites)]
        newer = [other for other in names if other > name]
        older = [other for other in names if other < name]
        return gallery_html.Place(
            newer[-1] if newer else None, older[0] if older else None, len(newer) + 1, max(1, len(names))
        )

    def _download_path(self, name: str) -> Path:
        folder = Path(self._downloads.name) / uuid4().hex
        folder.mkdir()
        return folder / name


def favourite_text(is_favourite: bool) -> str:
    """Return what was done, as the end of a sentence."""
    return "added to the favourites." if is_favourite else "no longer among the favourites."


def _zip_text(path: Path | None, count: int) -> str:
    if path is None:
        return "There are no images to export."
    return f"The ZIP file of {html.num_images_text(count)} is ready."
