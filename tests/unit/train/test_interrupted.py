"""What a run finds after a kill, a full disk or a loss of power, and what it says of it."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_stage import Tiny, settings_of
from torch.distributed.checkpoint.api import CheckpointException

from lens.errors import CheckpointError
from lens.files import DiskFullError
from lens.train import checkpoint
from lens.train.trainer import fit

IN_FRONT = {"checkpoint": {"background": False, "every_s": 1e9, "keep_last": 2}}


@pytest.fixture
def run(tmp_path) -> SimpleNamespace:
    """A run of four steps, and what goes on with it for longer."""
    fit(Tiny(), settings_of(tmp_path, **IN_FRONT))
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    go_on = lambda steps=5: fit(Tiny(), settings_of(tmp_path, steps=steps, **IN_FRONT))  # noqa: E731
    return SimpleNamespace(folder=folder, go_on=go_on, metrics=tmp_path / "run" / "metrics.jsonl")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [halve, zero, Path.unlink])
@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "run.json"])
def test_a_damaged_checkpoint_is_told_as_damaged_with_what_is_left(name, damage, run, caplog):
    if name == "run.json" and damage is Path.unlink:
        pytest.skip("a checkpoint without its last file is not complete")
    run.go_on()
    *_, newest = sorted(run.folder.parent.iterdir())
    damage(newest / name)
    says = rf"{newest} is damaged: .*goes on from step_00000004\."
    with pytest.raises(CheckpointError, match=says) as told:
        run.go_on(6)
    assert len(str(told.value).splitlines()) == 1 and "weights_only" not in str(told.value)
    assert not [record for record in caplog.records if record.name == "root"], "PyTorch's tracebacks"


def test_a_checkpoint_of_another_version_is_told_by_what_it_lacks(run):
    (run.folder / "run.json").write_text(json.dumps({"step": 4, "best": None, "guard": {}}))
    with pytest.raises(CheckpointError, match=r"has no num_averaged. Delete it, .* from the beginning"):
        run.go_on()


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(run, monkeypatch):
    def save(_tensors: object, checkpoint_id: Path, **_: object) -> None:
        checkpoint_id.mkdir()
        (checkpoint_id / "half").touch()
        raise CheckpointException("", {0: (OSError(errno.ENOSPC, "No space left on device"), None)})  # type: ignore[dict-item]

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(DiskFullError, match=r"No space left on device. Free some space .* goes on from"):
        run.go_on()
    assert [one.name for one in run.folder.parent.iterdir()] == ["step_00000004"]
    monkeypatch.undo()
    assert run.go_on().step == 5


def test_a_checkpoint_that_a_kill_left_incomplete_goes_with_the_next_one(run):
    (run.folder.parent / "step_00000003").mkdir()
    run.go_on()
    assert [one.name for one in sorted(run.folder.parent.iterdir())] == ["step_00000004", "step_00000005"]


@pytest.mark.parametrize(
    "rest", [bytes(40), bytes(40) + b"\n", b'{"step": 4, \xff}\n', b"[4]\n", b'{"st'], ids=str
)
def test_damaged_lines_of_metrics_are_replaced(rest, run):
    with run.metrics.open("ab") as file:
        file.write(rest)
    run.go_on()
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
