"""From recipes to what a plan reckons with: a run's weights, packs and updates, without torch.

Follows a recipe back through those that it says it `follows`.
"""

import json
from pathlib import Path
from typing import Any

from lens.config import read_recipe
from lens.errors import SettingError
from lens.models.checkpoints.diffusers_folder import component_folder
from lens.models.checkpoints.registry import KNOWN_MODELS, LENS_DENOISER
from lens.models.shapes import Shapes, denoiser_shapes, linear_modules, num_parameters
from lens.train.cost.training import ASKED, ASSUMED, CARDS, Run
from lens.train.settings.stages import DenoiserSettings, LoraSettings

PAPERS_TEXT_TOKENS = 512
"""To which captions are cut; with as many the paper's recipe costs what it says (docs/how-to/train.md)."""


def runs_of(recipe: Path, overrides: list[str] | None, text_tokens: int | None) -> dict[str, Run]:
    """Return the run of a recipe by its name, after those that it follows.

    Raises: SettingError for a recipe of another stage, or one that follows itself.
    """
    if text_tokens is not None and text_tokens < 0:
        raise SettingError("--text-tokens", text_tokens, "0 or more")
    found: dict[str, Run] = {}
    path, changes = recipe, overrides
    while True:
        values = read_recipe(path, changes)
        if values.get("stage") != "denoiser":
            needs = "denoiser, rl or distill, the stages that there are plans for"
            raise SettingError("stage", values.get("stage"), needs, f"It is in {path}.")
        if str(path) in found:
            raise SettingError("follows", values.get("follows"), f"another recipe than {path.name} itself")
        found[str(path)] = run_of(DenoiserSettings.of(dict(values), str(path)), text_tokens)
        if not values.get("follows"):
            return dict(reversed(found.items()))
        path, changes = path.parent / values["follows"], None


def share_of_peak(recipe: Path, gpu: str, mfu: float | None) -> tuple[float | None, str]:
    """Return the share of a card's peak to reckon with, and where it is from: None where it is to be assumed.

    What benchmarks/train_gpu.py measured of a kind of card is in a folder `cards` beside the recipe.
    """
    if mfu is not None:
        return mfu, ASKED
    path = recipe.parent / "cards" / f"{gpu}.yaml"
    if gpu not in CARDS or not path.is_file():
        return None, ASSUMED
    measured = read_recipe(path)
    return measured["mfu"], f"measured {measured['date']}, {path}; --mfu says another"


def run_of(settings: DenoiserSettings, text_tokens: int | None = None) -> Run:
    """Return what of one recipe costs."""
    config = LENS_DENOISER | (settings.config or component_config(settings.model, "transformer"))
    shapes = denoiser_shapes(config)
    total = trained = num_parameters(shapes)
    if settings.lora:
        trained = adapter_weights(shapes, settings.lora)
        total += trained
    return Run(
        config=config,
        steps=settings.steps,
        micro_batches=settings.micro_batches,
        pack_tokens=settings.pack_tokens,
        bases=settings.data.bases,
        text_tokens=PAPERS_TEXT_TOKENS if text_tokens is None else text_tokens,
        num_weights=total,
        num_trained=trained,
        checkpointing=settings.gradient_checkpointing,
        frozen_bytes=2 if settings.frozen_dtype == "bf16" else 4,
    )


def adapter_weights(shapes: Shapes, lora: LoraSettings) -> int:
    """Return how many numbers an adapter on a denoiser of these shapes holds."""
    ends = tuple(f".{end}" for end in lora.targets)
    linears = linear_modules(shapes).items()
    return lora.rank * sum(
        out + into for name, (out, into) in linears if "blocks" in name and name.endswith(ends)
    )


def component_config(model: str, part: str) -> dict[str, Any]:
    """Return the configuration of the transformer, text_encoder or vae of a known model or a folder.

    Raises: SettingError for a model that is neither.
    """
    known = KNOWN_MODELS.get(model)
    if known and known.denoiser:
        return {"transformer": known.denoiser, "text_encoder": known.text_encoder, "vae": known.vae}[part]
    folder = known.folder if known and known.folder else Path(model)
    path = component_folder(folder, part) / "config.json"
    if not path.is_file():
        raise SettingError("model", model, f"a known model ({', '.join(KNOWN_MODELS)}) or a model's folder")
    return {name: value for name, value in json.loads(path.read_text()).items() if not name.startswith("_")}
