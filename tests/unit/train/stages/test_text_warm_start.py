"""The fitted first text layer: ridge regression in closed form, the words of a caption, and a whole fit."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import tiny_denoiser, tiny_encoder, tiny_tokenizer

from lens.nano.captions import CaptionMix, nano_caption
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.train.stages.text_warm_start import fit_linear, fit_text_input, named_tokens, token_of

CAPTION = nano_caption(0, 0, CaptionMix(tasks=1, dense=0))


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_linear_relation_is_found_without_a_penalty():
    x, weight, bias = normal(70, 5, seed=0) + 3, normal(3, 5, seed=1), normal(3, seed=2)
    fit = fit_linear(x, x @ weight.T + bias, 0.0)
    torch.testing.assert_close(fit.weight, weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fit.bias, bias, atol=1e-3, rtol=1e-3)
    assert fit.r2 == pytest.approx(1, abs=1e-5)


def test_the_penalty_is_that_of_ridge_regression():
    x, y = normal(70, 5, seed=0), normal(70, 3, seed=1)
    fit = fit_linear(x, y, 0.3)
    # The same as least squares with a row of the penalty's root for each input.
    centred = (x - x.mean(0)).double().numpy()
    root = np.sqrt(0.3 * (centred**2).mean() * len(x)) * np.eye(5)
    targets = np.vstack([(y - y.mean(0)).double().numpy(), np.zeros((5, 3))])
    expected = np.linalg.lstsq(np.vstack([centred, root]), targets, rcond=None)[0].T
    assert np.allclose(fit.weight, expected, atol=1e-5)
    rest = y - (x @ fit.weight.T + fit.bias)
    assert torch.allclose(rest.mean(0), torch.zeros(3), atol=1e-5), "the bias has no penalty"
    assert fit.r2 == pytest.approx(1 - float(rest.var(0).sum() / y.var(0).sum()), abs=1e-5)


def test_tokens_have_the_words_of_their_group_and_of_the_background():
    spec = SceneSpec((ObjectGroup("key", 3), ObjectGroup("fox", 1)), "blue")
    background, keys, fox = named_tokens(CAPTION._replace(spec=spec))
    assert (background.token, background.names[0], background.numerals) == (0, "blue", ())
    assert (keys.token, keys.numerals) == (1, ("three", "3"))
    assert {"key", "keys"} <= set(keys.names)
    assert (fox.token, fox.numerals) == (2, ())
    assert named_tokens(CAPTION._replace(spec=SceneSpec())) == []


@pytest.mark.parametrize(("words", "token"), [
    (("fox", "foxes"), 2), (("bear", "teddy bear"), 5), (("Two", "2"), 0), (("dog",), None), ((), None),
    (("ed",), None),
])  # fmt: skip
def test_the_token_of_a_name_is_the_one_that_ends_it(words, token):
    text, parts = "two red foxes, teddy bear", ["two", " red", " foxes", ",", " ted", "dy bear"]
    ends = np.cumsum([len(part) for part in parts])
    offsets = [(int(end) - len(part), int(end)) for part, end in zip(parts, ends, strict=True)]
    assert token_of(text, words, offsets) == token


def test_the_layer_of_a_denoiser_is_fitted_and_all_else_stays(tmp_path):
    encoder, tokenizer = tiny_encoder(), tiny_tokenizer()
    encoder.save_pretrained(tmp_path / "text_encoder")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    tiny_denoiser(0).save_pretrained(tmp_path / "transformer")
    denoiser = tiny_denoiser(1)
    before = copy.deepcopy(denoiser.state_dict())
    r2 = fit_text_input(denoiser, encoder, tokenizer, tmp_path / "transformer", tmp_path, num_captions=40)
    assert 0.3 < r2 <= 1
    changed = {name for name, value in denoiser.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"txt_in.weight", "txt_in.bias", *(f"txt_norm.{layer}.weight" for layer in range(4))}
    assert {"txt_in.weight", "txt_in.bias"} <= changed
    assert all(bool((norm.weight == 1).all()) for norm in denoiser.txt_norm)
