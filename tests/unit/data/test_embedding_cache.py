import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.embedding_cache import EmbeddingCache

HASH = "0123456789abcdef" * 4
DIM = 8


def embeddings(ids, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(len(ids), DIM)).astype(np.float32)
    norms = np.linalg.norm(raw, axis=1)
    return raw / norms[:, None], norms


def test_round_trip_and_reopen(tmp_path):
    ids = [f"{n:016x}-0" for n in range(10)]
    vectors, norms = embeddings(ids)
    cache = EmbeddingCache(tmp_path, HASH, DIM)
    cache.append(ids[:4], vectors[:4], norms[:4])
    cache.append(ids[4:], vectors[4:], norms[4:])
    for one in (cache, EmbeddingCache(tmp_path, HASH, DIM)):
        order = [7, 0, 3, 7, 9]
        found, raw = one.load([ids[i] for i in order])
        assert found.dtype == raw.dtype == np.float32
        assert np.array_equal(found, vectors[order]) and np.array_equal(raw, norms[order])
        assert one.has([*ids, "other"]).tolist() == [True] * 10 + [False]
        assert len(one) == 10 and ids[0] in one and one.ids() == ids and one.verify() == []


def test_nothing_is_made_before_the_first_append(tmp_path):
    cache = EmbeddingCache(tmp_path / "cache", HASH, DIM)
    cache.append([], np.zeros((0, DIM), np.float32), np.zeros(0, np.float32))
    assert not (tmp_path / "cache").exists() and len(cache) == 0
    vectors, norms = cache.load([])
    assert vectors.shape == (0, DIM) and norms.shape == (0,)
    assert cache.has([]).shape == (0,)


def test_the_first_of_two_counts_and_is_written_once(tmp_path):
    vectors, norms = embeddings("abc")
    cache = EmbeddingCache(tmp_path, HASH, DIM)
    cache.append(["a", "b", "a"], vectors, norms)
    cache.append(["b"], vectors[2:], norms[2:])
    assert len(list(cache.folder.glob("*.npy"))) == 1
    assert np.array_equal(cache.load(["a", "b"])[0], vectors[:2])


def test_two_writers_lose_nothing_and_agree(tmp_path):
    vectors, norms = embeddings("abc")
    one, two = EmbeddingCache(tmp_path, HASH, DIM), EmbeddingCache(tmp_path, HASH, DIM)
    one.append(["a", "b"], vectors[:2], norms[:2])
    two.append(["b", "c"], vectors[1:][::-1], norms[1:][::-1])  # two has not seen one's b
    one.refresh()
    two.refresh()
    fresh = EmbeddingCache(tmp_path, HASH, DIM)
    expected = vectors[[0, 1, 1]]
    for cache in (one, two, fresh):
        assert np.array_equal(cache.load(["a", "b", "c"])[0], expected)


def test_another_model_or_length_is_refused(tmp_path):
    vectors, norms = embeddings("a")
    EmbeddingCache(tmp_path, HASH, DIM).append(["a"], vectors, norms)
    with pytest.raises(InputError, match=r"dim must be 9, got 8"):
        EmbeddingCache(tmp_path, HASH, 9)
    with pytest.raises(InputError, match="another model"):
        EmbeddingCache(tmp_path, HASH[:16] + "f" * 48, DIM)
    other = EmbeddingCache(tmp_path, "f" * 64, 9)
    assert len(other) == 0
    for wrong in ("", "XYZ" * 30, "../../../etc/passwd"):
        with pytest.raises(InputError, match="model hash"):
            EmbeddingCache(tmp_path, wrong, DIM)
    with pytest.raises(InputError, match="dim"):
        EmbeddingCache(tmp_path, HASH, 0)


def test_wrong_rows_are_refused_and_nothing_is_written(tmp_path):
    cache = EmbeddingCache(tmp_path, HASH, DIM)
    vectors, norms = embeddings("ab")
    for ids, rows, raw in (
        (["a", "b"], vectors * 2, norms),
        (["a", "b"], vectors.astype(np.float64), norms),
        (["a", "b"], vectors[:, :4], norms),
        (["a"], vectors, norms),
        (["a", "b"], vectors, norms[:1]),
        (["a", "b\nc"], vectors, norms),
        (["a", ""], vectors, norms),
        (["a", "b\x85c"], vectors, norms),
        (["a", "b"], vectors, norms * np.nan),
    ):
        with pytest.raises(InputError):
            cache.append(ids, rows, raw)
    assert not cache.folder.exists() and len(cache) == 0
    with pytest.raises(InputError, match="no embedding of 'zz'"):
        cache.load(["zz"])


