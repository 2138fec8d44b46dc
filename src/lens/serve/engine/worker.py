"""The three stages of a picture: text to a slot, steps of the denoiser, latents to a picture. All torch work.

One thread calls it. Knows nothing of queues, callers or deadlines. Letters: T text tokens, E feature width.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lens.core.resolution import SIDE_STEP_PX
from lens.errors import NonFiniteError
from lens.models.checkpoints.hashing import file_hash
from lens.models.prompt_template import PromptReader
from lens.models.vae import pixels_per_cell
from lens.sampling import inputs as sampling
from lens.sampling.guided_denoiser import runs_on
from lens.sampling.image_metadata import FileUsed, LoraUsed, PictureSettings, versions_here
from lens.sampling.solvers import STEPS
from lens.serve.engine.batching import Packer, Pass, Slot, preview_steps
from lens.serve.engine.cost_model import CostModel, strength_of
from lens.serve.engine.model_registry import Adapters, LoadedModel, LoadedModels, Offered, TextSource
from lens.serve.engine.prompt_cache import Features, TextCache
from lens.serve.engine.request import DrawRequest
from lens.serve.settings.engine import EngineSettings

Outcome = Tensor | Exception | None
"""Of a step: the estimate of the picture's end if a preview of it is due, its error if it has one."""

CALIBRATION_PICTURES = 2
CALIBRATION_PROMPT = "a measure of time"


