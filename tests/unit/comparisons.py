"""What tests of tiny models compare: state, velocities, features of fixed inputs."""

import torch
from safetensors.torch import save_file


def same_state(a, b):
    """Whether two modules hold the same tensors under the same names, bit for bit."""
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def velocity(denoiser):
    """What a tiny denoiser predicts for fixed inputs: two samples, 2 x 3 cells, 5 text tokens."""
    tokens, features = normal(2, 6, 16, seed=5), [normal(2, 5, 24, seed=6 + layer) for layer in range(4)]
    with torch.no_grad():
        return denoiser(tokens, features, None, torch.tensor([0.3, 0.9]), [(1, 2, 3)]).sample


def relative_error(got, wanted):
    """The size of a difference as a share of the size of what is wanted."""
    return ((got - wanted).norm() / wanted.norm()).item()


def normal(*shape, seed):
    """Standard normal numbers of a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(tensors, path):
    """Write tensors to a safetensors file and return its path."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path
