"""Conversion of the parts of a model from one published layout to another, one tensor at a time.

The layout of a source is detected; the target's is given by the name of a format. Everything that can be
checked from names and headers is checked before libraries load.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from lens.errors import CheckpointError, MissingExtraError, SettingError
from lens.files import check_writable
from lens.models.checkpoints.conversion.formats import (
    ADAPTER,
    COMPONENT_OF_PART,
    DENOISER,
    FORMATS,
    TEXT_ENCODER,
    VAE,
    Format,
    require_format,
)
from lens.models.checkpoints.conversion.sources import (
    Source,
    check_space,
    estimated_bytes,
    find_source,
    stored_shapes,
)
from lens.models.checkpoints.conversion.staging import staged
from lens.models.checkpoints.diffusers_folder import WEIGHTS_STEMS
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
from lens.models.checkpoints.registry import known_model, resolve_model

__all__ = ["FORMATS", "convert", "find_convertible"]

TOKENIZER_PLACES = ("tokenizer.json", "tokenizer/tokenizer.json")
"""Where a folder can have a tokenizer."""
Progress = Callable[[str, int, int], None]


def find_convertible(
    source: str | Path,
    target: str | Path,
    format: str,
    part: str | None = None,
    tokenizer: str | Path | None = None,
) -> Source:
    """Return what is to be converted, once format, target, source and free space are checked.

    `source` is a path, or the name of a known model, which is downloaded if necessary.
    Free of torch; nothing is written.
    Raises: SettingError for a format, part or target that does not fit; CheckpointError for the source;
    DiskFullError.
    """
    source, target = _source_path(source), Path(target).expanduser()
    layout = require_format(format)
    _check_target(target, format, layout)
    if layout.suffix == GGUF_SUFFIX and find_spec("gguf") is None:
        raise MissingExtraError("A GGUF file", "gguf", "quantize")
    found = find_source(source, format, layout, part)
    if tokenizer is not None:
        _check_tokenizer(Path(tokenizer).expanduser(), found.part)
    if found.part != ADAPTER:
        check_space(target, estimated_bytes(stored_shapes(found), format, layout, found.part))
    return found


def _source_path(source: str | Path) -> Path:
    path = Path(source).expanduser()
    return path if path.exists() or known_model(source) is None else resolve_model(source)


def convert(
    source: str | Path,
    target: str | Path,
    format: str,
    part: str | None = None,
    *,
    tokenizer: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write a part of `source` to `target` in a format of FORMATS and return the target's path.

    Memory holds a piece of one tensor. The target appears when it is complete; where the source does not
    fit, nothing is written. `tokenizer` is a tokenizer.json, or what has one, for a format with one inside.
    Raises: as find_convertible.
    """
    found = find_convertible(source, target, format, part, tokenizer)
    target = Path(target).expanduser()
    with staged(target) as path:
        if found.part == ADAPTER:
            _write_adapter(found.path, path, format.removeprefix("lora-").replace("-", "_"))
        elif found.part == VAE:
            _write_vae(found.path, path, format)
        else:
            _write_model(found, path, format, tokenizer, on_progress)
    return target


def _check_target(target: Path, name: str, layout: Format) -> None:
    if target.exists():
        raise SettingError("target", str(target), "a path that does not exist yet", "Choose another.")
    if layout.suffix and target.suffix != layout.suffix:
        raise SettingError(
            "target", str(target), f"a name that ends in {layout.suffix}", f"{name} is one file."
        )
    if not layout.suffix and target.suffix in (".safetensors", ".gguf"):
        raise SettingError("target", str(target), "the name of a folder", f"{name} is a folder.")
    check_writable(target.parent, "target")


def _check_tokenizer(path: Path, part: str) -> None:
    if part != TEXT_ENCODER:
        needs = f"a text encoder, but the {part} is converted"
        raise SettingError("tokenizer", str(path), needs, "Omit it.")
    if not path.exists():
        raise SettingError("tokenizer", str(path), "a tokenizer.json, or a folder or file that has one")
    if path.is_dir() and not any((path / inside).is_file() for inside in TOKENIZER_PLACES):
        needs = f"it needs a {TOKENIZER_PLACES[0]}, inside or by name"
        raise CheckpointError(f"{path} has no tokenizer: {needs}.")


def _write_model(
    found: Source, path: Path, name: str, tokenizer: str | Path | None, on_progress: Progress | None
) -> None:
    from lens.models.checkpoints.conversion.targets import write_target

    layout = FORMATS[name]
    if found.part == DENOISER:
        from lens.models.checkpoints.conversion.denoiser import denoiser_target

        target = denoiser_target(found.path, name, layout)
    else:
        from lens.models.checkpoints.conversion.text_encoder import text_encoder_target
        from lens.models.checkpoints.conversion.tokenizer import find_tokenizer_json

        inside = find_tokenizer_json(found.path, None if tokenizer is None else Path(tokenizer).expanduser())
        target = text_encoder_target(found.path, name, layout, inside)
    write_target(path, target, WEIGHTS_STEMS[COMPONENT_OF_PART[found.part]], on_progress)


def _write_adapter(source: Path, path: Path, style: str) -> None:
    from lens.models.checkpoints.adapters.keys import adapter_layers_of
    from lens.models.checkpoints.adapters.lora_formats import read_adapter, write_adapter
    from lens.models.checkpoints.registry import LENS_DENOISER
    from lens.models.shapes import denoiser_shapes

    # Only names matter here, and those of a smaller Lens are a part of the released model's.
    layers = adapter_layers_of(denoiser_shapes(LENS_DENOISER))
    write_adapter(read_adapter(source, layers, check_shapes=False), path, style)


def _write_vae(source: Path, path: Path, format: str) -> None:
    from lens.models.checkpoints.conversion.targets import Target, diffusers_config, write_target
    from lens.models.checkpoints.vae import load_vae, save_vae_single_file
    from lens.models.checkpoints.writer import streamed

    vae = load_vae(source)
    if format == "vae-flux2":
        save_vae_single_file(vae, path)
        return
    tensors = {name: streamed(value) for name, value in vae.state_dict().items()}
    config = diffusers_config("AutoencoderKLFlux2", vae.config)
    write_target(path, Target(tensors, config=config), WEIGHTS_STEMS["vae"])
