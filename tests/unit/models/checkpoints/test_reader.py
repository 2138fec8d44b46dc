"""Each way in which a file of weights can be wrong has its own message."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lens.errors import CheckpointError
from lens.models.checkpoints.detect import denoiser_prefix, detect_kind
from lens.models.checkpoints.reader import check_names_and_shapes, open_safetensors, read_header

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16416901032\n"


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.safetensors"
    save_file(
        {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7], dtype=torch.uint8)},
        path,
        {"by": "me"},
    )
    return path


def test_a_header_tells_dtypes_shapes_and_metadata(whole):
    header, metadata = read_header(whole)
    assert header == {"a.weight": ("F32", (2, 3)), "b": ("U8", (1,))} and metadata == {"by": "me"}


def test_a_tensor_is_read_when_asked_for(whole):
    stored = open_safetensors(whole).tensors["a.weight"]
    assert stored.num_bytes == 24 and stored.read().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.safetensors", POINTER, "is a git-lfs pointer, not the weights.*git lfs pull"),
        ("x.safetensors", b"<!DOCTYPE html><html>404</html>", "is a web page, not weights"),
        ("x.safetensors", b"", "is empty"),
        ("x.bin", b"anything", "is a pickled file, which is refused"),
        ("x.ckpt", b"anything", "is a pickled file, which is refused"),
        ("x.safetensors", b"PK\x03\x04archive", "is a pickled file, which is refused"),
        ("x.safetensors", b"\x80\x02}q\x00", "is a pickled file, which is refused"),
        ("x.safetensors", b"abc", "is not a safetensors file"),
        ("x.safetensors", b"some text that is no safetensors file", "is not a safetensors file"),
        ("x.safetensors", struct.pack("<Q", 8) + b"not json", "its header cannot be read"),
        ("x.safetensors", struct.pack("<Q", 2) + b"[]", "its header cannot be read"),
        ("x.safetensors", struct.pack("<Q", 900) + b"{}", "is truncated: it has 10 of 908 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_header(tmp_path / name)


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"does not exist"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"is a folder"):
        read_header(tmp_path)


@pytest.mark.parametrize("lost", [1, 20, 30])
def test_a_file_that_lost_its_end_is_truncated(whole, lost):
    content = whole.read_bytes()
    whole.write_bytes(content[:-lost])
    with pytest.raises(CheckpointError, match=rf"is truncated: it has {len(content) - lost} of \d+ bytes"):
        read_header(whole)


def header_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, start, stop, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry([3], 0, 3)}, "is damaged: it has 2 bytes behind its last tensor"),
        ({"a": entry([3], 0, 3), "b": entry([3], 2, 5)}, "b does not begin where the tensor before it ends"),
        ({"a": entry([2], 0, 2), "b": entry([2], 3, 5)}, "b does not begin where the tensor before it ends"),
        ({"a": entry([4], 1, 5)}, "a does not begin where"),
        ({"a": entry([3], 0, 5)}, "a takes 5 bytes, which are not those of its shape"),
        ({"a": entry([5], 0, 5, "F32")}, "a takes 5 bytes, which are not those of its shape"),
        ({"a": entry([-5], 0, 5)}, "a has no valid shape or place"),
        ({"a": entry([5], -5, 0)}, "a has no valid shape or place"),
        ({"a": entry([True, 5], 0, 5)}, "a has no valid shape or place"),
        ({"a": entry([5.0], 0, 5)}, "a has no valid shape or place"),
        ({"a": entry([2**64, 0], 0, 0)}, "a has no valid shape or place"),
        ({"a": entry([1] * 100, 0, 1)}, "a has no valid shape or place"),
        ({"a": entry([5], 0, 5, "Q7")}, "tensors of dtype Q7, which does not exist"),
        ({"a": {"dtype": "U8", "shape": [5], "data_offsets": []}}, "its header cannot be read"),
        ({"a": {"dtype": "U8", "shape": [5], "data_offsets": [0, 1, 5]}}, "its header cannot be read"),
        ({"a": {"dtype": "U8", "shape": [5]}}, "its header cannot be read"),
        ({"a": [5]}, "its header cannot be read"),
        ({"__metadata__": {"epoch": 3}, "a": entry([5], 0, 5)}, "its metadata are no strings by name"),
        (b'{"a": {}, "a": {}}', "a name is twice in its header"),
        (b"[" * 100_000, "its header cannot be read"),
        (b"\xff\xfe{}", "its header cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_header_says_what_is_wrong(tmp_path, header, message):
    with pytest.raises(CheckpointError, match=message):
        read_header(header_file(tmp_path / "x.safetensors", header, b"12345"))


def test_tensors_may_be_empty_and_lie_in_any_order(tmp_path):
    header = {"b": entry([3], 2, 5), "none": entry([0, 4], 2, 2), "a": entry([2], 0, 2)}
    stored = open_safetensors(header_file(tmp_path / "x.safetensors", header, b"12345")).tensors
    assert {name: value.read().tolist() for name, value in stored.items()} == {
        "b": [51, 52, 53],
        "none": [],
        "a": [49, 50],
    }


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_a_file_with_random_damage_is_refused_or_reads_as_it_says(tmp_path_factory, data):
    content = bytearray(random_file(tmp_path_factory).read_bytes())
    header_end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, min(len(content), header_end + 4) - 1)))
        kind = data.draw(st.sampled_from(["change", "insert", "delete", "cut"]))
        if kind == "change" and content:
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[place:place] = data.draw(st.sampled_from([b"0", b"9", b"-", b",", b"[", b'"', b"\0"]))
        elif kind == "delete":
            del content[place : place + 1]
        else:
            del content[max(place, 1) :]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        tensors = open_safetensors(path).tensors
        values = {name: stored.read() for name, stored in tensors.items()}
    except CheckpointError:
        return
    assert {name: tuple(value.shape) for name, value in values.items()} == {
        name: stored.shape for name, stored in tensors.items()
    }


def random_file(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    if not path.exists():
        tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7, 9], dtype=torch.uint8)}
        save_file(tensors, path, {"by": "me"})
    return path


def test_a_match_is_silent_and_a_mismatch_counts_each_kind():
    check_names_and_shapes({"a": (2, 3)}, {"a": (2, 3)}, source="f", what="it")
    expected = {f"m.{i}": (1,) for i in range(12)} | {"shaped": (2, 3)}
    with pytest.raises(CheckpointError) as caught:
        check_names_and_shapes(expected, {"shaped": (3, 2), "extra": (1,)}, source="f", what="the thing")
    assert str(caught.value) == (
        "f does not fit the thing: 12 missing (m.0, m.1, m.2, m.3, m.4, m.5, m.6, m.7, m.8, m.9 and 2 more); "
        "1 extra (extra); 1 mis-shaped (shaped is (3, 2), needs (2, 3)). It is no kind of file known here."
    )


def test_a_lens_denoiser_is_known_by_both_marks_and_under_stacked_prefixes():
    marks = ["transformer_blocks.0.attn.norm_added_q.weight", "transformer_blocks.0.img_mlp.w1.weight"]
    assert denoiser_prefix(marks) == ""
    assert denoiser_prefix([f"module._orig_mod.{mark}" for mark in marks]) == "module._orig_mod."
    assert denoiser_prefix([f"elsewhere.{mark}" for mark in marks]) is None
    assert denoiser_prefix(marks[:1]) is None
    assert detect_kind(["something.else"]) is None


def test_a_header_whose_length_begins_as_a_pickle_is_read(tmp_path):
    entry = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for length in (0x280, 0x380, 0x480, 0x580, 0x10280):
        file = tmp_path / f"{length}.safetensors"
        file.write_bytes(length.to_bytes(8, "little") + entry.ljust(length) + bytes(4))
        assert list(open_safetensors(file).tensors) == ["x"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["transformer.x.img_qkv.lora_A.weight"], "a LoRA for Lens"),
        (["x_img_qkv.lora_down.weight", "x_img_qkv.dora_scale"], "a DoRA for Lens"),
        (["x.img_qkv.lora_A.weight", "x.img_qkv.lora_magnitude_vector"], "a DoRA for Lens"),
        (["x.hada_w1_a", "x.hada_w1_b"], "a LoHa adapter"),
        (["x.lokr_w1"], "a LoKr adapter"),
        (["x.diff", "x.diff_b"], "an adapter with differences of whole weights"),
        (["model.diffusion_model.x.weight"], None),
        (["x.oft_blocks", "x.alpha"], "an OFT or BOFT adapter"),
        (["x.a1.weight", "x.a2.weight", "x.b1.weight", "x.b2.weight"],
         "a GLoRA adapter"),
        (["x.ia3_l"], "an adapter of the kind IA3, which is not supported"),
    ],
)  # fmt: skip
def test_kinds_of_adapters_are_told_apart_by_their_keys(names, kind):
    assert detect_kind(names) == kind
