"""Text features of prompts that came before: least recently used, bounded in bytes.

Knows nothing of tokenizers or encoders. Letters: T text tokens, E text feature width.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

Features = list[Tensor]
"""One (T, E) a captured layer; of no text at all T is 0."""


class TextCache:
    """Features by (what made them, the text)."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.hits = self.misses = self.held_bytes = 0
        self._kept: OrderedDict[tuple[Hashable, str], Features] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, source: Hashable, text: str, encode: Callable[[str], Features]) -> Features:
        """Return the features of a text, encoded now unless they are kept from before."""
        key = (source, text)
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key]
            self.misses += 1
        features = encode(text)
        with self._lock:
            self._kept[key] = features
            self.held_bytes += _bytes_of(features)
            while self.held_bytes > self.max_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self.held_bytes -= _bytes_of(oldest)
        return features

    def __len__(self) -> int:
        return len(self._kept)


def _bytes_of(features: Features) -> int:
    return sum(layer.numel() * layer.element_size() for layer in features)
