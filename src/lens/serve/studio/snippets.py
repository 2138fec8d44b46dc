"""Code that sends a request of the studio to the HTTP API: a curl command and a Python script."""

import json
import shlex
from typing import Any

from lens.core.step_caches import NO_CACHE
from lens.prompts.syntax import escape, named_loras
from lens.serve.engine.generation_spec import GenerationSpec

GENERATIONS_PATH, EDITS_PATH = "/v1/images/generations", "/v1/images/edits"
SOURCE_FILE, MASK_FILE = "source.png", "mask.png"
OPENAI_PARAMETERS = ("model", "prompt", "n", "size", "response_format")
"""Parameters that OpenAI's own client has; ours go in its `extra_body`."""


def explicit_body(spec: GenerationSpec) -> dict[str, Any]:
    """Return the body of a request that leaves nothing to the server's defaults."""
    draw = spec.draw
    body: dict[str, Any] = {
        "model": draw.model,
        "prompt": draw.prompt_template or escape(draw.prompt),
        "n": spec.count,
        "size": "{1}x{0}".format(*draw.first_size),
        "response_format": "b64_json",
        "seed": draw.seed,
        "steps": draw.steps,
        "guidance": draw.guidance,
        "solver": draw.solver,
        "cache": draw.cache or NO_CACHE,
    }
    if draw.negative_prompt:
        body["negative_prompt"] = escape(draw.negative_prompt)
    inline = named_loras(draw.prompt_template or "")
    if loras := [lora for lora in draw.loras if lora.name not in inline]:
        body["loras"] = [{"name": lora.name, "weight": lora.weight} for lora in loras]
    if draw.image is not None and draw.strength is not None:
        body["strength"] = draw.strength
    if draw.upscale is not None:
        body |= {"upscale": draw.upscale, "upscale_strength": draw.upscale_strength}
    return body


def curl_command(spec: GenerationSpec, base_url: str) -> str:
    """Return a command line that writes the first image to image.png."""
    body, has_image = explicit_body(spec), spec.draw.image is not None
    url = shlex.quote(base_url.rstrip("/") + (EDITS_PATH if has_image else GENERATIONS_PATH))
    if has_image:
        fields = [f"{name}={_form_field(value)}" for name, value in body.items()]
        files = [f"image=@{SOURCE_FILE}"] + [f"mask=@{MASK_FILE}"] * (spec.draw.mask is not None)
        lines = [f"curl -s {url}", *(f"-F {shlex.quote(field)}" for field in [*files, *fields])]
    else:
        document = json.dumps(body, indent=1)
        lines = [f"curl -s {url}", "-H 'Content-Type: application/json'", f"-d {shlex.quote(document)}"]
    unpack = "python3 -c 'import base64,json,sys; p=json.load(sys.stdin)[\"data\"][0][\"b64_json\"]; "
    unpack += 'open("image.png","wb").write(base64.b64decode(p))\''
    return " \\\n  ".join(lines) + f" \\\n  | {unpack}"


def python_script(spec: GenerationSpec, base_url: str) -> str:
    """Return a script for OpenAI's client that writes every image."""
    body, has_image = explicit_body(spec), spec.draw.image is not None
    files = {"image": SOURCE_FILE} if has_image else {}
    files |= {"mask": MASK_FILE} if spec.draw.mask is not None else {}
    arguments = [f"    {name}=open({path!r}, \"rb\")," for name, path in files.items()]
    arguments += [f"    {name}={body[name]!r}," for name in OPENAI_PARAMETERS]
    extra = {name: value for name, value in body.items() if name not in OPENAI_PARAMETERS}
    return "\n".join(
        [
            "import base64",
            "from pathlib import Path",
            "",
            "from openai import OpenAI",
            "",
            f"client = OpenAI(base_url={base_url.rstrip('/') + '/v1'!r}, api_key=\"none\")",
            f"response = client.images.{'edit' if has_image else 'generate'}(",
            *arguments,
            f"    extra_body={extra!r},",
            ")",
            "for index, image in enumerate(response.data):",
            '    Path(f"image-{index}.png").write_bytes(base64.b64decode(image.b64_json))',
        ]
    )


def _form_field(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
