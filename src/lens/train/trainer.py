"""The one loop that trains every stage: steps, probes, checkpoints, a clean stop.

Knows nothing of what a stage trains. A run stops at a step boundary on SIGTERM or Ctrl-C, with a checkpoint,
and the same command goes on from there.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lens.errors import NonFiniteError, SettingError
from lens.train import checkpoint
from lens.train.cost.flops import model_flops_utilization
from lens.train.devices import peak_flops_a_s, peak_memory_gib
from lens.train.distributed import Ranks, shard, whole_state
from lens.train.ema import Ema
from lens.train.metrics import Metrics
from lens.train.optimizer import build_optimizers
from lens.train.settings.run import RunSettings
from lens.train.stages.base import Stage, Turns
from lens.train.step import Run, train_step

log = Console(stderr=True)


def fit(stage: Stage, settings: RunSettings, ranks: Ranks | None = None) -> Run:
    """Train a stage to its last step, or to the first stop signal of any rank; return the run."""
    ranks = ranks or Ranks()
    trained = stage.trained.train()
    if settings.compile:
        compile_repeated_blocks(trained)
    sharded = shard(trained, ranks)
    averaged = stage.averaged if isinstance(stage, Turns) else ()
    run = Run(
        settings=settings,
        trained=trained,
        optimizer=build_optimizers(trained, settings.optimizer),
        ema=Ema(trained, settings.ema_decay, averaged),
        objective=stage.objective,
        ranks=ranks,
        sharded=sharded,
    )
    if isinstance(stage, Turns):
        run.averaged, run.kept = averaged, stage.kept
        run.parts_of, run.after_update = stage.parts_of, stage.after_update
    log.quiet = not ranks.is_main
    checkpoints = checkpoint.Checkpoints(settings.out, settings.checkpoint)
    if checkpoints.resume(run):
        log.print(f"{settings.out}: going on at step {run.step} of {settings.steps}")
    with _stop_requested() as stop, Metrics(settings, run.step, ranks.is_main) as metrics, checkpoints:
        clock = Clock(run.step)
        saved_at, is_stopped = time.monotonic(), False
        while run.step < settings.steps and not is_stopped:
            is_told = (run.step + 1) % settings.log_every == 0 or run.step + 1 == settings.steps
            terms = train_step(run, by_block=is_told)
            if run.guard.is_lost:
                _go_back(run, checkpoints)
            if is_told:
                numbers = _numbers(terms) | {"skipped": run.guard.num_skipped}
                metrics.write(run.step, numbers | clock.rates(run))
                shown = {name: value for name, value in _numbers(terms).items() if "/" not in name}
                log.print(clock.line(run, shown), highlight=False)
            if run.step % settings.probe_every == 0 or run.step == settings.steps:
                probe(stage, run, metrics)
            is_due = time.monotonic() - saved_at > settings.checkpoint.every_s
            is_stopped, is_due = ranks.any(bool(stop or run.ending), is_due)
            # Not while updates are turned down: the weights may be what is broken.
            if is_due and not run.guard.in_a_row:
                checkpoints.save(run)
                saved_at = time.monotonic()
        checkpoints.save(run)
        export(stage, run, settings.out / "export")
    how = run.ending or ("stopped" if run.step < settings.steps else "done")
    log.print(f"{settings.out}: {how} at step {run.step}")
    return run


def _go_back(run: Run, checkpoints: checkpoint.Checkpoints) -> None:
    """Take the weights of the last checkpoint, but go on with the batches that come next.

    Raises: NonFiniteError when there is no checkpoint, or when going back did not help.
    """
    step, skipped = run.step, run.guard.num_skipped
    lost = f"{run.guard.in_a_row} updates in a row had gradients that are no numbers or far too large, "
    lost += f"the last at step {step - 1}"
    if run.guard.went_back or not checkpoints.resume(run):
        fix = "Lower optimizer.lr, or raise guard.max_ratio or guard.max_skips."
        raise NonFiniteError(f"{lost}; the weights of before are kept. {fix}")
    log.print(f"{run.settings.out}: {lost}; going back to the weights of step {run.step}")
    run.step = step
    run.guard.num_skipped, run.guard.in_a_row, run.guard.went_back = skipped, 0, True


def compile_repeated_blocks(module: Any) -> None:
    """Compile the blocks that a model says it repeats; names of weights stay as they are.

    Raises: SettingError for a model that names none.
    """
    models = [part for part in module.modules() if getattr(part, "_repeated_blocks", None)]
    if not models:
        needs = f"false, for {type(module).__name__} names no blocks that repeat"
        raise SettingError("compile", True, needs)
    # Each of with or without gradients, with or without a mask, last block or not is compiled by itself.
    torch._dynamo.config.recompile_limit = 32  # type: ignore[attr-defined]
    for model in models:
        model.compile_repeated_blocks(dynamic=True)


def export(stage: Stage, run: Run, folder: Path) -> None:
    """Write the averaged weights as the stage publishes them."""
    with run.ema.swapped_into(run.trained):
        averaged = whole_state(run.trained)
        if run.ranks.is_main:
            stage.export(folder, averaged)


def probe(stage: Stage, run: Run, metrics: Metrics) -> None:
    """Write held-out numbers and a sample grid of the averaged weights, and export the best of them."""
    with run.ema.swapped_into(run.trained), torch.no_grad():
        run.trained.eval()
        numbers = stage.probe()
        grid = stage.sample_grid()
        run.trained.train()
    metrics.write(run.step, {f"probe/{name}": value for name, value in numbers.items()})
    if _is_best(numbers, run):
        export(stage, run, run.settings.out / "best")
    if grid is not None and run.ranks.is_main:
        folder = run.settings.out / "samples"
        folder.mkdir(exist_ok=True)
        grid.save(folder / f"step_{run.step:07d}.png")


def _is_best(numbers: dict[str, float], run: Run) -> bool:
    """Return whether the probe's number that the recipe names is better than ever, and keep it if so.

    Raises: SettingError for a number that the probe does not know.
    """
    wanted = run.settings.checkpoint
    if not wanted.best:
        return False
    if wanted.best not in numbers:
        raise SettingError("checkpoint.best", wanted.best, f"one of {', '.join(numbers)}")
    value = numbers[wanted.best]
    sign = 1 if wanted.best_is == "highest" else -1
    if run.best is not None and sign * value <= sign * run.best:
        return False
    run.best = value
    return True


class Clock:
    """Speed of a run since it was started, and the time left."""

    def __init__(self, step: int):
        self._first_step, self._started_at = step, time.monotonic()

    def rates(self, run: Run) -> dict[str, float]:
        elapsed_s = time.monotonic() - self._started_at
        work, size = run.work, run.ranks.size  # every rank does about as much as this one
        rates = {"lr": run.optimizer.lr, "samples_per_s": work.samples * size / elapsed_s}
        rates["data_wait"] = work.data_s / elapsed_s
        rates["peak_memory_gib"] = peak_memory_gib()
        if work.tokens:
            rates["tokens_per_s"] = work.tokens * size / elapsed_s
            rates["tflops_per_s"] = work.flops * size / elapsed_s / 1e12
            if peak := peak_flops_a_s():
                rates["mfu"] = model_flops_utilization(work.flops, elapsed_s, peak)
        return rates

    def line(self, run: Run, numbers: dict[str, float]) -> str:
        samples_per_s = self.rates(run)["samples_per_s"]
        elapsed_s = time.monotonic() - self._started_at
        left_s = (run.settings.steps - run.step) * elapsed_s / (run.step - self._first_step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        left = time.strftime("%H:%M:%S", time.gmtime(left_s))
        return f"step {run.step}/{run.settings.steps}  {shown}  {samples_per_s:.1f} samples/s  {left} left"


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """Collect stop signals in a list that is empty, and so false, until the first one."""
    received: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(kind, lambda number, _frame: received.append(number)) for kind in kinds]
    try:
        yield received
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _numbers(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in terms.items()}
