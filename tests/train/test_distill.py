"""Distillation by tiny models: who is trained when, what each term does, resume, exports."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from forked import on_ranks
from PIL import Image
from ranked import train_small
from tiny_models import randomise

from lens.core.noise import generator_for
from lens.errors import SettingError
from lens.losses.distillation import student_times, teacher_times
from lens.train.optimizer import build_optimizers
from lens.train.post_training.discriminator import AttentionPool

CYCLE = 3
"""Updates of a cycle here: two of the critics, one of the student."""
STEPS = 7
LORA = {"rank": 3, "alpha": 6}
WHOLE_AND_LORA = pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])


@pytest.fixture(scope="session")
def teacher(finished, tmp_path_factory):
    """A pipeline folder whose denoiser answers: as trained, its gates would let hardly anything through."""
    from lens.models.denoiser import LensTransformer2DModel

    folder = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(finished("pretrain").out / "export", folder)
    denoiser = LensTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    randomise(denoiser, seed=0, scale=0.7)
    denoiser.save_pretrained(folder / "transformer")
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def values(teacher, cache, tmp_path):
    """Return the values of a tiny recipe; changes are settings by name."""

    def of(out="run", **changes):
        nano = {"cache": str(cache), "base": 48, "ratios": ["1:1", "2:1"], "examples": 32, "batch_size": 3,
                "probe_prompts": int("probe_every" in changes)}  # fmt: skip
        return {
            "stage": "distill", "model": str(teacher), "out": str(tmp_path / out), "steps": STEPS,
            "nano": nano, "critic_updates": CYCLE - 1, "precision": "float32", "frozen_dtype": "float32",
            "device": "cpu", "log_every": 1, "probe_every": 1000, "ema_decay": 0.9, "micro_batches": 2,
            "optimizer": {"lr": 1e-3, "rates": {"heads": 1e-2}, "warmup_steps": 0, "betas": [0.0, 0.9]},
        } | changes  # fmt: skip

    return of


@pytest.fixture
def assembled(values):
    """Return settings and stage of a tiny run."""

    def assemble(out="run", **changes):
        from lens.train.run import STAGES, parse_settings

        settings = parse_settings("distill", values(out, **changes), "the test")
        return settings, STAGES["distill"].stage_class(settings)

    return assemble


def test_what_pretraining_encoded_is_not_encoded_again(finished, assembled):
    pretrained = finished("pretrain").run.settings
    before = sorted(path.name for path in Path(pretrained.cache).iterdir())
    nano = {"cache": pretrained.cache, "base": 48, "ratios": ["1:1"], "examples": 80, "batch_size": 3}
    _, stage = assembled(nano=nano | {"captions": pretrained.captions, "probe_prompts": 0})
    assert len(stage._batch_source.micro_batch(0, 0).latents) == 3
    assert sorted(path.name for path in Path(pretrained.cache).iterdir()) == before


class Watched:
    """A stage whose weights are noted after every update, before and after what follows it."""

    def __init__(self, stage):
        self._stage, self.notes = stage, [self._note(stage)]

    def after_update(self, step):
        self.notes.append(self._note(self._stage))
        said = self._stage.after_update(step)
        self.notes.append(self._note(self._stage))
        return said

    def __getattr__(self, name):
        return getattr(self._stage, name)

    @staticmethod
    def _note(stage):
        return {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}


def changed(before, after) -> set[str]:
    """Return the roles that have a weight that changed."""
    words = {"student", "fake", "heads", "base"}
    names = [name for name in after if not torch.equal(before[name], after[name])]
    roles = [words & set(name.split(".")) for name in names]
    assert all(len(role) == 1 for role in roles), names
    return set().union(*roles)


def numbers_in(out: Path) -> list[dict[str, float]]:
    """Return the lines of a run's metrics without what is measured by the clock."""
    clocked = {"samples_per_s", "tokens_per_s", "tflops_per_s", "data_wait", "peak_memory_gib"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in clocked} for line in lines]


@WHOLE_AND_LORA
def test_each_update_is_of_its_own_roles_and_the_teacher_stays_what_it_was(assembled, lora):
    from lens.train.trainer import fit

    settings, stage = assembled(lora=lora, steps=2 * CYCLE)
    watched = Watched(stage)
    fit(watched, settings)
    notes = watched.notes
    for step in range(settings.steps):
        is_students = step % CYCLE == CYCLE - 1
        before, updated, followed = notes[2 * step : 2 * step + 3]
        assert changed(before, updated) == ({"student"} if is_students else {"fake", "heads"})
        assert changed(updated, followed) == ({"fake"} if is_students else set())
    assert changed(notes[0], notes[-1]) == {"student", "fake", "heads"}


