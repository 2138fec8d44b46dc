"""Sources list every image once, in an order that does not change, and read what they list."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Union

import pytest
from PIL import Image
from pydantic import Field, create_model

from lens.data.build.inventory import take_inventory
from lens.data.build.reader import EntryReader
from lens.data.build.scoring import PIXEL_SCORES_FOLDER, score_part
from lens.data.build.settings import BuildSettings
from lens.data.estimate.cost import estimate_build
from lens.data.io.download import cache_path
from lens.data.io.entry import UNKNOWN_SIZE, Entry, EntryReadError, SourceError, read_entry
from lens.data.io.parquet import read_parts, write_table
from lens.data.io.webdataset import write_shard
from lens.data.sources.base import DataSource
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.sources.manifest import ManifestSource
from lens.data.sources.registry import SOURCES
from lens.data.sources.webdataset import WebDatasetSource
from lens.errors import SettingError

COLOURS = ("red", "blue")


def put(root: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tar_of(path: Path, *members: tuple[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_a_folder_lists_its_images_at_any_depth_with_their_side_files(tmp_path):
    put(
        tmp_path, b_dot_png=b"bee", a__z_dot_JPG=b"fox", a__y_dot_webp=b"key", a__z_dot_txt=b" a fox\n",
        b_dot_json=b'{"caption": "a bee", "license": "CC0"}', c_dot_md=b"no picture",
    )  # fmt: skip
    found = list(ImageFolderSource(path=tmp_path, licence="MIT").entries())
    assert [(one.address, one.caption, one.licence) for one in found] == [
        ("a/y.webp", "", "MIT"), ("a/z.JPG", "a fox", "MIT"), ("b.png", "a bee", "CC0"),
    ]  # fmt: skip
    assert [read_entry(one) for one in found] == [b"key", b"fox", b"bee"]


def test_a_folder_does_not_follow_links(tmp_path):
    put(tmp_path, secret__a_dot_png=b"secret", root__b_dot_png=b"bee")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret" / "a.png")
    (tmp_path / "root" / "folder").symlink_to(tmp_path / "secret")
    found = ImageFolderSource(path=tmp_path / "root").entries()
    assert [one.address for one in found] == ["b.png"]


def test_tars_list_the_images_of_each_sample_and_their_bytes_are_read_in_place(tmp_path):
    tar_of(tmp_path / "1.tar", ("one.txt", b"a fox"), ("one.png", b"fox"), ("two.jpg", b"bee"))
    facts = b'{"text": "a key", "licence": "CC0"}'
    tar_of(tmp_path / "0.tar", ("deep/x.jpg", b"key"), ("deep/x.json", facts))
    found = list(WebDatasetSource(path=tmp_path, licence="MIT").entries())
    assert [(one.address, one.caption, one.licence) for one in found] == [
        ("0.tar::deep/x.jpg", "a key", "CC0"),
        ("1.tar::one.png", "a fox", "MIT"),
        ("1.tar::two.jpg", "", "MIT"),
    ]  # fmt: skip
    assert [read_entry(one) for one in found] == [b"key", b"fox", b"bee"]


def test_a_tar_is_never_unpacked_whatever_its_members_are_called(tmp_path):
    tar_of(tmp_path / "0.tar", ("../../out.png", b"fox"), ("/abs.png", b"bee"))
    found = list(WebDatasetSource(path=tmp_path).entries())
    assert [read_entry(one) for one in found] == [b"fox", b"bee"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar"]


def test_a_broken_tar_gives_what_comes_before_the_break_and_the_next_one_all(tmp_path):
    tar_of(tmp_path / "0.tar", ("a.png", b"fox"), ("b.png", b"b" * 5000))
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: 512 + 512 + 512 + 100])
    tar_of(tmp_path / "1.tar", ("c.png", b"bee"))
    found = [one.address for one in WebDatasetSource(path=tmp_path).entries()]
    assert found[0] == "0.tar::a.png" and found[-1] == "1.tar::c.png"


def test_a_shorter_file_reads_as_fewer_bytes_and_a_missing_one_has_its_reason(tmp_path):
    put(tmp_path, a_dot_png=b"fox", b_dot_png=b"bee")
    gone, shorter = ImageFolderSource(path=tmp_path).entries()
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").write_bytes(b"b")
    assert read_entry(shorter) == b"b"
    with pytest.raises(EntryReadError, match=r"missing: .*a\.png does not exist"):
        read_entry(gone)


@pytest.mark.parametrize("source", [ImageFolderSource, WebDatasetSource, ManifestSource])
def test_a_missing_source_is_an_error_that_names_it(source):
    with pytest.raises(SourceError, match="nowhere"):
        list(source(path=Path("nowhere")).entries())


def test_an_inventory_holds_every_entry_once_in_parts_and_is_taken_once(tmp_path):
    put(tmp_path, **{f"in__{index}_dot_png": bytes([index]) for index in range(7)})
    settings = BuildSettings.of(
        {"out": tmp_path / "out", "source": {"kind": "folder", "path": tmp_path / "in"}, "part_size": 3}
    )
    taken = take_inventory(settings)
    assert (taken.num_parts, taken.num_entries) == (3, 7)
    listed = [entry.address for part in range(3) for _, entry in taken.part(part)]
    assert listed == [f"{index}.png" for index in range(7)]
    put(tmp_path, in__9_dot_png=b"late")
    assert take_inventory(settings).num_entries == 7, "a snapshot"


def test_a_recipe_that_cannot_be_built_says_why(tmp_path):
    source = {"kind": "folder", "path": str(tmp_path)}
    with pytest.raises(SettingError, match=r"--set source\.path=FOLDER"):
        BuildSettings.of({"out": "out"})
    with pytest.raises(SettingError, match=r"aesthetics, nsfw, watermark.*Add scorers that do"):
        BuildSettings.of({"out": "out", "source": source, "filters": {}})
    with pytest.raises(SettingError, match=r"duplicates\.min_cosine.*no scorer of this build"):
        BuildSettings.of({"out": "out", "source": source, "duplicates": {"min_cosine": 0.985}})
    with pytest.raises(SourceError, match="no image in"):
        take_inventory(BuildSettings.of({"out": str(tmp_path / "out"), "source": source}))


def test_names_of_views_change_with_what_decides_them_and_with_nothing_else(tmp_path, monkeypatch):
    source = {"kind": "folder", "path": str(tmp_path)}
    one = BuildSettings.of({"out": "a", "source": source})
    assert BuildSettings.of({"out": "b", "source": source, "num_workers": 3}).view_id == one.view_id
    stricter = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None, "min_clarity": 1}
    other = BuildSettings.of({"out": "a", "source": source, "filters": stricter})
    assert other.view_id != one.view_id and other.inventory_id == one.inventory_id
    assert BuildSettings.of({"out": "a", "source": source, "part_size": 9}).inventory_id != one.inventory_id
    before = one.view_id
    monkeypatch.setattr("lens.data.scorers.pixel_stats.VERSION", "another")
    assert one.view_id != before, "scores of another version make another view"


def test_manifests_name_images_by_path_or_url_with_their_caption_and_licence(tmp_path):
    put(tmp_path, pictures__a_dot_png=b"fox")
    rows = [
        {"at": "pictures/a.png", "words": " a fox ", "licence": "CC0"},
        {"at": "https://example.org/b.png", "words": None},
        {"at": "pictures/gone.png"},
    ]
    (tmp_path / "1.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    columns = {"at": ["pictures/a.png"], "words": ["x"]}
    write_table(tmp_path / "0.parquet", columns, {"at": "string", "words": "string"})
    found = list(ManifestSource(path=tmp_path, location="at", caption="words").entries())
    assert [(one.address, one.caption, one.licence, one.num_bytes) for one in found] == [
        ("0.parquet:1:pictures/a.png", "x", "", 3),
        ("1.jsonl:1:pictures/a.png", "a fox", "CC0", 3),
        ("1.jsonl:2:https://example.org/b.png", "", "", -1),
        ("1.jsonl:3:pictures/gone.png", "", "", 0),
    ]
    reader = EntryReader([ManifestSource(path=tmp_path)], tmp_path / "downloads")
    assert [reader.read((0, one)) for one in found[:2]] == [b"fox", b"fox"]
    for one in found[2:]:
        with pytest.raises(EntryReadError, match="missing"):
            reader.read((0, one))
    cache_path("https://example.org/b.png", tmp_path / "downloads").parent.mkdir(parents=True)
    cache_path("https://example.org/b.png", tmp_path / "downloads").write_bytes(b"bee")
    assert reader.read((0, found[2])) == b"bee"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "row 1, is not valid JSON"),
        ("[1]", "row 1, is not a JSON object"),
        ('{"url": null}', "row 1, has no field 'url'"),
        ('{"link": "a.png"}', r"Set source\.location to the name"),
        ('{"url": "../secret.png"}', "leads out of the folder of the manifest"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error_with_its_row_and_reason(line, says, tmp_path):
    (tmp_path / "list.jsonl").write_text(line)
    with pytest.raises(SourceError, match=says):
        list(ManifestSource(path=tmp_path / "list.jsonl").entries())


def test_shards_of_a_build_come_back_with_the_full_caption_and_the_licence(tmp_path):
    facts = json.dumps({"id": "x", "licence": "CC-BY-4.0"}).encode()
    files = {"jpg": b"fox", "txt": b"a red fox on grass", "brief.txt": b"a fox", "json": facts}
    write_shard(tmp_path / "0.tar", [("one", files), ("two", {"jpg": b"bee", "txt": b"a bee"})])
    found = list(WebDatasetSource(path=tmp_path, licence="MIT").entries())
    assert [(one.caption, one.licence) for one in found] == [
        ("a red fox on grass", "CC-BY-4.0"), ("a bee", "MIT"),
    ]  # fmt: skip


def test_a_text_file_beside_an_image_does_not_hide_the_licence_of_its_json_file(tmp_path):
    put(
        tmp_path, a_dot_png=b"fox", a_dot_txt=b"a fox", a_dot_json=b'{"caption": "x", "licence": "CC0"}',
        b_dot_png=b"bee", b_dot_json=b'{"licence": "CC0"}', c_dot_png=b"key", c_dot_txt=b" ",
        c_dot_json=b'{"caption": "a key"}', d_dot_png=b"map", d_dot_brief_dot_txt=b"a map",
    )  # fmt: skip
    found = list(ImageFolderSource(path=tmp_path, licence="MIT").entries())
    assert [(one.caption, one.licence) for one in found] == [
        ("a fox", "CC0"), ("", "CC0"), ("a key", "MIT"), ("a map", "MIT"),
    ]  # fmt: skip


def test_an_unknown_kind_of_source_is_an_error_that_names_the_known_ones():
    with pytest.raises(SettingError, match=r"'ftp'.*folder, tars, manifest, text"):
        BuildSettings.of({"out": "out", "source": {"kind": "ftp", "path": "in"}})


def test_a_source_that_lists_nothing_cannot_be_made():
    class Unfinished(DataSource):
        kind: Literal["unfinished"] = "unfinished"

    with pytest.raises(TypeError, match=r"abstract.* entries"):
        Unfinished()


class ColoursSource(DataSource):
    """A source of one file: an image a colour, made ready by `prefetch`."""

    may_download: ClassVar[bool] = True

    kind: Literal["colours"] = "colours"
    colours: tuple[str, ...]

    def entries(self) -> Iterator[Entry]:
        for colour in self.colours:
            yield Entry(colour, f"colour:{colour}", 0, UNKNOWN_SIZE, f"all {colour}", "CC0")

    def prefetch(self, entries: Sequence[Entry], cache: Path) -> dict[str, str]:
        cache.mkdir(exist_ok=True)
        for entry in entries:
            if entry.address in COLOURS:
                Image.new("RGB", (9, 7), entry.address).save(cache / f"{entry.address}.png")
        return {entry.path: "gone" for entry in entries if entry.address not in COLOURS}

    def read(self, entry: Entry, cache: Path) -> bytes:
        path = cache / f"{entry.address}.png"
        return path.read_bytes() if path.is_file() else b""


def test_a_source_of_one_file_and_a_line_of_the_registry_is_listed_read_scored_and_estimated(tmp_path):
    put(tmp_path, in__bee_dot_png=b"bee")
    registered = Annotated[Union[*SOURCES, ColoursSource], Field(discriminator="kind")]
    recipe = create_model("Recipe", __base__=BuildSettings, sources=(tuple[registered, ...], ()))
    sources = [
        {"kind": "folder", "path": str(tmp_path / "in")},
        {"kind": "colours", "colours": ["red", "no colour", "blue"]},
    ]
    alone = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None}
    settings = recipe.of({"out": str(tmp_path / "out"), "sources": sources, "filters": alone})
    inventory = take_inventory(settings)
    listed = inventory.part(0)
    assert [(number, entry.caption) for number, entry in listed] == [
        (0, ""), (1, "all red"), (1, "all no colour"), (1, "all blue"),
    ]  # fmt: skip
    reader = EntryReader(settings.all_sources, tmp_path / "cache")
    assert score_part(inventory, 0, tmp_path / "scores", reader) == 4
    rows = read_parts(tmp_path / "scores" / PIXEL_SCORES_FOLDER, 1).to_pylist()
    assert [row["unreadable"] for row in rows] == ["unknown_type", "", "gone", ""]
    assert reader.read(listed[0]) == b"bee" and rows[1]["width_px"] == 9
    assert "fetch" in [stage.stage for stage in estimate_build(settings, 100, num_gpus=1).stages]


def test_names_of_sources_in_recipes_are_all_different():
    kinds = [source.model_fields["kind"].default for source in SOURCES]
    assert len(set(kinds)) == len(kinds) == 4
