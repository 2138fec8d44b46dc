"""`lens info MODEL`: components, parameters and memory of a model, from its headers; what a picture is.

Counts come from the configs, so that a known model need not be on this machine. Only models of several files
load torch.
"""

import json
import os.path
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import prod
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from lens.cli.arguments import AsJson, parse_size
from lens.cli.models import print_columns
from lens.cli.process import prepare_libraries
from lens.data.io.image_types import PREFIX_BYTES, image_type
from lens.errors import CheckpointError, LensError
from lens.models.checkpoints.reader import PICKLED_SUFFIXES

LISTED_DTYPES = ("float32", "bfloat16", "float8")
COMPONENT_NAMES = {"transformer": "denoiser", "text_encoder": "text_encoder", "vae": "vae"}
COMPONENT_CLASSES = {
    "denoiser": "LensTransformer2DModel",
    "text_encoder": "LensGptOssEncoder",
    "vae": "AutoencoderKLFlux2",
}

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A name (see lens models), a model folder, a file of weights or a picture.", show_default=False
    ),
]


WithMemory = Annotated[
    bool,
    typer.Option("--memory", help="Show the ways to run it on a CPU, with the memory of each at its peak."),
]
LadderSize = Annotated[
    str, typer.Option("--size", help="Image size that --memory is shown for.", metavar="WxH")
]


def info(
    model: ModelArgument,
    as_json: AsJson = False,
    with_memory: WithMemory = False,
    size: LadderSize = "1024x1024",
) -> None:
    """Show the components, parameters and memory of a model; downloads nothing."""
    if with_memory:
        print_ladder(model, parse_size(size), as_json)
        return
    description = describe_path(Path(model)) if os.path.isfile(model) else describe_model(model)
    if as_json:
        print(json.dumps(description))
    elif "settings" in description:
        _print_picture(description)
    elif "components" in description:
        _print_model(description)
    else:
        _print_file(description)


def print_ladder(name: str, size: tuple[int, int], as_json: bool) -> None:
    """Print each rung of a model's memory ladder in bfloat16, and which one the command takes."""
    prepare_libraries()
    import torch

    from lens.models.memory import GB, available_memory
    from lens.sampling.memory_ladder import choose_rung, component_sizes, compute_itemsize, memory_ladder
    from lens.sampling.resolved_model import ResolvedModel

    model = ResolvedModel.of(name, offline=True)
    sizes = component_sizes(model, torch.bfloat16)
    ladder = memory_ladder(
        sizes, model.configs["transformer"], (size[1], size[0]), compute_itemsize(torch.bfloat16, "cpu")
    )
    free = available_memory("cpu")
    fits = any(rung.peak_bytes <= free for rung in ladder)
    taken = choose_rung(ladder, free, is_one_shot=True).name if fits else None
    if as_json:
        for rung in ladder:
            print(json.dumps({"rung": rung.name, "peak_bytes": rung.peak_bytes, "stages": rung.stages}))
        return
    print(f"{name} at {size[0]}x{size[1]} in bfloat16; {free / GB:.1f} GB is free:")
    for rung in ladder:
        stages = ", ".join(f"{stage} {num_bytes / GB:.1f}" for stage, num_bytes in rung.stages.items())
        mark = "  <- lens generate takes this" if rung.name == taken else ""
        print(f"  {rung.name}: {rung.peak_bytes / GB:.1f} GB ({stages}); {rung.description}{mark}")
    if not fits:
        print("  None of them fits into the memory that is free.")


