"""The average against its closed form, and what a `with` block leaves behind."""

import pytest
import torch
from torch import nn

from lens.train.ema import Ema


def net_of(value: float) -> nn.Linear:
    net = nn.Linear(2, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


def test_the_average_is_the_weighted_sum_of_all_weights_seen():
    net = net_of(1.0)
    ema = Ema(net, decay=0.3)
    expected = 1.0
    for updates, value in enumerate((2.0, -1.0, 5.0, 0.5, 3.0)):
        net.load_state_dict(net_of(value).state_dict())
        ema.update(net)
        decay = min(0.3, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * value
    assert all(
        average.flatten().tolist() == pytest.approx([expected] * average.numel())
        for average in ema.average.values()
    )


def test_the_average_stands_in_for_the_weights_inside_the_block_alone_even_after_an_error():
    net = net_of(1.0)
    ema = Ema(net, decay=0.5)
    net.load_state_dict(net_of(4.0).state_dict())
    with pytest.raises(KeyError), ema.swap_into(net):
        assert (net.weight == 1.0).all()
        raise KeyError
    assert (net.weight == 4.0).all()
    assert all((average == 1.0).all() for average in ema.average.values())


def test_frozen_weights_are_not_averaged():
    net = net_of(1.0)
    net.bias.requires_grad_(False)
    assert list(Ema(net, 0.9).average) == ["weight"]


def test_a_restored_average_goes_on_where_it_was():
    net = net_of(1.0)
    ema, other = Ema(net, 0.9), Ema(net, 0.9)
    net.load_state_dict(net_of(2.0).state_dict())
    ema.update(net)
    other.load_state_dict(ema.state_dict())
    for one in (ema, other):
        one.update(net)
    assert other.num_updates == 2
    assert torch.equal(ema.average["weight"], other.average["weight"])
