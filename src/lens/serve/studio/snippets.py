"""The choices of the studio as code that asks the HTTP interface for the same picture: curl, and Python."""

import json
import shlex
from typing import Any

from lens.serve.studio.form import StudioForm

GENERATIONS_PATH, EDITS_PATH = "/v1/images/generations", "/v1/images/edits"
OPENAI_PARAMETERS = ("model", "prompt", "n", "size", "response_format")
"""Parameters that OpenAI's own client has; ours go in its `extra_body`."""


def request_body(form: StudioForm) -> dict[str, Any]:
    """Return the body of a request; what has no effect is left out."""
    height, width = form.height_and_width
    body: dict[str, Any] = {
        "model": form.model,
        "prompt": form.prompt.strip(),
        "n": int(form.count),
        "size": f"{width}x{height}",
        "response_format": "b64_json",
        "seed": int(form.seed),
        "steps": int(form.steps),
        "guidance": float(form.guidance),
        "solver": form.solver,
    }
    if form.negative_prompt.strip() and form.guidance != 1:
        body["negative_prompt"] = form.negative_prompt.strip()
    loras = [{"name": lora.name, "weight": lora.weight} for lora in form.loras if lora.weight]
    if loras:
        body["loras"] = loras
    if form.image:
        body["strength"] = form.strength
    return body


def curl_command(form: StudioForm, base_url: str) -> str:
    """Return a command line that writes the first picture to picture.png."""
    body = request_body(form)
    url = shlex.quote(base_url.rstrip("/") + (EDITS_PATH if form.image else GENERATIONS_PATH))
    if form.image:
        fields = [f"{name}={_form_field(value)}" for name, value in body.items()]
        files = ["image=@start.png"] + ["mask=@mask.png"] * bool(form.mask)
        lines = [f"curl -s {url}", *(f"-F {shlex.quote(field)}" for field in [*files, *fields])]
    else:
        document = json.dumps(body, indent=1)
        lines = [f"curl -s {url}", "-H 'Content-Type: application/json'", f"-d {shlex.quote(document)}"]
    unpack = "python3 -c 'import base64,json,sys; p=json.load(sys.stdin)[\"data\"][0][\"b64_json\"]; "
    unpack += 'open("picture.png","wb").write(base64.b64decode(p))\''
    return " \\\n  ".join(lines) + f" \\\n  | {unpack}"


def python_script(form: StudioForm, base_url: str) -> str:
    """Return a script for OpenAI's client that writes every picture."""
    body = request_body(form)
    files = {"image": "start.png"} if form.image else {}
    files |= {"mask": "mask.png"} if form.image and form.mask else {}
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
            f"answer = client.images.{'edit' if form.image else 'generate'}(",
            *arguments,
            f"    extra_body={extra!r},",
            ")",
            "for number, picture in enumerate(answer.data):",
            '    Path(f"picture-{number}.png").write_bytes(base64.b64decode(picture.b64_json))',
        ]
    )


def _form_field(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
