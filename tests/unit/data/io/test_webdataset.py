"""Shards: the same samples give the same bytes, written atomically and read back unchanged."""

import tarfile

import pytest

from lens.data.io.webdataset import ShardError, checksum, json_bytes, read_shard, write_shard

SAMPLES = [
    ("b" * 64, {"jpg": b"\xff" * 700, "json": b"{}", "txt": "ein Fuchs \N{FOX FACE}".encode()}),
    ("a" * 64, {"jpg": b"", "txt": b"a bee"}),
]


def test_what_is_written_is_read_back_in_its_order(tmp_path):
    written = write_shard(tmp_path / "deep" / "one.tar", iter(SAMPLES))
    assert list(read_shard(written.path)) == SAMPLES
    assert written.num_samples == 2
    assert written.num_bytes == written.path.stat().st_size
    assert written.sha256 == checksum(written.path)


def test_the_same_samples_give_the_same_bytes(tmp_path):
    one = write_shard(tmp_path / "one.tar", SAMPLES)
    turned = [(key, dict(reversed(files.items()))) for key, files in SAMPLES]
    assert write_shard(tmp_path / "other.tar", turned).sha256 == one.sha256
    assert write_shard(tmp_path / "less.tar", SAMPLES[:1]).sha256 != one.sha256


def test_any_tar_reader_understands_a_shard(tmp_path):
    path = write_shard(tmp_path / "one.tar", SAMPLES).path
    with tarfile.open(path) as tar:
        names = [member.name for member in tar]
    ends = ["jpg", "json", "txt"], ["jpg", "txt"]
    assert names == [f"{key}.{end}" for (key, _), own in zip(SAMPLES, ends, strict=True) for end in own]


def test_an_unfinished_shard_does_not_exist(tmp_path):
    def breaking():
        yield SAMPLES[0]
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        write_shard(tmp_path / "one.tar", breaking())
    assert not (tmp_path / "one.tar").exists()


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a" * 64])
def test_keys_that_are_used_twice_or_are_no_names_are_refused(key, tmp_path):
    with pytest.raises(ValueError, match="not a valid key"):
        write_shard(tmp_path / "one.tar", [("a" * 64, {"txt": b""}), (key, {"txt": b""})])


@pytest.mark.parametrize("num_bytes", [100, 900])
def test_a_shard_that_was_cut_off_is_an_error_that_says_what_to_do(num_bytes, tmp_path):
    path = write_shard(tmp_path / "one.tar", SAMPLES).path
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ShardError, match="Build it again"):
        list(read_shard(path))


def test_json_depends_on_its_contents_alone():
    assert json_bytes({"b": 1, "a": "\N{FOX FACE}"}) == json_bytes({"a": "\N{FOX FACE}", "b": 1})
    assert json_bytes({"b": 1, "a": [2]}) == b'{"a":[2],"b":1}'
