"""Logging of metrics to metrics.jsonl, TensorBoard and an optional experiment tracker.

Knows nothing of the meaning of the metrics.
"""

import importlib
import json
import math
import secrets
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console

from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.text_files import TextError, parse_json
from lens.train.settings.run import RunSettings

TRACKER_RUN_FILE = "tracker_run.txt"
"""File in the folder of a run with its name in the tracker, so that a resumed run continues there."""
TRACKER_REPEATED_FILE = "tracker_repeated.json"
"""File with the steps and names of lines that a tracker has from before a kill."""


class MetricsLogger:
    """Writes the metrics of a run as JSON lines to metrics.jsonl, and to TensorBoard and the tracker.

    Lines that a killed run wrote after its last checkpoint are removed from the file, as those steps are
    repeated. The tracker has them already and receives none of them again. Only the main rank writes.
    """

    def __init__(self, settings: RunSettings, step: int, is_main: bool = True):
        """Open metrics.jsonl, TensorBoard and the tracker.

        Raises: SettingError for a tracker that is not installed.
        """
        self._lines = self._events = self._tracker = None
        if not is_main:
            return
        folder = settings.out
        self._tracker = _start_tracker(settings)
        folder.mkdir(parents=True, exist_ok=True)
        self._tracked = _repeated_lines(truncate_after(step, folder / "metrics.jsonl"), folder)
        self._lines = (folder / "metrics.jsonl").open("a")
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            Console(stderr=True).print("TensorBoard is not installed; only metrics.jsonl is written.")
        else:
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        if self._lines is None:
            return
        rounded = {name: round(value, 6) if math.isfinite(value) else None for name, value in metrics.items()}
        self._lines.write(json.dumps({"step": step, **rounded}) + "\n")
        self._lines.flush()
        for name, value in metrics.items() if self._events else ():
            self._events.add_scalar(name, value, step)  # type: ignore[union-attr]
        if self._tracker and _line_key({"step": step, **metrics}) not in self._tracked:
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            self._tracker.log(finite, step=step)

    def __enter__(self) -> "MetricsLogger":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lines:
            self._lines.close()
        if self._events:
            self._events.close()
        if self._tracker:
            with redirect_stdout(sys.stderr):
                self._tracker.finish()


def load_tracker(name: str) -> Any:
    """Return the module of a tracker, or None for the tracker `none`. Both packages have init, log and
    finish.

    Raises: SettingError if the package is not installed.
    """
    if name == "none":
        return None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = f"Run: .venv/bin/pip install {name}"
        raise SettingError("tracker", name, f"the package {name}", fix) from error


def truncate_after(step: int, path: Path) -> list[dict[str, Any]]:
    """Remove damaged lines and the lines of later steps from a metrics file; return the latter.

    The last line of a killed run may be incomplete, and a machine that lost its power leaves zeros.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    complete = [(line, values) for line in lines if (values := _parse_line(line)) is not None]
    remaining = [line for line, values in complete if values["step"] <= step]
    if len(remaining) < len(lines):
        write_bytes_atomic(path, b"".join(remaining))
    return [values for _, values in complete if values["step"] > step]


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line; None for a damaged one."""
    try:
        values = parse_json(line) if line.endswith(b"\n") else None
    except TextError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None


def _repeated_lines(removed: list[dict[str, Any]], folder: Path) -> set[tuple[int, frozenset[str]]]:
    """Return the lines that a tracker received before: those removed now, and those removed earlier."""
    path = folder / TRACKER_REPEATED_FILE
    earlier = json.loads(path.read_text()) if path.is_file() else []
    lines = {(step, frozenset(names)) for step, names in earlier} | {_line_key(line) for line in removed}
    if removed:
        rows = sorted((step, sorted(names)) for step, names in lines)
        write_bytes_atomic(path, json.dumps(rows).encode())
    return lines


def _line_key(line: dict[str, Any]) -> tuple[int, frozenset[str]]:
    """Return what tells a line of metrics from the others: its step and the names of its metrics."""
    return line["step"], frozenset(line)


def _start_tracker(settings: RunSettings) -> Any:
    """Start or resume this run in the tracker; return the module of the tracker."""
    tracker = load_tracker(settings.tracker)
    if tracker is None:
        return None
    settings.out.mkdir(parents=True, exist_ok=True)
    run_file = settings.out / TRACKER_RUN_FILE
    if not run_file.is_file():
        run_file.write_text(f"{settings.out.name}-{secrets.token_hex(3)}")
    name = run_file.read_text()
    # Weights & Biases identifies a run by its id, trackio by its name.
    own = {"id": name} if settings.tracker == "wandb" else {}
    with redirect_stdout(sys.stderr):  # stdout carries the command's result
        tracker.init(
            project=settings.tracker_project, name=name, resume="allow",
            config=settings.model_dump(mode="json"), **own,
        )  # fmt: skip
    return tracker
