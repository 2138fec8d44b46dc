"""The pretrain stage: pre-trains a denoiser by flow matching on cached examples of the nano world.

Spec: section 8. Letters: B batch, C channels of an image token, h and w latent cells, I image tokens.
"""

import logging
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lens.core.noise import generator_for
from lens.core.resolution import SIDE_STEP_PX
from lens.core.schedule import logit_normal_times, training_mu
from lens.errors import SettingError
from lens.losses.base import LossOutput, StepStats
from lens.losses.flow_matching import flow_matching_loss
from lens.losses.patch_classification import PatchClassificationHead, patch_classification_loss
from lens.models.denoiser import LensTransformer2DModel
from lens.models.velocity import predict_velocity
from lens.models.prompt_template import PromptTemplate
from lens.nano.captions import CaptionMix
from lens.nano.tasks import WorldConfig
from lens.nano.world.patch_labels import NUM_LABELS, PatchLabels, patch_labels
from lens.sampling.pipeline import LensPipeline
from lens.train.cost.flops import training_flops
from lens.train.data.encode import load_encoders
from lens.train.data.nano_cache import (
    NANO_EXAMPLES_PER_SHARD,
    NanoBatch,
    NanoExampleSource,
    World,
    load_bucket,
)
from lens.train.devices import autocast, resolve_device
from lens.train.settings.stages import NanoPretrainSettings, bucket_sizes, first_existing_folder
from lens.train.stages.base import HELD_OUT_TIMES
from lens.train.stages.nano_eval import NanoEval
from lens.train.stages.text_warm_start import fit_text_input

logger = logging.getLogger(__name__)

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
            fit = fit_text_input(
                self._denoiser, self._text_encoder, self._tokenizer, settings.start_from, settings.start_text_from
            )
            logger.warning("The first text layer is fitted to the old text encoder: R^2 %.2f.", fit)
        for unused in self._denoiser.unused_parameters():
            unused.requires_grad_(False)
        self._patch_classifier = (
            _PatchClassifier(self._denoiser, settings.layout_block) if settings.layout_weight else None
        )
        parts = {"denoiser": self._denoiser} | (
            {"layout": self._patch_classifier.head} if self._patch_classifier else {}
        )
        self.model = nn.ModuleDict(parts).to(self.device)
        tasks_world = WorldConfig.of(settings.num_things, settings.dense_share)
        self._world: World = CaptionMix(**settings.captions) if settings.captions is not None else tasks_world
        layers = self._denoiser.config.selected_layer_index
        kept_layers = None if settings.cache_all_layers else tuple(layers)
        source = NanoExampleSource(
            self._vae, self._text_encoder, self._tokenizer, self._world, settings.world_seed, kept_layers
        )
        self._num_scaffold_tokens = len(PromptTemplate(self._tokenizer).scaffold_ids)
        sizes = [size for base in settings.bases for size in bucket_sizes("ratios", settings.ratios, base)]
        probe_sizes = bucket_sizes("probe_ratios", settings.probe_ratios, settings.bases[0])
        self._nano_eval = NanoEval(
            settings.probe_prompts, probe_sizes, self.device, settings.precision,
            settings.probe_styles, tasks_world,
        )  # fmt: skip
        examples_per_size = settings.examples // len(sizes)
        self._buckets = [
            load_bucket(
                settings.cache,
                source,
                size,
                layers,
                sizes.count(size) * examples_per_size // NANO_EXAMPLES_PER_SHARD,
            )
            for size in dict.fromkeys(sizes)
        ]
        self._bucket_probabilities = np.array([len(bucket) for bucket in self._buckets]) / sum(
            map(len, self._buckets)
        )
        self._held_out = {
            "": load_bucket(settings.cache, source, probe_sizes[0], layers, 1, FIRST_HELD_OUT_SHARD)
        }
        # One caption style each, so that models trained on different captions can be compared.
        for style in settings.probe_styles if settings.probe_losses else ():
            world = WorldConfig.of(settings.num_things, float(style == "dense"))
            style_source = NanoExampleSource(
                self._vae, self._text_encoder, self._tokenizer, world, settings.world_seed, kept_layers
            )
            for ratio, size in zip(settings.probe_ratios, probe_sizes, strict=True):
                bucket = load_bucket(settings.cache, style_source, size, layers, 1, FIRST_HELD_OUT_SHARD)
                self._held_out[f"{style}/{ratio}"] = bucket

    def objective(self, step: int, index: int) -> LossOutput:
        settings = self.settings
        count = settings.batch_size // settings.micro_batches
        rng = np.random.default_rng([settings.seed, step, index])
        bucket = self._buckets[rng.choice(len(self._buckets), p=self._bucket_probabilities)]
        started_at = time.perf_counter()
        has_prompt = settings.prompt_token_share == 1 or rng.random() < settings.prompt_token_share
        examples = bucket.sample(rng, count, 0 if has_prompt else self._num_scaffold_tokens)
        data_s = time.perf_counter() - started_at
        clean = examples.latents                                                                # (B, C, h, w)
        examples.mask[torch.from_numpy(rng.random(count) < settings.prompt_dropout)] = False
        num_tokens = clean.shape[2] * clean.shape[3]
        num_text = examples.mask.sum(1).tolist()
        flops = sum(training_flops(self._denoiser.config, num_tokens, text) for text in num_text)
        work = StepStats(count, count * num_tokens + sum(num_text), flops, data_s)
        mu = training_mu(num_tokens, settings.timestep_mu, settings.timestep_tokens)
        time_generator = generator_for(settings.seed, "pretrain/times", step, index)
        t = logit_normal_times(torch.randn(count, generator=time_generator), mu)                        # (B,)
        noise_generator = generator_for(settings.seed, "pretrain/noise", step, index)
        noise = torch.randn(clean.shape, generator=noise_generator)                             # (B, C, h, w)
        flow = self._loss(examples, t, noise)
        if self._patch_classifier is None:
            return flow._replace(stats=work)
        height_px, width_px = (SIDE_STEP_PX * side for side in clean.shape[2:])
        labels = [
            _patch_labels(self._world, settings.world_seed, number, height_px, width_px)
            for number in examples.example_indices
        ]
        layout = self._patch_classifier.loss(labels)
        terms = {"flow": flow.loss.detach(), "layout": layout.detach()}
        return LossOutput(flow.loss + settings.layout_weight * layout, terms, work)

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

    def _loss(self, examples: NanoBatch, t: Tensor, noise: Tensor) -> LossOutput:
        clean, t, noise, mask = (part.to(self.device) for part in (examples.latents, t, noise, examples.mask))
        features = [feature.to(self.device) for feature in examples.features]

        def velocity(noisy: Tensor, time: Tensor) -> Tensor:
            with autocast(self.device, self.settings.precision):
                return predict_velocity(self._denoiser, noisy, time, features, mask)            # (B, C, h, w)

        return flow_matching_loss(velocity, clean, t=t, noise=noise)

    def _held_out_losses(self) -> dict[str, float]:
        """Return the losses at fixed times, examples and noise, by name."""
        losses_by_name = {}
        for name, bucket in self._held_out.items():
            examples = bucket.sample(np.random.default_rng(0), 64)
            noise = torch.randn(examples.latents.shape, generator=generator_for(0, "pretrain/held_out"))
            losses = {
                t: float(self._loss(examples, torch.full((64,), t), noise).loss) for t in HELD_OUT_TIMES
            }
            losses_by_name[f"loss/{name}" if name else "loss"] = float(np.mean(list(losses.values())))
            losses_by_name |= {} if name else {f"loss_t{t}": loss for t, loss in losses.items()}
        return losses_by_name

    def _pipeline(self, denoiser: nn.Module) -> LensPipeline:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="exponential",
            base_shift=0.5, max_shift=1.15, shift=3.0,
        )  # fmt: skip
        return LensPipeline(
            scheduler, self._vae, self._text_encoder, self._tokenizer, denoiser,
            lens_variant=self.settings.variant, default_base_resolution=self.settings.bases[0],
        )  # fmt: skip


