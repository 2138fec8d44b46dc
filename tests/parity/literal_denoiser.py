"""The denoiser written a second time, straight from section 3 of the specification: slow and literal.

Shares no code with the package. Always masks, always computes the text to the end, makes its rotary tables
anew in every block, and does each sum as the text states it. Weights come under the published names.
"""

import math

import torch


def linear(weights, name, x):
    out = x @ weights[name + ".weight"].T
    return out + weights[name + ".bias"] if name + ".bias" in weights else out


def rms_norm(weights, name, x, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weights[name + ".weight"]


def silu(x):
    return x / (1 + torch.exp(-x))


def time_embedding(weights, timestep):
    frequencies = torch.tensor([10000 ** (-k / 128) for k in range(128)])
    angles = timestep.float()[:, None] * frequencies * 1000
    waves = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    first = linear(weights, "time_text_embed.timestep_embedder.linear_1", waves)
    return linear(weights, "time_text_embed.timestep_embedder.linear_2", silu(first))


def token_positions(height, width, num_text):
    """(frame, row, column) of each token of the joint sequence, image first."""
    places = []
    for row in range(-(height - height // 2), height // 2):
        for column in range(-(width - width // 2), width // 2):
            places.append((0, row, column))
    start = max(height // 2, width // 2)
    for k in range(num_text):
        places.append((start + k, start + k, start + k))
    return places


def rotary_table(places, axes_dims):
    """Cosine and sine for each token and channel pair."""
    columns = []
    for axis, dim in enumerate(axes_dims):
        position = torch.tensor([float(place[axis]) for place in places])
        for pair in range(dim // 2):
            columns.append(position * torch.tensor(1.0 / 10000 ** (2 * pair / dim)))
    angles = torch.stack(columns, dim=1)
    return torch.cos(angles), torch.sin(angles)


def rotate_pairs(x, cos, sin):
    """x is (batch, heads, tokens, head_dim); channels 2j and 2j+1 are one complex number."""
    real, imaginary = x[..., 0::2], x[..., 1::2]
    turned = torch.empty_like(x)
    turned[..., 0::2] = real * cos - imaginary * sin
    turned[..., 1::2] = real * sin + imaginary * cos
    return turned


def split_heads(qkv, heads):
    batch, tokens, three_d = qkv.shape
    q, k, v = qkv.split(three_d // 3, dim=2)
    return [part.reshape(batch, tokens, heads, -1).permute(0, 2, 1, 3) for part in (q, k, v)]


def joint_attention(weights, name, config, image, text, mask, height, width):
    heads, num_image = config["num_attention_heads"], image.shape[1]
    image_q, image_k, image_v = split_heads(linear(weights, name + ".img_qkv", image), heads)
    text_q, text_k, text_v = split_heads(linear(weights, name + ".txt_qkv", text), heads)
    image_q = rms_norm(weights, name + ".norm_q", image_q, 1e-6)
    image_k = rms_norm(weights, name + ".norm_k", image_k, 1e-6)
    text_q = rms_norm(weights, name + ".norm_added_q", text_q, 1e-6)
    text_k = rms_norm(weights, name + ".norm_added_k", text_k, 1e-6)
    cos, sin = rotary_table(token_positions(height, width, text.shape[1]), config["axes_dims_rope"])
    q = rotate_pairs(torch.cat([image_q, text_q], dim=2), cos, sin)
    k = rotate_pairs(torch.cat([image_k, text_k], dim=2), cos, sin)
    v = torch.cat([image_v, text_v], dim=2)
    scores = q @ k.transpose(2, 3) / math.sqrt(config["attention_head_dim"])
    seen = torch.cat([torch.ones(len(mask), num_image, dtype=torch.bool), mask], dim=1)
    scores = torch.where(seen[:, None, None, :], scores, torch.tensor(-torch.inf))
    out = torch.softmax(scores, dim=-1) @ v
    out = out.permute(0, 2, 1, 3).reshape(len(mask), num_image + text.shape[1], -1)
    image_out = linear(weights, name + ".to_out.0", out[:, :num_image])
    return image_out, linear(weights, name + ".to_add_out", out[:, num_image:])


def swiglu(weights, name, x):
    gate = silu(linear(weights, name + ".w1", x))
    return linear(weights, name + ".w2", gate * linear(weights, name + ".w3", x))


def block(weights, name, config, image, text, cond, mask, height, width):
    image_parts = linear(weights, name + ".img_mod.1", silu(cond))[:, None, :].chunk(6, dim=2)
    text_parts = linear(weights, name + ".txt_mod.1", silu(cond))[:, None, :].chunk(6, dim=2)

    shift, scale, image_gate = image_parts[:3]
    image_in = rms_norm(weights, name + ".img_norm1", image, 1e-6) * (1 + scale) + shift
    shift, scale, text_gate = text_parts[:3]
    text_in = rms_norm(weights, name + ".txt_norm1", text, 1e-6) * (1 + scale) + shift
    image_out, text_out = joint_attention(
        weights, name + ".attn", config, image_in, text_in, mask, height, width
    )
    image, text = image + image_gate * image_out, text + text_gate * text_out

    shift, scale, image_gate = image_parts[3:]
    image_in = rms_norm(weights, name + ".img_norm2", image, 1e-6) * (1 + scale) + shift
    shift, scale, text_gate = text_parts[3:]
    text_in = rms_norm(weights, name + ".txt_norm2", text, 1e-6) * (1 + scale) + shift
    image = image + image_gate * swiglu(weights, name + ".img_mlp", image_in)
    text = text + text_gate * swiglu(weights, name + ".txt_mlp", text_in)
    return image, text


def velocity(weights, config, hidden_states, features, mask, timestep, height, width):
    """The velocity for packed latents (B, I, C); features is a list of (B, T, E), mask bool (B, T)."""
    image = linear(weights, "img_in", hidden_states)
    normed = [rms_norm(weights, f"txt_norm.{layer}", x, 1e-5) for layer, x in enumerate(features)]
    text = linear(weights, "txt_in", torch.cat(normed, dim=2))
    cond = time_embedding(weights, timestep)
    for index in range(config["num_layers"]):
        name = f"transformer_blocks.{index}"
        image, text = block(weights, name, config, image, text, cond, mask, height, width)
    scale, shift = linear(weights, "norm_out.linear", silu(cond))[:, None, :].chunk(2, dim=2)
    centred = image - image.mean(-1, keepdim=True)
    normed = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-6)
    return linear(weights, "proj_out", normed * (1 + scale) + shift)
