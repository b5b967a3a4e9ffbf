"""Rank and gather helpers; in one process they do nothing.

The processes are started by torchrun, whose environment says who is who. None of the functions
is differentiable; where they are collective, every rank has to call them in the same order.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

from facerec.checks import check_one_of

if TYPE_CHECKING:  # commands import this module for their --help: torch waits until it is used
    from torch import Tensor


def rank() -> int:
    """Return this process's rank, 0 outside torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's rank on its own machine, 0 outside torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return the number of processes, 1 outside torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Return whether this process writes files and shows progress."""
    return rank() == 0


def cpu_count() -> int:
    """Return the cores this process may use (its affinity, not the machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_process_group(device_type: str) -> None:
    """Connect the processes that torchrun started; nothing to do for one, or if connected.

    Tensors on the CPU travel by gloo, those on a GPU by NCCL, where every process takes the GPU
    of its local rank.

    Args:
        device_type: "cpu" or "cuda".

    Raises:
        InputError: another device type.
    """
    check_one_of(device_type, "device_type", ("cpu", "cuda"))
    if world_size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        return
    if device_type == "cuda":
        torch.cuda.set_device(local_rank())
    backend = "gloo" if device_type == "cpu" else "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)


def stop_process_group() -> None:
    """Leave the group, after all ranks came this far; nothing to do where none was started."""
    if world_size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        barrier()
        torch.distributed.destroy_process_group()
        # What is left of the group in reference cycles has threads: they must end while the
        # interpreter still stands, or the process may abort at its exit.
        gc.collect()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks, of the same shape on each; the input stays as it is."""
    if world_size() == 1:
        return tensor
    import torch

    total = _own_copy(tensor)
    torch.distributed.all_reduce(total)
    return total


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Return the mean over all ranks of a floating tensor; the input stays as it is."""
    return tensor if world_size() == 1 else sum_over_ranks(tensor) / world_size()


def max_over_ranks(tensor: Tensor) -> Tensor:
    """Return the elementwise maximum over all ranks; the input stays as it is."""
    if world_size() == 1:
        return tensor
    import torch

    largest = _own_copy(tensor)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest


def count_rows(rows: int) -> list[int]:
    """Return the number of rows that each rank has, in rank order.

    Args:
        rows: of this rank.
    """
    if world_size() == 1:
        return [rows]
    import torch

    # On the CPU, so that no GPU has to finish its queue first.
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    torch.distributed.all_gather(counts, torch.tensor([rows]))
    return [int(count) for count in counts]


def gather_rows(tensor: Tensor, counts: list[int] | None = None) -> Tensor:
    """Return the rows of all ranks, concatenated in rank order, the same on each.

    Args:
        tensor: (n, ...), on every rank of the same dtype and of the same shape but for n.
        counts: n of every rank, where the caller knows (see count_rows); None asks them.
    """
    if world_size() == 1:
        return tensor
    import torch

    counts = count_rows(len(tensor)) if counts is None else counts
    longest = max(counts)
    own = tensor.detach().contiguous()
    if len(own) < longest:  # the collective wants equal shapes: pad, and cut off again
        own = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
    parts = [torch.empty_like(own) for _ in counts]
    torch.distributed.all_gather(parts, own)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def broadcast_from(tensor: Tensor, source: int) -> Tensor:
    """Return the tensor of one rank on all; every rank gives one of that shape and dtype."""
    if world_size() == 1:
        return tensor
    import torch

    shared = _own_copy(tensor)
    torch.distributed.broadcast(shared, src=source)
    return shared


def broadcast_from_main(tensor: Tensor) -> Tensor:
    """Return rank 0's tensor on all; every rank gives one of that shape and dtype."""
    return broadcast_from(tensor, 0)


def barrier() -> None:
    """Wait until all ranks came this far."""
    if world_size() == 1:
        return
    import torch

    # A sum on the CPU needs everyone, as a barrier does, and leaves the GPUs alone.
    torch.distributed.all_reduce(torch.zeros(1))


def _own_copy(tensor: Tensor) -> Tensor:
    import torch

    return tensor.detach().clone(memory_format=torch.contiguous_format)
