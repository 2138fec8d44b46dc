"""Checkpoints of a run, with everything that it needs to resume bit for bit.

Every random draw derives from (seed, purpose, step, item), so no generator state is saved. Tensors are
PyTorch distributed checkpoints, which any number of ranks can read. The file `run.json` is written last and
marks a checkpoint as complete. Checkpoints are for resuming only; models are exported separately.
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

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # intended

CHECKPOINTS_FOLDER = "checkpoints"
COMPLETE_MARKER = "run.json"


class Checkpoints:
    """The checkpoints of one run; as a context manager it waits for a pending write."""

    def __init__(self, out: Path, settings: CheckpointSettings):
        self._folder, self._settings = out / CHECKPOINTS_FOLDER, settings
        # A group of its own, so that background writes do not interfere with the collectives of the run.
        self._group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._last_step = -1
        """Step of the latest checkpoint."""
        self._pending_write: tuple[Future, Path, dict[str, Any], bool] | None = None

    def save(self, run: TrainState) -> None:
        """Write the state of the run atomically; every rank must call it."""
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
        """Load the latest complete checkpoint into the run; return whether there is one.

        Raises: CheckpointError if the weights of the checkpoint do not fit the run.
        """
        self._wait_for_write()
        complete = self._complete_checkpoints()
        if not complete:
            return False
        tensors = _state_tensors(run)
        try:
            load(tensors, checkpoint_id=complete[-1], no_dist=self._group is None)
        except (CheckpointException, RuntimeError, ValueError) as error:
            problem = f"The weights in {complete[-1]} do not fit the recipe"
            raise CheckpointError(
                f"{problem}. Choose another `out`, or delete the checkpoint. {error}"
            ) from error
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
        """Wait for the pending checkpoint and mark it as complete."""
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
        # Frozen weights follow from the recipe.
        "weights": {name: tensor for name, tensor in state.items() if name not in frozen},
        "optimizer": get_optimizer_state_dict(run.model, run.optimizer.optimizers),
        "average": run.ema.average,
    } | ({"kept": dict(run.extra_state)} if run.extra_state else {})
