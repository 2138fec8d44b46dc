"""Tables that others wrote: every row is an image or a fault with its number, wherever the bytes are."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from lens.data.build.inventory import take_inventory
from lens.data.build.reader import EntryReader
from lens.data.build.scoring import PIXEL_SCORES_FOLDER, score_part
from lens.data.build.settings import BuildSettings
from lens.data.io.entry import Entry, EntryReadError, PassedOver, SourceError
from lens.data.io.parquet import read_parts
from lens.data.sources.manifest import ManifestSource


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), colour).save(buffer, "PNG")
    return buffer.getvalue()


def listed(path: Path, **settings) -> dict[str, Entry]:
    return {one.address: one for one in ManifestSource(path=path, **settings).entries()}


def faults(path: Path, **settings) -> dict[str, str]:
    return {address: one.fault for address, one in listed(path, **settings).items() if one.fault}


def test_broken_rows_of_jsonl_are_faults_with_their_line_and_the_others_images(tmp_path):
    lines = [
        '{"path": "a.jpg", "caption": NaN, "license": "CC0"}', "", '{"path": null}', "[1]", "{broken",
        r'{"path": "b.jpg", "caption": "\ud83c"}', r'{"path": "\ud83c.jpg"}', '{"path": "s3://bucket/a.jpg"}',
        '{"path": "../a.jpg"}', '{"path": "/etc/passwd"}', '{"path": ["a.jpg"]}',
        '{"url": NaN, "path": "c.jpg"}',
        '{"path": "%s.jpg"}' % ("x" * 300), '{"path": "a\\u0000.jpg"}',
    ]  # fmt: skip
    content = "\n".join(lines).encode() + b'\n{"path": "caf\xe9.jpg"}\r\n{"path": "d.jpg", "text": ["one"]}'
    (tmp_path / "l.jsonl").write_bytes(b"\xef\xbb\xbf" + content)
    found = listed(tmp_path / "l.jsonl")
    sound = {address: one.caption for address, one in found.items() if not one.fault}
    assert sound == {
        "l.jsonl:1:a.jpg": "", "l.jsonl:12:c.jpg": "", f"l.jsonl:13:{'x' * 300}.jpg": "",
        "l.jsonl:16:d.jpg": "one",
    }  # fmt: skip
    assert found["l.jsonl:1:a.jpg"].licence == "CC0"
    kinds = {int(address.split(":")[1]): one.fault for address, one in found.items() if one.fault}
    assert kinds == dict.fromkeys((3, 4, 5, 6, 7, 11, 14, 15), "broken_row") | {
        8: "bad_address", 9: "outside", 10: "outside",
    }  # fmt: skip
    assert "l.jsonl, row 6, holds half a surrogate pair" in found["l.jsonl:6"].detail
    inside = faults(tmp_path / "l.jsonl", allows_outside=True)
    assert "outside" not in inside.values()


def test_csv_in_any_encoding_is_a_manifest(tmp_path):
    text = 'image_url,TEXT\nhttps://example.org/a.jpg,"one, two"\n,nothing\nhttps://example.org/b.jpg,x,y\n'
    for name, encoding in (("a.csv", "utf-8"), ("b.csv", "utf-16"), ("c.tsv", "utf-8-sig")):
        (tmp_path / name).write_text(text.replace(",", "\t") if name == "c.tsv" else text, encoding=encoding)
    found = listed(tmp_path)
    assert [one.path for one in found.values() if not one.fault] == ["https://example.org/a.jpg"] * 3
    assert found["a.csv:1:https://example.org/a.jpg"].caption == "one, two"
    names = ("a.csv", "b.csv", "c.tsv")
    assert set(faults(tmp_path)) == {f"{name}:{row}" for name in names for row in (2, 3)}


def test_a_null_or_a_text_that_is_not_utf8_in_parquet_is_a_fault_of_its_row_alone(tmp_path):
    texts = pa.array([b"one", b"caf\xe9", b"three", b"four"]).view(pa.string())
    table = pa.table({"url": ["a.jpg", "b.jpg", None, "d.jpg"], "caption": texts})
    parquet.write_table(table, tmp_path / "0.parquet")
    (tmp_path / "1.parquet").write_bytes((tmp_path / "0.parquet").read_bytes()[:-40])
    assert faults(tmp_path) == dict.fromkeys(["0.parquet:2", "0.parquet:3", "1.parquet:1"], "broken_row")
    assert [one.caption for one in listed(tmp_path).values() if not one.fault] == ["one", "four"]


def test_images_inside_the_parquet_files_of_hugging_face_are_read(tmp_path):
    images = [{"bytes": png("red"), "path": "r.png"}, {"bytes": None, "path": "gone.png"}, None,
              {"bytes": png("blue"), "path": None}]  # fmt: skip
    (tmp_path / "in" / "data").mkdir(parents=True)
    table = pa.table({"image": images, "text": [["one", "one"], ["x"], ["y"], ["two"]]})
    parquet.write_table(table, tmp_path / "in" / "data" / "train-0.parquet", row_group_size=2)
    other = pa.table({"jpg": [png("lime")], "caption": ["three"]})
    parquet.write_table(other, tmp_path / "in" / "other.parquet")
    source = {"kind": "manifest", "path": str(tmp_path / "in")}
    settings = BuildSettings.of({"out": str(tmp_path / "out"), "source": source})
    inventory = take_inventory(settings)
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    assert score_part(inventory, 0, tmp_path / "scores", reader) == 5
    reasons = read_parts(tmp_path / "scores" / PIXEL_SCORES_FOLDER, 1).column("unreadable").to_pylist()
    assert reasons == ["", "missing", "missing", "", ""]
    part = inventory.part(0)
    kept = [0, 3, 4]
    assert [part[row][1].caption for row in kept] == ["one", "two", "three"]
    assert [reader.read(part[row]) for row in kept] == [png("red"), png("blue"), png("lime")]


def test_a_path_stands_for_an_image_that_hugging_face_did_not_embed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png("red"))
    (tmp_path / "far.png").write_bytes(png("blue"))
    names = ["a.png", str(tmp_path / "in" / "a.png"), str(tmp_path / "far.png"), "../far.png", "gone.png"]
    table = pa.table({
        "image": pa.array([{"bytes": None, "path": name} for name in names],
                          pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "in" / "train.parquet")
    for allows_outside, found in ((False, ["red", "red"]), (True, ["red", "red", "blue", "blue"])):
        source = ManifestSource(path=tmp_path / "in", allows_outside=allows_outside)
        entries = [*source.entries()]
        cache = tmp_path / f"cache-{allows_outside}"
        source.prefetch(entries, cache)
        assert [source.read(one, cache) for one in entries[: len(found)]] == [png(colour) for colour in found]
        for one in entries[len(found) :]:
            with pytest.raises(EntryReadError, match=r"row \d, has no bytes .*nor the path .*outside"):
                source.read(one, cache)


def test_a_missing_file_an_empty_one_and_a_folder_have_reasons_of_their_own(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a.png").write_bytes(png("red"))
    rows = [{"path": f"{name}.png"} for name in ("gone", "empty", "folder", "a")] + [{"path": 3}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"kind": "manifest", "path": str(tmp_path / "l.jsonl")}
    settings = BuildSettings.of({"out": str(tmp_path / "out"), "source": source})
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    score_part(take_inventory(settings), 0, tmp_path / "scores", reader)
    scores = read_parts(tmp_path / "scores" / PIXEL_SCORES_FOLDER, 1)
    assert scores.column("unreadable").to_pylist() == ["missing", "empty", "unreadable", "", "broken_row"]
    assert len(set(scores.column("id").to_pylist())) == 5


def test_files_beside_a_manifest_that_no_row_names_are_passed_over(tmp_path):
    for name in ("a.png", "b.png", "README.md", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "l.jsonl").write_text('{"path": "a.png"}')
    listing = ManifestSource(path=tmp_path).listing()
    assert {(one.kind, one.address) for one in listing if isinstance(one, PassedOver)} == {
        ("hidden or derived files", ".hidden"), (".md files", "README.md"), (".png files", "b.png"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["config.csv", "config.jsonl"])
def test_a_table_that_names_no_image_at_all_is_an_error_that_says_so(name, tmp_path):
    (tmp_path / name).write_text('{"speed": 1}\n{"speed": 2}\n')
    with pytest.raises(SourceError, match=r"No row of .* can be used.*row 1, .*Set source\.location"):
        listed(tmp_path)
