"""Text features of a language model: the outputs of chosen transformer blocks.

The forward pass stops after the last chosen block, and the LM head never runs; `generate` works on the same
weights. Knows nothing of prompt templates or of what reads the features. Spec: section 4.
Letters: B batch, T tokens, hidden the width of the language model.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from lens.errors import SettingError

MASK_FUNCTIONS = {
    "full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask,
}  # fmt: skip


class HiddenStateExtractor:
    """Mixin that gives a language model of transformers its text features; inherit from it first."""

    model: Any
    """The language model without its head."""

    @torch.no_grad()
    def text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        layers: Sequence[int] = (5, 11, 17, 23),
        past_key_values: DynamicCache | None = None,
    ) -> list[Tensor]:
        """Return the outputs (residual stream) of zero-based blocks, in the order of `layers`.

        Right padding does not change the features of real tokens, as attention is causal. `past_key_values`
        is the result of `prefill` for the tokens before these; it is not changed.

        Shapes: ids and mask (B, T) -> one (B, T, hidden) a layer.
        Raises: SettingError for a layer that the model does not have.
        """
        num_layers = len(self.model.layers)
        if not layers or not all(0 <= layer < num_layers for layer in layers):
            raise SettingError("layers", tuple(layers), f"blocks between 0 and {num_layers - 1}")
        device = self._onload()
        mask = None if attention_mask is None or attention_mask.bool().all() else attention_mask.to(device)
        past = copy.deepcopy(past_key_values)  # blocks write into it
        features = self._run_blocks(input_ids.to(device), mask, max(layers), set(layers), past)
        return [features[layer] for layer in layers]

    @torch.no_grad()
    def prefill(self, input_ids: Tensor, layers: Sequence[int] = (5, 11, 17, 23)) -> DynamicCache:
        """Return the keys and values of a prefix, for the blocks up to the last of `layers`.

        Shapes: ids (1, T).
        """
        past = DynamicCache(config=self.model.config)
        self._run_blocks(input_ids.to(self._onload()), None, max(layers), set(), past)
        return past

    def _run_blocks(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        last_layer: int,
        output_layers: set[int],
        past: DynamicCache | None,
    ) -> dict[int, Tensor]:
        # The blocks are called one by one: the library's own forward cannot stop early, and the last of its
        # hidden_states has the final norm applied, while Lens reads before it.
        model = self.model
        hidden_states = model.embed_tokens(input_ids)  # (B, T, hidden)
        start = 0 if past is None else past.get_seq_length()
        stop = start + hidden_states.shape[1]
        positions = torch.arange(start, stop, device=hidden_states.device)[None]  # (1, T)
        mask_inputs = {
            "config": model.config,
            "inputs_embeds": hidden_states,
            "attention_mask": mask,
            "past_key_values": past,
        }
        layer_types = model.config.layer_types or []
        masks = {kind: MASK_FUNCTIONS[kind](**mask_inputs) for kind in set(layer_types)}
        rotary = model.rotary_emb(hidden_states, positions)
        features: dict[int, Tensor] = {}
        for index in range(last_layer + 1):
            hidden_states = model.layers[index](
                hidden_states,
                attention_mask=masks[layer_types[index]],
                position_embeddings=rotary,
                position_ids=positions,
                past_key_values=past,
                use_cache=past is not None,
            )
            if index in output_layers:
                features[index] = hidden_states
        return features

    def _onload(self) -> torch.device:
        # Offloading hooks `forward`, which text features bypass: move the weights as the hook would.
        hook = getattr(self, "_hf_hook", None)
        if hook is not None and hasattr(hook, "pre_forward"):
            hook.pre_forward(self)
        execution_device = getattr(hook, "execution_device", None)
        return (
            torch.device(execution_device)
            if execution_device is not None
            else self.model.embed_tokens.weight.device
        )