def describe_model(name: str) -> dict[str, Any]:
    """Return a model's variant and components, with their parameters, tensors and bytes by dtype."""
    from lens.models.checkpoints.diffusers_folder import shared_components
    from lens.models.checkpoints.registry import known_model
    from lens.sampling.resolved_model import ResolvedModel

    known = known_model(name)
    model = ResolvedModel.find_local(name) if known else ResolvedModel.of(name, offline=True)
    if known and known.folder and model is None:
        model = ResolvedModel.of(name)  # a packaged model whose folder is missing: raises with the remedy
    if model and model.parts:
        prepare_libraries()  # the configurations of single files need torch
    folder, configs = (model.folder, model.configs) if model else (None, {})
    if known and not configs:
        configs = {"transformer": known.denoiser, "text_encoder": known.text_encoder, "vae": known.vae}
    components = {
        COMPONENT_NAMES[part]: _describe_component(part, config) for part, config in configs.items()
    }
    place = model.component_path("transformer") if model and folder is None else folder
    variant = model.variant if model else known.variant if known else ""
    return {
        "model": name,
        "folder": str(place) if place else None,
        "variant": known.variant if known else None,
        "components": components,
        "shared": {part: str(at) for part, at in shared_components(folder).items()} if folder else {},
        "parameters": sum(component["parameters"] for component in components.values()),
    } | _describe_world(variant, model.trained_bases if model else ())


def _describe_world(variant: str, trained_bases: tuple[int, ...]) -> dict[str, Any]:
    """Return what a model of the nano world knows, as the field `world`; no field for other models."""
    from lens.nano.request_warnings import is_nano

    if not is_nano(variant):
        return {}
    from lens.nano.world_guide import world_guide

    return {"world": world_guide() | {"trained_base_resolutions": list(trained_bases)}}


def describe_path(path: Path) -> dict[str, Any]:
    """Return what a file is: weights, or a picture with the settings that Lens drew it by.

    Raises: CheckpointError for anything else, and for damaged weights; LensError for a damaged picture.
    """
    with path.open("rb") as file:
        kind = image_type(file.read(PREFIX_BYTES))
    if kind:
        return describe_picture(path, kind)
    if path.suffix.lower() not in (".safetensors", ".gguf", *PICKLED_SUFFIXES):
        weights = "a model is a folder, or a file that ends in .safetensors or .gguf"
        raise CheckpointError(f"{path} is neither weights nor a picture: {weights}.")
    return describe_file(path)


def describe_picture(path: Path, kind: str) -> dict[str, Any]:
    """Return the format, the size and the settings of a picture; the latter are None without Lens's own.

    `other_tool` has the settings that another tool recorded, or is None.
    """
    from lens.sampling.image_metadata import ImageMetadata, open_image, read_image_settings

    size = open_image(path).size
    settings = other = None
    with suppress(LensError):
        found = read_image_settings(path)
        if isinstance(found, ImageMetadata):
            settings = found.model_dump(mode="json")
        else:
            other = asdict(found)
    facts = {"file": str(path), "kind": f"a {kind} picture", "width": size[0], "height": size[1]}
    return facts | {"settings": settings, "other_tool": other}


def describe_file(path: Path) -> dict[str, Any]:
    """Return the probable kind of a file of weights, its number of parameters and bytes by stored dtype."""
    from lens.models.checkpoints.components.component_file import read_component
    from lens.models.checkpoints.gguf_header import GGUF_SUFFIX, read_gguf_header
    from lens.models.checkpoints.reader import open_safetensors

    if path.suffix.lower() == GGUF_SUFFIX:
        packed = read_gguf_header(path).tensors.values()
        entries = [(tensor.format, prod(tensor.shape), tensor.num_bytes) for tensor in packed]
    else:
        tensors = open_safetensors(path).tensors.values()
        entries = [(tensor.dtype, prod(tensor.shape), tensor.num_bytes) for tensor in tensors]
    stored: dict[str, int] = {}
    for dtype, _, num_bytes in entries:
        stored[dtype] = stored.get(dtype, 0) + num_bytes
    file = read_component(path)
    is_plain = file.component == "transformer" and not (file.kind or "").startswith("an MXFP8")
    return {
        "file": str(path),
        "kind": file.title if is_plain else file.kind,
        "tensors": len(entries),
        "numbers": sum(count for _, count, _ in entries),
        "stored_bytes": stored,
        "has_tokenizer": file.has_tokenizer,
    }


