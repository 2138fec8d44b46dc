"""Engines on Ray Serve, asked as if they were one: a `Drawer` whose pictures are drawn by replicas.

A picture depends on its request alone, so that of a replica that dies is asked of another, with the same
result. Each picture is followed by a thread. Knows nothing of HTTP or of jobs.
"""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from lens.errors import DrainingError, LensError, QueueFullError, SettingError
from lens.sampling.image_metadata import PictureSettings
from lens.serve.engine.model_registry import Offered
from lens.serve.engine.request import Done, Drawing, DrawRequest, EngineState, Failed, OfferedModel, Preview
from lens.serve.engine.request_handle import EngineTicket
from lens.serve.engine.validation import check
from lens.serve.ray.replica import NAME, Told, adapters_key, application, at_once, files_of, gpus_of
from lens.serve.settings.ray import RaySettings
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.database import MissingExtraError

log = logging.getLogger(__name__)

MAX_DEATHS = 8
"""Replicas that may die under one picture; then the picture may be what kills them."""
REST_S = 0.2
"""Before a picture is asked for again; doubled each time."""
CONNECT_S = 5.0
ANSWER_S = 2.0
"""How long a caller waits to hear that the queue of a replica is full; later it is asked again instead."""


class Following:
    """A picture on its way: how often a replica died under it, and who still waits for a first answer."""

    def __init__(self, ticket: EngineTicket):
        self.ticket = ticket
        self.response: Any = None
        self.is_drawing = False
        self.replica = ""
        """Who told of it last."""
        self.num_shown = self.num_deaths = 0
        self.refusal: QueueFullError | None = None
        self._answered = threading.Event()
        self._lock = threading.Lock()

    def answer(self, refusal: QueueFullError | None = None) -> bool:
        """Tell the caller whether it is taken on; return whether it was still waiting to hear."""
        with self._lock:
            if self._answered.is_set():
                return False
            self.refusal = refusal
            self._answered.set()
            return True

    def wait_for_answer(self, timeout_s: float) -> None:
        """Wait to hear that it is taken on. Raises: QueueFullError where it is not."""
        self._answered.wait(timeout_s)
        self.answer()
        if self.refusal is not None:
            raise self.refusal

    def stop(self) -> None:
        """Stop reading, and with it the drawing."""
        if self.response is not None:
            with suppress(Exception):  # a replica that is gone draws no more either
                self.response.cancel()