class Stages:
    """Models in memory, and the work that is done with them."""

    def __init__(self, offered: Offered, settings: EngineSettings, costs: CostModel):
        self.offered, self.settings, self.costs = offered, settings, costs
        self.texts = TextCache(settings.text_cache_bytes)
        self.seconds = {"text": 0.0, "denoise": 0.0, "decode": 0.0}
        self.tokens = 0
        self._models = LoadedModels(offered, settings.device, settings.dtype)
        self._readers: dict[TextSource, PromptReader] = {}
        self._packer = Packer(settings.pack_tokens)
        self._versions = versions_here()

    @torch.no_grad()
    def load(self, name: str) -> LoadedModel:
        """Return a model; one that was not in memory is loaded, and its speed measured.

        Raises: CheckpointError or MemoryNeedError that says what to do.
        """
        is_new = name not in self._models
        model = self._models[name]
        if is_new:
            self.offered.hash_of(model.offer.folder)  # of large weights it takes long: not while others wait
            self._measure(name, model)
        return model

    @torch.no_grad()
    def start(self, request: DrawRequest) -> Slot:
        """Return the picture before its first step: what is read is read, the noise is drawn.

        Raises: LensError for files that cannot be used.
        """
        model = self.load(request.model)
        with self._timed("text"):
            model.load_adapters(request.loras)
            towards = self._text(model, request.prompt)
            away = self._away(model, request, towards)
            size = (request.height, request.width, None, None)
            base = model.offer.facts.base_resolution
            source = sampling.source_of(request.image, request.mask, size, base)
            cell_px = pixels_per_cell(model.pipeline.vae)
            cells = source.height // cell_px, source.width // cell_px
            generator = torch.Generator("cpu").manual_seed(request.seed)
            begin = model.pipeline.starting_point(
                source, cells, 1, request.steps, request.strength, generator, None
            )
        levels = begin.sigmas.tolist()
        return Slot(
            begin.x, levels, begin.known, source, cells, request.guidance, towards, away,
            STEPS[request.solver](), preview_steps(len(levels) - 1, request.previews),
        )  # fmt: skip

    @torch.no_grad()
    def step(self, model_name: str, loras: Adapters, slots: Sequence[Slot]) -> list[Outcome]:
        """Take pictures of one model and its adapters a step on."""
        model = self._models[model_name]
        passes = [slot.passes() for slot in slots]
        num_tokens = sum(one.num_tokens for several in passes for one in several)
        with self._timed("denoise") as timer:
            model.use_adapters(loras)
            answers = iter(self._packer.velocities(model.denoiser, [one for each in passes for one in each]))
            own = [[next(answers) for _ in several] for several in passes]
            results = [_advanced(slot, each) for slot, each in zip(slots, own, strict=True)]
            self._wait_for_device()
        self.tokens += num_tokens
        self.costs.measured(model_name, "denoise", num_tokens, timer())
        return results

    @torch.no_grad()
    def picture(self, model_name: str, slot: Slot, x: Tensor) -> Image.Image:
        """Return latents of a slot as a picture.

        Raises: NonFiniteError for latents that are no numbers.
        """
        if not bool(torch.isfinite(x).all()):
            raise NonFiniteError("The denoiser's numbers overflowed; a LoRA or its weight may be the reason.")
        with self._timed("decode") as timer:
            image = self._models[model_name].pipeline.finished(x, slot.source, "pil")[0]
        self.costs.measured(model_name, "decode", slot.cells[0] * slot.cells[1], timer())
        return image

    def settings_of(self, request: DrawRequest) -> PictureSettings:
        """Return everything that decided a picture."""
        offer = self.offered.models[request.model]
        device = str(self._models[request.model].pipeline._execution_device)
        return PictureSettings(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            width=request.width,
            height=request.height,
            steps=request.steps,
            guidance=request.guidance,
            solver=request.solver,
            model=offer.source,
            model_hash=self.offered.hash_of(offer.folder),
            loras=tuple(self._lora_used(lora.name, lora.weight) for lora in request.loras),
            init_image=self._file_used(request.image),
            mask=self._file_used(request.mask),
            strength=None if request.image is None else strength_of(request),
            dtype=self.settings.dtype,
            device=device,
            threads=torch.get_num_threads() if device == "cpu" else None,
            versions=self._versions,
        )

    # Pictures go out to callers: files by their names and hashes alone, folders are the operator's affair.
    def _file_used(self, path: Path | None) -> FileUsed | None:
        return None if path is None else FileUsed(path=path.name, sha256=file_hash(path))

    def _lora_used(self, name: str, weight: float) -> LoraUsed:
        path = self.offered.loras[name]
        return LoraUsed(path=name, sha256=self.offered.hash_of(path), weight=weight)

    def _text(self, model: LoadedModel, text: str) -> Features:
        def encode(text: str) -> Features:
            if model.text_source not in self._readers:
                pipeline, layers = model.pipeline, model.text_source.layers
                reader = PromptReader(pipeline.text_encoder, pipeline.tokenizer, layers)
                self._readers[model.text_source] = reader
            device = runs_on(model.denoiser)
            return [layer.to(device) for layer in self._readers[model.text_source].features(text)]

        return self.texts.of(model.text_source, text, encode)

    def _away(self, model: LoadedModel, request: DrawRequest, towards: Features) -> Features:
        if request.guidance != 1 and request.negative_prompt.strip():
            return self._text(model, request.negative_prompt)
        return [layer[:0] for layer in towards]  # (0, E) each: no text at all

    def _measure(self, name: str, model: LoadedModel) -> None:
        """Measure a step of a pack and a decoded picture at the model's own size, the second of two times."""
        facts = model.offer.facts
        cells = facts.base_resolution // SIDE_STEP_PX, facts.base_resolution // SIDE_STEP_PX
        num_cells, device = cells[0] * cells[1], runs_on(model.denoiser)
        x = torch.zeros(num_cells, model.denoiser.config.in_channels, device=device)  # (I, C)
        text = self._text(model, CALIBRATION_PROMPT)
        pack = [Pass(x, 0.5, text, cells)] * CALIBRATION_PICTURES
        for _ in range(2):
            begun_at = time.perf_counter()
            _ = self._packer.velocities(model.denoiser, pack)
            self._wait_for_device()
            step_s, begun_at = time.perf_counter() - begun_at, time.perf_counter()
            model.pipeline.decode(x[None], facts.base_resolution, facts.base_resolution)
            self._wait_for_device()
            decode_s = time.perf_counter() - begun_at
        self.costs.measured(name, "denoise", sum(one.num_tokens for one in pack), step_s)
        self.costs.measured(name, "decode", num_cells, decode_s)

    def _wait_for_device(self) -> None:
        if self.settings.device.startswith("cuda"):
            torch.cuda.synchronize(self.settings.device)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[Callable[[], float]]:
        """Add what the block takes to the stage's seconds; call what is yielded for how long it took."""
        begun_at, took_s = time.perf_counter(), [0.0]
        try:
            yield lambda: took_s[0]
        finally:
            took_s[0] = time.perf_counter() - begun_at
            self.seconds[stage] += took_s[0]


def _advanced(slot: Slot, answers: Sequence[Tensor | Exception]) -> Outcome:
    velocities = []
    for answer in answers:
        if isinstance(answer, Exception):
            return answer
        velocities.append(answer)
    return slot.advance(velocities)
