"""The pretrain stage: pre-trains a denoiser by flow matching on cached examples of the nano world.

Spec: section 8.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lens.core.noise import generator_for
from lens.losses.base import LossOutput
from lens.models.denoiser import LensTransformer2DModel
from lens.models.prompt_template import PromptTemplate
from lens.nano.captions import CaptionMix
from lens.nano.tasks import WorldConfig
from lens.sampling.pipeline import LensPipeline
from lens.train.data.drawn_examples import World
from lens.train.data.encode import load_encoders
from lens.train.data.nano_cache import (
    NANO_EXAMPLES_PER_SHARD,
    CachedBucket,
    NanoExampleSource,
    ShardRange,
    fill_cache,
    load_bucket,
    load_shards,
)
from lens.train.data.resident_bucket import ResidentBucket
from lens.train.devices import resolve_device
from lens.train.settings.stages import NanoPretrainSettings, bucket_sizes, first_existing_folder
from lens.train.stages.base import HELD_OUT_TIMES
from lens.train.stages.nano_eval import NanoEval
from lens.train.stages.pretrain_loss import PretrainLoss
from lens.train.stages.pretrain_objective import CachedObjective, ResidentObjective
from lens.train.stages.text_warm_start import fit_text_input

logger = logging.getLogger(__name__)

LATENT_WEIGHTS = ("img_in.weight", "proj_out.weight", "proj_out.bias")
"""Weights of the denoiser that depend on the number of latent channels."""

FIRST_HELD_OUT_SHARD = 50_000
"""First shard of held-out examples; training uses earlier shards only."""


class NanoPretrainStage:
    def __init__(self, settings: NanoPretrainSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._vae, self._text_encoder, self._tokenizer = _load_encoders(settings, self.device)
        self._vae.to(memory_format=torch.channels_last)
        self._denoiser: Any = _init_denoiser(settings, self._vae, self._text_encoder)
        if settings.start_from:
            _start_from(self._denoiser, settings.start_from)
        if settings.start_from and settings.start_text_from:
            old = settings.start_from, settings.start_text_from
            fit = fit_text_input(self._denoiser, self._text_encoder, self._tokenizer, *old)
            logger.warning("The first text layer is fitted to the old text encoder: R^2 %.2f.", fit)
        for unused in self._denoiser.unused_parameters():
            unused.requires_grad_(False)
        self._loss = PretrainLoss(
            self._denoiser, settings.precision, settings.layout_weight, settings.layout_block
        ).to(self.device)
        parts = {"denoiser": self._denoiser} | ({"layout": self._loss.head} if self._loss.head else {})
        self.model = nn.ModuleDict(parts)
        tasks_world = WorldConfig.of(
            settings.world, settings.dense_share, settings.language, settings.language_share
        )
        world: World = CaptionMix.of(settings.captions) if settings.captions is not None else tasks_world
        layers = self._denoiser.config.selected_layer_index
        kept_layers = None if settings.cache_all_layers else tuple(layers)
        source = NanoExampleSource(
            self._vae, self._text_encoder, self._tokenizer, world, settings.world_seed, kept_layers
        )
        sizes = [size for base in settings.bases for size in bucket_sizes("ratios", settings.ratios, base)]
        probe_sizes = bucket_sizes("probe_ratios", settings.probe_ratios, settings.bases[0])
        self._nano_eval = NanoEval(
            settings.probe_prompts, probe_sizes, self.device, settings.precision,
            settings.probe_styles, tasks_world,
        )  # fmt: skip
        examples_per_size = settings.examples // len(sizes)
        ranges = [
            ShardRange(size, sizes.count(size) * examples_per_size // NANO_EXAMPLES_PER_SHARD)
            for size in dict.fromkeys(sizes)
        ]
        fill_cache(settings.cache, source, ranges, settings.drawing_processes)
        num_scaffold_tokens = len(PromptTemplate(self._tokenizer).scaffold_ids)
        if settings.resident:
            resident = [self._resident_bucket(source, shards, num_scaffold_tokens) for shards in ranges]
            logger.warning("%.1f GB of examples are resident.", sum(one.num_bytes for one in resident) / 1e9)
            self._objective = ResidentObjective(settings, self._loss, resident)
        else:
            self._buckets = [
                load_bucket(settings.cache, source, shards.size_px, layers, shards.num_shards)
                for shards in ranges
            ]
            self._objective = CachedObjective(settings, self._loss, self._buckets, num_scaffold_tokens)
        self._held_out = {
            "": load_bucket(settings.cache, source, probe_sizes[0], layers, 1, FIRST_HELD_OUT_SHARD)
        }
        # One caption style each, so that models trained on different captions can be compared.
        for style in settings.probe_styles if settings.probe_losses else ():
            style_world = WorldConfig.of(settings.world, float(style == "dense"))
            style_source = NanoExampleSource(
                self._vae, self._text_encoder, self._tokenizer, style_world, settings.world_seed, kept_layers
            )
            for ratio, size in zip(settings.probe_ratios, probe_sizes, strict=True):
                bucket = load_bucket(settings.cache, style_source, size, layers, 1, FIRST_HELD_OUT_SHARD)
                self._held_out[f"{style}/{ratio}"] = bucket

    def objective(self, step: int, index: int) -> LossOutput:
        return self._objective(step, index)

    def evaluate(self) -> dict[str, float]:
        return self._held_out_losses() | self._nano_eval.evaluate(self._pipeline(self._denoiser))

    def sample_grid(self):
        return self._nano_eval.sample_grid()

    @torch.no_grad()
    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the whole pipeline in diffusers' layout, with all weights in bfloat16."""
        denoiser: Any = LensTransformer2DModel.from_config(self._denoiser.config)
        own = (item for item in state.items() if item[0].startswith("denoiser."))
        denoiser.load_state_dict({name.removeprefix("denoiser."): tensor for name, tensor in own})
        pipeline = self._pipeline(denoiser)
        vae, text_encoder = _load_encoders(self.settings, torch.device("cpu"))[:2]
        pipeline.register_modules(vae=vae, text_encoder=text_encoder)
        pipeline.to(torch.bfloat16)
        pipeline.save_pretrained(folder)

    def _resident_bucket(
        self, source: NanoExampleSource, shards: ShardRange, num_scaffold_tokens: int
    ) -> ResidentBucket:
        tensors = load_shards(self.settings.cache, source, shards)
        layers = source.kept_layers(self._denoiser.config.selected_layer_index)
        return ResidentBucket(tensors, layers, self.device, num_scaffold_tokens)

    def _held_out_loss(self, bucket: CachedBucket, time: float) -> float:
        """Return the loss at one time, with fixed examples and noise."""
        examples = bucket.sample(np.random.default_rng(0), 64)
        noise = torch.randn(examples.latents.shape, generator=generator_for(0, "pretrain/held_out"))
        t = torch.full((64,), time)
        clean, t, noise, mask = (
            part.to(self.device) for part in (examples.latents, t, noise, examples.mask)
        )
        features = [feature.to(self.device) for feature in examples.features]
        return float(self._loss.flow(clean, t, noise, features, mask))

    def _held_out_losses(self) -> dict[str, float]:
        """Return the losses at fixed times, examples and noise, by name."""
        losses_by_name = {}
        for name, bucket in self._held_out.items():
            losses = {time: self._held_out_loss(bucket, time) for time in HELD_OUT_TIMES}
            losses_by_name[f"loss/{name}" if name else "loss"] = float(np.mean(list(losses.values())))
            losses_by_name |= {} if name else {f"loss_t{t}": loss for t, loss in losses.items()}
        return losses_by_name

    def _pipeline(self, denoiser: LensTransformer2DModel) -> LensPipeline:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="exponential",
            base_shift=0.5, max_shift=1.15, shift=3.0,
        )  # fmt: skip
        return LensPipeline(
            scheduler, self._vae, self._text_encoder, self._tokenizer, denoiser,
            lens_variant=self.settings.variant, default_base_resolution=self.settings.bases[0],
            trained_base_resolutions=sorted(self.settings.bases),
        )  # fmt: skip


