"""Cost estimates of RL and distillation: denoiser passes, judge calls, memory, GPU-hours, money.

Without torch, and independent of recipes. Operations are counted as a run counts them (flops.py).
Spec: sections 9 and 10.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lens.train.cost.flops import TRAINING_FACTOR, forward_flops
from lens.train.cost.gpus import ASSUMED_MFU, MFU_ASSUMED, MFU_FROM_OPTION, GpuEstimate, gpu_spec
from lens.train.cost.memory import GIB, activation_bytes_per_token, memory_gib_per_gpu, training_state_bytes
from lens.train.cost.training import cost_lines, memory_lines, num_image_tokens


class ForwardPasses(NamedTuple):
    """Images that pass through the denoiser for one purpose."""

    num_images: float
    """Images of the whole run; an image counts at every pass."""
    cost_per_image: int = 1
    """In forward passes: 1, or `TRAINING_FACTOR` with the backward pass."""
    has_text: bool = True

    @property
    def num_forward_equivalents(self) -> float:
        """Return the cost of all of them, in forward passes."""
        return self.num_images * self.cost_per_image


class JudgeCalls(NamedTuple):
    """Calls to the endpoint of a judge."""

    num_calls: float
    calls_per_image: float
    is_assumed: bool
    """Whether the rubrics were missing, so that the number of criteria is assumed."""


class PostTrainingSpec(NamedTuple):
    """The cost-relevant part of a post-training recipe."""

    stage: str
    config: Mapping[str, Any]
    """Configuration of the denoiser."""
    steps: int
    update_description: str
    """Description of an update, for display."""
    num_images: float
    """Images of the whole run: rollouts in RL, real images in distillation."""
    passes: Mapping[str, ForwardPasses]
    judge_calls: JudgeCalls | None
    sharded_setting: tuple[str, int]
    """Name and value of the setting that processes divide evenly."""
    images_per_micro_batch: Mapping[int, int]
    """Images of a micro-batch by base resolution; all bases are equally frequent."""
    num_text_tokens: int
    num_parameters: int
    """Parameters of one denoiser."""
    num_role_parameters: int
    """Parameters of one role: as many, or those of its adapter."""
    trained_roles: tuple[str, ...]
    """Roles that are trained; the first one has a moving average."""
    ema_roles: tuple[str, ...]
    """Roles that follow a trained role."""
    base_weight_bytes: int
    """Bytes of a weight of the frozen base."""
    checkpointing: str
    num_graphs: int
    """Autograd graphs in memory at the same time."""
    encoder_bytes: Mapping[str, float]
    """Bytes of the frozen encoders, which every GPU holds in full."""
    excluded_costs: str
    """What the estimate leaves out."""

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
        """Return the operations of one forward pass, as the mean over the bases."""
        text_tokens = self.num_text_tokens if has_text else 0
        counts = self.images_per_micro_batch
        sums = (
            count * forward_flops(self.config, num_image_tokens(base), text_tokens)
            for base, count in counts.items()
        )
        return sum(sums) / sum(counts.values())

    def num_usable_gpus(self, num_gpus: int) -> int:
        """Return the largest number of GPUs, up to `num_gpus`, that can divide an update evenly."""
        return next(size for size in range(num_gpus, 0, -1) if self.sharded_setting[1] % size == 0)


@dataclass(frozen=True)
class PostTrainingEstimate(GpuEstimate):
    """The cost of a run."""

    run: PostTrainingSpec

    @property
    def flops(self) -> float:
        return self.run.flops


def estimate_post_training(
    run: PostTrainingSpec, gpu: str, num_gpus: int, mfu: float | None = None, price: float | None = None
) -> PostTrainingEstimate:
    """Estimate a run on so many GPUs of a kind.

    Raises: SettingError for an unknown GPU, or an option out of range.
    """
    spec = gpu_spec(gpu, num_gpus, mfu)
    cost = spec.dollars_per_hour if price is None else price
    memory_gib = estimate_post_training_memory_gib(run, num_gpus)
    return PostTrainingEstimate(spec, num_gpus, mfu or ASSUMED_MFU, cost, memory_gib, run)


def estimate_post_training_memory_gib(run: PostTrainingSpec, num_gpus: int) -> dict[str, float]:
    """Return the memory of one GPU in GiB, by part, with all but the encoders sharded over all GPUs."""
    size = run.num_role_parameters
    parts = {"base": run.base_weight_bytes * run.num_parameters}
    parts |= {role: 4.0 * size for role in (*run.trained_roles, *run.ema_roles)}
    # One role at a time has gradients.
    parts |= training_state_bytes(size, size * len(run.trained_roles), num_gpus)
    tokens = max(
        count * (num_image_tokens(base) + run.num_text_tokens)
        for base, count in run.images_per_micro_batch.items()
    )
    saved_bytes = activation_bytes_per_token(run.config, run.checkpointing, run.is_lora, run.num_graphs)
    block_parameters = run.num_parameters / run.config["num_layers"]
    sizes_gib = memory_gib_per_gpu(parts, num_gpus, block_parameters, tokens * saved_bytes)
    return sizes_gib | {name: count / GIB for name, count in run.encoder_bytes.items()}


def post_training_to_dict(estimate: PostTrainingEstimate) -> dict[str, Any]:
    """Return an estimate as plain values, for JSON."""
    run, judging = estimate.run, estimate.run.judge_calls
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
        "gpus_that_share_it_out": run.num_usable_gpus(estimate.num_gpus),
        **estimate.resources(),
    }


def format_post_training(estimate: PostTrainingEstimate, gpu: str, is_assumed: bool) -> Iterator[str]:
    """Yield an estimate as lines of text."""
    run, values = estimate.run, post_training_to_dict(estimate)
    yield from _format_roles(run)
    drawn = "rollouts" if run.stage == "rl" else "real images"
    yield f"{run.steps:,} updates of {run.update_description}: {run.num_images:,.0f} {drawn}"
    if run.judge_calls is not None:
        why = "counted in the rubrics"
        if run.judge_calls.is_assumed:
            why = "assumed: 10 criteria and the global one, the maximum"
        calls = run.judge_calls
        yield f"{calls.num_calls:,.0f} judge calls, {calls.calls_per_image:.3g} per image ({why})"
    yield f"{run.num_text_tokens} text tokens per image; set them with --text-tokens"
    yield ""
    yield "images through the denoiser:"
    for name, one in run.passes.items():
        back = ", with backward pass" if one.cost_per_image == TRAINING_FACTOR else ""
        yield f"    {name:<36}{one.num_images:14,.0f}{back}"
    yield f"{run.flops:.3g} operations"
    yield from cost_lines(
        values, estimate.dollars_per_hour, gpu, MFU_ASSUMED if is_assumed else MFU_FROM_OPTION
    )
    if run.judge_calls is not None and values["days"]:
        rate = run.judge_calls.num_calls / (values["days"] * 86400)
        yield f"the judge has to answer {rate:,.1f} calls per second, or the run waits for it"
    if (most := values["gpus_that_share_it_out"]) < estimate.num_gpus:
        name, value = run.sharded_setting
        needs = f"{name} = {value} must be a multiple of the number of GPUs"
        yield f"does not run on {estimate.num_gpus:,} GPUs: {needs}; the largest possible number is {most}"
    yield f"not included: {run.excluded_costs}"
    yield ""
    yield from memory_lines(estimate.memory_gib, estimate.gpu)
    if values["memory_gib_in_all"] > estimate.gpu.memory_gib:
        fixes = [] if run.checkpointing == "full" else ["gradient_checkpointing=full"]
        fixes += ["more GPUs", "fewer images at a time"] + ([] if run.is_lora else ["lora"])
        yield f"does not fit; remedies: {', '.join(fixes)}"


def _format_roles(run: PostTrainingSpec) -> Iterator[str]:
    trained, others = " and ".join(run.trained_roles), "".join(f", {role} follows" for role in run.ema_roles)
    if run.is_lora:
        yield f"{run.num_parameters:,} parameters, frozen; adapters of {run.num_role_parameters:,} parameters"
    else:
        yield f"{run.num_parameters:,} parameters in each role"
    yield f"trained: {trained}{others}; the base is frozen"
