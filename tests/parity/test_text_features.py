"""Captured features against transformers' own hidden states, in float32, equal to the bit."""

import pytest
import torch
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssForCausalLM

from lens.models.checkpoints.text_encoder import LensGptOssEncoder

SLIDING, FULL = "sliding_attention", "full_attention"
MODELS = {
    "alternating as released": {"num_hidden_layers": 6},
    "all sliding": {"layer_types": [SLIDING] * 5, "num_hidden_layers": 5},
    "all full": {"layer_types": [FULL] * 5, "num_hidden_layers": 5},
    "plain rotary": {
        "num_hidden_layers": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "layer_types": [FULL, FULL, SLIDING, FULL],
    },
    "one expert, tied head": {
        "num_hidden_layers": 3,
        "num_local_experts": 1,
        "num_experts_per_tok": 1,
        "tie_word_embeddings": True,
    },
}
LENGTHS = {"nothing padded": (19, 19), "right padding": (19, 7)}


def reference(changes: dict) -> GptOssForCausalLM:
    config = {
        "vocab_size": 53, "hidden_size": 24, "intermediate_size": 20, "head_dim": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 5,
        "initializer_range": 0.3,
    } | changes  # fmt: skip
    torch.manual_seed(0)
    return GptOssForCausalLM(GptOssConfig(**config)).eval()


def same_weights(model: GptOssForCausalLM) -> LensGptOssEncoder:
    encoder = LensGptOssEncoder(model.config).eval()
    encoder.load_state_dict(model.state_dict(), strict=True)
    return encoder


def batch(lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 53, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids, mask


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
def test_features_are_the_block_outputs_of_transformers(changes, lengths):
    model, (ids, mask) = reference(changes), batch(lengths)
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    num_layers = model.config.num_hidden_layers
    features = same_weights(model).text_features(ids, mask, range(num_layers))
    assert len(features) == num_layers
    for layer in range(
        num_layers - 1
    ):  # transformers puts the embedding in front, and the last one is normed
        assert torch.equal(features[layer], states[layer + 1])
        assert features[layer].std() > 0.1
    normed = model.model.norm(features[-1])
    assert torch.equal(normed, states[-1])
    assert not torch.allclose(features[-1], states[-1], atol=0.1)


def test_the_last_blocks_features_are_read_before_the_final_norm():
    model, (ids, mask) = reference({"num_hidden_layers": 3}), batch((11, 11))
    seen = []
    model.model.layers[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    assert torch.equal(same_weights(model).text_features(ids, mask, [2])[0], seen[0])


def test_generation_is_that_of_transformers():
    model, (ids, mask) = reference({"num_hidden_layers": 4}), batch((9, 9))
    answers = [
        one.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)
        for one in (model, same_weights(model))
    ]
    assert answers[0].shape == (2, 17)
    assert torch.equal(answers[0], answers[1])
