"""Checkpoints of a run: everything that a resumed run needs to go on bit for bit.

Every random draw derives from (seed, purpose, step, item), so no generator state has to be kept. Tensors are
PyTorch's distributed checkpoints, which any number of ranks reads; `run.json`, written last, says that a
checkpoint is complete. They are a run's own and for no one else: what is published is exported instead.
"""

import json
import shutil
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from lens.errors import CheckpointError
from lens.files import write_bytes_atomic
from lens.train.settings.run import CheckpointSettings
from lens.train.step import TrainState

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # as asked

CHECKPOINTS_FOLDER = "checkpoints"
COMPLETE_MARKER = "run.json"


class Checkpoints:
    """The checkpoints of one run; as a context it waits for the one that is being written."""

    def __init__(self, out: Path, settings: CheckpointSettings):
        self._folder, self._settings = out / CHECKPOINTS_FOLDER, settings
        # Of its own, for what is written in the background must not meet the run's sums.
        self._group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._last_step = -1
        """Of the latest checkpoint."""
        self._pending_write: tuple[Future, Path, dict[str, Any], bool] | None = None

    def save(self, run: TrainState) -> None:
        """Write the run's state whole or not at all; every rank must ask."""
        self._wait_for_write()
        folder = self._folder / f"step_{run.step:08d}"
        if run.step == self._last_step:
            return
        self._last_step = run.step
        metadata = {
            "step": run.step, "guard": run.guard.state_dict(), "num_averaged": run.ema.num_updates,
            "best": run.best_value,
        }  # fmt: skip
        if run.distributed.is_main:
            shutil.rmtree(folder, ignore_errors=True)
        dcp_kwargs: dict[str, Any] = {"process_group": self._group, "no_dist": self._group is None}
        if self._settings.background:
            future: Any = async_save(_state_tensors(run), checkpoint_id=folder, **dcp_kwargs)
            self._pending_write = future, folder, metadata, run.distributed.is_main
        else:
            save(_state_tensors(run), checkpoint_id=folder, **dcp_kwargs)
            self._mark_complete(folder, metadata, run.distributed.is_main)

    def resume(self, run: TrainState) -> bool:
        """Load the latest complete checkpoint into the run if there is one; return whether there was.

        Raises: CheckpointError when the checkpoint is of other weights than the run's.
        """
        self._wait_for_write()
        complete = self._complete_checkpoints()
        if not complete:
            return False
        tensors = _state_tensors(run)
        try:
            load(tensors, checkpoint_id=complete[-1], no_dist=self._group is None)
        except (CheckpointException, RuntimeError, ValueError) as error:
            problem = f"{complete[-1]} holds other weights than the recipe asks for"
            raise CheckpointError(f"{problem}. Choose another `out` or delete it. {error}") from error
        metadata = json.loads((complete[-1] / COMPLETE_MARKER).read_text())
        run.model.load_state_dict(tensors["weights"], strict=False)
        for name, tensor in run.extra_state.items():
            tensor.copy_(tensors["kept"][name])
        set_optimizer_state_dict(run.model, run.optimizer.optimizers, tensors["optimizer"])
        run.ema.load_state_dict({"num_updates": metadata["num_averaged"], "average": tensors["average"]})
        run.guard.load_state_dict(metadata["guard"])
        run.step, run.best_value = metadata["step"], metadata["best"]
        self._last_step = run.step
        return True

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self._wait_for_write()

    def _complete_checkpoints(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob(f"step_*/{COMPLETE_MARKER}"))

    def _wait_for_write(self) -> None:
        """Wait for the checkpoint that is being written, and say that it is complete."""
        if self._pending_write:
            future, folder, metadata, is_main = self._pending_write
            self._pending_write = None
            future.result()
            self._mark_complete(folder, metadata, is_main)

    def _mark_complete(self, folder: Path, metadata: dict[str, Any], is_main: bool) -> None:
        if self._group is not None:
            dist.barrier(self._group)
        if not is_main:
            return
        write_bytes_atomic(folder / COMPLETE_MARKER, json.dumps(metadata).encode())
        for old in self._complete_checkpoints()[: -self._settings.keep_last]:
            (old / COMPLETE_MARKER).unlink()
            shutil.rmtree(old)


def _state_tensors(run: TrainState) -> dict[str, Any]:
    frozen = {name for name, parameter in run.model.named_parameters() if not parameter.requires_grad}
    state = run.model.state_dict()
    return {
        # What is not trained, the recipe makes again.
        "weights": {name: tensor for name, tensor in state.items() if name not in frozen},
        "optimizer": get_optimizer_state_dict(run.model, run.optimizer.optimizers),
        "average": run.ema.average,
    } | ({"kept": dict(run.extra_state)} if run.extra_state else {})
