"""The engine: queues requests from any thread and generates their images in one thread of its own.

Each iteration admits requests, advances the running images in batches, and decodes those that are due.
Images join and leave at any step. Knows nothing of HTTP or of jobs.
Contract: an image depends on its request alone, not on its batch: pixels are equal, or differ by 1 of 255 in
at most 0.1% of values (float32; `tests/serve/test_engine.py`).
"""

import logging
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import torch

from lens.errors import DeadlineError, DrainingError, QueueFullError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.engine.batching import DenoisingState
from lens.serve.engine.cost_model import CostModel, request_cost
from lens.serve.engine.fair_queue import FairQueue
from lens.serve.engine.model_registry import LoraSet, ModelRegistry
from lens.serve.engine.request import (
    EngineEvent,
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
from lens.serve.engine.validation import validate_request
from lens.serve.engine.worker import ModelWorker
from lens.serve.settings.engine import EngineSettings

logger = logging.getLogger(__name__)

QUEUE_CHECK_INTERVAL_S = 0.1
"""Minimum time between two updates of queue positions and deadlines."""

FAILURE_PAUSE_S = 0.1
"""Pause after an internal error, which may recur."""


@dataclass(eq=False)
class ActiveRequest:
    """An admitted request and the state of its image."""

    handle: RequestHandle
    state: DenoisingState
    metadata: ImageMetadata
    num_tokens: int
    stepped_at: float
    evaluation_s: float
    """Seconds between its last two evaluations of the denoiser; before them, an estimate."""
    num_previews: int = 0
    is_upscaled: bool = False
    """Whether the image is drawn again at the larger size of its request."""

    @property
    def batch_key(self) -> tuple[str, LoraSet]:
        """Requests with equal keys can share a forward pass."""
        return self.handle.request.model, self.handle.request.loras


class Engine:
    """An engine in this process; implements `EngineClient`."""

    def __init__(self, registry: ModelRegistry, settings: EngineSettings | None = None):
        self.registry, self.settings = registry, settings or EngineSettings()
        self.cost_model = CostModel()
        self._worker = ModelWorker(registry, self.settings, self.cost_model)
        self._changed = threading.Condition()
        """Guards the attributes below, which the threads of callers read."""
        self._queue: FairQueue[RequestHandle] = FairQueue(
            self.settings.max_waiting, self.settings.max_waiting_s
        )
        self._to_start: list[RequestHandle] = []
        self._running: list[ActiveRequest] = []
        self._num_ended = {"rejected": 0, "finished": 0, "failed": 0, "cancelled": 0}
        self._is_draining = self._is_stopping = False
        self._queue_checked_at = 0.0
        self._ready = threading.Event()
        self._load_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="lens-engine", daemon=True)
        self._thread.start()

    # ---- called from any thread

    @property
    def is_ready(self) -> bool:
        """Whether the models of the start are loaded and the engine accepts requests."""
        return self._ready.is_set() and self._load_error is None and not self._is_draining

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait for the models of the start to load.

        Raises: the error of a model that does not load; TimeoutError.
        """
        if not self._ready.wait(timeout_s):
            raise TimeoutError(f"The models did not load within {timeout_s} s.")
        if self._load_error is not None:
            raise self._load_error

    def models(self) -> list[ModelInfo]:
        return [offer.info for offer in self.registry.models.values()]

    def loras(self) -> list[str]:
        return list(self.registry.loras)

    def submit(self, request: GenerationRequest) -> RequestHandle:
        """Accept a request and queue it. Raises: as `EngineClient.submit`."""
        if self._is_draining:
            raise DrainingError()
        validate_request(request, self.registry.models, self.registry.loras, self.settings.max_steps)
        handle = RequestHandle(request, self._on_cancel)
        with self._changed:
            if self._is_draining:
                raise DrainingError()
            try:
                cost_s = self.cost_model.estimate_seconds(request)
                self._queue.push(handle, request.caller, cost_s, request.priority, self._busy_s())
            except QueueFullError:
                self._num_ended["rejected"] += 1
                raise
            self._publish_position(handle, self._queue.items().index(handle))
            self._changed.notify_all()
        return handle

    def state(self) -> EngineState:
        with self._changed:
            return EngineState(
                num_waiting=len(self._queue),
                num_running=len(self._to_start) + len(self._running),
                queue_s=self._queue.total_cost_s,
                num_tokens=self._worker.num_tokens,
                prompt_cache_hits=self._worker.prompt_cache.hits,
                prompt_cache_misses=self._worker.prompt_cache.misses,
                prompt_cache_disk_hits=self._worker.num_disk_hits,
                stage_seconds=dict(self._worker.stage_seconds),
                **self._num_ended,
            )

    def drain(self, timeout_s: float | None = None) -> None:
        """Finish the accepted requests and shut down, as `EngineClient.drain`."""
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

    def _busy_s(self) -> float:
        """Return the estimated seconds until the first of the running images is finished."""
        remaining = (self._progress(one).remaining_s for one in self._running if not one.state.is_finished)
        return min(remaining, default=0.0)

    def _on_cancel(self, handle: RequestHandle) -> None:
        with self._changed:
            if self._queue.remove(handle):
                self._finish(handle, handle.cancellation_event(), "cancelled")
            # A running request is removed before the next step.

    # ---- the engine's own thread

    def _run(self) -> None:
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        self._load_models()
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                is_idle = not (len(self._queue) or self._num_in_flight())
                if self._is_stopping or (self._is_draining and is_idle):
                    break
            try:
                self._run_iteration()
            except Exception as error:  # an internal error: callers must still get an answer
                logger.exception("internal error of the engine; the running requests fail")
                self._fail_all(error, include_queued=False)
                time.sleep(FAILURE_PAUSE_S)
        self._fail_all(DrainingError(), include_queued=True)

    def _load_models(self) -> None:
        for name in self.registry.models if self.settings.loads_at_start else ():
            if self._is_stopping:
                break
            try:
                self._worker.load(name)
            except Exception as error:
                logger.error("model %s did not load: %s", name, error)
                self._load_error = self._load_error or error
        self._ready.set()

    def _has_work(self) -> bool:
        return bool(len(self._queue) or self._num_in_flight() or self._is_draining or self._is_stopping)

    def _num_in_flight(self) -> int:
        return len(self._to_start) + len(self._running)

    def _run_iteration(self) -> None:
        """Run every stage once."""
        self._drop_cancelled_or_expired()
        self._admit()
        while self._to_start:
            self._start(self._to_start[0])
            del self._to_start[0]
        groups = dict.fromkeys(running.batch_key for running in self._running)
        for group in groups:
            self._step(group, [running for running in self._running if running.batch_key == group])
        for running in list(self._running):
            self._decode(running)
        self._update_queue()

    def _drop_cancelled_or_expired(self) -> None:
        for running in list(self._running):
            handle = running.handle
            if handle.is_cancelled:
                self._remove(running, handle.cancellation_event(), "cancelled")
            elif time.monotonic() > handle.deadline:
                self._remove(running, _deadline_failure(handle, "was not finished"), "failed")

    def _admit(self) -> None:
        """Admit queued requests while there is room; fail those that cannot meet their deadline."""
        with self._changed:
            num_held_tokens = sum(running.num_tokens for running in self._running)
            num_running = len(self._running)
            while (handle := self._queue.peek()) is not None:
                num_tokens = request_cost(handle.request).tokens_per_evaluation
                if time.monotonic() + self.cost_model.estimate_seconds(handle.request) > handle.deadline:
                    self._finish(self._queue.pop(), _deadline_failure(handle, "could not begin"), "failed")
                    continue
                has_room = (
                    num_running < self.settings.max_running
                    and num_held_tokens + num_tokens <= self.settings.max_tokens
                )
                if num_running and not has_room:
                    return
                self._to_start.append(self._queue.pop())
                num_held_tokens, num_running = num_held_tokens + num_tokens, num_running + 1

    def _start(self, handle: RequestHandle) -> None:
        request = handle.request
        if handle.is_cancelled:
            self._finish(handle, handle.cancellation_event(), "cancelled")
            return
        try:
            state = self._worker.start(request)
            settings = self._worker.image_metadata(request)
        except Exception as error:
            self._finish(handle, Failed(error), "failed")
            return
        cost = request_cost(request)
        num_tokens = cost.tokens_per_evaluation
        evaluation_s = num_tokens * self.cost_model.seconds_per_token(request.model, "denoise")
        running = ActiveRequest(handle, state, settings, num_tokens, time.monotonic(), evaluation_s)
        with self._changed:
            self._running.append(running)
        handle.publish(self._progress(running))

    def _step(self, group: tuple[str, LoraSet], batch: list[ActiveRequest]) -> None:
        try:
            errors = self._worker.step(*group, [running.state for running in batch])
        except Exception as error:
            for running in batch:
                self._remove(running, Failed(error), "failed")
            return
        now = time.monotonic()
        for running, error in zip(batch, errors, strict=True):
            if error is not None:
                self._remove(running, Failed(error), "failed")
                continue
            running.evaluation_s, running.stepped_at = now - running.stepped_at, now
            if running.state.num_evaluations == 0:  # otherwise the solver is within a step
                running.handle.publish(self._progress(running))

    def _decode(self, running: ActiveRequest) -> None:
        """Decode and publish the image or the preview that is due."""
        handle, state = running.handle, running.state
        latents = state.latents_to_decode
        if latents is None or handle.is_cancelled:  # a cancelled request is removed before the next step
            return
        if state.is_finished and handle.request.upscale is not None and not running.is_upscaled:
            self._upscale(running)
            return
        try:
            image = self._worker.decode(handle.request.model, state, latents)
        except Exception as error:
            self._remove(running, Failed(error), "failed")
            return
        if state.is_finished:
            self._remove(running, Finished(image, running.metadata), "finished")
        else:
            handle.publish(Preview(running.num_previews, image))
            running.num_previews += 1
            state.preview = None

    def _upscale(self, running: ActiveRequest) -> None:
        """Begin to draw a finished image again at the larger size of its request."""
        try:
            running.state = self._worker.start_upscaled(running.handle.request, running.state)
        except Exception as error:
            self._remove(running, Failed(error), "failed")
            return
        running.is_upscaled, running.stepped_at = True, time.monotonic()
        running.handle.publish(self._progress(running))

    def _progress(self, running: ActiveRequest) -> StepProgress:
        state, request = running.state, running.handle.request
        decode_s = (
            state.latent_size[0]
            * state.latent_size[1]
            * self.cost_model.seconds_per_token(request.model, "decode")
        )
        remaining_s = state.num_evaluations_left * running.evaluation_s + decode_s
        return StepProgress(state.step, state.num_steps, remaining_s)

    def _remove(self, running: ActiveRequest, event: EngineEvent, outcome: str) -> None:
        with self._changed:
            if running in self._running:
                self._running.remove(running)
        self._finish(running.handle, event, outcome)

    def _finish(self, handle: RequestHandle, event: EngineEvent, outcome: str) -> None:
        with self._changed:
            if handle.publish(event):
                self._num_ended[outcome] += 1

    def _update_queue(self) -> None:
        now = time.monotonic()
        if now - self._queue_checked_at < QUEUE_CHECK_INTERVAL_S:
            return
        self._queue_checked_at = now
        with self._changed:
            for handle in self._queue.items():
                if now > handle.deadline and self._queue.remove(handle):
                    self._finish(handle, _deadline_failure(handle, "could not begin"), "failed")
            for position, handle in enumerate(self._queue.items()):
                self._publish_position(handle, position)

    def _publish_position(self, handle: RequestHandle, position: int) -> None:
        if handle.position != position:
            handle.position = position
            handle.publish(Queued(position))

    def _fail_all(self, error: Exception, include_queued: bool) -> None:
        with self._changed:
            handles = [running.handle for running in self._running] + self._to_start
            while include_queued and len(self._queue):
                handles.append(self._queue.pop())
            self._running, self._to_start = [], []
            for handle in handles:
                self._finish(handle, Failed(error), "failed")


def _deadline_failure(handle: RequestHandle, what: str) -> Failed:
    deadline_s = handle.request.deadline_s
    return Failed(DeadlineError(f"The image {what} within its deadline of {deadline_s:g} s."))