def test_the_fake_model_moves_a_share_of_the_way_to_the_student(assembled):
    from lens.train.trainer import fit

    settings, stage = assembled(steps=CYCLE, ida_share=0.25)
    watched = Watched(stage)
    fit(watched, settings)
    before, after = watched.notes[-2:]
    name = "transformer_blocks.1.attn.img_qkv.weight"
    wanted = 0.75 * before[f"fake.{name}"] + 0.25 * before[f"student.{name}"]
    torch.testing.assert_close(after[f"fake.{name}"], wanted)
    settings, stage = assembled("without", steps=CYCLE, ida_share=0.0)
    watched = Watched(stage)
    fit(watched, settings)
    assert not changed(*watched.notes[-2:])


@pytest.mark.parametrize(("lora", "stop_at"), [(None, 3), (LORA, 0)], ids=["whole", "lora"])
def test_interrupted_and_resumed_equals_uninterrupted_for_all_roles_to_the_bit(
    assembled, stopped_at, tmp_path, lora, stop_at
):
    """Also where the first cycle was broken off, and the student had not been updated at all."""
    from lens.train.trainer import fit

    settings, stage = assembled("whole", lora=lora)
    whole = fit(stage, settings)
    settings, stage = assembled("parts", lora=lora)
    assert fit(stopped_at(stage, stop_at), settings).step == stop_at + 1
    settings, stage = assembled("parts", lora=lora)
    resumed = fit(stage, settings)
    assert numbers_in(tmp_path / "parts") == numbers_in(tmp_path / "whole")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    assert whole.ema.num_updates == resumed.ema.num_updates == STEPS // CYCLE
    for name, weight in whole.ema.average.items():
        assert "student" in name.split(".") and torch.equal(resumed.ema.average[name], weight), name
    for mine, other in zip(whole.optimizer.optimizers, resumed.optimizer.optimizers, strict=True):
        states = mine.state_dict()["state"], other.state_dict()["state"]
        assert states[0].keys() == states[1].keys()
        for key, state in states[0].items():
            assert all(torch.equal(value, states[1][key][name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("changes", "student_lacks", "critics_lack"),
    [
        ({}, set(), set()),
        ({"dm_weight": 0}, {"dm", "fake/gain", "gradient/dm", "cosine/dm_ca"}, {"fake"}),
        ({"ca_weight": 0}, {"ca", "gradient/ca", "cosine/dm_ca"}, set()),
        ({"adversarial_weight": 0}, {"adversarial", "gradient/adversarial"},
         {"discriminator", "r1", "logit/real", "logit/student"}),
        ({"r1_gamma": 0}, set(), {"r1"}),
    ],
)  # fmt: skip
def test_a_term_that_is_off_is_in_no_loss_and_no_log(assembled, changes, student_lacks, critics_lack):
    settings, stage = assembled(**changes)
    critics, student = stage.objective(0, 0), stage.objective(CYCLE - 1, 0)
    named = {"dm", "ca", "adversarial"} - student_lacks
    gradients = {f"gradient/{name}" for name in named}
    cosine = {"cosine/dm_ca"} if named >= {"dm", "ca"} else set()
    gain = {"fake/gain"} if "dm" in named else set()
    assert set(student.terms) == named | gradients | cosine | gain
    assert set(critics.terms) == {"fake", "discriminator", "r1", "logit/real", "logit/student"} - critics_lack
    weighed = sum(getattr(settings, f"{name}_weight") * student.terms[name] for name in named)
    torch.testing.assert_close(student.loss.detach(), weighed)
    own = {"fake", "discriminator", "r1"} - critics_lack
    torch.testing.assert_close(critics.loss.detach(), sum(critics.terms[name] for name in own))
    assert stage.active_parts(0) == tuple(
        part for part, term in (("fake", "fake"), ("heads", "discriminator")) if term not in critics_lack
    )
    build_optimizers(stage.model, settings.optimizer)  # a rate of what is off now is no mistake


@WHOLE_AND_LORA
@pytest.mark.parametrize("step", [0, CYCLE - 1], ids=["critics", "student"])
def test_what_is_computed_again_on_the_way_back_changes_no_gradient(assembled, lora, step):
    gradients = []
    for checkpointing in ("none", "full"):
        _, stage = assembled(lora=lora, gradient_checkpointing=checkpointing)
        for module in stage.model.modules():
            if isinstance(module, AttentionPool):
                torch.nn.init.ones_(module.judge.weight)
        stage.objective(step, 0).loss.backward()
        named = stage.model.named_parameters()
        gradients.append({name: weight.grad for name, weight in named if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


TRAJECTORY = {"simulation": "euler", "trajectory_weight": 1.0, "dm_weight": 0, "ca_weight": 0,
              "adversarial_weight": 0}  # fmt: skip


@pytest.mark.parametrize("substeps", [1, 3])
def test_a_student_is_asked_to_step_to_where_the_teacher_with_guidance_gets(assembled, substeps):
    """The aim against the teacher's velocities, followed here by a step of Euler's and then AB2."""
    _, stage = assembled(
        ca_scale=3.0, student_steps=2, teacher_substeps=substeps, frozen_dtype="float32", **TRAJECTORY
    )
    batch = stage._batch_source.micro_batch(0, 0)
    sketches = (
        stage._simulate_student(batch, step, generator_for(0, "draw"), has_gradient=False)
        for step in range(99)
    )
    sketch = next(one for one in sketches if one.step == 0)
    h, w = batch.latent_size
    levels = teacher_times(h * w, 2, 0, substeps).tolist()
    assert levels[0] == sketch.t == 1 and levels[-1] == pytest.approx(float(student_times(h * w, 2)[1]))
    x, before = sketch.x_t, None
    for t, after in pairwise(levels):
        times = torch.full((len(x),), t)
        with torch.no_grad():
            texts = (batch, batch.drop_text())
            cond, uncond = (stage._predict_velocity("base", x, times, text) for text in texts)
        slope = uncond + 3 * (cond - uncond)
        slope, length = slope * cond.norm(dim=1, keepdim=True) / slope.norm(dim=1, keepdim=True), after - t
        lean = 0.0 if before is None else length / (2 * before[0])
        x = x + length * (slope if before is None else (1 + lean) * slope - lean * before[1])
        before = length, slope
    aim = stage._trajectory_target(sketch, batch)
    torch.testing.assert_close(torch.lerp(aim, sketch.x_t, levels[-1]), x, rtol=1e-4, atol=1e-4)


def test_a_student_learns_to_step_as_far_as_its_teacher_in_several(assembled):
    from lens.train.trainer import fit

    settings, stage = assembled(
        student_steps=1, teacher_substeps=8, steps=40, micro_batches=1, **TRAJECTORY,
        optimizer={"lr": 1e-2, "schedule": "cosine", "warmup_steps": 2},
    )  # fmt: skip
    before = stage.objective(0, 0).terms["trajectory"]
    fit(stage, settings)
    assert stage.objective(0, 0).terms["trajectory"] < 0.5 * before
    with pytest.raises(SettingError, match=r"simulation is 'renoise', but it needs euler"):
        assembled(trajectory_weight=1.0)


def test_a_student_can_start_from_another_denoiser_than_its_teacher(assembled, teacher, tmp_path):
    from lens.models.denoiser import LensTransformer2DModel

    other = LensTransformer2DModel.from_pretrained(teacher / "transformer")
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.25)
    other.save_pretrained(tmp_path / "other")
    _, stage = assembled(student_from=str(tmp_path / "other"))
    name, weight = next(iter(other.named_parameters()))
    assert torch.equal(dict(stage.model["student"].named_parameters())[name], weight.float())
    assert not torch.equal(dict(stage.model["base"].named_parameters())[name].float(), weight.float())


def test_without_critics_every_update_is_the_students(assembled):
    _, stage = assembled(dm_weight=0, adversarial_weight=0)
    assert [stage.active_parts(step) for step in range(4)] == [("student",)] * 4
    assert set(stage.objective(0, 0).terms) == {"ca", "gradient/ca"}


def test_a_student_that_is_still_the_teacher_gets_nothing_from_matching_and_nothing_at_scale_one(assembled):
    _, stage = assembled(ca_scale=1.0)
    terms = stage.objective(CYCLE - 1, 0).terms
    assert float(terms["dm"]) == 0 and float(terms["ca"]) == 0 and float(terms["adversarial"]) > 0
    assert float(terms["fake/gain"]) == 0


def test_guidance_pushes_where_the_teacher_with_guidance_is(assembled):
    """The gradient at the student's picture, against the teacher's two predictions worked out here."""
    _, stage = assembled(ca_scale=3.0)
    batch = stage._batch_source.micro_batch(0, 0)
    picture = torch.randn(batch.latents.shape, generator=generator_for(0, "picture"))
    gradient = stage._ca_gradient(picture, batch, 0.5, generator_for(0, "draw"))
    draw = generator_for(0, "draw")
    t, noise = stage._times(batch, draw, 0.5), stage._noise(batch, draw)
    assert float(t.max()) <= 0.5
    x_t = picture + t[:, None, None, None] * (noise - picture)
    with torch.no_grad():
        cond, uncond = (stage._predict_x0("base", x_t, t, text) for text in (batch, batch.drop_text()))
    torch.testing.assert_close(gradient, -2 * (cond - uncond))
    assert gradient.abs().mean() > 1e-3


def test_a_simulation_by_euler_ends_at_the_picture_that_the_pipeline_draws(assembled, teacher):
    from lens import LensPipeline

    _, stage = assembled(simulation="euler", student_steps=4)
    batch = stage._batch_source.micro_batch(0, 0)
    h, w = batch.latent_size
    sketches = (
        stage._simulate_student(batch, step, generator_for(0, "draw"), has_gradient=False)
        for step in range(99)
    )
    sketch = next(one for one in sketches if one.t == student_times(h * w, 4)[3])
    noise = stage._noise(batch, generator_for(0, "draw"))
    pipeline = LensPipeline.from_pretrained(teacher, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt_embeds=batch.features, prompt_mask=batch.mask, height=16 * h, width=16 * w,
        num_inference_steps=4, guidance_scale=1.0, latents=noise.flatten(2).mT, output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(sketch.x_0.flatten(2).mT, drawn, rtol=1e-4, atol=1e-4)


def test_the_student_is_asked_at_the_samplers_levels_one_step_for_a_whole_update(assembled):
    _, stage = assembled(student_steps=4)
    seen = set()
    for step in range(40):
        batches = [stage._batch_source.micro_batch(step, index) for index in range(2)]
        sketches = [
            stage._simulate_student(batch, step, generator_for(0, "draw", step), has_gradient=False)
            for batch in batches
        ]
        places = [
            student_times(batch.latents[0, 0].numel(), 4).tolist().index(sketch.t)
            for batch, sketch in zip(batches, sketches, strict=True)
        ]
        assert places[0] == places[1]
        seen.add((places[0], batches[0].latent_size))
    assert {place for place, _ in seen} == {0, 1, 2, 3}
    assert len({cells for _, cells in seen}) == 2, "sizes are mixed"


def test_the_fake_model_learns_what_the_student_draws_and_heads_tell_it_from_real(assembled):
    from lens.train.trainer import fit

    settings, stage = assembled(
        steps=40, critic_updates=60, optimizer={"lr": 3e-3, "rates": {"heads": 2e-2}, "warmup_steps": 0}
    )
    fit(stage, settings)
    lines = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]
    first, last = (
        {name: np.mean([line[name] for line in part]) for name in ("fake", "discriminator")}
        for part in (lines[:6], lines[34:40])
    )
    assert last["fake"] < 0.9 * first["fake"]
    assert last["discriminator"] < 0.8 * first["discriminator"]


def test_a_student_of_lora_is_read_by_the_pipeline_and_fused_gives_the_trainers_pictures(
    assembled, tmp_path, teacher
):
    from lens import LensPipeline
    from lens.train.trainer import fit

    settings, stage = assembled(lora=LORA, steps=2 * CYCLE, optimizer={"lr": 0.05, "warmup_steps": 0})
    run = fit(stage, settings)
    asked = {"height": 48, "width": 64, "num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "pt"}

    def drawn(pipeline):
        pipeline.set_progress_bar_config(disable=True)
        return pipeline("a red apple", generator=torch.Generator().manual_seed(0), **asked).images

    with run.ema.swap_into(run.model), stage._policies.use("student") as student:
        trainers = drawn(stage._pipeline(student))
    for file in ("lora.safetensors", "lora_kohya.safetensors"):
        pipeline = LensPipeline.from_pretrained(teacher, torch_dtype=torch.float32)
        before = drawn(pipeline)
        pipeline.load_lora_weights(tmp_path / "run" / "export" / file)
        pipeline.transformer.fuse_lora()
        torch.testing.assert_close(drawn(pipeline), trainers, rtol=1e-4, atol=1e-4)
        assert (before - trainers).abs().max() > 1e-3


def test_a_whole_student_is_a_pipeline_that_draws_in_its_own_steps_without_guidance(assembled, tmp_path):
    from lens import LensPipeline
    from lens.train.trainer import fit

    settings, stage = assembled(steps=CYCLE, probe_every=CYCLE, variant="nano")
    run = fit(stage, settings)
    pipeline = LensPipeline.from_pretrained(tmp_path / "run" / "export", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    asked = {"height": 48, "width": 48, "output_type": "pt"}
    levels = []
    pipeline.transformer.register_forward_hook(
        lambda module, args, kwargs, output: levels.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    drawn = pipeline("a red apple", generator=torch.Generator().manual_seed(0), **asked).images
    assert levels == pytest.approx(student_times(9, 4).tolist())
    with run.ema.swap_into(run.model), stage._policies.use("student") as student:
        trainers = stage._pipeline(student)
        trainers.set_progress_bar_config(disable=True)
        wanted = trainers("a red apple", generator=torch.Generator().manual_seed(0), **asked).images
    torch.testing.assert_close(drawn, wanted, rtol=0, atol=0.1)  # exported in bfloat16
    numbers = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"probe/single", "probe/mean"} <= set(numbers[-1])
    assert list((tmp_path / "run" / "samples").glob("*.png"))


def test_pictures_of_ones_own_come_in_batches_of_one_size_and_all_count_the_same(assembled, tmp_path):
    from lens.train.trainer import fit

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (width, height) in enumerate(((70, 40), (48, 48), (40, 75), (52, 50), (50, 52))):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a red apple" + " and a fox" * number)
    settings, stage = assembled(
        nano=None, data={"folder": str(folder), "bases": [48]}, store=str(tmp_path / "store"),
        pack_tokens=18, steps=CYCLE, previews=["a fox"], probe_every=CYCLE,
    )  # fmt: skip
    shapes = set()
    for step in range(4):
        batches = [stage._batch_source.micro_batch(step, index) for index in range(2)]
        assert [batch.share for batch in batches] == pytest.approx(
            [2 * len(batch.latents) / sum(len(one.latents) for one in batches) for batch in batches]
        )
        assert all(batch.latents[0, 0].numel() * len(batch.latents) <= 18 for batch in batches)
        shapes |= {batch.latent_size for batch in batches}
    assert len(shapes) > 1
    fit(stage, settings)
    assert (settings.out / "export" / "transformer" / "config.json").is_file()
    assert list((settings.out / "samples").glob("*.png"))


def test_two_ranks_make_the_losses_of_one(values, tmp_path, assembled):
    from lens.train.trainer import fit

    settings, stage = assembled("one", steps=2 * CYCLE)
    fit(stage, settings)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values("two", steps=2 * CYCLE, threads=1)))
    log = tmp_path / "log"
    assert on_ranks(2, train_small, recipe, log=log) == [0, 0], log.read_text()[-3000:]
    for mine, other in zip(*map(numbers_in, (tmp_path / "one", tmp_path / "two")), strict=True):
        assert mine.keys() == other.keys()
        for name in {"loss", "dm", "ca", "adversarial", "fake", "discriminator", "r1"} & mine.keys():
            assert mine[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), (mine["step"], name)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nano": None}, "data is 'neither', but it needs exactly one of data and nano"),
        ({"dm_weight": 0, "ca_weight": 0, "adversarial_weight": 0}, "dm_weight is 0"),
        ({"discriminator_blocks": [0, 2]}, "discriminator_blocks"),
        ({"nano": {"cache": "x", "ratios": ["5:4"]}}, "nano.ratios"),
        ({"nano": None, "data": {"folder": "x"}}, "store is None"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, changes, says):
    from lens.train.run import STAGES, parse_settings

    with pytest.raises(SettingError, match=says):
        settings = parse_settings("distill", values(**changes), "the test")
        settings.check_inputs()
        STAGES["distill"].stage_class(settings)
