"""Cost estimates of training runs: weights, memory per GPU, operations, GPU-hours, money.

Without torch. Operations follow flops.py. The model FLOPs utilization (MFU) is an option; without it the
estimate assumes one and says so. Spec: section 8.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lens.core.resolution import SIDE_STEP_PX, buckets_for
from lens.errors import MemoryNeedError
from lens.train.cost.flops import training_flops
from lens.train.cost.gpus import ASSUMED_MFU, GpuEstimate, GpuSpec, gpu_hours, gpu_spec
from lens.train.cost.memory import activation_bytes_per_token, memory_gib_per_gpu, training_state_bytes


class RunSpec(NamedTuple):
    """The cost-relevant part of a recipe: the denoiser, and the number and sizes of images in an update."""

    config: Mapping[str, Any]
    """Configuration of the denoiser."""
    steps: int
    micro_batches: int
    pack_tokens: int
    bases: tuple[int, ...]
    """Base resolutions; all are assumed to have equally many packs."""
    num_text_tokens: int
    """Text tokens per image."""
    num_parameters: int
    num_trainable_parameters: int
    checkpointing: str
    """Activation checkpointing: none, selective or full."""
    frozen_weight_bytes: int
    """Bytes of a weight that is not trained."""

    def images_per_pack(self, base: int) -> int:
        """Return the square images of a base in a pack."""
        return max(1, self.pack_tokens // num_image_tokens(base))

    @property
    def num_images(self) -> float:
        """Return the images of the whole run."""
        mean = sum(map(self.images_per_pack, self.bases)) / len(self.bases)
        return self.steps * self.micro_batches * mean

    @property
    def flops(self) -> float:
        """Return the useful operations of the whole run."""
        packs = [
            self.images_per_pack(base)
            * training_flops(self.config, num_image_tokens(base), self.num_text_tokens)
            for base in self.bases
        ]
        return self.steps * self.micro_batches * sum(packs) / len(packs)


@dataclass(frozen=True)
class CostEstimate(GpuEstimate):
    """The cost of a run, or of several that continue each other; the memory is that of the last."""

    runs: tuple[RunSpec, ...]

    @property
    def flops(self) -> float:
        return sum(run.flops for run in self.runs)


def num_image_tokens(base: int) -> int:
    """Return the tokens of a square image of a base; the other ratios have nearly as many."""
    height, width = buckets_for(base)["1:1"]
    return height * width // SIDE_STEP_PX**2


def estimate_cost(
    runs: tuple[RunSpec, ...], gpu: str, num_gpus: int, mfu: float | None = None, price: float | None = None
) -> CostEstimate:
    """Estimate runs that continue each other, on so many GPUs of a kind.

    Raises: SettingError for an unknown GPU, or an option out of range.
    """
    spec = gpu_spec(gpu, num_gpus, mfu)
    cost = spec.dollars_per_hour if price is None else price
    memory_gib = estimate_memory_gib(runs[-1], num_gpus)
    return CostEstimate(spec, num_gpus, mfu or ASSUMED_MFU, cost, memory_gib, runs)


def estimate_memory_gib(run: RunSpec, num_gpus: int) -> dict[str, float]:
    """Return the memory of one GPU in GiB, by part, with everything sharded over all GPUs."""
    trained, frozen = run.num_trainable_parameters, run.num_parameters - run.num_trainable_parameters
    layers = run.config["num_layers"]
    tokens = max(
        run.images_per_pack(base) * (num_image_tokens(base) + run.num_text_tokens) for base in run.bases
    )
    weights = {"weights": 4.0 * trained + run.frozen_weight_bytes * frozen}
    return memory_gib_per_gpu(
        weights | training_state_bytes(trained, trained, num_gpus), num_gpus, run.num_parameters / layers,
        tokens * activation_bytes_per_token(run.config, run.checkpointing, frozen > 0),
    )  # fmt: skip


def check_memory(run: RunSpec, num_gpus: int, free_gib: float) -> None:
    """Refuse a run that needs more memory than a GPU has free, before it fails during training.

    Raises: MemoryNeedError with the need by part, and remedies.
    """
    parts = estimate_memory_gib(run, num_gpus)
    if (needed := sum(parts.values())) > free_gib:
        listed = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
        fixes = [] if run.checkpointing == "full" else ["gradient_checkpointing=full"]
        fixes.append("a smaller pack_tokens")
        fixes += ["lora", "more GPUs"] if run.num_trainable_parameters == run.num_parameters else []
        raise MemoryNeedError(
            f"Training needs about {needed:.1f} GiB of GPU memory ({listed}), but {free_gib:.1f} GiB are "
            f"free. Remedies: {', '.join(fixes)}."
        )


def estimate_to_dict(estimate: CostEstimate) -> dict[str, Any]:
    """Return an estimate as plain values, for JSON."""
    return {
        "parameters": estimate.runs[-1].num_parameters,
        "trained_parameters": estimate.runs[-1].num_trainable_parameters,
        "pictures": sum(run.num_images for run in estimate.runs),
        **estimate.resources(),
        "gpu_hours_by_run": [gpu_hours(run.flops, estimate.gpu, estimate.mfu) for run in estimate.runs],
    }


def format_estimate(estimate: CostEstimate, gpu: str, names: list[str], source: str) -> Iterator[str]:
    """Yield an estimate as lines of text; `source` says where its MFU comes from."""
    values = estimate_to_dict(estimate)
    last = estimate.runs[-1]
    yield f"{last.num_parameters:,} parameters, of which {last.num_trainable_parameters:,} are trained"
    yield f"{last.num_text_tokens} text tokens per image; packs of {last.pack_tokens:,} image tokens"
    yield ""
    for name, run, hours in zip(names, estimate.runs, values["gpu_hours_by_run"], strict=True):
        yield f"{name}: {run.steps:,} updates, {run.num_images:,.0f} images, {run.flops:.3g} operations"
        yield f"    {format_number(hours)} {gpu}-hours"
    yield from cost_lines(values, estimate.dollars_per_hour, gpu, source)
    yield ""
    yield from memory_lines(estimate.memory_gib, estimate.gpu)
    total = values["memory_gib_in_all"]
    if total > estimate.gpu.memory_gib:
        fix = "more GPUs" if last.checkpointing == "full" else "gradient_checkpointing=full, more GPUs"
        yield f"does not fit; remedies: {fix}, a smaller pack_tokens, or lora"


def cost_lines(
    values: Mapping[str, Any], dollars_per_hour: float, gpu: str, source: str
) -> Iterator[str]:
    """Yield the lines of hours and money."""
    hours = f"{format_number(values['gpu_hours'])} {gpu}-hours"
    yield f"total: {hours} at {100 * values['mfu']:.0f}% of the peak ({source})"
    money = f"${values['dollars']:,.2f} at ${dollars_per_hour:g} per GPU-hour"
    gpus = "1 GPU" if values["gpus"] == 1 else f"{values['gpus']:,} GPUs"
    yield f"{format_number(values['days'])} days on {gpus}, {money}"


def memory_lines(memory: Mapping[str, float], gpu: GpuSpec) -> Iterator[str]:
    """Yield the lines of GPU memory."""
    yield f"memory per GPU in GiB, of {gpu.memory_gib:g} (estimated):"
    for part, size in memory.items():
        yield f"    {part:<18}{size:8.2f}"
    yield f"    {'total':<18}{sum(memory.values()):8.2f}"


def format_number(number: float) -> str:
    """Return a number for display, with at least two significant digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 10 else f"{number:.1f}"
