"""The language stage: trains the nano text encoder as a language model on captions of the nano world.

The model is a GPT-OSS. Captions are embedded in the conversation template of prompts, so that the text
encoder is trained on its later inputs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig

from lens.losses.base import LossOutput, StepStats
from lens.losses.next_token import next_token_loss
from lens.models.checkpoints.text_encoder import LensGptOssEncoder
from lens.models.prompt_template import PromptTemplate
from lens.models.tokenizer import train_tokenizer
from lens.nano.tasks import training_example
from lens.train.devices import autocast, resolve_device
from lens.train.settings.stages import LanguageSettings

FIRST_HELD_OUT_CAPTION = 2**31
"""First held-out caption; training uses earlier captions only."""


class LanguageStage:
    def __init__(self, settings: LanguageSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        texts = (self._caption(item) for item in range(settings.tokenizer_captions))
        tokenizer = train_tokenizer(texts, settings.vocab_size)
        self.template = PromptTemplate(tokenizer)
        # With whole conversations among the captions, the fixed strings take few tokens.
        conversations = (self.template.render(self._caption(item)) for item in range(200))
        texts = (self._caption(item) for item in range(settings.tokenizer_captions))
        tokenizer = train_tokenizer((*texts, *conversations), settings.vocab_size)
        self.tokenizer, self.template = tokenizer, PromptTemplate(tokenizer)
        torch.manual_seed(settings.seed)
        tokens = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
        config = GptOssConfig(vocab_size=len(tokenizer), **tokens, **settings.config)
        encoder = LensGptOssEncoder(config)
        nn.init.normal_(encoder.model.embed_tokens.weight, std=settings.embedding_std)
        self.model: Any = encoder
        self.model.to(self.device)

    def objective(self, step: int, index: int) -> LossOutput:
        count = self.settings.batch_size // self.settings.micro_batches
        loss_output = self._loss(step * self.settings.batch_size + index * count, count)
        return loss_output._replace(stats=StepStats(num_samples=count))

    def evaluate(self) -> dict[str, float]:
        return {"loss": float(self._loss(FIRST_HELD_OUT_CAPTION, 128).loss)}

    def sample_grid(self) -> None:
        return None

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        self.model.save_pretrained(folder / "text_encoder", state_dict=state)
        self.tokenizer.save_pretrained(folder / "tokenizer")

    def _loss(self, first: int, count: int) -> LossOutput:
        batch = self.template.tokenize([self._caption(first + item) for item in range(count)])
        ids, mask = batch.input_ids.to(self.device), batch.attention_mask.to(self.device)
        with autocast(self.device, self.settings.precision):
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=False)
        logits = output.logits                                                            # (B, T, vocabulary)
        # The preamble is the same in every conversation, so only its last token has something to predict.
        first_kept = batch.num_preamble_tokens - 1
        return next_token_loss(logits[:, first_kept:], ids[:, first_kept:], mask[:, first_kept:])

    def _caption(self, item: int) -> str:
        height, width = ((128, 128), (176, 96), (96, 176))[np.random.default_rng(item).integers(3)]
        return training_example(self.settings.seed, item, height, width)[1]
