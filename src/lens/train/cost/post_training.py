"""What post-training would take: passes through the denoiser, judge calls, memory, operations, hours, money.

Knows nothing of torch or of recipes, and runs nothing. Operations are counted as a run itself counts them:
flops.py, a way back as two passes. Spec: sections 9 and 10.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lens.train.cost.flops import forward_flops
from lens.train.cost.training import (
    ASKED,
    ASSUMED,
    ASSUMED_MFU,
    GIB,
    Card,
    activation_bytes_a_token,
    card_named,
    cost_lines,
    image_tokens,
    memory_lines,
)

THERE_AND_BACK = 3
"""Passes that one with its way back counts as."""


class Passes(NamedTuple):
    """Pictures that go through the denoiser for one purpose."""

    pictures: float
    """Of the whole run; a picture counts each time."""
    cost: int = 1
    """In passes forward: 1, or 3 with the way back."""
    has_text: bool = True

    @property
    def forward(self) -> float:
        """Return what all of them cost, in passes forward."""
        return self.pictures * self.cost


class Judging(NamedTuple):
    """What is asked of an endpoint."""

    calls: float
    calls_a_picture: float
    is_assumed: bool
    """Whether the rubrics were not there to count."""


class PostTraining(NamedTuple):
    """What of a recipe of post-training costs."""

    stage: str
    config: Mapping[str, Any]
    """The denoiser's."""
    steps: int
    about: str
    """What an update is made of."""
    pictures: float
    """Of the whole run: those drawn to be judged, or the real ones."""
    passes: Mapping[str, Passes]
    judging: Judging | None
    shared: tuple[str, int]
    """What processes share out evenly: the setting's name and its value."""
    pictures_at_once: Mapping[int, int]
    """By base resolution, all equally often: pictures of a micro-batch."""
    text_tokens: int
    num_weights: int
    """Of one denoiser."""
    role_weights: int
    """Of one role: as many, or those of its adapter."""
    trained: tuple[str, ...]
    """Roles that are trained, the one that is averaged first."""
    following: tuple[str, ...]
    """Roles that follow them."""
    base_bytes: int
    """Of a weight of the base, which is frozen."""
    checkpointing: str
    num_graphs: int
    """Passes that are kept for the way back at one time."""
    encoders: Mapping[str, float]
    """Bytes of the frozen encoders that stay in memory, whole on every card."""
    left_out: str
    """What the bill knows nothing of."""

    @property
    def is_lora(self) -> bool:
        return self.role_weights < self.num_weights

    @property
    def flops(self) -> float:
        """Return the useful operations of the whole run."""
        return sum(one.forward * self.flops_a_picture(one.has_text) for one in self.passes.values())

    def flops_a_picture(self, has_text: bool = True) -> float:
        """Return the operations of one pass forward, the mean over the bases."""
        text_tokens = self.text_tokens if has_text else 0
        counts = self.pictures_at_once
        sums = (
            count * forward_flops(self.config, image_tokens(base), text_tokens)
            for base, count in counts.items()
        )
        return sum(sums) / sum(counts.values())

    def processes(self, num_gpus: int) -> int:
        """Return the most processes, of so many, that can share an update out evenly."""
        return next(size for size in range(num_gpus, 0, -1) if self.shared[1] % size == 0)


class PostTrainingPlan(NamedTuple):
    """The bill of a run."""

    run: PostTraining
    card: Card
    num_gpus: int
    mfu: float
    dollars_an_hour: float
    memory: dict[str, float]
    """GiB of a card, by part."""

    @property
    def gpu_hours(self) -> float:
        return self.run.flops / (self.card.peak_flops_a_s * self.mfu) / 3600


def post_training_plan_of(
    run: PostTraining, gpu: str, num_gpus: int, mfu: float | None = None, price: float | None = None
) -> PostTrainingPlan:
    """Reckon a run on so many cards of a kind.

    Raises: SettingError for a card that is not known, or a number that is none.
    """
    card = card_named(gpu, num_gpus, mfu)
    cost = card.dollars_an_hour if price is None else price
    return PostTrainingPlan(
        run, card, num_gpus, mfu or ASSUMED_MFU, cost, post_training_memory_gib(run, num_gpus)
    )