class _PatchClassifier:
    """The patch classification loss of the latest forward pass, from the output of one block."""

    def __init__(self, denoiser: Any, block: int):
        blocks = denoiser.transformer_blocks
        if block >= len(blocks):
            raise SettingError("layout_block", block, f"below num_layers = {len(blocks)}")
        self.head = PatchClassificationHead(denoiser.config.inner_dim, NUM_LABELS)
        self.head.init_weights()
        blocks[block].register_forward_hook(self._save_hidden)

    def loss(self, labels: list[PatchLabels]) -> Tensor:
        """Return the loss against the patch labels of the examples."""
        kinds = (torch.from_numpy(np.stack(kind)).flatten(1) for kind in zip(*labels, strict=True))
        hidden = self._hidden  # (B, I, D)
        return patch_classification_loss(
            self.head(hidden.float()), [kind.to(hidden.device) for kind in kinds]
        )

    def _save_hidden(self, _module: nn.Module, _inputs: Any, streams: tuple[Tensor, Tensor]) -> None:
        self._hidden = streams[0]


@cache
def _patch_labels(
    world: World, seed: int, number: int, height_px: int, width_px: int
) -> tuple[np.ndarray, ...]:
    return patch_labels(world.example(seed, number, height_px, width_px)[0])


def _load_encoders(settings: NanoPretrainSettings, device: torch.device) -> tuple[Any, Any, Any]:
    """Return the frozen autoencoder and text encoder in float32, and the tokenizer."""
    text = first_existing_folder("text", settings.text)
    vae = first_existing_folder("vae", settings.vae)
    return load_encoders(vae, text / "text_encoder", text / "tokenizer", device, torch.float32)


def _start_from(denoiser: LensTransformer2DModel, folder: Path) -> None:
    """Load the weights of another denoiser, without those that depend on the width of its text encoder."""
    source: Any = LensTransformer2DModel.from_pretrained(folder)
    own = denoiser.state_dict()
    weights = {name: tensor.float() for name, tensor in source.state_dict().items()}
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
    }
    denoiser = LensTransformer2DModel(**(encoder_config | settings.config))
    denoiser.init_weights(generator_for(settings.seed, "pretrain/weights"))
    return denoiser
