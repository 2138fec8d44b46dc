"""Cost-estimate inputs from RL and distillation recipes, without torch. Spec: sections 9 and 10."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from lens.models.checkpoints.registry import LENS_DENOISER
from lens.models.shapes import denoiser_shapes, num_parameters, text_encoder_shapes, vae_shapes
from lens.rl.prompts.dataset import read_prompts
from lens.rl.rewards.settings import AnyRewardSettings, VlmJudgeSettings, WeightedRewardSettings
from lens.train.cost.flops import TRAINING_FACTOR
from lens.train.cost.from_recipe import PAPER_TEXT_TOKENS, component_config, num_lora_parameters
from lens.train.cost.post_training import ForwardPasses, JudgeCalls, PostTrainingSpec
from lens.train.cost.training import num_image_tokens
from lens.train.settings.distill import DistillSettings
from lens.train.settings.rl import RlSettings
from lens.train.settings.run import LoraSettings

DEFAULT_PROMPT_TOKENS = 64
"""Assumed text tokens of a prompt of 30 to 60 words, as in the paper."""
MAX_CRITERIA_PER_IMAGE = 11
"""Criteria of an image: up to ten of its prompt, and the global one."""


def post_training_spec(
    settings: RlSettings | DistillSettings, num_text_tokens: int | None
) -> PostTrainingSpec:
    """Return the cost-relevant part of a recipe."""
    if isinstance(settings, RlSettings):
        return _rl_spec(settings, num_text_tokens)
    return _distillation_spec(settings, num_text_tokens)


def _rl_spec(settings: RlSettings, num_text_tokens: int | None) -> PostTrainingSpec:
    groups, count = settings.prompts_per_step, settings.images_per_prompt
    rollouts = settings.steps * groups * count
    learned = rollouts * settings.times_per_image
    passes = {
        "rollouts, by old": ForwardPasses(rollouts * settings.rollout_evaluations),
        "training, through theta": ForwardPasses(learned, TRAINING_FACTOR),
        "training, through old": ForwardPasses(learned),
    }
    if settings.kl_weight:
        passes["training, through the base"] = ForwardPasses(learned)
    config, num_weights, role_weights = _parameter_counts(settings.model, settings.lora)
    return PostTrainingSpec(
        stage="rl",
        config=config,
        steps=settings.steps,
        update_description=f"{groups} prompts x {count} images",
        num_images=rollouts,
        passes=passes,
        judge_calls=_judge_calls(settings, rollouts),
        sharded_setting=("prompts_per_step", groups),
        images_per_micro_batch=dict.fromkeys(settings.bases, count),
        num_text_tokens=DEFAULT_PROMPT_TOKENS if num_text_tokens is None else num_text_tokens,
        num_parameters=num_weights,
        num_role_parameters=role_weights,
        trained_roles=("theta",),
        ema_roles=("old",),
        base_weight_bytes=4,
        checkpointing=settings.gradient_checkpointing,
        num_graphs=1,
        encoder_bytes=_encoder_bytes(settings.model, with_text=True),
        excluded_costs="text encoding, image decoding, waiting for the judge, evaluations",
    )


def _judge_calls(settings: RlSettings, rollouts: int) -> JudgeCalls | None:
    num_judges = _num_judges(settings.reward)
    if not num_judges:
        return None
    is_there = settings.prompts is not None and settings.prompts.is_file()
    prompts = read_prompts(settings.prompts) if is_there and settings.prompts else []
    criteria = fmean(len(prompt.rubric) for prompt in prompts) if prompts else MAX_CRITERIA_PER_IMAGE
    return JudgeCalls(rollouts * criteria * num_judges, criteria * num_judges, not prompts)


def _num_judges(reward: AnyRewardSettings) -> int:
    """Return the number of parts of a reward that call an endpoint."""
    if isinstance(reward, WeightedRewardSettings):
        return sum(_num_judges(part.reward) for part in reward.parts.values())
    return int(isinstance(reward, VlmJudgeSettings))


def _distillation_spec(settings: DistillSettings, num_text_tokens: int | None) -> PostTrainingSpec:
    if settings.nano:
        images_per_micro_batch = {settings.nano.base: settings.nano.batch_size}
    else:
        assert settings.data is not None
        images_per_micro_batch = {
            base: max(1, settings.pack_tokens // num_image_tokens(base)) for base in settings.data.bases
        }
    images_per_step = settings.micro_batches * fmean(images_per_micro_batch.values())
    cycle = settings.critic_updates + 1 if settings.critic_parts else 1
    num_student_updates = settings.steps // cycle
    num_critic_images = (settings.steps - num_student_updates) * images_per_step
    config, num_weights, role_weights = _parameter_counts(settings.model, settings.lora)
    updates_per_cycle = (
        f"{cycle - 1} critic updates, then one student update" if cycle > 1 else "all of the student"
    )
    return PostTrainingSpec(
        stage="distill",
        config=config,
        steps=settings.steps,
        update_description=f"{settings.micro_batches} micro-batches, {updates_per_cycle}",
        num_images=settings.steps * images_per_step,
        passes=_distillation_passes(settings, num_student_updates * images_per_step, num_critic_images),
        judge_calls=None,
        sharded_setting=("micro_batches", settings.micro_batches),
        images_per_micro_batch=images_per_micro_batch,
        num_text_tokens=PAPER_TEXT_TOKENS if num_text_tokens is None else num_text_tokens,
        num_parameters=num_weights,
        num_role_parameters=role_weights,
        trained_roles=("student", *(role for role in settings.critic_parts if role == "fake")),
        ema_roles=(),
        base_weight_bytes=2 if settings.frozen_dtype == "bf16" else 4,
        checkpointing=settings.gradient_checkpointing,
        # The adversarial loss differentiates the teacher while the graph of the student is in memory.
        num_graphs=1 + bool(settings.adversarial_weight),
        encoder_bytes=_encoder_bytes(settings.model, with_text=settings.nano is not None),
        excluded_costs="discriminator heads, one-time encoding of images and texts, evaluations",
    )


def _distillation_passes(
    settings: DistillSettings, num_student_images: float, num_critic_images: float
) -> dict[str, ForwardPasses]:
    """Return the passes of so many images in student updates and in critic updates."""
    simulated = (settings.student_steps - 1) / 2  # mean number of steps before the trained one
    passes = {
        "student: earlier steps": ForwardPasses(num_student_images * simulated),
        "student: trained step": ForwardPasses(num_student_images, TRAINING_FACTOR),
    }
    if settings.dm_weight:
        passes["student: DM, by teacher and fake"] = ForwardPasses(2 * num_student_images)
    if settings.ca_weight:
        passes["student: CA, by the teacher"] = ForwardPasses(num_student_images)
        passes["student: CA, without text"] = ForwardPasses(num_student_images, has_text=False)
    if settings.adversarial_weight:
        passes["student: adversarial loss"] = ForwardPasses(num_student_images, TRAINING_FACTOR)
    if settings.critic_parts:
        passes["critics: student samples"] = ForwardPasses(num_critic_images * (simulated + 1))
    if "heads" in settings.critic_parts:
        passes_per_image = 3 if settings.r1_gamma else 2
        passes["critics: teacher features"] = ForwardPasses(passes_per_image * num_critic_images)
    if "fake" in settings.critic_parts:
        passes["critics: fake model"] = ForwardPasses(num_critic_images, TRAINING_FACTOR)
    return passes


def _parameter_counts(model: str, lora: LoraSettings | None) -> tuple[Mapping[str, Any], int, int]:
    """Return a denoiser's configuration, its number of parameters, and that of one role."""
    config = LENS_DENOISER | component_config(model, "transformer")
    shapes = denoiser_shapes(config)
    total = num_parameters(shapes)
    return config, total, num_lora_parameters(shapes, lora) if lora else total


def _encoder_bytes(model: str, with_text: bool) -> dict[str, float]:
    """Return the bytes of the encoders in bfloat16; of text encoders only GPT-OSS is counted."""
    sizes = {"autoencoder": 2.0 * num_parameters(vae_shapes(component_config(model, "vae")))}
    text = component_config(model, "text_encoder") if with_text else {}
    if "num_local_experts" in text:
        # With MXFP4, on Hopper and newer GPUs, it takes a third; elsewhere its experts are dequantized.
        sizes["text encoder"] = 2.0 * num_parameters(text_encoder_shapes(text))
    return sizes
