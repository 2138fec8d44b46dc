"""From recipes of post-training to what a plan reckons with, without torch. Spec: sections 9 and 10."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from lens.models.checkpoints.registry import LENS_DENOISER
from lens.models.shapes import denoiser_shapes, num_parameters, text_encoder_shapes, vae_shapes
from lens.rl.prompts.dataset import read_prompts
from lens.rl.rewards.settings import AnyReward, CombinedSettings, JudgeSettings
from lens.train.cost.from_recipe import PAPERS_TEXT_TOKENS, adapter_weights, component_config
from lens.train.cost.post_training import THERE_AND_BACK, Judging, Passes, PostTraining
from lens.train.cost.training import image_tokens
from lens.train.settings.distill import DistillSettings
from lens.train.settings.rl import RlSettings
from lens.train.settings.stages import LoraSettings

PROMPT_TEXT_TOKENS = 64
"""Of a prompt of 30 to 60 words, as the paper's are; assumed."""
MOST_CRITERIA = 11
"""Of a picture: up to ten of its prompt, and the global one."""


def post_training_of(settings: RlSettings | DistillSettings, text_tokens: int | None) -> PostTraining:
    """Return what of a recipe costs."""
    if isinstance(settings, RlSettings):
        return _of_rl(settings, text_tokens)
    return _of_distillation(settings, text_tokens)


def _of_rl(settings: RlSettings, text_tokens: int | None) -> PostTraining:
    groups, count = settings.prompts_per_step, settings.pictures_per_prompt
    rollouts = settings.steps * groups * count
    learned = rollouts * settings.times_per_picture
    passes = {
        "drawing, by old": Passes(rollouts * settings.rollout_steps),
        "learning, through theta": Passes(learned, THERE_AND_BACK),
        "learning, through old": Passes(learned),
    }
    if settings.kl_weight:
        passes["learning, through the base"] = Passes(learned)
    config, num_weights, role_weights = _weights(settings.model, settings.lora)
    return PostTraining(
        stage="rl",
        config=config,
        steps=settings.steps,
        about=f"{groups} prompts x {count} pictures",
        pictures=rollouts,
        passes=passes,
        judging=_judging(settings, rollouts),
        shared=("prompts_per_step", groups),
        pictures_at_once=dict.fromkeys(settings.bases, count),
        text_tokens=PROMPT_TEXT_TOKENS if text_tokens is None else text_tokens,
        num_weights=num_weights,
        role_weights=role_weights,
        trained=("theta",),
        following=("old",),
        base_bytes=4,
        checkpointing=settings.gradient_checkpointing,
        num_graphs=1,
        encoders=_encoders(settings.model, with_text=True),
        left_out="texts encoded, pictures decoded, waiting for the judge, probes",
    )


def _judging(settings: RlSettings, rollouts: int) -> Judging | None:
    num_judges = _num_judges(settings.reward)
    if not num_judges:
        return None
    is_there = settings.prompts is not None and settings.prompts.is_file()
    prompts = read_prompts(settings.prompts) if is_there and settings.prompts else []
    criteria = fmean(len(prompt.rubric) for prompt in prompts) if prompts else MOST_CRITERIA
    return Judging(rollouts * criteria * num_judges, criteria * num_judges, not prompts)


def _num_judges(reward: AnyReward) -> int:
    """Return how many parts of a reward ask an endpoint."""
    if isinstance(reward, CombinedSettings):
        return sum(_num_judges(part.reward) for part in reward.parts.values())
    return int(isinstance(reward, JudgeSettings))


def _of_distillation(settings: DistillSettings, text_tokens: int | None) -> PostTraining:
    if settings.nano:
        at_once = {settings.nano.base: settings.nano.batch_size}
    else:
        assert settings.data is not None
        at_once = {
            base: max(1, settings.pack_tokens // image_tokens(base)) for base in settings.data.bases
        }
    pictures = settings.micro_batches * fmean(at_once.values())
    cycle = settings.critic_updates + 1 if settings.critics else 1
    num_students = settings.steps // cycle
    of_critics = (settings.steps - num_students) * pictures
    config, num_weights, role_weights = _weights(settings.model, settings.lora)
    turns = f"{cycle - 1} updates of the critics, then one of the student" if cycle > 1 else "the student's"
    return PostTraining(
        stage="distill",
        config=config,
        steps=settings.steps,
        about=f"{settings.micro_batches} micro-batches, {turns}",
        pictures=settings.steps * pictures,
        passes=_distillation_passes(settings, num_students * pictures, of_critics),
        judging=None,
        shared=("micro_batches", settings.micro_batches),
        pictures_at_once=at_once,
        text_tokens=PAPERS_TEXT_TOKENS if text_tokens is None else text_tokens,
        num_weights=num_weights,
        role_weights=role_weights,
        trained=("student", *(role for role in settings.critics if role == "fake")),
        following=(),
        base_bytes=2 if settings.frozen_dtype == "bf16" else 4,
        checkpointing=settings.gradient_checkpointing,
        # To pass for real, the way back goes through the teacher while the student's waits.
        num_graphs=1 + bool(settings.adversarial_weight),
        encoders=_encoders(settings.model, with_text=settings.nano is not None),
        left_out="the discriminator's heads, pictures and texts encoded once, probes",
    )


def _distillation_passes(
    settings: DistillSettings, of_student: float, of_critics: float
) -> dict[str, Passes]:
    """Return the passes of so many pictures of the student's updates and of the critics'."""
    simulated = (settings.student_steps - 1) / 2  # on the way to a step that is drawn evenly
    passes = {
        "student: its earlier steps": Passes(of_student * simulated),
        "student: the step that learns": Passes(of_student, THERE_AND_BACK),
    }
    if settings.dm_weight:
        passes["student: DM, by teacher and fake"] = Passes(2 * of_student)
    if settings.ca_weight:
        passes["student: CA, by the teacher"] = Passes(of_student)
        passes["student: CA, without text"] = Passes(of_student, has_text=False)
    if settings.adversarial_weight:
        passes["student: passing for real"] = Passes(of_student, THERE_AND_BACK)
    if settings.critics:
        passes["critics: what the student draws"] = Passes(of_critics * (simulated + 1))
    if "heads" in settings.critics:
        looks = 3 if settings.r1_gamma else 2
        passes["critics: seen by the teacher"] = Passes(looks * of_critics)
    if "fake" in settings.critics:
        passes["critics: the fake model"] = Passes(of_critics, THERE_AND_BACK)
    return passes


def _weights(model: str, lora: LoraSettings | None) -> tuple[Mapping[str, Any], int, int]:
    """Return a denoiser's configuration, its weights, and those of one role of it."""
    config = LENS_DENOISER | component_config(model, "transformer")
    shapes = denoiser_shapes(config)
    total = num_parameters(shapes)
    return config, total, adapter_weights(shapes, lora) if lora else total


def _encoders(model: str, with_text: bool) -> dict[str, float]:
    """Return the bytes of the encoders in bfloat16; only a text encoder that is a GPT-OSS is counted."""
    found = {"autoencoder": 2.0 * num_parameters(vae_shapes(component_config(model, "vae")))}
    text = component_config(model, "text_encoder") if with_text else {}
    if "num_local_experts" in text:
        # MXFP4 takes a third of it, on Hopper and newer; elsewhere its experts are dequantised.
        found["text encoder"] = 2.0 * num_parameters(text_encoder_shapes(text))
    return found
