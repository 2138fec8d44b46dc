"""Settings of engines on Ray Serve, and how many of them the work that waits asks for.

Plain values and arithmetic, free of Ray.
"""

import math
from collections.abc import Iterable
from typing import Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError


class RaySettings(Settings):
    """Where engines run, and how many."""

    address: str | None = None
    """A cluster that is there, such as auto or 10.0.0.1:6379; None starts Ray on this machine."""
    replicas: int = Field(1, ge=1)
    """Engines that are always there."""
    max_replicas: int | None = None
    """Engines at most, where much waits; None keeps their number."""
    queue_s: float = Field(10.0, gt=0)
    """Estimated seconds of work that may wait for each engine before another is started."""
    cpus: float = Field(1.0, ge=0)
    """CPUs that Ray sets aside for an engine."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of an engine; Ray hides all others. None is one where the engine's device is a GPU."""
    loras_a_replica: int = Field(16, ge=1)
    """Sets of LoRAs that an engine is known to hold: requests with them go there first."""
    health_s: float = Field(5.0, gt=0)
    """How often Ray asks an engine whether it is well."""

    @model_validator(mode="after")
    def _check_max_replicas(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            needs = f"a number from replicas, {self.replicas}, on"
            raise SettingError("ray.max_replicas", self.max_replicas, needs)
        return self

    @property
    def replica_limit(self) -> int:
        """Engines at most."""
        return self.max_replicas or self.replicas


def num_replicas_for_load(queue_seconds: Iterable[float], busy: Iterable[float], queue_s: float) -> int:
    """Return how many engines the work asks for: those that draw, and enough for what waits.

    Takes the estimated seconds of work that wait at each engine, and the share of time in which it drew.
    """
    return max(math.ceil(sum(queue_seconds) / queue_s), math.ceil(sum(busy) - 0.01))
