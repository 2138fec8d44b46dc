"""Pre-train a Lens denoiser by flow matching on the nano world, on cached latents and text features.

Spec: section 8. Letters: B batch, C channels of an image token, h and w latent cells, I image tokens.
"""

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import generator_for
from lens.core.schedule import logit_normal_times, training_mu
from lens.errors import SettingError
from lens.losses.base import Objective, Work
from lens.losses.flow_matching import flow_matching_loss
from lens.losses.patch_classification import LayoutHead, layout_loss
from lens.models.checkpoints.writer import forget_origin
from lens.models.denoiser import LensTransformer2DModel
from lens.nano.tasks import World, training_example
from lens.nano.world.patch_labels import CELL_PX, NUM_PARTS, NUM_THINGS, cell_labels
from lens.sampling.pipeline import LensPipeline
from lens.train.cost.flops import training_flops
from lens.train.data.nano_cache import SHARD, Examples, Source, cached_bucket
from lens.train.devices import autocast, chosen_device
from lens.train.settings.stages import PretrainSettings, first_there, sizes_of
from lens.train.stages.nano_eval import NanoProbe

HELD_OUT_SHARD = 50_000
"""Shards from this one on are never trained on."""
HELD_OUT_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class PretrainStage:
    def __init__(self, settings: PretrainSettings):
        self.settings = settings
        self.device = chosen_device(settings.device)
        self._vae, self._text_encoder, self._tokenizer = _load_encoders(settings, self.device)
        self._vae.to(memory_format=torch.channels_last)
        self._denoiser: Any = _fresh_denoiser(settings, self._vae, self._text_encoder)
        if settings.start_from:
            source: Any = LensTransformer2DModel.from_pretrained(settings.start_from)
            weights = source.state_dict().items()
            self._denoiser.load_state_dict({name: tensor.float() for name, tensor in weights})
        for unread in self._denoiser.unread_parameters():
            unread.requires_grad_(False)
        self._layout = _Layout(self._denoiser, settings.layout_block) if settings.layout_weight else None
        parts = {"denoiser": self._denoiser} | ({"layout": self._layout.head} if self._layout else {})
        self.trained = nn.ModuleDict(parts).to(self.device)
        self._world = World.of(settings.num_things, settings.dense_share)
        source = Source(self._vae, self._text_encoder, self._tokenizer, self._world, settings.world_seed)
        layers = self._denoiser.config.selected_layer_index
        sizes = [size for base in settings.bases for size in sizes_of("ratios", settings.ratios, base)]
        probe_sizes = sizes_of("probe_ratios", settings.probe_ratios, settings.bases[0])
        self._probe = NanoProbe(
            settings.probe_prompts, probe_sizes, self.device, settings.precision,
            settings.probe_styles, self._world,
        )  # fmt: skip
        share = settings.examples // len(sizes)
        self._buckets = [
            cached_bucket(settings.cache, source, size, layers, sizes.count(size) * share // SHARD)
            for size in dict.fromkeys(sizes)
        ]
        self._odds = np.array([len(bucket) for bucket in self._buckets]) / sum(map(len, self._buckets))
        self._held_out = {
            "": cached_bucket(settings.cache, source, probe_sizes[0], layers, 1, HELD_OUT_SHARD)
        }
        # Of one kind of captions each, so that models of other captions can be compared.
        for style in settings.probe_styles if settings.probe_losses else ():
            world = World.of(settings.num_things, float(style == "dense"))
            told = Source(self._vae, self._text_encoder, self._tokenizer, world, settings.world_seed)
            for ratio, size in zip(settings.probe_ratios, probe_sizes, strict=True):
                bucket = cached_bucket(settings.cache, told, size, layers, 1, HELD_OUT_SHARD)
                self._held_out[f"{style}/{ratio}"] = bucket

    def objective(self, step: int, index: int) -> Objective:
        settings = self.settings
        count = settings.batch_size // settings.micro_batches
        rng = np.random.default_rng([settings.seed, step, index])
        bucket = self._buckets[rng.choice(len(self._buckets), p=self._odds)]
        started_at = time.perf_counter()
        examples = bucket.draw(rng, count)
        data_s = time.perf_counter() - started_at
        clean = examples.latents                                                                # (B, C, h, w)
        examples.mask[torch.from_numpy(rng.random(count) < settings.prompt_dropout)] = False
        num_tokens = clean.shape[2] * clean.shape[3]
        num_text = examples.mask.sum(1).tolist()
        flops = sum(training_flops(self._denoiser.config, num_tokens, text) for text in num_text)
        work = Work(count, count * num_tokens + sum(num_text), flops, data_s)
        mu = training_mu(num_tokens, settings.timestep_mu, settings.timestep_tokens)
        times = generator_for(settings.seed, "pretrain/times", step, index)
        t = logit_normal_times(torch.randn(count, generator=times), mu)                            # (B,)
        draw = generator_for(settings.seed, "pretrain/noise", step, index)
        noise = torch.randn(clean.shape, generator=draw)                                        # (B, C, h, w)
        flow = self._loss(examples, t, noise)
        if self._layout is None:
            return flow._replace(work=work)
        height_px, width_px = (CELL_PX * side for side in clean.shape[2:])
        labels = [
            _labels(self._world, settings.world_seed, number, height_px, width_px)
            for number in examples.numbers
        ]
        layout = self._layout.loss(labels)
        terms = {"flow": flow.loss.detach(), "layout": layout.detach()}
        return Objective(flow.loss + settings.layout_weight * layout, terms, work)

    def probe(self) -> dict[str, float]:
        return self._held_out_loss() | self._probe.numbers(self._pipeline(self._denoiser))

    def sample_grid(self):
        return self._probe.grid()

    @torch.no_grad()
    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the whole pipeline in diffusers' layout, all weights in bfloat16."""
        denoiser: Any = LensTransformer2DModel.from_config(self._denoiser.config)
        own = (item for item in state.items() if item[0].startswith("denoiser."))
        denoiser.load_state_dict({name.removeprefix("denoiser."): tensor for name, tensor in own})
        pipeline = self._pipeline(denoiser)
        vae, text_encoder = _load_encoders(self.settings, torch.device("cpu"))[:2]
        pipeline.register_modules(vae=vae, text_encoder=text_encoder)
        pipeline.to(torch.bfloat16)
        pipeline.save_pretrained(folder)

    def _loss(self, examples: Examples, t: Tensor, noise: Tensor) -> Objective:
        clean, t, noise, mask = (part.to(self.device) for part in (examples.latents, t, noise, examples.mask))
        features = [feature.to(self.device) for feature in examples.features]
        h, w = clean.shape[2:]

        def velocity(noisy: Tensor, time: Tensor) -> Tensor:
            with autocast(self.device, self.settings.precision):
                tokens = self._denoiser(
                    hidden_states=pack_latents(noisy),                                             # (B, I, C)
                    encoder_hidden_states=features,
                    encoder_hidden_states_mask=mask,
                    timestep=time,
                    img_shapes=[(1, h, w)],
                    return_dict=False,
                )[0]
            return unpack_latents(tokens, h, w)                                                 # (B, C, h, w)

        return flow_matching_loss(velocity, clean, t=t, noise=noise)

    def _held_out_loss(self) -> dict[str, float]:
        """Return the loss at fixed times, examples and noise."""
        found = {}
        for name, bucket in self._held_out.items():
            examples = bucket.draw(np.random.default_rng(0), 64)
            noise = torch.randn(examples.latents.shape, generator=generator_for(0, "pretrain/held_out"))
            losses = {
                t: float(self._loss(examples, torch.full((64,), t), noise).loss) for t in HELD_OUT_TIMES
            }
            found[f"loss/{name}" if name else "loss"] = float(np.mean(list(losses.values())))
            found |= {} if name else {f"loss_t{t}": loss for t, loss in losses.items()}
        return found

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


class _Layout:
    """The layout loss of the denoiser's latest forward pass, from the output of one of its blocks."""

    def __init__(self, denoiser: Any, block: int):
        blocks = denoiser.transformer_blocks
        if block >= len(blocks):
            raise SettingError("layout_block", block, f"below num_layers = {len(blocks)}")
        self.head = LayoutHead(denoiser.config.inner_dim, (NUM_THINGS, NUM_PARTS))
        self.head.init_weights()
        blocks[block].register_forward_hook(self._keep)

    def loss(self, labels: list[tuple[np.ndarray, np.ndarray]]) -> Tensor:
        """Return the loss against the labels of the examples of the pass."""
        kinds = (torch.from_numpy(np.stack(kind)).flatten(1) for kind in zip(*labels, strict=True))
        hidden = self._hidden                                                                   # (B, I, D)
        return layout_loss(self.head(hidden.float()), [kind.to(hidden.device) for kind in kinds])

    def _keep(self, _module: nn.Module, _inputs: Any, streams: tuple[Tensor, Tensor]) -> None:
        self._hidden = streams[0]


@cache
def _labels(
    world: World, seed: int, number: int, height_px: int, width_px: int
) -> tuple[np.ndarray, np.ndarray]:
    return cell_labels(training_example(seed, number, height_px, width_px, world)[0])


def _load_encoders(settings: PretrainSettings, device: torch.device) -> tuple[Any, Any, Any]:
    """Return the frozen autoencoder and text encoder in float32, and the tokenizer."""
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
    from transformers import PreTrainedTokenizerFast

    from lens.models.text_encoder import load_text_encoder

    text = first_there("text", settings.text)
    folder = first_there("vae", settings.vae)
    vae: Any = AutoencoderKLFlux2.from_pretrained(folder, torch_dtype=torch.float32)
    forget_origin(vae)
    text_encoder: Any = load_text_encoder(text / "text_encoder", torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(text / "tokenizer")
    for frozen in (vae, text_encoder):
        frozen.eval().requires_grad_(False).to(device)
    return vae, text_encoder, tokenizer


def _fresh_denoiser(settings: PretrainSettings, vae: Any, text_encoder: Any) -> LensTransformer2DModel:
    channels = vae.config.latent_channels
    fixed = {
        "in_channels": 4 * channels,
        "out_channels": channels,
        "enc_hidden_dim": text_encoder.config.hidden_size,
    }
    denoiser = LensTransformer2DModel(**(fixed | settings.config))
    denoiser.init_weights(generator_for(settings.seed, "pretrain/weights"))
    return denoiser


