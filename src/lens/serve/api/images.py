"""Pictures while the caller waits, as OpenAI's images API: generations, edits, models; stored pictures."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ValidationError

from lens.errors import Cancelled, SettingError
from lens.serve.api.errors import ApiError
from lens.serve.api.generation import MEDIA_TYPES, Made, Maker, Shown, num_text_tokens
from lens.serve.api.middleware import OPEN_OWNER, Caller
from lens.serve.api.schemas import NO_SOURCES, Edit, Generation, Sources, Wanted, wanted_of
from lens.serve.api.sse import KEEP_ALIVE, all_made, error_sent, followed, server_sent
from lens.serve.api.uploads import stored_sources
from lens.serve.engine.request import Drawer, Failed
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.jobs import DONE
from lens.serve.storage.server_state import Store

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response
    from starlette.datastructures import FormData


@dataclass
class Serving:
    """What the parts of the API share."""

    drawer: Drawer
    store: Store
    settings: ServerSettings
    maker: Maker

    def wanted(self, body: Any, caller: Caller, sources: Sources = NO_SOURCES) -> Wanted:
        """Return what a body asks for."""
        name = caller.fair_name(body.safety_identifier or body.user)
        return wanted_of(body, self.drawer.models(), self.drawer.loras(), self.settings, name, sources)

    def picture_url(self, request: "Request", picture_id: str, picture_format: str) -> str:
        """Return where a stored picture is found."""
        base = (self.settings.public_url or str(request.base_url)).rstrip("/")
        return f"{base}/v1/pictures/{picture_id}.{picture_format}"


def caller_of(request: "Request") -> Caller:
    """Return who asks, as the guard found."""
    return getattr(request.state, "caller", Caller(OPEN_OWNER))


def images_router(serving: Serving) -> "APIRouter":
    """Return the routes of this module."""
    from fastapi import APIRouter, Path, Request
    from fastapi.responses import Response

    router = APIRouter(prefix="/v1", tags=["images"])

    drawn: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @router.post("/images/generations", response_model=None, responses=drawn)
    async def generate(body: Generation, request: Request) -> Response:
        """Draw pictures from words."""
        serving.maker.check_draining()
        wanted = await asyncio.to_thread(serving.wanted, body, caller_of(request))
        return await _answered(serving, request, body, wanted, "image_generation")

    @router.post("/images/edits", response_model=None, responses=drawn, openapi_extra=_edit_document())
    async def edit(request: Request) -> Response:
        """Draw a picture from a picture and words, or draw the part under a mask anew."""
        serving.maker.check_draining()
        async with request.form(max_files=4, max_fields=40, max_part_size=2**20) as form:
            body, files = _edit_of(form), await _files_of(form)
        sent = files.get("image"), files.get("mask")
        sources = await asyncio.to_thread(sources_of, serving, body.model, *sent)
        wanted = await asyncio.to_thread(serving.wanted, body, caller_of(request), sources)
        return await _answered(serving, request, body, wanted, "image_edit")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """List the models that can be asked for."""
        return {
            "object": "list",
            "data": [_model_facts(model) for model in await asyncio.to_thread(serving.drawer.models)],
        }

    @router.get("/models/{name:path}")
    async def model(name: Annotated[str, Path(examples=["lens-nano"])]) -> dict[str, Any]:
        """Say what one model is."""
        for offered in await asyncio.to_thread(serving.drawer.models):
            if offered.name == name:
                return _model_facts(offered)
        raise ApiError(404, f"There is no model {name!r} here.", "model_not_found", "model")

    @router.get("/pictures/{name}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
    async def picture(name: str) -> Response:
        """Return a stored picture; its random name is the key to it."""
        found = await asyncio.to_thread(serving.store.jobs.picture, name.partition(".")[0])
        if found is None:
            raise ApiError(404, "There is no such picture; it may have been deleted.", "not_found")
        content = await asyncio.to_thread(serving.store.jobs.content, found)
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{found.sha256}"'}
        headers["X-Content-Type-Options"] = "nosniff"
        return Response(content, media_type=MEDIA_TYPES[found.format], headers=headers)

    return router


def sources_of(serving: Serving, model: str | None, image: bytes | None, mask: bytes | None) -> Sources:
    """Check and store what a caller sent to start from."""
    offered = serving.drawer.models()
    base = next((one.base_resolution for one in offered if one.name == model), offered[0].base_resolution)
    return stored_sources(serving.store.uploads, image, mask, serving.settings.limits.upload_px, base)


def usage_of(serving: Serving, wanted: Wanted) -> dict[str, Any]:
    """Return the tokens of a request, as OpenAI's API counts them."""
    text, image = num_text_tokens(serving.maker.hooks, wanted), wanted.output_tokens * wanted.count
    details = {"text_tokens": text, "image_tokens": wanted.output_tokens if wanted.draw.image else 0}
    put_in = sum(details.values())
    return {
        "input_tokens": put_in,
        "input_tokens_details": details,
        "output_tokens": image,
        "output_tokens_details": {"image_tokens": image, "text_tokens": 0},
        "total_tokens": put_in + image,
    }


async def _answered(
    serving: Serving, request: "Request", body: Generation, wanted: Wanted, kind: str
) -> "Response":
    from fastapi.responses import Response, StreamingResponse

    wanted = await asyncio.to_thread(serving.maker.prepared, wanted, bool(body.enhance))
    tickets = await asyncio.to_thread(serving.maker.submit, wanted)
    if body.stream:
        if body.response_format == "url":
            for ticket in tickets:
                ticket.cancel()
            raise SettingError("response_format", "url", "b64_json in a stream", "Or leave stream out.")
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = _streamed(serving, request, wanted, tickets, kind)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    made = await all_made(tickets, serving.maker, wanted, request.is_disconnected)
    if made is None:
        raise Cancelled("The caller went away.")
    content = await asyncio.to_thread(_document, serving, request, body, wanted, made)
    return Response(content, media_type="application/json")


