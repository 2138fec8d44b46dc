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
from lens.sampling.image_metadata import open_image, read_image_metadata
from lens.serve.api.generation import NO_HOOKS, GenerationHooks
from lens.serve.engine.request import EngineClient, GenerationRequest, LoraRequest, ModelInfo
from lens.serve.studio import html as html
from lens.serve.studio.batches import BatchManager, StudioBatch
from lens.serve.studio.contact_sheet import (
    grid_forms,
    metadata_differences,
    parse_axis,
    render_sheet,
    render_side_by_side,
)
from lens.serve.studio.form import (
    StudioForm,
    generation_request,
    generation_requests,
    randomize_seed,
    restore_form,
)
from lens.serve.studio.gallery import Gallery, GalleryItem
from lens.serve.studio.snippets import curl_command, python_script

logger = logging.getLogger(__name__)

FORM_FIELDS = (
    "prompt", "model", "aspect_ratio", "base_resolution", "seed", "is_seed_locked", "count", "steps",
    "guidance", "negative_prompt", "solver", "size", "loras", "start", "strength",
)  # fmt: skip
"""The controls, in order; `start` holds a picture and what was painted over it."""
SHEET_SIDE_PX = 512
"""Larger pictures are made smaller on a sheet."""
MAX_LISTED = 120
ControlValues = dict[str, Any]
"""New values of controls, by field."""


class BatchView(NamedTuple):
    """What a page shows of a batch."""

    batch_id: str
    tiles_html: str
    status_html: str
    seed: int
    is_finished: bool
    last_item: str | None
    """Name of the newest finished picture."""


