"""What happens when somebody presses something in the studio: plain values in, plain values out.

Knows nothing of Gradio: `studio.py` hands over what the controls hold, in the order of `FIELDS`, and puts
what comes back where it belongs.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from uuid import uuid4

from PIL import Image, ImageChops

from lens.errors import LensError, SettingError
from lens.sampling.image_metadata import open_image, read_settings
from lens.serve.api.generation import NO_HOOKS, Hooks
from lens.serve.engine.request import Drawer, DrawRequest, LoraWanted, OfferedModel
from lens.serve.studio import html as html
from lens.serve.studio.batches import Batch, Drawings
from lens.serve.studio.contact_sheet import cells, differences, parse_axis, sheet, side_by_side
from lens.serve.studio.form import Form, request_of, requests_of, restored, with_seed
from lens.serve.studio.gallery import Gallery, Kept
from lens.serve.studio.snippets import as_curl, as_python

logger = logging.getLogger(__name__)

FIELDS = (
    "prompt", "model", "aspect_ratio", "base_resolution", "seed", "is_seed_locked", "count", "steps",
    "guidance", "negative_prompt", "solver", "size", "loras", "start", "strength",
)  # fmt: skip
"""The controls, in order; `start` holds a picture and what was painted over it."""
SHEET_SIDE_PX = 512
"""Larger pictures are made smaller on a sheet."""
MAX_LISTED = 120
Changes = dict[str, Any]
"""New values of controls, by field."""


class Screen(NamedTuple):
    """What a page shows of a batch."""

    batch: str
    tiles: str
    status: str
    seed: int
    is_over: bool
    last: str | None
    """Name of the newest finished picture."""


class StudioEvents:
    """The studio of one server; safe to share among pages."""

    def __init__(self, drawer: Drawer, gallery: Gallery, hooks: Hooks = NO_HOOKS):
        self.drawer, self.gallery, self.hooks = drawer, gallery, hooks
        self.drawings = Drawings(drawer, self._check_picture if hooks.check_picture else None)
        self._downloads = TemporaryDirectory(prefix="lens-studio-")

    def model(self, name: str) -> OfferedModel:
        """Return an offered model, the first where there is none of this name."""
        models = self.drawer.models()
        return next((model for model in models if model.name == name), models[0])

    def form(self, values: Sequence[Any]) -> Form:
        """Return what the controls hold as a form; pictures to start from are kept in the gallery's folder.

        Raises: SettingError for a number that is none.
        """
        given: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
        given["seed"] = given["seed"] or 0
        for name, kind in (("seed", int), ("count", int), ("steps", int), ("base_resolution", int),
                           ("guidance", float), ("strength", float)):  # fmt: skip
            try:
                given[name] = kind(given[name])
            except (TypeError, ValueError):
                raise SettingError(name, given[name], "a number") from None
        image, mask = image_and_mask(given.pop("start"))
        given["loras"] = loras_of(given["loras"])
        given["image"] = self.gallery.keep_input(image) if image else None
        given["mask"] = self.gallery.keep_input(mask) if mask else None
        texts: dict[str, Any] = {name: given[name] or "" for name in ("prompt", "negative_prompt", "size")}
        return Form(**(given | texts))

    def draw(self, values: Sequence[Any], caller: str) -> Iterator[Screen]:
        """Begin a batch and tell how it goes, to its end."""
        try:
            form = with_seed(self.form(values))
            requests = requests_of(form, caller)
            self._check_words(requests)
            batch = self.drawings.start(requests, self.gallery)
        except LensError as error:
            yield Screen("", "", html.problem(error), values[FIELDS.index("seed")], True, None)
            return
        yield from self._screens(batch)

    def watch(self, name: str | None) -> Iterator[Screen]:
        """Go on telling of a batch that a page asked for before it was reloaded, while it is remembered."""
        batch = self.drawings.find(name)
        if batch is not None:
            yield from self._screens(batch)

    def _screens(self, batch: Batch) -> Iterator[Screen]:
        seed = batch.tiles[0].request.seed
        shown = None
        for _ in batch.changes():
            seen = [(tile.kept, id(tile.preview), tile.is_over) for tile in batch.tiles]
            tiles = "" if seen == shown else html.tiles(batch)  # pictures are large, and steps are many
            shown = seen
            last = next((tile.kept.name for tile in batch.tiles if tile.kept), None)
            yield Screen(batch.name, tiles, html.progress(batch), seed, batch.is_over, last)
        if batch.error is not None and not isinstance(batch.error, LensError):
            logger.error("A picture of the studio failed.", exc_info=batch.error)

    def cancel(self, name: str | None) -> None:
        """Stop a batch."""
        batch = self.drawings.find(name)
        if batch is not None:
            batch.cancel()

    def enhanced(self, prompt: str) -> tuple[str, str]:
        """Return the prompt written out, and a line that says how that went."""
        if self.hooks.enhance is None:
            return prompt, html.status("No language model is configured here.")
        if not prompt.strip():
            return prompt, html.problem(SettingError("prompt", prompt, "some words"))
        try:
            text = self.hooks.enhance(prompt)
            return text, html.status("Change it as you like, then use it or keep your own.")
        except LensError as error:
            return prompt, html.problem(error)

    def restore(self, path: Path, values: Sequence[Any]) -> tuple[Changes, str]:
        """Return the controls' values that draw a picture again, and a line about it."""
        try:
            settings = read_settings(path)
            with_defaults = [0 if value is None else value for value in values]
            form, notes = restored(
                settings,
                self.form(with_defaults),
                self.drawer.models(),
                self.drawer.loras(),
                self.gallery,
            )
        except (LensError, Image.DecompressionBombError) as error:
            return {}, html.problem(_without_path(error, path))
        changes = {name: getattr(form, name) for name in FIELDS if name != "start"}
        changes["loras"] = [[lora.name, lora.weight] for lora in form.loras]
        changes["start"] = start_value(form.image, form.mask)
        return changes, html.notes(notes, "Settings restored; the seed is locked.")

    def code(self, values: Sequence[Any], base_url: str) -> tuple[str, str]:
        """Return the controls' values as a curl command and as Python; what is wrong is a comment."""
        try:
            form = self.form(values)
            return as_curl(form, base_url), as_python(form, base_url)
        except LensError as error:
            return f"# {error}", f"# {error}"

    def listing(self, search: str, only_favourites: bool) -> str:
        """Return the gallery, as far as it is searched for."""
        found = self.gallery.pictures(search or "", only_favourites)
        return html.listing(self.gallery, found[:MAX_LISTED], len(found))

    def selected(self, name: str | None) -> Kept | None:
        """Return a picture of the gallery, unless it was deleted meanwhile."""
        with suppress(LensError):
            return self.gallery.picture(name) if name else None
        return None

    def toggle_favourite(self, name: str | None) -> None:
        """Make a picture a favourite, or an ordinary one again."""
        kept = self.selected(name)
        if kept is not None:
            self.gallery.mark(kept.name, not kept.is_favourite)

    def delete(self, name: str | None) -> None:
        """Delete a picture."""
        kept = self.selected(name)
        if kept is not None:
            self.gallery.delete(kept.name)

    def pack(self, search: str, only_favourites: bool) -> Path | None:
        """Return a zip of all pictures that a search finds; None where it finds nothing."""
        names = [kept.name for kept in self.gallery.pictures(search or "", only_favourites)]
        if not names:
            return None
        return self.gallery.write_zip(names, self._temporary("lens-pictures.zip"))

    def compare(self, first: str | None, second: str | None) -> tuple[str, Path | None]:
        """Return two pictures over each other with what they differ in, and a sheet of both."""
        a, b = self.selected(first), self.selected(second)
        if a is None or b is None:
            missing = " and ".join(name for name, kept in (("A", a), ("B", b)) if kept is None)
            return html.status(f"Choose {missing} in the gallery."), None
        both = side_by_side(_opened(a.path), _opened(b.path), a.settings.prompt)
        path = self._temporary("a-b.png")
        both.save(path)
        return html.compared(a, b, differences(a.settings, b.settings)), path

    def grid(
        self, values: Sequence[Any], x: str, x_values: str, y: str, y_values: str, caller: str
    ) -> Iterator[tuple[str, str, Path | None]]:
        """Draw a grid over two settings: yields (batch, line, sheet), the sheet at the end."""
        try:
            models = self.drawer.models()
            across, down = parse_axis(x, x_values, models), parse_axis(y, y_values, models)
            form = with_seed(self.form(values))
            requests = [request_of(cell, caller) for cell in cells(form, across, down)]
            self._check_words(requests)
        except LensError as error:
            yield "", html.problem(error), None
            return
        batch = self.drawings.start([replace(request, previews=0) for request in requests], None)
        for _ in batch.changes():
            yield batch.name, html.progress(batch), None
        images = [_small(image) for image in batch.images]
        self.drawings.forget(batch)
        if not any(images):
            return
        page = sheet(images, across.labels, down.labels, form.prompt)
        yield batch.name, html.progress(batch), self.gallery.keep_sheet(page, f"{x} {y} {form.prompt}")


    def _temporary(self, name: str) -> Path:
        folder = Path(self._downloads.name) / uuid4().hex
        folder.mkdir()
        return folder / name

    def _check_words(self, requests: Sequence[DrawRequest]) -> None:
        if self.hooks.check_prompt is None:
            return
        caller = requests[0].caller
        for words in {f"{one.prompt}\n{one.negative_prompt}".strip() for one in requests}:
            self.hooks.check_prompt(words, caller)

    def _check_picture(self, image: Image.Image, caller: str) -> None:
        if self.hooks.check_picture is not None:
            self.hooks.check_picture(image, caller)


