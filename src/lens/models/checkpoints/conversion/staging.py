"""A hidden folder beside a target, in which it is written: a killed conversion leaves nothing visible.

The folder is locked by its process. The next conversion into the same place removes those that no process
holds any more. Knows nothing of what is written.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from lens.errors import SettingError
from lens.files import FileWriteError

LOCK_NAME = "lock"


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to, which gets the name `target` at the end of the block.

    Raises: SettingError where something has the name by then; FileWriteError.
    """
    _remove_abandoned(target.parent)
    folder = target.parent / f".lens-{uuid4().hex}.partial"
    missing = [parent for parent in target.absolute().parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise FileWriteError(f"Cannot write {target}: {error.strerror or error}.") from error
    try:
        with _locked(folder):
            yield folder / target.name
            _move(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in missing if not target.exists() else ():
            with suppress(OSError):  # something else may be in it by now
                parent.rmdir()


def _move(path: Path, target: Path) -> None:
    if target.exists():
        raise SettingError("target", str(target), "a path that does not exist yet", "Choose another.")
    os.rename(path, target)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    unlocked = folder / f"{LOCK_NAME}.new"
    with open(unlocked, "wb") as lock:
        _lock(lock.fileno())
        unlocked.rename(folder / LOCK_NAME)  # nobody else may take the lock before
        yield


def _remove_abandoned(parent: Path) -> None:
    """Remove the hidden folders of conversions that were killed."""
    for folder in parent.glob(".lens-*.partial"):
        with suppress(OSError):
            # A folder without a lock is about to be locked, or not a conversion's.
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR)
            try:
                if _lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Return whether a lock that no other process holds was taken; it ends with the process."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # no locks on this system, or another process holds it
        return False
    return True
