"""The next tokens of real tiny models are those of transformers, resident and block by block."""

import pytest
import torch
from mxfp4_encoder import write_mxfp4_encoder
from tiny_models import tiny_encoder, tiny_qwen3

from lens.errors import NonFiniteError
from lens.models import hidden_states
from lens.models.chat.continuation import Continuation
from lens.models.checkpoints.text_encoder import load_text_encoder_folder
from lens.models.quantized.packed_modules import PackedLinear
from lens.models.quantized.packed_weight import PackedWeight, plain_format
from lens.models.qwen3 import LensQwen3Encoder

PROMPT = [5, 17, 3, 88, 41, 9, 120, 7, 63, 30, 2, 77]
SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.fixture(scope="module")
def mxfp4(tmp_path_factory):
    """Return an encoder with packed experts, all views of their file."""
    folder = tmp_path_factory.mktemp("encoder") / "mxfp4"
    write_mxfp4_encoder(folder, experts=8, sliding_window=5)
    return load_text_encoder_folder(folder, torch.float32, device="cpu")


def qwen3_encoder():
    model = tiny_qwen3()
    encoder = LensQwen3Encoder(model.config).eval()
    encoder.load_state_dict(model.state_dict())
    encoder.tie_weights()
    return encoder


MODELS = {
    "gpt-oss": lambda: tiny_encoder(sliding_window=5),
    "gpt-oss, all full": lambda: tiny_encoder(num_hidden_layers=3, layer_types=[FULL] * 3),
    "gpt-oss, all sliding": lambda: tiny_encoder(
        num_hidden_layers=3, layer_types=[SLIDING] * 3, sliding_window=4
    ),
    "qwen3 as text encoder": qwen3_encoder,
    "qwen3 of transformers": tiny_qwen3,
}


def greedy(model, count: int) -> list[int]:
    text, tokens, unread = Continuation(model), [], PROMPT
    for _ in range(count):
        text.read(unread)
        tokens.append(text.sample(0, torch.Generator()))
        unread = tokens[-1:]
    return tokens


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_greedy_tokens_are_those_that_transformers_generates(make):
    model = make()
    generated = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert greedy(model, 12) == generated[0, len(PROMPT) :].tolist()


def test_packed_experts_continue_as_transformers_does(mxfp4):
    generated = mxfp4.generate(
        torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert greedy(mxfp4, 12) == generated[0, len(PROMPT) :].tolist()


def test_a_packed_lm_head_is_widened_some_rows_at_a_time(monkeypatch):
    model = tiny_encoder()
    rounded = model.lm_head.weight.detach().bfloat16()
    model.lm_head.weight.data.copy_(rounded.float())
    plain = greedy(model, 8)
    packed = PackedWeight(plain_format("BF16"), (rounded,), tuple(rounded.shape))
    model.lm_head = PackedLinear(packed, None, torch.float32)
    monkeypatch.setattr(hidden_states, "HEAD_ROWS", 100)
    monkeypatch.setattr(PackedWeight, "dequantize", None)
    assert greedy(model, 8) == plain


def brute_force(model, text: list[int], end_ids: list[int]) -> float:
    """Return the log-probability by one pass of transformers without a cache."""
    with torch.no_grad():
        rows = model(torch.tensor([PROMPT + text])).logits[0, len(PROMPT) - 1 :].log_softmax(-1)
    return float(sum(rows[at, token] for at, token in enumerate(text)) + rows[-1, end_ids].logsumexp(0))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_scores_are_the_probabilities_of_transformers(make):
    model, texts, end_ids = make(), [[4, 8], [4], [], [4, 8, 15, 16, 23, 42, 4, 8], [99]], [1, 6]
    text = Continuation(model)
    text.read(PROMPT[:5])
    text.read(PROMPT[5:])
    expected = [brute_force(model, one, end_ids) for one in texts]
    assert text.log_probabilities(texts, end_ids) == pytest.approx(expected, abs=2e-4)
    assert text.log_probabilities(texts, end_ids) == pytest.approx(expected, abs=2e-4), "the text has grown"


def logits_by_token(model, seed: int) -> list[torch.Tensor]:
    text, unread, logits = Continuation(model), PROMPT, []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(9):
        text.read(unread)
        logits.append(text._logits)
        unread = [text.sample(1.0, generator)]
    return logits


def test_block_by_block_every_token_is_that_of_the_resident_model_to_the_bit(mxfp4, monkeypatch):
    resident = logits_by_token(mxfp4, seed=3)
    monkeypatch.setattr(mxfp4, "releases_blocks", True)
    streamed = logits_by_token(mxfp4, seed=3)
    assert all(torch.equal(one, other) for one, other in zip(resident, streamed, strict=True))
    assert len({int(one.argmax()) for one in resident}) > 1


def test_block_by_block_a_token_reads_only_the_experts_that_it_is_routed_to(mxfp4, monkeypatch):
    read: set[tuple[int, int]] = set()

    def prefetch(*sources) -> None:
        for source in sources:
            is_tensor = isinstance(source, torch.Tensor)
            tensors = [source] if is_tensor else [*source.parameters(), *source.buffers()]
            read.update((one.data_ptr(), one.nbytes) for one in tensors)

    monkeypatch.setattr(hidden_states, "prefetch", prefetch)
    monkeypatch.setattr(mxfp4, "releases_blocks", True)
    experts = [block.mlp.experts for block in mxfp4.model.layers]
    stored = {(one.data_ptr(), one.nbytes) for part in experts for one in part.stored_parts(range(8))}
    text = Continuation(mxfp4)
    text.read(PROMPT)  # nearly all experts: whole blocks are read ahead
    assert not read & stored
    read.clear()
    text.read([7])
    assert len(read & stored) == 2 * len(stored) // 8, "two of eight experts in each of two blocks"
    assert mxfp4.lm_head.weight.data_ptr() in {address for address, _ in read}


def test_a_seed_draws_the_same_tokens_and_leaves_the_global_random_state_alone():
    model = tiny_encoder()
    before = torch.random.get_rng_state()
    one, again, other = (logits_by_token(model, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(map(torch.equal, one, again))
    assert not all(map(torch.equal, one, other))


def test_tokens_are_drawn_as_often_as_they_are_likely_at_the_temperature():
    text = Continuation(tiny_encoder())
    text._logits = torch.tensor([0.0, 1.0, 2.0, -30.0])
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 2.0):
        drawn = torch.tensor([text.sample(temperature, generator) for _ in range(4000)]).bincount(minlength=4)
        expected = (text._logits / temperature).softmax(-1)
        torch.testing.assert_close(drawn / 4000, expected, atol=0.025, rtol=0)


def test_a_temperature_near_zero_takes_the_most_likely_token():
    text = Continuation(tiny_encoder())
    text.read(PROMPT)
    generator = torch.Generator().manual_seed(0)
    assert text.sample(1e-30, generator) == text.sample(0, generator)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_overflows_is_an_error(value):
    model = tiny_encoder()
    with torch.no_grad():
        model.lm_head.weight[3] = value
    with pytest.raises(NonFiniteError, match="overflowed in float32"):
        Continuation(model).read(PROMPT)


def test_a_caller_is_asked_before_each_use_and_after_each_block():
    calls = []
    text = Continuation(tiny_encoder(), lambda: calls.append(1))
    text.read(PROMPT)
    assert len(calls) == 1 + 6
