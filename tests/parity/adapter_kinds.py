"""Adapters of every kind: what their files hold, and the formulas of what they add."""

from functools import cache

import torch
from comparisons import normal, velocity
from safetensors.torch import save_file
from tiny_models import tiny_denoiser

QKV, MLP, OUT = (
    "transformer_blocks.1.attn.img_qkv",  # (96, 32), with a bias
    "transformer_blocks.2.img_mlp.w2",    # (32, 85), without
    "transformer_blocks.0.attn.to_out.0",
)  # fmt: skip
QK_NORM, TEXT_NORM, BLOCK_NORM = (
    "transformer_blocks.0.attn.norm_q",
    "txt_norm.2",
    "transformer_blocks.1.img_norm1",
)

W1_A, W1_B, W2_A, W2_B = (
    normal(32, 3, seed=1), normal(3, 85, seed=2), normal(32, 5, seed=3), normal(5, 85, seed=4),
)  # fmt: skip
W3_A, W3_B = normal(32, 6, seed=27), normal(6, 85, seed=28)
T1, T2 = normal(3, 3, seed=5), normal(5, 5, seed=6)
K1_A, K1_B, K2_A, K2_B = (
    normal(4, 3, seed=7), normal(3, 5, seed=8), normal(8, 3, seed=9), normal(3, 17, seed=10),
)  # fmt: skip
T3 = normal(3, 3, seed=11)
UP, DOWN, MID = normal(32, 4, seed=12), normal(3, 85, seed=13), normal(4, 3, seed=14)
SQUARE_UP, SQUARE_DOWN = normal(32, 3, seed=15), normal(3, 32, seed=16)
QKV_UP, QKV_DOWN, QKV_BIAS = normal(96, 3, seed=17), normal(3, 32, seed=18), normal(96, seed=19)
ROWS, COLUMNS = 1 + normal(32, 1, seed=20).abs(), 1 + normal(1, 32, seed=21).abs()
WIDE_ROWS = 1 + normal(32, 1, seed=22).abs()
FULL = normal(96, 32, seed=23)
ALPHA = torch.tensor(1.5)
GA1, GA2, GB1, GB2 = (
    0.3 * normal(32, 3, seed=31), 0.3 * normal(3, 32, seed=32),
    normal(32, 3, seed=33), normal(3, 32, seed=34),
)  # fmt: skip
WIDE_GB1 = normal(96, 3, seed=35)
OFT_BLOCKS, SQUARE_OFT_BLOCKS = 0.2 * normal(12, 8, 8, seed=36), normal(4, 8, 8, seed=37)
BOFT_BLOCKS = 0.2 * normal(3, 8, 12, 12, seed=38)
WIDE_SCALE, SCALE = 1 + 0.2 * normal(96, 1, seed=39), 1 + 0.2 * normal(32, 1, seed=40)


def rotations(blocks, bound=None):
    """The Cayley transform of what is skew-symmetric in each block, whose norm may have a bound."""
    skew = (blocks - blocks.mT).double()
    norm = skew.square().sum().sqrt()
    if bound is not None and norm > bound:
        skew = skew * bound / norm
    one = torch.eye(blocks.shape[-1], dtype=torch.float64)
    return ((one + skew) @ torch.linalg.inv(one - skew)).float()


def butterfly(blocks):
    """The product of the stages of a BOFT as one matrix, the first stage on the right."""
    size, half = blocks.shape[1] * blocks.shape[2], blocks.shape[2] // 2
    product = torch.eye(size)
    for stage, turned in enumerate(rotations(blocks)):
        distance = half * 2**stage
        bases = range(0, size, 2 * distance)
        pairs = [(base + axis, base + axis + distance) for base in bases for axis in range(distance)]
        shuffled = torch.eye(size)[[axis for pair in pairs for axis in pair]]
        product = shuffled.mT @ torch.block_diag(*turned) @ shuffled @ product
    return product


def dora(weight, delta, magnitude):
    """The weight that a DoRA makes: every row, or every column, has the norm that the magnitude says."""
    axis = 1 if magnitude.shape[1] == 1 else 0
    adapted = weight + delta
    return magnitude * adapted / (adapted**2).sum(axis, keepdim=True).sqrt()


