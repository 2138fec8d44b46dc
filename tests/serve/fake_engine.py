"""An engine without models that returns images of one color, for tests of everything above the engine."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from lens.errors import CheckpointError, DrainingError, QueueFullError, SettingError
from lens.sampling.image_metadata import FileRecord, ImageMetadata, LoraRecord
from lens.serve.engine.request import (
    EngineState,
    Failed,
    Finished,
    GenerationRequest,
    ModelInfo,
    Preview,
    Queued,
    StepProgress,
)
from lens.serve.engine.request_handle import RequestHandle

MODELS = [
    ModelInfo("lens-nano-turbo", 4, 1.0, 128, "nano-turbo"),
    ModelInfo("lens-nano", 20, 2.0, 128, "nano"),
    ModelInfo("lens-nano-base", 20, 2.0, 128, "nano-base"),
]


def color(prompt: str, seed: int) -> tuple[int, int, int]:
    """Return the color of the image of a prompt and a seed; its red is the seed."""
    return seed % 256, sum(map(ord, prompt)) % 256, 90


def render(request: GenerationRequest) -> Image.Image:
    return Image.new("RGB", (request.width, request.height), color(request.prompt, request.seed))


def image_metadata(request: GenerationRequest) -> ImageMetadata:
    image, mask = (
        FileRecord(path=path.name, sha256=path.stem) if path else None
        for path in (request.image, request.mask)
    )
    return ImageMetadata(
        **request.metadata_fields(),
        model=request.model,
        model_hash="0" * 64,
        dtype="float32",
        device="cpu",
        loras=tuple(
            LoraRecord(path=lora.name, sha256="1" * 64, weight=lora.weight) for lora in request.loras
        ),
        init_image=image,
        mask=mask,
        strength=request.strength,
    )


class FakeEngine:
    """Renders one image after the other, `step_s` a step, and holds at most `max_open` requests.

    A prompt with "refuse" is rejected; with "poisoned" its adapter fails, with "fail" the engine.
    """

    def __init__(self, step_s: float = 0.0, max_open: int = 1000):
        self.step_s, self.max_open = step_s, max_open
        self.requests: list[GenerationRequest] = []
        self.finished = self.cancelled = 0
        self._open: list[RequestHandle] = []
        self._is_draining = False
        self._changed = threading.Condition()
        self._thread = ThreadPoolExecutor(1)

    def models(self) -> list[ModelInfo]:
        return MODELS

    def loras(self) -> list[str]:
        return ["ink"]

    def submit(self, request: GenerationRequest) -> RequestHandle:
        if "refuse" in request.prompt:
            raise SettingError("prompt", request.prompt, "another word")
        handle = RequestHandle(request, on_cancel=lambda _: None)
        with self._changed:
            if self._is_draining:
                raise DrainingError()
            if len(self._open) >= self.max_open:
                raise QueueFullError("The queue is full.", 7.2)
            handle.publish(Queued(max(0, len(self._open) - 1)))
            self._open.append(handle)
            self.requests.append(request)
            self._thread.submit(self._generate, handle)
        return handle

    def state(self) -> EngineState:
        return EngineState(
            num_waiting=0, num_running=len(self._open), queue_s=0.0, rejected=0, finished=self.finished,
            failed=0, cancelled=self.cancelled, num_tokens=0, prompt_cache_hits=0, prompt_cache_misses=0,
            stage_seconds={"denoise": 1.0},
        )  # fmt: skip

    def drain(self, timeout_s: float | None = None) -> None:
        with self._changed:
            self._is_draining = True
            self._changed.wait_for(lambda: not self._open, timeout_s)
            for handle in self._open:
                handle.cancel()

    def _generate(self, handle: RequestHandle) -> None:
        last = self._render(handle)
        with self._changed:
            self._open.remove(handle)
            self.finished += isinstance(last, Finished)
            self.cancelled += handle.is_cancelled and isinstance(last, Failed)
            self._changed.notify_all()
        handle.publish(last)  # now there is room for another

    def _render(self, handle: RequestHandle) -> Finished | Failed:
        request = handle.request
        image, gray = render(request), Image.new("RGB", (request.width, request.height), "gray")
        for step in range(1, request.steps + 1):
            time.sleep(self.step_s)
            if handle.is_cancelled:
                return handle.cancellation_event()
            handle.publish(StepProgress(step, request.steps, (request.steps - step) * self.step_s))
            if step <= request.previews:
                handle.publish(Preview(step - 1, Image.blend(gray, image, step / request.steps)))
        if "poisoned" in request.prompt:
            return Failed(CheckpointError("ink.safetensors is of another model."))
        if "fail" in request.prompt:
            return Failed(RuntimeError("a secret of the inside"))
        return Finished(image, image_metadata(request))