def _describe_component(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    from lens.models.memory import DTYPE_BYTES, MXFP4_BYTES_PER_VALUE
    from lens.models.shapes import component_shapes, num_parameters

    try:
        all_shapes = component_shapes(part, config)
    except KeyError as error:
        raise CheckpointError(f"{part}/config.json lacks {error}; it belongs to another model.") from error
    shapes = {
        name: shape for name, shape in all_shapes.items() if not name.startswith("bn.")
    }  # no parameters
    if config.get("tie_word_embeddings"):
        shapes.pop("lm_head.weight", None)
    parameters = num_parameters(shapes)
    memory = {dtype: round(parameters * DTYPE_BYTES[dtype]) for dtype in LISTED_DTYPES}
    if part == "text_encoder":
        experts = num_parameters(
            {name: shape for name, shape in shapes.items() if name.endswith("_proj") and len(shape) == 3}
        )
        memory["mxfp4"] = round(
            experts * MXFP4_BYTES_PER_VALUE + (parameters - experts) * DTYPE_BYTES["bfloat16"]
        )
    facts = {
        "class": COMPONENT_CLASSES[COMPONENT_NAMES[part]],
        "parameters": parameters,
        "tensors": len(shapes),
        "memory_bytes": memory,
    }
    return facts


def _print_picture(description: dict[str, Any]) -> None:
    name, settings = shlex.quote(description["file"]), description["settings"]
    size = f"{description['width']}x{description['height']}"
    print(f"{description['file']}: {description['kind']} of {size} pixels")
    other = description["other_tool"]
    if other is not None:
        print(f"  Prompt: {other['prompt']}")
        print(f"  Drawn by {other['tool']}, seed {other['seed']}, {other['steps']} steps")
        print(f"  To draw with its settings: lens generate --like {name}")
        return
    if settings is None:
        print("  It has no settings of Lens. What it is: lens verify " + name)
        return
    print(f"  Prompt: {settings['prompt']}")
    if record := settings["reasoner"]:
        if settings["original_prompt"] != settings["prompt"]:
            print(f"  Asked for: {settings['original_prompt']}")
        system_prompt = f", system prompt {record['system_prompt']}" if record["system_prompt"] else ""
        print(f"  Reasoner: {record['outcome']} by {record['model'] or 'an unnamed reasoner'}{system_prompt}")
    print(f"  Drawn by {settings['model']}, seed {settings['seed']}, {settings['steps']} steps")
    print(f"  To draw it again: lens generate --like {name}")


def _print_model(description: dict[str, Any]) -> None:
    dtypes = [*LISTED_DTYPES, "mxfp4"]
    rows = [
        (name, f"{part['parameters']:,}", *(_format_bytes(part["memory_bytes"].get(one)) for one in dtypes))
        for name, part in description["components"].items()
    ]
    print(f"{description['model']}: {description['folder'] or 'not on this machine'}")
    print_columns(("component", "parameters", *dtypes), rows)
    if description["shared"]:
        folders = {str(Path(at).parent) for at in description["shared"].values()}
        print(f"{', '.join(description['shared'])}: shared, in {', '.join(folders)}")
    if "world" in description:
        from lens.nano.world_guide import guide_lines

        for title, text in guide_lines():
            print(fill(f"{title}: {text}", 110, subsequent_indent="  ", break_on_hyphens=False))
        print("Prompts to start with:")
        for example in description["world"]["examples"]:
            print(f"  {example}")


def _print_file(description: dict[str, Any]) -> None:
    kind = description["kind"] or "unknown kind"
    sizes = ", ".join(f"{dtype} {_format_bytes(size)}" for dtype, size in description["stored_bytes"].items())
    print(
        f"{description['file']}: {kind}; {description['tensors']} tensors, "
        f"{description['numbers']:,} numbers ({sizes})"
    )


def _format_bytes(num_bytes: int | None) -> str:
    if num_bytes is None:
        return ""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