class StudioHandlers:
    """The studio of one server; safe to share among pages."""

    def __init__(self, drawer: EngineClient, gallery: Gallery, hooks: GenerationHooks = NO_HOOKS):
        self.engine, self.gallery, self.hooks = drawer, gallery, hooks
        self.batches = BatchManager(drawer, self._check_image if hooks.check_image else None)
        self._downloads = TemporaryDirectory(prefix="lens-studio-")

    def model(self, name: str) -> ModelInfo:
        """Return an offered model, the first where there is none of this name."""
        models = self.engine.models()
        return next((model for model in models if model.name == name), models[0])

    def parse_form(self, values: Sequence[Any]) -> StudioForm:
        """Return what the controls hold as a form; pictures to start from are kept in the gallery's folder.

        Raises: SettingError for a number that is none.
        """
        fields: dict[str, Any] = dict(zip(FORM_FIELDS, values, strict=True))
        fields["seed"] = fields["seed"] or 0
        for name, kind in (("seed", int), ("count", int), ("steps", int), ("base_resolution", int),
                           ("guidance", float), ("strength", float)):  # fmt: skip
            try:
                fields[name] = kind(fields[name])
            except (TypeError, ValueError):
                raise SettingError(name, fields[name], "a number") from None
        image, mask = image_and_mask(fields.pop("start"))
        fields["loras"] = parse_loras(fields["loras"])
        fields["image"] = self.gallery.save_input(image) if image else None
        fields["mask"] = self.gallery.save_input(mask) if mask else None
        texts: dict[str, Any] = {name: fields[name] or "" for name in ("prompt", "negative_prompt", "size")}
        return StudioForm(**(fields | texts))

    def draw(self, values: Sequence[Any], caller: str) -> Iterator[BatchView]:
        """Begin a batch and tell how it goes, to its end."""
        try:
            form = randomize_seed(self.parse_form(values))
            requests = generation_requests(form, caller)
            self._check_prompts(requests)
            batch = self.batches.start(requests, self.gallery)
        except LensError as error:
            yield BatchView("", "", html.error_line(error), values[FORM_FIELDS.index("seed")], True, None)
            return
        yield from self._batch_views(batch)

    def watch(self, name: str | None) -> Iterator[BatchView]:
        """Go on telling of a batch that a page asked for before it was reloaded, while it is remembered."""
        batch = self.batches.find(name)
        if batch is not None:
            yield from self._batch_views(batch)

    def _batch_views(self, batch: StudioBatch) -> Iterator[BatchView]:
        seed = batch.items[0].request.seed
        last_state = None
        for _ in batch.changes():
            state = [(tile.gallery_item, id(tile.preview), tile.is_finished) for tile in batch.items]
            tiles = (
                "" if state == last_state else html.batch_grid(batch)
            )  # pictures are large, and steps are many
            last_state = state
            last_item = next((tile.gallery_item.name for tile in batch.items if tile.gallery_item), None)
            yield BatchView(batch.batch_id, tiles, html.progress(batch), seed, batch.is_finished, last_item)
        if batch.error is not None and not isinstance(batch.error, LensError):
            logger.error("A picture of the studio failed.", exc_info=batch.error)

    def cancel(self, name: str | None) -> None:
        """Stop a batch."""
        batch = self.batches.find(name)
        if batch is not None:
            batch.cancel()

    def enhance(self, prompt: str) -> tuple[str, str]:
        """Return the prompt written out, and a line that says how that went."""
        if self.hooks.enhance_prompt is None:
            return prompt, html.status("No language model is configured here.")
        if not prompt.strip():
            return prompt, html.error_line(SettingError("prompt", prompt, "some words"))
        try:
            text = self.hooks.enhance_prompt(prompt)
            return text, html.status("Change it as you like, then use it or keep your own.")
        except LensError as error:
            return prompt, html.error_line(error)

    def restore(self, path: Path, values: Sequence[Any]) -> tuple[ControlValues, str]:
        """Return the controls' values that draw a picture again, and a line about it."""
        try:
            settings = read_image_metadata(path)
            with_defaults = [0 if value is None else value for value in values]
            form, notes = restore_form(
                settings,
                self.parse_form(with_defaults),
                self.engine.models(),
                self.engine.loras(),
                self.gallery,
            )
        except (LensError, Image.DecompressionBombError) as error:
            return {}, html.error_line(_hide_path(error, path))
        changes = {name: getattr(form, name) for name in FORM_FIELDS if name != "start"}
        changes["loras"] = [[lora.name, lora.weight] for lora in form.loras]
        changes["start"] = editor_value(form.image, form.mask)
        return changes, html.status_with_notes(notes, "Settings restored; the seed is locked.")

    def code_snippets(self, values: Sequence[Any], base_url: str) -> tuple[str, str]:
        """Return the controls' values as a curl command and as Python; what is wrong is a comment."""
        try:
            form = self.parse_form(values)
            return curl_command(form, base_url), python_script(form, base_url)
        except LensError as error:
            return f"# {error}", f"# {error}"

    def search_gallery(self, search: str, only_favourites: bool) -> str:
        """Return the gallery, as far as it is searched for."""
        items = self.gallery.items(search or "", only_favourites)
        return html.gallery_grid(self.gallery, items[:MAX_LISTED], len(items))

    def find_item(self, name: str | None) -> GalleryItem | None:
        """Return a picture of the gallery, unless it was deleted meanwhile."""
        with suppress(LensError):
            return self.gallery.item(name) if name else None
        return None

    def toggle_favourite(self, name: str | None) -> None:
        """Make a picture a favourite, or an ordinary one again."""
        item = self.find_item(name)
        if item is not None:
            self.gallery.set_favourite(item.name, not item.is_favourite)

    def delete(self, name: str | None) -> None:
        """Delete a picture."""
        item = self.find_item(name)
        if item is not None:
            self.gallery.delete(item.name)

    def export_zip(self, search: str, only_favourites: bool) -> Path | None:
        """Return a zip of all pictures that a search finds; None where it finds nothing."""
        names = [kept.name for kept in self.gallery.items(search or "", only_favourites)]
        if not names:
            return None
        return self.gallery.write_zip(names, self._download_path("lens-pictures.zip"))

    def compare(self, first: str | None, second: str | None) -> tuple[str, Path | None]:
        """Return two pictures over each other with what they differ in, and a sheet of both."""
        a, b = self.find_item(first), self.find_item(second)
        if a is None or b is None:
            missing = " and ".join(name for name, kept in (("A", a), ("B", b)) if kept is None)
            return html.status(f"Choose {missing} in the gallery."), None
        pair = render_side_by_side(_open_rgb(a.path), _open_rgb(b.path), a.metadata.prompt)
        path = self._download_path("a-b.png")
        pair.save(path)
        return html.comparison(a, b, metadata_differences(a.metadata, b.metadata)), path

    def draw_grid(
        self, values: Sequence[Any], x: str, x_values: str, y: str, y_values: str, caller: str
    ) -> Iterator[tuple[str, str, Path | None]]:
        """Draw a grid over two settings: yields (batch, line, sheet), the sheet at the end."""
        try:
            models = self.engine.models()
            across, down = parse_axis(x, x_values, models), parse_axis(y, y_values, models)
            form = randomize_seed(self.parse_form(values))
            requests = [generation_request(cell, caller) for cell in grid_forms(form, across, down)]
            self._check_prompts(requests)
        except LensError as error:
            yield "", html.error_line(error), None
            return
        batch = self.batches.start([replace(request, previews=0) for request in requests], None)
        for _ in batch.changes():
            yield batch.batch_id, html.progress(batch), None
        images = [_downscale(image) for image in batch.images]
        self.batches.forget(batch)
        if not any(images):
            return
        page = render_sheet(images, across.labels, down.labels, form.prompt)
        yield batch.batch_id, html.progress(batch), self.gallery.save_sheet(page, f"{x} {y} {form.prompt}")


    def _download_path(self, name: str) -> Path:
        folder = Path(self._downloads.name) / uuid4().hex
        folder.mkdir()
        return folder / name

    def _check_prompts(self, requests: Sequence[GenerationRequest]) -> None:
        if self.hooks.check_prompt is None:
            return
        caller = requests[0].caller
        for words in {f"{one.prompt}\n{one.negative_prompt}".strip() for one in requests}:
            self.hooks.check_prompt(words, caller)

    def _check_image(self, image: Image.Image, caller: str) -> None:
        if self.hooks.check_image is not None:
            self.hooks.check_image(image, caller)


