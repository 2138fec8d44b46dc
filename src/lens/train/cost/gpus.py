"""GPUs that costs are estimated for: peak throughput, memory and an assumed price.

Knows nothing of torch, so that plans are quick.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from lens.errors import SettingError

ASSUMED_MFU = 0.4
"""Model FLOPs utilization where none was measured; docs/how-to/train.md says what a run reports."""
MFU_ASSUMED, MFU_FROM_OPTION = "assumed; set it with --mfu", "from --mfu"
"""Where a model FLOPs utilization comes from."""


class GpuSpec(NamedTuple):
    """A GPU: its bf16 peak without sparsity, its memory, and an assumed price per hour."""

    peak_flops_per_s: float
    memory_gib: float
    dollars_per_hour: float
    """A round number near the prices of cloud providers; `--price` replaces it."""


GPU_SPECS = {
    "a100": GpuSpec(312e12, 80, 1.5), "h100": GpuSpec(989e12, 80, 2.5), "h200": GpuSpec(989e12, 141, 3.5),
    "b200": GpuSpec(2250e12, 180, 5.0), "rtx4090": GpuSpec(165e12, 24, 0.5),
}  # fmt: skip


def gpu_spec(gpu: str, num_gpus: int, mfu: float | None) -> GpuSpec:
    """Return a GPU by its name, once the options of an estimate are valid.

    Raises: SettingError for an unknown GPU, or an option out of range.
    """
    if gpu not in GPU_SPECS:
        raise SettingError("--gpu", gpu, f"one of {', '.join(GPU_SPECS)}")
    if num_gpus < 1:
        raise SettingError("--gpus", num_gpus, "1 or more")
    if mfu is not None and not 0 < mfu <= 1:
        raise SettingError("--mfu", mfu, "a share of the peak above 0, at most 1")
    return GPU_SPECS[gpu]


def find_gpu_name(device_name: str) -> str | None:
    """Return the name of a GPU in `GPU_SPECS`, from its driver's (NVIDIA H100 80GB HBM3), or None."""
    compact = device_name.lower().replace(" ", "")
    return next((name for name in GPU_SPECS if name in compact), None)


@dataclass(frozen=True)
class GpuEstimate:
    """The GPUs of an estimate; a subclass says what runs on them."""

    gpu: GpuSpec
    num_gpus: int
    mfu: float
    dollars_per_hour: float
    memory_gib: dict[str, float]
    """GiB per GPU, by part."""

    @property
    def flops(self) -> float:
        """Return the useful operations of everything that runs."""
        raise NotImplementedError

    @property
    def gpu_hours(self) -> float:
        """Return the hours that one GPU would take."""
        return gpu_hours(self.flops, self.gpu, self.mfu)

    def resources(self) -> dict[str, Any]:
        """Return operations, time, money and memory as plain values, for JSON."""
        return {
            "flops": self.flops,
            "mfu": self.mfu,
            "gpus": self.num_gpus,
            "gpu_hours": self.gpu_hours,
            "days": self.gpu_hours / self.num_gpus / 24,
            "dollars": self.gpu_hours * self.dollars_per_hour,
            "memory_gib": self.memory_gib,
            "memory_gib_in_all": sum(self.memory_gib.values()),
            "memory_gib_of_the_card": self.gpu.memory_gib,
        }


def gpu_hours(flops: float, gpu: GpuSpec, mfu: float) -> float:
    """Return the hours of one GPU that so many operations take."""
    return flops / (gpu.peak_flops_per_s * mfu) / 3600
