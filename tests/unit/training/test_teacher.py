import json
import sys
import threading

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facerec import dist
from facerec.checks import InputError
from facerec.data.datasets import flip_labels, read_chip_set
from facerec.embedder import Embedder
from facerec.training import teacher
from facerec.training.teacher import (
    TeacherEmbeddings,
    load_teacher,
    open_teacher,
    save_teacher,
)

DIM = 6
SIZES = {"amy": [112, 112, 112], "bob": [112, 56, 224], "zoe": [112, 112, 112, 112]}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A linear teacher of 16x16 chips: chips have to be brought to its size."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((DIM, 3, 16, 16)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[16, 16]),
            helper.make_node("Flatten", ["c"], ["y"]),
        ],
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", DIM])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("teacher") / "linear.onnx"
    onnx.save(model, str(path))
    return path


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for person, sides in SIZES.items():
        (tmp_path / "chips" / person).mkdir(parents=True)
        for number, side in enumerate(sides):
            small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
            chip = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(tmp_path / "chips" / person / f"{number}.png"), chip)
    return tmp_path / "chips"


@pytest.fixture
def chips(folder):
    return read_chip_set(manifest=None, folder=folder)


@pytest.fixture
def embedded(monkeypatch):
    """The sizes of all calls of `Embedder.embed`; `.limit` calls are let through."""

    class Calls(list):
        limit = 10**6

    calls, embed = Calls(), Embedder.embed

    def count(self, pictures):
        if len(calls) >= calls.limit:
            raise KeyboardInterrupt
        calls.append(len(pictures))
        return embed(self, pictures)

    monkeypatch.setattr(Embedder, "embed", count)
    return calls


def load(net, chips, cache, **options):
    return load_teacher(net, chips, cache, runtime="onnxruntime", threads=1, **options)


def direct(net, chips, rows=None):
    """Return what the teacher itself gives, chip by chip."""
    model = Embedder(net, "onnxruntime", threads=1)
    pictures = [chips.read(row) for row in (range(len(chips)) if rows is None else rows)]
    pictures = [
        p if len(p) == 112 else cv2.resize(p, (112, 112), interpolation=method(len(p)))
        for p in pictures
    ]
    return model.embed(np.stack(pictures)).vectors


def method(side):
    return cv2.INTER_AREA if side > 112 else cv2.INTER_LINEAR


def test_every_chip_gets_the_teachers_own_embedding(net, chips, tmp_path):
    found = load(net, chips, tmp_path / "cache", batch_size=3)
    assert len(found) == len(chips) == 10 and found.embedding_dim == DIM
    order = np.array([7, 0, 9, 4, 4, 5])
    taught = found.lookup(order)
    assert taught.dtype == np.float32 and taught.shape == (6, DIM)
    np.testing.assert_allclose(taught, direct(net, chips, order), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(taught, axis=1), 1, atol=1e-6)
    assert found.lookup(np.zeros(0, np.int64)).shape == (0, DIM)


def test_nothing_is_embedded_twice(net, chips, folder, tmp_path, embedded):
    cache = tmp_path / "cache"
    first = load(net, chips, cache)
    assert sum(embedded) == 10
    embedded.limit = 0  # from here on a call would fail
    again = load(net, chips, cache)
    assert np.array_equal(again.lookup(np.arange(10)), first.lookup(np.arange(10)))
    # Another set of the same chips: fewer people, and labels that were flipped.
    some = load(net, chips.select(["bob", "zoe"]), cache)
    assert np.array_equal(some.lookup(np.arange(7)), first.lookup(np.arange(3, 10)))
    flipped = load(net, flip_labels(chips, 0.5, 1), cache)
    assert np.array_equal(flipped.lookup(np.arange(10)), first.lookup(np.arange(10)))
    # A chip of the same name with other pixels is another chip.
    embedded.limit, before = 10**6, len(embedded)
    cv2.imwrite(str(folder / "amy" / "1.png"), np.full((112, 112, 3), 9, np.uint8))
    renewed = load(net, chips, cache)
    assert embedded[before:] == [1]
    np.testing.assert_allclose(renewed.lookup(np.arange(10)), direct(net, chips), atol=1e-3)


def test_a_killed_run_goes_on_where_it_was(net, chips, tmp_path, embedded, monkeypatch):
    monkeypatch.setattr(teacher, "_SLICE", 3)
    embedded.limit = 2
    with pytest.raises(KeyboardInterrupt):
        load(net, chips, tmp_path)
    assert not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob("*.json"))
    embedded.limit = 10**6
    found = load(net, chips, tmp_path)
    assert embedded == [3, 3, 3, 1]
    np.testing.assert_allclose(found.lookup(np.arange(10)), direct(net, chips), atol=1e-3)


def test_a_file_without_its_card_does_not_count(net, chips, tmp_path, embedded):
    load(net, chips, tmp_path)
    (card,) = tmp_path.glob("*.json")
    card.unlink()
    embedded.limit = 1
    assert len(load(net, chips, tmp_path)) == 10 and card.is_file()


