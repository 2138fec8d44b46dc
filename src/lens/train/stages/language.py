"""The language stage: trains the nano text encoder on captions of the nano world, to continue and read them.

The model is a GPT-OSS. Captions are embedded in the conversation template of prompts, so that the text
encoder is trained on its later inputs. Losses: the next token of the caption; the facts of the scene, told by
the tokens after it (nano/reading.py); and the same facts, told by any of its own tokens.
Letters: B captions, P tokens of the preamble, T tokens from the caption on.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.cache_utils import DynamicCache
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig

from lens.losses.base import LossOutput, StepStats
from lens.losses.next_token import next_token_loss
from lens.losses.reading import MentionHead, ReadingHead, mention_loss, reading_loss
from lens.models.checkpoints.text_encoder import LensGptOssEncoder, load_text_encoder_folder
from lens.models.prompt_template import PromptTemplate
from lens.models.tokenizer import train_tokenizer
from lens.nano.captions import CaptionMix, NanoCaption, nano_caption
from lens.nano.evaluation_prompts import EvalPrompt, is_stated, read_prompts
from lens.nano.reading import (
    LABELS,
    NUM_FACTS,
    NUM_MENTIONS,
    NUM_SCAFFOLD_TOKENS,
    facts_of,
    mentions_of,
    reading_of,
    spec_of,
)
from lens.train.devices import autocast, resolve_device
from lens.train.settings.stages import LanguageSettings

FIRST_HELD_OUT_CAPTION = 2**31
"""First held-out caption; training uses earlier captions only."""
MENTION_BLOCK, FACT_BLOCK = 1, 2
"""Blocks whose outputs tell what each token mentions, and of which group: words first, sentences later."""
POOL_BATCHES = 16
"""Batches that are sorted by length together, so that a batch needs little padding."""
HELD_OUT_CAPTIONS, HELD_OUT_LOSS_CAPTIONS = 256, 128
"""Captions that an evaluation reads, and those of them that it measures the losses of."""
READ_BATCH_SIZE = 64


class CaptionStates(NamedTuple):
    """Hidden states of a batch of captions from their first tokens on, and the tokens."""

    mentions: Tensor
    """(B, T, width) after MENTION_BLOCK."""
    facts: Tensor
    """(B, T, width) after FACT_BLOCK."""
    last: Tensor
    """(B, T, width) after the last block."""
    ids: Tensor
    """(B, T) token ids."""
    lengths: Tensor
    """(B,) tokens of each caption; those of the scaffold follow."""


class LanguageStage:
    """Trains a text encoder; the heads that tell the facts are not exported."""

    def __init__(self, settings: LanguageSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        self.mix = CaptionMix.of(settings.captions)
        self.tokenizer, encoder = self._start_model()
        self.template = PromptTemplate(self.tokenizer)
        counts = [len(label.values) for label in LABELS]
        head = ReadingHead(encoder.config.hidden_size, [label.token for label in LABELS], counts)
        width = encoder.config.hidden_size
        heads = {"mentions": MentionHead(width, NUM_MENTIONS), "facts": MentionHead(width, NUM_FACTS)}
        parts = {"encoder": encoder, "head": head} | heads
        self.model: Any = nn.ModuleDict(parts).to(self.device)
        self._probes = {path.stem: read_prompts(path) for path in settings.probe_prompt_files}
        self._pool = lru_cache(maxsize=2)(self._make_pool)

    def _start_model(self) -> tuple[PreTrainedTokenizerFast, Any]:
        """Return a tokenizer and a text encoder: trained ones from `start_from`, or a new encoder."""
        settings = self.settings
        torch.manual_seed(settings.seed)
        if settings.start_from:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(settings.start_from / "tokenizer")
            return tokenizer, load_text_encoder_folder(settings.start_from / "text_encoder", torch.float32)
        tokenizer = self._train_tokenizer()
        names = ("pad_token_id", "eos_token_id", "bos_token_id")
        tokens = {name: getattr(tokenizer, name) for name in names}
        encoder: Any = LensGptOssEncoder(GptOssConfig(vocab_size=len(tokenizer), **tokens, **settings.config))
        nn.init.normal_(encoder.model.embed_tokens.weight, std=settings.embedding_std)
        return tokenizer, encoder

    def objective(self, step: int, index: int) -> LossOutput:
        count = self.settings.batch_size // self.settings.micro_batches
        batch = step * self.settings.micro_batches + index
        pool, place = divmod(batch, POOL_BATCHES)
        loss_output = self._loss(self._pool(pool, count)[place])
        return loss_output._replace(stats=StepStats(num_samples=count))

    def evaluate(self) -> dict[str, float]:
        """Return losses of held-out captions, and the shares of captions and prompts that are read right."""
        captions = [self._caption(FIRST_HELD_OUT_CAPTION + item) for item in range(HELD_OUT_CAPTIONS)]
        output = self._loss(captions[:HELD_OUT_LOSS_CAPTIONS])
        metrics = {"loss": float(output.loss)} | {name: float(term) for name, term in output.terms.items()}
        readings = self.read([caption.text for caption in captions])
        labels = [reading_of(caption.spec) for caption in captions]
        right = [np.array_equal(*pair) for pair in zip(readings, labels, strict=True)]
        metrics["read/held_out"] = float(np.mean(right))
        for name, prompts in self._probes.items():
            metrics[f"read/{name}"] = float(np.mean([is_read for _, is_read in self.read_prompts(prompts)]))
        return metrics

    def sample_grid(self) -> None:
        return None

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        of_encoder = (item for item in state.items() if item[0].startswith("encoder."))
        weights = {name.removeprefix("encoder."): tensor for name, tensor in of_encoder}
        self.model["encoder"].save_pretrained(folder / "text_encoder", state_dict=weights)
        self.tokenizer.save_pretrained(folder / "tokenizer")

    @torch.no_grad()
    def read(self, texts: list[str]) -> list[NDArray[np.int64]]:
        """Return the labels that the model tells for each text: (len(LABELS),) each."""
        readings = []
        for start in range(0, len(texts), READ_BATCH_SIZE):
            states = self._forward(texts[start : start + READ_BATCH_SIZE])
            logits = self.model["head"](_rows_from(states.last, states.lengths, NUM_SCAFFOLD_TOKENS))
            readings += list(torch.stack([one.argmax(-1) for one in logits], dim=1).cpu().numpy())
        return readings

    def read_prompts(self, prompts: list[EvalPrompt]) -> list[tuple[EvalPrompt, bool]]:
        """Return each prompt with whether the model reads all that its line states."""
        readings = self.read([prompt.prompt for prompt in prompts])
        return [
            (prompt, is_stated(prompt.spec, spec_of(reading)))
            for prompt, reading in zip(prompts, readings, strict=True)
        ]

    def _loss(self, captions: list[NanoCaption]) -> LossOutput:
        states = self._forward([caption.text for caption in captions])
        labels = np.stack([reading_of(caption.spec) for caption in captions])              # (B, labels)
        logits = self.model["head"](_rows_from(states.last, states.lengths, NUM_SCAFFOLD_TOKENS))
        reading = reading_loss(logits, self._on_device(labels))
        place = torch.arange(states.ids.shape[1], device=self.device)                      # (T,)
        is_prompt = place < states.lengths[:, None]                                        # (B, T)
        mentioned = self._on_device(np.stack([mentions_of(row) for row in labels]))
        mentions = mention_loss(self.model["mentions"](states.mentions), is_prompt, mentioned)
        told = self._on_device(np.stack([facts_of(row) for row in labels]))
        facts = mention_loss(self.model["facts"](states.facts), is_prompt, told)
        # The head over the vocabulary costs as much as the rest: only a share of the captions has this loss.
        few = slice(0, max(1, round(len(captions) * self.settings.next_token_share)))
        mask = place <= states.lengths[few, None]                                          # (b, T)
        encoder = self.model["encoder"]
        with autocast(self.device, self.settings.precision):
            continued = encoder.lm_head(encoder.model.norm(states.last[few]))       # (b, T, vocabulary)
        text = next_token_loss(continued, states.ids[few], mask.long()).loss
        loss = text + self.settings.reading_weight * (reading + mentions + facts)
        terms = {"text": text, "reading": reading, "mentions": mentions, "facts": facts}
        return LossOutput(loss, {name: term.detach() for name, term in terms.items()})

    def _forward(self, texts: list[str]) -> CaptionStates:
        """Return the states of captions; the keys of the preamble are computed once, without gradients."""
        encoder = self.model["encoder"]
        last = encoder.config.num_hidden_layers - 1
        blocks = [min(block, last) for block in (MENTION_BLOCK, FACT_BLOCK)]
        batch = self.template.tokenize(texts)
        num_preamble = batch.num_preamble_tokens
        lengths = batch.attention_mask.sum(1) - num_preamble - len(self.template.scaffold_ids)
        stop = num_preamble + int(lengths.max()) + NUM_SCAFFOLD_TOKENS  # the tokens after those tell nothing
        ids = batch.input_ids[:, num_preamble:stop].to(self.device)
        mask = batch.attention_mask[:, :stop].to(self.device)
        with autocast(self.device, self.settings.precision):
            past: DynamicCache = encoder.prefill(batch.input_ids[:1, :num_preamble], [last])
            past.batch_repeat_interleave(len(texts))
            hidden = encoder._run_blocks(ids, mask, last, {*blocks, last}, past)
        mentions, facts = (hidden[block] for block in blocks)
        return CaptionStates(mentions, facts, hidden[last], ids, lengths.to(self.device))

    def _make_pool(self, pool: int, count: int) -> list[list[NanoCaption]]:
        """Return the captions of some batches, each of captions of similar length, in random order."""
        first = pool * POOL_BATCHES * count
        captions = sorted((self._caption(first + item) for item in range(POOL_BATCHES * count)), key=_length)
        order = np.random.default_rng([self.settings.seed, pool]).permutation(POOL_BATCHES)
        return [captions[place * count : (place + 1) * count] for place in order]

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _caption(self, item: int) -> NanoCaption:
        return nano_caption(self.settings.seed, item, self.mix)

    def _train_tokenizer(self) -> PreTrainedTokenizerFast:
        texts = [self._caption(item).text for item in range(self.settings.tokenizer_captions)]
        vocab_size = self.settings.vocab_size
        first = train_tokenizer(texts[:100], vocab_size, ignores_case=True)
        # With whole conversations among the captions, the fixed strings take few tokens.
        conversations = [PromptTemplate(first).render(text) for text in texts[:200]]
        return train_tokenizer([*texts, *conversations], vocab_size, ignores_case=True)


def _length(caption: NanoCaption) -> int:
    return len(caption.text.encode())


def _rows_from(hidden: Tensor, starts: Tensor, count: int) -> Tensor:
    """Return `count` hidden states of each row from its start on: (B, T, D), (B,) -> (B, count, D)."""
    places = starts[:, None] + torch.arange(count, device=hidden.device)               # (B, count)
    return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
