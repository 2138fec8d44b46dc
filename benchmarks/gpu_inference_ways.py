"""Ways to compute of benchmarks/gpu_inference.py: guidance, CUDA graphs, float8 weights, attention."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lens.core.guidance import cfg_norm_rescaled
from lens.models import layers
from lens.models.quantized.torchao import is_quantizable
from lens.models.velocity import compute_dtype, predict_token_velocity
from lens.sampling.prompt_embeds import PromptEmbeds

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def padded_velocity(
    denoiser: Any, x: Tensor, sigma: float, cond: PromptEmbeds, uncond: PromptEmbeds, scale: float,
    latent_size: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Return the guided velocity from one batch of two, in which the text of the second is padding."""
    features = [torch.cat(pair) for pair in zip(cond.features, uncond.features, strict=True)]  # (2, T, E)
    both = predict_token_velocity(
        denoiser, x.repeat(2, 1, 1), torch.full((2,), sigma, device=x.device), features,
        torch.cat([cond.mask, uncond.mask]), latent_sizes=[latent_size], dtype=compute_dtype(denoiser),
    )  # fmt: skip
    return cfg_norm_rescaled(both[:1], both[1:], scale)


def packed_velocity(
    denoiser: Any, x: Tensor, sigma: float, cond: PromptEmbeds, scale: float, latent_size: tuple[int, int]
) -> Tensor:
    """Return the guided velocity from one packed sequence: the image with text, then without."""
    texts = [[one[0] for one in cond.features], [one[0, :0] for one in cond.features]]
    first, second = predict_token_velocity(
        denoiser, [x[0], x[0]], torch.full((2,), sigma, device=x.device), texts,
        latent_sizes=[latent_size] * 2, dtype=compute_dtype(denoiser),
    )  # fmt: skip
    return cfg_norm_rescaled(first[None], second[None], scale)


class GraphedDenoiser:
    """A denoiser whose passes are replayed from CUDA graphs; each prompt has a graph of its own."""

    def __init__(self, denoiser: Any):
        self.denoiser, self.dtype = denoiser, denoiser.dtype
        self._graphs: dict[int, tuple[Any, Tensor, Tensor, Tensor]] = {}

    def __call__(self, hidden_states: Tensor, timestep: Tensor, **kwargs: Any) -> tuple[Tensor]:
        key = id(kwargs["encoder_hidden_states"])
        if key not in self._graphs:
            x, t = hidden_states.clone(), timestep.clone()
            for _ in range(3):  # compilation and the choice of kernels cannot be captured
                self.denoiser(hidden_states=x, timestep=t, **kwargs)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self.denoiser(hidden_states=x, timestep=t, **kwargs)[0]
            self._graphs[key] = graph, x, t, out
        graph, x, t, out = self._graphs[key]
        x.copy_(hidden_states)
        t.copy_(timestep)
        graph.replay()
        return (out.clone(),)


def quantize_to_float8(denoiser: nn.Module, weights: str) -> None:
    """Quantize the linear layers of the blocks that may lose precision."""
    if weights == "bf16":
        return
    from torchao import quantization as torchao

    configs = {
        "float8": torchao.Float8WeightOnlyConfig,
        "float8_dynamic": partial(
            torchao.Float8DynamicActivationFloat8WeightConfig, granularity=torchao.PerRow()
        ),
    }
    torchao.quantize_(
        denoiser, configs[weights](),
        filter_fn=lambda layer, name: isinstance(layer, nn.Linear) and is_quantizable(name),
    )  # fmt: skip


@contextmanager
def attention_kernel(name: str) -> Iterator[None]:
    """Compute attention by one kernel; it is an error if that is not there."""
    with ExitStack() as stack:
        if name in BACKENDS:
            stack.enter_context(sdpa_kernel(BACKENDS[name]))
        if name == "fa3":
            before, layers.attention = layers.attention, flash_attention_3()
            stack.callback(setattr, layers, "attention", before)
        yield


def flash_attention_3() -> Callable[..., Tensor]:
    """Return attention by FlashAttention 3 of the package `kernels`, as one operation of the compiler."""
    from kernels import get_kernel  # type: ignore[import-not-found]

    flash = get_kernel("kernels-community/flash-attn3")
    if hasattr(torch.ops.lens_benchmark, "fa3"):
        compute: Any = torch.ops.lens_benchmark.fa3
    else:

        @torch.library.custom_op("lens_benchmark::fa3", mutates_args=())
        def compute(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = flash.flash_attn_func(*(one.transpose(1, 2) for one in (q, k, v)))  # (B, M, H, K)
            return (out[0] if isinstance(out, tuple) else out).transpose(1, 2).contiguous()

        compute.register_fake(torch.empty_like)

    def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
        if key_mask is not None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
        return compute(q, k, v)  # (B, H, M, K)

    return attention
