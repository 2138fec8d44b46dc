"""The worker that runs the models: encodes prompts, steps the denoiser, decodes latents.

All torch work of the engine, called by one thread. Knows nothing of queues, callers or deadlines. Letters: T
text tokens, E feature width.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lens.core.resolution import SIDE_STEP_PX
from lens.models.checkpoints.hashing import file_hash
from lens.models.memory import execution_device
from lens.models.step_cache import ImageCache
from lens.models.vae import spatial_compression_ratio
from lens.sampling.guided_denoiser import InitialState, upscaled_state
from lens.sampling.image_metadata import FileRecord, ImageMetadata, LoraRecord, library_versions
from lens.sampling.inputs import SourceImages
from lens.sampling.resolved_model import COMPONENTS_WITH_FILES, ResolvedModel
from lens.sampling.solvers import get_solver
from lens.serve.engine.batching import BatchExecutor, DenoisingState, ForwardInput, preview_schedule
from lens.serve.engine.cost_model import CostModel, effective_strength
from lens.serve.engine.model_registry import LoadedModel, LoadedModels, LoraSet, ModelRegistry, TextEncoderKey
from lens.serve.engine.prompt_cache import PromptCache, PromptFeatures
from lens.serve.engine.prompt_encoding import CachedPromptEncoder
from lens.serve.engine.request import GenerationRequest
from lens.serve.engine.source_cache import SourceCache
from lens.serve.settings.engine import EngineSettings

CALIBRATION_BATCH_SIZE = 2
CALIBRATION_PROMPT = "a measure of time"


class ModelWorker:
    """The models in memory, and the functions that run them."""

    def __init__(self, registry: ModelRegistry, settings: EngineSettings, cost_model: CostModel):
        self.registry, self.settings, self.cost_model = registry, settings, cost_model
        self.prompt_cache = PromptCache(settings.text_cache_bytes)
        self.stage_seconds = {"text": 0.0, "denoise": 0.0, "decode": 0.0}
        self.num_tokens = 0
        self._models = LoadedModels(registry, settings.device, settings.dtype, settings.memory)
        self._encoders: dict[TextEncoderKey, CachedPromptEncoder] = {}
        self._executor = BatchExecutor(settings.pack_tokens)
        self._sources = SourceCache()
        self._versions = library_versions()

    @torch.no_grad()
    def load(self, name: str) -> LoadedModel:
        """Return a model; load it and measure its speed if it is not in memory.

        Raises: CheckpointError or MemoryNeedError.
        """
        is_new = name not in self._models
        model = self._models[name]
        if is_new:
            _ = model.entry.model.content_hash  # takes long for large weights: not while requests wait
            self._calibrate(name, model)
        return model

    @torch.no_grad()
    def start(self, request: GenerationRequest) -> DenoisingState:
        """Return the state of an image before its first step: prompts encoded, source read, noise sampled.

        Raises: LensError for files that cannot be used.
        """
        model = self.load(request.model)
        with self._time_stage("text"):
            model.load_adapters(request.loras)
            cond = self._encode_text(model, request.prompt)
            uncond = self._encode_negative(model, request, cond)
            size, base = request.first_size, model.entry.info.base_resolution
            source = self._sources.prepare(request.image, request.mask, size, base)
            cell_px = spatial_compression_ratio(model.pipeline.vae)
            latent_size = source.height // cell_px, source.width // cell_px
            generator = torch.Generator("cpu").manual_seed(request.seed)
            initial = model.pipeline.prepare_initial_state(
                source, latent_size, 1, request.steps, request.strength, generator, None
            )
        return _denoising_state(request, initial, source, latent_size, cond, uncond, request.previews)

    @torch.no_grad()
    def start_upscaled(self, request: GenerationRequest, state: DenoisingState) -> DenoisingState:
        """Return the state that draws a finished image again at the larger size of its request."""
        pipeline = self._models[request.model].pipeline
        source, cell_px = SourceImages(request.height, request.width), spatial_compression_ratio(pipeline.vae)
        latent_size = source.height // cell_px, source.width // cell_px
        initial = upscaled_state(
            pipeline, state.x, state.latent_size, latent_size,
            request.steps, request.redraw_strength, request.seed,
        )  # fmt: skip
        return _denoising_state(request, initial, source, latent_size, state.cond, state.uncond)

    @torch.no_grad()
    def step(
        self, model_name: str, loras: LoraSet, states: Sequence[DenoisingState]
    ) -> list[Exception | None]:
        """Advance images of one model and LoRA set by one evaluation of the denoiser; return their errors."""
        model = self._models[model_name]
        inputs = [state.forward_inputs() for state in states]
        num_tokens = sum(one.num_tokens for several in inputs for one in several)
        with self._time_stage("denoise") as timer:
            model.set_adapters(loras)
            outputs = iter(
                self._executor.predict_velocities(model.denoiser, [one for each in inputs for one in each])
            )
            outputs_per_request = [[next(outputs) for _ in several] for several in inputs]
            errors = [_advance(state, each) for state, each in zip(states, outputs_per_request, strict=True)]
            self._wait_for_device()
        self.num_tokens += num_tokens
        if not any(state.cache for state in states):  # whose passes say nothing of those of others
            self.cost_model.record(model_name, "denoise", num_tokens, timer())
        return errors

    @torch.no_grad()
    def decode(self, model_name: str, state: DenoisingState, x: Tensor) -> Image.Image:
        """Return latents as an image.

        Raises: NonFiniteError for latents or pixels that are not finite.
        """
        with self._time_stage("decode") as timer:
            image = self._models[model_name].pipeline.postprocess(x, state.source, "pil")[0]
        self.cost_model.record(model_name, "decode", state.latent_size[0] * state.latent_size[1], timer())
        return image

    @property
    def num_disk_hits(self) -> int:
        """Number of prompts whose text features were read from disk."""
        caches = (encoder.disk_cache for encoder in self._encoders.values())
        return sum(cache.hits for cache in caches if cache is not None)

    def image_metadata(self, request: GenerationRequest) -> ImageMetadata:
        """Return the metadata that reproduces an image."""
        entry = self.registry.models[request.model]
        device = str(self._models[request.model].pipeline._execution_device)
        return ImageMetadata(
            **request.metadata_fields(),
            model=entry.recorded_name,
            model_hash=entry.model.content_hash,
            parts=_part_records(entry.model),
            prompt_date=entry.model.prompt_date,
            loras=tuple(self._lora_record(lora.name, lora.weight) for lora in request.loras),
            init_image=self._file_record(request.image),
            mask=self._file_record(request.mask),
            strength=None if request.image is None else effective_strength(request),
            dtype=self.settings.dtype,
            device=device,
            threads=torch.get_num_threads() if device == "cpu" else None,
            versions=self._versions,
        )

    # Callers receive the metadata: it names files without their folders, which are private to the server.
    def _file_record(self, path: Path | None) -> FileRecord | None:
        return None if path is None else FileRecord(path=path.name, sha256=file_hash(path))

    def _lora_record(self, name: str, weight: float) -> LoraRecord:
        return LoraRecord(path=name, weight=weight, **self.registry.lora_hashes(name))

    def _encode_text(self, model: LoadedModel, text: str) -> PromptFeatures:
        def encode(text: str) -> PromptFeatures:
            if model.text_encoder_key not in self._encoders:
                self._encoders[model.text_encoder_key] = CachedPromptEncoder(model, self.settings)
            device = execution_device(model.denoiser)
            return [layer.to(device) for layer in self._encoders[model.text_encoder_key].encode(text)]

        return self.prompt_cache.get_or_encode(model.text_encoder_key, text, encode)

    def _encode_negative(
        self, model: LoadedModel, request: GenerationRequest, cond: PromptFeatures
    ) -> PromptFeatures:
        if request.guidance != 1 and request.negative_prompt.strip():
            return self._encode_text(model, request.negative_prompt)
        return [layer[:0] for layer in cond]  # (0, E) each: no text at all

    def _calibrate(self, name: str, model: LoadedModel) -> None:
        """Measure a denoiser pass and a decode at the model's base resolution, the second of two runs."""
        info = model.entry.info
        latent_size = info.base_resolution // SIDE_STEP_PX, info.base_resolution // SIDE_STEP_PX
        num_cells, device = latent_size[0] * latent_size[1], execution_device(model.denoiser)
        x = torch.zeros(num_cells, model.denoiser.config.in_channels, device=device)  # (I, C)
        text = self._encode_text(model, CALIBRATION_PROMPT)
        batch = [ForwardInput(x, 0.5, text, latent_size)] * CALIBRATION_BATCH_SIZE
        for _ in range(2):
            started_at = time.perf_counter()
            _ = self._executor.predict_velocities(model.denoiser, batch)
            self._wait_for_device()
            step_s, started_at = time.perf_counter() - started_at, time.perf_counter()
            model.pipeline.decode(x[None], info.base_resolution, info.base_resolution)
            self._wait_for_device()
            decode_s = time.perf_counter() - started_at
        self.cost_model.record(name, "denoise", sum(one.num_tokens for one in batch), step_s)
        self.cost_model.record(name, "decode", num_cells, decode_s)

    def _wait_for_device(self) -> None:
        if self.settings.device.startswith("cuda"):
            torch.cuda.synchronize(self.settings.device)

    @contextmanager
    def _time_stage(self, stage: str) -> Iterator[Callable[[], float]]:
        """Add the duration of the block to the stage's seconds; yield a function that returns it."""
        started_at, elapsed_s = time.perf_counter(), [0.0]
        try:
            yield lambda: elapsed_s[0]
        finally:
            elapsed_s[0] = time.perf_counter() - started_at
            self.stage_seconds[stage] += elapsed_s[0]


def _denoising_state(
    request: GenerationRequest, initial: InitialState, source: SourceImages, latent_size: tuple[int, int],
    cond: PromptFeatures, uncond: PromptFeatures, num_previews: int = 0,
) -> DenoisingState:  # fmt: skip
    sigmas = initial.sigmas.tolist()
    return DenoisingState(
        initial.x, sigmas, initial.inpaint, source, latent_size, request.guidance, cond, uncond,
        get_solver(request.solver), None if request.cache is None else ImageCache(request.cache),
        preview_schedule(len(sigmas) - 1, num_previews),
    )  # fmt: skip


def _part_records(model: ResolvedModel) -> dict[str, FileRecord] | None:
    if not model.parts:
        return None
    return {
        part: FileRecord(path=model.component_path(part).name, sha256=model.part_hash(part))
        for part in COMPONENTS_WITH_FILES
    }


def _advance(state: DenoisingState, outputs: Sequence[Tensor | Exception]) -> Exception | None:
    velocities = []
    for output in outputs:
        if isinstance(output, Exception):
            return output
        velocities.append(output)
    state.advance(velocities)
    return None