def test_corrupt_chips_are_rows_of_zeros_up_to_a_limit(net, folder, tmp_path, caplog):
    (folder / "zoe" / "1.png").write_bytes(b"no picture")
    (folder / "amy" / "0.png").write_bytes(b"")
    cv2.imwrite(str(folder / "bob" / "0.png"), np.zeros((112, 90, 3), np.uint8))
    chips = read_chip_set(manifest=None, folder=folder)
    found = load(net, chips, tmp_path / "cache", max_corrupt=3)
    assert "3 chips have no teacher" in caplog.text
    silent = [row for row in range(10) if not found.lookup(np.array([row])).any()]
    assert [chips.name(row).split("chips/")[-1] for row in silent] == [
        "amy/0.png",
        "bob/0.png",
        "zoe/1.png",
    ]
    good = [row for row in range(10) if row not in silent]
    np.testing.assert_allclose(found.lookup(np.array(good)), direct(net, chips, good), atol=1e-3)
    with pytest.raises(InputError, match="more than 2 chips cannot be read or get no direction"):
        load(net, chips, tmp_path / "other", max_corrupt=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_lean_machine_takes_a_file_and_no_runtime(chips, tmp_path, monkeypatch, dtype):
    vectors = np.random.default_rng(1).standard_normal((10, 8)).astype(dtype)
    save_teacher(tmp_path / "taught.npy", vectors, chips, "elsewhere")
    monkeypatch.setitem(sys.modules, "facerec.embedder", None)
    found = load_teacher(str(tmp_path / "taught.npy"), chips, tmp_path / "unused")
    unit = vectors.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(found.lookup(np.arange(10)), unit, atol=1e-6)
    assert not (tmp_path / "unused").exists()


def spoil_card(**changes):
    def spoil(path, folder):
        card = path.with_suffix(".json")
        card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))

    return spoil


def change_chip(path, folder):
    cv2.imwrite(str(folder / "amy" / "1.png"), np.zeros((112, 112, 3), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, _: path.unlink(), "does not exist"),
        (lambda path, _: path.with_suffix(".json").unlink(), "json does not exist"),
        (lambda path, _: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
        (lambda path, _: path.write_bytes(b""), "cannot be read"),
        (lambda path, _: path.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda path, _: path.with_suffix(".json").write_text("[]"), "card of format"),
        (spoil_card(format="x"), "must be a card of format facerec-teacher-1"),
        (spoil_card(shape=[10, 9]), r"got \(10, 8\) and a card that says \[10, 9\]"),
        (spoil_card(chips="0" * 64), "file names or labels differ"),
        (change_chip, "the files differ"),
    ],
)
def test_a_file_that_does_not_fit_the_set_is_refused(chips, folder, tmp_path, spoil, message):
    path = tmp_path / "taught.npy"
    save_teacher(path, np.ones((10, 8), np.float32), chips, "elsewhere")
    assert len(open_teacher(path, chips)) == 10
    spoil(path, folder)
    with pytest.raises(InputError, match=message):
        load_teacher(path, chips, tmp_path)


def test_a_file_of_another_set_is_refused(chips, tmp_path):
    save_teacher(tmp_path / "t.npy", np.ones((7, 8), np.float32), chips.select(["bob", "zoe"]), "")
    with pytest.raises(InputError, match=r"must hold the 10 chips of the set, got \(7, 8\)"):
        open_teacher(tmp_path / "t.npy", chips)
    flipped = flip_labels(chips, 0.5, 1)
    save_teacher(tmp_path / "f.npy", np.ones((10, 8), np.float32), flipped, "")
    with pytest.raises(InputError, match="file names or labels differ"):
        open_teacher(tmp_path / "f.npy", chips)


def test_bad_input_is_named(net, chips, tmp_path):
    values = np.ones((4, 3), np.float32)
    values[2, 1] = np.nan
    found = TeacherEmbeddings(values, "odd")
    with pytest.raises(InputError, match="that of chip 2 holds NaN"):
        found.lookup(np.array([0, 2]))
    for wrong in ([4], [0, -1]):
        with pytest.raises(InputError, match=r"must lie in \[0, 4\)"):
            found.lookup(np.array(wrong))
    with pytest.raises(InputError, match="float16 or float32"):
        TeacherEmbeddings(values.astype(np.float64), "odd")
    with pytest.raises(InputError, match=r"into a \.npy file"):
        save_teacher(tmp_path / "a.bin", values, chips, "")
    with pytest.raises(InputError, match="has 10 chips, but got 4"):
        save_teacher(tmp_path / "a.npy", values, chips, "")
    with pytest.raises(InputError, match="no model 'nobody'"):
        load_teacher("nobody", chips, tmp_path)


def test_processes_share_the_work(net, chips, tmp_path, monkeypatch):
    """Two ranks as two threads; each embeds every other slice, one of them writes the file."""
    own, meeting = threading.local(), threading.Barrier(2, timeout=30)
    sizes, found, errors = {0: [], 1: []}, {}, []
    embed = Embedder.embed

    def count(self, pictures):
        sizes[own.rank].append(len(pictures))
        return embed(self, pictures)

    monkeypatch.setattr(teacher, "_SLICE", 2)
    monkeypatch.setattr(Embedder, "embed", count)
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "rank", lambda: own.rank)
    monkeypatch.setattr(dist, "local_rank", lambda: own.rank)
    monkeypatch.setattr(dist, "max_over_ranks", lambda tensor: tensor)
    monkeypatch.setattr(dist, "barrier", meeting.wait)

    def work(rank):
        own.rank = rank
        try:
            found[rank] = load(net, chips, tmp_path).lookup(np.arange(10))
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    assert not errors
    assert sizes == {0: [2, 2, 2], 1: [2, 2]}
    assert np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], direct(net, chips), atol=1e-3)