class RayDrawer:
    """Draws by the replicas of a deployment, which it starts and ends."""

    def __init__(self, settings: ServerSettings):
        self.settings, self.ray = settings, settings.ray or RaySettings.of({})
        self.offered = Offered.of_names(settings.models, settings.loras)
        self._is_ours = connect(self.ray, gpus_of(settings))
        self._changed = threading.Condition()
        self._open: dict[EngineTicket, Following] = {}
        self._ended = {"rejected": 0, "finished": 0, "failed": 0, "cancelled": 0}
        self._states: dict[str, EngineState] = {}
        """What each replica told last, those that are gone among them."""
        self.num_moved = 0
        """How often a picture was asked of another replica."""
        self._is_draining = self._has_left = False
        self._handle: Any = None
        self._start_error: Exception | None = None
        self._started = threading.Event()
        threading.Thread(target=self._deploy, name="lens-deploy", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether replicas were there once, and nothing ends."""
        return self._handle is not None and not self._is_draining

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait for all replicas of the start. Raises: what kept them from it; TimeoutError."""
        if not self._started.wait(timeout_s):
            raise TimeoutError(f"The replicas are not there after {timeout_s} s.")
        if self._start_error is not None:
            raise self._start_error

    def models(self) -> list[OfferedModel]:
        return [offer.facts for offer in self.offered.models.values()]

    def loras(self) -> list[str]:
        return list(self.offered.loras)

    def submit(self, request: DrawRequest) -> EngineTicket:
        """Take a request on. Raises: as `Drawer.submit` says."""
        check(request, self.offered.models, self.offered.loras, self.settings.engine.max_steps)
        ticket = EngineTicket(request, self._on_cancel)
        following = Following(ticket)
        with self._changed:
            if self._is_draining:
                raise _draining()
            if len(self._open) >= at_once(self.settings) * self.ray.most:
                self._ended["rejected"] += 1
                raise QueueFullError("The queue is full. Ask again later.", retry_after_s=5.0)
            self._open[ticket] = following
        threading.Thread(target=self._follow, args=(following,), name="lens-follow", daemon=True).start()
        following.wait_for_answer(ANSWER_S if self.is_ready else 0.0)
        return ticket

    def state(self) -> EngineState:
        with self._changed:
            running = sum(following.is_drawing for following in self._open.values())
            waiting = len(self._open) - running
            told = list(self._states.values())
            stages: dict[str, float] = {}
            for state in told:
                for name, seconds in state.stage_seconds.items():
                    stages[name] = stages.get(name, 0.0) + seconds
            return EngineState(
                waiting=waiting,
                running=running,
                queue_seconds=sum(state.queue_seconds for state in told) if waiting else 0.0,
                tokens=sum(state.tokens for state in told),
                text_hits=sum(state.text_hits for state in told),
                text_misses=sum(state.text_misses for state in told),
                stage_seconds=stages,
                **self._ended,
            )

    def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing more on, finish what was taken on, end the replicas; and Ray, where it was ours."""
        with self._changed:
            self._is_draining = True
            self._changed.wait_for(lambda: not self._open, timeout_s)
            left = list(self._open.values())
            is_last, self._has_left = not self._has_left, True
        for following in left:
            self._end(following, Failed(_draining()), "failed")
            following.stop()
        if is_last:
            disconnect(self._is_ours)

    def _deploy(self) -> None:
        from ray import serve

        try:
            serve.start(proxy_location="Disabled")  # requests come in through our own app
            handle = serve.run(application(self.settings), name=NAME, route_prefix=None)
            self._handle = handle.options(method_name="draw", stream=True)
        except Exception as error:
            self._start_error = LensError(f"The engines did not start on Ray: {_told_by_replica(error)}")
        finally:
            self._started.set()

    def _on_cancel(self, ticket: EngineTicket) -> None:
        with self._changed:
            following = self._open.get(ticket)
        if following is not None:
            self._end(following, ticket.cancelled(), "cancelled")
            following.stop()

    # ---- the thread of one picture

    def _follow(self, following: Following) -> None:
        try:
            self.wait_until_ready()
            files = files_of(following.ticket.request)
            while not following.ticket.is_over:
                self._ask(following, files)
        except Exception as error:
            if not following.ticket.is_over:
                self._end(following, Failed(error), "failed")
        finally:
            following.answer()

    def _ask(self, following: Following, files: dict[str, bytes]) -> None:
        """Ask one replica; tell on what it tells. Returns with the last event told, or to ask another."""
        from ray import exceptions

        deaths = (
            exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        )  # fmt: skip
        try:
            for told in self._stream(following, files):
                with self._changed:
                    self._states[told.replica] = told.state
                following.replica = told.replica
                event = told.event
                if isinstance(event, Failed) and isinstance(event.error, QueueFullError):
                    self._on_full(following, event.error)
                    return
                if isinstance(event, Failed) and isinstance(event.error, DrainingError):
                    break  # it leaves; another one does not
                following.answer()
                self._tell(following, event)
            why = "it ended"
        except deaths as error:
            why = _first_line(error)
        if following.ticket.is_over:
            return
        with self._changed:
            self.num_moved += 1
            if (state := self._states.get(following.replica)) is not None:  # nothing waits there any more
                self._states[following.replica] = replace(state, queue_seconds=0.0)
        following.num_deaths += 1
        following.is_drawing = False
        if following.num_deaths >= MAX_DEATHS:
            message = f"{MAX_DEATHS} replicas died while they drew this picture; it is not asked for again."
            self._end(following, Failed(LensError(message)), "failed")
            return
        log.warning("a picture is asked of another replica: %s", why)
        time.sleep(REST_S * 2 ** (following.num_deaths - 1))

    def _stream(self, following: Following, files: dict[str, bytes]) -> Iterator[Told]:
        ticket = following.ticket
        request = ticket.request
        if request.deadline_s is not None:
            request = replace(request, deadline_s=max(1e-3, ticket.late_at - time.monotonic()))
        key = adapters_key(request) if request.loras else ""
        handle = self._handle.options(multiplexed_model_id=key) if key else self._handle
        following.response = handle.remote(request, files)
        if ticket.is_over:  # cancelled before there was anything to stop
            following.stop()
        return iter(following.response)

    def _tell(self, following: Following, event: Any) -> None:
        following.is_drawing = isinstance(event, Drawing | Preview)
        ticket = following.ticket
        if isinstance(event, Done):
            settings = _with_names(event.settings, ticket.request)
            self._end(following, Done(event.image, settings), "finished")
        elif isinstance(event, Failed):
            self._end(following, event, "failed")
        elif isinstance(event, Preview):
            if event.number >= following.num_shown:  # those before were shown by a replica that died
                following.num_shown = event.number + 1
                ticket.tell(event)
        else:
            ticket.tell(event)

    def _on_full(self, following: Following, error: QueueFullError) -> None:
        if following.answer(error):
            self._end(following, Failed(error), "rejected")
        else:  # it was taken on, so it waits
            time.sleep(min(error.retry_after_s, 5.0))

    def _end(self, following: Following, event: Done | Failed, how: str) -> None:
        with self._changed:
            if following.ticket.tell(event):
                self._ended[how] += 1
            self._open.pop(following.ticket, None)
            self._changed.notify_all()


def connect(settings: RaySettings, gpus: float = 0.0) -> bool:
    """Connect to the cluster, or start Ray here; return whether it is ours to end.

    Raises: MissingExtraError without Ray Serve; LensError for a cluster that does not answer; SettingError
    where Ray is started here and there are too few GPUs, for which it would wait for ever.
    """
    try:
        import ray
        from ray import serve  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ray[serve]", "cluster") from error
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"address": settings.address}
    if settings.address is None:
        # What Ray takes for CPUs is bookkeeping: more engines than cores are slow, but they come.
        num_cpus = max(os.cpu_count() or 1, math.ceil(settings.most * settings.cpus))
        options = {"address": "local", "include_dashboard": False, "num_cpus": num_cpus}
    where = settings.address or "on this machine"
    _check_answers(settings.address)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:
        raise LensError(f"Ray ({where}) does not answer: {_first_line(error)}") from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    found = ray.cluster_resources().get("GPU", 0.0)
    if settings.address is None and found < gpus * settings.most:
        ray.shutdown()
        fix = "Have fewer replicas, or set ray.gpus to a share of one."
        raise SettingError("ray.replicas", settings.most, f"{gpus:g} GPUs each, of {found:g}", fix)
    return settings.address is None


def _check_answers(address: str | None) -> None:
    """Raise LensError where nothing listens at host:port: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        fix = "Start it with `ray start --head`, or leave --ray-address out to start Ray here."
        raise SettingError("ray.address", address, f"a Ray cluster that answers ({error})", fix) from error


def disconnect(is_ours: bool) -> None:
    """End the replicas; Ray too, where it was started here."""
    import ray
    from ray import serve

    try:
        serve.shutdown() if is_ours else serve.delete(NAME)
    except Exception as error:
        log.warning("the replicas did not end well: %s", _first_line(error))
    if is_ours:
        ray.shutdown()


def _with_names(settings: PictureSettings, request: DrawRequest) -> PictureSettings:
    """Return a picture's settings with the files' names here instead of those in the replica."""
    paths = {"init_image": request.image, "mask": request.mask}
    changes = {}
    for name, path in paths.items():
        used = getattr(settings, name)
        if used is not None and path is not None:
            changes[name] = used.model_copy(update={"path": path.name})
    return settings.model_copy(update=changes)


def _told_by_replica(error: Exception) -> str:
    """Return why a replica did not start: the end of its trace, or what Ray Serve says."""
    from ray import serve

    with suppress(Exception):
        told = serve.status().applications[NAME].deployments[NAME].message
        lines = [line.strip() for line in told.splitlines() if "Error" in line]
        return lines[-1]
    return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _draining() -> DrainingError:
    return DrainingError("The server is ending and takes nothing more on. Ask again in a moment.")
