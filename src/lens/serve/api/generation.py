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
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.api.schemas import GenerationSpec
from lens.serve.engine.request import (
    EngineClient,
    Failed,
    Finished,
    Preview,
    Queued,
    RequestHandle,
    StepProgress,
)
from lens.serve.safety.provenance import embed_provenance, xmp_packet

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class EncodedImage(NamedTuple):
    """A finished picture as it leaves."""

    content: bytes
    metadata: ImageMetadata


class EncodedPreview(NamedTuple):
    """A picture of the way there, encoded."""

    preview_index: int
    content: bytes


GenerationEvent = Queued | StepProgress | EncodedPreview | EncodedImage | Failed
ProvenanceEmbedder = Callable[[Image.Image, ImageMetadata, str, int | None], bytes]
"""(picture, settings, png or jpeg or webp, quality) -> the file that leaves."""


@dataclass(frozen=True)
class GenerationHooks:
    """What the operator has put between requests and pictures."""

    embed_provenance: ProvenanceEmbedder = embed_provenance
    check_prompt: Callable[[str, str], None] | None = None
    """(prompt, caller); raises what the caller is told."""
    check_image: Callable[[Image.Image, str], None] | None = None
    """(picture, caller); raises what the caller is told. Previews are pictures too."""
    enhance_prompt: Callable[[str], str] | None = None
    """A prompt written out."""
    count_tokens: Callable[[str, str], int] | None = None
    """(model, text) -> tokens of the text; None counts words and signs."""


NO_HOOKS = GenerationHooks()


@dataclass
class GenerationService:
    """Draws what is wanted, by an engine and the hooks."""

    engine: EngineClient
    hooks: GenerationHooks = NO_HOOKS
    is_draining: bool = False

    def prepare(self, spec: GenerationSpec, should_enhance: bool) -> GenerationSpec:
        """Check the words of a request, and write them out where that is asked for. May take seconds.

        Raises: DrainingError; whatever the hooks raise.
        """
        self.check_draining()
        self._check_prompt(spec)
        if should_enhance and self.hooks.enhance_prompt is not None:
            prompt = self.hooks.enhance_prompt(spec.draw.prompt)
            original = spec.draw.prompt
            spec = replace(spec, draw=replace(spec.draw, prompt=prompt), original_prompt=original)
            self._check_prompt(spec)
        return spec

    def submit(self, spec: GenerationSpec) -> list[RequestHandle]:
        """Hand all pictures to the engine, or none. Raises: what the engine raises."""
        self.check_draining()
        handles: list[RequestHandle] = []
        try:
            for request in spec.requests():
                handles.append(self.engine.submit(request))
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        return handles

    def check_draining(self) -> None:
        """Raise DrainingError where the server ends."""
        if self.is_draining:
            raise DrainingError("The server is about to end and takes nothing more on. Try again soon.")

    def follow(
        self, handle: RequestHandle, spec: GenerationSpec, publish: Callable[[GenerationEvent], None]
    ) -> None:
        """Tell what happens to a picture until it is made or failed. Blocks."""
        while True:
            try:
                event = handle.next_event()
                output = self._process_event(event, spec)
            except TimeoutError:
                continue
            except Exception as error:
                handle.cancel()
                output = Failed(error)
            if isinstance(output, Failed):
                output = Failed(_as_setting_error(output.error, spec))
            if output is not None:
                publish(output)
            if isinstance(output, EncodedImage | Failed):
                return

    def _process_event(
        self, event: Queued | StepProgress | Preview | Finished | Failed, spec: GenerationSpec
    ) -> GenerationEvent | None:
        check, caller = self.hooks.check_image, spec.draw.caller
        if isinstance(event, Preview):
            try:
                if check is not None:
                    check(event.image, caller)
            except Exception:  # the finished picture decides what the caller is told
                return None
            return EncodedPreview(event.number, _encode_preview(event.image, spec))
        if isinstance(event, Finished):
            if check is not None:
                check(event.image, caller)
            encoding = spec.output_format, spec.output_quality
            return EncodedImage(
                self.hooks.embed_provenance(event.image, event.metadata, *encoding), event.metadata
            )
        return event

    def _check_prompt(self, spec: GenerationSpec) -> None:
        if self.hooks.check_prompt is not None:
            self.hooks.check_prompt(spec.draw.prompt, spec.draw.caller)


def num_text_tokens(hooks: GenerationHooks, spec: GenerationSpec) -> int:
    """Return the tokens of a request's texts."""
    draw = spec.draw
    texts = (draw.prompt, draw.negative_prompt)
    if hooks.count_tokens is not None:
        return sum(hooks.count_tokens(draw.model, text) for text in texts)
    return sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)


def _as_setting_error(error: Exception, spec: GenerationSpec) -> Exception:
    """Return an error of weights as one of the parameter that asked for them."""
    if isinstance(error, CheckpointError) and spec.draw.loras:
        names = [lora.name for lora in spec.draw.loras]
        return SettingError("loras", names, f"adapters that {spec.draw.model} can use", str(error))
    return error


def _encode_preview(image: Image.Image, spec: GenerationSpec) -> bytes:
    file = io.BytesIO()
    if spec.output_format == "png":
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp_packet())
        image.save(file, format="PNG", pnginfo=chunks)
    else:
        image.save(file, format=spec.output_format.upper(), quality=85, xmp=xmp_packet().encode())
    return file.getvalue()
