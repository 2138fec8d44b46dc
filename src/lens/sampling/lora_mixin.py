"""LoRA methods of the pipeline, under diffusers' names; file formats are in `models.checkpoints`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lens.errors import SettingError


class LoraMixin:
    """LoRA adapters of the denoiser: load, weight, fuse, save, unload."""

    transformer: Any

    def load_lora_weights(
        self, source: str | Path, adapter_name: str | None = None, weight: float = 1.0
    ) -> str:
        """Load one more file or folder of a LoRA, DoRA, LoHa, LoKr or of differences; return its name.

        Raises: CheckpointError for a file that does not fit this denoiser; it lists the unmatched keys.
        """
        from lens.models.checkpoints.adapters.lora import load_lora

        return load_lora(self.transformer, source, adapter_name, weight)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Activate exactly these adapters, each at its weight (default 1).

        Raises: SettingError for a name that is not loaded, or for weights that do not match the names.
        """
        from lens.models.checkpoints.adapters.lora import set_lora_weights

        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if adapter_weights is None or isinstance(adapter_weights, (int, float)):
            weights = [1.0 if adapter_weights is None else float(adapter_weights)] * len(names)
        else:
            weights = [float(weight) for weight in adapter_weights]
        if len(weights) != len(names):
            raise SettingError(
                "adapter_weights", adapter_weights, f"one weight, or one for each of {len(names)} names"
            )
        set_lora_weights(self.transformer, dict(zip(names, weights, strict=True)))

    def fuse_lora(self, lora_scale: float = 1.0) -> None:
        """Merge the active adapters into the weights, times `lora_scale`; inference then has no extra cost.

        Raises: SettingError for quantized weights.
        """
        from lens.models.checkpoints.adapters.lora import fuse_loras
        from lens.models.denoiser import apply_lora_scale

        with apply_lora_scale(self.transformer, lora_scale):
            fuse_loras(self.transformer)

    def unfuse_lora(self) -> None:
        """Remove fused adapters from the weights, up to rounding."""
        from lens.models.checkpoints.adapters.lora import unfuse_loras

        unfuse_loras(self.transformer)

    def save_lora_weights(
        self, save_directory: str | Path, adapter_name: str | None = None, weight_name: str | None = None
    ) -> Path:
        """Write a loaded adapter to a file that diffusers' pipelines and Lens load; return its path.

        The adapter's name is optional if only one is loaded.
        Raises: SettingError for a name that is not loaded, or for a DoRA by columns, which only kohya's names
            hold.
        """
        from lens.models.checkpoints.adapters.lora import save_lora
        from lens.models.checkpoints.adapters.lora_formats import DIFFUSERS_LORA_FILE

        path = Path(save_directory) / (weight_name or DIFFUSERS_LORA_FILE)
        return save_lora(self.transformer, path, "transformer", adapter_name)

    def unload_lora_weights(self) -> None:
        """Unload all adapters; the denoiser is as before."""
        from lens.models.checkpoints.adapters.lora import unload_loras

        unload_loras(self.transformer)
