"""Bodies of requests: JSON is parsed in a thread, and checked for size and names before it is validated.

The validator makes an object of a kilobyte for every value that does not fit, so what is unknown or too much
is refused first, at its first instance. Knows nothing of what the values mean.
"""

import asyncio
import re
import string
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from lens.errors import SettingError
from lens.sampling.solvers import SOLVERS
from lens.serve.api.errors import ApiError, RequestTooLargeError
from lens.serve.api.schemas import MAX_LORAS, CreateImageEditRequest
from lens.serve.api.uploads import SourceFiles, decode_base64

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.routing import APIRoute
    from starlette.datastructures import UploadFile

MAX_ENTRIES = MAX_LORAS
"""Entries of a list or an object within a body."""
MAX_FORM_FIELDS = 40
MAX_FORM_FIELD_BYTES = 2**20
MAX_ECHO_CHARACTERS = 100
"""What errors repeat of a name that a caller made up."""
BASE64_ALPHABET = (string.ascii_letters + string.digits + "+/=-_").encode()
FILE_FIELD = re.compile(r"(image|mask)(\[0?\])?")
"""Names of files in forms: clients that can send several put brackets after them."""
IMAGE_KEYS = ("image_url", "b64_json", "url")
MAX_WORD_CHARACTERS = 40
WORD_FIELDS = (
    "quality", "output_format", "background", "moderation", "solver", "cache", "response_format",
)  # fmt: skip
"""Fields whose value is a word of a list; the case of letters says nothing."""
SYNONYMS = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
"""Names of diffusers for what has another name here, and no other meaning."""
MEANT_FIELDS = {
    "cfg_scale": "guidance", "true_cfg_scale": "guidance", "num_images": "n", "num_images_per_prompt": "n",
    "batch_size": "n", "width": "size", "height": "size", "image_size": "size", "resolution": "size",
    "ratio": "aspect_ratio", "sampler": "solver", "sampler_name": "solver", "sampling_method": "solver",
    "scheduler": "solver", "lora": "loras", "lora_path": "loras", "format": "output_format",
    "output_quality": "output_compression", "denoising_strength": "strength", "image_strength": "strength",
    "prompt_strength": "strength", "init_image": "image", "input_image": "image", "image_url": "image",
    "mask_image": "mask", "mask_url": "mask", "negative": "negative_prompt", "random_seed": "seed",
    "hr_scale": "upscale", "upscale_factor": "upscale",
    "input": "prompt", "text": "prompt", "prompts": "prompt", "positive_prompt": "prompt",
    "style": "styles", "style_preset": "styles", "prompt_upsampling": "enhance", "prompt_extend": "enhance",
}  # fmt: skip
"""Names that clients of other servers send, each with the field that says here what they mean."""


def json_route_class(max_bytes: int) -> type["APIRoute"]:
    """Return the class of routes whose JSON is parsed in a thread and checked before it is validated."""
    from fastapi import Request
    from fastapi.routing import APIRoute

    class ParsedRequest(Request):
        values: Any = None

        async def json(self) -> Any:
            return self.values

    class JsonRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Any]]:
            handle = super().get_route_handler()
            if self.body_field is None:
                return handle
            model: Any = self.body_field.field_info.annotation
            assert issubclass(model, BaseModel)

            async def handle_parsed(request: Request) -> Any:
                parsed = ParsedRequest(request.scope, request.receive)
                parsed.values = await read_json_fields(parsed, model, max_bytes)
                return await handle(parsed)

            return handle_parsed

    return JsonRoute


async def read_json_fields(request: "Request", model: type[BaseModel], max_bytes: int) -> dict[str, Any]:
    """Return the fields of a JSON body under the names of a model; the values are not validated.

    Raises: ApiError or SettingError for what is no JSON object, too large, unknown or too much.
    """
    if not _is_json(_media_type(request).get_content_type()):
        raise _media_type_error(request, "application/json")
    content = await request.body()
    return await asyncio.to_thread(lambda: check_fields(parse_json(content, max_bytes), model))


