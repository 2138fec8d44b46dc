"""A tiny random vision-language model of the transformers library captions images."""

import io

import pytest
import torch
from PIL import Image

from lens.data.captions.prompts import CaptionPrompt
from lens.data.captions.transformers_backend import TransformersBackend

WORDING = CaptionPrompt("short-1", "You write captions.", "What is this?", 7)
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A LLaVA of a few thousand weights with a byte-level tokenizer, saved in the published layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import (
        CLIPImageProcessorPil,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=["<pad>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(["a red fox"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>")
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16,
    }  # fmt: skip
    text = {
        "model_type": "llama", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": len(tokenizer),
        "max_position_embeddings": 512, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=2, vision_feature_layer=-1,
        image_seq_length=4,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        chat_template=TEMPLATE, num_additional_image_tokens=1,
    )  # fmt: skip
    where = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(where)
    processor.save_pretrained(where)
    return where


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (shade, 40, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_same_seed_writes_the_same_and_leaves_the_random_state_alone(folder):
    asker = TransformersBackend(str(folder), "cpu")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = asker.ask(jpeg(200), WORDING, temperature=1.0, seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert asker.ask(jpeg(200), WORDING, temperature=1.0, seed=3) == first
    assert asker.ask(jpeg(200), WORDING, temperature=1.0, seed=4).text != first.text


def test_tokens_are_counted_and_an_answer_at_the_limit_is_cut(folder):
    reply = TransformersBackend(str(folder), "cpu").ask(jpeg(10), WORDING, temperature=0.0, seed=0)
    assert 0 < reply.completion_tokens <= 7
    assert reply.is_cut == (reply.completion_tokens == 7)
    assert reply.prompt_tokens > 4, "words and the four patches of the picture"
    assert not reply.is_refused
