"""Requests: what is refused before anything is computed, and the noise and levels that it starts from."""

import pytest
import torch
from tiny_models import TEXT_WIDTH

from lens.core.schedule import sampling_sigmas
from lens.errors import SettingError, ShapeError
from lens.sampling import inputs
from lens.sampling.defaults import sampling_defaults, variant_from_name
from lens.sampling.prompt_embeds import PromptEmbeds, make_prompt_embeds


@pytest.mark.parametrize("prompt", ["", "  ", [], ["a fox", ""], None, 7, ["a fox", 7]])
def test_a_prompt_needs_text(prompt):
    with pytest.raises(SettingError, match="prompt"):
        inputs.normalize_prompts(prompt)


def test_one_negative_prompt_is_used_for_all_prompts_and_several_must_match():
    assert inputs.normalize_negative_prompts("blurry", 3) == ["blurry"] * 3
    assert inputs.normalize_negative_prompts(None, 2) == ["", ""]
    assert inputs.normalize_negative_prompts(["a", None], 2) == ["a", ""]
    with pytest.raises(SettingError, match="one for each of 3 prompts"):
        inputs.normalize_negative_prompts(["a", "b"], 3)


@pytest.mark.parametrize(
    ("numbers", "setting"),
    [
        ((0, 5.0, 1, None), "num_inference_steps"),
        ((20, -1.0, 1, None), "guidance_scale"),
        ((20, float("nan"), 1, None), "guidance_scale"),
        ((20, 5.0, 0, None), "num_images_per_prompt"),
        ((20, 5.0, 1, 0.0), "strength"),
        ((20, 5.0, 1, 1.1), "strength"),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(numbers, setting):
    with pytest.raises(SettingError, match=f"^{setting} is"):
        inputs.check_numbers(*numbers)


@pytest.mark.parametrize(("strength", "num_left"), [(0.25, 5), (0.6, 12), (0.05, 1), (1.0, 20)])
def test_at_multiples_of_a_step_the_levels_are_the_tail_of_the_full_schedule(strength, num_left):
    levels = inputs.sigmas_for_strength(strength, num_tokens=64, num_steps=20)
    torch.testing.assert_close(levels, sampling_sigmas(64, 20)[-num_left - 1 :])


def test_between_these_multiples_the_first_level_follows_the_strength():
    starts = [inputs.sigmas_for_strength(strength, 64, 4)[0].item() for strength in (0.3, 0.4, 0.5, 0.6)]
    assert starts == sorted(starts) and len(set(starts)) == 4
    # e^mu / (e^mu + 1/s - 1), by hand for s = 0.4 and mu = shift_mu(64, 4)
    mu = 1.90392571 + (0.467489947 - 1.90392571) * (4 - 10) / 190
    growth = 2.718281828**mu
    assert starts[1] == pytest.approx(growth / (growth + 1 / 0.4 - 1), abs=1e-6)


def test_the_noise_of_an_image_does_not_depend_on_how_many_follow_from_one_generator():
    def drawn(count):
        return inputs.prepare_noise((count, 3, 16), torch.Generator().manual_seed(7), None, "cpu")

    assert torch.equal(drawn(3)[:2], drawn(2))
    assert not torch.equal(drawn(2)[0], drawn(2)[1])


def test_each_image_has_its_own_generator_in_a_list():
    seeds = [5, 6, 7]
    together = inputs.prepare_noise(
        (3, 3, 16), [torch.Generator().manual_seed(seed) for seed in seeds], None, "cpu"
    )
    for row, seed in enumerate(seeds):
        alone = inputs.prepare_noise((1, 3, 16), torch.Generator().manual_seed(seed), None, "cpu")
        assert torch.equal(together[row : row + 1], alone)


def test_latents_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"\(1, 4, 16\), but this size and count need \(2, 4, 16\)"):
        inputs.prepare_noise((2, 4, 16), None, torch.zeros(1, 4, 16), "cpu")


def test_each_row_is_repeated_for_an_equal_number_of_images():
    rows = torch.tensor([[1.0], [2.0]])
    assert inputs.repeat_rows(rows, 4, "image").flatten().tolist() == [1, 1, 2, 2]
    with pytest.raises(SettingError, match="image"):
        inputs.repeat_rows(rows, 3, "image")


def test_a_row_without_text_is_zero_and_masked():
    batch = PromptEmbeds(
        [torch.full((2, 3, TEXT_WIDTH), 5.0)], torch.tensor([[True, True, True], [True, False, False]])
    )
    picked = batch.rows([1, None, 0])
    assert picked.mask.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert picked.features[0][1].abs().max() == 0 and picked.features[0][2].min() == 5


def test_prompt_embeds_of_the_wrong_shape_are_refused():
    with pytest.raises(SettingError, match="prompt_embeds"):
        make_prompt_embeds(torch.zeros(1, 2, 3), None, "prompt_embeds")
    with pytest.raises(ShapeError, match="mask of prompt_embeds"):
        make_prompt_embeds([torch.zeros(1, 2, 3)], torch.ones(1, 3, dtype=torch.bool), "prompt_embeds")
    with pytest.raises(ShapeError, match=r"layers of prompt_embeds are \(1, 2, 3\), \(1, 4, 3\)"):
        make_prompt_embeds([torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)], None, "prompt_embeds")
    with pytest.raises(SettingError, match=r"prompt_mask .* needs the prompt_embeds that it masks"):
        make_prompt_embeds(None, torch.ones(1, 2, dtype=torch.bool), "prompt_embeds")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("microsoft/Lens", "lens"),
        ("YuCollection/Lens-Turbo-Diffusers", "turbo"),
        ("/data/models--Jinstudio--Lens-Base/snapshots/0a1b", "base"),
        ("/somewhere/lens-nano", "nano"),
        ("somebody/Lens-Nano-Turbo", "nano-turbo"),
        ("/models/lens_nano_base", "nano-base"),
        ("/lens-turbo/of/lens", "turbo"),
        (None, "lens"),
    ],
)
def test_a_published_folder_has_the_variant_in_its_name(name, variant):
    assert variant_from_name(name) == variant


def test_the_defaults_of_variants_are_those_released():
    assert sampling_defaults("lens") == (20, 5.0, 1024)
    assert sampling_defaults("turbo") == (4, 1.0, 1024)
    assert sampling_defaults("base") == (50, 5.0, 1024)
    assert sampling_defaults("nano") == sampling_defaults("nano-base") == (20, 2.0, 128)
    assert sampling_defaults("nano-turbo") == (4, 1.0, 128)
    assert sampling_defaults("turbo", steps=8, base_resolution=64) == (8, 1.0, 64)
    with pytest.raises(SettingError, match="lens_variant"):
        sampling_defaults("jumbo")
