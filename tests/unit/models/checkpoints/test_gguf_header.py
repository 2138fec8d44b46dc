"""Headers of GGUF files against the writer and the tables of the `gguf` package."""

import gguf
import numpy as np
import pytest

from lens.errors import CheckpointError
from lens.models.checkpoints.gguf_header import GGUF_FORMATS, read_gguf_header


@pytest.fixture
def file(tmp_path):
    """A file with settings of every kind, an array of strings, and tensors of two formats."""
    path = tmp_path / "some.gguf"
    writer = gguf.GGUFWriter(path, "lens")
    writer.add_string("general.name", "a fox")
    writer.add_uint32("lens.count", 7)
    writer.add_float32("lens.share", 0.25)
    writer.add_bool("lens.flag", True)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "\u0120d"])
    writer.add_array("tokenizer.ggml.token_type", [1, 1, 3])
    writer.add_tensor("plain", np.arange(15, dtype=np.float32).reshape(3, 5))
    kind = gguf.GGMLQuantizationType.Q8_0
    values = np.linspace(-1, 1, 2 * 64, dtype=np.float32).reshape(2, 64)
    writer.add_tensor("packed", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_settings_and_tensors_are_those_that_were_written(file):
    header = read_gguf_header(file)
    numbers = {name: header.settings[f"lens.{name}"] for name in ("count", "share", "flag")}
    assert header.settings["general.name"] == "a fox"
    assert numbers == {"count": 7, "share": 0.25, "flag": True}
    plain, packed = header.tensors["plain"], header.tensors["packed"]
    assert (plain.shape, plain.format, plain.num_bytes) == ((3, 5), "F32", 60)
    assert (packed.shape, packed.format, packed.num_bytes) == ((2, 64), "Q8_0", 2 * 2 * 34)
    stored = file.read_bytes()[plain.offset : plain.offset + plain.num_bytes]
    assert np.frombuffer(stored, np.float32).tolist() == list(range(15))


def test_arrays_are_read_only_where_they_are_named(file):
    assert "tokenizer.ggml.tokens" not in read_gguf_header(file).settings
    settings = read_gguf_header(file, arrays=("tokenizer.ggml.tokens",)).settings
    assert settings["tokenizer.ggml.tokens"] == ["a", "bc", "\u0120d"]
    assert "tokenizer.ggml.token_type" not in settings


def test_the_table_of_formats_is_that_of_the_package():
    table = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: entry for number, entry in table.items() if number in GGUF_FORMATS} == GGUF_FORMATS


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_named_as_truncated(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: max(int(len(data) * share), 5)])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_gguf_header(file)


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="is not a GGUF file"):
        read_gguf_header(tmp_path / "x.gguf")
