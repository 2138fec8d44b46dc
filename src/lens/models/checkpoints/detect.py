"""Detection of what a file of weights probably is, from the names of its tensors.

Free of torch. Messages about a wrong file use it, and readers choose by it.
"""

from collections.abc import Iterable

# A Lens denoiser has both, a Qwen-Image denoiser only the first.
LENS_SIGNATURE_NAMES = (
    "transformer_blocks.0.attn.norm_added_q.weight",
    "transformer_blocks.0.img_mlp.w1.weight",
)

TOKENIZER_KEY = "tokenizer_json"
"""The tensor of a text encoder's file that holds the JSON of its tokenizer, as bytes."""
DENOISER_CONFIG_KEY = "lens_config"
"""The entry of a file's metadata that holds the configuration of its denoiser, as JSON."""
STATED_SETTINGS = (
    "lens_variant", "default_steps", "default_guidance", "default_base_resolution",
    "trained_base_resolutions", "prompt_date",
)  # fmt: skip
"""Settings of a model that its model_index.json or the metadata of its denoiser's file may state."""
TEXT_ENCODER_CONFIG_KEY = "lens_text_encoder_config"
"""The entry of a file's metadata that holds the configuration of its text encoder, as JSON."""

DENOISER_PREFIXES = (
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "model.",
    "module.",
    "net.",
    "_orig_mod.",
)

# Kinds of adapters by parts of their names.
_FOREIGN_ADAPTERS = (
    ("IA3", (".ia3_l",)),
    ("IA3", (".on_input",)),
    ("VeRA", (".vera_lambda_",)),
    ("AdaLoRA", (".lora_E",)),
)

# (description, parts that must each occur in some name), the most particular first.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *(
        (f"an adapter of the kind {kind}, which is not supported", pieces)
        for kind, pieces in _FOREIGN_ADAPTERS
    ),
    ("a LoKr adapter", ("lokr_w",)),
    ("a LoHa adapter", ("hada_w1",)),
    ("a BOFT adapter", (".boft_",)),
    ("an OFT or BOFT adapter", (".oft_",)),
    ("a GLoRA adapter", (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight")),
    ("a LoRA for a UNet (Stable Diffusion)", ("lora_unet_down_blocks",)),
    ("a LoRA for FLUX.1", ("double_blocks", "lora_")),
    ("a LoRA for a model with single-stream blocks, such as FLUX", ("single_transformer_blocks", "lora_")),
    ("a DoRA for Lens", ("img_qkv", "dora_scale")),
    ("a DoRA for Lens", ("img_qkv", "lora_magnitude_vector")),
    ("a LoRA for Lens", ("img_qkv", "lora_")),
    ("a LoRA of another model", ("lora_",)),
    ("an NVFP4 GPT-OSS text encoder", ("mlp.experts.", "weight_scale_2")),
    ("a GPT-OSS text encoder in GGUF naming", ("blk.0.ffn_gate_exps", "blk.0.attn_sinks")),
    ("a language model in GGUF naming", ("blk.0.attn_q.weight",)),
    ("a GPT-OSS text encoder", ("self_attn.sinks",)),
    ("an MXFP8 Lens denoiser", ("attn.norm_added_q.weight", "img_mlp.w1.weight_scale")),
    (
        "a Lens denoiser of another configuration, or a part of one",
        ("attn.norm_added_q.weight", "img_mlp.w1.weight"),
    ),
    ("a Qwen-Image denoiser", ("attn.norm_added_q.weight", "img_mlp.net.0.proj.weight")),
    ("a FLUX.2 denoiser", ("double_stream_modulation_img",)),
    ("a FLUX.1 denoiser", ("double_blocks.0.img_attn", "single_blocks.0")),
    ("a FLUX.1 denoiser", ("single_transformer_blocks.0", "transformer_blocks.0.ff_context")),
    ("a Stable Diffusion 3 denoiser", ("joint_blocks.0",)),
    ("a Z-Image denoiser", ("cap_embedder", "noise_refiner.0")),
    ("a Stable Diffusion checkpoint", ("input_blocks.0.0.weight",)),
    ("a Stable Diffusion UNet", ("down_blocks.0.resnets.0.time_emb_proj",)),
    ("a FLUX.2 VAE under FLUX.2's own names", ("encoder.down.0.block.0", "bn.running_mean")),
    ("a FLUX.2 VAE under diffusers' names", ("encoder.down_blocks.0", "bn.running_mean")),
    ("a VAE without latent statistics, such as FLUX.1's", ("encoder.down.0.block.0",)),
    ("a VAE without latent statistics, such as FLUX.1's", ("encoder.down_blocks.0.resnets.0",)),
    ("a T5 text encoder", ("encoder.block.0.layer.0",)),
    ("a CLIP text encoder", ("text_model.encoder.layers.0",)),
    ("another language model", ("layers.0.self_attn.q_proj",)),
)


def detect_kind(names: Iterable[str]) -> str | None:
    """Return a description of a file with these tensor names, for a message; None if it is unknown."""
    names = list(names)
    for kind, pieces in _KINDS:
        if all(any(piece in name for name in names) for piece in pieces):
            return kind
    if any(name.endswith((".diff", ".diff_b", ".set_weight")) for name in names):
        return "an adapter with differences of whole weights"
    return None


def denoiser_prefix(names: Iterable[str]) -> str | None:
    """Return the prefix of a Lens denoiser's names, which may be ""; None if it is not a Lens denoiser.

    Prefixes may be combined, as in `module._orig_mod.`.
    """
    names = set(names)
    for name in names:
        if not name.endswith(LENS_SIGNATURE_NAMES[0]):
            continue
        prefix = name.removesuffix(LENS_SIGNATURE_NAMES[0])
        if _is_known_prefix(prefix) and prefix + LENS_SIGNATURE_NAMES[1] in names:
            return prefix
    return None


def _is_known_prefix(text: str) -> bool:
    return not text or any(
        text.startswith(p) and _is_known_prefix(text.removeprefix(p)) for p in DENOISER_PREFIXES
    )
