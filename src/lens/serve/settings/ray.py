"""Settings of engines on Ray Serve, and the number of replicas for a load. Imports no Ray."""

import math
from collections.abc import Iterable
from typing import Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError


class RaySettings(Settings):
    """Settings of the engines on Ray Serve."""

    address: str | None = None
    """Address of a running cluster, such as auto or 10.0.0.1:6379; None starts Ray on this machine."""
    replicas: int = Field(1, ge=1)
    """Minimum number of engines."""
    max_replicas: int | None = None
    """Maximum number of engines under load; None disables autoscaling."""
    queue_s: float = Field(10.0, gt=0)
    """Estimated seconds of queued work per engine above which another one starts."""
    cpus: float = Field(1.0, ge=0)
    """CPUs that Ray reserves for an engine."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of an engine; Ray hides all others. None is one if the engine's device is a GPU."""
    loras_a_replica: int = Field(16, ge=1)
    """LoRA sets that Ray remembers per engine, to route requests with them to it."""
    health_s: float = Field(5.0, gt=0)
    """Interval of Ray's health checks."""

    @model_validator(mode="after")
    def _check_max_replicas(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            needs = f"at least replicas, which is {self.replicas}"
            raise SettingError("ray.max_replicas", self.max_replicas, needs)
        return self

    @property
    def replica_limit(self) -> int:
        """Maximum number of engines."""
        return self.max_replicas or self.replicas


def num_replicas_for_load(queue_seconds: Iterable[float], busy: Iterable[float], queue_s: float) -> int:
    """Return the number of engines that a load needs: the busy ones, or enough for the queued work.

    Takes the estimated seconds of queued work and the busy share of time of each engine.
    """
    return max(math.ceil(sum(queue_seconds) / queue_s), math.ceil(sum(busy) - 0.01))