def image_and_mask(start: Any) -> tuple[Image.Image | None, Image.Image | None]:
    """Return the picture to start from, and in white what was painted over it; None for what is not there."""
    if not isinstance(start, dict) or start.get("background") is None:
        return None, None
    background: Image.Image = start["background"]
    if background.mode == "RGBA" and background.getchannel("A").getextrema() == (0, 0):
        return None, None  # an editor that nobody put a picture into
    painted = Image.new("L", background.size, 0)
    for layer in start.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A")
        painted = ImageChops.lighter(painted, alpha.point(lambda value: 255 if value > 0 else 0))
    return background.convert("RGB"), painted if painted.getbbox() else None


def start_value(image: Path | None, mask: Path | None) -> Any:
    """Return the value that puts a picture and a mask back: the other way round of `image_and_mask`."""
    if image is None:
        return None
    background = _opened(image)
    layers = []
    if mask is not None:
        alpha = _opened(mask).convert("L")
        layer = Image.new("RGBA", alpha.size, (255, 255, 255, 0))
        layer.putalpha(alpha)
        layers = [layer]
    return {"background": background, "layers": layers, "composite": None}


def loras_of(rows: Any) -> tuple[LoraWanted, ...]:
    """Return the LoRAs of a table of names and weights."""
    wanted = []
    for row in rows or ():
        name, weight = (*row, None, None)[:2]
        if not name:
            continue
        try:
            wanted.append(LoraWanted(str(name), float(1.0 if weight in (None, "") else weight)))
        except ValueError:
            raise SettingError(f"weight of {name}", weight, "a number") from None
    return tuple(wanted)


def _opened(path: Path) -> Image.Image:
    return open_image(path).convert("RGB")


def _small(image: Image.Image | None) -> Image.Image | None:
    if image is None or max(image.size) <= SHEET_SIDE_PX:
        return image
    image = image.copy()
    image.thumbnail((SHEET_SIDE_PX, SHEET_SIDE_PX))
    return image


def _without_path(error: Exception, path: Path) -> LensError:
    return LensError(str(error).replace(str(path), "The file"))
