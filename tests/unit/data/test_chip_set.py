import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data import chip_files
from facerec.data.chip_dataset import ChipDataset
from facerec.data.chip_files import ByteRanges, FilePool, name_some
from facerec.data.datasets import (
    ChipSet,
    build_chip_set,
    flip_labels,
    hold_out,
    read_chip_set,
    read_unlabelled,
)
from facerec.data.images import UnreadableImageError
from facerec.data.manifest import build_manifest, write_manifest
from facerec.data.recordio import RecordWriter
from facerec.data.tars import TarSample, write_shards


def encode(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def flat(value, side=16):
    return np.full((side, side, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three people with 4, 2 and 2 chips, whose grey is 10 times the place in the set."""
    row = 0
    for person, count in (("amy", 4), ("bob", 2), ("eve", 2)):
        (tmp_path / "chips" / person).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "chips" / person / f"{number}.png").write_bytes(encode(flat(10 * row)))
            row += 1
    return tmp_path / "chips"


def shown(dataset):
    return [int(dataset.read(row)[0, 0, 0]) // 10 for row in range(len(dataset))]


# Where chips lie


def test_every_packing_gives_the_same_chips(folder, tmp_path):
    loose = read_chip_set(folder=folder)
    rows = range(len(loose))
    samples = [
        TarSample(f"{row}", loose.read_bytes(row), loose.identities[loose.labels[row]])
        for row in rows
    ]
    write_shards(samples, tmp_path / "tars", 3)
    with RecordWriter(tmp_path / "train.rec", "insightface") as writer:
        for row in rows:
            writer.write(loose.read_bytes(row), int(loose.labels[row]))
    tars = read_chip_set(tars=tmp_path / "tars")
    records = read_chip_set(records=tmp_path)
    assert tars.identities == loose.identities
    assert records.identities == ("0000000", "0000001", "0000002")
    for chips in (tars, records):
        assert chips.labels.tolist() == loose.labels.tolist() and chips.paths == ()
        assert [chips.read_bytes(row) for row in rows] == [loose.read_bytes(row) for row in rows]
        assert np.array_equal(chips.read(5), flat(50))
        assert shown(ChipDataset(chips, 8)) == list(rows)
        copied = pickle.loads(pickle.dumps(copy.deepcopy(chips)))
        assert copied.digest() == chips.digest()
        assert copied.read_bytes(3) == loose.read_bytes(3)
    assert len({chips.digest() for chips in (loose, tars, records)}) == 3
    assert loose.name(4).endswith("bob/0.png") and records.name(4) == "train.rec#5"
    assert (records.describe(), tars.describe()) == ("8 chips of 3 identities",) * 2


def test_exactly_one_place_is_asked_for(tmp_path):
    with pytest.raises(
        InputError,
        match=r"one of data\.manifest, data\.folder, data\.records and data\.tars .* got none",
    ):
        read_chip_set()
    with pytest.raises(InputError, match=r"got data\.folder and data\.tars; give"):
        read_chip_set(folder=tmp_path, tars=tmp_path)
    with pytest.raises(InputError, match=r"unlabelled\.manifest, .* got none"):
        read_unlabelled()
    with pytest.raises(InputError, match="split must be empty without a manifest, got 'train'"):
        read_chip_set(folder=tmp_path, split="train")


def test_unknown_people_have_no_labels(folder, tmp_path):
    chips = read_unlabelled(folder=folder)
    assert chips.labels.tolist() == [-1] * 8 and chips.identities == ()
    assert chips.describe() == "8 chips of 0 identities"
    assert shown(ChipDataset(chips, 8)) == list(range(8))
    with pytest.raises(InputError, match="got none among 8 chips of 0 identities"):
        chips.select({"amy"})
    with pytest.raises(InputError, match="8 of 8 have none"):
        flip_labels(chips, 0.1, 0)


def test_rows_without_identity_are_the_unknown_people_of_a_manifest(folder, tmp_path):
    def row(number, identity):
        return {
            "path": f"{number}.jpg",
            "sha256": f"{number:064x}",
            "width": 200,
            "height": 200,
            "identity": identity,
            "chip": f"chips/amy/{number}.png",
            "box": [10, 10, 90, 110],
            "landmarks": [30, 40, 70, 40, 50, 60, 35, 80, 65, 80],
            "det_score": 0.9,
            "faces": 1,
            "policy": "largest",
        }

    write_manifest(build_manifest([row(0, "amy"), row(3, ""), row(1, "")]), tmp_path / "m.parquet")
    chips = read_unlabelled(manifest=tmp_path / "m.parquet")
    assert shown(ChipDataset(chips, 8)) == [1, 3]
    assert len(read_chip_set(manifest=tmp_path / "m.parquet", min_images=1)) == 1
    write_manifest(build_manifest([row(0, "amy")]), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="chips without an identity, got none"):
        read_unlabelled(manifest=tmp_path / "m.parquet")


# Labels


def numbered(labels, names="abcdefgh"):
    labels = np.asarray(labels, np.int64)
    paths = tuple(f"{row}.png" for row in range(len(labels)))
    return ChipSet(paths, labels, tuple(names[: labels.max() + 1]))


@given(st.integers(2, 8), st.integers(1, 60), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_exactly_the_share_of_labels_is_changed_and_the_truth_kept(people, extra, share, seed):
    labels = np.r_[np.arange(people), np.random.default_rng(seed).integers(0, people, extra)]
    chips = numbered(labels)
    noisy = flip_labels(chips, share, seed)
    assert (noisy.labels != labels).sum() == round(share * len(labels))
    assert np.array_equal(noisy.truth, labels) and noisy.identities == chips.identities
    assert noisy.labels.min() >= 0 and noisy.labels.max() < people
    assert np.array_equal(noisy.labels, flip_labels(chips, share, seed).labels)
    assert np.array_equal(flip_labels(noisy, share, seed + 1).truth, labels)
    assert np.array_equal(chips.labels, labels) and chips.truth is None


def test_wrong_labels_are_uniform_over_the_others():
    noisy = flip_labels(numbered(np.repeat(np.arange(4), 3000)), 0.5, 3)
    changed = noisy.labels != noisy.truth
    table = np.zeros((4, 4), int)
    np.add.at(table, (noisy.truth[changed], noisy.labels[changed]), 1)
    assert (np.diag(table) == 0).all()
    assert np.abs(table[~np.eye(4, dtype=bool)] - 500).max() < 100  # 4.6 standard deviations
    with pytest.raises(InputError, match="at least two identities to exchange, got 1"):
        flip_labels(numbered([0, 0]), 0.5, 0)
    with pytest.raises(InputError, match="label_noise"):
        flip_labels(numbered([0, 1]), -0.1, 0)


def test_a_selection_counts_labels_and_truth_anew():
    chips = ChipSet(
        tuple(f"{n}.png" for n in range(6)),
        np.array([0, 2, 3, 2, 0, 3]),
        ("a", "b", "c", "d"),
        {"e": 1},
        truth=np.array([0, 2, 1, 0, 2, 3]),
        damage=("broken",),
    )
    part = chips.select({"a", "c", "b", "x"})  # b has lost its chips
    assert part.identities == ("a", "c") and part.labels.tolist() == [0, 1, 1, 0]
    assert part.truth.tolist() == [0, 1, 0, 1] and part.dropped == {}
    assert part.paths == ("0.png", "1.png", "3.png", "4.png")
    assert chips.select({"d"}).truth.tolist() == [-1, 0]  # its first chip is of somebody else
    assert "left out as damaged: broken" in part.describe()
    kept, held = hold_out(numbered([0, 1, 2, 3, 3]), 0.5, 1)
    assert len(kept) + len(held) == 5 and not set(kept.identities) & set(held.identities)


def test_sets_are_built_in_order_of_identity_and_path():
    rows = [("b2", "z"), ("b1", "z"), ("a1", "a"), ("c", "one"), ("a0", "a")]
    chips = build_chip_set(rows, 2, "test")
    assert chips.paths == ("a0", "a1", "b1", "b2") and chips.dropped == {"one": 1}
    assert chips.labels.tolist() == [0, 0, 1, 1] and chips.identities == ("a", "z")
    with pytest.raises(InputError, match=r"test must hold .* 5 chips of 3 identities"):
        build_chip_set(rows, 3, "test")


# Big files


def count_open():
    return len(list(Path("/dev/fd").iterdir()))


def test_ranges_are_read_by_threads_and_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(chip_files, "_MAX_OPEN", 2)
    files = tuple(tmp_path / f"{n}.bin" for n in range(4))
    for n, path in enumerate(files):
        path.write_bytes(bytes(range(n, n + 100)))
    rng = np.random.default_rng(0)
    file_of = rng.integers(0, 4, 200).astype(np.int32)
    offsets, lengths = rng.integers(0, 50, (2, 200))
    ranges = ByteRanges(files, file_of, offsets, lengths, np.arange(200))
    expected = [
        bytes(range(f + o, f + o + n)) for f, o, n in zip(file_of, offsets, lengths, strict=True)
    ]
    before = count_open()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ranges.read_bytes, range(200))) == expected
    assert count_open() <= before + 2
    part = ranges.take(np.array([7, 3]))
    assert part.pool is ranges.pool and part.name(0) == f"{file_of[7]}.bin/7"
    assert part.read_bytes(1) == expected[3]
    del ranges, part
    assert count_open() == before


def test_short_reads_are_put_together(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(200)))
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, length, at: whole(handle, min(length, 7), at))
    assert FilePool().read(path, 10, 100) == bytes(range(10, 110))
    assert FilePool().read(path, 190, 100) == bytes(range(190, 200))


def test_ranges_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    columns = np.zeros(2, np.int32), np.array([1, 0]), np.array([2, 1 << 31])
    ranges = ByteRanges((path,), *columns, np.arange(2))
    assert ranges.read_bytes(0) == b"bc"
    with pytest.raises(UnreadableImageError, match=r"a\.tar/1 has .* bytes, more than"):
        ranges.read_bytes(1)
    path.write_bytes(b"ab")
    with pytest.raises(UnreadableImageError, match=r"a\.tar/0 ends early"):
        ranges.read_bytes(0)
    fresh = ByteRanges((tmp_path / "b.tar",), *columns, np.arange(2))
    with pytest.raises(
        UnreadableImageError, match=r"b\.tar/0 in .* cannot be read: No such"
    ) as error:
        fresh.read_bytes(0)
    assert error.value.reason == "missing file"


def test_many_sentences_are_counted():
    assert name_some(["a", "b"]) == ("a", "b")
    many = name_some([str(n) for n in range(1234)])
    assert len(many) == 101 and many[-1] == "and 1,134 more like these"
