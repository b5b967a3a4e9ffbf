"""A watch list under load and under fire: readers beside a writer, kills, tampering, erasure.

Everything is checked against what was acknowledged: `python -m eval.bench.gallery_faults OUT`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.bench.gallery_people import make_people, open_gallery
from eval.bench.gallery_tamper import count_found
from facerec.checks import InputError
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.gallery.erasure import find_traces
from facerec.gallery.gallery import Gallery
from facerec.gallery.schema import FILE_NAME
from facerec.gallery.vault import make_key
from facerec.models.weights import ModelInfo
from facerec.progress import Progress
from facerec.provenance import versions

DIM = 128
_BATCH = 20
_PART = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials and return the exit code: 1 when one of them failed."""
    parser = build_parser(
        "python -m eval.bench.gallery_faults",
        "Readers beside a writer, kills in the middle of an enrolment, single changed bytes, an "
        "erasure searched for in every file.",
        "python -m eval.bench.gallery_faults out/ --seconds 60 --kills 50 --json faults.json",
    )
    add = parser.add_argument
    add("out", type=Path, help="new folder for the galleries")
    add("--readers", type=int, default=32)
    add("--seconds", type=float, default=60, help="of load")
    add("--kills", type=int, default=50)
    add("--people", type=int, default=10_000, help="enrolled while it is killed")
    add("--bytes", type=int, default=200, help="changed, one at a time")
    add("--seed", type=int, default=0)
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> int | None:
    out: Path = arguments.out
    if out.exists():
        raise InputError(f"{out} exists; give a new folder")
    out.mkdir(parents=True)
    result: dict[str, Any] = {}
    jobs: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
        "load": run_load,
        "kills": run_kills,
        "tampering": run_tampering,
        "erasure": run_erasure,
    }
    for name, job in jobs.items():
        result[name] = job(arguments, out / name)
        said = ", ".join(f"{key} {value}" for key, value in result[name].items())
        sys.stdout.write(f"{name}: {said}\n")
        sys.stdout.flush()
    config = {key: getattr(arguments, key) for key in ("readers", "seconds", "kills", "people")}
    result["versions"] = versions()
    write_json_result(arguments, result, seed=arguments.seed, config=config)
    return None if all(result[name]["held"] for name in jobs) else 1


