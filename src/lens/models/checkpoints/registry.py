"""Registry of known models: their names, configurations and sources, and downloads from the hub.

Free of torch, so that `lens models` and `lens info` start fast. Knows nothing of tensors; `models.shapes`
derives names and shapes from the configurations here.
"""

import difflib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lens.errors import CheckpointError, LensError, SettingError, first_line

logger = logging.getLogger(__name__)

PACKAGED_WEIGHTS = Path(__file__).parents[2] / "nano" / "weights"

LENS_DENOISER: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 128,
    "out_channels": 32,
    "num_layers": 48,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "inner_dim": 1536,
    "enc_hidden_dim": 2880,
    "axes_dims_rope": (8, 28, 28),
    "gate_mlp": True,
    "rms_norm": True,
    "multi_layer_encoder_feature": True,
    "selected_layer_index": (5, 11, 17, 23),
}

GPT_OSS_20B: dict[str, Any] = {
    "num_hidden_layers": 24,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "sliding_window": 128,
    "rms_norm_eps": 1e-5,
    "swiglu_limit": 7.0,
    "max_position_embeddings": 131072,
    "pad_token_id": 199999,
    "eos_token_id": 200002,
    # These numbers give the attention factor of YaRN, 0.1 ln 32 + 1 = 1.3466.
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
}

FLUX2_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 32,
    "norm_num_groups": 32,
    "patch_size": (2, 2),
}

PATH_SUFFIXES = (".safetensors", ".gguf", ".json", ".yaml", ".yml", ".png", ".jpg", ".jpeg", ".webp", ".txt")
"""Endings of files, which no model's name and no hub id has."""

# The files that are downloaded from a hub. Pickled weights are left out, as reading them runs code.
DOWNLOAD_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.md")


@dataclass(frozen=True)
class ModelSource:
    """A hub repository with the weights of a model, and where they come from."""

    hub_id: str
    provenance: str
    is_withdrawn: bool = False


@dataclass(frozen=True)
class KnownModel:
    """A model that can be loaded by name."""

    name: str
    variant: str
    """The set of sampling defaults; a folder's model_index.json may name it as lens_variant."""
    about: str
    num_inference_steps: int
    guidance_scale: float
    base_resolution: int
    sources: tuple[ModelSource, ...] = ()
    """Hub repositories in the order of trial; empty for a packaged model."""
    recipe: str = ""
    """The last of the recipes that train a packaged model."""
    denoiser: dict[str, Any] = field(default_factory=dict)
    text_encoder: dict[str, Any] = field(default_factory=dict)
    vae: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The folder inside this package, for a packaged model."""
        return None if self.sources else PACKAGED_WEIGHTS / self.name


_MIRROR = "a mirror by others in diffusers layout; the original is withdrawn, so its hashes are unknown"
_ORIGINAL = "the original by Microsoft Research, withdrawn from the hub"


def _sources(suffix: str, *, scene_works: bool) -> tuple[ModelSource, ...]:
    mirrors = [f"YuCollection/Lens{suffix}-Diffusers", f"Jinstudio/Lens{suffix}"]
    if scene_works:
        mirrors.append(f"SceneWorks/Lens{suffix}")
    original = ModelSource(f"microsoft/Lens{suffix}", _ORIGINAL, is_withdrawn=True)
    return (*(ModelSource(name, _MIRROR) for name in mirrors), original)


_FULL_SIZE = {
    "denoiser": LENS_DENOISER,
    "text_encoder": GPT_OSS_20B,
    "vae": FLUX2_VAE,
    "base_resolution": 1024,
}

KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        # A guidance of 5 adds objects that the prompt does not have: docs/log.md.
        KnownModel("lens-nano", "nano", "small, inside this package, runs offline on a CPU", 20, 2.0, 128,
                   recipe="recipes/nano/rl.yaml"),
        KnownModel("lens-nano-turbo", "nano-turbo", "lens-nano, distilled to four steps", 4, 1.0, 128,
                   recipe="recipes/nano/turbo.yaml"),
        KnownModel("lens-nano-base", "nano-base", "lens-nano without reinforcement learning", 20, 2.0, 128,
                   recipe="recipes/nano/pretrain.yaml"),
        KnownModel("lens", "lens", "3.8B, tuned by reinforcement learning", 20, 5.0,
                   sources=_sources("", scene_works=True), **_FULL_SIZE),
        KnownModel("lens-turbo", "turbo", "3.8B, distilled to four steps", 4, 1.0,
                   sources=_sources("-Turbo", scene_works=True), **_FULL_SIZE),
        KnownModel("lens-base", "base", "3.8B, without reinforcement learning", 50, 5.0,
                   sources=_sources("-Base", scene_works=False), **_FULL_SIZE),
    )
}  # fmt: skip


def known_model(name: str | Path) -> KnownModel | None:
    """Return the known model of a name, a hub id or a packaged model's folder; None if there is none."""
    text = str(name)
    for model in KNOWN_MODELS.values():
        hub_ids = [source.hub_id.lower() for source in model.sources]
        if text.lower() == model.name or text.lower() in hub_ids:
            return model
        if (
            model.folder is not None
            and Path(text).is_dir()
            and Path(text).resolve() == model.folder.resolve()
        ):
            return model
    return None