def _load_encoders(settings: NanoPretrainSettings, device: torch.device) -> tuple[Any, Any, Any]:
    """Return the frozen autoencoder and text encoder in float32, and the tokenizer."""
    text = first_existing_folder("text", settings.text)
    vae = first_existing_folder("vae", settings.vae)
    return load_encoders(vae, text / "text_encoder", text / "tokenizer", device, torch.float32)


def _start_from(denoiser: LensTransformer2DModel, folder: Path) -> None:
    """Load the weights of another denoiser; those for new latent channels begin at zero.

    Weights that depend on the width of its text encoder begin anew.
    """
    source: Any = LensTransformer2DModel.from_pretrained(folder)
    own = denoiser.state_dict()
    weights = {name: tensor.float() for name, tensor in source.state_dict().items()}
    for name in LATENT_WEIGHTS:
        wide = torch.zeros_like(own[name])
        wide[tuple(map(slice, weights[name].shape))] = weights[name]
        weights[name] = wide
    fitting = {name: tensor for name, tensor in weights.items() if tensor.shape == own[name].shape}
    denoiser.load_state_dict(own | fitting)
    if new := sorted(set(own) - set(fitting)):
        logger.warning("Weights that begin anew, as the text encoder has another width: %s.", ", ".join(new))


def _init_denoiser(settings: NanoPretrainSettings, vae: Any, text_encoder: Any) -> LensTransformer2DModel:
    channels = vae.config.latent_channels
    encoder_config = {
        "in_channels": 4 * channels,
        "out_channels": channels,
        "enc_hidden_dim": text_encoder.config.hidden_size,
        # The last four blocks: the last one of all has read the prompt.
        "selected_layer_index": list(range(text_encoder.config.num_hidden_layers))[-4:],
    }
    denoiser = LensTransformer2DModel(**(encoder_config | settings.config))
    denoiser.init_weights(generator_for(settings.seed, "pretrain/weights"))
    return denoiser
