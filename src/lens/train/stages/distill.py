"""The distill stage: distils a denoiser to few steps without guidance.

A cycle has some updates of the critics (fake model and discriminator), then one update of the student. The
loss terms are in losses/distillation.py. Spec: section 10. Letters: B batch, C channels of a latent cell, h
and w latent cells, I image tokens.
"""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from lens.core.flow import interpolate, predict_x0
from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import generator_for
from lens.data.image_text_dataset import image_text_samples
from lens.losses.base import LossOutput, StepStats
from lens.losses.distillation import (
    approx_r1_penalty,
    discriminator_loss,
    distance,
    distribution_matching_gradient,
    generator_loss,
    gradient_cosine,
    guidance_gradient,
    inject_gradient,
    next_student_input,
    perturb,
    renoising_times,
    student_times,
    surrogate_loss,
    teacher_times,
    trajectory_loss,
    trajectory_target,
)
from lens.losses.flow_matching import flow_matching_loss
from lens.models.checkpoints.registry import resolve_model
from lens.models.checkpoints.writer import clear_name_or_path
from lens.models.denoiser import LensTransformer2DModel
from lens.models.velocity import predict_velocity
from lens.nano.captions import CaptionMix
from lens.nano.tasks import WorldConfig
from lens.sampling.guided_denoiser import predict_velocity_cfg
from lens.sampling.pipeline import LensPipeline
from lens.sampling.prompt_embeds import PromptEmbeds
from lens.sampling.solvers import get_solver
from lens.train.activation_checkpointing import apply_activation_checkpointing
from lens.train.cost.flops import TRAINING_FACTOR, forward_flops
from lens.train.data.batch import Batch, BatchSource, CachedBatchSource, NanoBatchSource
from lens.train.data.encode import Encoders, encode_into_cache
from lens.train.data.latent_cache import LatentCache
from lens.train.data.nano_cache import NanoExampleSource
from lens.train.devices import autocast, resolve_device
from lens.train.lora import export_lora, extract_lora
from lens.train.post_training.discriminator import DiscriminatorHeads, FeatureHook, middle_blocks
from lens.train.post_training.policies import BASE, PolicySet
from lens.train.sample_grid import render_previews
from lens.train.settings.distill import DistillSettings
from lens.train.settings.stages import bucket_sizes
from lens.train.stages.nano_eval import NanoEval

STUDENT, FAKE, HEADS = "student", "fake", "heads"


class StudentSample(NamedTuple):
    """Input and output of the student at one of its steps."""

    x_0: Tensor
    """(B, C, h, w), its prediction of the clean image."""
    x_t: Tensor
    """(B, C, h, w), its input."""
    t: float
    """Noise level of the input."""
    step: int
    """Number of the step, from 0."""


