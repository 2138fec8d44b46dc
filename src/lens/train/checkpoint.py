"""Checkpoints of a run, with everything that it needs to resume bit for bit.

Every random draw derives from (seed, purpose, step, item), so no generator state is saved. Tensors are
PyTorch distributed checkpoints, which any number of ranks can read. The file `run.json` is written last and
marks a checkpoint as complete. Checkpoints are for resuming only; models are exported separately.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from lens.errors import CheckpointError, first_line
from lens.files import DISK_FULL_ERRNOS, DiskFullError, FileWriteError, write_bytes_atomic
from lens.train.settings.run import CheckpointSettings
from lens.train.step import TrainState

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # intended

CHECKPOINTS_FOLDER = "checkpoints"
COMPLETE_MARKER = "run.json"
METADATA_NAMES = {"step", "guard", "num_averaged", "best"}
OTHER_WEIGHTS = ("Missing key", "Size mismatch")
"""What PyTorch says of a whole checkpoint of another network."""
CUT_OFF = "PytorchStreamWriter failed"
"""What PyTorch says where a file ends before its data, as on a full disk."""


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
            with _write_errors(folder):
                save(_state_tensors(run), checkpoint_id=folder, **dcp_kwargs)
            self._mark_complete(folder, metadata, run.distributed.is_main)

    def resume(self, run: TrainState) -> bool:
        """Load the latest complete checkpoint into the run; return whether there is one.

        Raises: CheckpointError for a checkpoint that does not fit the run, or is damaged.
        """
        self._wait_for_write()
        complete = self._complete_checkpoints()
        if not complete:
            return False
        tensors = _state_tensors(run)
        try:
            metadata = json.loads((complete[-1] / COMPLETE_MARKER).read_text())
            if lacking := METADATA_NAMES - metadata.keys():
                raise ValueError(f"{COMPLETE_MARKER} has no {min(lacking)}")
            FileSystemReader(complete[-1]).read_metadata()  # `load` would log the traceback of its error
            load(tensors, checkpoint_id=complete[-1], no_dist=self._group is None)
        except (CheckpointException, Exception) as error:  # damaged pickles raise any exception
            raise _reading_error(complete, error) from error
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
            with _write_errors(folder):
                future.result()
            self._mark_complete(folder, metadata, is_main)

    def _mark_complete(self, folder: Path, metadata: dict[str, Any], is_main: bool) -> None:
        if self._group is not None:
            dist.barrier(self._group)
        if not is_main:
            return
        write_bytes_atomic(folder / COMPLETE_MARKER, json.dumps(metadata).encode())
        complete = self._complete_checkpoints()
        for old in complete[: -self._settings.keep_last]:
            (old / COMPLETE_MARKER).unlink()
            shutil.rmtree(old)
        for incomplete in {*self._folder.glob("step_*")} - {*complete}:  # of a process that was killed
            shutil.rmtree(incomplete)


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of writing a checkpoint, of which nothing is left then, into those of files."""
    try:
        yield
    except (CheckpointException, OSError, RuntimeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        cause = _cause(error)
        message = f"Cannot write the checkpoint {folder}: {_reason(cause)}."
        if getattr(cause, "errno", None) in DISK_FULL_ERRNOS or CUT_OFF in str(cause):
            fix = "Free some space and run the same command again: it goes on from the checkpoint before."
            raise DiskFullError(f"{message} {fix}") from error
        raise FileWriteError(message) from error


def _reading_error(complete: list[Path], error: BaseException) -> CheckpointError:
    """Return the error of the last of the complete checkpoints: it is of other weights, or damaged."""
    cause = _cause(error)
    if any(words in str(cause) for words in OTHER_WEIGHTS):
        fix = "Choose another `out`, or delete the checkpoint."
        problem = f"The weights in {complete[-1]} do not fit the recipe"
        return CheckpointError(f"{problem}: {first_line(cause)}. {fix}")
    before = complete[-2].name if len(complete) > 1 else "the beginning"
    fix = f"Delete it, and the run goes on from {before}."
    return CheckpointError(f"The checkpoint {complete[-1]} is damaged: {_reason(cause)}. {fix}")


def _cause(error: BaseException) -> BaseException:
    """Return what the first rank that failed says: the text of a CheckpointException is a traceback."""
    return next((cause for cause, _ in getattr(error, "failures", {}).values()), error)


def _reason(cause: BaseException) -> str:
    """Return why a checkpoint is not read or written; of damaged pickles PyTorch says what does not help."""
    if isinstance(cause, OSError):
        return ": ".join(filter(None, (Path(cause.filename or "").name, cause.strerror or str(cause))))
    return first_line(cause) if isinstance(cause, ValueError) else "its data is not whole"


def _state_tensors(run: TrainState) -> dict[str, Any]:
    frozen = {name for name, parameter in run.model.named_parameters() if not parameter.requires_grad}
    state = run.model.state_dict()
    return {
        # Frozen weights follow from the recipe.
        "weights": {name: tensor for name, tensor in state.items() if name not in frozen},
        "optimizer": get_optimizer_state_dict(run.model, run.optimizer.optimizers),
        "average": run.ema.average,
    } | ({"kept": dict(run.extra_state)} if run.extra_state else {})
