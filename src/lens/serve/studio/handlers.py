"""Handlers of the studio's events: they take the values of controls and return values, HTML and files.

Generation goes through the service that the HTTP API uses. Knows nothing of Gradio: the pages pass the
controls' values in the order of `FORM_FIELDS`, and put what comes back where it belongs.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from lens.core.noise import RANDOM_SEED
from lens.core.resolution import ASPECT_RATIOS
from lens.core.step_caches import CACHE_NAMES, NO_CACHE
from lens.errors import GenerationCancelledError, LensError
from lens.prompts.styles import Styles
from lens.prompts.syntax import escape
from lens.reasoner.outcome import Reasoned
from lens.sampling.defaults import default_strength
from lens.sampling.image_metadata import ImageMetadata, read_image_settings
from lens.sampling.metadata_formats.foreign_settings import ForeignSettings
from lens.sampling.solvers import SOLVERS
from lens.serve.api.generation import GenerationService
from lens.serve.api.uploads import check_image_size
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import MAX_PREVIEWS, ModelInfo
from lens.serve.studio import html
from lens.serve.studio.batches import BatchManager, StudioBatch
from lens.serve.studio.contact_sheet import (
    axis_texts,
    grid_forms,
    parse_axis,
    render_sheet,
    sheet_metadata,
)
from lens.serve.studio.form import (
    StudioForm,
    base_resolutions,
    parse_loras,
    parse_number,
    randomize_seed,
    recorded_reasoning,
    request_body,
    restore_foreign_form,
    restore_form,
)
from lens.serve.studio.gallery import Gallery, GalleryItem
from lens.serve.studio.gallery_handlers import GalleryHandlers, favourite_text
from lens.serve.studio.snippets import curl_command, python_script
from lens.serve.studio.uploads import editor_value, image_and_mask, open_rgb

logger = logging.getLogger(__name__)

FORM_FIELDS = (
    "prompt", "model", "aspect_ratio", "base_resolution", "seed", "is_seed_locked", "count", "steps",
    "guidance", "negative_prompt", "solver", "cache", "size", "loras", "start", "strength",
    "is_strength_set", "styles", "upscale", "upscale_strength",
)  # fmt: skip
"""The controls, in order. `start` holds the source image and the mask painted over it; `is_strength_set` says
whether a person chose the strength, as otherwise it is the default."""
SHEET_SIDE_PX = 512
"""Longest side of an image on a contact sheet."""
SHEET_NOTES = ("They are those of image A.", "The Grid page has the axes of this sheet.")
"""What is told of a sheet whose settings are restored: of a comparison, of a grid."""
MAX_REFINED_PROMPTS = 512
"""Prompts of reasoners that are remembered, so that images drawn from them record the request."""
LARGER_FACTOR = 2.0
"""Of a tile that is drawn again larger."""
ControlValues = dict[str, Any]
"""New values of controls, by field."""


class BatchView(NamedTuple):
    """What a page shows of a batch; empty strings leave a part as it is."""

    batch_id: str
    tiles_html: str
    status_html: str
    seed: int
    is_finished: bool


class EnhancedView(NamedTuple):
    """What a page shows of a prompt that a reasoner was asked about."""

    prompt: str
    """The prompt to edit and use, as the control has it: the request itself unless it was refined."""
    line_html: str
    """The outcome, its reason and the checks, in words."""


class StudioHandlers:
    """The event handlers of one server's studio; safe to share among pages."""

    def __init__(self, service: GenerationService, gallery: Gallery, drafts: Gallery | None = None):
        self.service, self.engine, self.gallery = service, service.engine, gallery
        self.batches = BatchManager(service)
        self.in_gallery = GalleryHandlers(gallery, service.hooks.embed_provenance)
        self.drafts = drafts or gallery
        self._refined: OrderedDict[str, Reasoned] = OrderedDict()
        self._asking: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def model(self, name: str) -> ModelInfo:
        """Return the model of this name, or else the first one."""
        models = self.engine.models()
        return next((model for model in models if model.name == name), models[0])

    def styles(self) -> Styles:
        """Return the styles of the server as they are now."""
        return self.service.settings.prompt_reader().styles

    def parse_form(self, values: Sequence[Any]) -> StudioForm:
        """Return the controls' values as a form; the source image and the mask are stored in the gallery.

        Raises: SettingError for a value that is no number, or a source image that is too large.
        """
        fields: dict[str, Any] = dict(zip(FORM_FIELDS, values, strict=True))
        fields["seed"] = RANDOM_SEED if fields["seed"] is None else fields["seed"]
        for name, kind in (("seed", int), ("count", int), ("steps", int), ("base_resolution", int),
                           ("guidance", float), ("strength", float), ("upscale", float),
                           ("upscale_strength", float)):  # fmt: skip
            fields[name] = parse_number(name, fields[name], kind)
        if not fields.pop("is_strength_set"):
            fields["strength"] = None
        start = fields.pop("start")
        if isinstance(start, LensError):
            raise start
        image, mask = image_and_mask(start)
        if image is not None:
            check_image_size(image.size, "image", self.service.settings.limits.upload_px)
        fields["loras"], fields["styles"] = parse_loras(fields["loras"]), tuple(fields["styles"] or ())
        fields["image"] = self.gallery.save_input(image) if image else None
        fields["mask"] = self.gallery.save_input(mask) if mask else None
        texts: dict[str, Any] = {name: fields[name] or "" for name in ("prompt", "negative_prompt", "size")}
        return StudioForm(**(fields | texts))

    def shown_strength(self, start: Any, strength: float, is_strength_set: bool) -> float:
        """Return the strength that the slider shows: the default of image or mask until a person sets one."""
        return strength if is_strength_set else default_strength(image_and_mask(start)[1] is not None)

    def keep_source(self, start: Any) -> list[str]:
        """Store the source image and its mask for a while; return the names that find them after a reload."""
        return [self.drafts.save_input(image).stem for image in image_and_mask(start) if image is not None]

    def kept_values(self, kept: Any, source: Any) -> ControlValues:
        """Return the controls' values that a browser kept, without those that this server does not have."""
        kept = kept if isinstance(kept, dict) else {}
        names = [model.name for model in self.engine.models()]
        model = self.model(str(kept.get("model")))
        allowed: dict[str, Collection[Any]] = {
            "model": names, "aspect_ratio": ASPECT_RATIOS, "solver": SOLVERS,
            "base_resolution": base_resolutions(model), "cache": (NO_CACHE, *CACHE_NAMES),
        }  # fmt: skip
        changes = {
            name: kept[name]
            for name in FORM_FIELDS
            if isinstance(kept.get(name), str | int | float)
            and (name not in allowed or kept[name] in allowed[name])
        }
        rows = kept["loras"].get("data") if isinstance(kept.get("loras"), dict) else None
        known = [row for row in rows or () if row and row[0] in self.engine.loras()]
        if known:
            changes["loras"] = known
        if isinstance(kept.get("styles"), list):
            changes["styles"] = [name for name in kept["styles"] if name in self.styles()]
        folders = (self.drafts, self.gallery)
        paths = [
            next(filter(None, (folder.find_input(str(name)) for folder in folders)), None)
            for name in source or ()
        ]
        if paths and paths[0] is not None:
            changes["start"] = editor_value(paths[0], paths[1] if len(paths) > 1 else None)
        return changes

    def draw(self, values: Sequence[Any], caller: str) -> Iterator[BatchView]:
        """Start a batch and yield its state until it is finished."""
        try:
            spec = self.service.prepare(self.resolve(randomize_seed(self.parse_form(values)), caller))
            batch = self.batches.start([spec], self.gallery)
        except LensError as error:
            yield BatchView("", "", html.error_line(error), values[FORM_FIELDS.index("seed")], True)
            return
        yield from self._batch_views(batch)

    def draw_larger(self, name: str, strength: float, caller: str) -> Iterator[BatchView]:
        """Draw an image of the gallery again at twice its size, from its own latents; yield the batch."""
        try:
            item = self.in_gallery.find_item(name)
            if item is None:
                raise LensError("The image is no longer in the gallery.")
            models, loras = self.engine.models(), self.engine.loras()
            form, notes = restore_form(item.metadata, StudioForm(), models, loras, self.gallery)
            self._remember_record(item.metadata, form)
            if notes:
                raise LensError(" ".join(notes))
            form = replace(form, upscale=LARGER_FACTOR * form.upscale, upscale_strength=strength)
            spec = self.service.prepare(self.resolve(form, caller))
            batch = self.batches.start([spec], self.gallery)
        except LensError as error:
            yield BatchView("", "", html.error_line(error), 0, True)
            return
        yield from self._batch_views(batch)

    def resolve(self, form: StudioForm, caller: str, num_previews: int = MAX_PREVIEWS) -> GenerationSpec:
        """Return the images that a form asks for, with every default filled in.

        Raises: SettingError.
        """
        spec = self.service.resolve_request(request_body(form, num_previews), caller, form.uploads)
        reasoned = self._refined.get(form.prompt.strip())
        return spec if reasoned is None else replace(spec, draw=replace(spec.draw, reasoned=reasoned))

    def watch(self, name: str | None) -> Iterator[BatchView]:
        """Yield the state of a batch that a page started before it was reloaded, if it is remembered."""
        batch = self.batches.find(name)
        if batch is not None:
            yield from self._batch_views(batch)

    def _batch_views(self, batch: StudioBatch) -> Iterator[BatchView]:
        seed, warnings = batch.items[0].request.seed, html.warning_lines(batch.items[0].spec.warnings)
        last_state = None
        for _ in batch.changes():
            state = [(item.gallery_item, id(item.preview), item.is_finished) for item in batch.items]
            # Previews are large and steps are many: the grid is sent only when an image changed.
            tiles = "" if state == last_state else html.batch_grid(batch, self.gallery.favourites())
            last_state = state
            line = html.progress(batch) + warnings
            yield BatchView(batch.batch_id, tiles, line, seed, batch.is_finished)
        if batch.error is not None and not isinstance(batch.error, LensError):
            logger.error("An image of the studio failed.", exc_info=batch.error)

    def toggle_favourite(self, name: str, batch_id: str | None) -> tuple[str | None, str]:
        """Add an image of a batch to the favourites, or remove it; return the batch's HTML and a line."""
        if self.in_gallery.find_item(name) is None:
            return None, html.error_line(LensError("The image is no longer in the gallery."))
        is_favourite = name not in self.gallery.favourites()
        self.gallery.set_favourite(name, is_favourite)
        batch = self.batches.find(batch_id)
        tiles = html.batch_grid(batch, self.gallery.favourites()) if batch is not None else None
        return tiles, html.status(f"The image is {favourite_text(is_favourite)}")

    def cancel(self, name: str | None) -> None:
        """Cancel a batch."""
        batch = self.batches.find(name)
        if batch is not None:
            batch.cancel()

    def enhance(self, prompt: str, caller: str, model: str = "") -> EnhancedView:
        """Return what the reasoner of a model makes of a prompt; on an error, the prompt itself and why."""
        try:
            read = self.service.settings.prompt_reader().read(prompt, "", seed=0)
            with self._stoppable(caller) as should_stop:
                name = self.model(model).name
                reasoned = self.service.enhance(read.prompt, name, caller, should_stop)
        except GenerationCancelledError:
            return EnhancedView(prompt, html.status("Stopped. The prompt is as it was."))
        except LensError as error:
            return EnhancedView(prompt, html.error_line(error))
        if reasoned.outcome != "refined":
            return EnhancedView(prompt, html.reasoned_lines(reasoned))
        loras = [f"<lora:{one.name}:{one.weight:g}>" for one in read.loras]
        refined = " ".join([escape(reasoned.prompt), *loras])
        self._remember(refined, reasoned)
        return EnhancedView(refined, html.reasoned_lines(reasoned, read.template))

    def stop_enhancing(self, caller: str) -> None:
        """Stop the reasoner that a page is waiting for."""
        with self._lock:
            if (asking := self._asking.get(caller)) is not None:
                asking.set()

    @contextmanager
    def _stoppable(self, caller: str) -> Iterator[Callable[[], bool]]:
        stop = threading.Event()
        self.stop_enhancing(caller)  # a page shows one answer
        with self._lock:
            self._asking[caller] = stop
        try:
            yield stop.is_set
        finally:
            with self._lock:
                if self._asking.get(caller) is stop:
                    del self._asking[caller]

    def _remember(self, prompt: str, reasoned: Reasoned) -> None:
        """Remember where a prompt comes from, as the control has it."""
        with self._lock:
            self._refined[prompt.strip()] = reasoned
            while len(self._refined) > MAX_REFINED_PROMPTS:
                self._refined.popitem(last=False)

    def _remember_record(self, metadata: ImageMetadata, form: StudioForm) -> None:
        """Remember where the prompt of an image comes from, once a form has it."""
        if (reasoned := recorded_reasoning(metadata)) is not None:
            self._remember(form.prompt, reasoned)

    def restore(self, path: Path, values: Sequence[Any]) -> tuple[ControlValues, str]:
        """Return the controls' values that generate an image again, and a status line."""
        notes, line = [], "Settings restored; the seed is locked."
        try:
            metadata, models = read_image_settings(path), self.engine.models()
            form = self.parse_form([0 if value is None else value for value in values])
            if isinstance(metadata, ForeignSettings):
                form, line = restore_foreign_form(metadata, form, models), metadata.summary
            else:
                form, notes = restore_form(metadata, form, models, self.engine.loras(), self.gallery)
                self._remember_record(metadata, form)
                if metadata.sheet is not None:
                    notes.append(SHEET_NOTES[metadata.sheet.columns is not None])
        except (LensError, Image.DecompressionBombError) as error:
            return {}, html.error_line(_hide_path(error, path))
        converted = {"loras", "start", "strength", "is_strength_set"}
        changes = {name: getattr(form, name) for name in FORM_FIELDS if name not in converted}
        changes["loras"], changes["styles"] = [[one.name, one.weight] for one in form.loras], []
        changes["start"] = editor_value(form.image, form.mask)
        changes["is_strength_set"] = form.strength is not None
        has_mask = form.mask is not None
        changes["strength"] = default_strength(has_mask) if form.strength is None else form.strength
        return changes, html.status_with_notes(notes, line)

    def restored_axes(self, path: Path) -> list[str]:
        """Return settings and values of both axes of a contact sheet; nothing for any other image."""
        with suppress(LensError, Image.DecompressionBombError):
            metadata = read_image_settings(path)
            if not isinstance(metadata, ForeignSettings) and metadata.sheet is not None:
                return axis_texts(metadata.sheet)
        return []

    def code_snippets(self, values: Sequence[Any], base_url: str) -> tuple[str, str]:
        """Return a curl command and a Python script for the controls' values; an error is a comment."""
        try:
            spec = self.resolve(self.parse_form(values), caller="")
            return curl_command(spec, base_url), python_script(spec, base_url)
        except LensError as error:
            line = f"# {html.error_text(error)}"
            return line, line

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
        found = (self.service.request_warnings(spec) for spec in specs)
        warnings = html.warning_lines(dict.fromkeys(text for texts in found for text in texts))
        batch = self.batches.start(specs, self.gallery)
        for _ in batch.changes():
            yield batch.batch_id, html.progress(batch) + warnings, None
        cells = [item.gallery_item for item in batch.items]
        self.batches.forget(batch)
        if not any(cells):
            return
        title = "" if "prompt" in (x, y) else form.prompt
        page = render_sheet([_cell_image(cell) for cell in cells], across.labels, down.labels, title)
        files = [cell and (cell.name, cell.metadata) for cell in cells]
        try:
            marked = sheet_metadata(page, files, across, down)
            content = self.service.hooks.embed_provenance(page, marked, "png", None)
            sheet = self.gallery.save_sheet(content, f"{x} {y} {form.prompt}")
        except LensError as error:
            yield batch.batch_id, html.error_line(error) + warnings, None
            return
        yield batch.batch_id, html.progress(batch) + warnings, sheet


def _cell_image(cell: GalleryItem | None) -> Image.Image | None:
    """Return an image of the gallery as a contact sheet shows it; None if somebody has deleted it."""
    with suppress(LensError):
        if cell is not None:
            image = open_rgb(cell.path)
            image.thumbnail((SHEET_SIDE_PX, SHEET_SIDE_PX))
            return image
    return None


def _hide_path(error: Exception, path: Path) -> LensError:
    return LensError(str(error).replace(str(path), "The file"))
