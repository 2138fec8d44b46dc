"""Tars that others wrote: whose caption is whose, links between members, and what is broken."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from lens.data.io.entry import Entry, PassedOver, read_entry
from lens.data.sources.webdataset import WebDatasetSource


def tar_of(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """Write a tar; a member of text is one with that caption, and one that begins with `->` a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str) and content[:3] in ("-> ", "=> "):
                member.type = tarfile.SYMTYPE if content[0] == "-" else tarfile.LNKTYPE
                member.linkname, content = content[3:], b""
            content = content.encode() if isinstance(content, str) else content
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def listed(root: Path, **settings) -> dict[str, Entry]:
    return {one.address: one for one in WebDatasetSource(path=root, **settings).entries()}


def captions(root: Path) -> dict[bytes, str]:
    return {read_entry(one): one.caption for one in listed(root).values()}


def faults(root: Path) -> dict[str, str]:
    return {one.address: one.fault for one in listed(root).values() if one.fault}


def passed_over(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in WebDatasetSource(path=root).listing():
        if isinstance(one, PassedOver):
            found.setdefault(one.kind, []).append(one.address)
    return found


def test_texts_belong_to_their_image_wherever_they_stand_in_the_tar(tmp_path):
    two = '{"text": "two"}'
    tar_of(tmp_path / "0.tar", ("a.jpg", b"A"), ("b.jpg", b"B"), ("a.txt", "one"), ("b.json", two))
    tar_of(tmp_path / "1.tar", ("c.txt", "three"), ("d.caption", "four"), ("d.JPG", b"D"), ("c.jpg", b"C"))
    assert captions(tmp_path) == {b"A": "one", b"B": "two", b"C": "three", b"D": "four"}


@pytest.mark.parametrize(
    "order",
    [
        ("a.jpg", "a.txt", "a.jpg", "a.txt"), ("a.jpg", "a.jpg", "a.txt", "a.txt"),
        ("a.txt", "a.jpg", "a.txt", "a.jpg"), ("a.jpg", "a.txt", "b.jpg", "a.jpg", "a.txt"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_key_that_comes_twice_gives_each_image_its_own_caption(order, tmp_path):
    counts: dict[str, int] = {}
    members = []
    for name in order:
        counts[name] = counts.get(name, 0) + 1
        members.append((name, f"{name[0]} {counts[name]}"))
    tar_of(tmp_path / "0.tar", *members)
    found = {image.decode(): text for image, text in captions(tmp_path).items()}
    assert found == {"a 1": "a 1", "a 2": "a 2"} | ({"b 1": ""} if "b.jpg" in order else {})
    assert len(listed(tmp_path)) == len(found), "addresses differ"


def test_an_image_never_gets_the_caption_of_another_one_of_its_key(tmp_path):
    tar_of(tmp_path / "0.tar", ("a.jpg", b"A"), ("a.txt", "one"), ("b.jpg", b"B"), ("a.jpg", b"second"))
    assert captions(tmp_path) == {b"A": "one", b"B": "", b"second": ""}
    for name, members in {
        "1": [("a.jpg", b"A"), ("a.jpg", b"B"), ("a.txt", "of whom?")],
        "2": [("a.jpg", b"A"), ("a.txt", "first?"), ("a.txt", "second?")],
        "3": [("a.jpg", b"A"), ("a.txt", "one"), ("a.png", b"B"), ("a.txt", "two")],
    }.items():
        root = tar_of(tmp_path / name / "0.tar", *members).parent
        assert set(faults(root).values()) == {"ambiguous_key"}
        assert len(faults(root)) == len([name for name, _ in members if not name.endswith(".txt")])


def test_names_with_two_dots_have_their_own_text_or_that_of_their_key(tmp_path):
    sides = (("a.left.jpg", b"L"), ("a.right.jpg", b"R"), ("a.right.txt", "right"), ("a.txt", "both"))
    versions = (("v1.5.jpg", b"V"), ("v1.5.txt", "five"), ("v1.7.jpg", b"W"), ("v1.7.txt", "seven"))
    tar_of(tmp_path / "0.tar", *sides)
    tar_of(tmp_path / "1.tar", *versions)
    assert captions(tmp_path) == {b"L": "both", b"R": "right", b"V": "five", b"W": "seven"}


def test_accents_of_keys_may_be_composed_or_not_and_of_several_captions_one_is_drawn(tmp_path):
    words = json.dumps({"captions": [f"text {index}" for index in range(9)]})
    tar_of(tmp_path / "0.tar", ("caf\u00e9.jpg", b"A"), ("cafe\u0301.json", words))
    seeds = {next(iter(listed(tmp_path, seed=seed).values())).caption for seed in range(9)}
    assert len(seeds) > 2 and all(one.startswith("text ") for one in seeds)


def test_links_between_members_are_followed_and_broken_ones_are_named(tmp_path):
    tar_of(
        tmp_path / "0.tar", ("deep/a.jpg", b"A"), ("a.txt", "one"), ("b.jpg", "=> deep/a.jpg"),
        ("b.txt", "-> a.txt"), ("deep/c.jpg", "-> ../b.jpg"), ("d.jpg", "-> e.jpg"), ("e.jpg", "-> d.jpg"),
        ("f.jpg", "-> gone.jpg"),
    )  # fmt: skip
    found = listed(tmp_path)
    assert {address: one.caption for address, one in found.items()} == {
        "0.tar::deep/a.jpg": "", "0.tar::b.jpg": "one", "0.tar::deep/c.jpg": "",
    }  # fmt: skip
    assert {read_entry(one) for one in found.values()} == {b"A"}
    assert passed_over(tmp_path)["broken links"] == ["0.tar::d.jpg", "0.tar::e.jpg", "0.tar::f.jpg"]


def test_members_that_are_no_images_are_counted_and_images_are_told_by_content(tmp_path):
    gif = b"GIF89a" + bytes(9)
    tar_of(
        tmp_path / "0.tar", ("a.jpg", b"A"), ("a.cls", b"7"), ("alone.txt", "x"), ("._a.jpg", b"x"),
        ("plain", gif), ("__MACOSX/a.jpg", b"x"), ("b.bin", gif), ("b.txt", "told by content"),
    )  # fmt: skip
    (tmp_path / "index.json").write_text("{}")
    assert captions(tmp_path) == {b"A": "", gif: "told by content"}
    assert passed_over(tmp_path) == {
        ".cls files": ["0.tar::a.cls"], "captions without an image": ["0.tar::alone.txt"],
        "hidden or derived files": ["0.tar::._a.jpg", "0.tar::__MACOSX/a.jpg"], ".json files": ["index.json"],
    }  # fmt: skip


def test_a_member_whose_name_or_caption_is_no_text_stops_nothing(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        for name, content in {
            "caf\u00e9.jpg": b"A", "caf\u00e9.txt": b"a cup", "b.jpg": b"B",
            "b.json": rb'{"caption": "\ud83c"}', "c.jpg": b"C", "c.txt": b"caf\xe9",
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = listed(tmp_path)
    assert found[r"0.tar::caf\udce9.jpg"].caption == "a cup"
    assert faults(tmp_path) == {"0.tar::b.jpg": "broken_caption", "0.tar::c.jpg": "broken_caption"}


def whole(path: Path) -> bytes:
    return tar_of(path, ("a.jpg", b"A" * 600), ("b.jpg", b"B" * 600), ("c.jpg", b"C")).read_bytes()


@pytest.mark.parametrize(
    ("damage", "fault", "detail", "num_images"),
    [
        (lambda tar: tar[:1536] + b"\xff" * 512 + tar[2048:], "broken_tar", "the header at byte 1536", 1),
        (lambda tar: tar[:2500], "broken_tar", "breaks off after b.jpg", 2),
        (lambda tar: tar[:3072], "broken_tar", "no end mark", 2),
        (lambda tar: tar + tar, "broken_tar", "data follows the end mark", 3),
        (lambda tar: b"\x1f\x8b" + tar, "compressed_tar", "Decompress it", 0),
        (lambda tar: b"", "empty_tar", "no bytes", 0),
        (lambda tar: bytes(10240), "empty_tar", "no file in it", 0),
        (lambda tar: b"no tar at all" * 99, "broken_tar", "breaks off", 0),
    ],
    ids=["header", "cut off", "cut between", "two in one", "gzip", "no bytes", "no members", "a text"],
)  # fmt: skip
def test_a_broken_tar_is_an_entry_beside_the_images_before_the_break(
    damage, fault, detail, num_images, tmp_path
):
    (tmp_path / "1.tar").write_bytes(damage(whole(tmp_path / "1.tar")))
    tar_of(tmp_path / "0.tar", ("z.jpg", b"Z"))
    found = listed(tmp_path)
    assert faults(tmp_path) == {"1.tar": fault}
    assert detail in found["1.tar"].detail and len(found) == num_images + 2


def test_compressed_tars_and_those_in_folders_are_not_overlooked(tmp_path):
    tar_of(tmp_path / "deep" / "0.tar", ("a.jpg", b"A"))
    (tmp_path / "1.tar.gz").write_bytes(b"\x1f\x8b")
    assert set(listed(tmp_path)) == {"1.tar.gz", "deep/0.tar::a.jpg"}
    assert set(listed(tmp_path / "deep" / "0.tar")) == {"0.tar::a.jpg"}
