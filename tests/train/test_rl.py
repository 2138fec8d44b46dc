"""Tuning by rewards on a tiny model: exact resume, two ranks as one, failures, collapse, what is exported."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from forked import on_ranks
from ranked_rl import Brightness, train_by_brightness
from tiny_models import randomise

from lens.errors import SettingError
from lens.nano.tasks import TASKS
from lens.rl.rewards.base import Score

STEPS = 4
NAMES = ("loss", "reward", "diversity", "policy", "drift", "kl")


@pytest.fixture(scope="session")
def model(finished, tmp_path_factory):
    """A tiny model all of whose weights do something."""
    from lens import LensPipeline

    folder = tmp_path_factory.mktemp("rl") / "model"
    pipeline = LensPipeline.from_pretrained(finished("pretrain").out / "export", torch_dtype=torch.float32)
    randomise(pipeline.transformer, seed=0)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def values(model, tmp_path):
    def of(out="run", **changes):
        return {
            "stage": "rl", "model": str(model), "out": str(tmp_path / out), "steps": STEPS,
            "nano_prompts": {"count": 12}, "reward": {"kind": "nano"}, "prompts_per_step": 2,
            "images_per_prompt": 3, "bases": [48], "ratios": ["1:1", "16:9"], "rollout_steps": 3,
            "times_per_image": 2, "precision": "float32", "frozen_dtype": "float32", "device": "cpu",
            "log_every": 1, "probe_every": 1000, "ema_decay": 0.9,
            "optimizer": {"lr": 1e-2, "warmup_steps": 1},
        } | changes  # fmt: skip

    return of


@pytest.fixture
def assembled(values, monkeypatch):
    """Return settings and stage of a tiny run, judged by brightness."""

    def assemble(out="run", judge=None, **changes):
        from lens.train.run import STAGES, parse_settings
        from lens.train.stages import rl

        monkeypatch.setattr(rl, "create_reward", lambda *_: judge or Brightness())
        settings = parse_settings("rl", values(out, **changes), "the test")
        return settings, STAGES["rl"].stage_class(settings)

    return assemble


def lines_of(out: Path, having: str = "loss") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if having in line]


@pytest.mark.parametrize("lora", [None, {"rank": 3, "alpha": 6}], ids=["whole", "adapters"])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(assembled, stopped_at, tmp_path, lora):
    from lens.train.trainer import fit

    settings, stage = assembled("whole", lora=lora)
    whole = fit(stage, settings)
    settings, first = assembled("parts", lora=lora)
    assert fit(stopped_at(first, 1), settings).step == 2
    settings, second = assembled("parts", lora=lora)
    resumed = fit(second, settings)
    one, other = ([{name: line[name] for name in NAMES} for line in lines_of(tmp_path / out)]
                  for out in ("whole", "parts"))  # fmt: skip
    assert one == other and len(one) == STEPS
    for kind in ("extra_state", "ema"):
        a, b = (getattr(run, kind) if kind == "extra_state" else run.ema.average for run in (whole, resumed))
        assert a.keys() == b.keys() and a
        assert all(torch.equal(a[name], b[name]) for name in a), kind
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    moved = [not torch.equal(a, b) for a, b in zip(stage._policies._weights("old").values(),
             stage._policies._weights("theta").values(), strict=True)]  # fmt: skip
    assert any(moved), "the sampling policy lags behind"


def test_every_picture_is_learned_from_at_distinct_times_of_its_rollout_but_the_last(assembled):
    from lens.core.schedule import sampling_sigmas

    settings, stage = assembled(rollout_steps=4, times_per_image=3)
    drawn = stage._collect_rollouts(0)
    assert set(drawn.batches) == {0, 1} and settings.micro_batches == 6
    for one in drawn.batches.values():
        cells = one.latents[0, 0].numel()
        allowed = sampling_sigmas(cells, 4)[:3].tolist()
        for row in one.times.tolist():
            assert sorted(row, reverse=True) == allowed


def test_groups_see_every_prompt_once_before_one_comes_again(assembled):
    _, stage = assembled()
    seen = [
        stage._collect_rollouts(step).batches[number].prompts[0].prompt
        for step in range(6)
        for number in (0, 1)
    ]
    assert len(set(seen)) == 12


def test_groups_that_share_a_pass_are_drawn_and_learned_from_as_each_by_itself(assembled):
    asked = {"ratios": ["16:9"], "prompts_per_step": 4, "kl_weight": 0.1}
    found = {}
    for at_once in (1, 4):
        settings, stage = assembled(
            str(at_once), groups_per_pass=at_once, text_encoder_batch_size=at_once, **asked
        )
        drawn = [one.latents for one in stage._collect_rollouts(0).batches.values()]
        for index in range(settings.micro_batches):
            (stage.objective(0, index).loss / settings.micro_batches).backward()
        theta = stage._policies._weights("theta").values()
        found[at_once] = torch.cat(drawn), [weight.grad for weight in theta if weight.grad is not None]
    assert settings.micro_batches == 2, "one pass at each of two times"
    torch.testing.assert_close(found[1], found[4], atol=1e-5, rtol=1e-4)
    assert any(gradient.abs().max() > 1e-4 for gradient in found[1][1])


def test_prompts_that_are_drawn_without_fault_are_left_out(assembled, tmp_path):
    class Perfect(Brightness):
        def score(self, image, prompt) -> Score:
            return Score(1.0 if prompt.category == "single" else 0.5, {})

    _, stage = assembled(judge=Perfect(), screening=2)
    stage.objective(0, 0)
    assert len(stage._prompts) == 10 and {one.category for one in stage._prompts} == set(TASKS[1:])
    _, again = assembled(judge=Brightness(), screening=2)
    again.objective(0, 0)
    assert again._prompts == stage._prompts, "what was found is kept in the run's folder"
    _, none = assembled("other", judge=Perfect(), screening=1, nano_prompts={"count": 9, "kinds": ["single"]})
    with pytest.raises(SettingError, match="screening is 1, but it needs 0, as the model already gets"):
        none.objective(0, 0)


def test_pictures_without_a_score_are_not_learned_from_and_stop_the_run_where_they_are_many(
    assembled, tmp_path
):
    from lens.train.trainer import fit

    settings, stage = assembled(judge=Brightness(unjudged=""))
    run = fit(stage, settings)
    assert run.step == 1 and "100% of the images got no score (the judge is out)" in run.stop_reason
    (line,) = lines_of(tmp_path / "run")
    assert (line["failed"], line["loss"], line["grad_norm"]) == (1, 0, 0)


def test_an_image_that_is_not_finite_fails_alone(assembled):
    _, stage = assembled()
    sampler, size = stage._sampler, stage._sampler.latent_size(0)
    latents = torch.randn(3, stage._config.in_channels, *size, generator=torch.Generator().manual_seed(0))
    whole = sampler.decode(latents)
    latents[1, 2, 0, 1] = torch.inf
    images = sampler.decode(latents)
    assert images[1] is None and all((images[row] == whole[row]).all() for row in (0, 2))


def test_images_that_are_not_finite_have_no_score_and_are_not_learned_from(assembled, tmp_path):
    from lens.train.trainer import fit

    settings, stage = assembled()
    torch.nn.init.constant_(stage._encoders.vae.decoder.conv_out.bias, torch.nan)
    run = fit(stage, settings)
    assert run.step == 1 and "got no score (the image is not finite)" in run.stop_reason
    (line,) = lines_of(tmp_path / "run")
    assert (line["failed"], line["loss"], line["grad_norm"]) == (1, 0, 0)


def test_a_run_whose_pictures_become_alike_ends(assembled):
    _, stage = assembled()
    stage.objective(0, 0)
    assert stage.after_update(0) == ""
    drawn = stage._rollouts
    for step in range(1, 30):
        numbers = drawn.metrics | {"diversity": 0.1 * drawn.metrics["diversity"]}
        stage._rollouts = drawn._replace(step=step, metrics=numbers)
        if ending := stage.after_update(step):
            break
    assert "diversity fell from" in ending and "a collapse" in ending
    assert step > 3, "one update alone is no collapse"


@pytest.mark.parametrize("lora", [None, {"rank": 3, "alpha": 6}], ids=["whole", "adapters"])
def test_what_is_exported_draws_the_trainers_pictures(assembled, model, tmp_path, lora):
    from lens import LensPipeline
    from lens.models.denoiser import LensTransformer2DModel
    from lens.train.trainer import fit

    settings, stage = assembled(lora=lora)
    run = fit(stage, settings)
    asked = dict(height=48, width=64, num_inference_steps=2, guidance_scale=1.0, output_type="pt")

    def drawn(pipeline) -> torch.Tensor:
        pipeline.set_progress_bar_config(disable=True)
        return pipeline("a red apple", generator=torch.Generator().manual_seed(0), **asked).images

    with run.ema.swap_into(run.model), stage._policies.use("theta") as denoiser, torch.no_grad():
        wanted = drawn(stage._pipeline(denoiser))
    export = tmp_path / "run" / "export"
    pipeline = LensPipeline.from_pretrained(model, torch_dtype=torch.float32)
    before = drawn(pipeline)
    if lora:
        pipeline.load_lora_weights(export / "lora.safetensors")
        torch.testing.assert_close(drawn(pipeline), wanted)
        pipeline.fuse_lora()
        tolerance = 1e-4
    else:
        pipeline.transformer = LensTransformer2DModel.from_pretrained(export / "transformer").float()
        tolerance = 0.05  # weights in bfloat16
    assert (drawn(pipeline) - wanted).abs().max() < tolerance
    assert (before - wanted).abs().max() > 2 * tolerance


def test_two_ranks_make_the_numbers_of_one(values, tmp_path):
    found, probes = {}, {}
    for ranks in (1, 2):
        recipe = tmp_path / f"{ranks}.yaml"
        changes = {"steps": 2, "threads": 1, "held_out": 3, "probe_every": 2, "screening": 1}
        recipe.write_text(yaml.safe_dump(values(str(ranks), **changes)))
        log = tmp_path / "log"
        assert on_ranks(ranks, train_by_brightness, recipe, log=log) == [0] * ranks, log.read_text()[-3000:]
        found[ranks] = lines_of(tmp_path / str(ranks))
        (probes[ranks],) = [
            line for line in lines_of(tmp_path / str(ranks), "probe/held_out/reward") if line["step"] == 2
        ]
    for one, two in zip(found[1], found[2], strict=True):
        for name in (*NAMES, "reward/brightness", "grad_norm"):
            assert one[name] == pytest.approx(two[name], rel=1e-4, abs=1e-6), name
    assert probes[1] == pytest.approx(probes[2], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"times_per_image": 3}, "times_per_image is 3, but it needs fewer than rollout_steps = 3"),
        ({"micro_batches": 3}, "micro_batches is 3, but it needs 4"),
        ({"nano_prompts": None}, "one of prompts and nano_prompts"),
        ({"held_out": 12}, "held_out is 12, but it needs fewer than the 12 prompts"),
        ({"solver": "rk4"}, "solver is 'rk4'"),
    ],
)
def test_settings_that_do_not_fit_are_named(assembled, changes, says):
    with pytest.raises(SettingError, match=says):
        assembled(**changes)
