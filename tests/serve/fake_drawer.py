"""A drawer that needs no model: coloured pictures, step by step, with previews, a queue and delays."""

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from lens.errors import Cancelled, QueueFullError, SettingError
from lens.sampling.picture_files import FileUsed, LoraUsed, PictureSettings
from lens.serve.requests import (
    Done,
    Drawing,
    DrawRequest,
    EngineState,
    Event,
    Failed,
    OfferedModel,
    Preview,
    Waiting,
)

MODELS = [
    OfferedModel("fake-turbo", 4, 1.0, 128, "nano-turbo"),
    OfferedModel("fake", 20, 2.0, 128, "nano"),
    OfferedModel("fake-base", 20, 2.0, 128, "nano-base"),
]


def colour(prompt: str, seed: int) -> tuple[int, int, int]:
    """Return a colour that a prompt and seed decide."""
    value = sum((index + 1) * ord(letter) for index, letter in enumerate(prompt)) * 31 + seed * 7919
    return value % 200 + 40, value // 7 % 200 + 40, value // 49 % 200 + 40


def painted(request: DrawRequest) -> Image.Image:
    image = Image.new("RGB", (request.width, request.height), colour(request.prompt, request.seed))
    radius = min(image.size) // 3
    middle = request.width // 2, request.height // 2
    box = (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
    ImageDraw.Draw(image).ellipse(box, fill=colour(request.prompt, request.seed + 1))
    return image


def settings_of(request: DrawRequest) -> PictureSettings:
    used = {
        name: FileUsed(path=path.name, sha256=path.stem) if path else None
        for name, path in (("init_image", request.image), ("mask", request.mask))
    }
    return PictureSettings(
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
        loras=tuple(LoraUsed(path=lora.name, sha256="1" * 64, weight=lora.weight) for lora in request.loras),
        strength=request.strength,
        dtype="float32",
        device="cpu",
        **used,
    )


@dataclass
class FakeTicket:
    request: DrawRequest
    events: "queue.Queue[Event]" = field(default_factory=queue.Queue)
    is_cancelled: bool = False
    last: Event | None = None

    def next_event(self, timeout_s: float | None = None) -> Event:
        if self.last is not None:
            return self.last
        try:
            event = self.events.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        self.last = event if isinstance(event, (Done, Failed)) else None
        return event

    def result(self, timeout_s: float | None = None) -> Done:
        while True:
            event = self.next_event(timeout_s)
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                return event

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeDrawer:
    """Draws one picture after the other in a thread."""

    def __init__(self, step_s: float = 0.0, room: int = 1000, loras: tuple[str, ...] = ("ink",)):
        self.step_s, self.room, self.loras_offered = step_s, room, list(loras)
        self.asked: list[DrawRequest] = []
        self.most_waiting = 0
        self._waiting: deque[FakeTicket] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def models(self) -> list[OfferedModel]:
        return MODELS

    def loras(self) -> list[str]:
        return self.loras_offered

    def submit(self, request: DrawRequest) -> FakeTicket:
        if "refuse" in request.prompt:
            raise SettingError("prompt", request.prompt, "another word")
        with self._changed:
            if len(self._waiting) >= self.room:
                raise QueueFullError("The queue is full. Ask again in 0.05 s.", 0.05)
            ticket = FakeTicket(request)
            ticket.events.put(Waiting(len(self._waiting)))
            self._waiting.append(ticket)
            self.most_waiting = max(self.most_waiting, len(self._waiting))
            self.asked.append(request)
            self._changed.notify_all()
        return ticket

    def state(self) -> EngineState:
        return EngineState(len(self._waiting), 0, 0.0, 0, 0, 0, 0, 0, 0, 0, {})

    def drain(self, timeout_s: float | None = None) -> None:
        pass

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                ticket = self._waiting.popleft()
            ticket.events.put(self._drawn(ticket))

    def _drawn(self, ticket: FakeTicket) -> Event:
        request = ticket.request
        image = painted(request)
        pause_s = self.step_s * (6 if "slowly" in request.prompt else 1)
        for step in range(request.steps):
            if ticket.is_cancelled:
                return Failed(Cancelled("Cancelled."))
            ticket.events.put(Drawing(step, request.steps, (request.steps - step) * self.step_s))
            if step < request.previews:
                faint = Image.blend(Image.new("RGB", image.size, "gray"), image, (step + 1) / request.steps)
                ticket.events.put(Preview(step, faint))
            time.sleep(pause_s)
        if "fault" in request.prompt:
            return Failed(RuntimeError("a secret of the inside"))
        return Done(image, settings_of(request))
