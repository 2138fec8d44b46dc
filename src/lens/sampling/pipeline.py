"""LensPipeline: text-to-image, image-to-image and inpainting in diffusers' conventions.

A call runs `inputs.check_call`, `encode_prompt`, `prepare_initial_state`, `denoise` and `postprocess`. This
file joins them; the maths is in the modules that it imports.
Spec: sections 4, 5, 14. Letters: B images, I image tokens, T text tokens, C channels of an image token,
E text feature width, H W pixels, h w latent cells.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils.outputs import BaseOutput
from PIL import Image
from torch import Generator, Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lens.core.flow import interpolate
from lens.core.latents import pack_latents, unpack_latents
from lens.errors import SettingError
from lens.models.denoiser import LensTransformer2DModel
from lens.models.mapped_memory import release
from lens.models.memory import execution_device
from lens.models.prompt_date import PINNED_DATE, parse_prompt_date
from lens.models.prompt_template import encode_prompts
from lens.models.vae import decode_latents, encode_pixels
from lens.reasoner.outcome import Reasoned, Reasoner
from lens.sampling import image_processor, inputs
from lens.sampling.defaults import SamplingDefaults, default_strength, sampling_defaults, variant_from_name
from lens.sampling.diffusers_api import CALLBACK_TENSORS, TILE_PX, DiffusersApi
from lens.sampling.guided_denoiser import InitialState, InpaintContext, predict_velocity_cfg
from lens.sampling.image_processor import ImageInput
from lens.sampling.loader import LoaderMixin
from lens.sampling.lora_mixin import LoraMixin
from lens.sampling.prompt_embeds import PromptEmbeds, make_prompt_embeds
from lens.sampling.solvers import DEFAULT_SOLVER, Solver, get_solver

ProgressCallback = Callable[[str, int, int], None]
"""Called with (stage, done, total); may raise to stop. Stages: reasoning, encoding, denoising, decoding."""
StepEndCallback = Callable[["LensPipeline", int, Tensor, dict[str, Any]], dict[str, Any] | None]
"""diffusers' callback: (pipeline, step, time x 1000, requested tensors) -> tensors that replace them."""

# The library that published folders name for our classes; see lens.registration.
PUBLISHED_LIBRARY = {"LensTransformer2DModel": "diffusers", "LensGptOssEncoder": "transformers"}

TILE_ABOVE_PX = 2080 * 1040
"""Area above which images are decoded in tiles by default: that of the largest named size."""


@dataclass
class LensPipelineOutput(BaseOutput):
    """Result of a call."""

    images: list[Image.Image] | np.ndarray | Tensor
    """PIL images, floats in [0, 1], or latents (B, I, C), by the output type."""
    reasoned: list[Reasoned] | None = None
    """What the reasoner made of each prompt."""


