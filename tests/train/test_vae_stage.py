"""The vae stage on whole scenes, and with a frozen encoder, whose latents stay those that denoisers know."""

import pytest
import torch


@pytest.fixture
def frozen(finished, settings_and_stage, tmp_path):
    """A stage that trains the decoder of the finished run, on scenes alone."""
    export = finished("vae").out / "export" / "vae"
    return settings_and_stage(
        "vae", tmp_path / "run", start_from=str(export), frozen_encoder=True, scene_share=1.0,
        scene_sides_px=[96, 64], steps=2, micro_batches=1,
    )  # fmt: skip


def test_a_batch_of_scenes_has_about_as_many_pixels_as_one_of_crops(frozen):
    settings, stage = frozen
    shapes = {tuple(stage._training_pixels(first, 18).shape) for first in range(12)}
    assert settings.side_px == 32
    assert shapes == {(2, 3, 96, 96), (4, 3, 64, 64)}
    assert len(stage._training_pixels(0, 1)) == 1
    assert torch.equal(stage._training_pixels(5, 9), stage._training_pixels(5, 9))


def test_scenes_come_as_often_as_the_share_says(settings_and_stage, tmp_path):
    _, stage = settings_and_stage("vae", tmp_path / "run", scene_share=0.5, scene_sides_px=[64])
    sides = [stage._training_pixels(first, 4).shape[2] for first in range(0, 80, 4)]
    assert set(sides) == {32, 64}
    assert 4 <= sides.count(64) <= 16
    _, crops = settings_and_stage("vae", tmp_path / "crops")
    assert {crops._training_pixels(first, 4).shape for first in (0, 4, 8)} == {(4, 3, 32, 32)}


def test_an_evaluation_has_the_quality_of_crops_and_of_scenes_of_each_side(frozen):
    _, stage = frozen
    with torch.no_grad():
        metrics = stage.evaluate()
        scenes = stage._scenes(2**31, 24, 64)
        decoded = stage.model.decode(stage.model.encode(scenes).latent_dist.mode()).sample.clamp(-1, 1)
    assert set(metrics) == {"psnr_db", "psnr_db/96px", "psnr_db/64px"}
    errors = (decoded - scenes).double().square().flatten(1).mean(1)
    by_hand = sum(float(10 * torch.log10(4 / error)) for error in errors) / 24
    assert metrics["psnr_db/64px"] == pytest.approx(by_hand, abs=1e-3)


def test_a_frozen_encoder_keeps_its_latents_and_their_statistics(frozen, finished, tmp_path):
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    from lens.train.trainer import fit

    settings, stage = frozen
    before = AutoencoderKLFlux2.from_pretrained(finished("vae").out / "export" / "vae").state_dict()
    fit(stage, settings)
    after = AutoencoderKLFlux2.from_pretrained(tmp_path / "run" / "export" / "vae").state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("decoder.") for name in changed)
    assert not [name for name in changed if not name.startswith(("decoder.", "post_quant_conv."))]


def test_a_frozen_encoder_has_to_be_a_trained_one(settings_and_stage, tmp_path):
    from lens.errors import SettingError

    with pytest.raises(SettingError, match=r"start_from is None.*frozen_encoder"):
        settings_and_stage("vae", tmp_path / "run", frozen_encoder=True)
    with pytest.raises(SettingError, match="scene_sides_px"):
        settings_and_stage("vae", tmp_path / "run", scene_share=0.5, scene_sides_px=[])
