"""The denoiser under torch.compile and torch.export: one graph serves all sizes."""

import torch
from tiny_models import CAPTURED_LAYERS, TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser
from torch._dynamo.testing import CompileCounter

MAX_GRAPHS = 2
"""One for all sizes with dynamic shapes; one more where the first size has equal sides."""


def inputs(h: int, w: int, num_text: int) -> dict:
    generator = torch.Generator().manual_seed(h * w + num_text)
    features = [torch.randn(2, num_text, TEXT_WIDTH, generator=generator) for _ in CAPTURED_LAYERS]
    mask = torch.ones(2, num_text, dtype=torch.bool)
    mask[1, -2:] = False
    return {
        "hidden_states": torch.randn(2, h * w, TOKEN_CHANNELS, generator=generator),
        "encoder_hidden_states": features, "encoder_hidden_states_mask": mask,
        "timestep": torch.tensor([0.3, 0.8]), "img_shapes": [(1, h, w)],
    }  # fmt: skip


@torch.no_grad()
def test_two_graphs_serve_images_and_prompts_of_all_sizes():
    torch._dynamo.reset()
    counter, eager = CompileCounter(), tiny_denoiser(num_layers=2)
    compiled = torch.compile(eager, fullgraph=True, backend=counter, dynamic=True)
    for h, w, num_text in ((4, 4, 7), (4, 6, 9), (7, 3, 11)):
        given = inputs(h, w, num_text)
        torch.testing.assert_close(
            compiled(**given).sample, eager(**given).sample, rtol=1e-4, atol=1e-4
        )
    assert counter.frame_count <= MAX_GRAPHS


def test_an_exported_denoiser_has_no_switch_of_gradients_and_takes_other_sizes():
    free = torch.export.Dim.DYNAMIC
    dynamic_shapes = {
        "hidden_states": {1: free}, "encoder_hidden_states": [{1: free}] * len(CAPTURED_LAYERS),
        "encoder_hidden_states_mask": {1: free}, "timestep": None, "img_shapes": [(None, free, free)],
    }  # fmt: skip
    denoiser = tiny_denoiser()
    exported = torch.export.export(denoiser, (), inputs(4, 6, 7), dynamic_shapes=dynamic_shapes)
    names = [str(node.target) for node in exported.graph.nodes]
    assert not [name for name in names if "grad" in name or "inference" in name]
    given = inputs(5, 3, 9)
    with torch.no_grad():
        torch.testing.assert_close(
            exported.module()(**given).sample, denoiser(**given).sample, rtol=1e-4, atol=1e-4
        )
