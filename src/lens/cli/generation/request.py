"""What a call of `lens generate` asks for, with None where it says nothing, and what --like fills in.

Knows the settings of a picture and how they may be overridden; loads no torch and draws nothing.
"""

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from lens.cli.arguments import LoraArgument, check_number
from lens.errors import LensError, SettingError
from lens.models.checkpoints.hashing import content_hash
from lens.sampling.image_metadata import FileRecord, ImageMetadata, library_versions, open_image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateArguments:
    """Settings of the pictures to draw; None stands for "not said"."""

    prompts: tuple[str, ...] | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    num_images_per_prompt: int = 1
    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = None
    base_resolution: int | None = None
    allow_extreme: bool | None = None
    steps: int | None = None
    guidance: float | None = None
    solver: str | None = None
    model: str | None = None
    model_hash: str | None = None
    """Only from --like: what the model must hash to."""
    loras: tuple[LoraArgument, ...] | None = None
    init_image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    dtype: str | None = None
    device: str | None = None
    quantize: str | None = None
    offload: str = "none"
    threads: int | None = None

    @property
    def quantization(self) -> str | None:
        return None if self.quantize == "none" else self.quantize

    @property
    def num_images(self) -> int:
        return len(self.prompts or ()) * self.num_images_per_prompt

    def check(self) -> Self:
        """Return itself where the settings fit each other and every file they name can be read."""
        if self.width is not None and (self.aspect_ratio is not None or self.base_resolution is not None):
            other = "--aspect-ratio" if self.aspect_ratio is not None else "--base-resolution"
            raise SettingError(
                "--size", f"{self.width}x{self.height}", f"to stand without {other}", "Give one."
            )
        if self.steps is not None:
            check_number("--steps", self.steps, 1, 1000)
        if self.guidance is not None:
            check_number("--cfg", self.guidance, 0, 100, "1 turns guidance off.")
        if self.seed is not None:
            check_number("--seed", self.seed, 0, 2**63 - self.num_images_per_prompt)
        if self.init_image is None and (self.mask is not None or self.strength is not None):
            name, got = ("--mask", str(self.mask)) if self.mask is not None else ("--strength", self.strength)
            raise SettingError(name, got, "a picture to start from", "Add --init-image PICTURE.")
        if self.strength is not None:
            check_number("--strength", self.strength, 1e-6, 1, "1 redraws everything, 0.3 changes little.")
        for path in (self.init_image, self.mask):
            if path is not None:
                open_image(path)
        return self

    def fill_from_image(self, path: Path, metadata: ImageMetadata) -> Self:
        """Return itself with the picture's settings wherever it says nothing.

        A model, a LoRA, or a starting picture that is taken over must still have the content it had.
        Raises: LensError naming a file that changed or went, and the option that replaces it.
        """
        other_versions = {
            name: it for name, it in metadata.versions.items() if library_versions().get(name) != it
        }
        if other_versions:
            names = ", ".join(f"{name} {it}" for name, it in other_versions.items())
            logger.warning("%s was drawn with %s; with other versions here, pixels may differ.", path, names)
        recorded = GenerateArguments(
            prompts=(metadata.prompt,),
            negative_prompt=metadata.negative_prompt,
            seed=metadata.seed,
            steps=metadata.steps,
            guidance=metadata.guidance,
            solver=metadata.solver,
            model=metadata.model,
            dtype=metadata.dtype,
            device=metadata.device,
            quantize=metadata.quantize,
            threads=metadata.threads,
            allow_extreme=True,  # what was drawn once may be drawn again
        )
        if not self._has_size:
            recorded = replace(recorded, width=metadata.width, height=metadata.height)
        if self.model is None:
            recorded = replace(recorded, model_hash=metadata.model_hash)
        if self.loras is None:
            loras = [
                LoraArgument(_verified_path(lora, path, "--lora"), lora.weight) for lora in metadata.loras
            ]
            recorded = replace(recorded, loras=tuple(loras))
        if self.init_image is None and metadata.init_image is not None:
            mask = metadata.mask if self.mask is None else None
            recorded = replace(
                recorded,
                init_image=_verified_path(metadata.init_image, path, "--init-image"),
                mask=_verified_path(mask, path, "--mask") if mask else None,
                strength=metadata.strength,
            )
        return self._fill_missing(recorded)

    @property
    def _has_size(self) -> bool:
        return any(value is not None for value in (self.width, self.aspect_ratio, self.base_resolution))

    def _fill_missing(self, recorded: "GenerateArguments") -> Self:
        names = (field.name for field in fields(self))
        return replace(
            self, **{name: getattr(recorded, name) for name in names if getattr(self, name) is None}
        )


def _verified_path(record: FileRecord, image_path: Path, option: str) -> Path:
    path = Path(record.path)
    if not path.exists():
        raise LensError(
            f"{image_path} was drawn with {path}, which is gone. Bring it back, or give {option} anew."
        )
    if content_hash(path) != record.sha256:
        raise LensError(
            f"{image_path} was drawn with {path}, which has changed since. "
            f"Give {option} {path} to use it as it is."
        )
    return path
