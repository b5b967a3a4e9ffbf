import functools
import stat

import index_backends as backends
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery.index_codes import Codes
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.index_file import read_index, write_index
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.vault import Vault
from facerec.gallery.vault_key import make_key

build_small, draw_unit = backends.build_small, backends.draw_unit

DIM = 16
META = {"collection": "c", "model": "ab" * 32, "version": 7}


def build(name):
    rng = np.random.default_rng(0)
    if name == "flat":
        index = FlatIndex(DIM, 2)
    else:
        index = CompressedIndex(DIM, build_small(name), 2, floor=0.2)
    index.upsert(np.arange(300), draw_unit(rng, 300), np.arange(300) // 2)
    index.remove(np.arange(20, 40))
    return index


@pytest.fixture
def sealing():
    vault = Vault(make_key())
    key = vault.make_data_key()

    def seal(blocks, file):
        vault.seal_stream(key, blocks, file, "index", chunk_bytes=5000)

    def unseal(source, target):
        vault.open_stream(key, source, target, "index")

    return seal, unseal


@pytest.mark.parametrize("name", ["flat", *backends.CODED])
def test_an_index_that_is_read_answers_and_grows_as_the_one_that_was_written(
    name, tmp_path, monkeypatch
):
    index, path = build(name), tmp_path / "a.index"
    write_index(index, path, meta=META)
    with monkeypatch.context() as patch:  # reading must not train
        patch.setattr(Codes, "train", None)
        loaded = read_index(path, meta=META, threads=3)
    other = loaded.index
    assert loaded.reason == "" and loaded.meta == META
    assert type(other) is type(index) and other.name == index.name and len(other) == 280
    rng = np.random.default_rng(1)
    queries, more = draw_unit(rng, 12), draw_unit(rng, 30)
    for _ in range(2):
        for exact in (False, True):
            given, wanted = (each.search(queries, 5, exact=exact) for each in (other, index))
            np.testing.assert_array_equal(given.ids, wanted.ids)
            np.testing.assert_array_equal(given.scores, wanted.scores)
        for each in (index, other):
            each.upsert(np.arange(25, 55), more, np.arange(30))
    if name != "flat":
        assert other.recipe == index.recipe and other.floor == 0.2
        assert other.codes.error == index.codes.error and other.trained_on == 300
    for each in (index, other):
        each.close()


def test_an_empty_index_and_one_without_codes_come_back(tmp_path):
    path = tmp_path / "a.index"
    for index in (FlatIndex(DIM, 1), CompressedIndex(DIM, build_small("pq4+exact"), 1)):
        for count in (0, 5):
            rows = np.eye(DIM, dtype=np.float32)[:count]
            index.upsert(np.arange(count), rows, np.arange(count))
            write_index(index, path, meta={})
            other = read_index(path, meta={}).index
            assert len(other) == count and other.name == index.name
            other.close()


def test_the_file_is_private_and_replaced_whole(tmp_path):
    path = tmp_path / "a.index"
    write_index(build("flat"), path, meta=META)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()

    def fail(blocks, file):
        file.write(next(iter(blocks)))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_index(build("flat"), path, meta=META, seal=fail)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.index"]


@pytest.mark.parametrize("name", ["flat", "rabitq+exact"])
def test_damage_and_truncation_are_noticed_wherever_they_are(name, tmp_path):
    path = tmp_path / "a.index"
    write_index(build(name), path, meta=META)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(60), *rng.integers(0, len(whole), 60), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        loaded = read_index(path, meta=META)
        assert loaded.index is None and str(path) in loaded.reason
    for length in [0, 5, 22, 30, 40, 400, len(whole) - 40, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert read_index(path, meta=META).index is None
    path.write_bytes(whole + b"x")
    assert "damaged or truncated" in read_index(path, meta=META).reason


def test_a_sealed_file_holds_no_vector_and_needs_its_key(tmp_path, sealing):
    seal, unseal = sealing
    index, path = build("pq4+exact"), tmp_path / "a.index"
    write_index(index, path, meta=META, seal=seal)
    data = path.read_bytes()
    for row in index.rows.vectors[index.rows.owners >= 0]:
        assert row.tobytes() not in data and row[:4].tobytes() not in data
    assert b"collection" not in data
    loaded = read_index(path, meta=META, open=unseal)
    assert loaded.index.search(index.rows.vectors[:1], 1).ids.tolist() == [[0]]
    assert "nothing to open it with" in read_index(path, meta=META).reason
    other = Vault(make_key())
    stranger = functools.partial(other.open_stream, b"\1" * 32, context="index")
    assert read_index(path, meta=META, open=stranger).index is None
    for place in (30, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert read_index(path, meta=META, open=unseal).index is None
    path.write_bytes(data[: len(data) // 2])
    assert read_index(path, meta=META, open=unseal).index is None
    write_index(index, path, meta=META)
    assert "not sealed" in read_index(path, meta=META, open=unseal).reason


def test_another_gallery_or_state_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "a.index"
    write_index(build("flat"), path, meta=META)
    assert read_index(path, meta={"model": META["model"]}).meta["version"] == 7
    reason = read_index(path, meta={**META, "model": "cd", "version": 8}).reason
    assert "model, version differs" in reason
    assert "missing differs" in read_index(path, meta={"missing": 1}).reason
    assert "does not exist" in read_index(tmp_path / "none", meta=META).reason
    (tmp_path / "text").write_text("hello\n")
    assert "no index of this version" in read_index(tmp_path / "text", meta=META).reason
    assert read_index(tmp_path, meta=META).index is None


def test_meta_that_is_no_json_is_the_callers_error(tmp_path):
    with pytest.raises((TypeError, ValueError, InputError)):
        write_index(build("flat"), tmp_path / "a", meta={"version": float("nan")})
    assert not list(tmp_path.iterdir())
