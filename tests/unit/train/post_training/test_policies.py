"""One denoiser in several roles, as adapters on one base and as whole copies."""

import pytest
import torch
from tiny_models import randomise, tiny_denoiser

from lens.train.post_training.policies import BASE, PolicySet
from lens.train.settings.run import LoraSettings

INPUTS = dict(timestep=torch.tensor([0.3, 0.8]), img_shapes=[(1, 2, 3)], return_dict=False)


@pytest.fixture(params=[None, LoraSettings(rank=3, alpha=6)], ids=["whole", "adapters"])
def roles(request):
    denoiser = tiny_denoiser()
    randomise(denoiser, seed=0)
    return PolicySet(denoiser, ("student", "fake"), ("old",), request.param, seed=0)


def velocity(roles: PolicySet, role: str) -> torch.Tensor:
    torch.manual_seed(0)
    with roles.use(role) as denoiser:
        config = denoiser.config
        features = [torch.randn(2, 4, config.enc_hidden_dim) for _ in config.selected_layer_index]
        image = torch.randn(2, 6, config.in_channels)
        return denoiser(hidden_states=image, encoder_hidden_states=features, **INPUTS)[0]


def moved(roles: PolicySet, role: str) -> None:
    """Change all trained weights of a role."""
    with torch.no_grad():
        for weight in roles._weights(role).values():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))


def test_all_roles_are_alike_at_first_and_the_base_stays_as_it_was(roles):
    base = velocity(roles, BASE)
    for role in ("student", "fake", "old"):
        torch.testing.assert_close(velocity(roles, role), base)
    moved(roles, "student")
    assert (velocity(roles, "student") - base).abs().max() > 1e-3
    for role in (BASE, "fake", "old"):
        torch.testing.assert_close(velocity(roles, role), base)


def test_a_role_is_trained_by_its_own_pass_alone(roles):
    velocity(roles, "fake").square().sum().backward()
    got = {name for name, weight in roles.module.named_parameters() if weight.grad is not None}
    assert got and all("fake" in name.split(".") for name in got)


def test_a_role_that_follows_moves_to_its_leader_by_what_it_does_not_keep(roles):
    before = {name: weight.detach().clone() for name, weight in roles._weights("old").items()}
    moved(roles, "student")
    roles.ema_update("old", "student", 0.75)
    leader = roles._weights("student")
    for name, weight in roles._weights("old").items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * leader[name])
    roles.ema_update("old", "student", 0.0)
    torch.testing.assert_close(velocity(roles, "old"), velocity(roles, "student"))


def test_what_a_run_has_to_keep_are_the_weights_that_follow(roles):
    kept = roles.extra_state
    assert kept and all(name.startswith("old/") for name in kept)
    assert not any(weight.requires_grad for weight in kept.values())
    kept[next(iter(kept))].add_(1.0)
    pairs = zip(kept.values(), roles._weights("student").values(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_acting_ends_in_the_role_that_was_taken_before(roles):
    roles.set_active("fake")
    with roles.use(BASE):
        assert roles._role == BASE
    assert roles._role == "fake"


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=3, alpha=6)], ids=["whole", "adapters"])
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_gradients_are_the_same_where_blocks_are_computed_again(lora, recompute):
    gradients = []
    for way in ("none", recompute):
        denoiser = tiny_denoiser()
        randomise(denoiser, seed=0)
        roles = PolicySet(denoiser, ("student", "fake"), (), lora, seed=0, activation_checkpointing=way)
        moved(roles, "fake")
        roles.module.train()
        roles.set_active("fake")
        loss = velocity(roles, "fake").square().sum()
        with torch.no_grad():
            velocity(roles, BASE)
        loss.backward()
        gradients.append({n: w.grad for n, w in roles.module.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
