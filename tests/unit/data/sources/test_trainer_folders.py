"""Folders as trainers keep them: captions in every usual form, links, and all that is passed over by name."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lens.data.build.inventory import take_inventory
from lens.data.build.settings import BuildSettings
from lens.data.io.entry import Entry, PassedOver, SourceError
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.sources.passed_over import PassedOverCounter, no_image_message

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def put(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def listed(root: Path, **settings) -> dict[str, Entry]:
    return {one.address: one for one in ImageFolderSource(path=root, **settings).entries()}


def captions(root: Path, **settings) -> dict[str, str]:
    found = listed(root, **settings)
    assert not any(one.fault for one in found.values()), found
    return {address: one.caption for address, one in found.items()}


def passed_over(root: Path, **settings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in ImageFolderSource(path=root, **settings).listing():
        if isinstance(one, PassedOver):
            found.setdefault(one.kind, []).append(one.address)
    return found


def test_captions_are_read_from_every_form_of_side_file(tmp_path):
    said = "a red \u00e9pple"
    put(tmp_path, {
        "bom.txt": b"\xef\xbb\xbf" + said.encode(), "utf16.txt": said.encode("utf-16"),
        "be.txt": b"\xfe\xff" + said.encode("utf-16-be"), "upper.TXT": said, "own.caption": f" {said}\n",
        "json.json": b"\xef\xbb\xbf" + json.dumps({"Caption": said}).encode(), "a.b.txt": said,
        "whole.jpg.txt": said, "words.json": json.dumps([said]),
        "nested.json": json.dumps({"caption": {"text": said}}),
        "nan.json": json.dumps({"caption": float("nan"), "text": said}),
        "cafe\u0301.txt": said, "lines.txt": "a\r\nb\rc\n",
    })  # fmt: skip
    stems = ("bom", "utf16", "be", "upper", "own", "json", "a.b", "whole", "words", "nested", "nan")
    put(tmp_path, {f"{stem}.jpg": JPEG for stem in (*stems, "lines", "caf\u00e9")})
    found = captions(tmp_path)
    assert found.pop("lines.jpg") == "a\nb\nc"
    assert len(found) == 12 and set(found.values()) == {said}
    assert passed_over(tmp_path) == {}


def test_of_several_captions_one_is_drawn_by_the_seed_and_the_image(tmp_path):
    words = [f"caption {index}" for index in range(4)]
    for index in range(40):
        put(tmp_path, {f"{index}.jpg": JPEG, f"{index}.json": json.dumps({"caption": words})})
    one = captions(tmp_path)
    assert captions(tmp_path) == one and captions(tmp_path, seed=1) != one
    counts = Counter(one.values())
    assert set(counts) == set(words) and min(counts.values()) >= 3


def test_metadata_of_hugging_face_names_the_captions_of_a_folder(tmp_path):
    rows = [
        {"file_name": "a.jpg", "text": "one"},
        {"file_name": "deep/b.jpg", "text": "two", "license": "CC0"},
        {"file_name": "gone.jpg", "text": "three"},
    ]
    put(tmp_path, {"jsonl/metadata.jsonl": "\ufeff" + "\n\n".join(map(json.dumps, rows)) + "\n{broken\n"})
    table = 'file_name,text\na.jpg,"one, with a comma"\ndeep/b.jpg,"[\'two\', \'two\']"\nc.jpg,\n'
    put(tmp_path, {"csv/metadata.csv": table})
    for kind in ("jsonl", "csv"):
        put(tmp_path / kind, {"a.jpg": JPEG, "deep/b.jpg": JPEG, "c.jpg": JPEG, "c.txt": "beside"})
    found = listed(tmp_path)
    sound = {address: one.caption for address, one in found.items() if not one.fault}
    assert sound == {
        "jsonl/a.jpg": "one", "jsonl/deep/b.jpg": "two", "jsonl/c.jpg": "beside",
        "csv/a.jpg": "one, with a comma", "csv/deep/b.jpg": "two", "csv/c.jpg": "beside",
    }  # fmt: skip
    assert found["jsonl/deep/b.jpg"].licence == "CC0"
    faults = {address: one.fault for address, one in found.items() if one.fault}
    assert faults == {"jsonl/metadata.jsonl:5:gone.jpg": "missing", "jsonl/metadata.jsonl:6": "broken_row"}
    assert passed_over(tmp_path) == {}


def test_the_metadata_of_kohya_is_matched_by_path_with_tags_behind_the_caption(tmp_path):
    first = {"/data/train/deep/a.jpg": {"caption": "of the first step"}, "b": {"tags": "red, round"}}
    later = {"/data/train/deep/a.jpg": {"caption": "a fox", "tags": "red"}, "lost": {"caption": "nothing"}}
    put(tmp_path, {
        "meta_cap.json": json.dumps(first), "meta_clean.json": json.dumps(later), "deep/a.jpg": JPEG,
        "b.png": JPEG, "meta_photo.jpg": JPEG, "meta_photo.json": '{"text": "own"}',
    })  # fmt: skip
    assert captions(tmp_path) == {"b.png": "red, round", "deep/a.jpg": "a fox, red", "meta_photo.jpg": "own"}
    assert passed_over(tmp_path) == {"captions without an image": ["meta_clean.json:lost:lost"]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", rb'{"caption": "a red apple \ud83c"}', "half a surrogate pair"),
        ("a.json", rb'{"licence": "\udc00"}', "half a surrogate pair"),
        ("a.json", b"{broken", "not valid JSON"), ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.json", b'{"caption": true}', "a value of type bool"),
        ("a.txt", b"caf\xe9", "not valid UTF-8"), ("a.txt", "a fox".encode("utf-16-le"), "zero bytes"),
        ("a.txt", b"x" * (2**20 + 1), "too many for a caption"),
        ("metadata.jsonl", rb'{"file_name": "a.jpg", "text": "\ud83c"}', "row 1, holds half a surrogate"),
        ("metadata.csv", b"file_name,text\na.jpg,caf\xe9\n", "row 1, holds half a surrogate"),
    ],
)  # fmt: skip
def test_a_broken_caption_is_a_fault_of_its_image_alone(name, content, says, tmp_path):
    put(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG, "b.txt": "a bee", name: content})
    found = listed(tmp_path)
    assert (found["a.jpg"].fault, found["b.jpg"].caption) == ("broken_caption", "a bee")
    assert says in found["a.jpg"].detail


def test_a_name_that_is_no_text_is_listed_stored_and_read(tmp_path):
    root = os.fsencode(tmp_path / "in")
    os.mkdir(root)
    for name, content in ((b"caf\xe9.jpg", JPEG), (b"caf\xe9.txt", b"a cup"), (b"no\xe9.md", b"")):
        with open(root + b"/" + name, "wb") as file:
            file.write(content)
    source = {"kind": "folder", "path": str(tmp_path / "in")}
    inventory = take_inventory(BuildSettings.of({"out": str(tmp_path / "out"), "source": source}))
    ((_, entry),) = inventory.part(0)
    assert (entry.address, entry.caption) == (r"caf\udce9.jpg", "a cup")
    assert Path(entry.path).read_bytes() == JPEG
    assert [str(one) for one in inventory.passed_over] == [r"1 .md files (no\udce9.md)"]


def test_types_are_told_by_content_and_what_is_no_image_is_counted_by_kind(tmp_path):
    names = (
        "a.jfif", "b.jpe", "c.avif", "d.JPG", "e.two.dots.jpg", "noext", "odd.dat", "f.heic", "g.jxl",
        "h.mpo",
    )  # fmt: skip
    put(tmp_path, {name: JPEG for name in names})
    put(tmp_path, {"notes.md": "x", "more.md": "x", "alone.txt": "x", "alone.caption": "x", "README": "x"})
    put(tmp_path, {"page.jpg": "<html>", "raw.txt.gz": "x"})
    put(tmp_path, {"build/recipe.yaml": "x", "build/inventory/a.jpg": JPEG})
    assert set(listed(tmp_path)) == {*names, "page.jpg"}
    assert passed_over(tmp_path) == {
        ".md files": ["more.md", "notes.md"], "captions without an image": ["alone.caption", "alone.txt"],
        "files without an extension": ["README"], ".gz files": ["raw.txt.gz"],
        "folders of a build": ["build/"],
    }  # fmt: skip


def test_hidden_and_derived_files_are_no_data(tmp_path):
    hidden = (
        "._a.jpg", ".thumbnails/a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", ".ipynb_checkpoints/a.jpg",
        "Thumbs.db", "__MACOSX/a.jpg", "SYNOPHOTO_THUMB_M.jpg", "deep/#recycle/a.jpg",
    )  # fmt: skip
    put(tmp_path, dict.fromkeys(hidden, JPEG) | {"a.jpg": JPEG, "deep/b.jpg": JPEG})
    assert set(listed(tmp_path)) == {"a.jpg", "deep/b.jpg"}
    counted = passed_over(tmp_path)
    assert list(counted) == ["hidden or derived files"] and len(*counted.values()) == len(hidden)


@pytest.fixture
def snapshot(tmp_path) -> Path:
    """A data set as the cache of the Hugging Face Hub keeps it: a folder of links to blobs."""
    table = '{"file_name": "b.jpg", "text": "a bee"}'
    put(tmp_path / "hub", {"blobs/01": JPEG, "blobs/02": "a fox", "blobs/03": table})
    root = tmp_path / "hub" / "snapshots" / "main"
    (root / "data").mkdir(parents=True)
    for name, blob in (("a.jpg", "01"), ("a.txt", "02"), ("b.jpg", "01"), ("metadata.jsonl", "03")):
        (root / "data" / name).symlink_to(f"../../../blobs/{blob}")
    return root


def test_a_snapshot_of_the_hub_is_read_though_it_is_all_links(snapshot):
    assert captions(snapshot) == {"data/a.jpg": "a fox", "data/b.jpg": "a bee"}


def test_links_to_files_are_followed_inside_the_source_and_out_of_it_where_that_is_allowed(tmp_path):
    put(tmp_path, {"in/real.jpg": JPEG, "in/real.txt": "a fox", "out/far.jpg": JPEG, "out/deep/d.jpg": JPEG})
    links = {
        "near.jpg": "real.jpg", "far.jpg": "../out/far.jpg", "gone.jpg": "nowhere", "loop.jpg": "loop.jpg",
        "again": ".", "folder": "../out", "up": "..", "second": "../out",
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / "in" / name).symlink_to(target)
    root = tmp_path / "in"
    assert captions(root) == {"near.jpg": "a fox", "real.jpg": "a fox"}
    assert passed_over(root) == {
        "links in a loop": ["again", "loop.jpg", "up"],
        "links out of the source": ["far.jpg", "folder", "second"],
        "broken links": ["gone.jpg"],
    }  # fmt: skip
    assert set(listed(root, allows_outside=True)) == {
        "near.jpg", "real.jpg", "far.jpg", "folder/far.jpg", "folder/deep/d.jpg",
    }  # fmt: skip
    assert passed_over(root, allows_outside=True)["links to folders of the source"] == ["second"]


def test_a_source_without_an_image_says_what_is_there_instead(tmp_path):
    put(tmp_path, {"in/a.tar": "x", "far.jpg": JPEG})
    source = {"kind": "folder", "path": str(tmp_path / "in")}
    settings = BuildSettings.of({"out": str(tmp_path / "out"), "source": source})
    with pytest.raises(SourceError, match=r"1 \.tar files \(a\.tar\)\. .*source\.kind tars"):
        take_inventory(settings)
    (tmp_path / "in" / "link.jpg").symlink_to("../far.jpg")
    with pytest.raises(SourceError, match=r"1 links out of .*\(link\.jpg\)\. Set source\.allows_outside"):
        take_inventory(settings)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root reads everything: run as another user, where this process is root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_folder_and_a_side_file_that_cannot_be_read_are_faults_and_the_rest_is_listed():
    with tempfile.TemporaryDirectory() as folder:  # other users cannot enter pytest's own
        root = put(Path(folder), {"a.jpg": JPEG, "a.txt": "x", "b.jpg": JPEG, "locked/c.jpg": JPEG})
        root.chmod(0o755)
        (root / "a.txt").chmod(0)
        (root / "locked").chmod(0)
        with without_privileges():
            found = listed(root)
        (root / "locked").chmod(0o755)
    assert {address: one.fault for address, one in found.items()} == {
        "a.jpg": "broken_caption", "b.jpg": "", "locked/": "unreadable_folder",
    }  # fmt: skip
    assert "Permission denied" in found["a.jpg"].detail and "Permission denied" in found["locked/"].detail


def test_masks_and_caches_of_trainers_are_no_examples(tmp_path):
    put(tmp_path, {
        "a.png": JPEG, "a.txt": "a fox", "a-masklabel.png": JPEG, "a-condlabel.png": JPEG,
        "the-masklabel.png": JPEG, "_controls/a.png": JPEG, "_latent_cache/a.safetensors": b"x",
        "a_0512x0512_sd.safetensors": b"x",
    })  # fmt: skip
    assert captions(tmp_path) == {"a.png": "a fox", "the-masklabel.png": ""}
    found = passed_over(tmp_path)
    assert found["masks and conditions of other images"] == ["a-condlabel.png", "a-masklabel.png"]
    assert found[".safetensors files"] == ["a_0512x0512_sd.safetensors"]
    assert len(found["hidden or derived files"]) == 2


def test_folders_named_with_repeats_are_read_once_and_told(tmp_path):
    with_repeats = ("10_sks dog", "2_cats", "img/100_fox")
    names = (*with_repeats, "1_once", "2024_holiday", "007_bond", "10", "3_empty/deeper")
    put(tmp_path, {f"{name}/a.jpg": JPEG for name in names})
    assert len(listed(tmp_path)) == len(names)
    ((kind, told),) = passed_over(tmp_path).items()
    assert kind == "repeats in names of folders, as each image counts once"
    assert told == [f"{name}/" for name in with_repeats]
    assert list(passed_over(tmp_path / "2_cats").values()) == [["2_cats"]]


@pytest.mark.parametrize("name", ["all.zip", "all.tar.gz", "ALL.7z"])
def test_an_archive_instead_of_a_folder_is_to_be_unpacked(tmp_path, name):
    archive = put(tmp_path, {name: b"PK"}) / name
    with pytest.raises(SourceError, match="Unpack the archive"):
        listed(archive)
    extension = f".{name.rpartition('.')[2].lower()}"
    counter = PassedOverCounter()
    for one in ImageFolderSource(path=tmp_path).listing():
        assert isinstance(one, PassedOver)
        counter.add(one)
    message = no_image_message(counter.counts(), "x")
    assert f"{extension} files" in message and "Unpack" in message


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_of_a_spreadsheet_may_have_semicolons(tmp_path, mark):
    table = f"{mark}file_name;text\r\na.png;a fox, running\r\n"
    assert captions(put(tmp_path, {"a.png": JPEG, "metadata.csv": table})) == {"a.png": "a fox, running"}
    commas = "file_name,text\r\na.png,a fox; running\r\n"
    assert captions(put(tmp_path, {"metadata.csv": commas})) == {"a.png": "a fox; running"}


def test_captions_by_the_names_of_images_are_read_from_one_file(tmp_path):
    table = {"a.jpg": "a fox", "sub/b.jpg": ["a bee"], "gone.jpg": "x"}
    put(tmp_path, {"a.jpg": JPEG, "sub/b.jpg": JPEG, "captions.json": json.dumps(table)})
    found = listed(tmp_path)
    assert {address: one.caption for address, one in found.items() if not one.fault} == {
        "a.jpg": "a fox", "sub/b.jpg": "a bee"
    }  # fmt: skip
    assert found["captions.json:gone.jpg:gone.jpg"].fault == "missing"
    (tmp_path / "captions.json").write_text('{"a.jpg": ["\\ud83c"], "sub/b.jpg": "a bee"}')
    assert listed(tmp_path)["a.jpg"].fault == "broken_caption"
    for other in ('{"version": 1}', "[1]", "{}"):  # no captions by name
        (tmp_path / "captions.json").write_text(other)
        assert list(passed_over(tmp_path)) == ["captions without an image"]


@pytest.mark.parametrize("key", ["image", "image_path", "path"])
def test_a_table_of_metadata_may_name_its_images_in_other_words(key, tmp_path):
    row = json.dumps({key: "a.jpg", "prompt": "a fox"})
    assert captions(put(tmp_path, {"a.jpg": JPEG, "metadata.jsonl": row})) == {"a.jpg": "a fox"}


def test_tags_are_the_caption_where_there_is_no_other_and_what_shows_nothing_is_none(tmp_path):
    put(tmp_path, {
        "a.json": '{"tags": ["red", "round"]}', "b.json": '{"tags": "red, round", "caption": "a fox"}',
        "c.txt": "\u200b\ufeff ", "d.json": '{"caption": "\u200b"}',
        "metadata.csv": "file_name,tags\ne.jpg,a red fox\n",
    } | {f"{stem}.jpg": JPEG for stem in "abcde"})  # fmt: skip
    assert captions(tmp_path) == {
        "a.jpg": "red, round", "b.jpg": "a fox", "c.jpg": "", "d.jpg": "", "e.jpg": "a red fox",
    }  # fmt: skip
