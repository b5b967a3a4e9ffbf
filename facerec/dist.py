"""Rank and gather helpers; in one process they do nothing."""

from __future__ import annotations

import os


def rank() -> int:
    """Return this process's rank, 0 outside torchrun."""
    return int(os.environ.get("RANK", "0"))


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
