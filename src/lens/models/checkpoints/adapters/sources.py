"""Where an adapter is: a file, a folder, or a repository of Hugging Face, of which its file is downloaded."""

import re
from pathlib import Path
from typing import Any

from lens.errors import CheckpointError, SettingError, first_line

PEFT_LORA_FILE, DIFFUSERS_LORA_FILE = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"
PEFT_SETTINGS_FILE = "adapter_config.json"
DOWNLOAD_SETTINGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
"""Settings of diffusers that only matter for a repository of Hugging Face."""


def resolve_source(
    source: str | Path, weight_name: str | None = None, subfolder: str | None = None, **download: Any
) -> Path:
    """Return the file or folder of an adapter on this machine; `source` may be a hub id.

    Raises: CheckpointError for a repository that cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        folder = path / (subfolder or "")
        return folder / weight_name if weight_name else folder
    if path.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        return path
    return _downloaded(str(source), weight_name, subfolder, download)


def file_in(folder: Path) -> Path:
    """Return the adapter's file in a folder: of PEFT or diffusers, or the only one."""
    for name in (PEFT_LORA_FILE, DIFFUSERS_LORA_FILE):
        if (folder / name).exists():
            return folder / name
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    held = ", ".join(file.name for file in files[:10]) or "no .safetensors file"
    raise CheckpointError(
        f"{folder} has neither {PEFT_LORA_FILE} nor {DIFFUSERS_LORA_FILE}, but {held}. "
        "Give the .safetensors file itself, or its name as weight_name."
    )


def _downloaded(repository: str, weight_name: str | None, subfolder: str | None, settings: dict) -> Path:
    from huggingface_hub import hf_hub_download, list_repo_files

    settings.pop("proxies", None)
    revision, token = settings.get("revision"), settings.get("token")
    try:
        name = weight_name
        if name is None and not settings.get("local_files_only"):
            prefix = f"{subfolder}/" if subfolder else ""
            names = list_repo_files(repository, revision=revision, token=token)
            inside = [one.removeprefix(prefix) for one in names if one.startswith(prefix)]
            name = _chosen_name(inside, repository)
        name = name or DIFFUSERS_LORA_FILE
        file = hf_hub_download(repository, name, subfolder=subfolder, **settings)
        if Path(name).name == PEFT_LORA_FILE:  # its settings have the alpha
            hf_hub_download(repository, PEFT_SETTINGS_FILE, subfolder=subfolder, **settings)
    except (CheckpointError, SettingError):
        raise
    except Exception as error:  # the hub's client and its transport raise errors of many kinds
        raise CheckpointError(
            f"{repository} is no file or folder here, and Hugging Face does not give it: "
            f"{first_line(error)}. Check the id, or give a file."
        ) from error
    return Path(file)


def _chosen_name(names: list[str], repository: str) -> str:
    files = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    for name in (PEFT_LORA_FILE, DIFFUSERS_LORA_FILE):
        if name in files:
            return name
    if len(files) == 1:
        return files[0]
    held = f"one of {', '.join(files[:10])}" if files else "a repository with .safetensors files"
    raise SettingError("weight_name", None, held, f"{repository} does not tell which one is meant.")
