"""Handlers of the studio's events: they take the values of controls and return values, HTML and files.

Generation goes through the service that the HTTP API uses. Knows nothing of Gradio: the pages pass the
controls' values in the order of `FORM_FIELDS`, and put what comes back where it belongs.
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

from lens.core.images import to_srgb
from lens.core.noise import RANDOM_SEED
from lens.errors import LensError, SettingError
from lens.sampling.defaults import default_strength
from lens.sampling.image_metadata import open_image, read_image_metadata
from lens.serve.api.generation import GenerationService
from lens.serve.api.schemas import NO_ENHANCER, GenerationSpec
from lens.serve.api.uploads import check_image_size
from lens.serve.engine.request import MAX_PREVIEWS, LoraRequest, ModelInfo
from lens.serve.studio import html
from lens.serve.studio.batches import BatchManager, StudioBatch
from lens.serve.studio.contact_sheet import (
    grid_forms,
    metadata_differences,
    parse_axis,
    render_sheet,
    render_side_by_side,
)
from lens.serve.studio.form import StudioForm, randomize_seed, request_body, restore_form
from lens.serve.studio.gallery import Gallery, GalleryItem
from lens.serve.studio.snippets import curl_command, python_script

logger = logging.getLogger(__name__)

FORM_FIELDS = (
    "prompt", "model", "aspect_ratio", "base_resolution", "seed", "is_seed_locked", "count", "steps",
    "guidance", "negative_prompt", "solver", "size", "loras", "start", "strength", "is_strength_set",
)  # fmt: skip
"""The controls, in order. `start` holds the source image and the mask painted over it; `is_strength_set` says
whether a person chose the strength, as otherwise it is the default."""
SHEET_SIDE_PX = 512
"""Longest side of an image on a contact sheet."""
MAX_LISTED = 120
ControlValues = dict[str, Any]
"""New values of controls, by field."""


class BatchView(NamedTuple):
    """What a page shows of a batch; empty strings leave a part as it is."""

    batch_id: str
    tiles_html: str
    status_html: str
    seed: int
    is_finished: bool
    last_item: str | None
    """Name of the first finished image."""


class StudioHandlers:
    """The event handlers of one server's studio; safe to share among pages."""

    def __init__(self, service: GenerationService, gallery: Gallery):
        self.service, self.engine, self.gallery = service, service.engine, gallery
        self.batches = BatchManager(service)
        self._downloads = TemporaryDirectory(prefix="lens-studio-")

    def model(self, name: str) -> ModelInfo:
        """Return the model of this name, or else the first one."""
        models = self.engine.models()
        return next((model for model in models if model.name == name), models[0])

    def parse_form(self, values: Sequence[Any]) -> StudioForm:
        """Return the controls' values as a form; the source image and the mask are stored in the gallery.

        Raises: SettingError for a value that is no number, or a source image that is too large.
        """
        fields: dict[str, Any] = dict(zip(FORM_FIELDS, values, strict=True))
        fields["seed"] = RANDOM_SEED if fields["seed"] is None else fields["seed"]
        for name, kind in (("seed", int), ("count", int), ("steps", int), ("base_resolution", int),
                           ("guidance", float), ("strength", float)):  # fmt: skip
            try:
                fields[name] = kind(fields[name])
            except (TypeError, ValueError):
                raise SettingError(name, fields[name], "a number") from None
        if not fields.pop("is_strength_set"):
            fields["strength"] = None
        image, mask = image_and_mask(fields.pop("start"))
        if image is not None:
            check_image_size(image.size, "image", self.service.settings.limits.upload_px)
        fields["loras"] = parse_loras(fields["loras"])
        fields["image"] = self.gallery.save_input(image) if image else None
        fields["mask"] = self.gallery.save_input(mask) if mask else None
        texts: dict[str, Any] = {name: fields[name] or "" for name in ("prompt", "negative_prompt", "size")}
        return StudioForm(**(fields | texts))

    def shown_strength(self, start: Any, strength: float, is_strength_set: bool) -> float:
        """Return the strength that the slider shows: the default of image or mask until a person sets one."""
        return strength if is_strength_set else default_strength(image_and_mask(start)[1] is not None)

    def draw(self, values: Sequence[Any], caller: str) -> Iterator[BatchView]:
        """Start a batch and yield its state until it is finished."""
        try:
            spec = self.service.prepare(self.resolve(randomize_seed(self.parse_form(values)), caller))
            batch = self.batches.start([spec], self.gallery)
        except LensError as error:
            yield BatchView("", "", html.error_line(error), values[FORM_FIELDS.index("seed")], True, None)
            return
        yield from self._batch_views(batch)

    def resolve(self, form: StudioForm, caller: str, num_previews: int = MAX_PREVIEWS) -> GenerationSpec:
        """Return the images that a form asks for, with every default filled in.

        Raises: SettingError.
        """
        return self.service.resolve_request(request_body(form, num_previews), caller, form.uploads)

    def watch(self, name: str | None) -> Iterator[BatchView]:
        """Yield the state of a batch that a page started before it was reloaded, if it is remembered."""
        batch = self.batches.find(name)
        if batch is not None:
            yield from self._batch_views(batch)

    def _batch_views(self, batch: StudioBatch) -> Iterator[BatchView]:
        seed = batch.items[0].request.seed
        last_state = None
        for _ in batch.changes():
            state = [(item.gallery_item, id(item.preview), item.is_finished) for item in batch.items]
            # Previews are large and steps are many: the grid is sent only when an image changed.
            tiles = "" if state == last_state else html.batch_grid(batch)
            last_state = state
            last_item = next((item.gallery_item.name for item in batch.items if item.gallery_item), None)
            yield BatchView(batch.batch_id, tiles, html.progress(batch), seed, batch.is_finished, last_item)
        if batch.error is not None and not isinstance(batch.error, LensError):
            logger.error("An image of the studio failed.", exc_info=batch.error)

    def cancel(self, name: str | None) -> None:
        """Cancel a batch."""
        batch = self.batches.find(name)
        if batch is not None:
            batch.cancel()

    def enhance(self, prompt: str, caller: str) -> tuple[str, str]:
        """Return the enhanced prompt and a status line; on an error, the prompt as it was and the error."""
        if not self.service.can_enhance:
            return prompt, html.status(NO_ENHANCER)
        try:
            enhanced = self.service.enhance_prompt(prompt, caller)
        except LensError as error:
            return prompt, html.error_line(error)
        return enhanced, html.status("Edit the enhanced prompt, then use it or keep the original.")

    def restore(self, path: Path, values: Sequence[Any]) -> tuple[ControlValues, str]:
        """Return the controls' values that generate an image again, and a status line."""
        try:
            metadata = read_image_metadata(path)
            with_defaults = [0 if value is None else value for value in values]
            form, notes = restore_form(
                metadata,
                self.parse_form(with_defaults),
                self.engine.models(),
                self.engine.loras(),
                self.gallery,
            )
        except (LensError, Image.DecompressionBombError) as error:
            return {}, html.error_line(_hide_path(error, path))
        converted = {"loras", "start", "strength", "is_strength_set"}
        changes = {name: getattr(form, name) for name in FORM_FIELDS if name not in converted}
        changes["loras"] = [[lora.name, lora.weight] for lora in form.loras]
        changes["start"] = editor_value(form.image, form.mask)
        changes["is_strength_set"] = form.strength is not None
        has_mask = form.mask is not None
        changes["strength"] = default_strength(has_mask) if form.strength is None else form.strength
        return changes, html.status_with_notes(notes, "Settings restored; the seed is locked.")

    def code_snippets(self, values: Sequence[Any], base_url: str) -> tuple[str, str]:
        """Return a curl command and a Python script for the controls' values; an error is a comment."""
        try:
            spec = self.resolve(self.parse_form(values), caller="")
            return curl_command(spec, base_url), python_script(spec, base_url)
        except LensError as error:
            return f"# {error}", f"# {error}"

    def search_gallery(self, search: str, only_favourites: bool) -> str:
        """Return the images that match a search as HTML."""
        items = self.gallery.items(search or "", only_favourites)
        return html.gallery_grid(self.gallery, items[:MAX_LISTED], len(items))

    def find_item(self, name: str | None) -> GalleryItem | None:
        """Return an image of the gallery, or None if it no longer exists."""
        with suppress(LensError):
            return self.gallery.item(name) if name else None
        return None

    def toggle_favourite(self, name: str | None) -> None:
        """Add an image to the favourites, or remove it from them."""
        item = self.find_item(name)
        if item is not None:
            self.gallery.set_favourite(item.name, not item.is_favourite)

    def delete(self, name: str | None) -> None:
        """Delete an image."""
        item = self.find_item(name)
        if item is not None:
            self.gallery.delete(item.name)

    def export_zip(self, search: str, only_favourites: bool) -> Path | None:
        """Return a ZIP file of the images that match a search, or None without a match."""
        names = [item.name for item in self.gallery.items(search or "", only_favourites)]
        if not names:
            return None
        return self.gallery.write_zip(names, self._download_path("lens-images.zip"))

    def compare(self, first: str | None, second: str | None) -> tuple[str, Path | None]:
        """Return two images with their differences as HTML, and a file that shows both."""
        a, b = self.find_item(first), self.find_item(second)
        if a is None or b is None:
            missing = " and ".join(name for name, item in (("A", a), ("B", b)) if item is None)
            return html.status(f"Select {missing} in the gallery."), None
        pair = render_side_by_side(_open_rgb(a.path), _open_rgb(b.path), a.metadata.prompt)
        path = self._download_path("a-b.png")
        pair.save(path)
        return html.comparison(a, b, metadata_differences(a.metadata, b.metadata)), path

    def draw_grid(
        self, values: Sequence[Any], x: str, x_values: str, y: str, y_values: str, caller: str
    ) -> Iterator[tuple[str, str, Path | None]]:
        """Generate a grid over two settings; yield (batch id, status line, contact sheet or None)."""
        try:
            models = self.engine.models()
            across, down = parse_axis(x, x_values, models), parse_axis(y, y_values, models)
            form = replace(randomize_seed(self.parse_form(values)), count=1)
            specs = [self.resolve(cell, caller, num_previews=0) for cell in grid_forms(form, across, down)]
            self.service.check_draining()
            self.service.check_prompts([spec.draw.prompt for spec in specs], caller)
        except LensError as error:
            yield "", html.error_line(error), None
            return
        found = (self.service.request_warnings(spec) or [] for spec in specs)
        warnings = html.warning_lines(dict.fromkeys(text for texts in found for text in texts))
        batch = self.batches.start(specs, None)
        for _ in batch.changes():
            yield batch.batch_id, html.progress(batch) + warnings, None
        images = [_downscale(image) for image in batch.images]
        self.batches.forget(batch)
        if not any(images):
            return
        page = render_sheet(images, across.labels, down.labels, form.prompt)
        line = html.progress(batch) + warnings
        yield batch.batch_id, line, self.gallery.save_sheet(page, f"{x} {y} {form.prompt}")

    def _download_path(self, name: str) -> Path:
        folder = Path(self._downloads.name) / uuid4().hex
        folder.mkdir()
        return folder / name


def image_and_mask(start: Any) -> tuple[Image.Image | None, Image.Image | None]:
    """Return the source image of an editor, and its painted area in white; None for what is missing."""
    if not isinstance(start, dict) or start.get("background") is None:
        return None, None
    background: Image.Image = start["background"]
    if background.mode == "RGBA" and background.getchannel("A").getextrema() == (0, 0):
        return None, None  # an editor without an image
    mask = Image.new("L", background.size, 0)
    for layer in start.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A")
        mask = ImageChops.lighter(mask, alpha.point(lambda value: 255 if value > 0 else 0))
    return to_srgb(background).image, mask if mask.getbbox() else None


def editor_value(image: Path | None, mask: Path | None) -> Any:
    """Return the editor's value for an image and a mask: the inverse of `image_and_mask`."""
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
    """Return the LoRAs of a table of names and weights; rows without a name are skipped."""
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
