"""Routes of OpenAI's images API: generations, edits, models; and stored images."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from lens.errors import GenerationCancelledError, SettingError
from lens.serve.api.bodies import json_route_class, read_edit
from lens.serve.api.context import ApiContext, request_caller
from lens.serve.api.errors import ApiError
from lens.serve.api.generation import EncodedImage, EncodedPreview
from lens.serve.api.http_conventions import is_unchanged, no_idempotency_key, strict_query
from lens.serve.api.reasoning import answer_fields
from lens.serve.api.schemas import CreateImageEditRequest, CreateImageRequest
from lens.serve.api.sse import KEEP_ALIVE, sse_error, sse_event, stream_events, wait_for_all
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import Failed, ModelInfo
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.safety.provenance import MEDIA_TYPES
from lens.serve.storage.jobs import DONE

NO_IMAGE = "There is no such image. It may have been deleted."
IMAGES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "created": {"type": "integer"},
        "data": {"type": "array", "items": {"type": "object"}},
        "warnings": {
            "type": "array",
            "items": {"type": "string"},
            "description": "What is told of a request that is drawn all the same: settings without effect, "
            "a prompt or a source image that is cut, words and sizes that a nano model does not know.",
        },
        "enhanced": {
            "type": "array",
            "items": {"type": "object"},
            "description": "What the reasoner made of each distinct prompt, where `enhance` asked it: the "
            "outcome (refined, unchanged or failed), prompt, original, reason, checks and usage.",
        },
    },
    "required": ["created", "data"],
}
"""Schema of the answer that is no stream, without the fields of OpenAI's API that have no choice."""

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response


