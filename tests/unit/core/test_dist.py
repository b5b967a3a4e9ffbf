import os
import subprocess
import sys

import pytest
import torch

from facerec import dist
from facerec.checks import InputError
from facerec.dist import cpu_count, is_main, rank, world_size


def test_one_process_is_the_main_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (rank(), world_size(), is_main()) == (0, 1, True)


def test_torchrun_says_who_is_who(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (rank(), world_size(), is_main()) == (2, 4, False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux affinity")
def test_cores_are_those_of_this_process():
    allowed = os.sched_getaffinity(0)
    assert cpu_count() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_cores_without_affinity_are_the_machines(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpu_count() == 6


def test_one_process_gets_back_what_it_gives(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    dist.start_process_group("cuda")  # no group, so no GPU is asked for
    assert not torch.distributed.is_initialized() and dist.local_rank() == 0
    tensor = torch.arange(6.0).reshape(3, 2).requires_grad_()
    collectives = (
        dist.sum_over_ranks,
        dist.mean_over_ranks,
        dist.max_over_ranks,
        dist.gather_rows,
        dist.broadcast_from_main,
    )
    assert all(collective(tensor) is tensor for collective in collectives)
    assert dist.broadcast_from(tensor, 0) is tensor
    assert dist.count_rows(3) == [3]
    dist.barrier()
    dist.stop_process_group()


def test_a_device_without_a_backend_is_named():
    with pytest.raises(InputError, match="device_type must be one of cpu, cuda, got 'cdua'; did"):
        dist.start_process_group("cdua")


def test_ranks_need_no_torch_to_be_asked():
    """Commands ask for the main process before they import anything heavy."""
    code = "import sys; from facerec import dist; dist.is_main(); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
