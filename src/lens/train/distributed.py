"""Distributed training: micro-batches per rank, sharded weights, means over ranks.

`torchrun` starts the processes. Without it a run has one rank, and nothing here has an effect. The blocks of
a model are sharded one by one, so that a rank gathers one block at a time (FSDP2). Letters: R ranks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from lens.errors import SettingError
from lens.train.settings.run import ParallelSettings

TIMEOUT = timedelta(hours=6)
"""Time limit of collectives; the first rank may encode images for hours while the others wait."""


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process in a run."""

    rank: int = 0
    world_size: int = 1
    mesh: DeviceMesh | None = None
    """(copies, shards of one copy), or None for a single rank."""

    @property
    def is_main(self) -> bool:
        """Return whether this is the rank that writes files."""
        return self.rank == 0

    def local_micro_batches(self, num_micro_batches: int) -> range:
        """Return the micro-batches of an update that this rank computes: every R-th.

        Raises: SettingError if ranks would get different numbers of them.
        """
        if num_micro_batches % self.world_size:
            needs = f"a multiple of {self.world_size}, the number of processes"
            fix = "Otherwise the samples of an update would depend on the number of processes."
            raise SettingError("micro_batches", num_micro_batches, needs, fix)
        return range(self.rank, num_micro_batches, self.world_size)

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks; every rank must call it."""
        if self.mesh is None:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def any_rank(self, *claims: bool) -> list[bool]:
        """Return for each claim whether any rank makes it; every rank must call it."""
        if self.mesh is None:
            return list(claims)
        device = "cpu" if self.mesh.device_type == "cpu" else "cuda"
        counts = torch.tensor([float(claim) for claim in claims], device=device)
        dist.all_reduce(counts)
        return (counts > 0).tolist()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run a block on the main rank first, then on the others, which can read the files that it wrote."""
        if self.mesh is not None and not self.is_main:
            dist.barrier()
        yield
        if self.mesh is not None and self.is_main:
            dist.barrier()


@contextmanager
def init_distributed(settings: ParallelSettings, device: torch.device) -> Iterator[DistributedContext]:
    """Join the processes that `torchrun` started, for the length of a `with` block.

    Raises: SettingError if the processes cannot be divided into full copies of the weights.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield DistributedContext()
        return
    shard_size = settings.shard or world_size
    if world_size % shard_size:
        raise SettingError(
            "parallel.shard", shard_size, f"a divisor of {world_size}, the number of processes"
        )
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    mesh = init_device_mesh(
        device.type, (world_size // shard_size, shard_size), mesh_dim_names=("copies", "shards")
    )
    try:
        yield DistributedContext(dist.get_rank(), world_size, mesh)
    finally:
        dist.destroy_process_group()


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def all_gather_object(value: Any) -> list[Any]:
    """Return the values of all ranks in their order; every rank must call it."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def shard_module(root_module: nn.Module, distributed: DistributedContext) -> list[Any]:
    """Shard a module's weights over the ranks, in place; return the parts that gather their own weights.

    The entries of a ModuleDict are such parts, as they are called one by one.
    """
    if distributed.mesh is None:
        return []
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    roots = list(root_module.values()) if isinstance(root_module, nn.ModuleDict) else [root_module]
    for root in roots:
        names = getattr(root, "_repeated_blocks", None) or getattr(root, "_no_split_modules", None) or ()
        for block in [module for module in root.modules() if type(module).__name__ in names]:
            fully_shard(block, mesh=distributed.mesh)
        fully_shard(root, mesh=distributed.mesh)
        for name in ("encode", "decode"):
            if hasattr(root, name):
                register_fsdp_forward_method(root, name)
    return roots


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's full weights and buffers; every rank must call it."""
    return {name: full_tensor(tensor).detach() for name, tensor in module.state_dict().items()}


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a tensor that may be sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute_like(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a full value, which every rank has, sharded like another tensor."""
    if not isinstance(tensor, DTensor):
        return value
    from torch.distributed.tensor import Replicate

    mesh = tensor.device_mesh
    replicated = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=tensor.placements)
