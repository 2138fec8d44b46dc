"""From a recipe file to a finished run: `lens train RECIPE`."""

from pathlib import Path
from typing import Any

from lens.config import read_recipe, write_yaml
from lens.errors import SettingError
from lens.train.metrics import load_tracker

STAGES = ("vae", "language", "pretrain", "denoiser", "rl", "distill")


def train(recipe: Path, overrides: list[str] | None = None) -> Path:
    """Train what a recipe says, going on from the run's last checkpoint; return the folder of the run.

    Raises: SettingError for a recipe that cannot be run, before anything is written.
    """
    return train_from_settings(load_settings(recipe, overrides))


def train_from_settings(settings: Any) -> Path:
    """Train by checked settings; return the folder of the run."""
    import torch  # late: a wrong recipe is told at once

    from lens.train.devices import resolve_device
    from lens.train.distributed import init_distributed
    from lens.train.trainer import fit

    stage_type = stage_class(settings.stage)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with init_distributed(settings.parallel, resolve_device(settings.device)) as distributed:
        distributed.local_micro_batches(settings.micro_batches)  # refused here, before anything is written
        if distributed.is_main:
            settings.out.mkdir(parents=True, exist_ok=True)
            write_yaml(settings.model_dump(mode="json"), settings.out / "recipe.yaml")
        with distributed.main_first():
            assembled = stage_type(settings)
        fit(assembled, settings, distributed)
    return settings.out


def load_settings(recipe: Path, overrides: list[str] | None = None) -> Any:
    """Return the settings of a recipe whose inputs are there, before torch is loaded.

    Raises: SettingError for a recipe that cannot be run.
    """
    values = read_recipe(recipe, overrides)
    name = values.get("stage")
    if name not in STAGES:
        raise SettingError("stage", name, f"one of {', '.join(STAGES)}", f"Fix it in {recipe}.")
    settings = parse_settings(name, values, str(recipe))
    settings.check_inputs()
    load_tracker(settings.tracker)
    return settings


def parse_settings(name: str, values: dict[str, Any], source: str) -> Any:
    """Return the validated settings of a stage."""
    from lens.train.settings import distill, rl, stages

    classes: Any = {
        "vae": stages.VaeSettings, "language": stages.LanguageSettings,
        "pretrain": stages.NanoPretrainSettings, "denoiser": stages.TextToImageSettings,
        "rl": rl.RlSettings, "distill": distill.DistillSettings,
    }  # fmt: skip
    return classes[name].of(values, source)


def stage_class(name: str) -> Any:
    """Return the class of a stage."""
    if name == "vae":
        from lens.train.stages.vae import VaeStage

        return VaeStage
    if name == "language":
        from lens.train.stages.language import LanguageStage

        return LanguageStage
    if name == "denoiser":
        from lens.train.stages.text_to_image import TextToImageStage

        return TextToImageStage
    if name == "rl":
        from lens.train.stages.rl import RlStage

        return RlStage
    if name == "distill":
        from lens.train.stages.distill import DistillStage

        return DistillStage
    from lens.train.stages.nano_pretrain import NanoPretrainStage

    return NanoPretrainStage
