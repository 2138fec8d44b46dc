"""Hashes name content: any changed byte or name shows, a copy elsewhere does not."""

import hashlib
import shutil

from lens.models.checkpoints import hashing
from lens.models.checkpoints.hashing import content_hash, file_hash, weights_hash


def test_a_file_hash_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_a_hub_blob_is_believed_by_its_name(tmp_path):
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"anything")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert file_hash(tmp_path / "model.safetensors") == "ab" * 32


def test_a_hash_of_weights_is_that_behind_the_header_whose_notes_may_change(tmp_path):
    for number, header in enumerate((b"{}", b'{"__metadata__": {"title": "ink"}}')):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"weights")
        assert weights_hash(path) == hashlib.sha256(b"weights").hexdigest()
    assert weights_hash(tmp_path) is None


def test_a_content_hash_follows_content_and_names_but_not_the_place_or_the_card(tmp_path):
    model = tmp_path / "m"
    (model / "vae").mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    (model / "vae" / "w.safetensors").write_bytes(b"weights")
    before = content_hash(model)
    (model / "README.md").write_text("card")
    shutil.copytree(model, tmp_path / "copy")
    assert content_hash(model) == content_hash(tmp_path / "copy") == before
    (model / "vae" / "w.safetensors").write_bytes(b"Weights")
    assert content_hash(model) != before


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashing, "MIN_CACHED_HASH_BYTES", 3)
    reads = []
    read = hashing._read_and_hash
    monkeypatch.setattr(hashing, "_read_and_hash", lambda path: reads.append(path) or read(path))
    path = tmp_path / "big"
    path.write_bytes(b"12345")
    first = file_hash(path)
    assert file_hash(path) == first
    assert len(reads) == 1
    path.write_bytes(b"123456")
    assert file_hash(path) != first
    assert len(reads) == 2
