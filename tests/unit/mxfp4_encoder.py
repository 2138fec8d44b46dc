"""A tiny text encoder as GPT-OSS is published: a folder with experts in MXFP4.

MXFP4 by hand: 4-bit codes with the low nibble first, and a scale of 2^(byte - 127) for 32 inputs.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_encoder

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def packed(
    experts: int, outputs: int, inputs: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return blocks (E, out, in/32, 16), scales (E, out, in/32) and what they mean (E, in, out)."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (experts, outputs, inputs // 32, 32), generator=generator)
    scales = torch.randint(120, 126, codes.shape[:3], generator=generator, dtype=torch.uint8)
    values = E2M1[codes] * torch.exp2(scales.float() - 127)[..., None]
    blocks = (codes[..., 0::2] + 16 * codes[..., 1::2]).to(torch.uint8)
    return blocks, scales, values.flatten(2).transpose(1, 2)


def write_mxfp4_encoder(folder: Path, experts: int = 3, **changes: Any) -> dict[str, torch.Tensor]:
    """Write an encoder of two layers, and return the values of its experts."""
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    tiny_encoder(**(sizes | {"num_local_experts": experts} | changes)).save_pretrained(folder)
    weights, truth = load_file(folder / "model.safetensors"), {}
    for layer in range(2):
        for name, outputs, inputs in (("gate_up_proj", 128, 32), ("down_proj", 32, 64)):
            key = f"model.layers.{layer}.mlp.experts.{name}"
            del weights[key]
            blocks, scales, truth[key] = packed(experts, outputs, inputs, layer)
            weights[f"{key}_blocks"], weights[f"{key}_scales"] = blocks, scales
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    return truth
