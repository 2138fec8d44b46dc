"""The prompt cache: text features of recent prompts, limited in bytes, least recently used first out.

Knows nothing of tokenizers or encoders. Letters: T text tokens, E text feature width.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

PromptFeatures = list[Tensor]
"""One (T, E) per captured layer; T is 0 for no text."""


class PromptCache:
    """Text features by their source, which is the encoder and its layers, and the text."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.hits = self.misses = self.num_bytes = 0
        self._entries: OrderedDict[tuple[Hashable, str], PromptFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def get_or_encode(
        self, source: Hashable, text: str, encode: Callable[[str], PromptFeatures]
    ) -> PromptFeatures:
        """Return the features of a text; encode it if they are not in the cache."""
        key = (source, text)
        with self._lock:
            if key in self._entries:
                self.hits += 1
                self._entries.move_to_end(key)
                return self._entries[key]
            self.misses += 1
        features = encode(text)
        with self._lock:
            self._entries[key] = features
            self.num_bytes += _num_bytes(features)
            while self.num_bytes > self.max_bytes and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self.num_bytes -= _num_bytes(oldest)
        return features

    def __len__(self) -> int:
        return len(self._entries)


def _num_bytes(features: PromptFeatures) -> int:
    return sum(layer.numel() * layer.element_size() for layer in features)
