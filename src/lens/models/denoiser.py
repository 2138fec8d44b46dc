"""The Lens denoiser: dual-stream transformer blocks over image and text tokens.

Knows nothing of training, sampling or files. Paper: Lens report, model section.
Letters: B batch, I image tokens, T text tokens, C channels of an image token, E text feature width, D width,
K head dimension.
Order: joint sequences put image tokens first.
"""

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lens.core.products import cpu_compute_dtype
from lens.errors import SettingError, ShapeError
from lens.models.attention import MaskCache, RotaryCache
from lens.models.layers import AdaLayerNormOut, LensTransformerBlock, Linear, RMSNorm, TimeEmbedding
from lens.models.sequence_packing import PackedSequence
from lens.models.step_cache import StepCacheMixin

logger = logging.getLogger(__name__)

FLOAT16_LIMIT = 6e4  # below float16's 65504, and still so once rounded to bfloat16


class LensTransformer2DModel(ModelMixin, ConfigMixin, AttentionMixin, PeftAdapterMixin, StepCacheMixin):
    """The Lens denoiser: it predicts the velocity of noisy latents from text features and the noise level."""

    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["LensTransformerBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["LensTransformerBlock"]
    # Losing precision in these causes grid patterns and broken text.
    _skip_layerwise_casting_patterns: ClassVar[list[str]] = [
        "img_in", "txt_in", "time_text_embed", "norm", "_mod", "proj_out",
    ]

    @register_to_config
    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 128,
        out_channels: int = 32,
        num_layers: int = 48,
        attention_head_dim: int = 64,
        num_attention_heads: int = 24,
        inner_dim: int = 1536,
        enc_hidden_dim: int = 2880,
        axes_dims_rope: Sequence[int] = (8, 28, 28),
        gate_mlp: bool = True,
        rms_norm: bool = True,
        multi_layer_encoder_feature: bool = True,
        selected_layer_index: Sequence[int] = (5, 11, 17, 23),
    ):
        super().__init__()
        _check_config(self.config)
        num_features = len(selected_layer_index)
        self.img_in = Linear(in_channels, inner_dim)
        self.txt_norm = nn.ModuleList(RMSNorm(enc_hidden_dim, 1e-5) for _ in range(num_features))
        self.txt_in = Linear(num_features * enc_hidden_dim, inner_dim)
        self.time_text_embed = TimeEmbedding(inner_dim)
        self.transformer_blocks = nn.ModuleList(
            LensTransformerBlock(
                inner_dim, num_attention_heads, attention_head_dim, updates_text=index < num_layers - 1
            )
            for index in range(num_layers)
        )
        self.norm_out = AdaLayerNormOut(inner_dim)
        self.proj_out = Linear(inner_dim, patch_size**2 * out_channels)
        self.in_channels, self.enc_hidden_dim = in_channels, enc_hidden_dim
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., Any] = checkpoint
        self._rotary_cache = RotaryCache(tuple(axes_dims_rope))
        self._mask_cache = MaskCache()
        self._casts_layers = False

    def forward(
        self,
        hidden_states: Tensor | Sequence[Tensor],
        encoder_hidden_states: Sequence[Any],
        encoder_hidden_states_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        img_shapes: Sequence[Any] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Return the velocity, noise - data, of latents as tokens.

        `attention_kwargs={"scale": s}` scales the loaded adapters by s for this call. A list of images, each
        with its own size, text and time, runs as one packed sequence and returns a list.

        Shapes: hidden_states (B, I, C), encoder_hidden_states one (B, T, E) for each selected layer, mask
            bool (B, T) with True for real tokens, timestep (B,), img_shapes [(1, h, w)] with h*w = I
            -> sample (B, I, C). Of a list of P images: hidden_states P of (I, C), encoder_hidden_states P
            lists of (T, E) for each selected layer, timestep (P,), img_shapes P of (1, h, w), no mask
            -> sample P of (I, C).
        Units: timestep is the noise level in [0, 1], 1 is pure noise.
        Raises: ShapeError that names the argument that does not fit.
        """
        scale = (attention_kwargs or {}).get("scale", 1.0)
        if not isinstance(hidden_states, Tensor):
            if encoder_hidden_states_mask is not None:
                needs = "None with a list of images, whose texts have no padding"
                raise ShapeError(f"encoder_hidden_states_mask is given, but it needs {needs}.")
            latent_sizes = self._validate_packed_inputs(
                hidden_states, encoder_hidden_states, timestep, img_shapes
            )
            with apply_lora_scale(self, scale):
                velocity: Any = self._packed_velocity(
                    hidden_states, encoder_hidden_states, timestep, latent_sizes
                )
            return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)
        timestep = self._validate_timestep(timestep, hidden_states)
        h, w = self._resolve_latent_size(img_shapes, hidden_states)
        self._check_features(encoder_hidden_states, encoder_hidden_states_mask, hidden_states)
        with apply_lora_scale(self, scale):
            velocity = self._velocity(
                hidden_states, encoder_hidden_states, encoder_hidden_states_mask, timestep, h, w
            )
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialize weights for training: each block is the identity, and the first velocity is zero."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            if name.endswith("_mod.1") or name in ("norm_out.linear", "proj_out"):
                module.weight.zero_()
            else:
                nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.zero_()

    @classmethod
    def from_single_file(
        cls, path: str | Path, *, torch_dtype: torch.dtype | None = None, **unsupported: Any
    ) -> "LensTransformer2DModel":
        """Return the denoiser of a file, .safetensors or .gguf, in any layout that this package reads.

        Without a dtype weights keep the stored one.
        Raises: CheckpointError that says what does not fit; SettingError for diffusers' other settings.
        """
        # Named, not imported: the reader of files builds this class, which knows nothing of files itself.
        reader = importlib.import_module("lens.models.checkpoints.single_file")
        dtype = unsupported.pop("dtype", torch_dtype)
        if unsupported:
            name, value = next(iter(unsupported.items()))
            fix = "A file's configuration is in its metadata or its shapes, and nothing is downloaded."
            raise SettingError(name, value, "to be left out of from_single_file", fix)
        return reader.load_denoiser(Path(path).expanduser(), dtype)

    def unused_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights without effect and so without gradient: those of the last block's text stream."""
        for name, parameter in self.transformer_blocks[-1].named_parameters():
            if name.startswith(("txt_norm2.", "txt_mlp.", "attn.to_add_out.", "attn.norm_added_q.")):
                yield parameter

    def enable_layerwise_casting(self, *args: Any, **settings: Any) -> None:
        """Store weights in one dtype and cast each layer's to another when it computes, as in diffusers."""
        super().enable_layerwise_casting(*args, **settings)
        self._casts_layers = True

    def _compute_dtype(self, tokens: Tensor) -> torch.dtype:
        # Layerwise casting chooses the dtype, and adapters do not cast their inputs then.
        return tokens.dtype if self._casts_layers else cpu_compute_dtype(tokens)

    def _velocity(
        self,
        packed_latents: Tensor,
        features: Sequence[Tensor],
        mask: Tensor | None,
        t: Tensor,
        h: int,
        w: int,
    ) -> Tensor:
        dtype = packed_latents.dtype
        packed_latents = packed_latents.to(self._compute_dtype(packed_latents))                    # (B, I, C)
        num_text, is_padded = self._mask_cache.get(mask, features[0])
        key_mask = None  # without padding, and so without a mask, the fast attention kernels apply
        if mask is not None and is_padded:
            image_keys = mask.new_ones(packed_latents.shape[:2])
            key_mask = torch.cat([image_keys, mask[:, :num_text]], dim=1)[:, None, None]   # (B, 1, 1, I+T)
        image_tokens = self.img_in(packed_latents)  # (B, I, D)
        text_tokens = self._embed_text(
            [layer[:, :num_text] for layer in features], packed_latents.dtype
        )  # (B, T, D)
        cond = self.time_text_embed(t, packed_latents.dtype)                                       # (B, D)
        rotary = self._rotary_cache.get(h, w, num_text, packed_latents.device)                 # (I+T, K/2, 2)
        image_tokens = self._run_blocks(image_tokens, text_tokens, cond, rotary, key_mask, None)   # (B, I, D)
        return self.proj_out(self.norm_out(image_tokens, cond)).to(dtype)                          # (B, I, C)

    def _packed_velocity(
        self,
        images: Sequence[Tensor],
        features: Sequence[Any],
        t: Any,
        latent_sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        device, dtype = images[0].device, self._compute_dtype(images[0])
        num_text = [layers[0].shape[0] for layers in features]
        packing = PackedSequence.of([len(tokens) for tokens in images], num_text, device)
        image_tokens = self.img_in(torch.cat(list(images))[None].to(dtype))                     # (1, I, D)
        joined_features = [torch.cat(layer)[None] for layer in zip(*features, strict=True)]   # L of (1, T, E)
        text_tokens = self._embed_text(joined_features, dtype)                                     # (1, T, D)
        cond = self.time_text_embed(t, dtype)                                              # (P, D)
        sizes = zip(latent_sizes, num_text, strict=True)
        rotary = torch.cat(
            [self._rotary_cache.get(h, w, count, device) for (h, w), count in sizes]
        )  # (I+T, K/2, 2)
        image_tokens = self._run_blocks(image_tokens, text_tokens, cond, rotary, None, packing)    # (1, I, D)
        velocity = self.proj_out(self.norm_out(image_tokens, cond, packing.image_sequence_ids))    # (1, I, C)
        return list(velocity[0].to(images[0].dtype).split(packing.image_lengths))

    def _run_blocks(self, image_tokens: Tensor, text_tokens: Tensor, *block_args: Any) -> Tensor:
        # Both are views, for which torch.compile would compile the first block separately.
        image_tokens, text_tokens = image_tokens.clone(), text_tokens.clone()
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                image_tokens, text_tokens = self._gradient_checkpointing_func(
                    block, image_tokens, text_tokens, *block_args
                )
            else:
                image_tokens, text_tokens = block(image_tokens, text_tokens, *block_args)
        return image_tokens

    def _embed_text(self, features: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        if dtype == torch.float16:
            if not torch.compiler.is_compiling():
                _warn_of_float16()
            features = [layer.clamp(-FLOAT16_LIMIT, FLOAT16_LIMIT) for layer in features]
        normed = [norm(layer.to(dtype)) for norm, layer in zip(self.txt_norm, features, strict=True)]
        return self.txt_in(torch.cat(normed, dim=-1))                                      # (B, T, D)

    def _validate_timestep(self, timestep: Tensor | None, tokens: Tensor) -> Tensor:
        if tokens.ndim != 3 or tokens.shape[2] != self.in_channels:
            needs = f"(batch, tokens, {self.in_channels})"
            raise ShapeError(f"hidden_states has shape {tuple(tokens.shape)}, but it needs {needs}.")
        if timestep is None:
            raise ShapeError("timestep is missing; it needs one noise level in [0, 1] per sample.")
        if timestep.ndim == 0:
            timestep = timestep.expand(len(tokens))
        if timestep.shape != tokens.shape[:1]:
            raise ShapeError(f"timestep has shape {tuple(timestep.shape)}, but it needs ({len(tokens)},).")
        return timestep

    def _resolve_latent_size(self, img_shapes: Sequence[Any] | None, tokens: Tensor) -> tuple[int, int]:
        # One shape for all or one for each sample; some callers nest each sample's in a list.
        flat = [shape[0] if isinstance(shape[0], tuple | list) else shape for shape in img_shapes or ()]
        if not flat or any(tuple(shape) != tuple(flat[0]) for shape in flat[1:]):
            needs = "one (1, height/16, width/16) for the whole batch"
            raise ShapeError(f"img_shapes is {img_shapes}, but it needs {needs}.")
        frames, h, w = flat[0]
        # A comparison in compiled code would compile anew for each number of tokens.
        fits = torch.compiler.is_compiling() or h * w == tokens.shape[1]
        if frames != 1 or not fits:
            needs = f"one frame of {tokens.shape[1]} cells, as many as hidden_states has tokens"
            raise ShapeError(f"img_shapes is ({frames}, {h}, {w}), but it needs {needs}.")
        return h, w

    def _validate_packed_inputs(
        self, images: Sequence[Tensor], features: Sequence[Any], timestep: Tensor | None,
        img_shapes: Sequence[Any] | None,
    ) -> list[tuple[int, int]]:  # fmt: skip
        """Return the latent size of each image of a packed sequence."""
        num_images = len(images)
        if not num_images or len(features) != num_images or len(img_shapes or ()) != num_images:
            raise ShapeError(
                f"{num_images} images came with {len(features)} texts and {len(img_shapes or ())} "
                "img_shapes; a packed sequence needs one of each for every image."
            )
        if timestep is None or timestep.shape != (num_images,):
            got = None if timestep is None else tuple(timestep.shape)
            raise ShapeError(f"timestep has shape {got}, but it needs ({num_images},).")
        latent_sizes = []
        for tokens, layers, shape in zip(images, features, img_shapes or (), strict=True):
            one = tokens[None]
            self._validate_timestep(timestep[:1], one)
            latent_sizes.append(self._resolve_latent_size([shape], one))
            self._check_features([layer[None] for layer in layers], None, one)
        return latent_sizes

    def _check_features(self, features: Sequence[Tensor], mask: Tensor | None, tokens: Tensor) -> None:
        num_layers, width = len(self.txt_norm), self.enc_hidden_dim
        if isinstance(features, Tensor) or len(features) != num_layers:
            got = "one tensor" if isinstance(features, Tensor) else f"a list of {len(features)}"
            raise ShapeError(f"encoder_hidden_states is {got}, but it needs a list of {num_layers} tensors.")
        for index, layer in enumerate(features):
            needs = (len(tokens), features[0].shape[1], width)
            if layer.shape != needs:
                raise ShapeError(
                    f"encoder_hidden_states[{index}] has shape {tuple(layer.shape)}, but it needs {needs}."
                )
        if mask is not None and (mask.shape != features[0].shape[:2] or mask.dtype != torch.bool):
            got, needs = f"{mask.dtype} {tuple(mask.shape)}", f"torch.bool {tuple(features[0].shape[:2])}"
            raise ShapeError(f"encoder_hidden_states_mask is {got}, but it needs {needs}.")


@contextmanager
def apply_lora_scale(model: nn.Module, scale: float) -> Iterator[None]:
    """Multiply the scale of every adapter inside the block; afterwards each has its old scale again."""
    if scale == 1.0:
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            layer.scale_layer(scale)
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
            if hasattr(layer, "refresh"):  # the adapter of a norm or a bias, which changes its values
                layer.refresh()


def _check_config(config: Any) -> None:
    for name in ("gate_mlp", "rms_norm", "multi_layer_encoder_feature"):
        if not config[name]:
            raise SettingError(name, config[name], "true", "Every released Lens has it.")
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if config["inner_dim"] != width:
        needs = f"num_attention_heads x attention_head_dim = {width}"
        raise SettingError("inner_dim", config["inner_dim"], needs)
    axes = tuple(config["axes_dims_rope"])
    if len(axes) != 3 or sum(axes) != config["attention_head_dim"] or any(dim % 2 for dim in axes):
        needs = f"three even numbers that add up to attention_head_dim = {config['attention_head_dim']}"
        raise SettingError("axes_dims_rope", axes, needs)
    if config["patch_size"] ** 2 * config["out_channels"] != config["in_channels"]:
        raise SettingError("in_channels", config["in_channels"], "patch_size^2 x out_channels")


@cache
def _warn_of_float16() -> None:
    logger.warning("float16: text features beyond 60000 are clipped. Prefer bfloat16 or float32.")
