"""Images with captions for training, from a folder and from the shards of a build."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from lens.data.image_text_dataset import ImageTextSettings, image_text_samples
from lens.data.io.image_decoding import sample_id
from lens.data.io.webdataset import write_shard
from lens.errors import SettingError


def image(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.png").write_bytes(image(90, 40))
    (tmp_path / "a.txt").write_text(" a wide thing \n")
    (tmp_path / "deep" / "b.png").write_bytes(image(50, 55, 1))
    (tmp_path / "deep" / "b.json").write_text('{"caption": "a tall thing"}')
    return tmp_path


def test_a_folder_gives_every_image_in_its_own_bucket_with_its_caption(folder):
    first, second = image_text_samples(ImageTextSettings(folder=folder, bases=(48,)))
    assert (first.caption, second.caption) == ("a wide thing", "a tall thing")
    assert first.image.size == (64, 32) and second.image.size == (48, 48)
    assert first.id == sample_id((folder / "a.png").read_bytes())


def test_a_trigger_comes_before_every_caption_and_stands_in_for_missing_ones(folder):
    (folder / "a.txt").unlink()
    words = [
        one.caption
        for one in image_text_samples(ImageTextSettings(folder=folder, bases=(48,), trigger="zork"))
    ]
    assert words == ["zork", "zork, a tall thing"]


def test_an_image_without_a_caption_is_named_with_the_remedy(folder):
    (folder / "a.txt").unlink()
    with pytest.raises(SettingError, match=r"a caption for a\.png \(1 in all\).*data\.trigger"):
        list(image_text_samples(ImageTextSettings(folder=folder, bases=(48,))))


def test_shards_are_checked_for_captions_before_the_first_image_is_read(tmp_path):
    whole = {"png": image(64, 32), "txt": b"a wide thing"}
    write_shard(tmp_path / "00000.tar", [("k1", whole)])
    write_shard(tmp_path / "00001.tar", [("k2", {"png": image(64, 32)}), ("k3", whole)])
    settings = ImageTextSettings(shards=tmp_path, bases=(48,))
    says = r"caption for 00001\.tar::k2 \(1 in all\)\. Write their captions and build again"
    with pytest.raises(SettingError, match=says):
        next(image_text_samples(settings))
    captions = [one.caption for one in image_text_samples(settings.model_copy(update={"trigger": "zork"}))]
    assert captions == ["zork, a wide thing", "zork", "zork, a wide thing"]


def test_damaged_and_tiny_images_are_skipped_by_name(folder, caplog):
    (folder / "c.png").write_bytes(image(90, 40)[:300])
    (folder / "d.png").write_bytes(image(20, 20))
    for name in "cd":
        (folder / f"{name}.txt").write_text("a thing")
    with caplog.at_level(logging.WARNING):
        assert len(list(image_text_samples(ImageTextSettings(folder=folder, bases=(48,))))) == 2
    assert "c.png is skipped: corrupt" in caplog.text
    assert "d.png is skipped: 20 x 20 is too small" in caplog.text


def test_an_image_that_loses_more_than_a_third_is_named_with_the_share(folder, caplog):
    (folder / "c.png").write_bytes(image(400, 48, 2))
    (folder / "c.txt").write_text("a street")
    with caplog.at_level(logging.WARNING):
        assert len(list(image_text_samples(ImageTextSettings(folder=folder, bases=(48,))))) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "c.png loses 76% of its area to fit its bucket of 2:1."
    ]


def test_a_folder_without_a_usable_image_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "tiny.png").write_bytes(image(3, 3))
    with pytest.raises(SettingError, match=r"data\.folder .* needs images of at least the size .* base 48"):
        list(image_text_samples(ImageTextSettings(folder=tmp_path, trigger="a thing", bases=(48,))))


def test_shards_give_what_a_folder_gives(tmp_path):
    facts = json.dumps({"id": "ab" * 32}).encode()
    files = {"png": image(64, 32), "txt": b"a wide thing", "brief.txt": b"thing", "json": facts}
    write_shard(tmp_path / "00000.tar", [("k1", files)])
    (only,) = image_text_samples(ImageTextSettings(shards=tmp_path, bases=(48,)))
    assert (only.id, only.caption, only.image.size) == ("ab" * 32, "a wide thing", (64, 32))
    assert np.array_equal(np.asarray(only.image), np.asarray(Image.open(io.BytesIO(files["png"]))))


def test_shards_give_the_caption_of_json_or_the_brief_one_where_there_is_no_other(tmp_path):
    samples = [
        ("a", {"jpeg": image(64, 32), "json": b'{"caption": "of JSON", "id": "one"}', "brief.txt": b"brief"}),
        ("b", {"png": image(64, 32), "json": b"[1]", "brief.txt": b"brief"}),
    ]
    write_shard(tmp_path / "00000.tar", samples)
    found = list(image_text_samples(ImageTextSettings(shards=tmp_path, bases=(48,))))
    assert [(one.id, one.caption) for one in found] == [("one", "of JSON"), ("b", "brief")]


def test_a_json_file_without_a_caption_does_not_hide_the_text_beside_an_image(folder):
    (folder / "a.json").write_text('{"licence": "CC0"}')
    first, _ = image_text_samples(ImageTextSettings(folder=folder, bases=(48,)))
    assert first.caption == "a wide thing"


@pytest.mark.parametrize("both", [True, False])
def test_exactly_one_source_is_needed(tmp_path, both):
    given = {"folder": tmp_path, "shards": tmp_path} if both else {}
    with pytest.raises(SettingError, match="one of folder and shards"):
        list(image_text_samples(ImageTextSettings(**given)))


def test_a_folder_without_shards_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"data\.shards.*\.tar files"):
        list(image_text_samples(ImageTextSettings(shards=tmp_path)))


def test_a_folder_of_links_or_of_other_files_says_what_it_holds(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("links")
    for name in ("a.png", "a.txt"):
        (root / name).symlink_to(folder / name)
    (root / ".hidden.png").write_bytes(b"x")
    says = r"data\.folder .* needs images\. It holds 1 hidden or derived files .*2 links out of the source .*"
    with pytest.raises(SettingError, match=says + r"Set data\.allows_outside to true"):
        list(image_text_samples(ImageTextSettings(folder=root, bases=(48,))))
    allowed = ImageTextSettings(folder=root, bases=(48,), allows_outside=True)
    assert [one.caption for one in image_text_samples(allowed)] == ["a wide thing"]


def test_a_caption_that_cannot_be_read_is_an_error_before_any_image_is_decoded(folder):
    (folder / "deep" / "b.json").write_bytes(b"{broken")
    says = r"captions that can be read\. deep/b\.png: \.json is not valid JSON"
    with pytest.raises(SettingError, match=says):
        next(image_text_samples(ImageTextSettings(folder=folder, bases=(48,), trigger="zork")))


def test_a_caption_has_the_trigger_where_it_marks_it(folder):
    (folder / "a.txt").write_text("a photo of [trigger], [trigger] in the rain")
    settings = ImageTextSettings(folder=folder, bases=(48,), trigger="zork")
    words = [one.caption for one in image_text_samples(settings)]
    assert words == ["a photo of zork, zork in the rain", "zork, a tall thing"]
    with pytest.raises(SettingError, match=r"data\.trigger is .*a\.png"):
        next(image_text_samples(settings.model_copy(update={"trigger": ""})))


def test_an_archive_instead_of_a_folder_of_images_is_to_be_unpacked(tmp_path):
    (tmp_path / "all.zip").write_bytes(b"PK")
    with pytest.raises(SettingError, match="Unpack the archive"):
        next(image_text_samples(ImageTextSettings.of({"folder": tmp_path / "all.zip"})))
