"""The engine as a deployment of Ray Serve: what runs in each replica.

A replica is one engine in a process of its own, on any machine of the cluster. It tells what happens to a
picture as a stream, for as long as somebody reads; pictures to start from arrive as bytes. Knows nothing of
HTTP, of jobs or of the other replicas. Ray is imported inside functions: it is an extra.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lens.serve.engine.request import EngineEvent, EngineState, Failed, Finished, GenerationRequest
from lens.serve.settings.ray import num_replicas_for_load
from lens.serve.settings.server import ServerSettings

APPLICATION_NAME = "lens"
"""Of the application in Ray Serve, and of its one deployment."""
MAX_START_ATTEMPTS = 3
"""How often a replica may fail to start before the deployment does."""
READER_CHECK_INTERVAL_S = 0.5
"""How often a thread that waits for an event looks whether its reader went away."""


@dataclass(frozen=True)
class ReplicaEvent:
    """What happened to a picture, where, and how its engine is."""

    replica: str
    """host/process id"""
    event: EngineEvent
    state: EngineState


class EngineReplica:
    """One engine."""

    def __init__(self, settings: ServerSettings):
        from lens.serve.engine.engine import Engine
        from lens.serve.engine.model_registry import ModelRegistry

        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._threads = ThreadPoolExecutor(max_ongoing_requests(settings), "lens-replica")
        self.engine = Engine(ModelRegistry.from_names(settings.models, settings.loras), settings.engine)
        self.engine.wait_until_ready()

    async def generate(
        self, request: GenerationRequest, files: Mapping[str, bytes]
    ) -> AsyncIterator[ReplicaEvent]:
        """Draw one picture and tell how it goes; whoever stops reading cancels it."""
        with TemporaryDirectory(prefix="lens-") as folder:
            try:
                if request.loras:
                    await self.load_adapters(lora_set_key(request))
                handle = await self._in_thread(
                    self.engine.submit, _write_input_files(request, files, Path(folder))
                )
            except Exception as error:
                yield self._replica_event(Failed(error))
                return
            try:
                while True:
                    try:
                        event = await self._in_thread(handle.next_event, READER_CHECK_INTERVAL_S)
                    except TimeoutError:
                        continue
                    yield self._replica_event(event)
                    if isinstance(event, Finished | Failed):
                        return
            finally:
                handle.cancel()

    async def load_adapters(self, key: str) -> str:
        """Have these adapters from now on: the engine loads them with the first request that names them."""
        return key

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve what decides how many replicas there are."""
        state = self.engine.state()
        return {"queue_seconds": state.queue_s, "busy": float(state.num_running > 0)}

    async def check_health(self) -> None:
        """Raise where the engine cannot draw any more; Ray Serve then starts another replica."""
        if not self.engine.is_ready:
            raise RuntimeError("The engine has ended.")

    def __del__(self) -> None:
        """Called by Ray Serve once a replica that leaves has finished what it had."""
        if hasattr(self, "engine"):
            self.engine.drain(timeout_s=0)

    async def _in_thread(self, call: Any, *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *values)

    def _replica_event(self, event: EngineEvent) -> ReplicaEvent:
        return ReplicaEvent(self.name, event, self.engine.state())


def lora_set_key(request: GenerationRequest) -> str:
    """Return a name of the adapters that a request needs loaded, whatever their weights."""
    return "+".join([request.model, *sorted(lora.name for lora in request.loras)])


def gpus_per_replica(settings: ServerSettings) -> float:
    """Return the GPUs that Ray sets aside for a replica; it hides all others from it."""
    given = settings.ray.gpus if settings.ray is not None else None
    return float(settings.engine.device.startswith("cuda")) if given is None else given


def max_ongoing_requests(settings: ServerSettings) -> int:
    """Return how many pictures one replica takes on; past its engine's own bounds, which say 429."""
    return settings.engine.max_running + settings.engine.max_waiting + 16


class QueueScalingPolicy:
    """The policy by which Ray Serve starts and ends replicas."""

    def __init__(self, queue_s: float):
        self._queue_s = queue_s

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        metrics = context.aggregated_metrics or {}
        if not metrics.get("busy"):
            return context.target_num_replicas, {}  # nobody has told anything yet
        seconds, busy = metrics.get("queue_seconds", {}).values(), metrics["busy"].values()
        return num_replicas_for_load(seconds, busy, self._queue_s), {}


def build_application(settings: ServerSettings) -> Any:
    """Return what Ray Serve runs."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    ray = settings.ray
    assert ray is not None

    class LensEngine(EngineReplica):
        @serve.multiplexed(max_num_models_per_replica=ray.loras_a_replica)
        async def load_adapters(self, key: str) -> str:
            return key

    number: dict[str, Any] = {"num_replicas": ray.replicas}
    if ray.replica_limit > ray.replicas:
        policy = AutoscalingPolicy(policy_function=QueueScalingPolicy, policy_kwargs={"queue_s": ray.queue_s})
        scaling = AutoscalingConfig(
            min_replicas=ray.replicas,
            max_replicas=ray.replica_limit,
            metrics_interval_s=2,
            look_back_period_s=10,
            upscale_delay_s=5,
            downscale_delay_s=120,
            policy=policy,
        )
        number = {"autoscaling_config": scaling}
    deployed = serve.deployment(
        LensEngine,
        name=APPLICATION_NAME,
        max_ongoing_requests=max_ongoing_requests(settings),
        ray_actor_options={"num_cpus": ray.cpus, "num_gpus": gpus_per_replica(settings)},
        max_constructor_retry_count=MAX_START_ATTEMPTS,
        health_check_period_s=ray.health_s,
        graceful_shutdown_timeout_s=settings.drain_s,
        **number,
    )
    return deployed.bind(settings)


def read_input_files(request: GenerationRequest) -> dict[str, bytes]:
    """Return the pictures that a request starts from, for a machine that does not have them."""
    paths = {"image": request.image, "mask": request.mask}
    return {name: path.read_bytes() for name, path in paths.items() if path is not None}


def _write_input_files(
    request: GenerationRequest, files: Mapping[str, bytes], folder: Path
) -> GenerationRequest:
    paths = {}
    for name, content in files.items():
        paths[name] = folder / f"{name}{getattr(request, name).suffix}"
        paths[name].write_bytes(content)
    return replace(request, **paths)