class DistillStage:
    ema_parts = (STUDENT,)

    def __init__(self, settings: DistillSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._folder = resolve_model(settings.model)
        where = settings.start_from or self._folder / "transformer"
        is_light = settings.lora is not None and settings.frozen_dtype == "bf16"
        denoiser: Any = LensTransformer2DModel.from_pretrained(
            where, torch_dtype=torch.bfloat16 if is_light else torch.float32
        )
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        layers = denoiser.config.selected_layer_index
        encoders = Encoders(self._folder, layers, self.device, dtype)
        encoders.vae.to(memory_format=torch.channels_last)
        self._config = dict(denoiser.config)
        trained = [STUDENT, *(role for role in settings.critic_parts if role == FAKE)]
        self._policies = PolicySet(
            denoiser, trained, (), settings.lora, settings.seed, settings.gradient_checkpointing
        )
        parts = dict(self._policies.module.items())
        if settings.student_from is not None:
            other: Any = LensTransformer2DModel.from_pretrained(settings.student_from)
            parts[STUDENT].load_state_dict(other.float().state_dict())
        if BASE in parts:
            # The teacher has no gradients itself, but the adversarial loss differentiates through it.
            apply_activation_checkpointing(parts[BASE], settings.gradient_checkpointing)
            parts[BASE].to(torch.bfloat16 if settings.frozen_dtype == "bf16" else torch.float32)
        # The heads also exist if their loss is off, so that a recipe with their learning rate stays valid.
        blocks = settings.discriminator_blocks or middle_blocks(self._config["num_layers"])
        with self._policies.use(BASE) as teacher:
            self._feature_hook = FeatureHook(teacher, blocks)
        parts[HEADS] = DiscriminatorHeads(self._config["inner_dim"], len(blocks))
        parts[HEADS].init_weights(generator_for(settings.seed, "distill/heads"))
        self.model: Any = nn.ModuleDict(parts).to(self.device)
        self.extra_state: dict[str, Tensor] = {}
        self._num_forward_passes = 0
        """Images that passed through a denoiser for the current loss; a backward pass counts as two."""
        self._nano_eval: NanoEval | None = None
        self._previews: list[Tensor] = []
        self._batch_source = self._nano_batches(encoders) if settings.nano else self._cached_batches(encoders)
        self._frozen_components = pipeline_components(encoders, with_text=settings.nano is not None)

    def active_parts(self, step: int) -> tuple[str, ...]:
        return (STUDENT,) if self._is_student_step(step) else self.settings.critic_parts

    def after_update(self, step: int) -> str:
        """Move the fake model toward the student after a student update."""
        if self._is_student_step(step) and self.settings.ida_share and FAKE in self.settings.critic_parts:
            self._policies.ema_update(FAKE, STUDENT, 1 - self.settings.ida_share)
        return ""

    def objective(self, step: int, index: int) -> LossOutput:
        started_at = time.perf_counter()
        batch = self._batch_source.micro_batch(step, index)
        data_s = time.perf_counter() - started_at
        batch = batch.to(self.device)
        self._num_forward_passes = 0
        if self._is_student_step(step):
            loss_output = self._student_loss(batch, step, index)
        else:
            loss_output = self._critic_loss(batch, step, index)
        lengths = batch.token_counts
        flops = (
            self._num_forward_passes
            * sum(forward_flops(self._config, *pair) for pair in lengths)
            / len(lengths)
        )
        work = StepStats(len(lengths), sum(map(sum, lengths)), flops, data_s)
        return LossOutput(loss_output.loss * batch.share, loss_output.terms, work)

    def _is_student_step(self, step: int) -> bool:
        cycle = self.settings.critic_updates + 1 if self.settings.critic_parts else 1
        return step % cycle == cycle - 1

    def _student_loss(self, batch: Batch, step: int, index: int) -> LossOutput:
        """Return the loss of the student; each term gives a gradient at its predicted image."""
        settings = self.settings
        generator = generator_for(settings.seed, "distill/student", step, index)
        sample = self._simulate_student(batch, step, generator, has_gradient=True)
        x_0, x_0_detached = sample.x_0, sample.x_0.detach()
        loss, terms, gradients = torch.zeros((), device=self.device), {}, {}
        if settings.dm_weight:
            gradients["dm"], gain = self._dm_gradient(x_0_detached, batch, generator)
            terms["dm"], terms["fake/gain"] = surrogate_loss(x_0, gradients["dm"]), gain
            loss = loss + settings.dm_weight * terms["dm"]
        if settings.ca_weight:
            gradients["ca"] = self._ca_gradient(x_0_detached, batch, sample.t, generator)
            terms["ca"] = surrogate_loss(x_0, gradients["ca"])
            loss = loss + settings.ca_weight * terms["ca"]
        if settings.adversarial_weight:
            value, gradient = self._adversarial_gradient(x_0_detached, batch, generator)
            gradients["adversarial"] = gradient * x_0.numel()  # of a mean over all values, as the others
            terms["adversarial"] = inject_gradient(x_0, value, gradient)
            loss = loss + settings.adversarial_weight * terms["adversarial"]
        if settings.trajectory_weight:
            target = self._trajectory_target(sample, batch)
            terms["trajectory"] = trajectory_loss(x_0, target, sample.t)
            gradients["trajectory"] = 2 * (x_0_detached - target) / sample.t**2
            loss = loss + settings.trajectory_weight * terms["trajectory"]
        terms = {name: value.detach() for name, value in terms.items()}
        for name, gradient in gradients.items():
            weight = getattr(settings, f"{name}_weight")
            terms[f"gradient/{name}"] = weight * gradient.square().mean().sqrt()
        if "dm" in gradients and "ca" in gradients:
            terms["cosine/dm_ca"] = gradient_cosine(gradients["dm"], gradients["ca"])
        self._policies.set_active(STUDENT)  # the backward pass may recompute its blocks
        return LossOutput(loss, terms)

    def _critic_loss(self, batch: Batch, step: int, index: int) -> LossOutput:
        """Return the loss of the fake model and the discriminator on current samples of the student."""
        settings = self.settings
        generator = generator_for(settings.seed, "distill/critics", step, index)
        x_0 = self._simulate_student(batch, step, generator, has_gradient=False).x_0
        loss, terms = torch.zeros((), device=self.device), {}
        if HEADS in settings.critic_parts:
            t, noise = self._times(batch, generator), self._noise(batch, generator)
            noisy_batches = [interpolate(one, noise, t) for one in (batch.latents, x_0)]
            if settings.r1_gamma:
                noisy_batches.append(perturb(noisy_batches[0], self._noise(batch, generator)))
            with torch.no_grad():
                features = self._teacher_features(
                    torch.cat(noisy_batches), t.repeat(len(noisy_batches)), batch.repeat(len(noisy_batches))
                )
            real, student, *perturbed = self.model[HEADS](features).chunk(len(noisy_batches))
            terms["discriminator"] = discriminator_loss(real, student)
            loss = loss + terms["discriminator"]
            terms["logit/real"], terms["logit/student"] = real.mean(), student.mean()
            if settings.r1_gamma:
                terms["r1"] = approx_r1_penalty(real, perturbed[0], settings.r1_gamma)
                loss = loss + terms["r1"]
        if FAKE in settings.critic_parts:
            t, noise = self._times(batch, generator), self._noise(batch, generator)
            terms["fake"] = flow_matching_loss(
                lambda noisy, times: self._predict_velocity(FAKE, noisy, times, batch), x_0, t=t, noise=noise
            ).loss
            loss = loss + terms["fake"]
            self._policies.set_active(FAKE)  # the backward pass may recompute its blocks
        return LossOutput(loss, {name: value.detach() for name, value in terms.items()})

    def _simulate_student(
        self, batch: Batch, step: int, generator: Generator, has_gradient: bool
    ) -> StudentSample:
        """Run the student from noise to one of its steps, and return that step.

        The step is the same for the whole update, as ranks that share weights make their passes together.
        """
        settings = self.settings
        h, w = batch.latent_size
        levels = student_times(h * w, settings.student_steps).tolist()
        step_generator = generator_for(settings.seed, "distill/student_step", step)
        step_index = int(torch.randint(len(levels), (1,), generator=step_generator))
        x_t = self._noise(batch, generator)
        for level, next_level in pairwise(levels[: step_index + 1]):
            t, t_next = (torch.full((len(x_t),), one, device=self.device) for one in (level, next_level))
            with torch.no_grad():
                x_0 = self._predict_x0(STUDENT, x_t, t, batch)
            noise = self._noise(batch, generator) if settings.simulation == "renoise" else None
            x_t = next_student_input(x_0, x_t, t, t_next, noise)
        t = torch.full((len(x_t),), levels[step_index], device=self.device)
        with torch.set_grad_enabled(has_gradient):
            return StudentSample(
                self._predict_x0(STUDENT, x_t, t, batch), x_t, levels[step_index], step_index
            )

    @torch.no_grad()
    def _dm_gradient(self, x_0: Tensor, batch: Batch, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return the gradient, and the relative reduction of the teacher's error by the fake model.

        The gradient is only useful if the fake model predicts the student's images better than the teacher.
        """
        t, noise = self._times(batch, generator), self._noise(batch, generator)
        x_t = interpolate(x_0, noise, t)
        teacher, fake = (self._predict_x0(role, x_t, t, batch) for role in (BASE, FAKE))
        errors = [(one - x_0).square().flatten(1).mean(1) for one in (fake, teacher)]         # (B,) each
        gain = 1 - (errors[0] / errors[1].clamp_min(1e-12)).mean()
        return distribution_matching_gradient(x_0, teacher, fake), gain

    @torch.no_grad()
    def _ca_gradient(self, x_0: Tensor, batch: Batch, max_time: float, generator: Generator) -> Tensor:
        t, noise = self._times(batch, generator, max_time), self._noise(batch, generator)
        x_t = interpolate(x_0, noise, t)
        cond, uncond = (self._predict_x0(BASE, x_t, t, text) for text in (batch, batch.drop_text()))
        gradient = guidance_gradient(cond, uncond, self.settings.ca_scale)
        return gradient / distance(x_0, cond) if self.settings.ca_normalized else gradient

    @torch.no_grad()
    def _trajectory_target(self, sample: StudentSample, batch: Batch) -> Tensor:
        """Return the clean image whose step ends where the guided teacher ends from the same point."""
        settings = self.settings
        (h, w), x = batch.latent_size, pack_latents(sample.x_t)                                    # (B, I, C)
        cond, uncond = (PromptEmbeds(text.features, text.mask) for text in (batch, batch.drop_text()))
        with self._policies.use(BASE) as teacher, autocast(self.device, self.settings.precision):

            def velocity(x: Tensor, sigma: float) -> Tensor:
                return predict_velocity_cfg(teacher, x, sigma, cond, uncond, settings.ca_scale, (h, w))

            levels = teacher_times(h * w, settings.student_steps, sample.step, settings.teacher_substeps)
            teacher_x = unpack_latents(get_solver("ab2")(velocity, levels, x), h, w)
        self._num_forward_passes += 2 * settings.teacher_substeps * len(x)
        return trajectory_target(sample.x_t, teacher_x, sample.t, float(levels[-1]))

    def _adversarial_gradient(self, x_0: Tensor, batch: Batch, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return the adversarial loss of the student, and its gradient at the student's image."""
        t, noise = self._times(batch, generator), self._noise(batch, generator)
        leaf = x_0.clone().requires_grad_()
        features = self._teacher_features(interpolate(leaf, noise, t), t, batch)
        value = generator_loss(self.model[HEADS](features))
        self._policies.set_active(BASE)  # the backward pass may recompute its blocks
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    def _teacher_features(self, x_t: Tensor, t: Tensor, batch: Batch) -> list[Tensor]:
        with self._feature_hook.capture() as features:
            self._predict_velocity(BASE, x_t, t, batch)
        return features

    def _predict_x0(self, role: str, x_t: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """Return a role's prediction of the clean image."""
        return predict_x0(x_t, self._predict_velocity(role, x_t, t, batch), t)

    def _predict_velocity(self, role: str, x_t: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """Return a role's velocity. Shapes: x_t (B, C, h, w), t (B,) -> (B, C, h, w), float32."""
        self._num_forward_passes += len(x_t) * (TRAINING_FACTOR if torch.is_grad_enabled() else 1)
        with self._policies.use(role) as denoiser, autocast(self.device, self.settings.precision):
            return predict_velocity(denoiser, x_t, t, batch.features, batch.mask)              # (B, C, h, w)

    def _times(self, batch: Batch, generator: Generator, max_time: float = 1.0) -> Tensor:
        return renoising_times(torch.rand(len(batch.latents), generator=generator), max_time).to(self.device)

    def _noise(self, batch: Batch, generator: Generator) -> Tensor:
        return torch.randn(batch.latents.shape, generator=generator).to(self.device)

    def evaluate(self) -> dict[str, float]:
        """Return the student's results on the six tasks of the nano world, in its own number of steps."""
        if self._nano_eval is None:
            return {}
        with self._policies.use(STUDENT) as student:
            return self._nano_eval.evaluate(self._pipeline(student), **self._sampling_kwargs)

    def sample_grid(self):
        if self._nano_eval is not None:
            return self._nano_eval.sample_grid()
        if not self._previews:
            return None
        assert self.settings.data is not None
        with self._policies.use(STUDENT) as student:
            return render_previews(
                self._pipeline(student), self._previews, self.settings.data.bases[0], self.settings.seed,
                self.settings.precision, **self._sampling_kwargs,
            )  # fmt: skip

    @torch.no_grad()
    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the student as an adapter in both key styles, a nano pipeline, or a bfloat16 denoiser."""
        if self.settings.lora:
            lora_state = self._policies.state_dict_of("denoiser", state)
            export_lora(extract_lora(lora_state, self.settings.lora.alpha, STUDENT), folder)
            return
        student: Any = LensTransformer2DModel.from_config(self._config)
        student.load_state_dict(self._policies.state_dict_of(STUDENT, state))
        clear_name_or_path(student)
        student.to(torch.bfloat16)
        if self.settings.nano is None:
            student.save_pretrained(folder / "transformer")
            return
        layers = student.config.selected_layer_index
        encoders = Encoders(self._folder, layers, torch.device("cpu"), torch.bfloat16)
        self._pipeline(student, pipeline_components(encoders)).save_pretrained(folder)

    @property
    def _sampling_kwargs(self) -> dict[str, Any]:
        return {"num_inference_steps": self.settings.student_steps, "guidance_scale": 1.0}

    def _pipeline(self, student: Any, frozen: dict[str, Any] | None = None) -> LensPipeline:
        """Return a pipeline whose defaults are the steps and guidance of the student."""
        others = self._frozen_components if frozen is None else frozen
        pipeline = LensPipeline.from_pretrained(self._folder, transformer=student, **others)
        pipeline.register_to_config(
            lens_variant=self.settings.variant, default_steps=self.settings.student_steps,
            default_guidance=1.0,
        )  # fmt: skip
        return pipeline

    def _nano_batches(self, encoders: Encoders) -> BatchSource:
        settings = self.settings.nano
        assert settings is not None
        tasks_world = WorldConfig.of(settings.world, settings.dense_share)
        world = tasks_world if settings.captions is None else CaptionMix.of(settings.captions)
        source = NanoExampleSource(
            encoders.vae, encoders.text_encoder, encoders.tokenizer, world, layers=tuple(encoders.layers)
        )
        if settings.probe_prompts:
            probe_sizes = bucket_sizes("nano.probe_ratios", settings.probe_ratios, settings.base)
            self._nano_eval = NanoEval(
                settings.probe_prompts, probe_sizes, self.device, self.settings.precision, world=tasks_world,
                num_processes=settings.probe_processes,
            )  # fmt: skip
        return NanoBatchSource(
            source, settings.cache, bucket_sizes("nano.ratios", settings.ratios, settings.base),
            encoders.layers, settings.examples, settings.batch_size, self.settings.seed,
        )  # fmt: skip

    def _cached_batches(self, encoders: Encoders) -> BatchSource:
        settings = self.settings
        assert settings.data is not None and settings.store is not None
        cache = LatentCache(settings.store, settings.feature_bits)
        keys = encode_into_cache(cache, encoders, image_text_samples(settings.data))
        self._previews = [encoders.encode_caption(prompt) for prompt in settings.previews]         # (L, T, E)
        return CachedBatchSource(cache, keys, settings.pack_tokens, settings.micro_batches, settings.seed)


def pipeline_components(encoders: Encoders, with_text: bool = True) -> dict[str, Any]:
    """Return the frozen components of a pipeline; without text, the largest of them can be freed."""
    text = (encoders.text_encoder, encoders.tokenizer) if with_text else (None, None)
    return {"vae": encoders.vae, "text_encoder": text[0], "tokenizer": text[1]}
