"""Generation service: checks prompts, submits requests, follows them, encodes and marks images.

The HTTP API, the job worker and the studio generate images through it and state no rule beside it. `follow`
encodes and marks in the thread that calls it, never in an event loop. Knows nothing of HTTP, jobs or pages.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from PIL import Image

from lens.core.prompt_text import TokenCount
from lens.core.step_caches import cache_warning
from lens.errors import CheckpointError, DrainingError, QueueFullError, SettingError
from lens.nano.request_warnings import is_nano, request_warnings
from lens.prompts.reading import PromptReader
from lens.reasoner.outcome import Reasoned
from lens.sampling.image_metadata import ImageMetadata
from lens.sampling.image_processor import load_mask_images, resize_to_cover
from lens.sampling.request_warnings import (
    colour_warning,
    cut_warning,
    distinct,
    effect_warnings,
    mask_warning,
)
from lens.serve.api.errors import without_places
from lens.serve.api.reasoning import (
    ReasonerFinder,
    RefusalRecorder,
    ServerReasoning,
    ShouldStop,
    for_each_prompt,
    never,
)
from lens.serve.api.schemas import (
    NO_UPLOADS,
    BaseImageRequest,
    UploadedImages,
    check_prompt,
    resolve_request,
)
from lens.serve.engine.client import EngineClient
from lens.serve.engine.generation_spec import GenerationSpec, ImagePrompt
from lens.serve.engine.request import (
    Failed,
    Finished,
    GenerationRequest,
    LoraRequest,
    ModelInfo,
    Preview,
    Queued,
    StepProgress,
)
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.engine.validation import validate_parameters
from lens.serve.safety.provenance import embed_provenance, xmp_packet
from lens.serve.settings.server import ServerSettings


class EncodedImage(NamedTuple):
    """A finished image as a file, with its metadata and marks inside."""

    content: bytes
    metadata: ImageMetadata


class EncodedPreview(NamedTuple):
    """A preview image as a file."""

    preview_index: int
    content: bytes


GenerationEvent = Queued | StepProgress | EncodedPreview | EncodedImage | Failed
"""What happens to an image; EncodedImage or Failed comes last."""
ProvenanceEmbedder = Callable[[Image.Image, ImageMetadata, str, int | None], bytes]
"""(image, metadata, png or jpeg or webp, quality) -> the file."""


@dataclass(frozen=True)
class GenerationHooks:
    """The operator's functions: moderation, provenance, reasoners, token counting."""

    embed_provenance: ProvenanceEmbedder = embed_provenance
    check_prompt: Callable[[str, str], None] | None = None
    """(prompt, caller); raises the error that the caller gets. Negative prompts are not moderated."""
    check_image: Callable[[Image.Image, str], None] | None = None
    """(image or preview, caller); raises the error that the caller gets."""
    find_reasoner: ReasonerFinder | None = None
    """The reasoner of a model, which refines or refuses prompts where `enhance` asks for it."""
    record_refusal: RefusalRecorder | None = None
    """(refusal of a reasoner, caller) -> the id of its record."""
    count_tokens: Callable[[str, str], TokenCount] | None = None
    """(model, text) -> tokens of the text; without it, words and punctuation marks are counted."""


NO_HOOKS = GenerationHooks()


