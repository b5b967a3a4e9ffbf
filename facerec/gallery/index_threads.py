"""Threads of the index: many readers or one writer, and a pool that shares out one search."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from facerec.checks import check_whole, require

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")

MOST_THREADS = 1024


class ReadWriteLock:
    """Any number of readers, or one writer; a waiting writer goes before new readers.

    Not reentrant: a reader that takes it again while a writer waits would wait for ever.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._readers = 0
        self._writing = False
        self._waiting = 0

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Hold the lock beside other readers."""
        with self._turn:
            while self._writing or self._waiting:
                self._turn.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._turn:
                self._readers -= 1
                if not self._readers:
                    self._turn.notify_all()

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._turn:
            self._waiting += 1
            try:
                while self._writing or self._readers:
                    self._turn.wait()
                self._writing = True
            finally:
                self._waiting -= 1
                if not self._writing:  # interrupted while it waited: readers may go on
                    self._turn.notify_all()
        try:
            yield
        finally:
            with self._turn:
                self._writing = False
                self._turn.notify_all()


class Workers:
    """A pool of threads, each of which runs FAISS on one core.

    FAISS answers one query on one core, and starts a team of threads a call for more: here the
    rows are shared out instead, so that a single query uses every core too.

    Args:
        count: threads, in [1, 1024]; the cores this process may use when None.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = check_whole(count, "threads", 1, MOST_THREADS) if count else count_cores()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        self._guard = threading.Lock()

    def map(self, job: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
        """Return the job's result for each part, in order; a single part runs in this thread.

        Several all run in the pool: in a thread that may start a team FAISS takes twice as long
        over one query's rows.
        """
        if len(parts) == 1:
            return [job(parts[0])]
        return list(self._start().map(job, parts))

    def close(self) -> None:
        """Let the threads end."""
        with self._guard:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None

    def _start(self) -> ThreadPoolExecutor:
        with self._guard:
            # A forked process has the pool but none of its threads.
            if self._pool is None or self._process != os.getpid():
                faiss = require("faiss")
                # The number of OpenMP threads belongs to the calling thread: others keep theirs.
                self._pool = ThreadPoolExecutor(
                    self.count, "index", initializer=faiss.omp_set_num_threads, initargs=(1,)
                )
                self._process = os.getpid()
            return self._pool


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
