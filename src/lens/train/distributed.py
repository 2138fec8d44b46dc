"""Several processes as one run: who computes what, weights in shards, means over all.

Processes come from `torchrun`; without it a run is one rank and nothing here has an effect. A model's blocks
are sharded one by one, so that a rank holds one block whole at a time (FSDP2). Letters: R ranks.
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
"""How long ranks wait for each other: the first may have pictures to encode."""


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of a run."""

    rank: int = 0
    world_size: int = 1
    mesh: DeviceMesh | None = None
    """(copies, shards of one copy), or None where there is one rank."""

    @property
    def is_main(self) -> bool:
        """Return whether this is the rank that writes what all of them know."""
        return self.rank == 0

    def local_micro_batches(self, num_micro_batches: int) -> range:
        """Return the micro-batches of an update that this rank computes: every R-th.

        Raises: SettingError where ranks would get different numbers of them.
        """
        if num_micro_batches % self.world_size:
            needs = f"a multiple of {self.world_size}, the number of processes"
            fix = "Which samples make an update would otherwise depend on how many processes there are."
            raise SettingError("micro_batches", num_micro_batches, needs, fix)
        return range(self.rank, num_micro_batches, self.world_size)

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks; every rank must ask."""
        if self.mesh is None:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def any_rank(self, *claims: bool) -> list[bool]:
        """Return of each claim whether any rank makes it; every rank must ask."""
        if self.mesh is None:
            return list(claims)
        device = "cpu" if self.mesh.device_type == "cpu" else "cuda"
        counts = torch.tensor([float(claim) for claim in claims], device=device)
        dist.all_reduce(counts)
        return (counts > 0).tolist()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main rank do a block before the others do it: what it left on disk, they find."""
        if self.mesh is not None and not self.is_main:
            dist.barrier()
        yield
        if self.mesh is not None and self.is_main:
            dist.barrier()


@contextmanager
def init_distributed(settings: ParallelSettings, device: torch.device) -> Iterator[DistributedContext]:
    """Join the processes that `torchrun` started for the length of a `with` block.

    Raises: SettingError where the processes do not make up whole copies of the weights.
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
    """Return which of how many processes of the run this is."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def all_gather_object(value: Any) -> list[Any]:
    """Return what each rank gives, in their order; every rank must ask."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def shard_module(root_module: nn.Module, distributed: DistributedContext) -> list[Any]:
    """Split a module's weights over the ranks, in place; return the parts that gather theirs by themselves.

    Parts that are called one by one stand in a ModuleDict.
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
    """Return a module's weights and buffers, each whole; every rank must ask."""
    return {name: full_tensor(tensor).detach() for name, tensor in module.state_dict().items()}


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor whose parts may lie on several ranks as one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute_like(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a whole value, which every rank has, in parts as those of another tensor."""
    if not isinstance(tensor, DTensor):
        return value
    from torch.distributed.tensor import Replicate

    mesh = tensor.device_mesh
    replicated = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=tensor.placements)
