"""What diffusers' guides and tools ask of any pipeline: names of state, sizes, checks and initial noise.

The pipeline runs on them itself, so that what a user replaces acts. Letters: B images, I image tokens, C
channels of an image token.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Generator, Tensor

from lens.core.resolution import SIDE_STEP_PX, resolve_resolution
from lens.errors import SettingError
from lens.models.memory import execution_device
from lens.models.vae import spatial_compression_ratio
from lens.sampling import inputs

CALLBACK_TENSORS = (
    "latents", "prompt_embeds", "prompt_mask", "negative_prompt_embeds", "negative_prompt_mask",
)  # fmt: skip
"""Tensors that a callback may request and replace."""
TILE_PX = 1024
OFFLOAD_STATE = ("_all_hooks", "_offload_device", "_offload_gpu_id")
"""What diffusers keeps at a pipeline of the hooks that move its components."""


class DiffusersApi:
    """Properties and methods under the names that diffusers' own pipelines have."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    transformer: Any
    image_processor: VaeImageProcessor
    """What turns decoded pixels into images; assign another one to change the output."""

    logs_warnings = True
    """Whether calls log what is drawn in another way than a caller may expect, such as cut source images."""
    components: dict[str, Any]
    _guidance_scale: float = 1.0
    _num_timesteps: int = 0
    _current_timestep: float | None = None
    _interrupt: bool = False
    _attention_kwargs: dict[str, Any] | None = None

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the current call computes the negative prompt too."""
        return self._guidance_scale != 1

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def attention_kwargs(self) -> dict[str, Any] | None:
        return self._attention_kwargs

    @property
    def current_timestep(self) -> float | None:
        """1000 times the noise level of the current step, which caches of diffusers ask for."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Whether to end denoising before the next step; the call returns the image so far."""
        return self._interrupt

    @property
    def vae_scale_factor(self) -> int:
        """The side in pixels of a latent cell, which the denoiser sees as one token."""
        return SIDE_STEP_PX if self.vae is None else spatial_compression_ratio(self.vae)

    # What belongs to a component is kept at it, so that pipelines that share it have it in common.

    @property
    def tile_px(self) -> int | None:
        """The side of the tiles in which images are decoded; None decodes only the largest ones in tiles."""
        return getattr(self.vae, "tile_px", None)

    def enable_vae_tiling(self, tile_px: int = TILE_PX) -> None:
        """Decode every image larger than a tile in tiles of this side, which takes less memory."""
        self.need("vae", "to decode in tiles").tile_px = tile_px

    def disable_vae_tiling(self) -> None:
        """Decode only images larger than every named size in tiles."""
        self.need("vae", "to decode in tiles").tile_px = None

    @property
    def memory_rung(self) -> str:
        """The rung of the memory ladder that the denoiser was loaded on."""
        return getattr(self.transformer, "memory_rung", "resident")

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Self:
        """Return a pipeline of the components and settings of another one; those in `kwargs` replace its own.

        Unlike diffusers' it converts no weights unless `torch_dtype` or `dtype` is given, as the other
        pipeline has the same ones.
        """
        if not isinstance(pipeline, DiffusersApi) or "custom_pipeline" in kwargs:
            return super().from_pipe(pipeline, **kwargs)  # type: ignore[misc]
        dtypes = kwargs.pop("torch_dtype", None), kwargs.pop("dtype", None)
        known, optional = cls._get_signature_keys(cls)  # type: ignore[attr-defined]
        config: Any = pipeline.config  # type: ignore[attr-defined]
        own = {name: getattr(pipeline, name) for name in known}
        made = cls(**(own | {name: config[name] for name in optional if name in config} | kwargs))
        if path := config.get("_name_or_path"):
            made.register_to_config(_name_or_path=path)  # type: ignore[attr-defined]
        carried = ["logs_warnings", "_progress_bar_config"]
        carried += ["image_processor"] * ("vae" not in kwargs) + [*OFFLOAD_STATE] * (made.components == own)
        for name in carried:
            if hasattr(pipeline, name):
                setattr(made, name, getattr(pipeline, name))
        if dtype := next(filter(None, dtypes), None):
            made.to(dtype=dtype)  # type: ignore[attr-defined]
        return made

    def check_inputs(
        self,
        prompt: str | Sequence[str] | None,
        height: int | None,
        width: int | None,
        prompt_embeds: Sequence[Tensor] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
    ) -> None:
        """Raise SettingError for a prompt or size that a call would refuse."""
        if (prompt is None) == (prompt_embeds is None):
            raise SettingError("prompt", prompt, "to be given alone, or left out beside prompt_embeds")
        if prompt is not None:
            inputs.normalize_prompts(prompt)
        inputs.check_sides(height=height, width=width)
        resolve_resolution(height, width, allow_extreme=True)
        inputs.check_output_names("pil", callback_on_step_end_tensor_inputs or (), CALLBACK_TENSORS)

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: Generator | Sequence[Generator] | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Return the initial noise of images of a size in pixels: drawn, or `latents`.

        Shapes: -> (B, I, C), C = num_channels_latents.
        """
        self.check_inputs("any", height, width)
        num_tokens = (height // self.vae_scale_factor) * (width // self.vae_scale_factor)
        shape = (batch_size, num_tokens, num_channels_latents)
        device = device or self.execution_device_of("transformer", "text_encoder", "vae")
        return inputs.prepare_noise(shape, generator, latents, device).to(dtype or torch.float32)

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keep weights in main memory, and on the device only those of the layer that computes."""
        super().enable_sequential_cpu_offload(gpu_id, device)  # type: ignore[misc]
        components: dict[str, Any] = self.components  # type: ignore[attr-defined]
        for component in components.values():
            for module in component.modules() if isinstance(component, torch.nn.Module) else ():
                hook: Any = getattr(module, "_hf_hook", None)
                # For accelerate cpu:0 is another device than cpu; a weight that it moves there is lost.
                if getattr(hook, "execution_device", None) == torch.device("cpu:0"):
                    hook.execution_device = torch.device("cpu")

    def execution_device_of(self, *components: str) -> torch.device:
        """Return the device that the first of these components that is there computes on."""
        present = (getattr(self, name) for name in components)
        return next((execution_device(one) for one in present if one is not None), torch.device("cpu"))

    def need(self, component: str, purpose: str) -> Any:
        """Return a component.

        Raises: SettingError that says what it is needed for, if the pipeline was made without it.
        """
        found = getattr(self, component)
        if found is None:
            needs = f"a loaded component {purpose}"
            raise SettingError(component, None, needs, f"Pass {component}= to the pipeline.")
        return found
