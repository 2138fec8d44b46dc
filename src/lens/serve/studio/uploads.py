"""Files that pages of the studio upload: a folder of the server with a bound, and an editor with bounds.

Gradio keeps uploads in a shared temporary folder without a bound, decodes as many images at once as come, and
lets pages choose how much memory an edited image takes.
"""

import asyncio
import io
import os
import shutil
import threading
import time
from abc import ABCMeta
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageChops

from lens.core.images import alpha_channel, to_srgb
from lens.errors import SettingError, first_line
from lens.sampling.image_metadata import open_image
from lens.serve.api.middleware import AsgiApp, Receive, Scope, Send
from lens.serve.api.uploads import check_image_size

UPLOAD_TTL_S = 3600.0
MAX_LAYERS = 8
MAX_EDITED_IMAGES = 16
"""Edited images of all pages that wait to be used."""
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no images."""
UPLOAD_ROUTES = ("/gradio_api/upload", "/gradio_api/component_server")


class UploadFolder:
    """A folder that Gradio writes into, for this server alone; what is old or too much is deleted."""

    def __init__(self, path: Path, max_bytes: int):
        self.path, self._max_bytes = path, max_bytes
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Make the folder, readable by its owner alone, without what the last run left in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700, parents=True)

    def trim(self) -> None:
        """Delete files that are old, and the oldest ones until the rest is within the bound."""
        with self._lock:
            files = []
            for folder, _, names in os.walk(self.path):
                for name in names:
                    path = Path(folder) / name
                    try:
                        status = path.stat()
                    except FileNotFoundError:  # Gradio has deleted or moved it
                        continue
                    files.append((status.st_ctime, status.st_size, path))
            num_bytes = sum(size for _, size, _ in files)
            for changed_at, size, path in sorted(files):
                if num_bytes <= self._max_bytes and changed_at > time.time() - UPLOAD_TTL_S:
                    break
                path.unlink(missing_ok=True)
                num_bytes -= size


class TrimAfterUpload:
    """ASGI middleware of Gradio's app that trims the folder after each upload, complete or not."""

    def __init__(self, app: AsgiApp, folder: UploadFolder):
        self._app, self._folder = app, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["path"].rstrip("/").endswith(UPLOAD_ROUTES):
                await asyncio.to_thread(self._folder.trim)


class EditedImage(NamedTuple):
    """An edited image as a page sent it. Handlers keep it while images are drawn, so it is not decoded."""

    background: bytes | str | None
    """The content of a file, or its path."""
    layers: tuple[bytes | str, ...] = ()

    def decode(self) -> dict[str, Any]:
        """Return the image in sRGB, None for an editor without one, and the layers over it.

        One page's images are decoded at a time.
        Raises: SettingError.
        """
        try:
            with _decoding:
                layers = [_open(layer).convert("RGBA") for layer in self.layers]
                return {"background": self._decode_background(), "layers": layers}
        except UNREADABLE as error:
            raise _unreadable(error) from error

    def check_size(self, max_px: int) -> None:
        """Raise SettingError for a part that has too many pixels, or is no image."""
        try:
            for part in (self.background, *self.layers):
                if part is not None:
                    with _open(part) as opened:
                        check_image_size(opened.size, "image", max_px)
        except SettingError:
            raise
        except UNREADABLE as error:
            raise _unreadable(error) from error

    def _decode_background(self) -> Image.Image | None:
        if self.background is None:
            return None
        with _open(self.background) as opened:
            alpha = alpha_channel(opened)
            is_clear = alpha is not None and alpha.getextrema() == (0, 0)
            return None if is_clear else to_srgb(opened).image


_decoding = threading.Lock()


def with_methods(control: Any, **methods: Any) -> Any:
    """Return a control of Gradio with other methods, which it keeps.

    They belong to its class, as Gradio makes a control anew from that whenever a handler changes or skips it.
    Gradio's metaclass is passed by: for each new class it writes a file into the package.
    """
    kind = type(control)
    control.__class__ = ABCMeta.__new__(type(kind), kind.__name__, (kind,), methods)
    return control


def bound_editor(editor: Any, max_px: int) -> Any:
    """Return an ImageEditor of Gradio, changed so that its images and the memory that they take are bounded.

    Its value is an EditedImage, which is read as the API reads images: Gradio clips those of more than 8 bits
    and ignores colour profiles.
    """
    import gradio as gr

    theirs = type(editor).accept_blobs

    def preprocess(self: Any, payload: Any) -> EditedImage | SettingError | None:
        if payload is None:
            return None
        sent = payload if payload.id is None else self.blob_storage.pop(payload.id, None)
        if sent is None:
            return EditedImage(None)
        layers = tuple(_content_or_path(layer) for layer in sent.layers or () if layer is not None)
        edited = EditedImage(_content_or_path(sent.background), layers)
        try:
            edited.check_size(max_px)
        except SettingError as error:
            return error  # the handlers name the field: an error of Gradio would reach none of them
        return edited

    def accept_blobs(self: Any, data: Any) -> Any:
        index = data.data["index"]
        if index not in (None, "", "null") and not 0 <= int(index) < MAX_LAYERS:
            raise gr.Error(f"An image has at most {MAX_LAYERS} layers.", print_exception=False)
        stored = self.blob_storage
        while len(stored) >= MAX_EDITED_IMAGES and data.data["id"] not in stored:
            stored.pop(next(iter(stored)), None)
        return theirs(self, data)

    accept_blobs._is_server_fn = True  # type: ignore[attr-defined]
    return with_methods(editor, preprocess=preprocess, accept_blobs=accept_blobs)


def _content_or_path(file: Any) -> Any:
    """Return what a page sent of a part of an edited image: bytes, or the path of an uploaded file."""
    return file if file is None or isinstance(file, bytes) else file.path


def _open(part: bytes | str) -> Image.Image:
    return Image.open(io.BytesIO(part) if isinstance(part, bytes) else part)


def _unreadable(error: Exception) -> SettingError:
    needs = f"a PNG, JPEG or WebP file that can be read ({first_line(error)})"
    return SettingError("image", "the file", needs)


def image_and_mask(start: Any) -> tuple[Image.Image | None, Image.Image | None]:
    """Return the source image of an editor, and its painted area in white; None for what is missing.

    Raises: SettingError for a file that cannot be read.
    """
    if isinstance(start, EditedImage):
        start = start.decode()
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
    background = open_rgb(image)
    layers = []
    if mask is not None:
        alpha = open_rgb(mask).convert("L")
        layer = Image.new("RGBA", alpha.size, (255, 255, 255, 0))
        layer.putalpha(alpha)
        layers = [layer]
    return {"background": background, "layers": layers, "composite": None}


def open_rgb(path: Path) -> Image.Image:
    """Return the image of a file in RGB. Raises: LensError if it cannot be read."""
    return open_image(path).convert("RGB")
