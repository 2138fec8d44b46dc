"""Scorers from published weights: files, versions, strict loading and preprocessing.

Only safetensors are read, as a pickle can run any code. Loading is strict: a weight that is missing,
unexpected or of another size is an error. Knows nothing of the purpose of a model. Letters: B batch.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image
from pydantic import Field

from lens.data.io.webdataset import checksum
from lens.data.scorers.base import ScorerSettings, package_versions, version_hash
from lens.errors import CheckpointError, SettingError, first_line

if TYPE_CHECKING:
    import torch

READ_PATTERNS = ("*.json", "*.safetensors")


class PretrainedSettings(ScorerSettings):
    """Base of the settings of scorers from published weights."""

    model: str
    """A folder of published weights, or the name of a model on the hub, which is downloaded once."""
    revision: str | None = None
    """Revision of a model on the hub: a branch, a tag or a commit. Only a commit never changes."""
    device: str = "auto"
    """The name of a device, such as `cpu` or `cuda:1`; `auto` uses a GPU where there is one."""
    batch_size: int = Field(16, gt=0)
    """Images in a batch of the model; the scores do not depend on it."""


class PretrainedScorer:
    """Base of scorers from published weights: files, version, and batches of images."""

    VERSION: ClassVar[str]
    """Version of the way from the output of the model to the score."""

    def __init__(self, settings: PretrainedSettings):
        self.settings = settings
        self.name = settings.kind
        self.columns = settings.columns
        self.folder = resolve_model_folder(settings)
        self.version = pretrained_version(settings, self.folder, self.VERSION, *self.version_inputs())

    def version_inputs(self) -> tuple[Any, ...]:
        """Return what else the scores depend on."""
        return ()

    def rows(self, inputs: "Mapping[str, torch.Tensor]") -> list[dict[str, Any]]:
        """Return a row for each image of a preprocessed batch."""
        raise NotImplementedError

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        import torch

        with torch.inference_mode():
            inputs = preprocessed_batches(
                images, self._processor, self.settings, scorer_device(self.settings)
            )
            return [row for batch in inputs for row in self.rows(batch)]

    @functools.cached_property
    def _processor(self) -> Any:
        return load_image_processor(self.folder)


def resolve_model_folder(settings: PretrainedSettings) -> Path:
    """Return the folder of the files of a model; download them where `model` is a name on the hub.

    Raises: SettingError where neither exists; CheckpointError for a folder without safetensors.
    """
    folder = Path(settings.model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        download_options: dict[str, Any] = {
            "revision": settings.revision,
            "allow_patterns": list(READ_PATTERNS),
        }
        try:
            folder = Path(snapshot_download(settings.model, **download_options))
        except (OSError, ValueError) as error:
            needs = "a folder of published weights, or a model on the hub that can be reached"
            fix = f"({first_line(error)})"
            raise SettingError(f"{settings.kind}.model", settings.model, needs, fix) from error
    if not any(folder.glob("*.safetensors")):
        fix = "Pickled weights (.bin, .pth) are not read; convert them to safetensors."
        raise CheckpointError(f"{settings.model} holds no .safetensors file. {fix}")
    return folder


@functools.cache
def file_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint that is read, by name."""
    return {path.name: checksum(path) for pattern in READ_PATTERNS for path in sorted(folder.glob(pattern))}


def pretrained_version(settings: PretrainedSettings, folder: Path, *facts: Any) -> str:
    """Return a version hash of weights, packages and whatever else the scores depend on."""
    packages = package_versions(settings.kind, "torch", "transformers", "pillow")
    return version_hash(file_checksums(folder), packages, *facts)


def load_hf_config(folder: Path) -> Any:
    """Return the config of a checkpoint. Raises: CheckpointError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} has no readable config ({first_line(error)}).") from error


def load_pretrained_strict(kind: Any, folder: Path, ignored: Sequence[str] = ()) -> Any:
    """Return a transformers model of a checkpoint, in float32.

    Weights whose names begin with an ignored prefix may be unexpected.
    Raises: CheckpointError for weights that are missing, unexpected, of other sizes or not safetensors.
    """
    import torch

    try:
        model, info = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        message = f"{folder} cannot be loaded as {kind.__name__}: {first_line(error)}"
        raise CheckpointError(message) from error
    left_over = [name for name in info["unexpected_keys"] if not name.startswith(tuple(ignored))]
    check_weights(folder, info["missing_keys"], left_over)
    return model.eval().requires_grad_(False)


def check_weights(folder: Path, missing: Iterable[str], left_over: Iterable[str]) -> None:
    """Raise CheckpointError that names the weights unless both are empty."""
    for names, what in ((sorted(missing), "lacks"), (sorted(left_over), "also holds")):
        if names:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            raise CheckpointError(f"{folder} is not a checkpoint of this model: it {what} {shown}.")


def load_safetensors(folder: Path) -> "dict[str, torch.Tensor]":
    """Return all tensors of the safetensors files in a folder, in float32."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor.float() for file in files for name, tensor in load_file(file).items()}


def scorer_device(settings: PretrainedSettings) -> "torch.device":
    """Return the device of a scorer. Raises: SettingError."""
    import torch

    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=settings.device).device
    except (RuntimeError, AssertionError) as error:
        setting, needs, fix = f"{settings.kind}.device", "a device of this machine", "Set it to auto or cpu."
        raise SettingError(setting, settings.device, needs, fix) from error


def load_image_processor(folder: Path) -> Any:
    """Return the image processor of a checkpoint, with the PIL backend.

    The torchvision backend resizes differently: scores would depend on what else is installed.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        message = f"{folder} has no readable image processor: {first_line(error)}"
        raise CheckpointError(message) from error


def preprocessed_batches(
    images: Sequence[Image.Image], processor: Any, settings: PretrainedSettings, device: "torch.device"
) -> "Iterator[Mapping[str, torch.Tensor]]":
    """Yield the inputs of the model, a batch of images at a time."""
    for start in range(0, len(images), settings.batch_size):
        batch = list(images[start : start + settings.batch_size])
        yield processor(images=batch, return_tensors="pt").to(device)
