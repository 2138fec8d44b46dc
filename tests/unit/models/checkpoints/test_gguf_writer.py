"""GGUF files are written one tensor at a time, and read back by the `gguf` package itself."""

import gguf
import numpy as np
import pytest
import torch

from lens.errors import CheckpointError
from lens.models.checkpoints.gguf import open_gguf
from lens.models.checkpoints.gguf_writer import StreamedGgufTensor, write_gguf_streamed

MATRIX = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)


def q8_0(rows=MATRIX):
    blocks = torch.from_numpy(gguf.quantize(rows, gguf.GGMLQuantizationType.Q8_0))
    return StreamedGgufTensor((len(rows), 64), "Q8_0", lambda: iter(blocks.split(2)))


TENSORS = {
    "bias": StreamedGgufTensor((5,), "F32", lambda: torch.arange(5.0)),
    "matrix": q8_0(),
    "half": StreamedGgufTensor((2, 3), "F16", lambda: torch.arange(6.0).reshape(2, 3).half()),
}
SETTINGS = {
    "lens.blocks": 3,
    "lens.eps": 0.5,
    "lens.on": True,
    "lens.kind": "tiny",
    "lens.tokens": ["a", "bc"],
}


def test_tensors_and_settings_read_back(tmp_path):
    path = tmp_path / "a.gguf"
    write_gguf_streamed(path, TENSORS, "lens", SETTINGS)
    reader = gguf.GGUFReader(path)
    read = {key: field.contents() for key, field in reader.fields.items()}
    assert {key: read[key] for key in SETTINGS} == SETTINGS
    assert read["general.architecture"] == "lens"
    assert [tensor.name for tensor in reader.tensors] == list(TENSORS)
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)
    values = open_gguf(path).tensors
    assert torch.equal(values["bias"].read(), torch.arange(5.0))
    assert torch.equal(values["half"].read().float(), torch.arange(6.0).reshape(2, 3))
    expected = gguf.dequantize(
        gguf.quantize(MATRIX, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0
    )
    assert torch.equal(values["matrix"].read(), torch.from_numpy(expected))


def test_the_file_has_the_bytes_that_the_package_itself_writes(tmp_path):
    write_gguf_streamed(tmp_path / "ours.gguf", TENSORS, "lens", SETTINGS)
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "lens")
    writer.add_uint32("lens.blocks", 3)
    writer.add_float32("lens.eps", 0.5)
    writer.add_bool("lens.on", True)
    writer.add_string("lens.kind", "tiny")
    writer.add_array("lens.tokens", ["a", "bc"])
    writer.add_tensor("bias", np.arange(5, dtype=np.float32))
    q8_0_type = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("matrix", gguf.quantize(MATRIX, q8_0_type), raw_dtype=q8_0_type)
    writer.add_tensor("half", np.arange(6, dtype=np.float16).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (StreamedGgufTensor((2, 3), "F32", lambda: torch.zeros(5)), "24 bytes, but 20 were read"),
        (StreamedGgufTensor((2, 48), "Q8_0", lambda: torch.zeros(0)), "rows of a multiple of 32"),
        (StreamedGgufTensor((2, 32), "Q9", lambda: torch.zeros(0)), "w is in Q9. Formats of GGUF are F32"),
    ],
    ids=["size", "rows", "format"],
)
def test_a_tensor_that_is_not_as_declared_leaves_no_file(tmp_path, tensor, said):
    with pytest.raises(CheckpointError, match=said):
        write_gguf_streamed(tmp_path / "a.gguf", {"w": tensor}, "lens")
    assert not list(tmp_path.iterdir())


def test_a_name_without_the_suffix_and_a_setting_that_gguf_lacks_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must end in"):
        write_gguf_streamed(tmp_path / "a.bin", TENSORS, "lens")
    with pytest.raises(CheckpointError, match=r"lens.x is a dict, which GGUF does not hold"):
        write_gguf_streamed(tmp_path / "a.gguf", TENSORS, "lens", {"lens.x": {}})
