"""Workers: the same set whoever does the work, and processes that die."""

from __future__ import annotations

import hashlib
import multiprocessing
import operator
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import data_tools.ingest as module
from data_tools.ingest import Crew, ingest
from data_tools.ingest_part import PartTask, give_up_part, ingest_part
from data_tools.sets import SetFolder
from data_tools.workers import Died, run_here, run_in_processes
from facerec.checks import InputError, JobError
from facerec.data.images import UnreadableImageError
from facerec.data.manifest import read_manifest
from facerec.data.source_kinds import open_parts
from facerec.data.tars import TarSample, write_shards

REPOSITORY = Path(__file__).resolve().parents[2]
SHARDS, PER_SHARD = 6, 3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Shards, one cut, with equal pictures in different shards."""
    root = tmp_path_factory.mktemp("source") / "shards"
    rng = np.random.default_rng(0)
    chips = [rng.integers(0, 255, (112, 112, 3), np.uint8) for _ in range(SHARDS * PER_SHARD - 4)]
    encoded = [cv2.imencode(".png", chip)[1].tobytes() for chip in chips]
    samples = [
        TarSample(f"{n:03d}", encoded[n % len(encoded)], f"p{n % 5}")
        for n in range(SHARDS * PER_SHARD)
    ]
    shards = write_shards(samples, root, PER_SHARD)
    shards[3].write_bytes(shards[3].read_bytes()[:50_000])
    return root


def hash_set(root):
    """Return the hashes of what an ingest leaves, but for times."""
    files = [root / "manifest.parquet", *sorted(root.glob("chips/*/*"))]
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    return ingest(source, out, "aligned"), hash_set(out)


def test_two_workers_of_whom_one_dies_leave_the_same_set(
    source, tmp_path, undisturbed, monkeypatch
):
    killed = []

    class KillingProgress(module.Progress):
        def advance(self, count=1, note=""):
            super().advance(count, note)
            if not killed:
                victim = multiprocessing.active_children()[0]
                killed.append(victim.pid)
                victim.kill()

    monkeypatch.setattr(module, "Progress", KillingProgress)
    figures = ingest(source, tmp_path / "set", "aligned", workers=2)
    assert len(killed) == 1 and not multiprocessing.active_children()
    before, hashes = undisturbed
    assert hash_set(tmp_path / "set") == hashes
    assert {**figures, "seconds": before["seconds"]} == before
    assert [fault["shard"] for fault in figures["faults"]] == ["000003.tar"]


KILLED = """
import os, signal, sys
from pathlib import Path
import data_tools.ingest as module
class Dying(module.Progress):
    def advance(self, count=1, note=""):
        if note.startswith("part 2 of"):
            os.kill(os.getpid(), signal.SIGKILL)