async def read_edit(request: "Request", max_bytes: int) -> tuple[CreateImageEditRequest, SourceFiles]:
    """Return the fields and the files of an edit, which is a form, or JSON with the images in base64.

    Raises: ApiError, SettingError or RequestValidationError.
    """
    content_type = _media_type(request)
    if _is_json(content_type.get_content_type()):
        content = await request.body()
        return await asyncio.to_thread(lambda: _parse_json_edit(parse_json(content, max_bytes)))
    if content_type.get_content_type() != "multipart/form-data":
        raise _media_type_error(request, "multipart/form-data or application/json")
    if (content_type.get_content_charset() or "utf-8") != "utf-8":  # some codecs take quadratic time
        raise ApiError(415, "Send the form in UTF-8, without another charset.", "unsupported_media_type")
    limits = {"max_files": 4, "max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FORM_FIELD_BYTES}
    whole = await _whole_form(request, content_type.get_boundary() or "")
    async with whole.form(**limits) as form:
        items = [(_from_utf8(name, "a name"), value) for name, value in form.multi_items()]
        files = await _read_form_files(items)
        texts = [(name, _from_utf8(value, name)) for name, value in items if isinstance(value, str)]
        return await asyncio.to_thread(_parse_edit_form, texts, max_bytes), files


async def _whole_form(request: "Request", boundary: str) -> "Request":
    """Return a request for a form that has its end, whose texts are decoded as Latin-1, a byte a character.

    The parser drops a part that is cut off, and takes what is not UTF-8 as Latin-1, both without an error.
    """
    from fastapi import Request

    if not boundary:
        raise ApiError(400, "Content-Type names no boundary of the form's parts.", "invalid_form")
    content = await request.body()
    if f"--{boundary}--".encode("utf-8", "replace") not in content:
        text = f"The form is cut off: its last line needs to be --{boundary[:MAX_ECHO_CHARACTERS]}--."
        raise ApiError(400, text, "invalid_form")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    headers = [one for one in request.scope["headers"] if one[0] != b"content-type"]
    media_type = f'multipart/form-data; boundary="{boundary}"; charset=latin-1'.encode("utf-8", "replace")
    return Request({**request.scope, "headers": [*headers, (b"content-type", media_type)]}, receive)


def _from_utf8(text: str, name: str) -> str:
    """Return the text of bytes that were decoded as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        shown = text[:MAX_ECHO_CHARACTERS]
        raise SettingError(name, shown, "text in UTF-8", "Save or send it in that encoding.") from error


def parse_json(content: bytes, max_bytes: int) -> Any:
    """Return what JSON holds; strictly, as names that come twice and halves of surrogate pairs break later.

    Base64 of images does not count towards `max_bytes`: it takes no time to parse.
    Raises: ApiError.
    """
    import jiter

    if len(content) > max_bytes and len(content.translate(None, BASE64_ALPHABET)) > max_bytes:
        raise RequestTooLargeError(max_bytes)
    try:
        content = content.removeprefix(b"\xef\xbb\xbf")
        return jiter.from_json(content, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        reason = str(error)[: 2 * MAX_ECHO_CHARACTERS]
        raise ApiError(400, f"The body is not valid JSON in UTF-8: {reason}.", "invalid_json") from error


def check_fields(values: Any, model: type[BaseModel], others: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of a body under the names of a model, or others that are known.

    Raises: ApiError for an unknown name; SettingError for one that is given twice, or for too many entries.
    """
    if not isinstance(values, dict):
        raise ApiError(400, "Invalid request body: it needs to be a JSON object.", "invalid_value")
    fields: dict[str, Any] = {}
    for given, value in values.items():
        name = SYNONYMS.get(given, given)
        if value is None and given in MEANT_FIELDS:  # libraries send null for what nobody set
            continue
        if name not in model.model_fields and name not in others:
            raise unknown_field_error(given, model)
        if name in fields:
            synonyms = [other for other, meant in SYNONYMS.items() if meant == name]
            fix = f"{', '.join(synonyms)} is another name of it."
            raise SettingError(name, value, "to be sent once", fix)
        _check_entries(name, value)
        if isinstance(value, bool) and name not in others:
            _check_bool(name, value, model)
        fields[name] = _plain_value(name, value)
    return fields


def _check_bool(name: str, value: bool, model: type[BaseModel]) -> None:
    """Raise SettingError for true or false where no bool is meant: the validator takes them for 1 and 0."""
    annotation = model.model_fields[name].annotation
    if bool not in (annotation, *get_args(annotation)):
        raise SettingError(name, value, "another value than true or false")


def _plain_value(name: str, value: Any) -> Any:
    """Return a size, a ratio, a word or a LoRA as it is documented, where it is written in another way."""
    if name == "loras" and isinstance(value, list):
        return [{"name": one} if isinstance(one, str) else one for one in value]
    if not isinstance(value, str) or len(value) > MAX_WORD_CHARACTERS:
        return value
    if name == "solver" and value in SOLVERS:
        return value
    if name == "size":
        return re.sub(r"\s*[xX*\u00d7]\s*", "x", value.strip()).lower()
    if name == "aspect_ratio":
        return re.sub(r"\s*[:/xX]\s*", ":", value.strip())
    if name not in WORD_FIELDS:
        return value
    word = value.strip().lower()
    return "jpeg" if word == "jpg" else word


def unknown_field_error(name: str, model: type[BaseModel]) -> ApiError:
    """Return the error of a name that no field has; it names the field that is meant, if one is known."""
    shown = name if len(name) <= MAX_ECHO_CHARACTERS else f"{name[:MAX_ECHO_CHARACTERS]}..."
    meant = MEANT_FIELDS.get(name)
    hint = f" Use '{meant}' instead." if meant in model.model_fields or meant in ("image", "mask") else ""
    return ApiError(400, f"Unknown parameter: '{shown}'.{hint}", "unknown_parameter", shown)


def _check_entries(name: str, value: Any) -> None:
    if not isinstance(value, list | dict):
        return
    if len(value) > MAX_ENTRIES:
        raise SettingError(name, f"{len(value)} entries", f"at most {MAX_ENTRIES}")
    for entry in value.values() if isinstance(value, dict) else value:
        _check_entries(name, entry)


def _parse_json_edit(values: Any) -> tuple[CreateImageEditRequest, SourceFiles]:
    fields = check_fields(values, CreateImageEditRequest, ("image", "images", "mask"))
    image, images, mask = (fields.pop(name, None) for name in ("image", "images", "mask"))
    if images is not None:
        if image is not None or not isinstance(images, list) or len(images) != 1:
            raise SettingError("images", "given", "one image, as Lens uses one source image")
        image = images[0]
    if image is None:
        raise ApiError(400, "Missing required parameter: 'images'.", "missing_required_parameter", "images")
    setting = "image" if images is None else "images"
    image = image[0] if isinstance(image, list) and len(image) == 1 else image
    body = _validate_edit(fields)
    return body, SourceFiles(
        _referenced_image(image, setting), None if mask is None else _referenced_image(mask, "mask")
    )


def _referenced_image(value: Any, name: str) -> bytes:
    """Return the image of base64, a data URL, or a reference such as OpenAI's {"image_url": data URL}."""
    while isinstance(value, dict) and len(keys := value.keys() - {"type"}) == 1 and keys <= set(IMAGE_KEYS):
        value = value[keys.pop()]
    if not isinstance(value, str) or value.startswith(("http:", "https:")):
        shown = value[:MAX_ECHO_CHARACTERS] if isinstance(value, str) else type(value).__name__
        fix = "Send the image itself: this server fetches no addresses and keeps no files."
        raise SettingError(name, shown, 'base64, or {"image_url": a data URL}', fix)
    return decode_base64(value, name)


def _parse_edit_form(texts: list[tuple[str, str]], max_bytes: int) -> CreateImageEditRequest:
    values: dict[str, Any] = {}
    for name, value in texts:
        if name in values:
            raise SettingError(name, value[:MAX_ECHO_CHARACTERS], "to be sent once")
        values[name] = value
    # A web page sends every input of its form, those that nobody filled in as empty texts.
    values = {name: value for name, value in values.items() if value.strip() or name == "prompt"}
    if isinstance(values.get("loras"), str):
        try:
            values["loras"] = parse_json(values["loras"].encode(), max_bytes)
        except ApiError as error:
            shown = values["loras"][:MAX_ECHO_CHARACTERS]
            raise SettingError("loras", shown, "JSON: a list of names and weights", str(error)) from error
    return _validate_edit(check_fields(values, CreateImageEditRequest))


def _validate_edit(values: Mapping[str, Any]) -> CreateImageEditRequest:
    from fastapi.exceptions import RequestValidationError

    try:
        return CreateImageEditRequest.model_validate(values)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from error


async def _read_form_files(items: "list[tuple[str, UploadFile | str]]") -> SourceFiles:
    files: dict[str, bytes] = {}
    for name, value in items:
        found = FILE_FIELD.fullmatch(name)
        if isinstance(value, str):
            if found:
                fix = "Give its part a filename, or send JSON with the image in base64."
                raise SettingError(found[1], "text", "a file", fix)
            continue
        if not value.filename and not value.size:  # a field of a web page in which no file was chosen
            continue
        if not found and name in CreateImageEditRequest.model_fields:
            raise SettingError(name, "a file", "text", "Send its part without a filename.")
        if not found:
            raise unknown_field_error(name, CreateImageEditRequest)
        if found[1] in files:
            raise SettingError(found[1], "several files", "one file, as Lens uses one source image")
        files[found[1]] = await value.read()
    if "image" not in files:
        raise ApiError(400, "Missing required parameter: 'image'.", "missing_required_parameter", "image")
    return SourceFiles(files["image"], files.get("mask"))


def _media_type(request: "Request") -> Message:
    """Return the type of a body. Raises: ApiError for one that is compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        shown = encoding[:MAX_ECHO_CHARACTERS]
        text = f"Content-Encoding is {shown!r}, but bodies need to be sent as they are. Send it uncompressed."
        raise ApiError(415, text, "unsupported_media_type")
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return message


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def _media_type_error(request: "Request", needed: str) -> ApiError:
    given = request.headers.get("content-type", "").partition(";")[0].strip()
    shown = repr(given[:MAX_ECHO_CHARACTERS]) if given else "missing"
    return ApiError(415, f"Content-Type is {shown}, but it needs {needed}.", "unsupported_media_type")
