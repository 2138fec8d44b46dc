"""What post-training would take: passes through the denoiser, judge calls, memory, operations, hours, money.

Knows nothing of torch or of recipes, and runs nothing. Operations are counted as a run itself counts them:
flops.py, a way back as two passes. Spec: sections 9 and 10.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lens.train.cost.flops import forward_flops
from lens.train.cost.training import (
    ASSUMED_MFU,
    GIB,
    MFU_ASSUMED,
    MFU_FROM_OPTION,
    GpuSpec,
    activation_bytes_per_token,
    cost_lines,
    gpu_spec,
    memory_lines,
    num_image_tokens,
)

FORWARD_AND_BACKWARD = 3
"""Passes that one with its way back counts as."""


class ForwardPasses(NamedTuple):
    """Pictures that go through the denoiser for one purpose."""

    num_images: float
    """Of the whole run; a picture counts each time."""
    cost_per_image: int = 1
    """In passes forward: 1, or 3 with the way back."""
    has_text: bool = True

    @property
    def num_forward_equivalents(self) -> float:
        """Return what all of them cost, in passes forward."""
        return self.num_images * self.cost_per_image


class JudgeCalls(NamedTuple):
    """What is asked of an endpoint."""

    num_calls: float
    calls_per_image: float
    is_assumed: bool
    """Whether the rubrics were not there to count."""


class PostTrainingSpec(NamedTuple):
    """What of a recipe of post-training costs."""

    stage: str
    config: Mapping[str, Any]
    """The denoiser's."""
    steps: int
    update_description: str
    """What an update is made of."""
    num_images: float
    """Of the whole run: those drawn to be judged, or the real ones."""
    passes: Mapping[str, ForwardPasses]
    judge_calls: JudgeCalls | None
    sharded_setting: tuple[str, int]
    """What processes share out evenly: the setting's name and its value."""
    images_per_micro_batch: Mapping[int, int]
    """By base resolution, all equally often: pictures of a micro-batch."""
    num_text_tokens: int
    num_parameters: int
    """Of one denoiser."""
    num_role_parameters: int
    """Of one role: as many, or those of its adapter."""
    trained_roles: tuple[str, ...]
    """Roles that are trained, the one that is averaged first."""
    ema_roles: tuple[str, ...]
    """Roles that follow them."""
    base_weight_bytes: int
    """Of a weight of the base, which is frozen."""
    checkpointing: str
    num_graphs: int
    """Passes that are kept for the way back at one time."""
    encoder_bytes: Mapping[str, float]
    """Bytes of the frozen encoders that stay in memory, whole on every card."""
    excluded_costs: str
    """What the bill knows nothing of."""

    @property
    def is_lora(self) -> bool:
        return self.num_role_parameters < self.num_parameters

    @property
    def flops(self) -> float:
        """Return the useful operations of the whole run."""
        return sum(
            one.num_forward_equivalents * self.flops_per_image(one.has_text) for one in self.passes.values()
        )

    def flops_per_image(self, has_text: bool = True) -> float:
        """Return the operations of one pass forward, the mean over the bases."""
        text_tokens = self.num_text_tokens if has_text else 0
        counts = self.images_per_micro_batch
        sums = (
            count * forward_flops(self.config, num_image_tokens(base), text_tokens)
            for base, count in counts.items()
        )
        return sum(sums) / sum(counts.values())

    def num_usable_gpus(self, num_gpus: int) -> int:
        """Return the most processes, of so many, that can share an update out evenly."""
        return next(size for size in range(num_gpus, 0, -1) if self.sharded_setting[1] % size == 0)


class PostTrainingEstimate(NamedTuple):
    """The bill of a run."""

    run: PostTrainingSpec
    gpu: GpuSpec
    num_gpus: int
    mfu: float
    dollars_per_hour: float
    memory_gib: dict[str, float]
    """GiB of a card, by part."""

    @property
    def gpu_hours(self) -> float:
        return self.run.flops / (self.gpu.peak_flops_per_s * self.mfu) / 3600


def estimate_post_training(
    run: PostTrainingSpec, gpu: str, num_gpus: int, mfu: float | None = None, price: float | None = None
) -> PostTrainingEstimate:
    """Reckon a run on so many cards of a kind.

    Raises: SettingError for a card that is not known, or a number that is none.
    """
    spec = gpu_spec(gpu, num_gpus, mfu)
    cost = spec.dollars_per_hour if price is None else price
    return PostTrainingEstimate(
        run, spec, num_gpus, mfu or ASSUMED_MFU, cost, estimate_post_training_memory_gib(run, num_gpus)
    )


