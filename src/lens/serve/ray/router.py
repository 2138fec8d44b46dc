"""The client of engines on Ray Serve: sends each request to a replica and retries it if the replica dies.

An image depends on its request alone, so a retry on another replica has the same result. Each request has a
thread that reads its events. Knows nothing of HTTP or of jobs.
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

from lens.errors import DrainingError, LensError, MissingExtraError, QueueFullError, SettingError, first_line
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.engine.model_registry import ModelRegistry
from lens.serve.engine.request import (
    EngineState,
    Failed,
    Finished,
    GenerationRequest,
    ModelInfo,
    Preview,
    StepProgress,
)
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.engine.validation import validate_request
from lens.serve.ray.replica import (
    APPLICATION_NAME,
    ReplicaEvent,
    build_application,
    gpus_per_replica,
    lora_set_key,
    max_ongoing_requests,
    read_input_files,
)
from lens.serve.retry_after import RetryPlaces
from lens.serve.settings.ray import RaySettings
from lens.serve.settings.server import ServerSettings

logger = logging.getLogger(__name__)

MAX_REPLICA_DEATHS = 8
"""Maximum number of replicas that die with one request; after that, the request may be the cause."""
RETRY_PAUSE_S = 0.2
"""Pause before the first retry of a request; doubled each time."""
START_RETRY_S = 5.0
"""When to send a request again while no replica has told anything of its work."""
CONNECT_TIMEOUT_S = 5.0
ADMISSION_TIMEOUT_S = 2.0
"""How long `submit` waits for a replica to reject a request; later rejections are retried."""


class InFlightRequest:
    """A submitted request: its handle, its replica, its retries, and whether it is admitted."""

    def __init__(self, handle: RequestHandle):
        self.handle = handle
        self.response: Any = None
        self.is_running = False
        self.ends_at: float | None = None
        """When its image is finished, by the clock of `time.monotonic`; None before its first step."""
        self.replica = ""
        """Replica that sent the last event."""
        self.num_previews = self.num_deaths = 0
        self.rejection: QueueFullError | None = None
        self._admission = threading.Event()
        self._lock = threading.Lock()

    def settle_admission(self, rejection: QueueFullError | None = None) -> bool:
        """Set whether the request is admitted; return whether this was still open."""
        with self._lock:
            if self._admission.is_set():
                return False
            self.rejection = rejection
            self._admission.set()
            return True

    def wait_for_admission(self, timeout_s: float) -> None:
        """Wait until the request is admitted. Raises: QueueFullError if it is rejected."""
        self._admission.wait(timeout_s)
        self.settle_admission()
        if self.rejection is not None:
            raise self.rejection

    def cancel(self) -> None:
        """Stop reading the events, which cancels the request on the replica."""
        if self.response is not None:
            with suppress(Exception):  # the replica may be gone
                self.response.cancel()


class RayEngineClient:
    """Starts and stops the replicas of a deployment; implements `EngineClient`."""

    def __init__(self, settings: ServerSettings):
        self.settings, self.ray_settings = settings, settings.ray or RaySettings.of({})
        self.registry = ModelRegistry.from_names(settings.models, settings.served_loras)
        self._owns_ray = connect_ray(self.ray_settings, gpus_per_replica(settings))
        self._changed = threading.Condition()
        self._in_flight: dict[RequestHandle, InFlightRequest] = {}
        self._retry_places = RetryPlaces()
        self._num_ended = {"rejected": 0, "finished": 0, "failed": 0, "cancelled": 0}
        self._states: dict[str, EngineState] = {}
        """Last state of each replica, including those that are gone."""
        self.num_retries = 0
        """Number of retries on another replica."""
        self._is_draining = self._is_disconnected = False
        self._deployment: Any = None
        self._start_error: Exception | None = None
        self._started = threading.Event()
        threading.Thread(target=self._deploy, name="lens-deploy", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether the deployment has started and accepts requests."""
        return self._deployment is not None and not self._is_draining

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the deployment has started. Raises: the error of the start; TimeoutError."""
        if not self._started.wait(timeout_s):
            raise TimeoutError(f"The replicas did not start within {timeout_s} s.")
        if self._start_error is not None:
            raise self._start_error

    def models(self) -> list[ModelInfo]:
        return [offer.info for offer in self.registry.models.values()]

    def loras(self) -> list[str]:
        return list(self.registry.loras)

    def submit(self, request: GenerationRequest) -> RequestHandle:
        """Accept a request. Raises: as `EngineClient.submit`."""
        validate_request(request, self.registry.models, self.registry.loras, self.settings.engine.max_steps)
        handle = RequestHandle(request, self._on_cancel)
        in_flight = InFlightRequest(handle)
        with self._changed:
            if self._is_draining:
                raise DrainingError()
            if len(self._in_flight) >= max_ongoing_requests(self.settings) * self.ray_settings.replica_limit:
                self._num_ended["rejected"] += 1
                retry_after_s = self._retry_after_s()
                raise QueueFullError("The queue is full. Try again later.", retry_after_s)
            self._in_flight[handle] = in_flight
        threading.Thread(target=self._run_request, args=(in_flight,), name="lens-follow", daemon=True).start()
        in_flight.wait_for_admission(ADMISSION_TIMEOUT_S if self.is_ready else 0.0)
        return handle

    def _retry_after_s(self) -> float:
        """Return when one of the requests in flight is finished whose place nobody was told of."""
        now = time.monotonic()
        ends = [one.ends_at for one in self._in_flight.values() if one.ends_at is not None]
        queue_s = [state.queue_s for state in self._states.values() if state.queue_s]
        if not ends and not queue_s:
            return START_RETRY_S
        all_done_s = max(queue_s, default=0.0) + max(0.0, max(ends, default=now) - now)
        pace_s = all_done_s / len(self._in_flight)
        free_in_s = max(0.0, min(ends) - now) if ends else pace_s
        return self._retry_places.next_s(free_in_s, pace_s, all_done_s)

    def state(self) -> EngineState:
        with self._changed:
            running = sum(following.is_running for following in self._in_flight.values())
            waiting = len(self._in_flight) - running
            states = list(self._states.values())
            stages: dict[str, float] = {}
            for state in states:
                for name, seconds in state.stage_seconds.items():
                    stages[name] = stages.get(name, 0.0) + seconds
            return EngineState(
                num_waiting=waiting,
                num_running=running,
                queue_s=sum(state.queue_s for state in states) if waiting else 0.0,
                num_tokens=sum(state.num_tokens for state in states),
                prompt_cache_hits=sum(state.prompt_cache_hits for state in states),
                prompt_cache_misses=sum(state.prompt_cache_misses for state in states),
                prompt_cache_disk_hits=sum(state.prompt_cache_disk_hits for state in states),
                stage_seconds=stages,
                **self._num_ended,
            )

    def drain(self, timeout_s: float | None = None) -> None:
        """Finish the accepted requests and stop the replicas, and Ray if this client started it."""
        with self._changed:
            self._is_draining = True
            self._changed.wait_for(lambda: not self._in_flight, timeout_s)
            left = list(self._in_flight.values())
            is_last, self._is_disconnected = not self._is_disconnected, True
        for following in left:
            self._finish(following, Failed(DrainingError()), "failed")
            following.cancel()
        if is_last:
            disconnect_ray(self._owns_ray)

    def _deploy(self) -> None:
        from ray import serve

        try:
            serve.start(proxy_location="Disabled")  # requests come in through our own app
            deployment = serve.run(build_application(self.settings), name=APPLICATION_NAME, route_prefix=None)
            self._deployment = deployment.options(method_name="generate", stream=True)
        except Exception as error:
            self._start_error = LensError(
                f"The engines did not start on Ray: {_startup_failure_reason(error)}"
            )
        finally:
            self._started.set()

    def _on_cancel(self, handle: RequestHandle) -> None:
        with self._changed:
            in_flight = self._in_flight.get(handle)
        if in_flight is not None:
            self._finish(in_flight, handle.cancellation_event(), "cancelled")
            in_flight.cancel()

    # ---- the thread of one request

    def _run_request(self, in_flight: InFlightRequest) -> None:
        try:
            self.wait_until_ready()
            files = read_input_files(in_flight.handle.request)
            while not in_flight.handle.is_finished:
                self._try_replica(in_flight, files)
        except Exception as error:
            if not in_flight.handle.is_finished:
                self._finish(in_flight, Failed(error), "failed")
        finally:
            in_flight.settle_admission()

    def _try_replica(self, in_flight: InFlightRequest, files: dict[str, bytes]) -> None:
        """Send the request to one replica and publish its events; return after the last, or to retry."""
        from ray import exceptions

        deaths = (
            exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        )  # fmt: skip
        try:
            for replica_event in self._stream_events(in_flight, files):
                with self._changed:
                    self._states[replica_event.replica] = replica_event.state
                in_flight.replica = replica_event.replica
                event = replica_event.event
                if isinstance(event, Failed) and isinstance(event.error, QueueFullError):
                    self._on_full(in_flight, event.error)
                    return
                if isinstance(event, Failed) and isinstance(event.error, DrainingError):
                    break  # it is shutting down; another replica may not be
                in_flight.settle_admission()
                self._handle_event(in_flight, event)
            why = "the replica shut down"
        except deaths as error:
            why = first_line(error)
        if in_flight.handle.is_finished:
            return
        with self._changed:
            self.num_retries += 1
            if (state := self._states.get(in_flight.replica)) is not None:  # its queue is gone
                self._states[in_flight.replica] = replace(state, queue_s=0.0)
        in_flight.num_deaths += 1
        in_flight.is_running, in_flight.ends_at = False, None
        if in_flight.num_deaths >= MAX_REPLICA_DEATHS:
            message = (
                f"{MAX_REPLICA_DEATHS} replicas died while they generated this image; it is not retried."
            )
            self._finish(in_flight, Failed(LensError(message)), "failed")
            return
        logger.warning("an image is retried on another replica: %s", why)
        time.sleep(RETRY_PAUSE_S * 2 ** (in_flight.num_deaths - 1))

    def _stream_events(self, in_flight: InFlightRequest, files: dict[str, bytes]) -> Iterator[ReplicaEvent]:
        handle = in_flight.handle
        request = handle.request
        if request.deadline_s is not None:
            request = replace(request, deadline_s=max(1e-3, handle.deadline - time.monotonic()))
        key = lora_set_key(request) if request.loras else ""
        deployment = self._deployment.options(multiplexed_model_id=key) if key else self._deployment
        in_flight.response = deployment.remote(request, files)
        if handle.is_finished:  # cancelled before there was a response to cancel
            in_flight.cancel()
        return iter(in_flight.response)

    def _handle_event(self, in_flight: InFlightRequest, event: Any) -> None:
        in_flight.is_running = isinstance(event, StepProgress | Preview)
        if isinstance(event, StepProgress):
            in_flight.ends_at = time.monotonic() + event.remaining_s
        handle = in_flight.handle
        if isinstance(event, Finished):
            metadata = _restore_file_names(event.metadata, handle.request)
            self._finish(in_flight, Finished(event.image, metadata), "finished")
        elif isinstance(event, Failed):
            self._finish(in_flight, event, "failed")
        elif isinstance(event, Preview):
            if event.number >= in_flight.num_previews:  # earlier ones came from a replica that died
                in_flight.num_previews = event.number + 1
                handle.publish(event)
        else:
            handle.publish(event)

    def _on_full(self, in_flight: InFlightRequest, error: QueueFullError) -> None:
        if in_flight.settle_admission(error):
            self._finish(in_flight, Failed(error), "rejected")
        else:  # it was admitted, so it waits
            time.sleep(min(error.retry_after_s, 5.0))

    def _finish(self, in_flight: InFlightRequest, event: Finished | Failed, outcome: str) -> None:
        with self._changed:
            if in_flight.handle.publish(event):
                self._num_ended[outcome] += 1
            self._in_flight.pop(in_flight.handle, None)
            self._changed.notify_all()


def connect_ray(settings: RaySettings, replica_gpus: float = 0.0) -> bool:
    """Connect to the cluster, or start Ray here; return whether Ray was started here.

    Raises: MissingExtraError without Ray Serve; LensError for a cluster that does not answer; SettingError
    if Ray is started here with too few GPUs, as it would wait for them forever.
    """
    try:
        import ray
        from ray import serve  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Serving by Ray", "ray[serve]", "cluster") from error
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"address": settings.address}
    if settings.address is None:
        # Ray's CPUs are bookkeeping: more engines than cores are slow, but they must start.
        num_cpus = max(os.cpu_count() or 1, math.ceil(settings.replica_limit * settings.cpus))
        options = {"address": "local", "include_dashboard": False, "num_cpus": num_cpus}
    where = settings.address or "on this machine"
    _check_reachable(settings.address)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:
        raise LensError(f"Ray ({where}) does not answer: {first_line(error)}") from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    num_gpus_available = ray.cluster_resources().get("GPU", 0.0)
    if settings.address is None and num_gpus_available < replica_gpus * settings.replica_limit:
        ray.shutdown()
        fix = "Set fewer replicas, or ray.gpus to a fraction."
        raise SettingError(
            "ray.replicas",
            settings.replica_limit,
            f"{replica_gpus:g} GPUs each, and this machine has {num_gpus_available:g}",
            fix,
        )
    return settings.address is None


def _check_reachable(address: str | None) -> None:
    """Raise SettingError if nothing listens at host:port: Ray itself would retry for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        fix = "Start it with `ray start --head`, or leave --ray-address out to start Ray here."
        raise SettingError("ray.address", address, f"a Ray cluster that answers ({error})", fix) from error


def disconnect_ray(owns_ray: bool) -> None:
    """Stop the replicas, and Ray if it was started here."""
    import ray
    from ray import serve

    try:
        serve.shutdown() if owns_ray else serve.delete(APPLICATION_NAME)
    except Exception as error:
        logger.warning("the replicas did not shut down cleanly: %s", first_line(error))
    if owns_ray:
        ray.shutdown()


def _restore_file_names(metadata: ImageMetadata, request: GenerationRequest) -> ImageMetadata:
    """Return an image's metadata with the file names of this machine instead of the replica's."""
    paths = {"init_image": request.image, "mask": request.mask}
    changes = {}
    for name, path in paths.items():
        file_record = getattr(metadata, name)
        if file_record is not None and path is not None:
            changes[name] = file_record.model_copy(update={"path": path.name})
    return metadata.model_copy(update=changes)


def _startup_failure_reason(error: Exception) -> str:
    """Return why a replica did not start: the end of its traceback, or the error of Ray Serve."""
    from ray import serve

    with suppress(Exception):
        message = serve.status().applications[APPLICATION_NAME].deployments[APPLICATION_NAME].message
        lines = [line.strip() for line in message.splitlines() if "Error" in line]
        return lines[-1]
    return first_line(error)
