"""From a recipe file to a finished run: `lens train RECIPE`."""

from pathlib import Path
from typing import Any

from lens.config import read_recipe, write_yaml
from lens.errors import SettingError

STAGES = ("vae", "language", "pretrain", "denoiser")


def train(recipe: Path, overrides: list[str] | None = None) -> Path:
    """Train what a recipe says, going on from the run's last checkpoint; return the folder of the run.

    Raises: SettingError for a recipe that cannot be run, before anything is written.
    """
    values = read_recipe(recipe, overrides)
    name = values.get("stage")
    if name not in STAGES:
        raise SettingError("stage", name, f"one of {', '.join(STAGES)}", f"Fix it in {recipe}.")
    import torch  # late: a wrong recipe is told at once

    from lens.train.devices import chosen_device
    from lens.train.loop import fit
    from lens.train.metrics import tracker_of
    from lens.train.parallel import ranks_of

    settings, stage = _assemble(name, values, str(recipe))
    tracker_of(settings.tracker)  # refused here, before anything is written
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with ranks_of(settings.parallel, chosen_device(settings.device)) as ranks:
        ranks.own(settings.micro_batches)  # refused here, before anything is written
        if ranks.is_main:
            settings.out.mkdir(parents=True, exist_ok=True)
            write_yaml(settings.model_dump(mode="json"), settings.out / "recipe.yaml")
        with ranks.main_first():
            assembled = stage(settings)
        fit(assembled, settings, ranks)
    return settings.out


def _assemble(name: str, values: dict[str, Any], source: str) -> tuple[Any, Any]:
    """Return the stage's validated settings and its class."""
    if name == "vae":
        from lens.train.stages.vae import VaeSettings, VaeStage

        return VaeSettings.of(values, source), VaeStage
    if name == "language":
        from lens.train.stages.language import LanguageSettings, LanguageStage

        return LanguageSettings.of(values, source), LanguageStage
    if name == "denoiser":
        from lens.train.stages.denoiser import DenoiserSettings, DenoiserStage

        return DenoiserSettings.of(values, source), DenoiserStage
    from lens.train.stages.pretrain import PretrainSettings, PretrainStage

    return PretrainSettings.of(values, source), PretrainStage
