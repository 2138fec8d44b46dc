"""`lens info MODEL`: what a model is made of and what memory it takes, from settings and headers alone.

Counts come from the configuration, so a model need not be here to be described; nothing loads torch.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer

from lens.cli.models import local_folder
from lens.errors import CheckpointError

BYTES_OF = {"float32": 4.0, "bfloat16": 2.0, "float8": 1.0}
MXFP4_BYTES = 17 / 32  # 32 numbers of 4 bits and one scale of 8
NAMES = {"transformer": "denoiser", "text_encoder": "text_encoder", "vae": "vae"}
CLASSES = {
    "denoiser": "LensTransformer2DModel",
    "text_encoder": "LensGptOssEncoder",
    "vae": "AutoencoderKLFlux2",
}

Model = Annotated[
    str,
    typer.Argument(help="A name (see lens models), a model folder, a file of weights.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def info(model: Model, as_json: AsJson = False) -> None:
    """Show components, parameters and memory of a model; downloads nothing."""
    facts = file_facts(Path(model)) if Path(model).is_file() else model_facts(model)
    if as_json:
        print(json.dumps(facts))
    elif "components" in facts:
        _show_model(facts)
    else:
        _show_file(facts)


def model_facts(name: str) -> dict[str, Any]:
    """Return a model's defaults and its components with their parameters, tensors and bytes by dtype."""
    from lens.models.checkpoints.diffusers_folder import shared_components
    from lens.models.checkpoints.registry import known_model, resolve_model

    known = known_model(name)
    folder = local_folder(name) if known else resolve_model(name, offline=True)
    if known and known.folder and not folder:
        resolve_model(name)  # a packaged model whose folder is missing: the catalog says what to do
    configs = folder_configs(folder) if folder else {}
    if known and not configs:
        configs = {"transformer": known.denoiser, "text_encoder": known.text_encoder, "vae": known.vae}
    components = {NAMES[part]: _component_facts(part, config) for part, config in configs.items()}
    return {
        "model": name,
        "folder": str(folder) if folder else None,
        "variant": known.variant if known else None,
        "components": components,
        "shared": {part: str(at) for part, at in shared_components(folder).items()} if folder else {},
        "parameters": sum(component["parameters"] for component in components.values()),
    }


def folder_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the configuration of each component with weights in a model folder."""
    from lens.models.checkpoints.diffusers_folder import component_config, component_folder

    folders = {part: component_folder(folder, part) for part in NAMES}
    return {part: component_config(at) for part, at in folders.items() if (at / "config.json").is_file()}


def file_facts(path: Path) -> dict[str, Any]:
    """Return what a single safetensors file probably is, its numbers and bytes by stored dtype."""
    from lens.models.checkpoints.detect import denoiser_prefix, probable_kind
    from lens.models.checkpoints.reader import open_safetensors

    tensors = open_safetensors(path).tensors
    kind = "a Lens denoiser" if denoiser_prefix(tensors) == "" else probable_kind(tensors)
    stored: dict[str, int] = {}
    for tensor in tensors.values():
        stored[tensor.dtype] = stored.get(tensor.dtype, 0) + tensor.num_bytes
    numbers = sum(prod(tensor.shape) for tensor in tensors.values())
    return {
        "file": str(path),
        "kind": kind,
        "tensors": len(tensors),
        "numbers": numbers,
        "stored_bytes": stored,
    }


def _component_facts(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    from lens.models.checkpoints.diffusers_folder import component_shapes
    from lens.models.shapes import num_parameters

    try:
        weights = component_shapes(part, config)
    except KeyError as error:
        raise CheckpointError(f"{part}/config.json lacks {error}; it is of another model.") from error
    shapes = {name: shape for name, shape in weights.items() if not name.startswith("bn.")}  # no parameters
    if config.get("tie_word_embeddings"):
        shapes.pop("lm_head.weight", None)
    parameters = num_parameters(shapes)
    memory = {dtype: round(parameters * size) for dtype, size in BYTES_OF.items()}
    if part == "text_encoder":
        experts = num_parameters(
            {name: shape for name, shape in shapes.items() if name.endswith("_proj") and len(shape) == 3}
        )
        memory["mxfp4"] = round(experts * MXFP4_BYTES + (parameters - experts) * BYTES_OF["bfloat16"])
    facts = {
        "class": CLASSES[NAMES[part]],
        "parameters": parameters,
        "tensors": len(shapes),
        "memory_bytes": memory,
    }
    return facts


def _show_model(facts: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    dtypes = [*BYTES_OF, "mxfp4"]
    table = Table("component", "parameters", *dtypes, box=box.SIMPLE)
    for name, part in facts["components"].items():
        sizes = (_size(part["memory_bytes"].get(dtype)) for dtype in dtypes)
        table.add_row(name, f"{part['parameters']:,}", *sizes)
    print(f"{facts['model']}: {facts['folder'] or 'not on this machine'}")
    Console().print(table)
    if facts["shared"]:
        folders = {str(Path(at).parent) for at in facts["shared"].values()}
        print(f"{', '.join(facts['shared'])}: shared, in {', '.join(folders)}")


def _show_file(facts: dict[str, Any]) -> None:
    kind = facts["kind"] or "of no kind known here"
    sizes = ", ".join(f"{dtype} {_size(size)}" for dtype, size in facts["stored_bytes"].items())
    print(f"{facts['file']}: {kind}; {facts['tensors']} tensors, {facts['numbers']:,} numbers ({sizes})")


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return ""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
