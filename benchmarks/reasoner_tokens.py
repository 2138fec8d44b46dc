"""Time the tokens of GPT-OSS-20B as the reasoner on a CPU: blocks of its sizes, random weights in MXFP4.

All blocks cost the same, so a few of them tell the time of all 24; the LM head is timed by itself. Once with
weights that stay in memory, once released after each block, as where they do not fit; the file stays in the
page cache, so a disk adds its own time. It counts the processor time of one thread, so that other work on the
machine does not matter. It writes 0.5 GB a block into a folder that is removed afterwards.

    python benchmarks/reasoner_tokens.py [--blocks 2] [--tokens 8]
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import linear
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig

from lens.models.chat.continuation import Continuation
from lens.models.chat.cost import cost_note, token_cost
from lens.models.checkpoints.text_encoder import load_text_encoder_folder

NUM_BLOCKS, VOCABULARY, WIDTH, EXPERTS, PROMPT = 24, 201_088, 2880, 32, 200


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_encoder(Path(folder), options.blocks)
        encoder = load_text_encoder_folder(Path(folder), torch.bfloat16, device="cpu")
        print(f"torch {torch.__version__}, 1 thread, {options.blocks} of 24 blocks")
        cost = token_cost(encoder)
        print(f"estimated here: {cost.token_s:.2f} s a token, {cost.pass_s:.2f} s to read a request")
        head_s = time_head()
        print(f"LM head: {head_s:.2f} s a token")
        for name in ("resident", "released"):
            encoder.releases_blocks = name == "released"
            read_s, token_s = time_tokens(encoder, options.tokens)
            scale = NUM_BLOCKS / options.blocks
            print(
                f"{name}: {PROMPT} tokens of a request "
                f"{read_s:.2f} s, a token {token_s:.2f} s; all blocks and the head: {scale * read_s:.0f} s, "
                f"{scale * token_s + head_s:.1f} s"
            )
        print(cost_note(encoder, 400))


def write_encoder(folder: Path, num_blocks: int) -> None:
    """Write an encoder of the released sizes with few blocks and few words."""
    words = 1024
    sizes: dict[str, Any] = {"num_hidden_layers": num_blocks, "num_local_experts": EXPERTS}
    config = GptOssConfig(**sizes, vocab_size=words, dtype="bfloat16")
    config.quantization_config = {"quant_method": "mxfp4"}
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).bfloat16()

    tensors = {"model.norm.weight": torch.ones(WIDTH).bfloat16()}
    tensors |= {f"{name}.weight": normal(words, WIDTH) for name in ("model.embed_tokens", "lm_head")}
    for index in range(num_blocks):
        block = f"model.layers.{index}"
        tensors |= {f"{block}.{name}_layernorm.weight": torch.ones(WIDTH).bfloat16()
                    for name in ("input", "post_attention")}  # fmt: skip
        for name, outputs in (("q", 4096), ("k", 512), ("v", 512), ("o", WIDTH)):
            inputs = 4096 if name == "o" else WIDTH
            tensors[f"{block}.self_attn.{name}_proj.weight"] = normal(outputs, inputs)
            tensors[f"{block}.self_attn.{name}_proj.bias"] = torch.zeros(outputs).bfloat16()
        tensors[f"{block}.self_attn.sinks"] = torch.zeros(64).bfloat16()
        tensors[f"{block}.mlp.router.weight"] = normal(EXPERTS, WIDTH)
        tensors[f"{block}.mlp.router.bias"] = torch.zeros(EXPERTS).bfloat16()
        for name, outputs, inputs in (("gate_up_proj", 2 * WIDTH, WIDTH), ("down_proj", WIDTH, WIDTH)):
            shape, key = (EXPERTS, outputs, inputs // 32), f"{block}.mlp.experts.{name}"
            codes = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
            tensors[f"{key}_blocks"] = codes
            tensors[f"{key}_scales"] = torch.full(shape, 119, dtype=torch.uint8)
            tensors[f"{key}_bias"] = torch.zeros(EXPERTS, outputs).bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def time_head() -> float:
    """Return the seconds of the LM head for one token."""
    head, state = (torch.ones(rows, WIDTH, dtype=torch.bfloat16) for rows in (VOCABULARY, 1))
    times = []
    for _ in range(3):
        started_at = time.process_time()
        linear(state, head)
        times.append(time.process_time() - started_at)
    return median(times)


def time_tokens(encoder: object, num_tokens: int) -> tuple[float, float]:
    """Return the seconds of reading a request, and the median of a token after it."""
    text, times = Continuation(encoder), []
    for ids in [list(range(PROMPT)), *[[token] for token in range(num_tokens)]]:
        started_at = time.process_time()
        text.read(ids)
        times.append(time.process_time() - started_at)
    return times[0], median(times[1:])


if __name__ == "__main__":
    main()
