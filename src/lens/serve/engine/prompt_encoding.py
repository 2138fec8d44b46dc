"""Encoding of a model's prompts for the prompt cache: from disk where they are cached there, else encoded.

Knows nothing of requests. Letters: T text tokens, E text feature width.
"""

from functools import cached_property
from typing import Any

from torch import Tensor

from lens.models.prompt_template import PromptEncoder, PromptTemplate, encode_rows
from lens.sampling.text_cache import TextFeatureSource, computation_name, encode_with_cache, open_text_cache
from lens.serve.engine.model_registry import LoadedModel
from lens.serve.engine.prompt_cache import PromptFeatures
from lens.serve.settings.engine import EngineSettings


class CachedPromptEncoder:
    """The prompts of one model, encoded by its text encoder or read from the disk cache.

    With the disk cache, whole conversations are encoded as the command does, so that both can share features.
    Without it, the keys and values of the text before the prompt are computed once; features then differ in
    their rounding.
    """

    def __init__(self, model: LoadedModel, settings: EngineSettings):
        self._pipeline, self._resolved, self._dtype = model.pipeline, model.entry.model, settings.dtype
        self._layers, self._date = model.text_encoder_key.layers, model.text_encoder_key.date
        encoder_bytes = weight_bytes(self._pipeline.text_encoder)
        self.disk_cache = open_text_cache(
            settings.text_cache_disk, encoder_bytes, settings.text_cache_disk_bytes
        )

    def encode(self, text: str) -> PromptFeatures:
        """Return the text features of a prompt.

        Shapes: one (T, E) a layer.
        """
        if self.disk_cache is None:
            return self._prefix_encoder.encode(text)
        return encode_with_cache([text], self.disk_cache, self._source.key, self._encode_whole)[0]

    @cached_property
    def _prefix_encoder(self) -> PromptEncoder:
        encoder, tokenizer = self._pipeline.text_encoder, self._pipeline.tokenizer
        return PromptEncoder(encoder, tokenizer, self._layers, date=self._date)

    @cached_property
    def _source(self) -> TextFeatureSource:
        encoder: Any = self._pipeline.text_encoder
        return TextFeatureSource(
            self._resolved.part_hash("text_encoder"),
            self._layers,
            computation_name(encoder.device, self._dtype),
            PromptTemplate(self._pipeline.tokenizer, self._date),
        )

    def _encode_whole(self, texts: list[str]) -> list[list[Tensor]]:
        encoder, tokenizer = self._pipeline.text_encoder, self._pipeline.tokenizer
        return encode_rows(encoder, tokenizer, texts, self._layers, date=self._date)


def weight_bytes(module: Any) -> int:
    """Return the bytes of a module's weights, packed ones as they are stored."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