# Parts in the file by layer, and the new values of parameters at strength 1, as functions of the old ones.
KINDS = {
    "LoRA": (
        {MLP: {"lora_up.weight": UP[:, :3], "lora_down.weight": DOWN, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * UP[:, :3] @ DOWN},
    ),
    "LoRA of 1 x 1 kernels": (
        {MLP: {"lora_up.weight": UP[:, :3, None, None], "lora_down.weight": DOWN[..., None, None]}},
        {f"{MLP}.weight": lambda w: w + UP[:, :3] @ DOWN},
    ),
    "LoRA with a factor between": (
        {MLP: {"lora_up.weight": UP, "lora_mid.weight": MID, "lora_down.weight": DOWN, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * UP @ MID @ DOWN},
    ),
    "LoRA with a bias": (
        {QKV: {"lora_B.weight": QKV_UP, "lora_B.bias": QKV_BIAS, "lora_A.weight": QKV_DOWN, "alpha": ALPHA}},
        {f"{QKV}.weight": lambda w: w + 0.5 * QKV_UP @ QKV_DOWN, f"{QKV}.bias": lambda b: b + 0.5 * QKV_BIAS},
    ),
    "LoRA under old names": (
        {MLP: {"lora.up.weight": UP[:, :3], "lora.down.weight": DOWN},
         QKV: {"lora_linear_layer.up.weight": QKV_UP, "lora_linear_layer.down.weight": QKV_DOWN}},
        {f"{MLP}.weight": lambda w: w + UP[:, :3] @ DOWN, f"{QKV}.weight": lambda w: w + QKV_UP @ QKV_DOWN},
    ),
    "DoRA by rows": (
        {OUT: {"lora_up.weight": SQUARE_UP, "lora_down.weight": SQUARE_DOWN, "alpha": ALPHA,
               "dora_scale": ROWS}},
        {f"{OUT}.weight": lambda w: dora(w, 0.5 * SQUARE_UP @ SQUARE_DOWN, ROWS)},
    ),
    "DoRA by columns": (
        {OUT: {"lora_up.weight": SQUARE_UP, "lora_down.weight": SQUARE_DOWN, "dora_scale": COLUMNS}},
        {f"{OUT}.weight": lambda w: dora(w, SQUARE_UP @ SQUARE_DOWN, COLUMNS)},
    ),
    "DoRA of PEFT": (
        {OUT: {"lora_B.weight": SQUARE_UP, "lora_A.weight": SQUARE_DOWN,
               "lora_magnitude_vector": ROWS.flatten()}},
        {f"{OUT}.weight": lambda w: dora(w, SQUARE_UP @ SQUARE_DOWN, ROWS)},
    ),
    "LoHa": (
        {MLP: {"hada_w1_a": W1_A, "hada_w1_b": W1_B, "hada_w2_a": W2_A, "hada_w2_b": W2_B, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * (W1_A @ W1_B) * (W2_A @ W2_B)},
    ),
    "LoHa of a high rank": (
        {MLP: {"hada_w1_a": W3_A, "hada_w1_b": W3_B, "hada_w2_a": W2_A, "hada_w2_b": W2_B, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.25 * (W3_A @ W3_B) * (W2_A @ W2_B)},
    ),
    "LoHa with Tucker factors": (
        {MLP: {"hada_w1_a": W1_A.mT, "hada_w1_b": W1_B, "hada_t1": T1[..., None, None],
               "hada_w2_a": W2_A.mT, "hada_w2_b": W2_B, "hada_t2": T2[..., None, None]}},
        {f"{MLP}.weight": lambda w: w + (W1_A @ T1 @ W1_B) * (W2_A @ T2 @ W2_B)},
    ),
    "LoHa as DoRA": (
        {MLP: {"hada_w1_a": W1_A, "hada_w1_b": W1_B, "hada_w2_a": W2_A, "hada_w2_b": W2_B,
               "dora_scale": WIDE_ROWS}},
        {f"{MLP}.weight": lambda w: dora(w, (W1_A @ W1_B) * (W2_A @ W2_B), WIDE_ROWS)},
    ),
    "LoKr of two products": (
        {MLP: {"lokr_w1_a": K1_A, "lokr_w1_b": K1_B, "lokr_w2_a": K2_A, "lokr_w2_b": K2_B, "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * torch.kron(K1_A @ K1_B, K2_A @ K2_B)},
    ),
    "LoKr with a Tucker factor": (
        {MLP: {"lokr_w1": K1_A @ K1_B, "lokr_w2_a": K2_A.mT, "lokr_t2": T3, "lokr_w2_b": K2_B,
               "alpha": ALPHA}},
        {f"{MLP}.weight": lambda w: w + 0.5 * torch.kron(K1_A @ K1_B, K2_A @ T3 @ K2_B)},
    ),
    "LoKr as DoRA": (
        {MLP: {"lokr_w1": K1_A @ K1_B, "lokr_w2": K2_A @ K2_B, "dora_scale": WIDE_ROWS}},
        {f"{MLP}.weight": lambda w: dora(w, torch.kron(K1_A @ K1_B, K2_A @ K2_B), WIDE_ROWS)},
    ),
    "GLoRA": (
        {OUT: {"a1.weight": GA1, "a2.weight": GA2, "b1.weight": GB1, "b2.weight": GB2, "alpha": ALPHA}},
        {f"{OUT}.weight": lambda w: w + 0.5 * (w @ GA1 @ GA2 + GB1 @ GB2)},
    ),
    "GLoRA in the order of older files": (
        {QKV: {"a1.weight": GA2, "a2.weight": GA1, "b1.weight": GB2, "b2.weight": WIDE_GB1}},
        {f"{QKV}.weight": lambda w: w + w @ GA1 @ GA2 + WIDE_GB1 @ GB2},
    ),
    "GLoRA as DoRA": (
        {OUT: {"a1.weight": GA1, "a2.weight": GA2, "b1.weight": GB1, "b2.weight": GB2, "dora_scale": ROWS}},
        {f"{OUT}.weight": lambda w: dora(w, w @ GA1 @ GA2 + GB1 @ GB2, ROWS)},
    ),
    "OFT": (
        {QKV: {"oft_blocks": OFT_BLOCKS}},
        {f"{QKV}.weight": lambda w: torch.block_diag(*rotations(OFT_BLOCKS)).mT @ w},
    ),
    "OFT with a scale and a bound": (
        {OUT: {"oft_blocks": SQUARE_OFT_BLOCKS, "rescale": SCALE, "alpha": torch.tensor(0.1)}},
        {f"{OUT}.weight":
             lambda w: SCALE * (torch.block_diag(*rotations(SQUARE_OFT_BLOCKS, bound=3.2)).mT @ w)},
    ),
    "OFT as DoRA": (
        {OUT: {"oft_blocks": SQUARE_OFT_BLOCKS, "dora_scale": COLUMNS}},
        {f"{OUT}.weight":
             lambda w: dora(w, torch.block_diag(*rotations(SQUARE_OFT_BLOCKS)).mT @ w - w, COLUMNS)},
    ),
    "BOFT": (
        {QKV: {"oft_blocks": BOFT_BLOCKS, "rescale": WIDE_SCALE}},
        {f"{QKV}.weight": lambda w: WIDE_SCALE * (butterfly(BOFT_BLOCKS) @ w)},
    ),
    "differences of weight and bias": (
        {QKV: {"diff": FULL, "diff_b": QKV_BIAS}, MLP: {"diff": W1_A @ W1_B}},
        {f"{QKV}.weight": lambda w: w + FULL, f"{QKV}.bias": lambda b: b + QKV_BIAS,
         f"{MLP}.weight": lambda w: w + W1_A @ W1_B},
    ),
    "a LoRA beside a difference of the bias": (
        {QKV: {"lora_up.weight": QKV_UP, "lora_down.weight": QKV_DOWN, "alpha": ALPHA, "diff_b": QKV_BIAS}},
        {f"{QKV}.weight": lambda w: w + 0.5 * QKV_UP @ QKV_DOWN, f"{QKV}.bias": lambda b: b + QKV_BIAS},
    ),
    "differences of norms": (
        {QK_NORM: {"diff": normal(16, seed=24)}, BLOCK_NORM: {"w_norm": normal(32, seed=25)},
         TEXT_NORM: {"set_weight": normal(24, seed=26)}},
        {f"{QK_NORM}.weight": lambda w: w + normal(16, seed=24),
         f"{BLOCK_NORM}.weight": lambda w: w + normal(32, seed=25),
         f"{TEXT_NORM}.weight": lambda w: normal(24, seed=26)},
    ),
    "a weight that is replaced": (
        {QKV: {"set_weight": FULL}},
        {f"{QKV}.weight": lambda w: FULL},
    ),
}  # fmt: skip

PREFIXES = {
    "bare": "{}", "transformer": "transformer.{}", "PEFT": "base_model.model.{}",
    "ComfyUI": "diffusion_model.{}",
    "kohya": "lora_unet_{}", "LyCORIS": "lycoris_{}",
}  # fmt: skip


def adapter_file(path, layers, style="ComfyUI"):
    """Write the parts of layers under the keys of a style."""
    tensors = {}
    for layer, parts in layers.items():
        front = PREFIXES[style].format(layer.replace(".", "_") if "_{}" in PREFIXES[style] else layer)
        tensors |= {f"{front}.{name}": value.contiguous().clone() for name, value in parts.items()}
    save_file(tensors, path)
    return path


@cache
def velocity_with(*kinds_and_strengths):
    """The velocity of the denoiser that `with_values` returns."""
    return velocity(with_values(*kinds_and_strengths))


def with_values(*kinds_and_strengths):
    """A tiny denoiser whose parameters are W + sum of strength * (value - W)."""
    model = tiny_denoiser()
    changes = {}
    for kind, strength in kinds_and_strengths:
        for name, value in KINDS[kind][1].items():
            old = model.get_parameter(name).data.double()
            changes[name] = changes.get(name, 0) + strength * (value(old.float()).double() - old)
    for name, change in changes.items():
        parameter = model.get_parameter(name)
        parameter.data = (parameter.data.double() + change).float()
    return model


def assert_same_velocity(model, *kinds_and_strengths, tolerance=1e-4):
    wanted = velocity_with(*kinds_and_strengths)
    torch.testing.assert_close(velocity(model), wanted, rtol=tolerance, atol=tolerance)


one_denoiser = cache(tiny_denoiser)
