"""An engine that needs no model and draws plain colours: what stands before the engine is tested with it."""

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
from lens.serve.engine.request_handle import EngineRequestHandle

MODELS = [
    ModelInfo("lens-nano-turbo", 4, 1.0, 128, "nano-turbo"),
    ModelInfo("lens-nano", 20, 2.0, 128, "nano"),
    ModelInfo("lens-nano-base", 20, 2.0, 128, "nano-base"),
]


def colour(prompt: str, seed: int) -> tuple[int, int, int]:
    """Return the colour that a prompt and seed are drawn in; its red is the seed."""
    return seed % 256, sum(map(ord, prompt)) % 256, 90


def painted(request: GenerationRequest) -> Image.Image:
    return Image.new("RGB", (request.width, request.height), colour(request.prompt, request.seed))


def settings_of(request: GenerationRequest) -> ImageMetadata:
    image, mask = (
        FileRecord(path=path.name, sha256=path.stem) if path else None
        for path in (request.image, request.mask)
    )
    return ImageMetadata(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        width=request.width,
        height=request.height,
        steps=request.steps,
        guidance=request.guidance,
        solver=request.solver,
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


class FakeDrawer:
    """Draws one picture after the other, `step_s` a step, and takes `room` at once.

    A prompt with "refuse" is not taken on; with "poisoned" its adapter is at fault, with "fail" the engine.
    """

    def __init__(self, step_s: float = 0.0, room: int = 1000):
        self.step_s, self.room = step_s, room
        self.requests: list[GenerationRequest] = []
        self.finished = self.cancelled = 0
        self._open: list[EngineRequestHandle] = []
        self._is_draining = False
        self._changed = threading.Condition()
        self._thread = ThreadPoolExecutor(1)

    def models(self) -> list[ModelInfo]:
        return MODELS

    def loras(self) -> list[str]:
        return ["ink"]

    def submit(self, request: GenerationRequest) -> EngineRequestHandle:
        if "refuse" in request.prompt:
            raise SettingError("prompt", request.prompt, "another word")
        ticket = EngineRequestHandle(request, on_cancel=lambda _: None)
        with self._changed:
            if self._is_draining:
                raise DrainingError("The engine ends.")
            if len(self._open) >= self.room:
                raise QueueFullError("The queue is full.", 7.2)
            ticket.publish(Queued(max(0, len(self._open) - 1)))
            self._open.append(ticket)
            self.requests.append(request)
            self._thread.submit(self._generate, ticket)
        return ticket

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
            for ticket in self._open:
                ticket.cancel()

    def _draw(self, ticket: EngineRequestHandle) -> None:
        last = self._collect_rollouts(ticket)
        with self._changed:
            self._open.remove(ticket)
            self.finished += isinstance(last, Finished)
            self.cancelled += ticket.is_cancelled and isinstance(last, Failed)
            self._changed.notify_all()
        ticket.publish(last)  # now there is room for another

    def _drawn(self, ticket: EngineRequestHandle) -> Finished | Failed:
        request = ticket.request
        image, gray = painted(request), Image.new("RGB", (request.width, request.height), "gray")
        for step in range(1, request.steps + 1):
            time.sleep(self.step_s)
            if ticket.is_cancelled:
                return ticket.cancellation_event()
            ticket.publish(StepProgress(step, request.steps, (request.steps - step) * self.step_s))
            if step <= request.previews:
                ticket.publish(Preview(step - 1, Image.blend(gray, image, step / request.steps)))
        if "poisoned" in request.prompt:
            return Failed(CheckpointError("ink.safetensors is of another model."))
        if "fail" in request.prompt:
            return Failed(RuntimeError("a secret of the inside"))
        return Finished(image, settings_of(request))
