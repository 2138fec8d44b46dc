"""From a model's name to a pipeline."""

from typing import Any


def load_pipeline(kind: type, name_or_folder: Any, torch_dtype: Any, extra: dict[str, Any]) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from lens.models.checkpoints.catalog import resolve_model

    folder = resolve_model(name_or_folder)
    return DiffusionPipeline.from_pretrained.__func__(kind, folder, torch_dtype=torch_dtype, **extra)  # type: ignore