def estimate_post_training_memory_gib(run: PostTrainingSpec, num_gpus: int) -> dict[str, float]:
    """Return what one card of so many holds, by part, with all but the encoders sharded over all of them."""
    size = run.num_role_parameters
    parts = {"base": run.base_weight_bytes * run.num_parameters}
    parts |= {role: 4.0 * size for role in (*run.trained_roles, *run.ema_roles)}
    parts |= {
        # One role at a time has gradients.
        "gradients": 4 * size,
        "optimizer": 8 * size * len(run.trained_roles),
        "average": 4 * size,
        # Autocast keeps one of each trained weight from its first use in a pass to the last.
        "copies in bf16": 2 * size if num_gpus == 1 else 0,
    }
    sizes_gib = {name: count / num_gpus / GIB for name, count in parts.items()}
    # Two blocks at a time are whole: the one that computes and the one that is fetched.
    block = run.num_parameters / run.config["num_layers"]
    sizes_gib["blocks made whole"] = (4 * block * 2 if num_gpus > 1 else 0) / GIB
    tokens = max(
        count * (num_image_tokens(base) + run.num_text_tokens)
        for base, count in run.images_per_micro_batch.items()
    )
    saved_bytes = activation_bytes_per_token(run.config, run.checkpointing, run.is_lora, run.num_graphs)
    sizes_gib["activations"] = tokens * saved_bytes / GIB
    return sizes_gib | {name: count / GIB for name, count in run.encoder_bytes.items()}


def post_training_to_dict(estimate: PostTrainingEstimate) -> dict[str, Any]:
    """Return a plan as plain values, for JSON."""
    run, hours, judging = estimate.run, estimate.gpu_hours, estimate.run.judge_calls
    return {
        "stage": run.stage,
        "parameters": run.num_parameters,
        "is_lora": run.is_lora,
        "trained_parameters": run.num_role_parameters * len(run.trained_roles),
        "updates": run.steps,
        "rollouts" if run.stage == "rl" else "pictures": run.num_images,
        "judge_calls": judging.num_calls if judging else 0,
        "judge_calls_a_picture": judging.calls_per_image if judging else 0,
        "judge_calls_are_assumed": bool(judging and judging.is_assumed),
        "passes": {
            name: {"pictures": one.num_images, "as_forward_passes": one.num_forward_equivalents}
            for name, one in run.passes.items()
        },
        "text_tokens": run.num_text_tokens,
        "flops": run.flops,
        "mfu": estimate.mfu,
        "gpus": estimate.num_gpus,
        "gpus_that_share_it_out": run.num_usable_gpus(estimate.num_gpus),
        "gpu_hours": hours,
        "days": hours / estimate.num_gpus / 24,
        "dollars": hours * estimate.dollars_per_hour,
        "memory_gib": estimate.memory_gib,
        "memory_gib_in_all": sum(estimate.memory_gib.values()),
        "memory_gib_of_the_card": estimate.gpu.memory_gib,
    }


def format_post_training(estimate: PostTrainingEstimate, gpu: str, is_assumed: bool) -> Iterator[str]:
    """Yield the lines of a plan for people."""
    run, values = estimate.run, post_training_to_dict(estimate)
    yield from _format_roles(run)
    drawn = "rollouts" if run.stage == "rl" else "real pictures"
    yield f"{run.steps:,} updates of {run.update_description}: {run.num_images:,.0f} {drawn}"
    if run.judge_calls is not None:
        why = "counted in the prompts"
        if run.judge_calls.is_assumed:
            why = "assumed: 10 criteria and the global one, the most that there are"
        calls = run.judge_calls
        yield f"{calls.num_calls:,.0f} judge calls, {calls.calls_per_image:.3g} a picture ({why})"
    yield f"{run.num_text_tokens} text tokens a picture; --text-tokens says another number"
    yield ""
    yield "pictures through the denoiser:"
    for name, one in run.passes.items():
        back = ", with the way back" if one.cost_per_image == FORWARD_AND_BACKWARD else ""
        yield f"    {name:<36}{one.num_images:14,.0f}{back}"
    yield f"{run.flops:.3g} operations"
    yield from cost_lines(
        values, estimate.dollars_per_hour, gpu, MFU_ASSUMED if is_assumed else MFU_FROM_OPTION
    )
    if run.judge_calls is not None and values["days"]:
        rate = run.judge_calls.num_calls / (values["days"] * 86400)
        yield f"in that time a judge has to answer {rate:,.1f} calls a second, or the run waits for it"
    if (most := values["gpus_that_share_it_out"]) < estimate.num_gpus:
        name, value = run.sharded_setting
        needs = f"{name}, {value}, has to be a multiple of the number of processes"
        yield f"does not run on {estimate.num_gpus:,} as it is: {needs}; {most} is the most that can be used"
    yield f"left out: {run.excluded_costs}"
    yield ""
    yield from memory_lines(estimate.memory_gib, estimate.gpu)
    if values["memory_gib_in_all"] > estimate.gpu.memory_gib:
        fixes = [] if run.checkpointing == "full" else ["gradient_checkpointing=full"]
        fixes += ["more cards", "fewer pictures at a time"] + ([] if run.is_lora else ["lora"])
        yield f"does not fit: what helps is {', '.join(fixes)}"


def _format_roles(run: PostTrainingSpec) -> Iterator[str]:
    trained, others = " and ".join(run.trained_roles), "".join(f", {role} follows" for role in run.ema_roles)
    if run.is_lora:
        yield f"{run.num_parameters:,} parameters, frozen; adapters of {run.num_role_parameters:,} on them"
    else:
        yield f"{run.num_parameters:,} parameters, whole in each role"
    yield f"{trained} trained{others}, the base stays as it is"
