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
ASSUMED, ASKED = "assumed; --mfu says another", "as asked"
"""Where a share of the peak is from."""


class Card(NamedTuple):
    """A GPU: its bf16 peak without sparsity, its memory, and what an hour of it is taken to cost."""

    peak_flops_a_s: float
    memory_gib: float
    dollars_an_hour: float
    """Assumed: a round number of the size that clouds ask; --price says another."""


CARDS = {
    "a100": Card(312e12, 80, 1.5), "h100": Card(989e12, 80, 2.5), "h200": Card(989e12, 141, 3.5),
    "b200": Card(2250e12, 180, 5.0), "rtx4090": Card(165e12, 24, 0.5),
}  # fmt: skip


class Run(NamedTuple):
    """What of a recipe costs: the denoiser, and how many pictures of which sizes an update sees."""

    config: Mapping[str, Any]
    """The denoiser's."""
    steps: int
    micro_batches: int
    pack_tokens: int
    bases: tuple[int, ...]
    """Base resolutions; packs are taken to be shared out evenly among them."""
    text_tokens: int
    """Of every picture."""
    num_weights: int
    num_trained: int
    checkpointing: str
    """none, selective or full: what blocks keep for the way back."""
    frozen_bytes: int
    """Of a weight that is not trained."""

    def pictures_a_pack(self, base: int) -> int:
        """Return how many square pictures of a base a pack holds."""
        return max(1, self.pack_tokens // image_tokens(base))

    @property
    def pictures(self) -> float:
        """Return the pictures of the whole run."""
        mean = sum(map(self.pictures_a_pack, self.bases)) / len(self.bases)
        return self.steps * self.micro_batches * mean

    @property
    def flops(self) -> float:
        """Return the useful operations of the whole run."""
        packs = [
            self.pictures_a_pack(base) * training_flops(self.config, image_tokens(base), self.text_tokens)
            for base in self.bases
        ]
        return self.steps * self.micro_batches * sum(packs) / len(packs)


class Plan(NamedTuple):
    """The bill of a run, or of several that follow each other."""

    runs: tuple[Run, ...]
    card: Card
    num_gpus: int
    mfu: float
    dollars_an_hour: float
    memory: dict[str, float]
    """GiB of a card, by part, in the last run."""

    @property
    def flops(self) -> float:
        return sum(run.flops for run in self.runs)

    @property
    def gpu_hours(self) -> float:
        return self.flops / (self.card.peak_flops_a_s * self.mfu) / 3600


def image_tokens(base: int) -> int:
    """Return the tokens of a square picture of a base; its other ratios have nearly as many."""
    height, width = buckets_for(base)["1:1"]
    return height * width // 256


def plan_of(
    runs: tuple[Run, ...], gpu: str, num_gpus: int, mfu: float | None = None, price: float | None = None
) -> Plan:
    """Reckon runs that follow each other, on so many cards of a kind.

    Raises: SettingError for a card that is not known, or a number that is none.
    """
    card = card_named(gpu, num_gpus, mfu)
    cost = card.dollars_an_hour if price is None else price
    return Plan(runs, card, num_gpus, mfu or ASSUMED_MFU, cost, memory_gib(runs[-1], num_gpus))


def card_named(gpu: str, num_gpus: int, mfu: float | None) -> Card:
    """Return the card of a name, of which there are so many and which reach such a share of their peak.

    Raises: SettingError for a card that is not known, or a number that is none.
    """
    if gpu not in CARDS:
        raise SettingError("--gpu", gpu, f"one of {', '.join(CARDS)}")
    if num_gpus < 1:
        raise SettingError("--gpus", num_gpus, "1 or more")
    if mfu is not None and not 0 < mfu <= 1:
        raise SettingError("--mfu", mfu, "a share of the peak above 0, at most 1")
    return CARDS[gpu]


def memory_gib(run: Run, num_gpus: int) -> dict[str, float]:
    """Return what one card of so many holds, by part, with everything sharded over all of them."""
    trained, frozen = run.num_trained, run.num_weights - run.num_trained
    layers = run.config["num_layers"]
    tokens = max(
        run.pictures_a_pack(base) * (image_tokens(base) + run.text_tokens) for base in run.bases
    )
    block = run.num_weights / layers
    parts = {
        "weights": 4 * trained + run.frozen_bytes * frozen,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "average": 4 * trained,
        # Autocast keeps one of each weight from its first use in a pass to the last.
        "copies in bf16": 2 * trained if num_gpus == 1 else 0,
    }
    held = {name: size / num_gpus / GIB for name, size in parts.items()}
    # Two blocks at a time are whole: the one that computes and the one that is fetched.
    held["blocks made whole"] = (4 * block * 2 if num_gpus > 1 else 0) / GIB
    held["activations"] = tokens * activation_bytes_a_token(run.config, run.checkpointing, frozen > 0) / GIB
    return held


def check_memory(run: Run, num_gpus: int, free_gib: float) -> None:
    """Refuse a run that a card has too little free memory for, rather than let it break in the middle.

    Raises: MemoryNeedError that lists what would take how much.
    """
    parts = memory_gib(run, num_gpus)
    if (needed := sum(parts.values())) > free_gib:
        listed = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
        fixes = [] if run.checkpointing == "full" else ["gradient_checkpointing=full"]
        fixes.append("a smaller pack_tokens")
        fixes += ["lora", "more cards"] if run.num_trained == run.num_weights else []
        raise MemoryNeedError(
            f"Training needs about {needed:.1f} GiB of a card ({listed}), and {free_gib:.1f} GiB are free. "
            f"What helps: {', '.join(fixes)}."
        )


def activation_bytes_a_token(
    config: Mapping[str, Any], checkpointing: str, is_lora: bool, num_graphs: int = 1
) -> float:
    """Return what all blocks keep of a token, of so many passes at once, and the one on its way back."""
    dim = config["inner_dim"]
    kept = num_graphs * config["num_layers"] * kept_bytes_a_token(dim, checkpointing, is_lora)
    # The block that is on its way back is whole, unless all of them are.
    return kept + (0 if checkpointing == "none" else kept_bytes_a_token(dim, "none"))


def kept_bytes_a_token(dim: int, checkpointing: str, is_lora: bool = False) -> float:
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


def facts(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values, for JSON."""
    hours = plan.gpu_hours
    return {
        "parameters": plan.runs[-1].num_weights, "trained_parameters": plan.runs[-1].num_trained,
        "pictures": sum(run.pictures for run in plan.runs), "flops": plan.flops, "mfu": plan.mfu,
        "gpus": plan.num_gpus, "gpu_hours": hours, "days": hours / plan.num_gpus / 24,
        "dollars": hours * plan.dollars_an_hour, "memory_gib": plan.memory,
        "memory_gib_in_all": sum(plan.memory.values()), "memory_gib_of_the_card": plan.card.memory_gib,
        "gpu_hours_by_run": [
            run.flops / (plan.card.peak_flops_a_s * plan.mfu) / 3600 for run in plan.runs
        ],
    }  # fmt: skip


def told(plan: Plan, gpu: str, names: list[str], source: str) -> Iterator[str]:
    """Yield the lines of a plan for people; `source` says where its share of the peak is from."""
    found = facts(plan)
    last = plan.runs[-1]
    yield f"{last.num_weights:,} parameters, {last.num_trained:,} of them trained"
    yield f"{last.text_tokens} text tokens a picture; packs of {last.pack_tokens:,} image tokens"
    yield ""
    for name, run, hours in zip(names, plan.runs, found["gpu_hours_by_run"], strict=True):
        yield f"{name}: {run.steps:,} updates, {run.pictures:,.0f} pictures, {run.flops:.3g} operations"
        yield f"    {amount(hours)} {gpu}-hours"
    yield from cost_lines(found, plan.dollars_an_hour, gpu, source)
    yield ""
    yield from memory_lines(plan.memory, plan.card)
    total = found["memory_gib_in_all"]
    if total > plan.card.memory_gib:
        fix = "more cards" if last.checkpointing == "full" else "gradient_checkpointing=full, or more cards"
        yield f"does not fit: take {fix}, a smaller pack_tokens, or lora"


def cost_lines(
    found: Mapping[str, Any], dollars_an_hour: float, gpu: str, source: str
) -> Iterator[str]:
    """Yield the lines about hours and money."""
    hours = f"{amount(found['gpu_hours'])} {gpu}-hours"
    yield f"in all {hours} at {100 * found['mfu']:.0f}% of the peak ({source})"
    money = f"${found['dollars']:,.2f} at ${dollars_an_hour:g} an hour"
    yield f"{amount(found['days'])} days on {found['gpus']:,}, {money}"


def memory_lines(memory: Mapping[str, float], card: Card) -> Iterator[str]:
    """Yield the lines about what a card holds."""
    yield f"memory of a card, GiB of {card.memory_gib:g} (estimated):"
    for part, size in memory.items():
        yield f"    {part:<18}{size:8.2f}"
    yield f"    {'in all':<18}{sum(memory.values()):8.2f}"


def amount(number: float) -> str:
    """Return a number for people, with two digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 10 else f"{number:.1f}"