def images_router(context: ApiContext) -> "APIRouter":
    """Return the routes of OpenAI's images API."""
    from fastapi import APIRouter, Path, Request
    from fastapi.responses import Response

    json_route = json_route_class(context.settings.limits.json_bytes)
    router = APIRouter(prefix="/v1", tags=["images"], route_class=json_route, dependencies=[strict_query()])

    body_schema = {"application/json": {"schema": IMAGES_SCHEMA}, "text/event-stream": {}}
    stream_responses: dict[int | str, dict[str, Any]] = {200: {"content": body_schema}}

    @router.post(
        "/images/generations",
        response_model=None,
        responses=stream_responses,
        dependencies=[no_idempotency_key()],
    )
    async def generate(body: CreateImageRequest, request: Request) -> Response:
        """Generate images from a prompt."""
        context.service.check_draining()
        spec = await asyncio.to_thread(context.resolve_request, body, request_caller(request))
        return await _generate_response(context, request, body, spec, "image_generation")

    @router.post(
        "/images/edits",
        response_model=None,
        responses=stream_responses,
        openapi_extra=_edit_openapi(),
        dependencies=[no_idempotency_key()],
    )
    async def edit(request: Request) -> Response:
        """Generate an image from a source image and a prompt, or regenerate the area under a mask."""
        context.service.check_draining()
        body, files = await read_edit(request, context.settings.limits.json_bytes)
        uploads = await context.store_uploads(body.model, files)
        del files  # they would stay in memory until the images are drawn
        spec = await asyncio.to_thread(context.resolve_request, body, request_caller(request), uploads)
        return await _generate_response(context, request, body, spec, "image_edit")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """List the models of this server."""
        return {
            "object": "list",
            "data": [_model_object(model) for model in await asyncio.to_thread(context.engine.models)],
        }

    @router.get("/models/{name:path}")
    async def model(name: Annotated[str, Path(examples=["lens-nano"])]) -> dict[str, Any]:
        """Return one model and its defaults."""
        served_name = context.settings.served_model(name)
        for offered in await asyncio.to_thread(context.engine.models):
            if offered.name == served_name:
                return _model_object(offered)
        raise ApiError(404, f"There is no model {name!r} on this server.", "model_not_found", "model")

    image_responses: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/*": {}}},
        304: {"description": "The image is the one of If-None-Match."},
    }

    @router.get("/pictures/{name}", response_class=Response, responses=image_responses)
    async def stored_image(name: str, request: Request) -> Response:
        """Return a stored image; its random name replaces an API key."""
        image = await asyncio.to_thread(context.store.jobs.images.get, name.partition(".")[0])
        if image is None:
            raise ApiError(404, NO_IMAGE, "not_found")
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{image.sha256}"'}
        headers["X-Content-Type-Options"] = "nosniff"
        if is_unchanged(request.headers.get("if-none-match"), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        try:
            content = await asyncio.to_thread(context.store.jobs.images.read, image)
        except FileNotFoundError as error:
            raise ApiError(404, NO_IMAGE, "not_found") from error
        return Response(content, media_type=MEDIA_TYPES[image.format], headers=headers)

    return router


def token_usage(context: ApiContext, spec: GenerationSpec) -> dict[str, Any]:
    """Return the token usage of a request in the form of OpenAI's API."""
    num_text, num_image = context.service.num_text_tokens(spec), spec.tokens_per_image * spec.count
    details = {"text_tokens": num_text, "image_tokens": spec.tokens_per_image if spec.draw.image else 0}
    num_input_tokens = sum(details.values())
    return {
        "input_tokens": num_input_tokens,
        "input_tokens_details": details,
        "output_tokens": num_image,
        "output_tokens_details": {"image_tokens": num_image, "text_tokens": 0},
        "total_tokens": num_input_tokens + num_image,
    }


async def _generate_response(
    context: ApiContext, request: "Request", body: CreateImageRequest, spec: GenerationSpec, kind: str
) -> "Response":
    from fastapi.responses import Response, StreamingResponse

    spec = await context.prepare(request, spec, bool(body.enhance))
    handles = await asyncio.to_thread(context.service.submit, spec)
    if body.stream:
        if body.response_format == "url":
            for handle in handles:
                handle.cancel()
            raise SettingError("response_format", "url", "b64_json in a stream", "Or leave stream out.")
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = _event_stream(context, request, spec, handles, kind)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    images = await wait_for_all(handles, context.service, spec, request.is_disconnected)
    if images is None:
        raise GenerationCancelledError("The caller disconnected.")
    content = await asyncio.to_thread(_response_body, context, request, body, spec, images)
    return Response(content, media_type="application/json")


def _response_body(
    context: ApiContext,
    request: "Request",
    body: CreateImageRequest,
    spec: GenerationSpec,
    images: list[EncodedImage],
) -> bytes:
    """Return the bytes of the response. They may be tens of megabytes: call it in a thread."""
    if body.response_format == "url":
        outputs = [{"url": url} for url in _store_images(context, request, spec, images)]
    else:
        outputs = [{"b64_json": base64.b64encode(one.content).decode()} for one in images]
    data = [output | {"seed": one.metadata.seed} for output, one in zip(outputs, images, strict=True)]
    data = [one | _revised_prompt(spec, number) for number, one in enumerate(data)]
    fields = {"created": int(time.time()), "data": data, "background": "opaque", "model": spec.draw.model}
    fields |= {"output_format": spec.output_format, "quality": spec.quality, "size": spec.size}
    fields |= {"warnings": spec.warnings} | enhanced_fields(spec)
    return json.dumps(fields | {"usage": token_usage(context, spec)}).encode()


def enhanced_fields(spec: GenerationSpec) -> dict[str, Any]:
    """Return what the reasoner made of the prompts of a request, if it was asked."""
    return {"enhanced": answer_fields(spec.reasoned)} if spec.reasoned else {}


def _revised_prompt(spec: GenerationSpec, image_index: int) -> dict[str, str]:
    """Return the prompt that an image was drawn from, where it may differ from the one that was sent."""
    request = spec.request(image_index)
    is_revised = request.reasoned is not None or request.prompt_template is not None
    return {"revised_prompt": request.prompt} if is_revised else {}


def _store_images(
    context: ApiContext, request: "Request", spec: GenerationSpec, images: list[EncodedImage]
) -> list[str]:
    """Store images as a finished job; return their addresses."""
    jobs = context.store.jobs
    job = jobs.add(request_caller(request).owner, spec.to_json(), spec.count, status=DONE)
    try:
        records = [
            jobs.add_image(job, number, image.content, spec.output_format, image.metadata)
            for number, image in enumerate(images)
        ]
    except BaseException:
        jobs.delete(job.id)
        raise
    return [context.image_url(request, record.id, record.format) for record in records]


async def _event_stream(
    context: ApiContext, request: "Request", spec: GenerationSpec, handles: list[RequestHandle], kind: str
) -> AsyncIterator[bytes]:
    output_fields = {"size": spec.size, "quality": spec.quality, "background": "opaque"}
    output_fields |= {"output_format": spec.output_format}
    image_usage = await asyncio.to_thread(token_usage, context, spec)
    image_usage |= {"output_tokens": spec.tokens_per_image}
    image_usage["output_tokens_details"] = {"image_tokens": spec.tokens_per_image, "text_tokens": 0}
    image_usage["total_tokens"] = image_usage["input_tokens"] + spec.tokens_per_image
    events = stream_events(handles, context.service, spec, request.is_disconnected)
    try:
        async for item in events:
            if item is None:
                yield KEEP_ALIVE
                continue
            output = item.event
            event_fields = {"created_at": int(time.time())}
            event_fields |= {"image_index": item.image_index} if spec.count > 1 else {}
            if isinstance(output, EncodedPreview):
                name = f"{kind}.partial_image"
                image_fields = {"b64_json": base64.b64encode(output.content).decode()}
                yield sse_event(
                    name,
                    {"type": name, **image_fields, "partial_image_index": output.preview_index}
                    | event_fields
                    | output_fields,
                )
            elif isinstance(output, EncodedImage):
                name = f"{kind}.completed"
                image_fields = {
                    "b64_json": base64.b64encode(output.content).decode(),
                    "seed": output.metadata.seed,
                }
                yield sse_event(
                    name,
                    {"type": name, **image_fields, "usage": image_usage}
                    | event_fields
                    | output_fields
                    | {"warnings": spec.warnings}
                    | _revised_prompt(spec, item.image_index)
                    | enhanced_fields(spec),
                )
            elif isinstance(output, Failed):
                yield sse_error(output.error)
                return
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def _edit_openapi() -> dict[str, Any]:
    """Return the two forms of an edit for the OpenAPI document: a form, and JSON."""
    schema = CreateImageEditRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    lora = {"type": "string", "description": 'JSON, such as [{"name": "ink", "weight": 0.8}].'}
    style = {"type": "string", "description": "Name of a style of the server."}
    file = {"type": "string", "format": "binary"}
    fields = {}
    for name, field in schema["properties"].items():  # forms have no null: an absent field is left out
        fields[name] = {key: value for key, value in field.items() if key not in ("default", "anyOf")}
        for choice in field.get("anyOf", []):
            fields[name] |= choice if choice != {"type": "null"} else {}
    form = schema | {"properties": fields | {"image": file, "mask": file, "loras": lora, "styles": style}}
    url = {"type": "string", "description": "A data URL with base64."}
    image = {"type": "object", "properties": {"image_url": url}, "required": ["image_url"]}
    image |= {"additionalProperties": False}
    images = {"type": "array", "items": image, "minItems": 1, "maxItems": 1}
    body = schema | {"properties": schema["properties"] | {"images": images, "mask": image}}
    content = {
        "multipart/form-data": {"schema": form | {"required": ["image", "prompt"]}},
        "application/json": {"schema": body | {"required": ["images", "prompt"]}},
    }
    return {"requestBody": {"required": True, "content": content}}


def _model_object(model: ModelInfo) -> dict[str, Any]:
    fields = {"id": model.name, "object": "model", "created": 0, "owned_by": "lens", "variant": model.variant}
    defaults = {
        "steps": model.default_steps,
        "guidance": model.default_guidance,
        "base_resolution": model.base_resolution,
    }
    return fields | {"draws_with": defaults}
