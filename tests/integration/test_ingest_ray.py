"""`facerec-clean ingest --ray`: the same set from a local Ray as from this process."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import tarfile

import cv2
import numpy as np
import pytest

from data_tools.ingest import ingest
from data_tools.workers import Died, run_on_ray
from facerec.checks import InputError, MissingPackageError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason='ray is not installed; pip install "ray[default]" to run this test',
)


def write_shards(root, shards=4, pictures=3):
    rng = np.random.default_rng(0)
    root.mkdir()
    for shard in range(shards):
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for picture in range(pictures):
                chip = rng.integers(0, 255, (112, 112, 3), np.uint8)
                parts = {"png": cv2.imencode(".png", chip)[1].tobytes(), "cls": b"%d" % shard}
                for suffix, data in parts.items():
                    member = tarfile.TarInfo(f"{picture}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    os.truncate(root / "2.tar", 50_000)


def hash_set(root):
    files = [root / "manifest.parquet", *sorted(root.glob("chips/*/*"))]
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@needs_ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its next versions
def test_a_local_ray_leaves_the_same_set(tmp_path):
    write_shards(tmp_path / "source")
    here = ingest(tmp_path / "source", tmp_path / "here", "aligned")
    there = ingest(tmp_path / "source", tmp_path / "there", "aligned", ray="local", workers=2)
    assert hash_set(tmp_path / "here") == hash_set(tmp_path / "there")
    assert {**there, "seconds": here["seconds"]} == here
    assert [fault["shard"] for fault in there["faults"]] == ["2.tar"]


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_tasks_on_ray_that_die_or_raise():
    kill = "__import__('os').kill(__import__('os').getpid(), 9)"
    refuse = "__import__('facerec.checks').checks.check_range(2, 'x', 0, 1)"
    stream = run_on_ray(eval, ["1+1", kill, refuse], "local", 1)
    assert next(stream) == ("1+1", 2)
    task, outcome = next(stream)
    assert task == kill and isinstance(outcome, Died) and "Ray worker died" in outcome.reason
    with pytest.raises(InputError, match=r"x must lie in \[0, 1\], got 2"):
        next(stream)


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_an_address_that_no_cluster_answers_is_one_sentence():
    with pytest.raises(InputError, match="must be the address of a running Ray cluster"):
        list(run_on_ray(abs, [1], "auto"))


def test_ray_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r'pip install "ray\[default\]"'):
        list(run_on_ray(abs, [1], "local"))
