"""The build pipeline: inventory, scores, selection, captions, view, shards, then manifest and report.

Each stage writes complete files that the next run finds, so the same command resumes after any interruption.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lens.config import write_yaml
from lens.data.build.filters import KEPT
from lens.data.build.inventory import Inventory, take_inventory
from lens.data.build.prepared import Preparation, prepared_root
from lens.data.build.process_executor import map_in_processes
from lens.data.build.ray_executor import has_gpus, is_connected, map_parallel, ray_session
from lens.data.build.reader import EntryReader
from lens.data.build.rounds import begin_round, latest_round, parts_to_retry, retry_downloads
from lens.data.build.scoring import score_part, unscored_parts
from lens.data.build.selection import ScoreTable, Selection, select_samples
from lens.data.build.settings import BuildSettings
from lens.data.build.shard_writer import shard_names, write_view_shard
from lens.data.build.view import View, load_view, write_view
from lens.data.captions.captioner import caption_costs, caption_samples
from lens.data.captions.requests import CaptionInput, CaptionResult
from lens.data.io.webdataset import json_bytes
from lens.data.report.page import write_report
from lens.data.scorers.pretrained import PretrainedSettings
from lens.files import hold_folder, remove_partials, write_bytes_atomic

RAY_MIN_ENTRIES = 100_000
"""Entries from which on a build on one machine starts Ray, whose start is then a small part of it."""
BuildStage = Literal["inventory", "scores", "view", "shards"]
BuildProgressCallback = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def build_dataset(
    settings: BuildSettings,
    on_progress: BuildProgressCallback = lambda *_: None,
    until: BuildStage = "shards",
) -> dict[str, Any]:
    """Run a build up to a stage, resuming what exists; return a summary.

    Raises: SourceError, ShardError, SettingError, IncompleteCaptionsError, DiskFullError. Finished work is
    kept and is not done again.
    """
    settings.check_inputs()  # before anything is written
    with hold_folder(settings.out, "out"):
        return _Pipeline(settings, on_progress).run(until)


class _Pipeline:
    def __init__(self, settings: BuildSettings, on_progress: BuildProgressCallback):
        self.settings, self.out, self.on_progress = settings, settings.out, on_progress
        self.reader = EntryReader(settings.all_sources, settings.out / "downloads")
        self._uses_ray = False

    def run(self, until: BuildStage) -> dict[str, Any]:
        settings = self.settings
        self.on_progress("inventory", 0, 1)
        with self._record_timing("inventory") as count:
            inventory = take_inventory(settings)
            count["items"] = inventory.num_entries
        write_yaml(settings.model_dump(mode="json"), self.out / "recipe.yaml")
        facts: dict[str, Any] = {
            "inventory": settings.inventory_id, "num_entries": inventory.num_entries,
            "passed_over": [one._asdict() for one in inventory.passed_over],
        }  # fmt: skip
        if until == "inventory":
            return facts
        with self._workers(inventory):
            scores = self._retry_downloads(inventory)
            # Models drop most images, and shards of a large build need the disk for themselves.
            prepares = until == "shards" and not settings.scorers and not self._uses_ray
            preparation = Preparation.of(settings) if prepares else None
            self._score(settings, inventory, self.reader, scores, preparation)
            facts["scores"] = scores.name
            if until == "scores":
                return facts
            # A view belongs to one round of scores.
            name = "-".join(filter(None, (settings.view_id, scores.name.partition("-")[2])))
            view = load_view(settings, name) or self._select_and_write_view(name, inventory, scores)
            facts |= {"view": name, "counts": view.counts, "captions": view.captions}
            if until == "view":
                return facts
            facts["shards"] = self._write_shards(inventory, view)
        shutil.rmtree(prepared_root(self.out), ignore_errors=True)
        for finished in (inventory.folder, scores, view.folder):
            remove_partials(finished)
        write_bytes_atomic(view.folder / "manifest.json", json_bytes(facts))
        report = write_report(self.out, name, settings.filters, self.reader.read)
        return facts | {"report": str(report)}

    @contextmanager
    def _workers(self, inventory: Inventory) -> Iterator[None]:
        """Provide the workers of a build: of Ray where it needs a cluster, else processes of this machine."""
        settings = self.settings
        self._uses_ray = needs_ray(settings, inventory.num_entries)
        with ray_session(settings.ray_address, settings.num_workers) if self._uses_ray else nullcontext():
            yield

    def _map_parallel(
        self, work: Callable[[Any], Any], items: Sequence[Any], gpus_per_worker: float = 0.0
    ) -> Iterator[Any]:
        if self._uses_ray:
            return map_parallel(work, items, self.settings.num_workers, gpus_per_worker)
        return map_in_processes(work, items, self.settings.num_workers)

    def _retry_downloads(self, inventory: Inventory) -> Path:
        """Return the folder of the scores: of a new round, where downloads that failed are there now."""
        scores = latest_round(self.out / "scores", inventory.folder.name)

        parts = parts_to_retry(scores, inventory.num_parts)
        work = partial(_retry_part, inventory, scores=scores, reader=self.reader)
        retried = self._map_parallel(work, parts)
        stale = {number for number, is_stale in retried if is_stale}
        return begin_round(scores, stale) if stale else scores

    def _score(
        self, settings: BuildSettings, inventory: Inventory, reader: EntryReader, scores: Path,
        preparation: Preparation | None = None,
    ) -> None:  # fmt: skip
        scorers = settings.scorers
        total = inventory.num_parts
        missing = unscored_parts(scores, total, scorers)

        work = partial(
            score_part, inventory, scores=scores, reader=reader, scorers=scorers, preparation=preparation
        )
        self.on_progress("scores", total - len(missing), total)
        with self._record_timing("scores") as count:
            gpus = _gpus_per_worker(settings)
            for done, entries in enumerate(self._map_parallel(work, missing, gpus), 1):
                count["items"] += entries
                self.on_progress("scores", total - len(missing) + done, total)

    def _select_and_write_view(self, name: str, inventory: Inventory, scores: Path) -> View:
        self.on_progress("view", 0, 1)
        held_out = self._score_held_out()
        with self._record_timing("view") as count:
            selection = select_samples(self.settings, inventory, scores, held_out)
            count["items"] = len(selection.ids)
        captions = self._caption(inventory, selection)
        costs = caption_costs(self.settings.captions, captions.values())
        return write_view(self.settings, name, selection, captions, costs)

    def _score_held_out(self) -> ScoreTable | None:
        """Return the scores of the held-out images."""
        if self.settings.held_out is None:
            return None
        source = {"kind": "folder", "path": str(self.settings.held_out)}
        values = self.settings.model_dump(mode="json") | {"source": source, "sources": [], "held_out": None}
        settings = BuildSettings.of(values)
        inventory = take_inventory(settings)
        reader = EntryReader(settings.all_sources, self.reader.downloads)
        scores = self.out / "scores" / settings.inventory_id
        self._score(settings, inventory, reader, scores)
        return ScoreTable.of(settings, inventory, scores)

    def _caption(self, inventory: Inventory, selection: Selection) -> Mapping[str, CaptionResult]:
        left = np.flatnonzero(selection.reasons == KEPT).tolist()
        samples = self._caption_inputs(inventory, selection, left)
        with self._record_timing("captions") as count:
            count["items"] = len(left)
            folder = self.out / "captions"
            return caption_samples(
                self.settings.captions,
                samples,
                folder,
                lambda done: self.on_progress("captions", done, len(left)),
            )

    def _caption_inputs(
        self, inventory: Inventory, selection: Selection, left: list[int]
    ) -> Iterator[CaptionInput]:
        size, number, part = self.settings.part_size, -1, []
        for index in left:
            place = int(selection.entries[index])
            if place // size != number:
                number = place // size
                part = inventory.part(number)
            numbered = part[place % size]
            words = selection.ocr_words[index] if selection.ocr_words else ()
            name, entry = selection.ids[index].decode(), numbered[1]
            read = partial(self.reader.read, numbered)
            yield CaptionInput(name, entry.caption, words, read, entry.brief)

    def _write_shards(self, inventory: Inventory, view: View) -> list[dict[str, Any]]:
        names = shard_names(view.folder)
        prepared = Preparation.of(self.settings).folder
        work = partial(
            write_view_shard, inventory, view.folder, settings=self.settings.shards, reader=self.reader,
            prepared=prepared,
        )  # fmt: skip
        missing = [name for name in names if not (view.folder / "shards" / f"{name}.json").is_file()]
        self.on_progress("shards", len(names) - len(missing), len(names))
        with self._record_timing("shards") as count:
            for done, facts in enumerate(self._map_parallel(work, missing), 1):
                count["items"] += facts["num_samples"]
                self.on_progress("shards", len(names) - len(missing) + done, len(names))
        return [work(name) for name in names]

    @contextmanager
    def _record_timing(self, stage: str) -> Iterator[dict[str, int]]:
        """Add a line to timings.jsonl at the end of a stage that had work."""
        count, started_at = {"items": 0}, time.monotonic()
        yield count
        if count["items"]:
            seconds = round(time.monotonic() - started_at, 3)
            line = {"stage": stage, **count, "seconds": seconds, "date": f"{datetime.now():%Y-%m-%dT%H:%M}"}
            with (self.out / "timings.jsonl").open("a") as lines:
                lines.write(json.dumps(line) + "\n")


def needs_ray(settings: BuildSettings, num_entries: int) -> bool:
    """Return whether a build needs Ray: for a cluster, for GPUs, or because it is large."""
    has_weights = any(isinstance(one, PretrainedSettings) and one.device != "cpu" for one in settings.scorers)
    return (
        settings.ray_address is not None or is_connected() or has_weights or bool(settings.gpus_per_worker)
        or settings.captions.kind == "vllm" or num_entries >= RAY_MIN_ENTRIES
    )  # fmt: skip


def _retry_part(
    inventory: Inventory, number: int, scores: Path, reader: EntryReader
) -> tuple[int, bool]:
    return number, retry_downloads(inventory, number, scores, reader)


def _gpus_per_worker(settings: BuildSettings) -> float:
    if settings.gpus_per_worker is not None:
        return settings.gpus_per_worker
    can_use = any(isinstance(one, PretrainedSettings) and one.device != "cpu" for one in settings.scorers)
    return 1.0 if can_use and has_gpus() else 0.0
