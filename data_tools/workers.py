"""One function over many tasks: here, in several processes, or on a Ray cluster, one way for all.

Each runner yields (task, outcome) as tasks are done, in any order. An outcome is what the
function returned, or `Died` when the process that ran it ended each time it was tried. An exception
of the function ends the run.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

from facerec.checks import InputError, JobError, MissingPackageError, check_whole
from facerec.dist import cpu_count

T = TypeVar("T")
R = TypeVar("R")

TRIES = 2
"""How often a task is tried whose process dies."""
LOCAL_RAY = "local"
_RESULT_BYTES = 1 << 27  # results are figures: what a local Ray sets aside for them


class Died(NamedTuple):
    """The outcome of a task whose process ended each time.

    Attributes:
        reason: how it ended, in a few words.
    """

    reason: str


@dataclass(frozen=True)
class Crew:
    """Who does the work; the set does not depend on it.

    Attributes:
        workers: processes, at least 1; 1 without a cluster: this one. None on a cluster: as many
            as it has room for.
        ray: address of a Ray cluster, or "local"; None: none.
        threads: of each, None: the cores shared out; 1 on a cluster.
    """

    workers: int | None = None
    ray: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_whole(self.workers, "workers", 1, 4096)
        if self.threads is not None:
            check_whole(self.threads, "threads", 1, 1024)

    @property
    def abreast(self) -> int:
        """How many parts are worked on at the same time, as far as is known."""
        return self.workers or 1

    def count_threads(self) -> int:
        """Return the threads of each worker."""
        if self.threads is not None:
            return self.threads
        return 1 if self.ray is not None else max(1, cpu_count() // self.abreast)


def run_here(
    function: Callable[[T], R], tasks: Iterable[T]
) -> Generator[tuple[T, R | Died], None, None]:
    """Run the tasks in this process, in order."""
    for task in tasks:
        yield task, function(task)


@dataclass
class _Worker(Generic[T]):
    process: Any
    connection: Connection
    tasks: list[T] = field(default_factory=list)  # what it works on: one at most
    tries: int = 0


def run_in_processes(
    function: Callable[[T], R], tasks: Iterable[T], workers: int
) -> Generator[tuple[T, R | Died], None, None]:
    """Run the tasks in processes of their own, which start afresh ("spawn").

    OpenCV runs on one thread in each: what is parallel is the processes, and the function's own
    threads. A process that dies is replaced and its task tried once more. The processes end with
    this one, however it ends, and when the iterator is closed.

    Args:
        function: importable by name.
        tasks: taken as processes become free; small, they are pickled.
        workers: how many processes.
    """
    rest = iter(tasks)
    pool: list[_Worker[T]] = []
    try:
        for task in rest:
            pool.append(_start(function))
            _give(pool[-1], task)
            if len(pool) == workers:
                break
        while busy := [worker for worker in pool if worker.tasks]:
            ready = wait([worker.connection for worker in busy])
            for worker in (w for w in busy if w.connection in ready):
                tries, outcome = worker.tries, _take(worker)
                task = worker.tasks.pop()
                free = worker
                if isinstance(outcome, Died):
                    pool[pool.index(worker)] = free = _start(function)
                    if tries < TRIES:
                        _give(free, task, tries)
                        continue
                for following in islice(rest, 1):
                    _give(free, following)
                yield task, outcome
    finally:
        for worker in pool:
            worker.process.kill()
            worker.connection.close()
        for worker in pool:
            worker.process.join()


def _start(function: Callable[[T], R]) -> _Worker[T]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return _Worker(process, ours)


def _give(worker: _Worker[T], task: T, tries: int = 0) -> None:
    worker.tasks.append(task)
    worker.tries = tries + 1
    with contextlib.suppress(BrokenPipeError):  # it died: seen when its answer is read
        worker.connection.send(task)


def _take(worker: _Worker[T]) -> Any:
    """Return a worker's answer, or `Died`; raise what its function raised."""
    try:
        good, value = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.connection.close()
        return Died(_name_end(worker.process.exitcode))
    if not good:
        raise value
    return value


def _name_end(code: int) -> str:
    if code >= 0:
        return f"its process ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = ", as when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer tasks until the connection or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, function(task))
        except Exception as error:
            answer = (False, _to_sendable(error))
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _to_sendable(error: Exception) -> Exception:
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # an exception that cannot travel: its text can
        pass
    kind = InputError if isinstance(error, InputError) else JobError
    return kind(str(error) or type(error).__name__)


def use_one_thread() -> None:
    """Let OpenCV run on one thread in this process, so that processes do not outnumber cores."""
    import cv2

    cv2.setNumThreads(1)


def run_on_ray(
    function: Callable[[T], R],
    tasks: Iterable[T],
    address: str,
    workers: int | None = None,
    cores: int = 1,
) -> Generator[tuple[T, R | Died], None, None]:
    """Run the tasks on a Ray cluster; what the function reads and writes must be shared storage.

    Args:
        function: importable by name on every machine: this package must be installed there.
        tasks: taken as they are started; small, they are pickled.
        address: of the cluster ("auto", "HOST:PORT", "ray://HOST:PORT"), or "local": one is
            started here and stopped at the end.
        workers: how many tasks at the same time; None: two for each place that the cluster has,
            so that no machine waits for work.
        cores: how many a task takes.

    Raises:
        MissingPackageError: ray is not installed.
        InputError: no cluster answers at the address.
    """
    ray = _require_ray()
    _connect(ray, address, workers, cores)
    try:
        remote = ray.remote(num_cpus=cores, max_retries=TRIES - 1)(_run_single)
        rest = iter(tasks)
        running: dict[Any, T] = {}
        while True:
            places = int(ray.cluster_resources().get("CPU", 1)) // cores
            while len(running) < (workers or 2 * max(places, 1)):
                started = len(running)
                for task in islice(rest, 1):
                    running[remote.remote(function, task)] = task
                if len(running) == started:
                    break
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                yield running.pop(reference), _fetch(ray, reference)
    finally:
        ray.shutdown()


def _run_single(function: Callable[[T], R], task: T) -> R:
    use_one_thread()
    return function(task)


def _require_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "--ray needs the package 'ray', which is not installed; "
            'run: pip install "ray[default]"'
        ) from error


def _connect(ray: Any, address: str, workers: int | None, cores: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL_RAY:
        # It would tell its makers that it runs, and take a third of the memory for results.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address=LOCAL_RAY,
            num_cpus=workers * cores if workers else None,
            include_dashboard=False,
            object_store_memory=_RESULT_BYTES,
            **quiet,
        )
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise InputError(
            f"--ray {address} must be the address of a running Ray cluster, or local: {reason}"
        ) from error


def _fetch(ray: Any, reference: Any) -> Any:
    """Return a task's result, or `Died`; raise what its function raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else JobError(str(error))) from None
    except ray.exceptions.RayError as error:  # the process, its machine or its memory gave out
        return Died(f"its Ray worker died ({type(error).__name__})")
