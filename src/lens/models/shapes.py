"""Names and shapes of all weights of a model, from its configuration alone.

Free of torch: parameters are counted, headers of files checked and linear layers listed without loading.
Tests compare the names and shapes with those of the modules.
Letters: D width of the denoiser, E experts, F width of the text features.
"""

import math
from collections.abc import Mapping
from typing import Any

from lens.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

TIME_CHANNELS = 256
"""Channels of the sinusoid of the time embedding, at any width."""


COUNTS = {
    "transformer": (
        "num_attention_heads", "attention_head_dim", "enc_hidden_dim", "in_channels", "out_channels",
        "num_layers", "patch_size",
    ),
    "text_encoder": (
        "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
        "num_hidden_layers", "num_local_experts", "intermediate_size",
    ),
    "vae": ("latent_channels", "layers_per_block"),
}  # fmt: skip
"""Whole numbers of a configuration that decide shapes."""
LISTS = {"transformer": ("selected_layer_index",), "text_encoder": (), "vae": ("block_out_channels",)}
"""Lists of whole numbers that decide shapes."""
OPTIONAL_LISTS = ("axes_dims_rope", "decoder_block_out_channels", "patch_size")
NULLABLE_LISTS = ("axes_dims_rope", "decoder_block_out_channels")
OPTIONAL_COUNTS = ("in_channels", "out_channels")
"""Values that a configuration may lack, and those of them that may be null."""
MAX_COUNT, MAX_REPEATS = 2**24, 4096
"""Largest number of a configuration; the second one is for layers, which are listed one by one."""


def check_config(component: str, config: Mapping[str, Any], source: object) -> None:
    """Raise a CheckpointError unless a configuration has all that decides the shapes of a component.

    `source` is the file that it comes from.
    """
    for name in (*COUNTS[component], *LISTS[component]):
        if name not in config:
            raise CheckpointError(f"{source} lacks {name!r}; it is for another model.")
    for name in COUNTS[component]:
        most = MAX_REPEATS if "layers" in name else MAX_COUNT
        if not _is_count(config[name], most):
            raise _config_error(source, name, config[name], f"a whole number from 1 to {most}")
    for name in OPTIONAL_COUNTS:
        if name in config and not _is_count(config[name], MAX_COUNT):
            raise _config_error(source, name, config[name], f"a whole number from 1 to {MAX_COUNT}")
    for name in (*LISTS[component], *OPTIONAL_LISTS):
        values = config.get(name)
        is_absent = name not in config or (values is None and name in NULLABLE_LISTS)
        if name in COUNTS[component] or is_absent:
            continue
        is_list = isinstance(values, list | tuple) and 0 < len(values) <= MAX_REPEATS
        low = 0 if name == "selected_layer_index" else 1
        if not is_list or not all(_is_count(one, MAX_COUNT, low) for one in values or ()):
            raise _config_error(source, name, values, "a list of whole numbers")


def _is_count(value: Any, most: int, least: int = 1) -> bool:
    return type(value) is int and least <= value <= most


def _config_error(source: object, name: str, got: Any, needs: str) -> CheckpointError:
    return CheckpointError(f"{source} has {name} = {got!r:.80}, but it needs {needs}.")


def component_shapes(component: str, config: Mapping[str, Any]) -> Shapes:
    """Return the shapes of the weights of a component: transformer, text_encoder or vae."""
    shapes = {"transformer": denoiser_shapes, "text_encoder": text_encoder_shapes, "vae": vae_shapes}
    return shapes[component](config)


def num_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of elements of tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())


def mlp_width(width: int) -> int:
    """Return the hidden width of the gated MLP."""
    return int(width / 3 * 8)


def denoiser_shapes(config: Mapping[str, Any]) -> Shapes:
    """Return the shape of every weight of LensTransformer2DModel; `config` is transformer/config.json."""
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    width, features = heads * head_dim, config["enc_hidden_dim"]
    num_layers = len(config["selected_layer_index"]) if config.get("multi_layer_encoder_feature", True) else 1
    shapes: Shapes = {}
    _linear(shapes, "img_in", config["in_channels"], width)
    shapes |= {f"txt_norm.{i}.weight": (features,) for i in range(num_layers)}
    _linear(shapes, "txt_in", num_layers * features, width)
    _linear(shapes, "time_text_embed.timestep_embedder.linear_1", TIME_CHANNELS, width)
    _linear(shapes, "time_text_embed.timestep_embedder.linear_2", width, width)
    for i in range(config["num_layers"]):
        block = _block_shapes(width, head_dim)
        shapes |= {f"transformer_blocks.{i}.{name}": shape for name, shape in block.items()}
    _linear(shapes, "norm_out.linear", width, 2 * width)
    _linear(shapes, "proj_out", width, config["patch_size"] ** 2 * config["out_channels"])
    return shapes


