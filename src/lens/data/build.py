"""A whole build: inventory, scores, view, shards, and the manifest last.

Each step leaves complete files that the next run finds, so the same command goes on after any interruption.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lens.config import write_yaml
from lens.data.execution import done_in_parallel, ray_session
from lens.data.inventory import Inventory, take_inventory
from lens.data.measuring import FOLDER, measure_part
from lens.data.packing import pack_shard, shard_names
from lens.data.recipe import BuildSettings
from lens.data.shards import json_bytes
from lens.data.sources.manifest import ManifestSource
from lens.data.tables import part_path, write_bytes
from lens.data.view import View, make_view

OnProgress = Callable[[str, int, int], None]
"""Called with (step, done, total)."""


def build(settings: BuildSettings, on_progress: OnProgress = lambda *_: None) -> dict[str, Any]:
    """Build what the settings say, going on with what is there; return the manifest.

    Raises: SourceError, ShardError, SettingError; what was done until then stays and is not done again.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    write_yaml(settings.model_dump(mode="json"), settings.out / "recipe.yaml")
    on_progress("inventory", 0, 1)
    inventory = take_inventory(settings)
    scores, downloads = settings.out / "scores" / settings.inventory_id, settings.out / "downloads"
    with ray_session(settings.ray_address, settings.num_workers):
        _measure(settings, inventory, scores, downloads, on_progress)
        on_progress("view", 0, 1)
        view = make_view(settings, inventory, scores)
        shards = _pack(settings, inventory, view, downloads, on_progress)
    manifest = {
        "view": settings.view_id, "inventory": settings.inventory_id, "num_entries": inventory.num_entries,
        "counts": view.counts, "shards": shards,
    }  # fmt: skip
    write_bytes(view.folder / "manifest.json", json_bytes(manifest))
    return manifest


def _measure(
    settings: BuildSettings, inventory: Inventory, scores: Path, downloads: Path, on_progress: OnProgress
) -> None:
    sources = enumerate(settings.all_sources)
    fetching = {number: one.fetching for number, one in sources if isinstance(one, ManifestSource)}
    numbers = range(inventory.num_parts)
    missing = [number for number in numbers if not part_path(scores / FOLDER, number).is_file()]

    def work(number: int) -> int:
        return measure_part(inventory, number, scores, downloads, fetching)

    done = len(numbers) - len(missing)
    on_progress("scores", done, len(numbers))
    for count, _ in enumerate(done_in_parallel(work, missing, settings.num_workers), 1):
        on_progress("scores", done + count, len(numbers))


def _pack(
    settings: BuildSettings, inventory: Inventory, view: View, downloads: Path, on_progress: OnProgress
) -> list[dict[str, Any]]:
    names = shard_names(view.folder)
    shard_settings = settings.shards

    def work(name: str) -> dict[str, Any]:
        return pack_shard(inventory, view.folder, name, shard_settings, downloads)

    missing = [name for name in names if not (view.folder / "shards" / f"{name}.json").is_file()]
    on_progress("shards", len(names) - len(missing), len(names))
    for count, _ in enumerate(done_in_parallel(work, missing, settings.num_workers), 1):
        on_progress("shards", len(names) - len(missing) + count, len(names))
    return [work(name) for name in names]
