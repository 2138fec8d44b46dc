"""Cost-estimate inputs from recipes of the denoiser stage: weights, packs and updates.

Without torch. Includes the recipes that a recipe `follows`.
"""

from pathlib import Path
from typing import Any

from lens.config import read_recipe
from lens.errors import SettingError
from lens.models.checkpoints.diffusers_folder import component_folder
from lens.models.checkpoints.registry import KNOWN_MODELS, LENS_DENOISER
from lens.models.shapes import Shapes, check_config, denoiser_shapes, linear_modules, num_parameters
from lens.text_files import read_json
from lens.train.cost.gpus import GPU_SPECS, MFU_ASSUMED, MFU_FROM_OPTION
from lens.train.cost.training import RunSpec
from lens.train.settings.run import LoraSettings
from lens.train.settings.stages import TextToImageSettings

PAPER_TEXT_TOKENS = 512
"""Maximum text tokens of a caption. With it the estimate agrees with the paper (docs/how-to/train.md)."""


def read_run_specs(
    recipe: Path, overrides: list[str] | None, num_text_tokens: int | None
) -> dict[str, RunSpec]:
    """Return the runs that a recipe follows, then its own, by the path of the recipe.

    Raises: SettingError for a recipe of another stage, or one that follows itself.
    """
    if num_text_tokens is not None and num_text_tokens < 0:
        raise SettingError("--text-tokens", num_text_tokens, "0 or more")
    specs: dict[str, RunSpec] = {}
    path, changes = recipe, overrides
    while True:
        values = read_recipe(path, changes)
        if values.get("stage") != "denoiser":
            needs = "denoiser, rl or distill, the stages with cost estimates"
            raise SettingError("stage", values.get("stage"), needs, f"See {path}.")
        if str(path) in specs:
            raise SettingError("follows", values.get("follows"), f"a recipe other than {path.name} itself")
        specs[str(path)] = run_spec(TextToImageSettings.of(values, str(path)), num_text_tokens)
        if not values.get("follows"):
            return dict(reversed(specs.items()))
        path, changes = path.parent / values["follows"], None


def resolve_mfu(recipe: Path, gpu: str, mfu: float | None) -> tuple[float | None, str]:
    """Return the model FLOPs utilization of an estimate, or None if it has to be assumed, and its source.

    benchmarks/train_gpu.py writes what it measured on a GPU to the folder `cards` beside the recipe.
    """
    if mfu is not None:
        return mfu, MFU_FROM_OPTION
    path = recipe.parent / "cards" / f"{gpu}.yaml"
    if gpu not in GPU_SPECS or not path.is_file():
        return None, MFU_ASSUMED
    measured = read_recipe(path)
    if "mfu" not in measured:  # benchmarks/gpu_inference.py alone has run
        return None, MFU_ASSUMED
    return measured["mfu"], f"measured {measured['date']}, {path}; replace it with --mfu"


def run_spec(settings: TextToImageSettings, num_text_tokens: int | None = None) -> RunSpec:
    """Return the cost-relevant part of one recipe."""
    config = LENS_DENOISER | (settings.config or component_config(settings.model, "transformer"))
    check_config("transformer", config, "The recipe")
    shapes = denoiser_shapes(config)
    total = num_trainable = num_parameters(shapes)
    if settings.lora:
        num_trainable = num_lora_parameters(shapes, settings.lora)
        total += num_trainable
    return RunSpec(
        config=config,
        steps=settings.steps,
        micro_batches=settings.micro_batches,
        pack_tokens=settings.pack_tokens,
        bases=settings.data.bases,
        num_text_tokens=PAPER_TEXT_TOKENS if num_text_tokens is None else num_text_tokens,
        num_parameters=total,
        num_trainable_parameters=num_trainable,
        checkpointing=settings.gradient_checkpointing,
        frozen_weight_bytes=2 if settings.frozen_dtype == "bf16" else 4,
    )


def num_lora_parameters(shapes: Shapes, lora: LoraSettings) -> int:
    """Return the parameters of an adapter on a denoiser of these shapes."""
    suffixes = tuple(f".{end}" for end in lora.targets)
    linears = linear_modules(shapes).items()
    return lora.rank * sum(
        out_features + in_features
        for name, (out_features, in_features) in linears
        if "blocks" in name and name.endswith(suffixes)
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
        raise SettingError("model", model, f"a known model ({', '.join(KNOWN_MODELS)}) or a model folder")
    return {name: value for name, value in read_json(path, "model").items() if not name.startswith("_")}
