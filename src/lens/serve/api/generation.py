"""From an engine's events to bytes that may leave: checked by the moderation's hooks, encoded, marked.

Encoding and marking happen in the thread that follows a picture, never where requests are answered.
Knows nothing of HTTP or of jobs.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import Image

from lens.errors import CheckpointError, DrainingError, SettingError
from lens.sampling.image_metadata import PictureSettings
from lens.serve.api.schemas import Wanted
from lens.serve.engine.request import Done, Drawer, Drawing, Failed, Preview, Ticket, Waiting
from lens.serve.safety.provenance import marked, xmp

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class Made(NamedTuple):
    """A finished picture as it leaves."""

    content: bytes
    settings: PictureSettings


class Shown(NamedTuple):
    """A picture of the way there, encoded."""

    number: int
    content: bytes


Told = Waiting | Drawing | Shown | Made | Failed
Mark = Callable[[Image.Image, PictureSettings, str, int | None], bytes]
"""(picture, settings, png or jpeg or webp, quality) -> the file that leaves."""


@dataclass(frozen=True)
class Hooks:
    """What the operator has put between requests and pictures."""

    mark: Mark = marked
    check_prompt: Callable[[str, str], None] | None = None
    """(prompt, caller); raises what the caller is told."""
    check_picture: Callable[[Image.Image, str], None] | None = None
    """(picture, caller); raises what the caller is told. Previews are pictures too."""
    enhance: Callable[[str], str] | None = None
    """A prompt written out."""
    count_tokens: Callable[[str, str], int] | None = None
    """(model, text) -> tokens of the text; None counts words and signs."""


NO_HOOKS = Hooks()


@dataclass
class Maker:
    """Draws what is wanted, by an engine and the hooks."""

    drawer: Drawer
    hooks: Hooks = NO_HOOKS
    is_draining: bool = False

    def prepared(self, wanted: Wanted, is_enhanced: bool) -> Wanted:
        """Check the words of a request, and write them out where that is asked for. May take seconds.

        Raises: DrainingError; whatever the hooks raise.
        """
        self.check_draining()
        self._check_words(wanted)
        if is_enhanced and self.hooks.enhance is not None:
            prompt = self.hooks.enhance(wanted.draw.prompt)
            original = wanted.draw.prompt
            wanted = replace(wanted, draw=replace(wanted.draw, prompt=prompt), original_prompt=original)
            self._check_words(wanted)
        return wanted

    def submit(self, wanted: Wanted) -> list[Ticket]:
        """Hand all pictures to the engine, or none. Raises: what the engine raises."""
        self.check_draining()
        tickets: list[Ticket] = []
        try:
            for request in wanted.requests():
                tickets.append(self.drawer.submit(request))
        except BaseException:
            for ticket in tickets:
                ticket.cancel()
            raise
        return tickets

    def check_draining(self) -> None:
        """Raise DrainingError where the server ends."""
        if self.is_draining:
            raise DrainingError("The server is about to end and takes nothing more on. Try again soon.")

    def follow(self, ticket: Ticket, wanted: Wanted, tell: Callable[[Told], None]) -> None:
        """Tell what happens to a picture until it is made or failed. Blocks."""
        while True:
            try:
                event = ticket.next_event()
                told = self._told(event, wanted)
            except TimeoutError:
                continue
            except Exception as error:
                ticket.cancel()
                told = Failed(error)
            if isinstance(told, Failed):
                told = Failed(_explained(told.error, wanted))
            if told is not None:
                tell(told)
            if isinstance(told, Made | Failed):
                return

    def _told(self, event: Waiting | Drawing | Preview | Done | Failed, wanted: Wanted) -> Told | None:
        check, caller = self.hooks.check_picture, wanted.draw.caller
        if isinstance(event, Preview):
            try:
                if check is not None:
                    check(event.image, caller)
            except Exception:  # the finished picture decides what the caller is told
                return None
            return Shown(event.number, _encoded(event.image, wanted))
        if isinstance(event, Done):
            if check is not None:
                check(event.image, caller)
            how = wanted.output_format, wanted.output_quality
            return Made(self.hooks.mark(event.image, event.settings, *how), event.settings)
        return event

    def _check_words(self, wanted: Wanted) -> None:
        if self.hooks.check_prompt is not None:
            self.hooks.check_prompt(wanted.draw.prompt, wanted.draw.caller)


def num_text_tokens(hooks: Hooks, wanted: Wanted) -> int:
    """Return the tokens of a request's texts."""
    draw = wanted.draw
    texts = (draw.prompt, draw.negative_prompt)
    if hooks.count_tokens is not None:
        return sum(hooks.count_tokens(draw.model, text) for text in texts)
    return sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)


def _explained(error: Exception, wanted: Wanted) -> Exception:
    """Return an error of weights as one of the parameter that asked for them."""
    if isinstance(error, CheckpointError) and wanted.draw.loras:
        names = [lora.name for lora in wanted.draw.loras]
        return SettingError("loras", names, f"adapters that {wanted.draw.model} can use", str(error))
    return error


def _encoded(image: Image.Image, wanted: Wanted) -> bytes:
    file = io.BytesIO()
    if wanted.output_format == "png":
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp())
        image.save(file, format="PNG", pnginfo=chunks)
    else:
        image.save(file, format=wanted.output_format.upper(), quality=85, xmp=xmp().encode())
    return file.getvalue()
