"""From a recipe file to a finished run: `lens train RECIPE`.

To add a stage, write its settings and its class, and add an entry to `STAGES`.
"""

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from lens.config import add_origin, read_recipe, remedy, write_yaml
from lens.errors import SettingError
from lens.files import hold_folder
from lens.train.metrics import load_tracker

logger = logging.getLogger(__name__)


class StageEntry(NamedTuple):
    """Where the parts of a stage are, as `module:class`; they are imported when they are needed."""

    settings: str
    stage: str
    is_post_training: bool = False
    """Whether its cost estimate counts denoiser passes, and a run ends with a plot of its metrics."""

    @property
    def settings_class(self) -> Any:
        return resolve_name(self.settings)

    @property
    def stage_class(self) -> Any:
        return resolve_name(self.stage)


STAGES = {
    "vae": StageEntry("lens.train.settings.stages:VaeSettings", "lens.train.stages.vae:VaeStage"),
    "language": StageEntry(
        "lens.train.settings.stages:LanguageSettings", "lens.train.stages.language:LanguageStage"
    ),
    "pretrain": StageEntry(
        "lens.train.settings.stages:NanoPretrainSettings", "lens.train.stages.nano_pretrain:NanoPretrainStage"
    ),
    "denoiser": StageEntry(
        "lens.train.settings.stages:TextToImageSettings", "lens.train.stages.text_to_image:TextToImageStage"
    ),
    "rl": StageEntry(
        "lens.train.settings.rl:RlSettings", "lens.train.stages.rl:RlStage", is_post_training=True
    ),
    "distill": StageEntry(
        "lens.train.settings.distill:DistillSettings",
        "lens.train.stages.distill:DistillStage",
        is_post_training=True,
    ),
}
"""All stages, by the name that recipes use."""


def train(recipe: Path, overrides: list[str] | None = None) -> Path:
    """Train by a recipe, resuming at the run's last checkpoint; return the folder of the run.

    Raises: SettingError for a recipe that cannot be run, before anything is written.
    """
    return train_from_settings(load_settings(recipe, overrides))


def train_from_settings(settings: Any) -> Path:
    """Train by validated settings; return the folder of the run."""
    import torch  # late, so that a wrong recipe is refused at once

    from lens.train.devices import resolve_device
    from lens.train.distributed import init_distributed
    from lens.train.trainer import fit

    started_at = time.monotonic()
    stage_class = STAGES[settings.stage].stage_class
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with init_distributed(settings.parallel, resolve_device(settings.device)) as distributed:
        distributed.local_micro_batches(settings.micro_batches)  # refused here, before anything is written
        with hold_folder(settings.out, "out") if distributed.is_main else nullcontext():
            logger.info("%s: loading %s", settings.out, _inputs(settings))
            with distributed.main_first():
                stage = stage_class(settings)
            if distributed.is_main:
                write_yaml(settings.model_dump(mode="json"), settings.out / "recipe.yaml")
            fit(stage, settings, distributed, started_at)
    return settings.out


def _inputs(settings: Any) -> str:
    """Return what a stage reads before its first step, for people."""
    values = {name: getattr(settings, name, None) for name in ("model", "start_from", "vae", "text", "data")}
    data = values.pop("data")
    values["data"] = data and (data.folder or data.shards)
    named = {name: one if isinstance(one, tuple) else (one,) for name, one in values.items() if one}
    return "; ".join(f"{name} {', '.join(map(str, some))}" for name, some in named.items()) or "the stage"


def load_settings(recipe: Path, overrides: list[str] | None = None) -> Any:
    """Return the settings of a recipe after checking its inputs, without loading torch.

    Raises: SettingError for a recipe that cannot be run.
    """
    values = read_recipe(recipe, overrides)
    settings = parse_settings(values.get("stage"), values, str(recipe))
    try:
        settings.check_inputs()
        load_tracker(settings.tracker)
    except SettingError as error:
        raise add_origin(error, values) from error
    return settings


def parse_settings(name: Any, values: dict[str, Any], source: str) -> Any:
    """Return the validated settings of a stage.

    Raises: SettingError for an unknown stage, or a setting that does not fit.
    """
    if name not in tuple(STAGES):
        raise SettingError("stage", name, f"one of {', '.join(STAGES)}", remedy(values, ("stage",), source))
    return STAGES[name].settings_class.of(values, source)
