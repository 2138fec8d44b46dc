"""An engine that draws plain colours at once: what stands before the engine is tested with it."""

import queue
import threading
import time

from PIL import Image

from lens.errors import Cancelled, CheckpointError, DrainingError, QueueFullError
from lens.sampling.picture_files import PictureSettings
from lens.serve.requests import Done, Drawing, EngineState, Failed, OfferedModel, Preview, Waiting

MODELS = [
    OfferedModel("lens-nano-turbo", 4, 1.0, 128, "nano-turbo"),
    OfferedModel("lens-nano", 20, 2.0, 128, "nano"),
]


class FakeTicket:
    def __init__(self, request, error=None):
        self.request, self.error = request, error
        self.events = queue.SimpleQueue()
        self.is_cancelled, self.last = threading.Event(), None

    def next_event(self, timeout_s=None):
        if self.last is not None:
            return self.last
        try:
            event = self.events.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(event, Done | Failed):
            self.last = event
        return event

    def result(self, timeout_s=None):
        while not isinstance(event := self.next_event(timeout_s), Done | Failed):
            pass
        if isinstance(event, Failed):
            raise event.error
        return event

    def cancel(self):
        self.is_cancelled.set()


class FakeDrawer:
    """Draws one picture after the other; `step_s` a step. Words in prompts make it fail."""

    def __init__(self, step_s=0.0, room=1000):
        self.step_s, self.room = step_s, room
        self.requests, self.tickets = [], []
        self.num_open, self.finished, self.cancelled, self.is_draining = 0, 0, 0, False
        self.is_ready = True
        self.lock = threading.Lock()

    def models(self):
        return MODELS

    def loras(self):
        return ["ink"]

    def submit(self, request):
        with self.lock:
            if self.is_draining:
                raise DrainingError("The engine ends.")
            if self.num_open >= self.room:
                raise QueueFullError("The queue is full.", 7.2)
            self.num_open += 1
            self.requests.append(request)
            ticket = FakeTicket(request)
            self.tickets.append(ticket)
        threading.Thread(target=self._draw, args=(ticket,), daemon=True).start()
        return ticket

    def _draw(self, ticket):
        request = ticket.request
        ticket.events.put(Waiting(0))
        last = Failed(Cancelled("Cancelled."))
        for step in range(1, request.steps + 1):
            if ticket.is_cancelled.wait(self.step_s) if self.step_s else ticket.is_cancelled.is_set():
                self.cancelled += 1
                break
            ticket.events.put(Drawing(step, request.steps, (request.steps - step) * self.step_s))
            if step <= request.previews:
                ticket.events.put(Preview(step - 1, self._image(request, step)))
        else:
            last = Done(self._image(request, 0), self._settings(request))
            if "poisoned" in request.prompt:
                last = Failed(CheckpointError("ink.safetensors is of another model."))
            elif "fail" in request.prompt:
                last = Failed(RuntimeError("secret detail"))
            self.finished += 1
        with self.lock:
            self.num_open -= 1
        ticket.events.put(last)

    def _image(self, request, shade):
        return Image.new("RGB", (request.width, request.height), (request.seed % 256, 20 * shade, 90))

    def _settings(self, request):
        return PictureSettings(
            prompt=request.prompt, negative_prompt=request.negative_prompt, seed=request.seed,
            width=request.width, height=request.height, steps=request.steps, guidance=request.guidance,
            solver=request.solver, model=request.model, model_hash="0" * 64, dtype="float32", device="cpu",
        )  # fmt: skip

    def state(self):
        ended = {"rejected": 0, "finished": self.finished, "failed": 0, "cancelled": self.cancelled}
        return EngineState(
            waiting=0, running=self.num_open, queue_seconds=0.0, tokens=0, text_hits=0, text_misses=0,
            stage_seconds={"denoise": 1.0}, **ended,
        )  # fmt: skip

    def drain(self, timeout_s=None):
        self.is_draining = True
        until = time.monotonic() + (10 if timeout_s is None else timeout_s)
        while self.num_open and time.monotonic() < until:
            time.sleep(0.01)
        for ticket in self.tickets:
            ticket.cancel()
