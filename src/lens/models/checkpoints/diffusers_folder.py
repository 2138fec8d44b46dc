"""Model folders in diffusers layout: components in sub-folders, also shared with another model folder.

A whole model is checked from the headers of its files, before weights are read. Free of torch.
A folder may lack components that a folder beside it has: `shared_components` of its model_index.json names
that folder, and `component_folder` returns where a component is.
"""

import atexit
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lens.errors import CheckpointError
from lens.models.checkpoints.reader import (
    PICKLED_SUFFIXES,
    LazyStateDict,
    check_names_and_shapes,
    open_safetensors,
    read_json,
    read_weight_map,
    shapes_of,
    validate_file,
)
from lens.models.shapes import Shapes, check_config, component_shapes

logger = logging.getLogger(__name__)

WEIGHTS_STEMS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
COMPONENT_LABELS = {
    "transformer": "the Lens denoiser",
    "vae": "the FLUX.2 VAE",
    "text_encoder": "the GPT-OSS text encoder",
}

SHARED_KEY = "shared_components"
"""Entry of model_index.json: `../NAME`, the folder beside this one that has the missing components."""


def component_folder(folder: Path, component: str) -> Path:
    """Return the folder of a model's component: inside the model's folder, or in the one that it shares with.

    Raises: CheckpointError for a model_index.json that names anything but a folder beside its own.
    """
    inside = folder / component
    sibling = None if inside.is_dir() else _shared_model_folder(folder)
    return inside if sibling is None else sibling / component


def resolve_component_folder(folder: Path, component: str) -> Path:
    """Return the folder of a component, given itself or the model's folder."""
    is_model = (folder / "model_index.json").is_file() or (folder / component).is_dir()
    return component_folder(folder, component) if is_model else folder


def shared_components(folder: Path) -> dict[str, Path]:
    """Return the folder of each component that a model folder shares with another."""
    sibling = _shared_model_folder(folder)
    if sibling is None:
        return {}
    index = read_json(folder / "model_index.json")
    names = [name for name, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None]
    return {name: sibling / name for name in names if not (folder / name).is_dir()}


def materialize_shared(folder: Path) -> Path:
    """Return a folder with every component inside, for readers that do not support sharing.

    It is the folder itself where nothing is shared. Otherwise it is a folder of links that exists until the
    process ends, as weights may be read through them at any time.
    """
    return _folder_of_links(folder) if shared_components(folder) else folder


def materialize_variant(folder: Path, weights_variant: str) -> Path:
    """Return a folder whose weights are those of a variant, such as fp16, under their plain names.

    A component without this variant has its plain weights, as in diffusers. It is a folder of links that
    exists until the process ends.
    Raises: CheckpointError if no component has the variant.
    """
    whole, found = _folder_of_links(folder), []
    for component, stem in WEIGHTS_STEMS.items():
        there = component_folder(folder, component)
        names = zip(weight_files(stem), weight_files(stem, weights_variant), strict=True)
        links = {plain: there / name for plain, name in names if (there / name).is_file()}
        if not links:
            continue
        found.append(component)
        links |= {entry.name: entry for entry in there.iterdir() if entry.name not in weight_files(stem)}
        (whole / component).unlink()
        _link(whole / component, links)
    if not found:
        fix = f"It has {', '.join(variants_in(folder)) or 'plain weights alone'}."
        raise CheckpointError(f"{folder} has no weights of the variant {weights_variant!r}. {fix}")
    plain = [name for name in WEIGHTS_STEMS if name not in found and (whole / name).is_dir()]
    if plain:
        logger.warning("%s has no variant %s of: %s.", folder, weights_variant, ", ".join(plain))
    return whole


def variants_in(folder: Path) -> list[str]:
    """Return the variants of weights in the components of a model folder."""
    found = set()
    for component, stem in WEIGHTS_STEMS.items():
        for path in component_folder(folder, component).glob(f"{stem}.*"):
            inside = path.name.removeprefix(f"{stem}.")
            match = re.fullmatch(r"safetensors\.index\.(\w+)\.json|(\w+)\.safetensors", inside)
            found |= {match[1] or match[2]} if match else set()
    return sorted(found)


def _folder_of_links(folder: Path) -> Path:
    whole = Path(tempfile.mkdtemp(prefix="lens_"))
    atexit.register(shutil.rmtree, whole, ignore_errors=True)
    own = {entry.name: entry for entry in folder.iterdir() if entry.name != "model_index.json"}
    _link(whole, own | shared_components(folder))
    index = read_json(folder / "model_index.json")
    index.pop(SHARED_KEY, None)
    (whole / "model_index.json").write_text(json.dumps(index, indent=2))
    return whole


def _link(folder: Path, entries: Mapping[str, Path]) -> None:
    folder.mkdir(exist_ok=True)
    for name, there in entries.items():
        (folder / name).symlink_to(there.resolve())


