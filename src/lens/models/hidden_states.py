"""Text features of a language model: the outputs of chosen transformer blocks.

The forward pass stops after the last chosen block, and the LM head does not run. The next tokens of a text
come from the same weights, through all blocks. Knows nothing of prompt templates or of what reads the
features. Spec: section 4.
Letters: B batch, T tokens, N last tokens of several sequences, V vocabulary, hidden the width of the model.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from lens.errors import SettingError
from lens.models.mapped_memory import prefetch, release
from lens.models.memory import hooked_device
from lens.models.quantized.packed_modules import PackedExperts, PackedLinear

MASK_FUNCTIONS = {
    "full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask,
}  # fmt: skip

HEAD_ROWS = 8192
"""Rows of a packed LM head that are dequantized at a time: a whole one would take gigabytes."""


class HiddenStateExtractor:
    """Mixin that gives a language model of transformers its text features; inherit from it first."""

    model: Any
    """The language model without its head."""
    lm_head: Any
    releases_blocks: bool = False
    """Whether the mapped weights of a block leave the memory after its use, for encoding once in a while."""

    @property
    def shares_blocks(self) -> bool:
        """Whether using a block is costly, so that sequences should go through the blocks together."""
        return self.releases_blocks or any(isinstance(part, PackedExperts) for part in self.model.modules())

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
        self._check_layers(layers)
        device = self._onload()
        mask = None if attention_mask is None or attention_mask.bool().all() else attention_mask.to(device)
        past = copy.deepcopy(past_key_values)  # blocks write into it
        features = self._run_blocks(input_ids.to(device), mask, max(layers), set(layers), past)
        return [features[layer] for layer in layers]

    @torch.no_grad()
    def text_features_of_sequences(
        self,
        sequences: Sequence[Tensor],
        layers: Sequence[int] = (5, 11, 17, 23),
        on_block: Callable[[int, int], None] | None = None,
    ) -> list[list[Tensor]]:
        """Return the text features of several sequences, which go through the model block by block together.

        Each block is used once, and each packed expert is dequantized once for all of them. A sequence's
        features do not depend on the others, to the bit. `on_block` is called with (blocks done, in all).

        Shapes: ids (T,) each -> for each sequence, one (T, hidden) a layer.
        Raises: SettingError for a layer that the model does not have.
        """
        self._check_layers(layers)
        last_layer = max(layers)
        features: list[list[Tensor]] = [[] for _ in sequences]
        captured: dict[int, list[Tensor]] = {}
        for index, states in self._states_by_block(sequences, [None] * len(sequences), last_layer):
            if index in layers:
                captured[index] = states
            if on_block is not None:
                on_block(index + 1, last_layer + 1)
        for row, of_sequence in enumerate(features):
            of_sequence += [captured[layer][row][0] for layer in layers]
        return features

    @torch.no_grad()
    def next_token_logits(
        self,
        sequences: Sequence[Tensor],
        pasts: Sequence[DynamicCache],
        num_logits: int = 1,
        on_block: Callable[[int, int], None] | None = None,
    ) -> list[Tensor]:
        """Return the logits after the last tokens of several sequences, and add all tokens to their caches.

        The sequences go through all blocks together. Where blocks are released, a token reads of each block
        only the experts that it is routed to. `on_block` is called with (blocks done, in all).

        Shapes: ids (T,) each -> (num_logits, V) each, or (T, V) where T is less.
        """
        num_blocks = len(self.model.layers)
        lasts = torch.empty(0)
        for index, states in self._states_by_block(sequences, pasts, num_blocks - 1, self.lm_head):
            if index == num_blocks - 1:
                lasts = torch.cat([state[0, -num_logits:] for state in states])  # (N, hidden)
            if on_block is not None:
                on_block(index + 1, num_blocks)
        normed = self.model.norm(lasts)
        is_packed = isinstance(self.lm_head, PackedLinear)
        logits = self.lm_head.product_by_rows(normed, HEAD_ROWS) if is_packed else self.lm_head(normed)
        if self.releases_blocks:
            release(self.lm_head)
        return list(logits.split([min(len(ids), num_logits) for ids in sequences]))

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
        hidden_states = self.model.embed_tokens(input_ids)  # (B, T, hidden)
        inputs = self._block_inputs(hidden_states, mask, past)
        features: dict[int, Tensor] = {}
        for index, block in enumerate(self._blocks(last_layer, input_ids.numel())):
            hidden_states = block(hidden_states, **inputs.of_block(index))
            if index in output_layers:
                features[index] = hidden_states
        return features

    def _states_by_block(
        self,
        sequences: Sequence[Tensor],
        pasts: Sequence[DynamicCache | None],
        last_layer: int,
        last_part: torch.nn.Module | None = None,
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield the index of each block, and its outputs for all sequences. Shapes: (1, T, hidden) each."""
        device = self._onload()
        states = [self.model.embed_tokens(ids[None].to(device)) for ids in sequences]  # (1, T, hidden) each
        inputs = [self._block_inputs(state, None, past) for state, past in zip(states, pasts, strict=True)]
        num_tokens = sum(map(len, sequences))
        for index, block in enumerate(self._blocks(last_layer, num_tokens, last_part)):
            states = self._run_block(block, index, states, inputs)
            yield index, states

    def _blocks(
        self, last_layer: int, num_tokens: int, last_part: torch.nn.Module | None = None
    ) -> Iterator[Any]:
        """Yield the blocks in order; `releases_blocks` keeps one in memory while the next is read ahead.

        `last_part` runs after them.
        """
        blocks = self.model.layers[: last_layer + 1]
        for block, following in zip(blocks, [*blocks[1:], last_part], strict=True):
            if self.releases_blocks and following is not None:
                self._read_ahead(following, num_tokens)
            try:
                yield block
            finally:
                if self.releases_blocks:
                    release(block)

    def _read_ahead(self, part: Any, num_tokens: int) -> None:
        experts = getattr(getattr(part, "mlp", None), "experts", None)
        if isinstance(experts, PackedExperts) and self._uses_few_experts(experts, num_tokens):
            waiting = {id(stored) for stored in experts.buffers()}  # read once the router has chosen
            prefetch(*(one for one in chain(part.parameters(), part.buffers()) if id(one) not in waiting))
        else:
            prefetch(part)

    def _uses_few_experts(self, experts: PackedExperts, num_tokens: int) -> bool:
        return num_tokens * self.model.config.num_experts_per_tok < experts.gate_up.shape[0]

    def _run_block(
        self, block: Any, index: int, states: Sequence[Tensor], inputs: Sequence["BlockInputs"]
    ) -> list[Tensor]:
        """Return the outputs of one block for several sequences. Shapes: (1, T, hidden) each -> the same."""
        experts = getattr(block.mlp, "experts", None)
        if not isinstance(experts, PackedExperts):
            pairs = zip(states, inputs, strict=True)
            return [block(state, **one.of_block(index)) for state, one in pairs]
        # The library's block, with the experts of all sequences at once.
        attended, routed = [], []
        for state, one in zip(states, inputs, strict=True):
            out, _ = block.self_attn(hidden_states=block.input_layernorm(state), **one.of_block(index))
            attended.append(state + out)
            tokens = block.post_attention_layernorm(attended[-1])[0]  # (T, hidden)
            _, weights, indices = block.mlp.router(tokens)
            routed.append((tokens, indices, weights))
        if self.releases_blocks and self._uses_few_experts(experts, sum(len(one[0]) for one in routed)):
            chosen = torch.cat([indices.flatten() for _, indices, _ in routed]).unique().tolist()
            prefetch(*experts.stored_parts(chosen))
        outputs = experts.forward_sequences(routed)
        return [state + out[None] for state, out in zip(attended, outputs, strict=True)]

    def _block_inputs(
        self, hidden_states: Tensor, mask: Tensor | None, past: DynamicCache | None
    ) -> "BlockInputs":
        model = self.model
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
        return BlockInputs(layer_types, masks, model.rotary_emb(hidden_states, positions), positions, past)

    def _check_layers(self, layers: Sequence[int]) -> None:
        num_layers = len(self.model.layers)
        if not layers or not all(0 <= layer < num_layers for layer in layers):
            raise SettingError("layers", tuple(layers), f"blocks between 0 and {num_layers - 1}")

    def _onload(self) -> torch.device:
        # Offloading hooks `forward`, which text features bypass: move the weights as the hook would.
        hook = getattr(self, "_hf_hook", None)
        if hook is not None and hasattr(hook, "pre_forward"):
            hook.pre_forward(self)
        return hooked_device(self) or _device_of(self.model.embed_tokens)


class BlockInputs(NamedTuple):
    """What all blocks read beside the hidden states."""

    layer_types: Sequence[str]
    masks: dict[str, Tensor | None]
    """By kind of layer."""
    rotary: tuple[Tensor, Tensor]
    positions: Tensor
    past: DynamicCache | None

    def of_block(self, index: int) -> dict[str, Any]:
        """Return the arguments of a block by name."""
        return {
            "attention_mask": self.masks[self.layer_types[index]],
            "position_embeddings": self.rotary,
            "position_ids": self.positions,
            "past_key_values": self.past,
            "use_cache": self.past is not None,
        }


def _device_of(module: torch.nn.Module) -> torch.device:
    return next(chain(module.parameters(), module.buffers())).device