def _block_shapes(width: int, head_dim: int) -> Shapes:
    shapes: Shapes = {}
    for stream in ("img", "txt"):
        _linear(shapes, f"{stream}_mod.1", width, 6 * width)
        shapes |= {f"{stream}_norm1.weight": (width,), f"{stream}_norm2.weight": (width,)}
        _linear(shapes, f"attn.{stream}_qkv", width, 3 * width)
        for name in ("w1", "w3"):
            _linear(shapes, f"{stream}_mlp.{name}", width, mlp_width(width), bias=False)
        _linear(shapes, f"{stream}_mlp.w2", mlp_width(width), width, bias=False)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        shapes[f"attn.{name}.weight"] = (head_dim,)
    _linear(shapes, "attn.to_out.0", width, width)
    _linear(shapes, "attn.to_add_out", width, width)
    return shapes


def linear_modules(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of each linear layer by module name."""
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    }


def text_encoder_shapes(config: Mapping[str, Any], *, with_head: bool = True) -> Shapes:
    """Return the shape of every weight of a GPT-OSS in transformers' layout, with plain experts."""
    hidden, heads, kv_heads = (
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
    )
    head_dim, vocab = config["head_dim"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.self_attn.sinks"] = (heads,)
        _linear(shapes, f"{layer}.self_attn.q_proj", hidden, heads * head_dim)
        _linear(shapes, f"{layer}.self_attn.k_proj", hidden, kv_heads * head_dim)
        _linear(shapes, f"{layer}.self_attn.v_proj", hidden, kv_heads * head_dim)
        _linear(shapes, f"{layer}.self_attn.o_proj", heads * head_dim, hidden)
        _linear(shapes, f"{layer}.mlp.router", hidden, config["num_local_experts"])
        shapes |= {f"{layer}.mlp.experts.{name}": shape for name, shape in _expert_shapes(config).items()}
        shapes |= {
            f"{layer}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")
        }
    shapes["model.norm.weight"] = (hidden,)
    if with_head:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _expert_shapes(config: Mapping[str, Any]) -> Shapes:
    experts, hidden, inner = config["num_local_experts"], config["hidden_size"], config["intermediate_size"]
    return {
        "gate_up_proj": (experts, hidden, 2 * inner),
        "gate_up_proj_bias": (experts, 2 * inner),
        "down_proj": (experts, inner, hidden),
        "down_proj_bias": (experts, hidden),
    }


def vae_shapes(config: Mapping[str, Any]) -> Shapes:
    """Return the shape of every weight and statistic of an AutoencoderKLFlux2 under diffusers' names."""
    latent, layers = config["latent_channels"], config["layers_per_block"]
    down = list(config["block_out_channels"])
    up = list(config.get("decoder_block_out_channels") or down)[::-1]
    shapes: Shapes = {}
    _conv(shapes, "encoder.conv_in", config.get("in_channels", 3), down[0])
    for i, (before, after) in enumerate(zip([down[0], *down[:-1]], down, strict=True)):
        for j in range(layers):
            _resnet(shapes, f"encoder.down_blocks.{i}.resnets.{j}", before if j == 0 else after, after)
        if i < len(down) - 1:
            _conv(shapes, f"encoder.down_blocks.{i}.downsamplers.0.conv", after, after)
    _mid_block(shapes, "encoder", down[-1])
    _conv(shapes, "encoder.conv_out", down[-1], 2 * latent)
    _conv(shapes, "decoder.conv_in", latent, up[0])
    for i, (before, after) in enumerate(zip([up[0], *up[:-1]], up, strict=True)):
        for j in range(layers + 1):
            _resnet(shapes, f"decoder.up_blocks.{i}.resnets.{j}", before if j == 0 else after, after)
        if i < len(up) - 1:
            _conv(shapes, f"decoder.up_blocks.{i}.upsamplers.0.conv", after, after)
    _mid_block(shapes, "decoder", up[0], last=up[-1])
    _conv(shapes, "decoder.conv_out", up[-1], config.get("out_channels", 3))
    _conv(shapes, "quant_conv", 2 * latent, 2 * latent, kernel=1)
    _conv(shapes, "post_quant_conv", latent, latent, kernel=1)
    patched = math.prod(config.get("patch_size", (2, 2))) * latent
    return shapes | {
        "bn.running_mean": (patched,),
        "bn.running_var": (patched,),
        "bn.num_batches_tracked": (),
    }


def _mid_block(shapes: Shapes, half: str, width: int, last: int | None = None) -> None:
    _norm(shapes, f"{half}.mid_block.attentions.0.group_norm", width)
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        _linear(shapes, f"{half}.mid_block.attentions.0.{name}", width, width)
    for j in range(2):
        _resnet(shapes, f"{half}.mid_block.resnets.{j}", width, width)
    _norm(shapes, f"{half}.conv_norm_out", last or width)


def _resnet(shapes: Shapes, name: str, before: int, after: int) -> None:
    _norm(shapes, f"{name}.norm1", before)
    _conv(shapes, f"{name}.conv1", before, after)
    _norm(shapes, f"{name}.norm2", after)
    _conv(shapes, f"{name}.conv2", after, after)
    if before != after:
        _conv(shapes, f"{name}.conv_shortcut", before, after, kernel=1)


def _linear(shapes: Shapes, name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs)
    if bias:
        shapes[f"{name}.bias"] = (outputs,)


def _conv(shapes: Shapes, name: str, inputs: int, outputs: int, *, kernel: int = 3) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
    shapes[f"{name}.bias"] = (outputs,)


def _norm(shapes: Shapes, name: str, width: int) -> None:
    shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
