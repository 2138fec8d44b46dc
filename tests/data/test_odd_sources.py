"""Builds from sources as they are found: nothing stops them, and everything is accounted for by name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from local_server import Answering, started_server
from PIL import Image
from typer.testing import CliRunner

from lens.cli.main import app
from lens.data.build.settings import BuildSettings
from lens.data.build.verify import verify_build
from lens.data.io.parquet import read_table
from lens.data.io.sample import parse_sample
from lens.data.io.webdataset import read_shard, write_shard
from lens.data.pipeline import build_dataset
from lens.errors import SettingError
from lens.files import hold_folder


def picture(seed: int, side: int = 512) -> bytes:
    buffer = io.BytesIO()
    cells = np.random.default_rng(seed).integers(0, 256, (side // 16, side // 16, 3), np.uint8)
    Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def values_of(source: dict, out: Path) -> dict:
    own = {"captions": {"kind": "sidecar", "requires": False}, "shards": {"format": "png"}}
    return {"out": str(out), "source": source, "num_workers": 2} | own


def ledger_of(out: Path, view: str) -> dict[str, str]:
    rows = read_table(out / "views" / view / "ledger.parquet").to_pylist()
    return {row["reason"]: f"{row['address']}: {row['detail']}" for row in rows}


def test_a_build_of_odd_files_ends_with_all_of_them_accounted_for(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for index, name in enumerate((b"good.png", b"no-extension", b"caf\xe9.png")):
        with open(bytes(root) + b"/" + name, "wb") as file:
            file.write(picture(index))
    (root / "half.png").write_bytes(picture(3))
    (root / "half.json").write_bytes(rb'{"caption": "an apple \ud83c"}')
    (root / "page.jpg").write_text("<html>")
    (root / "cut.png").write_bytes(picture(4)[:40])
    (root / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "x"}\n')
    (root / "notes.md").write_text("x")
    (root / "._good.png").write_text("x")
    out = tmp_path / "out"
    settings = BuildSettings.of(values_of({"kind": "folder", "path": str(root)}, out))
    summary = build_dataset(settings)
    assert summary["counts"] == {
        "kept": 3, "exact_copies": 0, "broken_caption": 1, "unknown_type": 1, "corrupt": 1, "missing": 1,
    }  # fmt: skip
    ledger = ledger_of(out, summary["view"])
    assert ledger["broken_caption"].startswith("half.png: .json holds half a surrogate pair")
    assert ledger["corrupt"].startswith("cut.png: ")
    assert verify_build(out).faults == ()
    report = Path(summary["report"]).read_text()
    for kind in ("hidden or derived files", ".md files"):
        assert {"kind": kind, "count": 1}.items() <= next(
            one.items() for one in summary["passed_over"] if one["kind"] == kind
        )
        assert kind in report


def test_a_build_of_which_nothing_stays_tells_the_reasons_each_time(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "small.png").write_bytes(picture(0, 64))
    recipe = tmp_path / "recipe.yaml"
    source = {"kind": "folder", "path": str(tmp_path / "in")}
    recipe.write_text(json.dumps(values_of(source, tmp_path / "out")))
    for _ in range(2):
        result = CliRunner().invoke(app, ["data", "build", str(recipe)])
        assert result.exit_code == 0, result.output
        assert "1  too_small" in result.stderr and "No image is kept" in result.stderr
    assert verify_build(tmp_path / "out").faults == ()


def test_images_that_were_unreachable_come_with_the_next_run_and_the_old_view_stays(tmp_path):
    class Handler(Answering):
        is_down = True

        def do_GET(self):
            self.send(*((503, {}, b"") if Handler.is_down else (200, {}, picture(int(self.path[1:])))))

    server = started_server(Handler)
    site = f"http://127.0.0.1:{server.server_port}"
    rows = [{"url": f"{site}/{index}", "caption": str(index)} for index in range(2)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fetching = {"allows_private_hosts": True, "max_attempts": 1}
    source = {"kind": "manifest", "path": str(tmp_path / "in"), "fetching": fetching}
    settings = BuildSettings.of(values_of(source, tmp_path / "out"))
    first, again = build_dataset(settings), build_dataset(settings)
    assert first["counts"] == again["counts"] == {"kept": 0, "exact_copies": 0, "unreachable": 2}
    Handler.is_down = False
    second, third = build_dataset(settings), build_dataset(settings)
    server.shutdown()
    assert second["counts"] == third["counts"] == {"kept": 2, "exact_copies": 0}
    assert (again["view"], third["view"]) == (first["view"], second["view"])
    for view, kept in ((first["view"], 0), (second["view"], 2)):
        verdict = verify_build(tmp_path / "out", view)
        assert (verdict.faults, verdict.num_in_shards) == ((), kept)


def test_shards_of_a_build_are_built_again_with_the_same_captions_and_licences(tmp_path):
    facts = json.dumps({"licence": "CC-BY-4.0", "id": "x", "address": "y"}).encode()
    files = {"png": picture(0), "txt": b"a red fox on grass", "brief.txt": b"a fox", "json": facts}
    write_shard(tmp_path / "in" / "0.tar", [("one", files), ("two", {"png": picture(1), "txt": b"a bee"})])
    shards = tmp_path / "in"
    for out in (tmp_path / "first", tmp_path / "second"):
        source = {"kind": "tars", "path": str(shards), "licence": "MIT"}
        summary = build_dataset(BuildSettings.of(values_of(source, out)))
        assert summary["counts"] == {"kept": 2, "exact_copies": 0}
        shards = out / "views" / summary["view"] / "shards"
    samples = [files for tar in shards.glob("*.tar") for _, files in read_shard(tar)]
    said = {(one.caption, one.brief, json.loads(files["json"])["licence"]) for files in samples
            if (one := parse_sample(files).sidecar)}  # fmt: skip
    assert said == {("a red fox on grass", "a fox", "CC-BY-4.0"), ("a bee", "", "MIT")}


@pytest.mark.parametrize("until", ["inventory", "scores"])
def test_a_build_that_ends_early_tells_what_was_passed_over(until, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(0))
    (tmp_path / "in" / "odd\x1b[31m.md").write_text("x")
    source = ["--set", f"source.path={tmp_path / 'in'}", "--set", f"out={tmp_path / 'out'}"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("source: {kind: folder}")
    result = CliRunner().invoke(app, ["data", "build", str(recipe), *source, "--until", until])
    assert result.exit_code == 0, result.output
    assert r"1  passed over: .md files (odd\x1b[31m.md)" in result.stderr


def test_two_builds_at_once_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("lens.files.MAX_HELD_S", 0.0)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(0))
    settings = BuildSettings.of(values_of({"kind": "folder", "path": str(tmp_path / "in")}, tmp_path / "out"))
    with (
        hold_folder(tmp_path / "out", "out"),
        pytest.raises(SettingError, match="no other run is writing into"),
    ):
        build_dataset(settings)
    assert list((tmp_path / "out").iterdir()) == []