@dataclass
class GenerationService:
    """Turns request bodies into encoded images; safe to share among threads."""

    engine: EngineClient
    settings: ServerSettings
    hooks: GenerationHooks = NO_HOOKS
    is_draining: bool = False
    reasoning: ServerReasoning = field(init=False)

    def __post_init__(self):
        self.reasoning = ServerReasoning(self.hooks.find_reasoner, self.hooks.record_refusal)

    def resolve_request(
        self, body: BaseImageRequest, caller: str, uploads: UploadedImages = NO_UPLOADS
    ) -> GenerationSpec:
        """Return the images that a body asks for, with every default filled in.

        Raises: SettingError that names the parameter.
        """
        models, loras = self.engine.models(), self.engine.loras()
        spec = resolve_request(body, models, loras, self.settings, caller, uploads)
        spec = read_prompts(spec, self.settings.prompt_reader(), body.styles or ())
        names, max_steps = [model.name for model in models], self.settings.engine.max_steps
        for request in spec.distinct_requests():
            validate_parameters(request, names, loras, max_steps)
        if body.enhance:
            self.reasoning.check(self.model(spec.draw.model))
        return spec

    def model(self, name: str) -> ModelInfo:
        """Return a model of the server by its name."""
        return next(model for model in self.engine.models() if model.name == name)

    def prepare(
        self, spec: GenerationSpec, should_enhance: bool = False, should_stop: ShouldStop = never
    ) -> GenerationSpec:
        """Moderate the prompts of a request, refine them if asked, and note what is told of the request.

        Blocks; reasoners may take minutes, and end soon after `should_stop` returns True.
        Raises: DrainingError; GenerationCancelledError; PromptRefusedError; whatever the hooks raise.
        """
        self.check_draining()
        prompts, caller = [one.prompt for one in spec.distinct_requests()], spec.draw.caller
        if should_enhance:
            model = spec.draw.model
            spec = spec.refined(
                for_each_prompt(
                    prompts, lambda prompt, stop: self.enhance(prompt, model, caller, stop), should_stop
                )
            )
        else:
            self.check_prompts(prompts, caller)
        return replace(spec, warnings=tuple(self.request_warnings(spec)))

    def request_warnings(self, spec: GenerationSpec) -> list[str]:
        """Return what is told of a request that is drawn all the same. Reads its images."""
        draw = spec.draw
        found: list[str | None] = [
            *spec.warnings,
            *(None if one.warning is None else without_places(one.warning) for one in spec.reasoned),
            *effect_warnings(
                guidance=draw.guidance, has_negative=bool(draw.negative_prompt), strength=draw.strength,
                has_image=draw.image is not None, has_mask=draw.mask is not None,
                solver=draw.solver, num_steps=draw.steps, upscale=draw.upscale,
                upscale_strength=draw.upscale_strength,
            ),
            cache_warning(draw.cache, draw.steps),
            *_source_warnings(draw),
        ]  # fmt: skip
        requests = spec.distinct_requests()
        for one in requests:
            found += [count.warning(name) for name, count in self._token_counts(one).items()]
        model = next((one for one in self.engine.models() if one.name == draw.model), None)
        if model is not None and is_nano(model.variant):
            bases = model.trained_bases or (model.base_resolution,)
            for one in requests:
                found += request_warnings(model.variant, bases, one.prompt, one.first_size)
        return distinct(found)

    def count_tokens(self, model: str, prompt: str) -> TokenCount | None:
        """Return how long a prompt is for a model, and how much of it is read; None if nobody counts."""
        return None if self.hooks.count_tokens is None else self.hooks.count_tokens(model, prompt)

    def num_text_tokens(self, spec: GenerationSpec) -> int:
        """Return the number of tokens that are read of the prompt and the negative prompt."""
        if self.hooks.count_tokens is not None:
            return sum(count.num_read for count in self._token_counts(spec.draw).values())
        return sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in _read_texts(spec.draw).values())

    def _token_counts(self, draw: GenerationRequest) -> dict[str, TokenCount]:
        counts = {name: self.count_tokens(draw.model, text) for name, text in _read_texts(draw).items()}
        return {name: count for name, count in counts.items() if count is not None}

    @property
    def can_enhance(self) -> bool:
        """Whether any model of the server has a reasoner."""
        return any(self.reasoning.can_reason(model) for model in self.engine.models())

    def enhance(self, prompt: str, model: str, caller: str, should_stop: ShouldStop = never) -> Reasoned:
        """Return what the reasoner of a model makes of a prompt. Both prompts pass moderation. Blocks.

        Raises: SettingError if it has none; PromptRefusedError; DrainingError; GenerationCancelledError once
        `should_stop` returns True; whatever the hooks raise.
        """
        self.check_draining()
        info = self.model(model)
        self.reasoning.check(info)
        check_prompt(prompt, self.settings)
        self.check_prompts([prompt], caller)
        reasoned = self.reasoning.reason(prompt, info, caller, should_stop, lambda: self.is_draining)
        if reasoned.outcome == "refined":
            self.check_prompts([reasoned.prompt], caller)
        return reasoned

    def check_prompts(self, prompts: Iterable[str], caller: str) -> None:
        """Moderate prompts, equal ones once. Negative prompts are not moderated: they steer away.

        Raises: whatever the hook raises.
        """
        if self.hooks.check_prompt is not None:
            for prompt in dict.fromkeys(prompts):
                self.hooks.check_prompt(prompt, caller)

    def check_draining(self) -> None:
        """Raise DrainingError if the server is shutting down."""
        if self.is_draining:
            raise DrainingError()

    def submit(self, spec: GenerationSpec) -> list[RequestHandle]:
        """Submit all images of a request to the engine, or none. Raises: what the engine raises."""
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

    def submit_when_room(
        self,
        next_request: Callable[[], GenerationRequest],
        wait_for_room: Callable[[QueueFullError], object],
    ) -> RequestHandle:
        """Submit one image as soon as the queue has room. Blocks.

        `next_request` returns the request before each attempt; to give up, it raises. `wait_for_room` gets
        the error of a full queue; it waits, or raises that error.
        Raises: what the two functions and the engine raise.
        """
        while True:
            request = next_request()
            try:
                return self.engine.submit(request)
            except QueueFullError as error:
                wait_for_room(error)

    def follow(
        self, handle: RequestHandle, spec: GenerationSpec, publish: Callable[[GenerationEvent], None]
    ) -> None:
        """Publish what happens to an image until it is finished or failed. Blocks."""
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
            if isinstance(output, Failed | EncodedImage):
                return

    def _process_event(
        self, event: Queued | StepProgress | Preview | Finished | Failed, spec: GenerationSpec
    ) -> GenerationEvent | None:
        check, caller = self.hooks.check_image, spec.draw.caller
        if isinstance(event, Preview):
            try:
                if check is not None:
                    check(event.image, caller)
            except Exception:  # the caller gets the error of the finished image
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