def _document(
    serving: Serving, request: "Request", body: Generation, wanted: Wanted, made: list[Made]
) -> bytes:
    """Return the answer's bytes: tens of megabytes, perhaps, and so not made in the loop."""
    if body.response_format == "url":
        places = [{"url": url} for url in _stored(serving, request, wanted, made)]
    else:
        places = [{"b64_json": base64.b64encode(one.content).decode()} for one in made]
    data = [place | {"seed": one.settings.seed} for place, one in zip(places, made, strict=True)]
    if wanted.original_prompt is not None:
        data = [one | {"revised_prompt": wanted.draw.prompt} for one in data]
    facts = {"created": int(time.time()), "data": data, "background": "opaque", "model": wanted.draw.model}
    facts |= {"output_format": wanted.output_format, "quality": wanted.quality, "size": wanted.size}
    return json.dumps(facts | {"usage": usage_of(serving, wanted)}).encode()


def _stored(serving: Serving, request: "Request", wanted: Wanted, made: list[Made]) -> list[str]:
    """Store pictures as a job that is done already; return their addresses."""
    jobs = serving.store.jobs
    job = jobs.add(caller_of(request).owner, wanted.to_json(), wanted.count, status=DONE)
    try:
        pictures = [
            jobs.add_picture(job, number, one.content, wanted.output_format, one.settings)
            for number, one in enumerate(made)
        ]
    except BaseException:
        jobs.delete(job.id)
        raise
    return [serving.picture_url(request, picture.id, picture.format) for picture in pictures]


async def _streamed(
    serving: Serving, request: "Request", wanted: Wanted, tickets: list[Any], kind: str
) -> AsyncIterator[bytes]:
    facts = {"size": wanted.size, "quality": wanted.quality, "background": "opaque"}
    facts |= {"output_format": wanted.output_format}
    one_usage = usage_of(serving, wanted) | {"output_tokens": wanted.output_tokens}
    one_usage["output_tokens_details"] = {"image_tokens": wanted.output_tokens, "text_tokens": 0}
    one_usage["total_tokens"] = one_usage["input_tokens"] + wanted.output_tokens
    events = followed(tickets, serving.maker, wanted, request.is_disconnected)
    try:
        async for event in events:
            if event is None:
                yield KEEP_ALIVE
                continue
            told = event.told
            which = {"created_at": int(time.time())}
            which |= {"image_index": event.number} if wanted.count > 1 else {}
            if isinstance(told, Shown):
                name = f"{kind}.partial_image"
                picture = {"b64_json": base64.b64encode(told.content).decode()}
                yield server_sent(
                    name, {"type": name, **picture, "partial_image_index": told.number} | which | facts
                )
            elif isinstance(told, Made):
                name = f"{kind}.completed"
                picture = {"b64_json": base64.b64encode(told.content).decode(), "seed": told.settings.seed}
                yield server_sent(name, {"type": name, **picture, "usage": one_usage} | which | facts)
            elif isinstance(told, Failed):
                yield error_sent(told.error)
                return
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def _edit_of(form: "FormData") -> Edit:
    """Return the fields of a form as a body."""
    from fastapi.exceptions import RequestValidationError

    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, str) and name not in ("image", "image[]", "mask"):
            if name in values:
                raise SettingError(name, value, "to be sent once")
            values[name] = value
    if isinstance(values.get("loras"), str):
        try:
            values["loras"] = json.loads(values["loras"])
        except json.JSONDecodeError as error:
            raise SettingError("loras", values["loras"], "JSON: a list of names and weights") from error
    try:
        return Edit.model_validate(values)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from error


async def _files_of(form: "FormData") -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, value in form.multi_items():
        plain = "image" if name == "image[]" else name
        if isinstance(value, str):
            if plain in ("image", "mask"):
                raise SettingError(plain, value[:40], "a file")
            continue
        if plain not in ("image", "mask"):
            raise ApiError(400, f"Unknown parameter: '{name}'.", "unknown_parameter", name)
        if plain in files:
            raise SettingError(plain, "several files", "one file: Lens starts from one picture")
        files[plain] = await value.read()
    if "image" not in files:
        raise ApiError(400, "Missing required parameter: 'image'.", "missing_required_parameter", "image")
    return files


def _edit_document() -> dict[str, Any]:
    """Return what the API's document says of the form."""
    schema = Edit.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    for field in schema["properties"].values():  # forms know no null: what is not given is left out
        field.pop("default", None)
        for choice in field.pop("anyOf", []):
            field |= choice if choice != {"type": "null"} else {}
    lora = {"type": "string", "description": 'JSON, such as [{"name": "ink", "weight": 0.8}].'}
    file = {"type": "string", "format": "binary"}
    schema["properties"] |= {"image": file, "mask": file, "loras": lora}
    schema["required"] = ["image", "prompt"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _model_facts(model: Any) -> dict[str, Any]:
    facts = {"id": model.name, "object": "model", "created": 0, "owned_by": "lens", "variant": model.variant}
    draws = {"steps": model.steps, "guidance": model.guidance, "base_resolution": model.base_resolution}
    return facts | {"draws_with": draws}