module.Progress = Dying
module.ingest(Path(sys.argv[1]), Path(sys.argv[2]), "aligned", workers=2)
"""


def test_a_killed_run_of_two_workers_goes_on(source, tmp_path, undisturbed):
    out = tmp_path / "set"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", KILLED, str(source), str(out)]
    # Its workers hold its standard output: this returns when they have ended too.
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr.decode()
    parts = sorted(out.glob("parts/part-*.parquet"))
    assert 2 <= len(parts) < SHARDS and not (out / "manifest.parquet").exists()
    parts[0].unlink()  # a gap: parts come in any order
    for folder in out.glob("chips/*"):
        (folder / ".torn.png.abc.tmp").write_bytes(b"torn")
    ingest(source, out, "aligned")
    assert hash_set(out) == undisturbed[1]


def test_tasks_come_back_with_their_results():
    assert dict(run_here(operator.neg, range(5))) == {n: -n for n in range(5)}
    assert dict(run_in_processes(operator.neg, range(5), 2)) == {n: -n for n in range(5)}
    assert list(run_in_processes(operator.neg, [], 2)) == []


def test_a_task_that_kills_its_process_is_named_and_others_go_on():
    kill, leave = "__import__('os').kill(__import__('os').getpid(), 9)", "__import__('os')._exit(3)"
    found = dict(run_in_processes(eval, ["1+1", kill, "2+2", leave], 1))
    assert found["1+1"] == 2 and found["2+2"] == 4
    assert found[kill] == Died("its process was killed by SIGKILL, as when memory runs out")
    assert found[leave] == Died("its process ended with code 3")


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("(_ for _ in ()).throw(OSError(28, 'No space left on device'))", OSError),
        ("__import__('facerec.checks').checks.check_range(2, 'x', 0, 1)", InputError),
        ("__import__('json').loads('{')", ValueError),
    ],
)
def test_what_the_function_raises_ends_the_run(task, kind):
    stream = run_in_processes(eval, [task, "1"], 1)
    with pytest.raises(kind):
        list(stream)


def test_errors_that_cannot_travel_become_their_text():
    from data_tools.workers import _to_sendable

    sent = _to_sendable(UnreadableImageError("a.jpg", "damaged", "is damaged"))
    assert type(sent) is InputError and str(sent) == "a.jpg is damaged"
    odd = _to_sendable(type("Odd", (RuntimeError,), {})("text"))
    assert type(odd) is JobError and str(odd) == "text"


def build_tasks(source, out, detector="aligned", sha256=""):
    plan = open_parts(source).plan(out / ".listing.parquet", 2, 1 << 30)
    build = (out.resolve(), "s", detector, sha256, "largest", "png", 1)
    return [PartTask(part, plan.reader, *build) for part in plan.parts]


def test_a_part_that_no_worker_survives_keeps_its_rows(source, tmp_path, monkeypatch):
    def die(function, tasks, workers):
        for task in tasks:
            yield task, Died("it died") if task.part.number == 1 else ingest_part(task)

    monkeypatch.setattr(module, "run_in_processes", die)
    figures = ingest(source, tmp_path / "set", "aligned", workers=2)
    rows = read_manifest(tmp_path / "set" / "manifest.parquet").to_pylist()
    lost = [row["path"] for row in rows if row["reason"] == "it died"]
    assert lost == [f"000001.tar/{n:03d}.png" for n in range(3, 6)]
    assert {"shard": "000001.tar", "reason": "it died"} in figures["faults"]


def test_listed_parts_are_named_by_their_pictures(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).touch()
    (tmp_path / "set").mkdir()
    task = build_tasks(tmp_path / "faces", tmp_path / "set")[0]
    notes = give_up_part(task, "it died")
    assert notes.faults == (("a/1.jpg to a/2.jpg", "it died"),) and notes.pictures == 2
    rows = pq.read_table(SetFolder(tmp_path / "set").parts / "part-00000.parquet").to_pylist()
    assert [row["identity"] for row in rows] == ["a", "a"]


def test_a_worker_refuses_other_storage_and_another_detector(source, tmp_path):
    task = build_tasks(source, tmp_path, sha256="0" * 64)[0]
    with pytest.raises(InputError, match="another one on this machine"):
        ingest_part(task)
    with pytest.raises(InputError, match="storage that all machines share"):
        ingest_part(build_tasks(source, tmp_path / "elsewhere")[0])


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr("data_tools.workers.cpu_count", lambda: 8)
    threads = [Crew(w).count_threads() for w in (None, 1, 3, 8, 20)]
    assert threads == [8, 8, 2, 1, 1]
    assert Crew(2, threads=5).count_threads() == 5
    assert Crew(None, "local").count_threads() == 1
    for wrong in ({"workers": 0}, {"threads": 1.5}):
        with pytest.raises(InputError, match="must"):
            Crew(**wrong)


@pytest.mark.parametrize(("shards", "given", "bound"), [(4, None, 3), (95, None, 9), (95, 0, 0)])
def test_the_bound_of_faults_is_a_tenth_and_at_least_three(tmp_path, shards, given, bound):
    (tmp_path / "a.tar").touch()
    plan = open_parts(tmp_path).plan(tmp_path / "listing", 2, 1 << 30)
    assert module._bound_faults(replace(plan, shards=shards), given) == bound


def test_workers_get_the_detector_by_a_path_that_holds_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("yunet.onnx").touch()
    found = [
        module._resolve_detector(spec) for spec in ("yunet.onnx", "yunet", "annotations:a.csv")
    ]
    assert found == [f"{tmp_path}/yunet.onnx", "yunet", f"annotations:{tmp_path}/a.csv"]
    Path("aligned").mkdir()
    assert module._resolve_detector("aligned") == "aligned"