def read_prompts(spec: GenerationSpec, reader: PromptReader, styles: Sequence[str]) -> GenerationSpec:
    """Return the images of a request with their prompts as they are read, each for its own seed.

    Raises: SettingError for a style, wildcard or LoRA that cannot be used.
    """
    draw, prompts = spec.draw, list[ImagePrompt]()
    template, warnings = None, list(spec.warnings)
    for request in spec.requests():
        has_guidance = draw.guidance != 1
        read = reader.read(draw.prompt, draw.negative_prompt, request.seed, styles, has_guidance)
        loras = (*draw.loras, *(LoraRequest(lora.name, lora.weight) for lora in read.loras))
        prompts.append(ImagePrompt(read.prompt, read.negative_prompt, loras))
        template = template or read.template
        warnings += read.warnings
    draw = replace(draw, **vars(prompts[0]), prompt_template=template)
    own = tuple(prompts) if len(set(prompts)) > 1 else ()
    return replace(spec, draw=draw, prompts=own, warnings=tuple(dict.fromkeys(warnings)))


def _read_texts(draw: GenerationRequest) -> dict[str, str]:
    """Return the texts that the text encoder reads, by what warnings call them."""
    texts = {"prompt": draw.prompt}
    has_negative = draw.guidance != 1 and draw.negative_prompt.strip()
    return texts | {"negative prompt": draw.negative_prompt} if has_negative else texts


def _source_warnings(draw: GenerationRequest) -> list[str | None]:
    if draw.image is None:
        return []
    with Image.open(draw.image) as image:
        height, width = draw.first_size
        found = [colour_warning(image), cut_warning(image.size, (width, height))]
    if draw.mask is not None:
        (mask,) = load_mask_images(draw.mask)
        found.append(mask_warning(resize_to_cover(mask, height, width)))
    return found


def _as_setting_error(error: Exception, spec: GenerationSpec) -> Exception:
    """Return an error of a LoRA's weights as an error of the parameter."""
    if isinstance(error, CheckpointError) and spec.draw.loras:
        names = [lora.name for lora in spec.draw.loras]
        reason = without_places(str(error))
        return SettingError("loras", names, f"LoRAs that fit {spec.draw.model}", reason)
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
