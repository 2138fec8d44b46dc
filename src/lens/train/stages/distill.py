"""Distil a denoiser to few steps without guidance: a student, a fake model and a discriminator by turns.

Four updates of the critics, one of the student, as a cycle. The terms are in losses/distillation.py.
Spec: section 10. Letters: B batch, C channels of a latent cell, h and w latent cells, I image tokens.
"""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from lens.core.flow import interpolate, to_clean
from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import generator_for
from lens.data.image_text_dataset import captioned
from lens.losses.base import Objective, Work
from lens.losses.distillation import (
    aim_of,
    cosine,
    discriminator_loss,
    distance,
    distribution_matching_gradient,
    generator_loss,
    guidance_gradient,
    levels_between,
    next_input,
    nudged,
    renoising_times,
    smoothness_loss,
    student_times,
    surrogate_loss,
    trajectory_loss,
    with_gradient,
)
from lens.losses.flow_matching import flow_matching_loss
from lens.models.checkpoints.registry import resolve_model
from lens.models.checkpoints.writer import forget_origin
from lens.models.denoiser import LensTransformer2DModel
from lens.nano.tasks import World
from lens.sampling.guided_denoiser import guided_prediction
from lens.sampling.pipeline import LensPipeline
from lens.sampling.prompt_embeds import TextBatch
from lens.sampling.solvers import solve_adams_bashforth
from lens.train.activation_checkpointing import keep_for_the_way_back
from lens.train.cost.flops import forward_flops
from lens.train.data.batch import Batch, Batches, NanoBatches, StoredBatches
from lens.train.data.encode import Encoders, fill
from lens.train.data.latent_cache import Store
from lens.train.data.nano_cache import Source
from lens.train.devices import autocast, chosen_device
from lens.train.lora import adapter_in, export_adapter
from lens.train.post_training.discriminator import Features, Heads, middle_blocks
from lens.train.post_training.policies import BASE, Roles
from lens.train.sample_grid import previewed
from lens.train.settings.distill import DistillSettings
from lens.train.settings.stages import sizes_of
from lens.train.stages.nano_eval import NanoProbe

STUDENT, FAKE, HEADS = "student", "fake", "heads"


class Sketch(NamedTuple):
    """What the student makes of a batch at one of its steps."""

    picture: Tensor
    """(B, C, h, w), its prediction of the clean picture."""
    x_t: Tensor
    """(B, C, h, w), its input."""
    t: float
    """Noise level of its input."""
    step: int
    """Which of its steps, counted from 0."""