def run_load(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let processes search while one enrols; every search must be answered, rightly, and logged."""
    names, vectors = make_people(1_000, DIM, arguments.seed)
    with _create(folder) as gallery:
        _enrol(gallery, names, vectors)
        before = gallery.audit_head()[0]
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(arguments.readers + 1), context.Queue()
    given = (str(folder), arguments.seconds, ready, results)
    workers = [
        context.Process(target=_read_and_check, args=(*given, seed))
        for seed in range(arguments.readers)
    ]
    workers.append(context.Process(target=_write_on, args=given))
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    searches = sum(count for kind, count, *_ in found if kind == "read")
    written = sum(count for kind, count, *_ in found if kind == "write")
    slowest = max(slow for kind, _, _, slow in found if kind == "read")
    wrong = sum(bad for *_, bad, _ in found)
    with Gallery.open(folder) as gallery:
        logged = gallery.audit_head()[0] - before
        faults = gallery.verify_audit()
        people = len(gallery.people())
    return {
        "searches": searches,
        "enrolments": written,
        "wrong": wrong,
        "slowest_search_s": round(slowest, 3),
        "searches_a_second": round(searches / arguments.seconds, 1),
        "logged": logged,
        "held": not wrong
        and not faults
        and logged == searches + written
        and people == len(names) + written,
    }


def run_kills(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill an enrolment of many people at random moments; what was acknowledged must be there."""
    rng = np.random.default_rng(arguments.seed)
    context = multiprocessing.get_context("spawn")
    began = time.monotonic()
    _trial(context, arguments, folder / "whole", None)
    whole = time.monotonic() - began
    whole_lost, torn, moments = 0, 0, rng.uniform(0, whole, arguments.kills)
    with Progress("kills", len(moments), "kills") as progress:
        for number, moment in enumerate(moments):
            lost, faults = _trial(context, arguments, folder / f"kill-{number:02d}", float(moment))
            whole_lost += lost
            torn += faults
            progress.advance()
    return {
        "kills": len(moments),
        "lost": whole_lost,
        "torn": torn,
        "undisturbed_s": round(whole, 1),
        "held": not whole_lost and not torn,
    }


def run_tampering(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Change single bytes of the log, and of the whole file, one at a time; count those found."""
    names, vectors = make_people(200, DIM, arguments.seed)
    with _create(folder) as gallery:
        _enrol(gallery, names, vectors)
        gallery.search(vectors[:100], purpose="case 7")
    found = count_found(folder / FILE_NAME, arguments.bytes, arguments.seed)
    return {**found, "held": found["log_found"] == found["log_changed"]}


def run_erasure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Erase people from an encrypted and a plain gallery; look for their bytes in every file."""
    rng = np.random.default_rng(arguments.seed)
    names, vectors = make_people(2_000, DIM, arguments.seed)
    erased, seen_before, left = 0, 0, 0
    for kind, key in (("plain", None), ("sealed", make_key())):
        with open_gallery(folder / kind, DIM, key) as gallery:
            _enrol(gallery, names, vectors)
            gallery.search(vectors[:1])
            for row in rng.choice(len(names), 25, replace=False):
                pattern = [vectors[row].astype("<f4").tobytes()]
                seen_before += bool(find_traces(folder / kind, pattern)[1])
                gallery.erase(names[row], "asked to")
                left += bool(find_traces(folder / kind, pattern)[1])
                (answer,) = gallery.search(vectors[row][None], top=1)
                left += answer.matches[0].person == names[row]
                erased += 1
            left += len(gallery.verify_audit())
    # The plain gallery shows that the search for bytes finds them while they are there.
    return {
        "erased": erased,
        "found_before": seen_before,
        "found_after": left,
        "held": not left and seen_before == erased // 2,
    }


def _create(folder: Path) -> Gallery:
    info = ModelInfo(name="synthetic", sha256="0" * 64, embedding_dim=DIM)
    return Gallery.create(folder, info, threshold=0.5)


def _enrol(gallery: Gallery, names: Sequence[str], vectors: NDArray[np.float32]) -> None:
    norms = np.ones(len(vectors), np.float32)
    gallery.enrol_many(names, vectors, norms)


def _read_and_check(folder: str, seconds: float, ready: Any, results: Any, seed: int) -> None:
    """Search for people who were there from the start; they must be found, always."""
    names, vectors = make_people(1_000, DIM, 0)
    rng = np.random.default_rng(seed)
    count, wrong, slowest = 0, 0, 0.0
    with Gallery.open(folder, f"reader {seed}") as gallery:
        gallery.search(vectors[:1], top=1)  # opens the index; counted like the others
        count += 1
        ready.wait()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            row = int(rng.integers(len(names)))
            began = time.monotonic()
            (answer,) = gallery.search(vectors[row][None], top=1)
            slowest = max(slowest, time.monotonic() - began)
            wrong += answer.person != names[row]
            count += 1
    results.put(("read", count, wrong, slowest))


def _write_on(folder: str, seconds: float, ready: Any, results: Any) -> None:
    """Enrol new people, one an action, and find each at once."""
    names, vectors = make_people(100_000, DIM, 1)
    count, wrong = 0, 0
    with Gallery.open(folder, "writer") as gallery:
        ready.wait()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            gallery.enrol(f"new {names[count]}", vectors[count][None], np.ones(1, np.float32))
            count += 1
    results.put(("write", count, wrong, 0.0))


def _trial(
    context: Any, arguments: argparse.Namespace, folder: Path, kill_after: float | None
) -> tuple[int, int]:
    """Enrol in another process, kill it, and return how many people are lost, how many torn."""
    with _create(folder):
        pass
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_enrol_all, args=(str(folder), arguments.people, theirs))
    process.start()
    theirs.close()
    acknowledged = 0
    started = mine.recv()
    deadline = None if kill_after is None else time.monotonic() + kill_after
    assert started == "ready"
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not mine.poll(left):
                process.kill()
                deadline = None  # what it said before it died is still in the pipe
                continue
            acknowledged = mine.recv()
    except EOFError:
        process.join()
    if kill_after is None and process.exitcode != 0:
        raise InputError(f"the undisturbed enrolment ended with code {process.exitcode}")
    if process.exitcode not in (0, -signal.SIGKILL):
        raise InputError(f"an enrolment that was killed ended with code {process.exitcode}")
    lost, torn = _check(folder, acknowledged, arguments.people)
    shutil.rmtree(folder)
    return lost, torn


def _check(folder: Path, acknowledged: int, people: int) -> tuple[int, int]:
    names, vectors = make_people(people, DIM, 0)
    with Gallery.open(folder) as gallery:
        held = {person.name: person.samples for person in gallery.people()}
        lost = sum(name not in held for name in names[:acknowledged])
        torn = sum(samples != 1 for samples in held.values()) + len(gallery.verify_audit())
        # All of the batch in flight, or nothing of it.
        torn += len(held) - acknowledged not in (0, _BATCH, min(_PART, people - acknowledged))
        if acknowledged:
            last = vectors[acknowledged - 1][None]
            torn += gallery.search(last, top=1)[0].person != names[acknowledged - 1]
    return lost, torn


def _enrol_all(folder: str, people: int, said: Any) -> None:
    """Enrol in small transactions, then in large ones; say after each how many are durable."""
    names, vectors = make_people(people, DIM, 0)
    norms = np.ones(people, np.float32)
    with Gallery.open(folder) as gallery:
        said.send("ready")
        start = 0
        while start < people:
            stop = min(people, start + (_BATCH if start < people // 5 else _PART))
            gallery.enrol_many(names[start:stop], vectors[start:stop], norms[start:stop])
            start = stop
            said.send(stop)


if __name__ == "__main__":
    raise SystemExit(main())
