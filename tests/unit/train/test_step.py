"""The one function that changes weights: accumulation, clipping, and a gradient that is no number."""

import pytest
import torch
from torch import nn

from lens.errors import SettingError
from lens.losses.base import LossOutput, StepStats
from lens.train.ema import Ema
from lens.train.optimizer import build_optimizers
from lens.train.settings.run import RunSettings
from lens.train.step import TrainState, train_step

PIXELS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def fresh_run(objective, micro_batches: int = 1, **optimizer) -> TrainState:
    torch.manual_seed(3)
    net = nn.Linear(5, 2)
    settings = RunSettings(
        stage="none", out="unused", steps=9, micro_batches=micro_batches,
        optimizer={"lr": 0.1, "warmup_steps": 0} | optimizer,
    )  # fmt: skip
    optimizers = build_optimizers(net, settings.optimizer)
    return TrainState(
        settings, net, optimizers, Ema(net, 0.9), lambda step, index: objective(net, step, index)
    )


def mean_square(net: nn.Module, pixels: torch.Tensor) -> LossOutput:
    loss = net(pixels).square().mean()
    return LossOutput(loss, {"size": loss.detach().sqrt()})


def test_equal_micro_batches_make_the_update_of_the_whole_batch():
    whole = fresh_run(lambda net, step, index: mean_square(net, PIXELS))
    parts = fresh_run(lambda net, step, index: mean_square(net, PIXELS[3 * index : 3 * index + 3]), 2)
    one, two = train_step(whole), train_step(parts)
    torch.testing.assert_close(one["loss"], two["loss"])
    torch.testing.assert_close(whole.model.weight, parts.model.weight)
    assert (whole.step, parts.step) == (1, 1)


def test_terms_are_means_over_micro_batches():
    run = fresh_run(
        lambda net, step, index: LossOutput(net.weight.sum(), {"index": torch.tensor(float(index))}), 3
    )
    assert train_step(run)["index"] == pytest.approx(1.0)


def test_a_batch_whose_gradient_is_no_number_changes_nothing_and_the_run_goes_on():
    def objective(net: nn.Module, step: int, index: int) -> LossOutput:
        loss, terms, _ = mean_square(net, PIXELS)
        return LossOutput(loss * (float("nan") if step == 1 and index == 1 else 1.0), terms)

    run = fresh_run(objective, 2)
    train_step(run)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in run.ema.average.items()}
    train_step(run)
    assert (run.step, run.guard.num_skipped) == (2, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())
    assert all(torch.equal(average[name], tensor) for name, tensor in run.ema.average.items())
    assert all(parameter.grad is None for parameter in run.model.parameters())
    train_step(run)
    assert (run.step, run.guard.num_skipped, run.ema.num_updates) == (3, 1, 2)
    assert not torch.equal(before["weight"], run.model.weight)


def test_the_norm_is_reported_before_clipping():
    small = fresh_run(lambda net, step, index: mean_square(net, 100 * PIXELS), max_grad_norm=1e-3)
    large = fresh_run(lambda net, step, index: mean_square(net, 100 * PIXELS), max_grad_norm=1e6)
    assert train_step(small)["grad_norm"] == pytest.approx(float(train_step(large)["grad_norm"]))


def test_the_norms_of_blocks_are_those_of_their_gradients_before_clipping():
    torch.manual_seed(0)
    blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(2))
    net = nn.ModuleDict({"blocks": blocks, "out": nn.Linear(5, 2)})

    def objective(step: int, index: int) -> LossOutput:
        hidden = blocks[1](blocks[0](PIXELS))
        return LossOutput(100 * net["out"](hidden).square().mean(), {}, StepStats(6, 30, 2e9, 0.5))

    settings = RunSettings(
        stage="none", out="unused", steps=9, optimizer={"warmup_steps": 0, "max_grad_norm": 1e-3}
    )
    run = TrainState(settings, net, build_optimizers(net, settings.optimizer), Ema(net, 0.9), objective)
    loss = objective(0, 0).loss
    wanted = torch.autograd.grad(loss, list(net.parameters()))
    told = train_step(run, log_block_norms=True)
    names = ("grad_norm/blocks.0", "grad_norm/blocks.1", "grad_norm/out")
    groups = {name: wanted[2 * place : 2 * place + 2] for place, name in enumerate(names)}
    assert {name for name in told if name.startswith("grad_norm/")} == set(groups)
    for name, gradients in groups.items():
        torch.testing.assert_close(told[name], torch.cat([one.flatten() for one in gradients]).norm())
    train_step(run)
    assert run.stats == StepStats(12, 60, 4e9, 1.0)


def two_parts(**optimizer) -> TrainState:
    """A run of two layers, of which updates are of the second in turns of three, the first after them."""
    torch.manual_seed(3)
    parts = nn.ModuleDict({"first": nn.Linear(5, 4), "second": nn.Linear(4, 2)})
    settings = RunSettings(
        stage="none", out="unused", steps=9, optimizer={"lr": 0.1, "warmup_steps": 0} | optimizer
    )
    optimizers = build_optimizers(parts, settings.optimizer)

    def objective(step: int, index: int) -> LossOutput:
        return LossOutput(parts["second"](parts["first"](PIXELS)).square().mean(), {})

    run = TrainState(settings, parts, optimizers, Ema(parts, 0.5, ("first",)), objective)
    run.ema_parts = ("first",)
    run.active_parts = lambda step: ("first",) if step % 4 == 3 else ("second",)
    return run


def test_an_update_of_one_part_leaves_the_others_and_their_optimizer_alone():
    run = two_parts()
    for step in range(8):
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        train_step(run)
        after = run.model.state_dict()
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        part = "first" if step % 4 == 3 else "second"
        assert moved == {f"{part}.weight", f"{part}.bias"}
    counts = {int(state["step"]) for state in run.optimizer.optimizers[0].state.values()}
    assert counts == {2, 6}


def test_only_what_is_averaged_is_and_only_when_it_was_updated():
    run = two_parts()
    assert set(run.ema.average) == {"first.weight", "first.bias"}
    for step in range(8):
        train_step(run)
        assert run.ema.num_updates == (step + 1) // 4
    second = run.model["second"].weight.clone()
    with run.ema.swap_into(run.model):
        assert torch.equal(run.model["first"].weight, run.ema.average["first.weight"])
        assert torch.equal(run.model["second"].weight, second)


def test_a_part_with_a_rate_of_its_own_moves_by_that_rate():
    run = two_parts(rates={"second": 0.001})
    run.active_parts = lambda _: ()
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    train_step(run)
    # AdamW's first update is the rate times the sign of the gradient.
    for name, rate in {"first.weight": 0.1, "second.weight": 0.001}.items():
        step = (run.model.state_dict()[name] - before[name]).abs().max()
        torch.testing.assert_close(step, torch.tensor(rate), rtol=0.01, atol=0)
    with pytest.raises(SettingError, match=r"optimizer.rates is 'third'"):
        two_parts(rates={"third": 0.1})


def test_what_follows_an_update_can_end_the_run_but_does_not_follow_one_that_was_left_out():
    run, seen = two_parts(), []

    def after(step: int) -> str:
        seen.append(step)
        return "enough" if step == 2 else ""

    run.after_update = after
    train_step(run)
    objective, run.objective = run.objective, lambda step, index: LossOutput(
        run.model["second"].weight.sum() * float("nan"), {}
    )
    train_step(run)
    run.objective = objective
    assert (seen, run.stop_reason) == ([0], "")
    train_step(run)
    assert (seen, run.stop_reason) == ([0, 2], "enough")
