"""What a training run would take: weights, memory of a card by part, operations, hours, money.

Knows nothing of torch and runs nothing. Operations follow flops.py; the share of the peak that a run reaches
is asked for, or assumed and called so. Spec: section 8.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lens.core.resolution import buckets_for
from lens.errors import MemoryNeedError, SettingError
from lens.train.cost.flops import training_flops

GIB = 2**30
ASSUMED_MFU = 0.4
"""Share of the peak where nobody measured it: docs/how-to/train.md says what a run reports."""
MFU_ASSUMED, MFU_FROM_OPTION = "assumed; --mfu says another", "as asked"
"""Where a share of the peak is from."""


class GpuSpec(NamedTuple):
    """A GPU: its bf16 peak without sparsity, its memory, and what an hour of it is taken to cost."""

    peak_flops_per_s: float
    memory_gib: float
    dollars_per_hour: float
    """Assumed: a round number of the size that clouds ask; --price says another."""


GPU_SPECS = {
    "a100": GpuSpec(312e12, 80, 1.5), "h100": GpuSpec(989e12, 80, 2.5), "h200": GpuSpec(989e12, 141, 3.5),
    "b200": GpuSpec(2250e12, 180, 5.0), "rtx4090": GpuSpec(165e12, 24, 0.5),
}  # fmt: skip


class RunSpec(NamedTuple):
    """What of a recipe costs: the denoiser, and how many pictures of which sizes an update sees."""

    config: Mapping[str, Any]
    """The denoiser's."""
    steps: int
    micro_batches: int
    pack_tokens: int
    bases: tuple[int, ...]
    """Base resolutions; packs are taken to be shared out evenly among them."""
    num_text_tokens: int
    """Of every picture."""
    num_parameters: int
    num_trainable_parameters: int
    checkpointing: str
    """none, selective or full: what blocks keep for the way back."""
    frozen_weight_bytes: int
    """Of a weight that is not trained."""

    def images_per_pack(self, base: int) -> int:
        """Return how many square pictures of a base a pack holds."""
        return max(1, self.pack_tokens // num_image_tokens(base))

    @property
    def num_images(self) -> float:
        """Return the pictures of the whole run."""
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


class CostEstimate(NamedTuple):
    """The bill of a run, or of several that follow each other."""

    runs: tuple[RunSpec, ...]
    gpu: GpuSpec
    num_gpus: int
    mfu: float
    dollars_per_hour: float
    memory_gib: dict[str, float]
    """GiB of a card, by part, in the last run."""

    @property
    def flops(self) -> float:
        return sum(run.flops for run in self.runs)

    @property
    def gpu_hours(self) -> float:
        return self.flops / (self.gpu.peak_flops_per_s * self.mfu) / 3600


def num_image_tokens(base: int) -> int:
    """Return the tokens of a square picture of a base; its other ratios have nearly as many."""
    height, width = buckets_for(base)["1:1"]
    return height * width // 256


def estimate_cost(
    runs: tuple[RunSpec, ...], gpu: str, num_gpus: int, mfu: float | None = None, price: float | None = None
) -> CostEstimate:
    """Reckon runs that follow each other, on so many cards of a kind.

    Raises: SettingError for a card that is not known, or a number that is none.
    """
    spec = gpu_spec(gpu, num_gpus, mfu)
    cost = spec.dollars_per_hour if price is None else price
    return CostEstimate(
        runs, spec, num_gpus, mfu or ASSUMED_MFU, cost, estimate_memory_gib(runs[-1], num_gpus)
    )


def gpu_spec(gpu: str, num_gpus: int, mfu: float | None) -> GpuSpec:
    """Return the card of a name, of which there are so many and which reach such a share of their peak.

    Raises: SettingError for a card that is not known, or a number that is none.
    """
    if gpu not in GPU_SPECS:
        raise SettingError("--gpu", gpu, f"one of {', '.join(GPU_SPECS)}")
    if num_gpus < 1:
        raise SettingError("--gpus", num_gpus, "1 or more")
    if mfu is not None and not 0 < mfu <= 1:
        raise SettingError("--mfu", mfu, "a share of the peak above 0, at most 1")
    return GPU_SPECS[gpu]


def estimate_memory_gib(run: RunSpec, num_gpus: int) -> dict[str, float]:
    """Return what one card of so many holds, by part, with everything sharded over all of them."""
    trained, frozen = run.num_trainable_parameters, run.num_parameters - run.num_trainable_parameters
    layers = run.config["num_layers"]
    tokens = max(
        run.images_per_pack(base) * (num_image_tokens(base) + run.num_text_tokens) for base in run.bases
    )
    block = run.num_parameters / layers
    parts = {
        "weights": 4 * trained + run.frozen_weight_bytes * frozen,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "average": 4 * trained,
        # Autocast keeps one of each weight from its first use in a pass to the last.
        "copies in bf16": 2 * trained if num_gpus == 1 else 0,
    }
    sizes_gib = {name: size / num_gpus / GIB for name, size in parts.items()}
    # Two blocks at a time are whole: the one that computes and the one that is fetched.
    sizes_gib["blocks made whole"] = (4 * block * 2 if num_gpus > 1 else 0) / GIB
    sizes_gib["activations"] = (
        tokens * activation_bytes_per_token(run.config, run.checkpointing, frozen > 0) / GIB
    )
    return sizes_gib


def check_memory(run: RunSpec, num_gpus: int, free_gib: float) -> None:
    """Refuse a run that a card has too little free memory for, rather than let it break in the middle.

    Raises: MemoryNeedError that lists what would take how much.
    """
    parts = estimate_memory_gib(run, num_gpus)
    if (needed := sum(parts.values())) > free_gib:
        listed = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
        fixes = [] if run.checkpointing == "full" else ["gradient_checkpointing=full"]
        fixes.append("a smaller pack_tokens")
        fixes += ["lora", "more cards"] if run.num_trainable_parameters == run.num_parameters else []
        raise MemoryNeedError(
            f"Training needs about {needed:.1f} GiB of a card ({listed}), and {free_gib:.1f} GiB are free. "
            f"What helps: {', '.join(fixes)}."
        )


def activation_bytes_per_token(
    config: Mapping[str, Any], checkpointing: str, is_lora: bool, num_graphs: int = 1
) -> float:
    """Return what all blocks keep of a token, of so many passes at once, and the one on its way back."""
    dim = config["inner_dim"]
    saved_bytes = num_graphs * config["num_layers"] * saved_bytes_per_token(dim, checkpointing, is_lora)
    # The block that is on its way back is whole, unless all of them are.
    return saved_bytes + (0 if checkpointing == "none" else saved_bytes_per_token(dim, "none"))


def saved_bytes_per_token(dim: int, checkpointing: str, is_lora: bool = False) -> float:
    """Return what one block keeps of a token for its way back, in bfloat16, with what it was given.

    All of it is: inputs of the two norms and their outputs, of the five products, queries, keys and values
    before and after norm and rotation, and the two halves of the feed-forward with their product; norms and
    rotations in float32. Of that, selective checkpointing keeps the outputs of products and of attention;
    with LoRA those of the adapters beside them.
    """
    hidden = int(dim / 3 * 8)
    if checkpointing == "full":
        return 2 * dim
    if checkpointing == "selective":
        products = 3 * dim + dim + 2 * hidden + dim
        return 2 * (dim + dim + products * (2 if is_lora else 1))
    return 2 * (2 * dim + 2 * dim + 3 * dim + 2 * dim + 2 * dim + 2 * dim + 4 * hidden) + 4 * 4 * dim


def estimate_to_dict(estimate: CostEstimate) -> dict[str, Any]:
    """Return a plan as plain values, for JSON."""
    hours = estimate.gpu_hours
    return {
        "parameters": estimate.runs[-1].num_parameters,
        "trained_parameters": estimate.runs[-1].num_trainable_parameters,
        "pictures": sum(run.num_images for run in estimate.runs),
        "flops": estimate.flops,
        "mfu": estimate.mfu,
        "gpus": estimate.num_gpus,
        "gpu_hours": hours,
        "days": hours / estimate.num_gpus / 24,
        "dollars": hours * estimate.dollars_per_hour,
        "memory_gib": estimate.memory_gib,
        "memory_gib_in_all": sum(estimate.memory_gib.values()),
        "memory_gib_of_the_card": estimate.gpu.memory_gib,
        "gpu_hours_by_run": [
            run.flops / (estimate.gpu.peak_flops_per_s * estimate.mfu) / 3600 for run in estimate.runs
        ],
    }


def format_estimate(estimate: CostEstimate, gpu: str, names: list[str], source: str) -> Iterator[str]:
    """Yield the lines of a plan for people; `source` says where its share of the peak is from."""
    values = estimate_to_dict(estimate)
    last = estimate.runs[-1]
    yield f"{last.num_parameters:,} parameters, {last.num_trainable_parameters:,} of them trained"
    yield f"{last.num_text_tokens} text tokens a picture; packs of {last.pack_tokens:,} image tokens"
    yield ""
    for name, run, hours in zip(names, estimate.runs, values["gpu_hours_by_run"], strict=True):
        yield f"{name}: {run.steps:,} updates, {run.num_images:,.0f} pictures, {run.flops:.3g} operations"
        yield f"    {format_number(hours)} {gpu}-hours"
    yield from cost_lines(values, estimate.dollars_per_hour, gpu, source)
    yield ""
    yield from memory_lines(estimate.memory_gib, estimate.gpu)
    total = values["memory_gib_in_all"]
    if total > estimate.gpu.memory_gib:
        fix = "more cards" if last.checkpointing == "full" else "gradient_checkpointing=full, or more cards"
        yield f"does not fit: take {fix}, a smaller pack_tokens, or lora"


def cost_lines(
    values: Mapping[str, Any], dollars_per_hour: float, gpu: str, source: str
) -> Iterator[str]:
    """Yield the lines about hours and money."""
    hours = f"{format_number(values['gpu_hours'])} {gpu}-hours"
    yield f"in all {hours} at {100 * values['mfu']:.0f}% of the peak ({source})"
    money = f"${values['dollars']:,.2f} at ${dollars_per_hour:g} an hour"
    yield f"{format_number(values['days'])} days on {values['gpus']:,}, {money}"


def memory_lines(memory: Mapping[str, float], gpu: GpuSpec) -> Iterator[str]:
    """Yield the lines about what a card holds."""
    yield f"memory of a card, GiB of {gpu.memory_gib:g} (estimated):"
    for part, size in memory.items():
        yield f"    {part:<18}{size:8.2f}"
    yield f"    {'in all':<18}{sum(memory.values()):8.2f}"


def format_number(number: float) -> str:
    """Return a number for people, with two digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 10 else f"{number:.1f}"
