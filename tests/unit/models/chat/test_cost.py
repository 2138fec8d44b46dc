"""What a token costs: bytes counted by hand, seconds from them, and the note that says so before."""

import math

import pytest
import torch
from mxfp4_encoder import write_mxfp4_encoder
from tiny_models import tiny_encoder, tiny_qwen3

from lens.models.chat import cost
from lens.models.checkpoints.text_encoder import load_text_encoder_folder

EXPERTS, USED = 8, 2


@pytest.fixture(scope="module")
def mxfp4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "mxfp4"
    write_mxfp4_encoder(folder, experts=EXPERTS)
    return load_text_encoder_folder(folder, torch.float32, device="cpu")


def test_a_token_reads_everything_but_the_table_of_words_and_the_experts_it_does_not_use():
    model = tiny_encoder()
    weights = {name: 4 * tensor.numel() for name, tensor in model.named_parameters()}
    experts = sum(size for name, size in weights.items() if ".experts." in name)
    table = weights["model.embed_tokens.weight"]
    others = sum(weights.values()) - experts - table + sum(one.nbytes for one in model.buffers())
    counted = cost.token_cost(model)
    assert counted.pass_bytes == others + experts
    assert counted.token_bytes == math.ceil(others + experts * 2 / 3)


def test_a_tied_head_is_read_too():
    model = tiny_qwen3()
    counted = cost.token_cost(model)
    assert counted.token_bytes == counted.pass_bytes
    assert counted.pass_bytes == sum(one.nbytes for one in [*model.parameters(), *model.buffers()])


def test_packed_experts_are_read_as_stored_and_widening_them_takes_time(mxfp4, monkeypatch):
    monkeypatch.setattr(cost, "available_memory", lambda _: 10**12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    counted = cost.token_cost(mxfp4)
    values = 2 * EXPERTS * (128 * 32 + 32 * 64)  # of the experts of two layers
    stored = values // 2 + values // 32
    biases = 2 * EXPERTS * (128 + 32) * 4
    saved = (stored + biases) * (EXPERTS - USED) / EXPERTS
    assert counted.pass_bytes - counted.token_bytes == pytest.approx(saved, abs=1)
    assert counted.source == "main memory"
    in_memory = counted.token_bytes / cost.BYTES_PER_S["cpu"]
    widening = values * USED / EXPERTS / cost.WIDENED_PER_S["cpu"]
    assert counted.token_s == pytest.approx(in_memory + widening)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert cost.token_cost(mxfp4).token_s == pytest.approx(in_memory + widening / 4)


def test_mapped_weights_that_do_not_fit_into_the_memory_come_from_the_disk(mxfp4, monkeypatch):
    monkeypatch.setattr(cost, "available_memory", lambda _: 1000)
    counted = cost.token_cost(mxfp4)
    assert counted.source == "the disk"
    assert counted.token_s > counted.token_bytes / cost.BYTES_PER_S["disk"]
    assert cost.token_cost(tiny_encoder()).source == "main memory", "what is no view of a file is in memory"


def test_the_note_tells_bytes_and_seconds_and_what_is_faster(monkeypatch):
    told = cost.TokenCost(3_100_000_000, 12_900_000_000, 5.5, 30.0, "the disk")
    monkeypatch.setattr(cost, "token_cost", lambda _: told)
    note = cost.cost_note(object(), 2048)
    assert note == (
        "Each token of an answer reads 3.1 GB of weights from the disk, about 5.5 s. The request takes about "
        "30 s to read, and an answer of 2048 tokens, the most allowed, about 3.1 hours. An endpoint, or a "
        "smaller model of transformers, is far faster."
    )
    monkeypatch.setattr(cost, "token_cost", lambda _: told._replace(source="the GPU", token_s=0.003))
    assert "far faster" not in cost.cost_note(object(), 400)