def test_damaged_shards_are_passed_over_and_can_be_embedded_again(tmp_path):
    vectors, norms = embeddings("abcdef")
    cache = EmbeddingCache(tmp_path, HASH, DIM)
    for row, one in enumerate("abcdef"):
        cache.append([one], vectors[row : row + 1], norms[row : row + 1])
    shards = sorted(cache.folder.glob("*.npy"))
    shards[0].write_bytes(shards[0].read_bytes()[:-4])
    shards[1].unlink()
    shards[2].with_suffix(".ids").write_text("facerec-embeddings-1 2 0\nc\n")
    shards[3].with_suffix(".ids").write_bytes(b"\xff\xfe")
    (cache.folder / ".tmp-half.ids").write_text("facerec-embeddings-1 1")
    (cache.folder / "orphan.npy").write_bytes(b"\x93NUMPY")
    again = EmbeddingCache(tmp_path, HASH, DIM)
    assert again.ids() == ["e", "f"] and sorted(again.damaged) == shards[:4]
    again.append(list("abcdef"), vectors, norms)
    assert np.array_equal(EmbeddingCache(tmp_path, HASH, DIM).load(list("abcdef"))[0], vectors)


def test_verify_finds_a_changed_byte(tmp_path):
    vectors, norms = embeddings("a")
    cache = EmbeddingCache(tmp_path, HASH, DIM)
    cache.append(["a"], vectors, norms)
    (shard,) = cache.folder.glob("*.npy")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert cache.verify() == [shard]


def append_range(folder, start):
    cache = EmbeddingCache(folder, HASH, DIM)
    for number in range(start, start + 20):
        ids = [f"{number}-{face}" for face in range(3)]
        vectors, norms = embeddings(ids, number)
        cache.append(ids, vectors, norms)


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_range, args=(tmp_path, s)) for s in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    cache = EmbeddingCache(tmp_path, HASH, DIM)
    assert len(cache) == 40 * 3 and cache.damaged == [] and cache.verify() == []
    for number in range(40):
        ids = [f"{number}-{face}" for face in range(3)]
        assert np.array_equal(cache.load(ids)[0], embeddings(ids, number)[0])


WRITER = """
import sys
from pathlib import Path
import numpy as np
from facerec.data.embedding_cache import EmbeddingCache
cache = EmbeddingCache(Path(sys.argv[1]), sys.argv[2], 8)
number = int(sys.argv[3])
while True:
    rng = np.random.default_rng(number)
    raw = rng.normal(size=(500, 8)).astype(np.float32)
    norms = np.linalg.norm(raw, axis=1)
    cache.append([f"{number}-{row}" for row in range(500)], raw / norms[:, None], norms)
    print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_leaves_whole_shards_only(tmp_path):
    """SIGKILL at three moments; what was reported as written is there, and the next run goes on."""
    number = 0
    for lines in (1, 3, 5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), HASH, str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        for _ in range(lines):
            assert int(writer.stdout.readline()) == number
            number += 1
        spin = time.perf_counter() + 1e-4 * lines  # anywhere inside the next append
        while time.perf_counter() < spin:
            pass
        writer.send_signal(signal.SIGKILL)
        number += len(writer.stdout.read().splitlines())
        writer.wait()
        cache = EmbeddingCache(tmp_path, HASH, DIM)
        assert cache.damaged == [] and cache.verify() == []
        assert len(cache) % 500 == 0 and len(cache) >= number * 500
        for done in range(number):
            rng = np.random.default_rng(done)
            raw = rng.normal(size=(500, 8)).astype(np.float32)
            ids = [f"{done}-{row}" for row in range(500)]
            assert np.array_equal(cache.load(ids)[1], np.linalg.norm(raw, axis=1))


def test_a_face_without_direction_is_kept_as_such(tmp_path):
    ids = ["a-0", "b-0", "c-0"]
    vectors, norms = embeddings(ids)
    vectors[1], norms[1] = 0, 0
    EmbeddingCache(tmp_path, HASH, DIM).append(ids, vectors, norms)
    found, raw = EmbeddingCache(tmp_path, HASH, DIM).load(ids)
    assert np.array_equal(found, vectors) and np.array_equal(raw, norms)
    bad_norms = (("unit norm", np.ones(3, np.float32)), ("no direction", np.zeros(3, np.float32)))
    for message, bad in bad_norms:
        with pytest.raises(InputError, match=message):
            EmbeddingCache(tmp_path / "other", HASH, DIM).append(ids, vectors, bad)