class LensPipeline(DiffusersApi, LoraMixin, LoaderMixin, DiffusionPipeline):
    """Generates images from prompts, source images (`image`) and inpainting masks (`mask_image`)."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = CALLBACK_TENSORS
    _optional_components: ClassVar[list[str]] = ["vae", "text_encoder", "tokenizer", "transformer"]

    def __init__(
        self,
        # diffusers reads these types: `from_pipe` passes a component on if it is of its type.
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLFlux2 | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        transformer: LensTransformer2DModel | None,
        lens_variant: str | None = None,
        default_steps: int | None = None,
        default_guidance: float | None = None,
        default_base_resolution: int | None = None,
        trained_base_resolutions: list[int] | None = None,
        prompt_date: str | None = None,
        selected_layer_index: list[int] | None = None,
    ):
        super().__init__()
        self.register_modules(
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
        )
        self.register_to_config(
            lens_variant=lens_variant,
            default_steps=default_steps,
            default_guidance=default_guidance,
            default_base_resolution=default_base_resolution,
            trained_base_resolutions=trained_base_resolutions,
            prompt_date=parse_prompt_date(prompt_date or PINNED_DATE),
            selected_layer_index=selected_layer_index,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self._on_progress: ProgressCallback | None = None

    def register_to_config(self, **entries: Any) -> None:
        """Record settings for `model_index.json`, classes under the library that published folders name."""
        for name, entry in entries.items():
            if isinstance(entry, (tuple, list)) and len(entry) == 2 and entry[1] in PUBLISHED_LIBRARY:
                entries[name] = (PUBLISHED_LIBRARY[entry[1]], entry[1])
        super().register_to_config(**entries)

    @property
    def defaults(self) -> SamplingDefaults:
        """Default steps, guidance and base resolution."""
        config: Any = self.config
        variant = config.lens_variant or variant_from_name(getattr(config, "_name_or_path", None))
        return sampling_defaults(
            variant, config.default_steps, config.default_guidance, config.default_base_resolution
        )

    # ---- stages, each callable by itself

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = "",
        num_images_per_prompt: int = 1,
        *,
        prompt_embeds: Sequence[Tensor] | None = None,
        prompt_mask: Tensor | None = None,
        negative_prompt_embeds: Sequence[Tensor] | None = None,
        negative_prompt_mask: Tensor | None = None,
        max_sequence_length: int = 512,
        device: torch.device | str | None = None,
    ) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
        """Return prompt embeds and mask, then those of the negative prompt; passed embeds are not encoded.

        An empty negative prompt has zero features and a mask that is all False, at the prompt's length.

        Shapes: one (B, T, E) per captured layer and (B, T) bool, twice.
        Raises: SettingError for a prompt that is missing, empty, or given twice.
        """
        inputs.check_count("max_sequence_length", max_sequence_length)
        inputs.check_count("num_images_per_prompt", num_images_per_prompt)
        if (prompt is None) == (prompt_embeds is None):
            raise SettingError("prompt", prompt, "to be given alone, or left out beside prompt_embeds")
        ready = make_prompt_embeds(prompt_embeds, prompt_mask, "prompt_embeds")
        negative = make_prompt_embeds(negative_prompt_embeds, negative_prompt_mask, "negative_prompt_embeds")
        prompts = inputs.normalize_prompts(prompt) if ready is None else []
        num_prompts = len(prompts) if ready is None else len(ready.mask)
        negatives = inputs.normalize_negative_prompts(negative_prompt, num_prompts)
        texts = [*prompts, *(text for text in negatives if text.strip())]
        if negative is not None and len(texts) > len(prompts):
            needs = "to be left out beside negative_prompt_embeds"
            raise SettingError("negative_prompt", negative_prompt, needs)
        encoded = self._encode_texts(texts, max_sequence_length) if texts else None
        positive = ready or encoded.rows(range(num_prompts))  # type: ignore[union-attr]
        if negative is None:
            negative_rows = iter(range(len(prompts), len(texts)))
            negative = (encoded or positive).rows(
                [next(negative_rows) if text.strip() else None for text in negatives]
            )
        if len(negative.mask) != num_prompts:
            got = f"a batch of {len(negative.mask)}"
            raise SettingError("negative_prompt_embeds", got, f"one row for each of {num_prompts} prompts")
        device = device or self.execution_device_of("transformer", "text_encoder")
        both = (batch.repeat(num_images_per_prompt).to(device) for batch in (positive, negative))
        (prompt_embeds, prompt_mask), (negative_prompt_embeds, negative_prompt_mask) = both
        # The names are arguments of a call; diffusers' tools read them from this line.
        return prompt_embeds, prompt_mask, negative_prompt_embeds, negative_prompt_mask

    @torch.no_grad()
    def encode_image(self, image: ImageInput | Sequence[ImageInput], height: int, width: int) -> Tensor:
        """Return the latents of images, resized and cropped to this size.

        Shapes: -> (B, I, C), float32.
        """
        images = image_processor.load_images(image)
        fitted = [image_processor.resize_to_cover(one, height, width) for one in images]
        return self._encode_pixels(image_processor.to_pixels(fitted))

    @torch.no_grad()
    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return the pixels of latents.

        Shapes: (B, I, C) -> (B, 3, H, W).
        Units: pixels in [-1, 1].
        """
        if self.memory_rung != "resident" and self.transformer is not None:
            release(self.transformer)
        self.need("vae", "to decode latents")
        cell_px = self.vae_scale_factor
        grid = unpack_latents(latents, height // cell_px, width // cell_px)  # (B, C, h, w)
        tile_px = self.tile_px or (TILE_PX if height * width > TILE_ABOVE_PX else None)
        grid = grid.to(execution_device(self.vae))
        return decode_latents(self.vae, grid, tile_px, partial(self._report_progress, "decoding"))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = "",
        height: int | None = None,
        width: int | None = None,
        base_resolution: int | None = None,
        aspect_ratio: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generator | Sequence[Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Sequence[Tensor] | None = None,
        prompt_mask: Tensor | None = None,
        negative_prompt_embeds: Sequence[Tensor] | None = None,
        negative_prompt_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int = 512,
        *,
        image: ImageInput | Sequence[ImageInput] | None = None,
        mask_image: ImageInput | Sequence[ImageInput] | None = None,
        strength: float | None = None,
        solver: str = DEFAULT_SOLVER,
        attention_kwargs: dict[str, Any] | None = None,
        on_progress: ProgressCallback | None = None,
        allow_extreme: bool = False,
        reasoner: Reasoner | None = None,
    ) -> LensPipelineOutput | tuple[Any]:
        """Generate images.

        A call takes several prompts of any lengths and several images per prompt; each image is the same as
        in a call of its own. `latents` is the initial noise, one (I, C) per image. With `image`, `strength`
        in (0, 1] is the noise level to start at. With `mask_image` too, white areas are redrawn and black
        areas are kept exactly. A callback that sets `_interrupt` ends denoising with the image so far; one
        that raises GenerationCancelledError stops the call. A `reasoner` is asked about each distinct prompt
        first.

        Raises: SettingError or ShapeError for arguments that cannot be used; PromptRefusedError of the
        reasoner, before anything is encoded; GenerationCancelledError.
        """
        defaults = self.defaults
        num_steps = defaults.num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance = defaults.guidance_scale if guidance_scale is None else guidance_scale
        callback_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        inputs.check_numbers(num_steps, guidance, num_images_per_prompt, strength)
        inputs.check_sides(height=height, width=width, base_resolution=base_resolution)
        callback_inputs = inputs.check_output_names(output_type, callback_inputs, CALLBACK_TENSORS)
        inputs.check_types(
            generator=generator, latents=latents, attention_kwargs=attention_kwargs, solver=solver,
            aspect_ratio=aspect_ratio, callback_on_step_end=callback_on_step_end, on_progress=on_progress,
            reasoner=reasoner,
        )  # fmt: skip
        inputs.check_scheduler(self.scheduler)
        self.need("transformer", "to draw")
        if output_type != "latent" or image is not None:
            self.need("vae", "for pixels")
        solve = get_solver(solver)
        size = (height, width, base_resolution, aspect_ratio)
        source = inputs.prepare_source(image, mask_image, size, defaults.base_resolution, allow_extreme)
        with self._call_context(guidance, attention_kwargs, on_progress):
            reasoned = inputs.reason_prompts(prompt, reasoner, self._report_progress)
            prompt = prompt if reasoned is None else [one.prompt for one in reasoned]
            if self.logs_warnings:
                negatives = negative_prompt, negative_prompt_embeds
                inputs.log_warnings(self, source, prompt, negatives, guidance, strength, solver, num_steps)
            negative_prompt = "" if guidance == 1 else negative_prompt
            text = self.encode_prompt(
                prompt, negative_prompt, num_images_per_prompt,
                prompt_embeds=prompt_embeds, prompt_mask=prompt_mask,
                negative_prompt_embeds=negative_prompt_embeds, negative_prompt_mask=negative_prompt_mask,
                max_sequence_length=max_sequence_length,
            )  # fmt: skip
            latent_size = source.height // self.vae_scale_factor, source.width // self.vae_scale_factor
            initial = self.prepare_initial_state(
                source, latent_size, len(text[1]), num_steps, strength, generator, latents
            )
            x = self.denoise(initial, text, latent_size, solve, callback_on_step_end, callback_inputs)
            images = x if output_type == "latent" else self.postprocess(x, source, output_type)
        return LensPipelineOutput(images, reasoned) if return_dict else (images,)

    # ---- parts of a call

    def _encode_texts(self, texts: Sequence[str], max_sequence_length: int) -> PromptEmbeds:
        if self.text_encoder is None or self.tokenizer is None:
            raise SettingError("prompt", texts[0], "a text encoder and tokenizer", "Or pass prompt_embeds.")
        config: Any = self.config
        layers = inputs.text_layers(self.transformer, config.selected_layer_index, self.text_encoder)
        features, mask = encode_prompts(
            self.text_encoder, self.tokenizer, texts, layers, max_sequence_length,
            date=config.prompt_date, on_progress=partial(self._report_progress, "encoding"),
        )  # fmt: skip
        return PromptEmbeds(features, mask)

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        tokens = []
        self.need("vae", "to encode images")
        for index, one in enumerate(pixels.split(1)):
            latents = encode_pixels(self.vae, one.to(execution_device(self.vae)))  # (1, C, h, w)
            tokens.append(pack_latents(latents).float())
            self._report_progress("encoding", index + 1, len(pixels))
        return torch.cat(tokens).to(self.execution_device_of("transformer", "vae"))  # (B, I, C)

    def prepare_initial_state(
        self, source: inputs.SourceImages, latent_size: tuple[int, int], num_images: int, num_steps: int,
        strength: float | None, generator: Any, latents: Tensor | None,
    ) -> InitialState:  # fmt: skip
        """Return the initial state of denoising: noise, or the latents of a source image with noise added."""
        num_tokens, device = latent_size[0] * latent_size[1], execution_device(self.transformer)
        shape = (num_images, num_tokens, self.transformer.config.in_channels)
        noise = inputs.prepare_noise(shape, generator, latents, device)
        if source.pixels is None:
            return InitialState(noise, inputs.sigmas_for_strength(1.0, num_tokens, num_steps), None)
        if strength is None:
            strength = default_strength(has_mask=source.mask is not None)
        sigmas = inputs.sigmas_for_strength(strength, num_tokens, num_steps)
        clean = inputs.repeat_rows(self._encode_pixels(source.pixels), num_images, "image")
        x = interpolate(clean, noise, sigmas[0].expand(num_images).to(device))
        if source.mask is None:
            return InitialState(x, sigmas, None)
        redraw_mask = image_processor.latent_mask(source.mask, *latent_size).to(device)
        return InitialState(
            x, sigmas, InpaintContext(clean, noise, inputs.repeat_rows(redraw_mask, num_images, "mask_image"))
        )

    def denoise(
        self, initial: InitialState, text: Sequence[Any], latent_size: tuple[int, int], solver: Solver,
        on_step_end: StepEndCallback | None = None,
        callback_inputs: Sequence[str] = (),
    ) -> Tensor:  # fmt: skip
        """Return the latents at noise level 0, with the guidance scale of the current call.

        Shapes: -> (B, I, C).
        """
        state: dict[str, Any] = dict(zip(CALLBACK_TENSORS, (initial.x, *text), strict=True))
        num_steps = self._num_timesteps = len(initial.sigmas) - 1

        def velocity(x: Tensor, sigma: float) -> Tensor:
            self._current_timestep = float(sigma) * 1000
            cond = PromptEmbeds(state["prompt_embeds"], state["prompt_mask"])
            uncond = PromptEmbeds(state["negative_prompt_embeds"], state["negative_prompt_mask"])
            return predict_velocity_cfg(
                self.transformer, x, sigma, cond, uncond, self._guidance_scale, latent_size,
                self._attention_kwargs,
            )  # fmt: skip

        def after_step(step: int, sigma: float, x: Tensor) -> Tensor:
            state["latents"] = x if initial.inpaint is None else initial.inpaint.blend_known(x, sigma)
            if on_step_end is not None:
                callback_kwargs = {name: state[name] for name in callback_inputs}
                state.update(on_step_end(self, step, initial.sigmas[step] * 1000, callback_kwargs) or {})
            bar.update()
            self._report_progress("denoising", step + 1, num_steps)
            return state["latents"]

        bar: Any = self.progress_bar(total=num_steps)  # type: ignore[call-arg]
        with bar:
            return solver(velocity, initial.sigmas, initial.x, after_step, lambda: self._interrupt)

    def postprocess(self, x: Tensor, source: inputs.SourceImages, output_type: str) -> Any:
        """Return the images of denoised latents; areas that a mask keeps are those of the source image."""
        pixels = self.decode(x, source.height, source.width).float()  # (B, 3, H, W)
        if source.pixels is not None and source.mask is not None:
            source_pixels, mask = (
                inputs.repeat_rows(one, len(pixels), "image").to(pixels.device)
                for one in (source.pixels, source.mask)
            )
            pixels = torch.where(mask == 0, source_pixels, torch.lerp(source_pixels, pixels, mask))
        return self.image_processor.postprocess(pixels, output_type)

    @contextmanager
    def _call_context(
        self, guidance: float, attention_kwargs: dict[str, Any] | None, on_progress: ProgressCallback | None
    ) -> Iterator[None]:
        """Set the state of a call; when it ends, offload weights again and reset the callback."""
        self._interrupt, self._on_progress = False, on_progress
        self._guidance_scale, self._attention_kwargs = float(guidance), attention_kwargs
        try:
            yield
        finally:
            self._on_progress = self._current_timestep = None
            self.maybe_free_model_hooks()

    def _report_progress(self, stage: str, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(stage, done, total)
