"""int8 and float8 weights of linear layers through torchao, quantized after loading.

Weights alone are quantized; activations keep their precision. Modulation, input and output projections and
the time embedding stay as they are: quantizing them causes grid patterns and broken text. Spec: section 14.
"""

from typing import TYPE_CHECKING, Any

from lens.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from torch import nn

QUANTIZATIONS = ("int8", "float8")

DENOISER_SKIP_MODULES = ("img_mod", "txt_mod", "img_in", "txt_in", "proj_out", "time_text_embed", "norm_out")
TEXT_ENCODER_SKIP_MODULES = ("lm_head", "embed_tokens", "router")


def is_quantizable(name: str) -> bool:
    """Return whether a linear layer of the denoiser or text encoder may lose precision, by its name."""
    pieces = name.split(".")
    return not any(kept in pieces for kept in (*DENOISER_SKIP_MODULES, *TEXT_ENCODER_SKIP_MODULES))


def quantize_weights(module: "nn.Module", quantization: str) -> "nn.Module":
    """Replace the weights of a model's linear layers by int8 or float8 ones, in place, and return the model.

    Load adapters afterwards. The experts of a GPT-OSS are not linear layers and keep their dtype.
    Raises: SettingError for an unknown quantization; MissingExtraError.
    """
    config = _torchao_config(quantization)
    from torch import nn

    from lens.models.quantized.packed_modules import PackedLinear

    linears = {
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and is_quantizable(name)
    }
    formats = sorted({layer.packed.format.name for layer in linears if isinstance(layer, PackedLinear)})
    if formats:
        needs = f"plain weights, but these are kept in {' and '.join(formats)}"
        raise SettingError("quantize", quantization, needs, "Omit it, or load a file in bfloat16.")
    from torchao.quantization import quantize_

    quantize_(module, config, filter_fn=lambda layer, _: layer in linears)
    return module


def _torchao_config(quantization: str) -> Any:
    if quantization not in QUANTIZATIONS:
        raise SettingError("quantize", quantization, f"one of {', '.join(QUANTIZATIONS)}, or nothing")
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    except ImportError as error:
        raise MissingExtraError("Quantization", "torchao", "quantize") from error
    return Int8WeightOnlyConfig() if quantization == "int8" else Float8WeightOnlyConfig()
