"""LoRA methods of the pipeline, under diffusers' names; key styles and files belong to the checkpoints folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class AdapterMethods:
    """Adapters of the denoiser: loaded, weighed against each other, taken off."""

    transformer: Any

    def load_lora_weights(
        self, source: str | Path, adapter_name: str | None = None, weight: float = 1.0
    ) -> None:
        """Load one LoRA file or folder beside those already loaded, in any published key style.

        Raises: CheckpointError for a file that is not a LoRA of this denoiser; keys that match nothing are listed.
        """
        from lens.models.checkpoints.lora import load_lora

        load_lora(self.transformer, source, adapter_name=adapter_name, weight=weight)

    def set_adapters(self, adapter_names: str | Sequence[str], adapter_weights: Any = None) -> None:
        """Use these adapters together, each at its weight."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self.transformer.set_adapters(names, adapter_weights)

    def unload_lora_weights(self) -> None:
        """Take all adapters off; the denoiser is as it was."""
        if getattr(self.transformer, "peft_config", None):
            self.transformer.unload_lora()
