"""Tasks in processes of their own, which end with the one that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import cv2

from facerec.checks import JobError

T = TypeVar("T")


def run_tasks(function: Callable[[T], int], tasks: Sequence[T], workers: int) -> Iterator[int]:
    """Yield what `function` returns for each task, in any order.

    OpenCV runs on one thread meanwhile: what is parallel is the processes. With one worker, or
    one task, all is done in this process.

    Args:
        function: importable by name, writing its own files.
        tasks: small, they are pickled.
        workers: processes.

    Raises:
        JobError: a process was killed, as when memory runs out; the same command goes on.
    """
    if workers == 1 or len(tasks) < 2:
        yield from _run_here(function, tasks)
        return
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_prepare)
    try:
        for done in as_completed([pool.submit(function, task) for task in tasks]):
            yield done.result()
    except BrokenProcessPool:
        raise JobError(
            "a worker process was killed, as when memory runs out; run the same command again to "
            "go on, with fewer --workers if memory is short"
        ) from None
    finally:
        # What is begun is not waited for: a file appears whole or not at all.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
            process.join()


@contextlib.contextmanager
def name_path(path: Path) -> Iterator[None]:
    """Let an OSError that names no file, as one of a full disk, name the one being written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _run_here(function: Callable[[T], int], tasks: Sequence[T]) -> Iterator[int]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for task in tasks:
            yield function(task)
    finally:
        cv2.setNumThreads(threads)


def _prepare() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however that is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
