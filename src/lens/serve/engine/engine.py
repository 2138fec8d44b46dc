"""The engine: requests from any thread, drawn together by one, each picture as it would be alone.

Three stages, each with its own queue: texts are encoded, running pictures go a step on in packs, what is
drawn is decoded. Pictures join and leave at any step. Knows nothing of HTTP or of jobs.
Contract: a picture depends on its request alone, not on its company: pixels are equal, or differ by 1 of 255
in at most 0.1% of values (float32; `tests/serve/test_engine.py`).
"""

import logging
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from lens.errors import DeadlineError, DrainingError, QueueFullError
from lens.sampling.image_metadata import PictureSettings
from lens.serve.engine.batching import Slot
from lens.serve.engine.cost_model import CostModel, work_of
from lens.serve.engine.fair_queue import FairQueue
from lens.serve.engine.model_registry import Adapters, Offered
from lens.serve.engine.request import (
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
from lens.serve.engine.request_handle import EngineTicket
from lens.serve.engine.validation import check
from lens.serve.engine.worker import Stages
from lens.serve.settings.engine import EngineSettings

log = logging.getLogger(__name__)

LOOK_AT_QUEUE_EVERY_S = 0.1
"""How often those who wait are told their place or that it is too late, at most."""

AFTER_FAILURE_S = 0.1
"""Rest after an error of the engine's own, which may come again."""


@dataclass(eq=False)
class Running:
    """A picture that is being drawn, and whose it is."""

    ticket: EngineTicket
    slot: Slot
    settings: PictureSettings
    num_tokens: int
    stepped_at: float
    step_s: float
    """Seconds between its last two steps; before them, an estimate."""
    num_previews: int = 0

    @property
    def group(self) -> tuple[str, Adapters]:
        """What pictures of one pack have in common."""
        return self.ticket.request.model, self.ticket.request.loras


class ToDecode(NamedTuple):
    """Latents that wait for the decoder."""

    running: Running
    latents: Tensor
    is_last: bool


class Engine:
    """Draws what it is asked for; a `Drawer`."""

    def __init__(self, offered: Offered, settings: EngineSettings | None = None):
        self.offered, self.settings = offered, settings or EngineSettings()
        self.costs = CostModel()
        self._stages = Stages(offered, self.settings, self.costs)
        self._changed = threading.Condition()
        """Guards everything below that callers' threads reach."""
        self._queue: FairQueue[EngineTicket] = FairQueue(
            self.settings.max_waiting, self.settings.max_waiting_s
        )
        self._to_start: list[EngineTicket] = []
        self._running: list[Running] = []
        self._to_decode: list[ToDecode] = []
        self._ended = {"rejected": 0, "finished": 0, "failed": 0, "cancelled": 0}
        self._is_draining = self._is_stopping = False
        self._looked_at = 0.0
        self._ready = threading.Event()
        self._load_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="lens-engine", daemon=True)
        self._thread.start()

    # ---- asked from any thread

    @property
    def is_ready(self) -> bool:
        """Whether the models that are loaded at the start are there."""
        return self._ready.is_set() and self._load_error is None and not self._is_draining

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait for the models that are loaded at the start.

        Raises: what kept one from loading; TimeoutError.
        """
        if not self._ready.wait(timeout_s):
            raise TimeoutError(f"The models are not loaded after {timeout_s} s.")
        if self._load_error is not None:
            raise self._load_error

    def models(self) -> list[OfferedModel]:
        return [offer.facts for offer in self.offered.models.values()]

    def loras(self) -> list[str]:
        return list(self.offered.loras)

    def submit(self, request: DrawRequest) -> EngineTicket:
        """Take a request on.

        Raises: SettingError for one that cannot be drawn; QueueFullError, which says when to ask again, where
        there is no room; DrainingError while the engine ends.
        """
        if self._is_draining:
            raise _draining()
        check(request, self.offered.models, self.offered.loras, self.settings.max_steps)
        ticket = EngineTicket(request, self._on_cancel)
        with self._changed:
            if self._is_draining:
                raise _draining()
            try:
                self._queue.push(ticket, request.caller, self.costs.seconds(request), request.priority)
            except QueueFullError:
                self._ended["rejected"] += 1
                raise
            self._tell_position(ticket, self._queue.items().index(ticket))
            self._changed.notify_all()
        return ticket

    def state(self) -> EngineState:
        with self._changed:
            return EngineState(
                waiting=len(self._queue),
                running=len(self._to_start) + len(self._running),
                queue_seconds=self._queue.seconds,
                tokens=self._stages.tokens,
                text_hits=self._stages.texts.hits,
                text_misses=self._stages.texts.misses,
                stage_seconds=dict(self._stages.seconds),
                **self._ended,
            )

    def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing more on, finish what was taken on, end.

        What is not finished in time fails with DrainingError.
        """
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._changed:
                self._is_stopping = True
                self._changed.notify_all()
            self._thread.join()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.drain(timeout_s=0)

    def _on_cancel(self, ticket: EngineTicket) -> None:
        with self._changed:
            if self._queue.remove(ticket):
                self._end(ticket, ticket.cancelled(), "cancelled")
            # One that runs is found at the next step.

    # ---- the engine's own thread

    def _run(self) -> None:
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        self._load_at_start()
        while True:
            with self._changed:
                self._changed.wait_for(self._has_something_to_do)
                is_idle = not (len(self._queue) or self._in_flight())
                if self._is_stopping or (self._is_draining and is_idle):
                    break
            try:
                self._work()
            except Exception as error:  # ours; whoever is waiting must still get an answer
                log.exception("The engine failed at something that belongs to no picture.")
                self._fail_all(error, waiting_too=False)
                time.sleep(AFTER_FAILURE_S)
        self._fail_all(_draining(), waiting_too=True)

    def _load_at_start(self) -> None:
        for name in self.offered.models if self.settings.loads_at_start else ():
            if self._is_stopping:
                break
            try:
                self._stages.load(name)
            except Exception as error:
                log.error("%s could not be loaded: %s", name, error)
                self._load_error = self._load_error or error
        self._ready.set()

    def _has_something_to_do(self) -> bool:
        return bool(len(self._queue) or self._in_flight() or self._is_draining or self._is_stopping)

    def _in_flight(self) -> int:
        return len(self._to_start) + len(self._running) + len(self._to_decode)

    def _work(self) -> None:
        """Go once through all stages."""
        self._drop_unwanted()
        self._admit()
        while self._to_start:
            self._start(self._to_start[0])
            del self._to_start[0]
        groups = dict.fromkeys(running.group for running in self._running)
        for group in groups:
            self._step(group, [running for running in self._running if running.group == group])
        while self._to_decode:
            self._decode(self._to_decode.pop(0))
        self._look_at_queue()

    def _drop_unwanted(self) -> None:
        for running in list(self._running):
            ticket = running.ticket
            if ticket.is_cancelled:
                self._leave(running, ticket.cancelled(), "cancelled")
            elif time.monotonic() > ticket.late_at:
                self._leave(running, _late(ticket, "was not finished"), "failed")

    def _admit(self) -> None:
        """Take from the queue whatever there is room for; what will be late fails at once."""
        with self._changed:
            held = sum(running.num_tokens for running in self._running)
            count = len(self._running)
            while (ticket := self._queue.peek()) is not None:
                num_tokens = work_of(ticket.request).step_tokens
                if time.monotonic() + self.costs.seconds(ticket.request) > ticket.late_at:
                    self._end(self._queue.pop(), _late(ticket, "could not begin"), "failed")
                    continue
                has_room = count < self.settings.max_running and held + num_tokens <= self.settings.max_tokens
                if count and not has_room:
                    return
                self._to_start.append(self._queue.pop())
                held, count = held + num_tokens, count + 1

    def _start(self, ticket: EngineTicket) -> None:
        request = ticket.request
        if ticket.is_cancelled:
            self._end(ticket, ticket.cancelled(), "cancelled")
            return
        try:
            slot = self._stages.start(request)
            settings = self._stages.settings_of(request)
        except Exception as error:
            self._end(ticket, Failed(error), "failed")
            return
        work = work_of(request)
        step_s = work.step_tokens * self.costs.rate(request.model, "denoise")
        running = Running(ticket, slot, settings, work.step_tokens, time.monotonic(), step_s)
        with self._changed:
            self._running.append(running)
        ticket.tell(self._drawing(running))

    def _step(self, group: tuple[str, Adapters], together: list[Running]) -> None:
        try:
            outcomes = self._stages.step(*group, [running.slot for running in together])
        except Exception as error:
            for running in together:
                self._leave(running, Failed(error), "failed")
            return
        now = time.monotonic()
        for running, outcome in zip(together, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._leave(running, Failed(outcome), "failed")
                continue
            running.step_s, running.stepped_at = now - running.stepped_at, now
            running.ticket.tell(self._drawing(running))
            if running.slot.is_drawn:
                self._to_decode.append(ToDecode(running, running.slot.x, is_last=True))
            elif outcome is not None:
                self._to_decode.append(ToDecode(running, outcome, is_last=False))

    def _decode(self, waiting: ToDecode) -> None:
        running, ticket = waiting.running, waiting.running.ticket
        if ticket.is_cancelled or ticket.is_over:
            return  # it leaves where all do that nobody wants
        try:
            image = self._stages.picture(ticket.request.model, running.slot, waiting.latents)
        except Exception as error:
            self._leave(running, Failed(error), "failed")
            return
        if waiting.is_last:
            self._leave(running, Done(image, running.settings), "finished")
        else:
            ticket.tell(Preview(running.num_previews, image))
            running.num_previews += 1

    def _drawing(self, running: Running) -> Drawing:
        slot, request = running.slot, running.ticket.request
        decode_s = slot.cells[0] * slot.cells[1] * self.costs.rate(request.model, "decode")
        num_left = slot.num_steps - slot.step
        return Drawing(slot.step, slot.num_steps, num_left * running.step_s + decode_s)

    def _leave(self, running: Running, event: Event, how: str) -> None:
        with self._changed:
            if running in self._running:
                self._running.remove(running)
        self._end(running.ticket, event, how)

    def _end(self, ticket: EngineTicket, event: Event, how: str) -> None:
        with self._changed:
            if ticket.tell(event):
                self._ended[how] += 1

    def _look_at_queue(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_AT_QUEUE_EVERY_S:
            return
        self._looked_at = now
        with self._changed:
            for ticket in self._queue.items():
                if now > ticket.late_at and self._queue.remove(ticket):
                    self._end(ticket, _late(ticket, "could not begin"), "failed")
            for position, ticket in enumerate(self._queue.items()):
                self._tell_position(ticket, position)

    def _tell_position(self, ticket: EngineTicket, position: int) -> None:
        if ticket.position != position:
            ticket.position = position
            ticket.tell(Waiting(position))

    def _fail_all(self, error: Exception, waiting_too: bool) -> None:
        with self._changed:
            tickets = [running.ticket for running in self._running] + self._to_start
            while waiting_too and len(self._queue):
                tickets.append(self._queue.pop())
            self._running, self._to_start, self._to_decode = [], [], []
            for ticket in tickets:
                self._end(ticket, Failed(error), "failed")


def _draining() -> DrainingError:
    return DrainingError("The server is ending and takes nothing more on. Ask again in a moment.")


def _late(ticket: EngineTicket, what: str) -> Failed:
    deadline_s = ticket.request.deadline_s
    return Failed(DeadlineError(f"The picture {what} within the {deadline_s:g} s that it had."))
