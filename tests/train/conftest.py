"""Tiny runs of the three stages: the real code, with networks and pictures so small that a run takes seconds.

Each stage is trained once, without interruption, for all tests that look at a finished run.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from float32 import train_in_float32

STEPS = 6
VAE_CONFIG = {
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": 32,
}
TEXT_CONFIG = {
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
}
DENOISER_CONFIG = {
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "inner_dim": 32,
    "axes_dims_rope": [4, 6, 6],
    "selected_layer_index": [0, 1, 2, 3],
}
COMMON: dict[str, Any] = {
    "steps": STEPS,
    "precision": "float32",
    "device": "cpu",
    "log_every": 1,
    "probe_every": 1000,
    "ema_decay": 0.9,
    "optimizer": {"lr": 1e-3, "muon_lr": 0.01, "schedule": "cosine", "warmup_steps": 2},
}
OF_STAGE: dict[str, dict[str, Any]] = {
    "vae": {"batch_size": 4, "micro_batches": 2, "side_px": 32, "config": VAE_CONFIG},
    "language": {"batch_size": 3, "vocab_size": 420, "tokenizer_captions": 60, "config": TEXT_CONFIG},
    "pretrain": {
        "batch_size": 5,
        "bases": [48],
        "examples": 256,
        "probe_prompts": 1,
        "layout_weight": 0.1,
        "layout_block": 0,
        "config": DENOISER_CONFIG,
    },
}
STAGES = tuple(OF_STAGE)


class Finished(NamedTuple):
    """What a run left: its state in memory and its folder."""

    run: Any
    out: Path

    @property
    def lines(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]

    @property
    def numbers(self) -> list[dict[str, float]]:
        """The lines without what is measured by the clock."""
        clocked = {"samples_per_s", "tokens_per_s", "tflops_per_s", "data_wait", "peak_memory_gib"}
        return [
            {name: value for name, value in line.items() if name not in clocked} for line in self.lines
        ]


class Interrupting:
    """A stage that sends its own process a stop signal while it computes the given step."""

    def __init__(self, stage: Any, step: int):
        self._stage, self._step = stage, step

    def objective(self, step: int, index: int) -> Any:
        if step == self._step and index == 0:
            signal.raise_signal(signal.SIGTERM)
        return self._stage.objective(step, index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)


@pytest.fixture(scope="session")
def stopped_at() -> Callable[..., Any]:
    """Give a stage that stops its own process at a step."""
    return Interrupting


@pytest.fixture(scope="session", autouse=True)
def _small_float32_runs():
    """Fewer images in a shard, an evaluation and an export than in a real run; arithmetic in float32."""
    from lens.train.data import nano_cache
    from lens.train.settings import stages
    from lens.train.stages import language, nano_pretrain, vae

    with pytest.MonkeyPatch.context() as patch:
        train_in_float32(patch.setattr)
        for module in (nano_cache, nano_pretrain, stages):
            patch.setattr(module, "NANO_EXAMPLES_PER_SHARD", 8)
        crops = vae.VaeStage._crops
        patch.setattr(vae.VaeStage, "_crops", lambda stage, first, count: crops(stage, first, min(count, 20)))
        patch.setattr(language, "HELD_OUT_CAPTIONS", 24)
        patch.setattr(language, "HELD_OUT_LOSS_CAPTIONS", 20)
        yield


@pytest.fixture(scope="session")
def values_of(tmp_path_factory, request) -> Callable[..., dict[str, Any]]:
    """The values of a tiny recipe; the denoiser's reads the finished runs of the two others."""
    cache = tmp_path_factory.mktemp("cache")

    def values(name: str, out: Path, **changes: Any) -> dict[str, Any]:
        paths = {}
        if name == "pretrain":
            finished = request.getfixturevalue("finished")
            vae, text = finished("vae").out / "export" / "vae", finished("language").out / "export"
            paths = {"vae": str(vae), "text": str(text), "cache": str(cache)}
        return COMMON | OF_STAGE[name] | paths | {"stage": name, "out": str(out)} | changes

    return values


@pytest.fixture(scope="session")
def settings_and_stage(values_of) -> Callable[..., tuple[Any, Any]]:
    """The validated settings of a tiny recipe and a fresh stage of them."""
    from lens.train.run import STAGES, parse_settings

    def assemble(name: str, out: Path, **changes: Any) -> tuple[Any, Any]:
        settings = parse_settings(name, values_of(name, out, **changes), "the test")
        return settings, STAGES[name].stage_class(settings)

    return assemble


@pytest.fixture(scope="session")
def fitted(settings_and_stage) -> Callable[..., Finished]:
    """Train a tiny stage in a folder, if asked with a stop signal at a step."""
    from lens.train.trainer import fit

    def train(name: str, out: Path, interrupt_at: int | None = None, **changes: Any) -> Finished:
        settings, stage = settings_and_stage(name, out, **changes)
        return Finished(
            fit(stage if interrupt_at is None else Interrupting(stage, interrupt_at), settings), out
        )

    return train


@pytest.fixture(scope="session")
def finished(fitted, tmp_path_factory) -> Callable[[str], Finished]:
    """The uninterrupted run of a stage, trained once."""
    runs: dict[str, Finished] = {}

    def of(name: str) -> Finished:
        if name not in runs:
            runs[name] = fitted(name, tmp_path_factory.mktemp(name) / "run")
        return runs[name]

    return of


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums split the same way in every run of this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
