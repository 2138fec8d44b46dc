"""Tiny real models with fixed random weights: every class is the real one, only the numbers are small.

Sides that could be confused differ: text width 24, denoiser width 32, latent channels 4 (16 patched), text
layers 6 of which 0, 1, 3, 4 are captured, denoiser blocks 3. One latent cell is 16 x 16 pixels, as in the
released models.
"""

from functools import cache
from typing import Any

import torch

CAPTURED_LAYERS = (0, 1, 3, 4)
TEXT_WIDTH = 24
LATENT_CHANNELS = 4
TOKEN_CHANNELS = 4 * LATENT_CHANNELS

DENOISER_CONFIG: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": TOKEN_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "inner_dim": 32,
    "enc_hidden_dim": TEXT_WIDTH,
    "axes_dims_rope": (4, 6, 6),
    "gate_mlp": True,
    "rms_norm": True,
    "multi_layer_encoder_feature": True,
    "selected_layer_index": CAPTURED_LAYERS,
}

TEXTS = (
    "You are ChatGPT, a large language model trained by OpenAI. Knowledge cutoff: 2024-06 Current date: ",
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.",
    "# Instructions",
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial",
    "relationships of the objects and background. Need to generate one image according to the description.",
    "system developer user assistant analysis final",
    "two red apples to the left of a fox, on a blue background",
)


def randomise(module: torch.nn.Module, seed: int, scale: float = 1.0) -> None:
    """Draw every parameter anew, so that no branch is silent (gates and biases too).

    Matrices keep the size of their outputs; norm weights stay near 1, biases are small.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.copy_(("norm" in name and name.endswith("weight")) + 0.1 * draw)
            else:
                parameter.copy_(draw * scale * parameter[0].numel() ** -0.5)


def tiny_denoiser(seed: int = 0, **changes: Any):
    """Return a LensTransformer2DModel of 3 blocks and width 32, in evaluation mode."""
    from lens.models.denoiser import LensTransformer2DModel

    model = LensTransformer2DModel(**(DENOISER_CONFIG | changes))
    randomise(model, seed)
    return model.eval()


def tiny_vae(seed: int = 1, **changes: Any):
    """Return an AutoencoderKLFlux2 of 4 latent channels, its statistics far from 0 and 1."""
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4, 4, 8, 8),
        "layers_per_block": 1,
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": 2,
        "sample_size": 64,
    }
    vae = AutoencoderKLFlux2(**(config | changes))
    randomise(vae, seed)
    generator = torch.Generator().manual_seed(seed)
    mean, var = vae.bn.running_mean, vae.bn.running_var
    assert mean is not None and var is not None
    mean.copy_(0.3 * torch.randn(mean.shape, generator=generator))
    var.copy_(0.5 + torch.rand(var.shape, generator=generator))
    return vae.eval()


def tiny_encoder(vocab_size: int | None = None, seed: int = 2, **changes: Any):
    """Return a LensGptOssEncoder of 6 layers and width 24, in evaluation mode."""
    from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig

    from lens.models.checkpoints.text_encoder import LensGptOssEncoder

    tokenizer = tiny_tokenizer()
    config: dict[str, Any] = {
        "vocab_size": vocab_size or len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 20,
        "num_hidden_layers": 6,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 16,
        "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    encoder = LensGptOssEncoder(GptOssConfig(**(config | changes)))
    randomise(encoder, seed)
    return encoder.eval()


@cache
def tiny_tokenizer(vocab_size: int = 640):
    """Return a byte-level BPE tokenizer with the harmony control tokens, trained on the fixed texts."""
    from lens.models.tokenizer import train_tokenizer

    return train_tokenizer(TEXTS, vocab_size=vocab_size)


def tiny_qwen3(seed: int = 3, **changes: Any):
    """Return a Qwen3ForCausalLM of 5 layers and width 16, tied as the small released ones are."""
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

    config: dict[str, Any] = {
        "vocab_size": len(tiny_qwen3_tokenizer()), "hidden_size": 16, "intermediate_size": 20,
        "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "tie_word_embeddings": True,
    }  # fmt: skip
    model = Qwen3ForCausalLM(Qwen3Config(**(config | changes)))
    randomise(model, seed)
    return model.eval()


@cache
def tiny_qwen3_tokenizer():
    """Return a byte-level BPE tokenizer with Qwen3's control tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )


def tiny_scheduler():
    """Return the scheduler that published folders carry; sigmas do not come from it."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, time_shift_type="exponential"
    )


def tiny_components(seed: int = 0) -> dict[str, Any]:
    """Return the five components of a pipeline."""
    return {
        "scheduler": tiny_scheduler(),
        "vae": tiny_vae(seed + 1),
        "text_encoder": tiny_encoder(seed=seed + 2),
        "tokenizer": tiny_tokenizer(),
        "transformer": tiny_denoiser(seed),
    }


def tiny_pipeline(seed: int = 0, **settings: Any):
    """Return a LensPipeline of tiny components that draws at base 64 and shows no progress bar."""
    from lens.sampling.pipeline import LensPipeline

    pipeline = LensPipeline(**tiny_components(seed), **({"default_base_resolution": 64} | settings))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