def post_training_memory_gib(run: PostTraining, num_gpus: int) -> dict[str, float]:
    """Return what one card of so many holds, by part, with all but the encoders sharded over all of them."""
    size = run.role_weights
    parts = {"base": run.base_bytes * run.num_weights}
    parts |= {role: 4.0 * size for role in (*run.trained, *run.following)}
    parts |= {
        # One role at a time has gradients.
        "gradients": 4 * size,
        "optimizer": 8 * size * len(run.trained),
        "average": 4 * size,
        # Autocast keeps one of each trained weight from its first use in a pass to the last.
        "copies in bf16": 2 * size if num_gpus == 1 else 0,
    }
    held = {name: count / num_gpus / GIB for name, count in parts.items()}
    # Two blocks at a time are whole: the one that computes and the one that is fetched.
    block = run.num_weights / run.config["num_layers"]
    held["blocks made whole"] = (4 * block * 2 if num_gpus > 1 else 0) / GIB
    tokens = max(
        count * (image_tokens(base) + run.text_tokens) for base, count in run.pictures_at_once.items()
    )
    kept = activation_bytes_a_token(run.config, run.checkpointing, run.is_lora, run.num_graphs)
    held["activations"] = tokens * kept / GIB
    return held | {name: count / GIB for name, count in run.encoders.items()}


def post_training_facts(plan: PostTrainingPlan) -> dict[str, Any]:
    """Return a plan as plain values, for JSON."""
    run, hours, judging = plan.run, plan.gpu_hours, plan.run.judging
    return {
        "stage": run.stage, "parameters": run.num_weights, "is_lora": run.is_lora,
        "trained_parameters": run.role_weights * len(run.trained),
        "updates": run.steps, "rollouts" if run.stage == "rl" else "pictures": run.pictures,
        "judge_calls": judging.calls if judging else 0,
        "judge_calls_a_picture": judging.calls_a_picture if judging else 0,
        "judge_calls_are_assumed": bool(judging and judging.is_assumed),
        "passes": {
            name: {"pictures": one.pictures, "as_forward_passes": one.forward}
            for name, one in run.passes.items()
        },
        "text_tokens": run.text_tokens, "flops": run.flops, "mfu": plan.mfu, "gpus": plan.num_gpus,
        "gpus_that_share_it_out": run.processes(plan.num_gpus), "gpu_hours": hours,
        "days": hours / plan.num_gpus / 24, "dollars": hours * plan.dollars_an_hour,
        "memory_gib": plan.memory, "memory_gib_in_all": sum(plan.memory.values()),
        "memory_gib_of_the_card": plan.card.memory_gib,
    }  # fmt: skip


def post_training_told(plan: PostTrainingPlan, gpu: str, is_assumed: bool) -> Iterator[str]:
    """Yield the lines of a plan for people."""
    run, found = plan.run, post_training_facts(plan)
    yield from _roles_told(run)
    drawn = "rollouts" if run.stage == "rl" else "real pictures"
    yield f"{run.steps:,} updates of {run.about}: {run.pictures:,.0f} {drawn}"
    if run.judging is not None:
        why = "counted in the prompts"
        if run.judging.is_assumed:
            why = "assumed: 10 criteria and the global one, the most that there are"
        yield f"{run.judging.calls:,.0f} judge calls, {run.judging.calls_a_picture:.3g} a picture ({why})"
    yield f"{run.text_tokens} text tokens a picture; --text-tokens says another number"
    yield ""
    yield "pictures through the denoiser:"
    for name, one in run.passes.items():
        back = ", with the way back" if one.cost == THERE_AND_BACK else ""
        yield f"    {name:<36}{one.pictures:14,.0f}{back}"
    yield f"{run.flops:.3g} operations"
    yield from cost_lines(found, plan.dollars_an_hour, gpu, ASSUMED if is_assumed else ASKED)
    if run.judging is not None and found["days"]:
        rate = run.judging.calls / (found["days"] * 86400)
        yield f"in that time a judge has to answer {rate:,.1f} calls a second, or the run waits for it"
    if (most := found["gpus_that_share_it_out"]) < plan.num_gpus:
        name, value = run.shared
        needs = f"{name}, {value}, has to be a multiple of the number of processes"
        yield f"does not run on {plan.num_gpus:,} as it is: {needs}; {most} is the most that can be used"
    yield f"left out: {run.left_out}"
    yield ""
    yield from memory_lines(plan.memory, plan.card)
    if found["memory_gib_in_all"] > plan.card.memory_gib:
        fixes = [] if run.checkpointing == "full" else ["gradient_checkpointing=full"]
        fixes += ["more cards", "fewer pictures at a time"] + ([] if run.is_lora else ["lora"])
        yield f"does not fit: what helps is {', '.join(fixes)}"


def _roles_told(run: PostTraining) -> Iterator[str]:
    trained, others = " and ".join(run.trained), "".join(f", {role} follows" for role in run.following)
    if run.is_lora:
        yield f"{run.num_weights:,} parameters, frozen; adapters of {run.role_weights:,} on them"
    else:
        yield f"{run.num_weights:,} parameters, whole in each role"
    yield f"{trained} trained{others}, the base stays as it is"
