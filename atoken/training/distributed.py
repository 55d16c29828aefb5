"""The processes of a run: one alone, or those that torchrun started; sharding, sums and gathering over them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from atoken.training.errors import TrainingError

__all__ = ["World", "full", "full_state", "joined", "local", "placed_like"]


@dataclass(frozen=True, slots=True)
class World:
    """This process among its fellows.

    Attributes:
        rank, size: 0 and 1 where there is but one process.
        device: where this rank computes.
        files: the processes once more, for what is written while training goes on: calls of two threads on one group
            would be taken for each other's.
    """

    rank: int
    size: int
    device: torch.device
    files: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank; the same answer everywhere."""
        if self.size == 1:
            return flag
        value = torch.tensor(int(flag))  # on the CPU: no wait for the device
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows [n, C] of all ranks, one rank's after another's; every rank must have as many. No gradient."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def gather_objects(self, value: Any) -> list[Any]:
        """A small value of every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of a float tensor."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()

    def shard(self, model: nn.Module, blocks: list[nn.Module], *, half: bool) -> None:
        """Cut weights, gradients and optimiser state into a part for each rank (FSDP2).

        Args:
            blocks: gathered one at a time when they run.
            half: whether blocks gather and compute in bfloat16; gradients are summed in float32 all the same.
        """
        if self.size == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        mesh = init_device_mesh(self.device.type, (self.size,))
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh)


@contextmanager
def joined(device: str | None) -> Iterator[World]:
    """Join the processes that torchrun started, if it did.

    Args:
        device: "cpu", "cuda" or "cuda:N"; CUDA where there is one if not given. Under torchrun each process takes the
            GPU of its local rank.

    Raises:
        TrainingError: CUDA is asked for and not there.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"device {kind}: no CUDA device is there; give --device cpu")
    if "RANK" not in os.environ:
        yield World(0, 1, torch.device(kind))
        return
    place = torch.device(kind)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    # Flags and small values go over the CPU, beside the device's own way.
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    files = dist.new_group(backend="gloo")
    assert isinstance(files, dist.ProcessGroup)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), place, files)
    finally:
        dist.destroy_process_group()


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; any other as it is."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This rank's part of a whole tensor, cut as `other` is, on its device."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(other, DTensor):
        return tensor.to(other.device)
    return local(distribute_tensor(tensor, other.device_mesh, other.placements))


def full(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; every rank must ask. Any other as it is."""
    whole = getattr(tensor, "full_tensor", None)
    return tensor if whole is None else whole()


def full_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`full` of every tensor."""
    return {name: full(tensor) for name, tensor in tensors.items()}
