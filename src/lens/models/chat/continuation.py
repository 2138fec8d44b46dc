"""The next tokens of a text by a causal language model: sampled with a seed, or scored.

A text encoder goes block by block, so that it may be larger than the memory; any other model of transformers
goes through its own `forward`. Knows nothing of conversations.
Letters: T tokens, V vocabulary.
"""

import copy
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from lens.errors import NonFiniteError
from lens.models.hidden_states import HiddenStateExtractor


class Continuation:
    """What a model has read, as keys and values, and what it expects next. Threads must not share it."""

    def __init__(self, model: Any, on_block: Callable[[], None] | None = None):
        """Start with no text. `on_block` is called before each use of the model, and after each block."""
        self._model, self._on_block = model, on_block or (lambda: None)
        self._cache = DynamicCache(config=model.config)
        self._logits = torch.empty(0)  # (V,) of the next token

    def read(self, ids: Sequence[int]) -> None:
        """Read the next tokens of the text. Raises: NonFiniteError where the model overflows."""
        self._logits = self._forward([ids], [self._cache], 1)[0][-1]

    def sample(self, temperature: float, generator: torch.Generator) -> int:
        """Return a next token, which is not read yet; the most likely one at temperature 0.

        The generator is one of the CPU, so that a seed means the same on every device.
        """
        if temperature == 0:
            return int(self._logits.argmax())
        probabilities = ((self._logits - self._logits.max()) / temperature).softmax(-1)
        return int(torch.multinomial(probabilities, 1, generator=generator))

    def log_probabilities(self, texts: Sequence[Sequence[int]], end_ids: Collection[int]) -> list[float]:
        """Return for each text how likely it comes next and then ends, with one of some tokens.

        The end counts: without it no text could be less likely than one that it begins.
        """
        full = [text for text in texts if text]
        caches = [copy.deepcopy(self._cache) for _ in full]
        following = iter(self._forward(full, caches, max(map(len, full), default=0)) if full else [])
        scores = []
        for text in texts:
            rows = [self._logits[None], *([next(following)] if text else [])]
            log_probs = torch.cat(rows).log_softmax(-1)  # (T+1, V)
            ended = log_probs[-1, list(end_ids)].logsumexp(0)
            scores.append(float(log_probs[range(len(text)), list(text)].sum() + ended))
        return scores

    @torch.no_grad()
    def _forward(
        self, texts: Sequence[Sequence[int]], caches: Sequence[DynamicCache], num_logits: int
    ) -> list[Tensor]:
        """Return the logits after the last tokens of texts. Shapes: (num_logits, V) each, in float32."""
        self._on_block()
        sequences = [torch.tensor(text, dtype=torch.long) for text in texts]
        if isinstance(self._model, HiddenStateExtractor):
            on_block = self._on_block
            logits = self._model.next_token_logits(sequences, caches, num_logits, lambda *_: on_block())
        else:
            pairs = zip(sequences, caches, strict=True)
            logits = [self._logits_of(ids, cache, num_logits) for ids, cache in pairs]
        results = [one.float().cpu() for one in logits]
        if any(bool(one.isnan().any()) or bool(one.isposinf().any()) for one in results):
            dtype = str(logits[0].dtype).removeprefix("torch.")
            raise NonFiniteError(
                f"The language model overflowed in {dtype}, or its weights are damaged. Compute in bfloat16 "
                "or float32, or check its files."
            )
        return results

    def _logits_of(self, ids: Tensor, cache: DynamicCache, num_logits: int) -> Tensor:
        # Logits of every token of a long text would take gigabytes.
        can_keep = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        kept: dict[str, Any] = {"logits_to_keep": num_logits} if can_keep else {}
        ids = ids[None].to(self._model.device)  # (1, T)
        output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, **kept)
        return output.logits[0, -num_logits:]