def resolve_model(
    name_or_folder: str | Path, *, revision: str | None = None, offline: bool | None = None
) -> Path:
    """Return the folder of a model in diffusers layout, downloaded from a hub where necessary.

    An existing folder has priority over a name. For a known name the local cache is tried first, then each
    source; an interrupted download resumes. `offline=True` uses no network; None follows HF_HUB_OFFLINE.
    Raises: SettingError for an unknown name; CheckpointError for a folder or download that is not usable.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return _validate_folder(folder)
    if folder.is_file():
        raise SettingError(
            "model", str(name_or_folder), "a folder in diffusers layout or a known name",
            "lens generate and lens serve take single files; for this, convert it with `lens convert`.",
        )  # fmt: skip
    model = known_model(name_or_folder)
    if model is not None and model.folder is not None:
        if not model.folder.is_dir():
            raise CheckpointError(
                f"{model.name} is not in this installation ({model.folder}). Install the package again, or "
                f"train the model: lens train {model.recipe}."
            )
        return _validate_folder(model.folder)
    if model is not None and str(name_or_folder).lower() == model.name:
        return _download_from_any_source(model, revision, offline)
    if _looks_like_hub_id(str(name_or_folder)):
        source = (
            next((s for s in model.sources if s.hub_id.lower() == str(name_or_folder).lower()), None)
            if model
            else None
        )
        return _download(
            source or ModelSource(str(name_or_folder), "not in the table of known models"), revision, offline
        )
    raise _unknown_model_error(str(name_or_folder))


def _looks_like_hub_id(text: str) -> bool:
    parts = text.split("/")
    if Path(text).suffix.lower() in PATH_SUFFIXES:
        return False
    return len(parts) == 2 and all(parts) and not text.startswith((".", "~", "/"))


def _unknown_model_error(name: str) -> LensError:
    if "/" in name or "\\" in name or Path(name).suffix.lower() in PATH_SUFFIXES or name.startswith("~"):
        remedy = f"Check the path of the model, or give a known name: {', '.join(KNOWN_MODELS)}."
        return CheckpointError(f"{name} does not exist. {remedy}")
    near = difflib.get_close_matches(name.lower(), KNOWN_MODELS, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}? " if near else ""
    known = ", ".join(KNOWN_MODELS)
    return SettingError("model", name, "a known name, an existing folder, or a hub id owner/name",
                        f"{hint}Known: {known}.")  # fmt: skip


def _validate_folder(folder: Path) -> Path:
    if (folder / "model_index.json").is_file():
        return folder
    if (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is one component, not a whole model: it has config.json but no "
                              "model_index.json. Give the folder above it.")  # fmt: skip
    raise CheckpointError(f"{folder} is not a model in diffusers layout: it has no model_index.json. "
                          f"Give such a folder or one of {', '.join(KNOWN_MODELS)}.")  # fmt: skip


def _download_from_any_source(model: KnownModel, revision: str | None, offline: bool | None) -> Path:
    for source in model.sources:
        found = _local_snapshot(source, revision)
        if found is not None:
            return found
    problems = []
    for source in model.sources:
        if source.is_withdrawn:
            continue
        try:
            return _download(source, revision, offline)
        except CheckpointError as error:
            problems.append(str(error).split(". ")[0])
            logger.warning("%s", error)
    tried = "; ".join(problems)
    raise CheckpointError(
        f"No source of {model.name} could be reached ({tried}). {_remedy(model.sources[0])}"
    )


def _local_snapshot(source: ModelSource, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    """Return whether every component of a snapshot has its weights; it exists from the first file on."""
    from lens.models.checkpoints.diffusers_folder import missing_files

    return (folder / "model_index.json").is_file() and not missing_files(folder)


def _download(source: ModelSource, revision: str | None, offline: bool | None) -> Path:
    found = _local_snapshot(source, revision)
    if found is not None:
        return found
    from huggingface_hub import constants, errors, snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP client that it uses

    if offline or (offline is None and constants.HF_HUB_OFFLINE):
        raise CheckpointError(
            f"{source.hub_id} is not on this machine and downloads are off. {_remedy(source)}"
        )
    logger.info("Downloading %s: %s.", source.hub_id, source.provenance)
    try:
        folder = snapshot_download(source.hub_id, revision=revision, allow_patterns=list(DOWNLOAD_PATTERNS))
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"The terms of {source.hub_id} must be accepted. Accept them on its page, then run "
            "`hf auth login` and try again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        why = "was withdrawn" if source.is_withdrawn else "does not exist, or is private"
        raise CheckpointError(f"{source.hub_id} {why}. {_remedy(source)}") from error
    except (errors.LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise CheckpointError(
            f"{source.hub_id} could not be downloaded: {first_line(error)}. {_remedy(source)}"
        ) from error
    return _validate_folder(Path(folder))


def _remedy(source: ModelSource) -> str:
    return (
        f"Run `hf download {source.hub_id}` on a machine with a network (it resumes), copy the folder here "
        "and give its path as the model; or use lens-nano, which needs no download."
    )
