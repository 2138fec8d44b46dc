"""What blocks keep for the way back: the same gradients to the bit, ever less memory, as plans say."""

import gc

import pytest
import torch
from tiny_models import DENOISER_CONFIG, randomise, tiny_denoiser
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lens.models.denoiser import LensTransformer2DModel
from lens.train.activation_checkpointing import apply_activation_checkpointing
from lens.train.cost.memory import saved_bytes_per_token
from lens.train.lora import add_lora
from lens.train.settings.run import LoraSettings

MODES = ("none", "selective", "full")


class Born(TorchDispatchMode):
    """Remembers the memory of every result, so that it can be seen later which of it is still held."""

    def __init__(self):
        super().__init__()
        self._born: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for one in tree_leaves(results):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                self._born[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return results

    def held_bytes(self, but_for: list[Tensor]) -> int:
        gc.collect()
        known = {one.untyped_storage()._cdata for one in but_for}
        held = {place: size for place, (ref, size) in self._born.items() if not ref.expired()}
        return sum(size for place, size in held.items() if place not in known)


def inputs(is_packed: bool, dtype=torch.float32) -> dict:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=draw).to(dtype)

    config = DENOISER_CONFIG
    width, layers = config["enc_hidden_dim"], len(config["selected_layer_index"])
    times = torch.tensor([0.2, 0.9])
    if is_packed:
        sizes, texts = ((2, 3), (4, 2)), (5, 7)
        return {
            "hidden_states": [normal(h * w, 16) for h, w in sizes], "timestep": times,
            "encoder_hidden_states": [[normal(count, width) for _ in range(layers)] for count in texts],
            "img_shapes": [(1, h, w) for h, w in sizes],
        }  # fmt: skip
    return {
        "hidden_states": normal(2, 15, 16), "timestep": times, "img_shapes": [(1, 3, 5)],
        "encoder_hidden_states": [normal(2, 7, width) for _ in range(layers)],
        "encoder_hidden_states_mask": torch.arange(7) < torch.tensor([7, 4])[:, None],
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_packed", [False, True])
def test_gradients_are_the_same_to_the_bit_whatever_is_kept(is_packed, dtype):
    found = {}
    for mode in MODES:
        denoiser = tiny_denoiser().train()
        apply_activation_checkpointing(denoiser, mode)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            velocity = denoiser(**inputs(is_packed)).sample
        sum(one.float().square().sum() for one in velocity).backward()
        found[mode] = {name: one.grad for name, one in denoiser.named_parameters() if one.grad is not None}
    assert len(found["none"]) > 80
    for mode in MODES[1:]:
        assert found[mode].keys() == found["none"].keys()
        assert all(torch.equal(grad, found["none"][name]) for name, grad in found[mode].items()), mode


def test_blocks_are_compiled_with_what_they_keep():
    found, kept = [], []
    for is_compiled in (False, True):
        denoiser = tiny_denoiser(num_layers=1).train()
        apply_activation_checkpointing(denoiser, "selective")
        if is_compiled:
            torch._dynamo.reset()
            denoiser.compile_repeated_blocks(backend="aot_eager_decomp_partition")
        sizes: dict[int, int] = {}

        def keep(one: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[one.untyped_storage()._cdata] = one.untyped_storage().nbytes()
            return one

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            velocity = denoiser(**inputs(is_packed=True)).sample
        kept.append(sum(sizes.values()))
        sum(one.square().sum() for one in velocity).backward()
        found.append({name: one.grad for name, one in denoiser.named_parameters() if one.grad is not None})
    eager, compiled = found
    for name, grad in compiled.items():
        torch.testing.assert_close(grad, eager[name], rtol=1e-5, atol=1e-5 * float(eager[name].abs().max()))
    # An eager block keeps its outputs out of sight of these hooks; one that is compiled hands them over.
    assert kept[1] > 1.2 * kept[0]


def kept_by(mode: str, num_layers: int, is_lora: bool = False) -> tuple[int, int]:
    """Return the bytes that a forward pass of such a denoiser leaves held, and the tokens that it saw."""
    dim, h, w, num_text = 192, 20, 20, 200  # so many tokens that attention is the fused kernel's
    denoiser = LensTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=num_layers, attention_head_dim=64, num_attention_heads=3,
        inner_dim=dim, enc_hidden_dim=8, selected_layer_index=(0,),
    )  # fmt: skip
    randomise(denoiser, seed=0)
    denoiser.bfloat16().train()
    if is_lora:
        add_lora(denoiser, LoraSettings(rank=2), 0, ["tuned"], ["tuned"])
    apply_activation_checkpointing(denoiser, mode)
    tokens = torch.zeros(1, h * w, 16, dtype=torch.bfloat16)
    text = [torch.zeros(1, num_text, 8, dtype=torch.bfloat16)]
    denoiser(tokens, text, None, torch.tensor([0.5]), [(1, h, w)])  # the rotary table is made and kept
    with Born() as born, torch.autocast("cpu", torch.bfloat16):
        velocity = denoiser(tokens, text, None, torch.tensor([0.5]), [(1, h, w)]).sample
    assert velocity.requires_grad
    known = [*denoiser.parameters(), *denoiser._rotary_cache._tables.values(), velocity]
    return born.held_bytes(known), h * w + num_text


@pytest.mark.parametrize(("mode", "is_lora"), [*((mode, False) for mode in MODES), ("selective", True)])
def test_plans_reckon_with_what_a_block_keeps(mode, is_lora):
    (less, tokens), (more, _) = kept_by(mode, 2, is_lora), kept_by(mode, 4, is_lora)
    assert saved_bytes_per_token(192, mode, is_lora) * tokens == pytest.approx((more - less) / 2, rel=0.1)


def test_selective_keeps_less_than_half_and_full_a_twentieth():
    none, selective, full = (kept_by(mode, 3)[0] for mode in MODES)
    assert full < selective < none
    assert selective < 0.5 * none and full < 0.1 * none
