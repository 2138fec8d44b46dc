"""LoRA methods of the pipeline, under diffusers' names; files and key styles belong to the checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lens.errors import SettingError


class LoraMixin:
    """Adapters of the denoiser: loaded, weighed against each other, taken off."""

    transformer: Any

    def load_lora_weights(
        self, source: str | Path, adapter_name: str | None = None, weight: float = 1.0
    ) -> str:
        """Load one LoRA file or folder, in any published key style, beside those there; return its name.

        Raises: CheckpointError for a file that is not a LoRA of this denoiser, listing what matches nothing.
        """
        from lens.models.checkpoints.lora import load_lora

        return load_lora(self.transformer, source, adapter_name, weight)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Use exactly these adapters together, each at its weight (1 where none is given).

        Raises: SettingError for a name that is not loaded, or weights that do not match the names.
        """
        from lens.models.checkpoints.lora import set_lora_weights

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
        """Add the adapters in use into the weights, times `lora_scale`: drawing then costs nothing more.

        Raises: SettingError for quantised weights.
        """
        from lens.models.checkpoints.lora import fuse_loras
        from lens.models.denoiser import apply_lora_scale

        with apply_lora_scale(self.transformer, lora_scale):
            fuse_loras(self.transformer)

    def unfuse_lora(self) -> None:
        """Take fused adapters out of the weights again, up to rounding."""
        from lens.models.checkpoints.lora import unfuse_loras

        unfuse_loras(self.transformer)

    def unload_lora_weights(self) -> None:
        """Take all adapters off; the denoiser is what it was before."""
        from lens.models.checkpoints.lora import unload_loras

        unload_loras(self.transformer)
