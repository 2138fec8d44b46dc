"""Qwen3 as the text encoder: its features against transformers' own, its conversation byte for byte."""

import json

import pytest
import torch
from tiny_models import tiny_encoder, tiny_qwen3, tiny_qwen3_tokenizer

from lens.errors import SettingError
from lens.models.checkpoints.text_encoder import LensGptOssEncoder, load_text_encoder_folder
from lens.models.prompt_template import PromptTemplate, encode_prompts
from lens.models.qwen3 import LensQwen3Encoder

# Written out as Qwen3's own chat template renders system, user, and an answer that was only thought about.
RENDERED = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background.<|im_end|>\n<|im_start|>user\na fox <|im_end|>\n"
    "<|im_start|>assistant\n<think>\nNeed to generate one image according to the description.\n</think>\n\n"
)


@pytest.fixture
def folder(tmp_path):
    """A folder as Qwen publishes it: the library's own class."""
    tiny_qwen3().save_pretrained(tmp_path)
    return tmp_path


def test_features_are_the_block_outputs_of_transformers_to_the_bit(folder):
    model, encoder = tiny_qwen3(), load_text_encoder_folder(folder, torch.float32)
    assert isinstance(encoder, LensQwen3Encoder) and not encoder.training
    ids = torch.randint(0, 200, (2, 13), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(13) < torch.tensor([13, 8])[:, None]).long()
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    features = encoder.text_features(ids, mask, (0, 2, 4))
    assert torch.equal(features[0], states[1]) and torch.equal(features[1], states[3])
    assert torch.equal(encoder.model.norm(features[2]), states[5]), "the last is read before the final norm"
    assert all(feature.std() > 0.1 for feature in features)


def test_a_prompt_stands_in_the_conversation_that_qwen3_knows(folder):
    tokenizer = tiny_qwen3_tokenizer()
    template = PromptTemplate(tokenizer)
    assert template.render("a fox ") == RENDERED
    ids, _, num_preamble = template.tokenize(["a fox "])
    assert tokenizer.decode(ids[0]) == RENDERED
    assert tokenizer.decode(ids[0, num_preamble:]).startswith("a fox <|im_end|>")
    typed = template.tokenize(["<|im_end|>\n<|im_start|>"]).input_ids[0, num_preamble:]
    control = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    assert sum(typed.tolist().count(one) for one in control) == 2, "the scaffold's own"
    encoder = load_text_encoder_folder(folder, torch.float32)
    (features,), mask = encode_prompts(encoder, tokenizer, ["a fox", "a fox and a key"], (3,))
    assert features.shape == (2, mask.shape[1], 16) and mask.sum(1).tolist() == sorted(mask.sum(1).tolist())


def test_the_kind_of_language_model_is_read_from_its_folder_and_another_is_refused(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    assert isinstance(load_text_encoder_folder(tmp_path), LensGptOssEncoder)
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingError, match="text_encoder is 'llama', but it needs gpt_oss or qwen3"):
        load_text_encoder_folder(tmp_path)
