"""The training loop of every stage: updates, evaluations, checkpoints, and a clean stop.

Knows nothing of what a stage trains. On SIGTERM or Ctrl-C, or when its minutes are over, a run stops at the
end of its step and writes a checkpoint. The same command then continues from it.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lens.errors import NonFiniteError, SettingError
from lens.files import apply_umask
from lens.train import checkpoint
from lens.train.cost.flops import model_flops_utilization
from lens.train.cost.gpus import GPU_SPECS, find_gpu_name
from lens.train.devices import peak_memory_gib
from lens.train.distributed import DistributedContext, full_state_dict, shard_module
from lens.train.ema import Ema
from lens.train.metrics import MetricsLogger
from lens.train.optimizer import build_optimizers
from lens.train.settings.run import RunSettings
from lens.train.stages.base import AlternatingStage, Stage
from lens.train.step import TrainState, train_step

console = Console(stderr=True)


def fit(
    stage: Stage, settings: RunSettings, distributed: DistributedContext | None = None,
    started_at: float | None = None,
) -> TrainState:  # fmt: skip
    """Train a stage to its last step, or until any rank gets a stop signal; return the state of the run.

    `started_at` is when the `max_minutes` of the process began, by time.monotonic(); None for now.
    """
    started_at = time.monotonic() if started_at is None else started_at
    ends_at = started_at + 60 * settings.max_minutes if settings.max_minutes else math.inf
    distributed = distributed or DistributedContext()
    model = stage.model.train()
    if settings.compile:
        compile_repeated_blocks(model)
    fsdp_modules = shard_module(model, distributed)
    ema_parts = stage.ema_parts if isinstance(stage, AlternatingStage) else ()
    run = TrainState(
        settings=settings,
        model=model,
        optimizer=build_optimizers(model, settings.optimizer),
        ema=Ema(model, settings.ema_decay, ema_parts),
        objective=stage.objective,
        distributed=distributed,
        fsdp_modules=fsdp_modules,
    )
    if isinstance(stage, AlternatingStage):
        run.ema_parts, run.extra_state = ema_parts, stage.extra_state
        run.active_parts, run.after_update = stage.active_parts, stage.after_update
    console.quiet = not distributed.is_main
    checkpoints = checkpoint.Checkpoints(settings.out, settings.checkpoint)
    if checkpoints.resume(run):
        console.print(f"{settings.out}: resuming at step {run.step} of {settings.steps}")
    with (
        _collect_stop_signals() as stop,
        MetricsLogger(settings, run.step, distributed.is_main) as metrics,
        checkpoints,
    ):
        throughput = Throughput(run.step)
        saved_at, is_stopped = time.monotonic(), False
        while run.step < settings.steps and not is_stopped:
            should_log = (run.step + 1) % settings.log_every == 0 or run.step + 1 == settings.steps
            terms = train_step(run, log_block_norms=should_log)
            if run.guard.should_rollback:
                _rollback(run, checkpoints)
            if should_log:
                values = _to_floats(terms) | {"skipped": run.guard.num_skipped}
                metrics.write(run.step, values | throughput.metrics(run))
                main_terms = {name: value for name, value in _to_floats(terms).items() if "/" not in name}
                console.print(throughput.log_line(run, main_terms), highlight=False)
            if run.step % settings.probe_every == 0 or run.step == settings.steps:
                evaluate(stage, run, metrics)
            is_due = time.monotonic() - saved_at > settings.checkpoint.every_s
            is_over = bool(stop or run.stop_reason) or time.monotonic() > ends_at
            is_stopped, is_due = distributed.any_rank(is_over, is_due)
            # Not while updates are skipped: the weights themselves may be broken.
            if is_due and not run.guard.num_consecutive_skips:
                checkpoints.save(run)
                saved_at = time.monotonic()
        checkpoints.save(run)
        export(stage, run, settings.out / "export")
    outcome = "ended early" if run.stop_reason else "stopped" if run.step < settings.steps else "done"
    reason = f": {run.stop_reason}" if run.stop_reason else ""
    console.print(f"{settings.out}: {outcome} at step {run.step}{reason}")
    return run


def _rollback(run: TrainState, checkpoints: checkpoint.Checkpoints) -> None:
    """Load the weights of the last checkpoint and continue with the next batches.

    Raises: NonFiniteError if there is no checkpoint, or if the previous rollback did not help.
    """
    step, num_skipped = run.step, run.guard.num_skipped
    skips = run.guard.num_consecutive_skips
    problem = f"{skips} updates in a row had non-finite or far too large gradients, "
    problem += f"the last at step {step - 1}"
    if run.guard.has_rolled_back or not checkpoints.resume(run):
        fix = "Lower optimizer.lr, or raise guard.max_ratio or guard.max_skips."
        raise NonFiniteError(f"{problem}. The last good weights are kept. {fix}")
    console.print(f"{run.settings.out}: {problem}; returning to the weights of step {run.step}")
    run.step = step
    run.guard.num_skipped, run.guard.num_consecutive_skips, run.guard.has_rolled_back = num_skipped, 0, True


def compile_repeated_blocks(module: Any) -> None:
    """Compile the repeated blocks of a model; the names of its weights stay the same.

    Raises: SettingError for a model that declares no repeated blocks.
    """
    models = [part for part in module.modules() if getattr(part, "_repeated_blocks", None)]
    if not models:
        needs = f"false, as {type(module).__name__} declares no repeated blocks"
        raise SettingError("compile", True, needs)
    # With and without gradients, with and without a mask, and the last block compile separately.
    torch._dynamo.config.recompile_limit = 32  # type: ignore[attr-defined]
    for model in models:
        model.compile_repeated_blocks(dynamic=True)


def export(stage: Stage, run: TrainState, folder: Path) -> None:
    """Write the averaged weights in the format of the stage."""
    with run.ema.swap_into(run.model):
        ema_state = full_state_dict(run.model)
        if run.distributed.is_main:
            stage.export(folder, ema_state)
            apply_umask(folder)


def evaluate(stage: Stage, run: TrainState, metrics: MetricsLogger) -> None:
    """Write metrics and a sample grid of the averaged weights; export the weights if they are the best."""
    with run.ema.swap_into(run.model), torch.no_grad():
        run.model.eval()
        values = stage.evaluate()
        grid = stage.sample_grid()
        run.model.train()
    metrics.write(run.step, {f"probe/{name}": value for name, value in values.items()})
    if _update_best(values, run):
        export(stage, run, run.settings.out / "best")
    if grid is not None and run.distributed.is_main:
        folder = run.settings.out / "samples"
        folder.mkdir(exist_ok=True)
        grid.save(folder / f"step_{run.step:07d}.png")


def _update_best(metrics: dict[str, float], run: TrainState) -> bool:
    """Return whether the metric `checkpoint.best` is the best so far, and store it if so.

    Raises: SettingError for a metric that the evaluation does not have.
    """
    criterion = run.settings.checkpoint
    if not criterion.best:
        return False
    if criterion.best not in metrics:
        raise SettingError("checkpoint.best", criterion.best, f"one of {', '.join(metrics)}")
    value = metrics[criterion.best]
    sign = 1 if criterion.best_is == "highest" else -1
    if run.best_value is not None and sign * value <= sign * run.best_value:
        return False
    run.best_value = value
    return True


class Throughput:
    """Throughput of a run since its start, and the time left."""

    def __init__(self, step: int):
        self._first_step, self._started_at = step, time.monotonic()

    def metrics(self, run: TrainState) -> dict[str, float]:
        elapsed_s = time.monotonic() - self._started_at
        work, size = run.stats, run.distributed.world_size  # all ranks do about the same work
        rates = {"lr": run.optimizer.lr, "samples_per_s": work.num_samples * size / elapsed_s}
        rates["data_wait"] = work.data_s / elapsed_s
        rates["peak_memory_gib"] = peak_memory_gib()
        if work.num_tokens:
            rates["tokens_per_s"] = work.num_tokens * size / elapsed_s
            rates["tflops_per_s"] = work.flops * size / elapsed_s / 1e12
            if torch.cuda.is_available() and (gpu := find_gpu_name(torch.cuda.get_device_name())):
                peak = GPU_SPECS[gpu].peak_flops_per_s
                rates["mfu"] = model_flops_utilization(work.flops, elapsed_s, peak)
        return rates

    def log_line(self, run: TrainState, terms: dict[str, float]) -> str:
        samples_per_s = self.metrics(run)["samples_per_s"]
        elapsed_s = time.monotonic() - self._started_at
        remaining_s = (run.settings.steps - run.step) * elapsed_s / (run.step - self._first_step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        remaining = time.strftime("%H:%M:%S", time.gmtime(remaining_s))
        return (
            f"step {run.step}/{run.settings.steps}  {shown}  {samples_per_s:.1f} samples/s  {remaining} left"
        )


@contextmanager
def _collect_stop_signals() -> Iterator[list[int]]:
    """Yield a list that receives the stop signals of this process."""
    received: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    previous_handlers = [
        signal.signal(kind, lambda number, _frame: received.append(number)) for kind in kinds
    ]
    try:
        yield received
    finally:
        for kind, handler in zip(kinds, previous_handlers, strict=True):
            signal.signal(kind, handler)


def _to_floats(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in terms.items()}