class DistillStage:
    averaged = (STUDENT,)

    def __init__(self, settings: DistillSettings):
        self.settings = settings
        self.device = chosen_device(settings.device)
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
        trained = [STUDENT, *(role for role in settings.critics if role == FAKE)]
        self._roles = Roles(
            denoiser, trained, (), settings.lora, settings.seed, settings.gradient_checkpointing
        )
        parts = dict(self._roles.module.items())
        if settings.student_from is not None:
            other: Any = LensTransformer2DModel.from_pretrained(settings.student_from)
            parts[STUDENT].load_state_dict(other.float().state_dict())
        if BASE in parts:
            # It has no gradients, but the student's have to come through it to pass for real.
            keep_for_the_way_back(parts[BASE], settings.gradient_checkpointing)
            parts[BASE].to(torch.bfloat16 if settings.frozen_dtype == "bf16" else torch.float32)
        # There also where its term is off: a recipe that sets their rate can switch it on and off.
        blocks = settings.discriminator_blocks or middle_blocks(self._config["num_layers"])
        with self._roles.acting(BASE) as teacher:
            self._features = Features(teacher, blocks)
        parts[HEADS] = Heads(self._config["inner_dim"], len(blocks))
        parts[HEADS].init_weights(generator_for(settings.seed, "distill/heads"))
        self.trained: Any = nn.ModuleDict(parts).to(self.device)
        self.kept: dict[str, Tensor] = {}
        self._passes = 0
        """Pictures that went through a denoiser for the present loss, a way back counted as two."""
        self._probe: NanoProbe | None = None
        self._previews: list[Tensor] = []
        self._batches = self._of_nano(encoders) if settings.nano else self._of_store(encoders)
        self._frozen = components_of(encoders, with_text=settings.nano is not None)

    def parts_of(self, step: int) -> tuple[str, ...]:
        return (STUDENT,) if self._is_students(step) else self.settings.critics

    def after_update(self, step: int) -> str:
        """Move the fake model toward the student that it has to know."""
        if self._is_students(step) and self.settings.ida_share and FAKE in self.settings.critics:
            self._roles.follow(FAKE, STUDENT, 1 - self.settings.ida_share)
        return ""

    def objective(self, step: int, index: int) -> Objective:
        started_at = time.perf_counter()
        batch = self._batches.of(step, index)
        data_s = time.perf_counter() - started_at
        batch = batch.to(self.device)
        self._passes = 0
        if self._is_students(step):
            found = self._students(batch, step, index)
        else:
            found = self._critics(batch, step, index)
        lengths = batch.lengths
        flops = self._passes * sum(forward_flops(self._config, *pair) for pair in lengths) / len(lengths)
        work = Work(len(lengths), sum(map(sum, lengths)), flops, data_s)
        return Objective(found.loss * batch.share, found.terms, work)

    def _is_students(self, step: int) -> bool:
        cycle = self.settings.critic_updates + 1 if self.settings.critics else 1
        return step % cycle == cycle - 1

    def _students(self, batch: Batch, step: int, index: int) -> Objective:
        """Return the loss of the student, of whose terms each says where its picture should go."""
        settings = self.settings
        draw = generator_for(settings.seed, "distill/student", step, index)
        sketch = self._sketched(batch, step, draw, has_gradient=True)
        x_0, picture = sketch.picture, sketch.picture.detach()
        loss, terms, gradients = torch.zeros((), device=self.device), {}, {}
        if settings.dm_weight:
            gradients["dm"], gain = self._matching(picture, batch, draw)
            terms["dm"], terms["fake/gain"] = surrogate_loss(x_0, gradients["dm"]), gain
            loss = loss + settings.dm_weight * terms["dm"]
        if settings.ca_weight:
            gradients["ca"] = self._guiding(picture, batch, sketch.t, draw)
            terms["ca"] = surrogate_loss(x_0, gradients["ca"])
            loss = loss + settings.ca_weight * terms["ca"]
        if settings.adversarial_weight:
            value, gradient = self._passing_for_real(picture, batch, draw)
            gradients["adversarial"] = gradient * x_0.numel()  # of a mean over all numbers, as the others are
            terms["adversarial"] = with_gradient(x_0, value, gradient)
            loss = loss + settings.adversarial_weight * terms["adversarial"]
        if settings.trajectory_weight:
            aim = self._aim(sketch, batch)
            terms["trajectory"] = trajectory_loss(x_0, aim, sketch.t)
            gradients["trajectory"] = 2 * (picture - aim) / sketch.t**2
            loss = loss + settings.trajectory_weight * terms["trajectory"]
        terms = {name: value.detach() for name, value in terms.items()}
        for name, gradient in gradients.items():
            weight = getattr(settings, f"{name}_weight")
            terms[f"gradient/{name}"] = weight * gradient.square().mean().sqrt()
        if "dm" in gradients and "ca" in gradients:
            terms["cosine/dm_ca"] = cosine(gradients["dm"], gradients["ca"])
        self._roles.take(STUDENT)  # the way back may compute its blocks again
        return Objective(loss, terms)

    def _critics(self, batch: Batch, step: int, index: int) -> Objective:
        """Return the loss of the fake model and of the discriminator on what the student draws now."""
        settings = self.settings
        draw = generator_for(settings.seed, "distill/critics", step, index)
        picture = self._sketched(batch, step, draw, has_gradient=False).picture
        loss, terms = torch.zeros((), device=self.device), {}
        if HEADS in settings.critics:
            t, noise = self._times(batch, draw), self._noise(batch, draw)
            seen = [interpolate(one, noise, t) for one in (batch.latents, picture)]
            if settings.r1_gamma:
                seen.append(nudged(seen[0], self._noise(batch, draw)))
            with torch.no_grad():
                features = self._seen_by_teacher(torch.cat(seen), t.repeat(len(seen)), batch.times(len(seen)))
            real, student, *moved = self.trained[HEADS](features).chunk(len(seen))
            terms["discriminator"] = discriminator_loss(real, student)
            loss = loss + terms["discriminator"]
            terms["logit/real"], terms["logit/student"] = real.mean(), student.mean()
            if settings.r1_gamma:
                terms["r1"] = smoothness_loss(real, moved[0], settings.r1_gamma)
                loss = loss + terms["r1"]
        if FAKE in settings.critics:
            t, noise = self._times(batch, draw), self._noise(batch, draw)
            terms["fake"] = flow_matching_loss(
                lambda noisy, times: self._velocity(FAKE, noisy, times, batch), picture, t=t, noise=noise
            ).loss
            loss = loss + terms["fake"]
            self._roles.take(FAKE)  # the way back may compute its blocks again
        return Objective(loss, {name: value.detach() for name, value in terms.items()})

    def _sketched(self, batch: Batch, step: int, draw: Generator, has_gradient: bool) -> Sketch:
        """Run the student from noise down to one of its steps, and take that one.

        One step for the whole update: ranks that share weights make their passes together.
        """
        settings = self.settings
        h, w = batch.cells
        levels = student_times(h * w, settings.student_steps).tolist()
        which = generator_for(settings.seed, "distill/student_step", step)
        last = int(torch.randint(len(levels), (1,), generator=which))
        x_t = self._noise(batch, draw)
        for level, after in pairwise(levels[: last + 1]):
            t, t_next = (torch.full((len(x_t),), one, device=self.device) for one in (level, after))
            with torch.no_grad():
                picture = self._clean(STUDENT, x_t, t, batch)
            noise = self._noise(batch, draw) if settings.simulation == "renoise" else None
            x_t = next_input(picture, x_t, t, t_next, noise)
        t = torch.full((len(x_t),), levels[last], device=self.device)
        with torch.set_grad_enabled(has_gradient):
            return Sketch(self._clean(STUDENT, x_t, t, batch), x_t, levels[last], last)

    @torch.no_grad()
    def _matching(self, picture: Tensor, batch: Batch, draw: Generator) -> tuple[Tensor, Tensor]:
        """Return the gradient, and what of the teacher's error the fake model does without.

        It knows the student's pictures better than the teacher does, or the gradient is made of its mistakes.
        """
        t, noise = self._times(batch, draw), self._noise(batch, draw)
        x_t = interpolate(picture, noise, t)
        teacher, fake = (self._clean(role, x_t, t, batch) for role in (BASE, FAKE))
        errors = [(one - picture).square().flatten(1).mean(1) for one in (fake, teacher)]         # (B,) each
        gain = 1 - (errors[0] / errors[1].clamp_min(1e-12)).mean()
        return distribution_matching_gradient(picture, teacher, fake), gain

    @torch.no_grad()
    def _guiding(self, picture: Tensor, batch: Batch, ceiling: float, draw: Generator) -> Tensor:
        t, noise = self._times(batch, draw, ceiling), self._noise(batch, draw)
        x_t = interpolate(picture, noise, t)
        cond, uncond = (self._clean(BASE, x_t, t, text) for text in (batch, batch.without_text()))
        gradient = guidance_gradient(cond, uncond, self.settings.ca_scale)
        return gradient / distance(picture, cond) if self.settings.ca_normalized else gradient

    @torch.no_grad()
    def _aim(self, sketch: Sketch, batch: Batch) -> Tensor:
        """Return the picture that leads the student to where the teacher, with guidance, gets from there."""
        settings = self.settings
        (h, w), x = batch.cells, pack_latents(sketch.x_t)                                         # (B, I, C)
        cond, uncond = (TextBatch(text.features, text.mask) for text in (batch, batch.without_text()))
        with self._roles.acting(BASE) as teacher, autocast(self.device, self.settings.precision):

            def velocity(x: Tensor, sigma: float) -> Tensor:
                return guided_prediction(teacher, x, sigma, cond, uncond, settings.ca_scale, (h, w))

            levels = levels_between(h * w, settings.student_steps, sketch.step, settings.teacher_substeps)
            arrived = unpack_latents(solve_adams_bashforth(velocity, levels, x), h, w)
        self._passes += 2 * settings.teacher_substeps * len(x)
        return aim_of(sketch.x_t, arrived, sketch.t, float(levels[-1]))

    def _passing_for_real(self, picture: Tensor, batch: Batch, draw: Generator) -> tuple[Tensor, Tensor]:
        """Return the adversarial loss of the student, and its gradient at the student's picture."""
        t, noise = self._times(batch, draw), self._noise(batch, draw)
        leaf = picture.clone().requires_grad_()
        features = self._seen_by_teacher(interpolate(leaf, noise, t), t, batch)
        value = generator_loss(self.trained[HEADS](features))
        self._roles.take(BASE)  # the way back may compute its blocks again
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    def _seen_by_teacher(self, x_t: Tensor, t: Tensor, batch: Batch) -> list[Tensor]:
        with self._features.kept() as seen:
            self._velocity(BASE, x_t, t, batch)
        return seen

    def _clean(self, role: str, x_t: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """Return a role's prediction of the clean picture."""
        return to_clean(x_t, self._velocity(role, x_t, t, batch), t)

    def _velocity(self, role: str, x_t: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """Return a role's velocity. Shapes: x_t (B, C, h, w), t (B,) -> (B, C, h, w), float32."""
        h, w = batch.cells
        self._passes += len(x_t) * (3 if torch.is_grad_enabled() else 1)
        with self._roles.acting(role) as denoiser, autocast(self.device, self.settings.precision):
            tokens = denoiser(
                hidden_states=pack_latents(x_t),                                                  # (B, I, C)
                encoder_hidden_states=batch.features,
                encoder_hidden_states_mask=batch.mask,
                timestep=t,
                img_shapes=[(1, h, w)],
                return_dict=False,
            )[0]
        return unpack_latents(tokens.float(), h, w)                                            # (B, C, h, w)

    def _times(self, batch: Batch, draw: Generator, ceiling: float = 1.0) -> Tensor:
        return renoising_times(torch.rand(len(batch.latents), generator=draw), ceiling).to(self.device)

    def _noise(self, batch: Batch, draw: Generator) -> Tensor:
        return torch.randn(batch.latents.shape, generator=draw).to(self.device)

    def probe(self) -> dict[str, float]:
        """Return what the student passes of the six tasks of the nano world, in its own steps."""
        if self._probe is None:
            return {}
        with self._roles.acting(STUDENT) as student:
            return self._probe.numbers(self._pipeline(student), **self._drawing)

    def sample_grid(self):
        if self._probe is not None:
            return self._probe.grid()
        if not self._previews:
            return None
        assert self.settings.data is not None
        with self._roles.acting(STUDENT) as student:
            return previewed(
                self._pipeline(student), self._previews, self.settings.data.bases[0], self.settings.seed,
                self.settings.precision, **self._drawing,
            )  # fmt: skip

    @torch.no_grad()
    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the student: an adapter in both key styles, a nano pipeline, or a denoiser in bfloat16."""
        if self.settings.lora:
            own = self._roles.state_of("denoiser", state)
            export_adapter(adapter_in(own, self.settings.lora.alpha, STUDENT), folder)
            return
        student: Any = LensTransformer2DModel.from_config(self._config)
        student.load_state_dict(self._roles.state_of(STUDENT, state))
        forget_origin(student)
        student.to(torch.bfloat16)
        if self.settings.nano is None:
            student.save_pretrained(folder / "transformer")
            return
        layers = student.config.selected_layer_index
        fresh = Encoders(self._folder, layers, torch.device("cpu"), torch.bfloat16)
        self._pipeline(student, components_of(fresh)).save_pretrained(folder)

    @property
    def _drawing(self) -> dict[str, Any]:
        return {"num_inference_steps": self.settings.student_steps, "guidance_scale": 1.0}

    def _pipeline(self, student: Any, frozen: dict[str, Any] | None = None) -> LensPipeline:
        """Return a pipeline that draws as the student does where a request leaves it open."""
        others = self._frozen if frozen is None else frozen
        pipeline = LensPipeline.from_pretrained(self._folder, transformer=student, **others)
        pipeline.register_to_config(
            lens_variant=self.settings.variant, default_steps=self.settings.student_steps,
            default_guidance=1.0,
        )  # fmt: skip
        return pipeline

    def _of_nano(self, encoders: Encoders) -> Batches:
        settings = self.settings.nano
        assert settings is not None
        world = World.of(0, settings.dense_share)
        source = Source(encoders.vae, encoders.text_encoder, encoders.tokenizer, world)
        if settings.probe_prompts:
            asked = sizes_of("nano.probe_ratios", settings.probe_ratios, settings.base)
            self._probe = NanoProbe(
                settings.probe_prompts, asked, self.device, self.settings.precision, world=world,
                processes=settings.probe_processes,
            )  # fmt: skip
        return NanoBatches(
            source, settings.cache, sizes_of("nano.ratios", settings.ratios, settings.base),
            encoders.layers, settings.examples, settings.batch_size, self.settings.seed,
        )  # fmt: skip

    def _of_store(self, encoders: Encoders) -> Batches:
        settings = self.settings
        assert settings.data is not None and settings.store is not None
        store = Store(settings.store, settings.feature_bits)
        keys = fill(store, encoders, captioned(settings.data))
        self._previews = [encoders.features(prompt) for prompt in settings.previews]             # (L, T, E)
        return StoredBatches(store, keys, settings.pack_tokens, settings.micro_batches, settings.seed)


def components_of(encoders: Encoders, with_text: bool = True) -> dict[str, Any]:
    """Return the frozen parts of a pipeline; without text, the largest of them can be let go."""
    text = (encoders.text_encoder, encoders.tokenizer) if with_text else (None, None)
    return {"vae": encoders.vae, "text_encoder": text[0], "tokenizer": text[1]}