def image_and_mask(start: Any) -> tuple[Image.Image | None, Image.Image | None]:
    """Return the picture to start from, and in white what was painted over it; None for what is not there."""
    if not isinstance(start, dict) or start.get("background") is None:
        return None, None
    background: Image.Image = start["background"]
    if background.mode == "RGBA" and background.getchannel("A").getextrema() == (0, 0):
        return None, None  # an editor that nobody put a picture into
    mask = Image.new("L", background.size, 0)
    for layer in start.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A")
        mask = ImageChops.lighter(mask, alpha.point(lambda value: 255 if value > 0 else 0))
    return background.convert("RGB"), mask if mask.getbbox() else None


def editor_value(image: Path | None, mask: Path | None) -> Any:
    """Return the value that puts a picture and a mask back: the other way round of `image_and_mask`."""
    if image is None:
        return None
    background = _open_rgb(image)
    layers = []
    if mask is not None:
        alpha = _open_rgb(mask).convert("L")
        layer = Image.new("RGBA", alpha.size, (255, 255, 255, 0))
        layer.putalpha(alpha)
        layers = [layer]
    return {"background": background, "layers": layers, "composite": None}


def parse_loras(rows: Any) -> tuple[LoraRequest, ...]:
    """Return the LoRAs of a table of names and weights."""
    loras = []
    for row in rows or ():
        name, weight = (*row, None, None)[:2]
        if not name:
            continue
        try:
            loras.append(LoraRequest(str(name), float(1.0 if weight in (None, "") else weight)))
        except ValueError:
            raise SettingError(f"weight of {name}", weight, "a number") from None
    return tuple(loras)


def _open_rgb(path: Path) -> Image.Image:
    return open_image(path).convert("RGB")


def _downscale(image: Image.Image | None) -> Image.Image | None:
    if image is None or max(image.size) <= SHEET_SIDE_PX:
        return image
    image = image.copy()
    image.thumbnail((SHEET_SIDE_PX, SHEET_SIDE_PX))
    return image


def _hide_path(error: Exception, path: Path) -> LensError:
    return LensError(str(error).replace(str(path), "The file"))