def _shared_model_folder(folder: Path) -> Path | None:
    index = folder / "model_index.json"
    named = read_json(index).get(SHARED_KEY) if index.is_file() else None
    if named is None:
        return None
    if not isinstance(named, str) or not re.fullmatch(r"\.\./\w[\w.-]*", named):
        raise CheckpointError(f"{index} has {SHARED_KEY} in {named!r}. Only a folder beside "
                              "its own may be named, as in ../lens-nano.")  # fmt: skip
    sibling = folder.resolve().parent / named.removeprefix("../")
    if not sibling.is_dir():
        raise CheckpointError(f"{folder} has only some of its components; the others are in {sibling}, "
                              "which does not exist. Put both folders side by side.")  # fmt: skip
    if sibling.resolve() != sibling:
        raise CheckpointError(f"{index} has {SHARED_KEY} in {named!r}, which is a link to "
                              f"{sibling.resolve()}. Only a folder beside its own may be named.")  # fmt: skip
    return sibling


def weight_files(stem: str, weights_variant: str | None = None) -> tuple[str, str]:
    """Return the names of a component's file of weights, and of the index of its shards.

    `weights_variant` is that of `save_pretrained(variant=...)`, such as fp16.
    """
    if weights_variant is None:
        return f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    return f"{stem}.{weights_variant}.safetensors", f"{stem}.safetensors.index.{weights_variant}.json"


def missing_files(folder: Path) -> list[str]:
    """Return the weight files that are missing from a model folder, by their path inside it."""
    missing = []
    for component, stem in WEIGHTS_STEMS.items():
        inside = component_folder(folder, component)
        index = inside / f"{stem}.safetensors.index.json"
        names = sorted(set(read_weight_map(index).values())) if index.is_file() else [f"{stem}.safetensors"]
        missing += [f"{component}/{name}" for name in names if not (inside / name).exists()]
    return missing


def open_component(folder: Path, component: str) -> LazyStateDict:
    """Return the stored tensors of one component, from all its shards.

    Raises: CheckpointError if files are missing, pickled, pointers, truncated, or not as in their index.
    """
    whole, index = (folder / name for name in weight_files(WEIGHTS_STEMS[component]))
    if not index.is_file():
        if not whole.exists():
            _raise_missing_weights(folder)
        validate_file(whole)
        return open_safetensors(whole)
    shard_of = read_weight_map(index)
    tensors, metadata = {}, {}
    for shard in sorted(set(shard_of.values())):
        part = open_safetensors(folder / shard)
        tensors |= part.tensors
        metadata |= part.metadata
    check_names_and_shapes(
        {name: tensors[name].shape if name in tensors else () for name in shard_of},
        shapes_of(tensors),
        source=folder,
        what=f"its own index {index.name}",
    )
    return LazyStateDict(tensors, metadata)


def _raise_missing_weights(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} does not exist. The model folder is incomplete; download it again.")
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLED_SUFFIXES)
    if pickled:
        validate_file(pickled[0])
    raise CheckpointError(
        f"{folder} has no {' or '.join(sorted(set(WEIGHTS_STEMS.values())))}.safetensors. "
        "The folder is incomplete; download it again (`hf download` resumes)."
    )


def component_config(folder: Path) -> dict[str, Any]:
    """Return a component's configuration without the entries that start with an underscore."""
    return {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}


def check_component(folder: Path, component: str) -> None:
    """Raise a CheckpointError unless a component's files are complete and have exactly its weights."""
    stored = open_component(folder, component)
    config = component_config(folder)
    check_config(component, config, folder / "config.json")
    expected, found = component_shapes(component, config), shapes_of(stored.tensors)
    if component == "text_encoder":
        expected, found = _allow_transformers_layouts(expected, found, config)
    check_names_and_shapes(expected, found, source=folder, what=COMPONENT_LABELS[component])


def _allow_transformers_layouts(
    expected: Shapes, found: Shapes, config: Mapping[str, Any]
) -> tuple[Shapes, Shapes]:
    """Allow the layouts of transformers: experts in MXFP4 (blocks and scales), a tied or missing LM head."""
    found = dict(found)
    for name in [name for name in found if name.endswith("_blocks")]:
        scales = found.pop(name.removesuffix("_blocks") + "_scales", None)
        experts, outputs, groups, half = found.pop(name)
        if scales == (experts, outputs, groups):
            found[name.removesuffix("_blocks")] = (experts, groups * half * 2, outputs)
    if config.get("tie_word_embeddings") or "lm_head.weight" not in found:
        expected = {name: shape for name, shape in expected.items() if name != "lm_head.weight"}
        found.pop("lm_head.weight", None)
    return expected, found


def check_folder(folder: Path, passed: Collection[str] = ()) -> None:
    """Raise a CheckpointError unless every component of a model folder is complete and fits.

    Those that the caller has loaded or leaves out (`passed`) are not looked at.
    """
    left_out = {*passed, *absent_components(folder)}
    for component in WEIGHTS_STEMS:
        if component in read_json(folder / "model_index.json") and component not in left_out:
            check_component(component_folder(folder, component), component)


def absent_components(folder: Path) -> list[str]:
    """Return the components that a model folder was saved without: their entries are [null, null]."""
    index = read_json(folder / "model_index.json")
    return [name for name, kind in index.items() if isinstance(kind, list) and kind[:1] == [None]]
