"""The pipeline against a second writing of it, straight from sections 4 and 5 of the specification.

The second one shares no code with the package: conversation typed out, text features from transformers' own
hidden states, the literal denoiser, schedule and guidance in NumPy, latents unpacked cell by cell.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from literal_denoiser import velocity
from tiny_models import CAPTURED_LAYERS, DENOISER_CONFIG, LATENT_CHANNELS, tiny_pipeline

CONVERSATION = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: 2026-05-01\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "<|start|>developer<|message|># Instructions\n\nDescribe the image by detailing the color, shape, size, "
    "texture, quantity, text, spatial relationships of the objects and background.\n\n<|end|>"
    "<|start|>user<|message|>",
    "<|end|><|start|>assistant<|channel|>analysis<|message|>Need to generate one image according to the "
    "description.<|end|><|start|>assistant<|channel|>final<|message|>",
)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def literal_features(pipeline, prompt):
    before, after = CONVERSATION
    ids = pipeline.tokenizer(before + prompt + after, return_tensors="pt", add_special_tokens=False).input_ids
    num_preamble = len(pipeline.tokenizer(before, add_special_tokens=False).input_ids)
    hidden = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states
    return [hidden[layer + 1][:, num_preamble:] for layer in CAPTURED_LAYERS]


def literal_sigmas(num_tokens, num_steps):
    at_10 = 8.73809524e-05 * num_tokens + 1.89833333
    at_200 = 0.00016927 * num_tokens + 0.45666666
    slope = (at_200 - at_10) / 190
    mu = at_200 if num_tokens > 4300 else slope * num_steps + at_10 - 10 * slope
    even = np.linspace(1, 1 / num_steps, num_steps)
    return [*(math.exp(mu) / (math.exp(mu) + 1 / even - 1)), 0.0]


def literal_guidance(cond, uncond, scale):
    led = uncond + scale * (cond - uncond)
    lengths = np.sqrt((cond**2).sum(-1, keepdims=True)) / np.sqrt((led**2).sum(-1, keepdims=True))
    return led * lengths


def literal_tokens(pipeline, prompt, negative, noise, h, w, num_steps, scale):
    weights = dict(pipeline.transformer.state_dict())
    positive = literal_features(pipeline, prompt)
    if negative:
        away, away_mask = literal_features(pipeline, negative), None
    else:
        away = [torch.zeros_like(one) for one in positive]
        away_mask = torch.zeros(1, positive[0].shape[1], dtype=torch.bool)

    def velocity_at(x, sigma, features, mask=None):
        if mask is None:
            mask = torch.ones(1, features[0].shape[1], dtype=torch.bool)
        x, t = torch.from_numpy(x).float(), torch.tensor([sigma]).float()
        return velocity(weights, DENOISER_CONFIG, x, features, mask, t, h, w).double().numpy()

    x = noise.double().numpy()
    sigmas = literal_sigmas(h * w, num_steps)
    for sigma, after in pairwise(sigmas):
        towards = velocity_at(x, sigma, positive)
        if scale != 1:
            towards = literal_guidance(towards, velocity_at(x, sigma, away, away_mask), scale)
        x = x + (after - sigma) * towards
    return x


def literal_pixels(pipeline, tokens, h, w):
    bn = pipeline.vae.bn
    grid = np.zeros((1, LATENT_CHANNELS, 2 * h, 2 * w))
    for token in range(h * w):
        for channel in range(LATENT_CHANNELS):
            for row in range(2):
                for column in range(2):
                    index = 4 * channel + 2 * row + column
                    spread = math.sqrt(bn.running_var[index].item() + 1e-4)
                    value = tokens[0, token, index] * spread + bn.running_mean[index].item()
                    grid[0, channel, 2 * (token // w) + row, 2 * (token % w) + column] = value
    return pipeline.vae.decode(torch.from_numpy(grid).float()).sample.clamp(-1, 1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("negative", "num_steps", "scale"), [("", 4, 1.0), ("", 5, 5.0), ("a blurry fox, cut off", 3, 4.0)]
)
def test_images_equal_those_of_the_literal_pipeline(pipeline, negative, num_steps, scale):
    height, width, prompt = 64, 96, "two red apples to the left of a fox"
    h, w = height // 16, width // 16
    noise = torch.randn(1, h * w, 4 * LATENT_CHANNELS, generator=torch.Generator().manual_seed(3))
    request = {
        "negative_prompt": negative, "height": height, "width": width, "num_inference_steps": num_steps,
        "guidance_scale": scale, "generator": torch.Generator().manual_seed(3),
    }  # fmt: skip
    tokens = literal_tokens(pipeline, prompt, negative, noise, h, w, num_steps, scale)
    ours = pipeline(prompt, **request, output_type="latent").images
    torch.testing.assert_close(ours, torch.from_numpy(tokens).float(), atol=1e-4, rtol=1e-4)
    expected = literal_pixels(pipeline, tokens, h, w)
    request["generator"] = torch.Generator().manual_seed(3)
    pixels = pipeline(prompt, **request, output_type="pt").images * 2 - 1
    torch.testing.assert_close(pixels, expected, atol=2e-4, rtol=0)
    assert pixels.std() > 0.01
