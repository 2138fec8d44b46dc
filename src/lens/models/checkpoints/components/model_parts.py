"""The components of a model that lie in files of their own: named ones are checked, the others searched for.

Free of torch. Knows nothing of loading.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.components.component_file import (
    COMPONENT_OPTIONS,
    COMPONENT_TITLES,
    ComponentFile,
    misfit,
    read_component,
)
from lens.models.checkpoints.components.search import ComponentSearch, is_weight_file
from lens.models.checkpoints.diffusers_folder import resolve_component_folder

MAX_NAMED_OTHERS = 3


class ModelParts(NamedTuple):
    """The file or folder of each component, and how it was chosen."""

    paths: dict[str, Path]
    notes: tuple[str, ...]
    """A line for each choice among several files that fit."""
    metadata: Mapping[str, str]
    """The metadata of the denoiser's file."""


def resolve_parts(model: Path, named: Mapping[str, Path], passed: Collection[str] = ()) -> ModelParts:
    """Return the parts of a model whose denoiser is a file, or is in a ComfyUI folder.

    `named` has the paths that the caller gives, `passed` the names of components that are loaded already.
    Raises: SettingError or CheckpointError that says what is wrong, and the option that names the part.
    """
    search = ComponentSearch(model)
    denoiser = read_component(model) if model.is_file() else _only_denoiser(search)
    if denoiser.component != "transformer":
        raise _wrong_component("transformer", denoiser, setting="model")
    paths, notes = {"transformer": denoiser.path}, []
    named = check_named_parts(denoiser, named)
    for component in ("text_encoder", "vae"):
        if component in passed:
            continue
        if component in named:
            paths[component] = named[component]
            continue
        needs_tokenizer = component == "text_encoder" and not {"tokenizer"} & (set(named) | set(passed))
        fitting = search.find(component, denoiser, needs_tokenizer=needs_tokenizer)
        paths[component] = fitting[0]
        if len(fitting) > 1:
            notes.append(_note(component, fitting))
    if "tokenizer" in named:
        paths["tokenizer"] = named["tokenizer"]
    elif "tokenizer" not in passed:
        paths["tokenizer"] = _tokenizer_of(paths.get("text_encoder")) or _tokenizer_nearby(search, paths)
    return ModelParts(paths, tuple(notes), denoiser.metadata)


def check_named_parts(denoiser: ComponentFile, named: Mapping[str, Path]) -> dict[str, Path]:
    """Return the paths that the caller names, each of the component itself, checked against the denoiser.

    Raises: SettingError or CheckpointError for a path that is not what it is named as, or that does not fit.
    """
    checked = {}
    for component, given in named.items():
        path = given.expanduser()
        if not path.exists():
            raise SettingError(component, str(given), "a file or folder that exists", "Check the path.")
        if path.is_dir():
            path = resolve_component_folder(path, component)
        checked[component] = path
        if component == "tokenizer":
            _check_tokenizer(path)
            continue
        part = read_component(path)
        if part.component != component:
            raise _wrong_component(component, part)
        if reason := misfit(denoiser, part):
            raise CheckpointError(f"{path} does not fit {denoiser.path}: {reason}.")
    return checked


def _only_denoiser(search: ComponentSearch) -> ComponentFile:
    found = search.denoisers()
    if len(found) == 1:
        return found[0]
    if not found:
        count = len(search.files)
        raise CheckpointError(
            f"{search.place} has no Lens denoiser ({count} files of weights were looked at). Give a folder "
            "that has one, a model folder with model_index.json, or the file of a denoiser."
        )
    listed = ", ".join(str(file.path) for file in found)
    raise SettingError(
        "model", str(search.root), "one Lens denoiser", f"It has {len(found)}; give one: {listed}."
    )


def _wrong_component(component: str, part: ComponentFile, setting: str | None = None) -> SettingError:
    fix = f"It is probably {part.title}."
    if part.component is not None:
        fix = f"It is {part.title}; give it as {COMPONENT_OPTIONS[part.component]}."
    needs = f"a whole {COMPONENT_TITLES[component]}, as a file or the folder of all its files"
    return SettingError(setting or component, str(part.path), needs, fix)


def _check_tokenizer(path: Path) -> None:
    if path.is_dir():
        is_fit = (path / "tokenizer.json").is_file()
    elif is_weight_file(path):
        is_fit = read_component(path).has_tokenizer
    else:
        is_fit = path.suffix.lower() == ".json"
    if not is_fit:
        needs = "a folder with tokenizer.json, such a file, or a text encoder's file with a tokenizer inside"
        raise SettingError("tokenizer", str(path), needs)


def _tokenizer_of(text_encoder: Path | None) -> Path | None:
    """Return the tokenizer inside a text encoder's file or folder, or in the folder beside it."""
    if text_encoder is None:
        return None
    if text_encoder.is_file():
        return text_encoder if read_component(text_encoder).has_tokenizer else None
    places = (text_encoder, text_encoder.parent / "tokenizer")
    return next((place for place in places if (place / "tokenizer.json").is_file()), None)


def _tokenizer_nearby(search: ComponentSearch, paths: Mapping[str, Path]) -> Path:
    for file in search.files:
        if file.component == "text_encoder" and file.has_tokenizer:
            return file.path
    has_none = (
        f"{paths['text_encoder']} has no tokenizer inside" if "text_encoder" in paths else "None is inside"
    )
    raise CheckpointError(
        f"The tokenizer is missing: {has_none}, nor is one in {search.place}. Name it with --tokenizer "
        "(tokenizer= in Python): a folder, a tokenizer.json, or a text encoder's file that has one."
    )


def _note(component: str, fitting: list[Path]) -> str:
    first, *others = fitting
    more = f" and {len(others) - MAX_NAMED_OTHERS} more" if len(others) > MAX_NAMED_OTHERS else ""
    names = ", ".join(map(str, others[:MAX_NAMED_OTHERS]))
    title, option = COMPONENT_TITLES[component], COMPONENT_OPTIONS[component]
    return (
        f"{len(fitting)} files hold a {title} that fits. The smallest is used, {first}; {option} names "
        f"another: {names}{more}."
    )
