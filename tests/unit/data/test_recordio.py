import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data import record_index
from facerec.data.chip_files import ByteRanges
from facerec.data.datasets import read_chip_set
from facerec.data.images import UnreadableImageError
from facerec.data.record_index import read_records, scan
from facerec.data.recordio import (
    DamagedRecordError,
    RecordWriter,
    frame,
    pack,
    unframe,
    unpack,
)

MAGIC = bytes.fromhex("0a23d7ce")  # 0xced7230a, little endian
# Pieces that make a magic at and beside multiples of four likely.
payloads = st.lists(
    st.sampled_from([MAGIC, MAGIC[:2], MAGIC[2:], b"\0", b"ab", b"abcd", b""]), max_size=12
).map(b"".join)


def read_slowly(data):
    """Return all payloads of a file: an independent reading of the format."""
    found, whole, position = [], b"", 0
    while position < len(data):
        assert data[position : position + 4] == MAGIC and position % 4 == 0
        (word,) = struct.unpack_from("<I", data, position + 4)
        part = data[position + 8 : position + 8 + (word & 0x1FFFFFFF)]
        assert len(part) == word & 0x1FFFFFFF
        flag = word >> 29
        whole += part if flag in (0, 1) else MAGIC + part
        if flag in (0, 3):
            found.append(whole)
            whole = b""
        position += 8 + -(-len(part) // 4) * 4
    return found


def write(path, chips, layout="plain"):
    with RecordWriter(path, layout) as writer:
        return [writer.write(image, label) for image, label in chips]


def pictures(index):
    files = ByteRanges(
        (index.path,), np.zeros(len(index), np.int32), index.offsets, index.lengths, index.keys
    )
    return [unpack(unframe(files.read_bytes(row))).image for row in range(len(index))]


def test_bytes_are_as_the_format_says():
    word = struct.pack("<I", 5)
    assert frame(b"hello") == MAGIC + word + b"hello\0\0\0"
    cut = frame(b"abcd" + MAGIC + b"xy")
    first, last = struct.pack("<I", 1 << 29 | 4), struct.pack("<I", 3 << 29 | 2)
    assert cut == MAGIC + first + b"abcd" + MAGIC + last + b"xy\0\0"
    assert frame(b"a" + MAGIC) == MAGIC + word + b"a" + MAGIC + b"\0\0\0"  # not aligned: not cut
    middle = struct.pack("<I", 2 << 29)
    assert frame(MAGIC * 2)[8:16] == MAGIC + middle
    assert pack(b"jpg", 7, 9) == struct.pack("<IfQQ", 0, 7.0, 9, 0) + b"jpg"
    assert pack(b"jpg", (2.0, 0.5)) == struct.pack("<IfQQff", 2, 0, 0, 0, 2, 0.5) + b"jpg"


@given(payloads)
@settings(max_examples=200, deadline=None)
def test_frame_and_unframe_are_inverse(payload):
    framed = frame(payload)
    assert len(framed) % 4 == 0 and unframe(framed) == payload
    assert read_slowly(framed) == [payload]
    assert unframe(framed + frame(b"next")) == payload
    with pytest.raises(DamagedRecordError):
        unframe(framed[:-4])


@given(st.lists(st.tuples(payloads.map(lambda p: p + b"."), st.integers(0, 5)), min_size=1))
@settings(max_examples=60, deadline=None)
def test_files_round_trip_by_index_and_by_scan(tmp_path_factory, chips):
    path = tmp_path_factory.mktemp("rec") / "set.rec"
    assert write(path, chips) == list(range(len(chips)))
    assert len(read_slowly(path.read_bytes())) == len(chips)
    listed = read_records(path)
    path.with_suffix(".idx").unlink()
    for index in (listed, read_records(path)):
        assert pictures(index) == [image for image, _ in chips] and not index.damage
        assert index.labels.tolist() == [label for _, label in chips]
        assert index.keys.tolist() == list(range(len(chips)))


@given(
    st.lists(st.tuples(payloads.map(lambda p: p + b"."), st.integers(0, 3)), min_size=1, max_size=9)
)
@settings(max_examples=40, deadline=None)
def test_insightface_layout_reads_alike_by_identity_by_header_and_by_scan(tmp_path_factory, chips):
    chips = sorted(chips, key=lambda chip: chip[1])
    path = tmp_path_factory.mktemp("rec") / "train.rec"
    assert write(path, chips, "insightface") == list(range(1, len(chips) + 1))
    with pytest.MonkeyPatch.context() as patch:
        quick = read_records(path.parent)
        patch.setattr(record_index, "_read_by_identity", lambda *_: None)
        slow = read_records(path)
    path.with_suffix(".idx").unlink()
    scanned = read_records(path)
    for index in (quick, slow, scanned):
        assert index.keys.tolist() == list(range(1, len(chips) + 1)) and not index.damage
        assert index.labels.tolist() == [label for _, label in chips]
        assert index.offsets.tolist() == slow.offsets.tolist()
        assert index.lengths.tolist() == slow.lengths.tolist()
        assert pictures(index) == [image for image, _ in chips]


def test_insightface_layout_has_the_records_that_its_readers_expect(tmp_path):
    write(tmp_path / "train.rec", [(b"a", 4), (b"b", 4), (b"c", 6)], "insightface")
    records = [unpack(payload) for payload in read_slowly((tmp_path / "train.rec").read_bytes())]
    assert [record.image for record in records] == [b"", b"a", b"b", b"c", b"", b""]
    assert records[0].labels == (4, 6)  # keys of the records of the identities
    assert [record.labels for record in records[4:]] == [(1, 3), (3, 4)]
    lines = (tmp_path / "train.idx").read_text().splitlines()
    assert lines[0] == "0\t0" and [line.split("\t")[0] for line in lines] == list("012345")


def test_identities_are_asked_for_their_chips_only_where_ranges_agree(tmp_path, monkeypatch):
    path = tmp_path / "train.rec"
    chips = [(bytes([n]) * 5, n // 3) for n in range(9)]
    write(path, chips, "insightface")
    slow = []
    real = record_index._read_every_header
    monkeypatch.setattr(record_index, "_read_every_header", lambda *a: slow.append(1) or real(*a))
    assert read_records(path).labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and not slow
    # An identity whose last chip has another label, as when records were exchanged.
    index = read_records(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, index.offsets[5] + 12, 8.0)
    path.write_bytes(data)
    assert read_records(path).labels.tolist() == [0] * 3 + [1, 1, 8] + [2] * 3 and slow


def test_several_labels_count_by_the_first(tmp_path):
    write(tmp_path / "a.rec", [(b"x", (3.0, 0.25)), (b"y", 2)])
    index = read_records(tmp_path / "a.rec")
    assert index.labels.tolist() == [3, 2] and pictures(index) == [b"x", b"y"]
    (tmp_path / "a.idx").unlink()
    assert read_records(tmp_path / "a.rec").labels.tolist() == [3, 2]


def test_a_scan_passes_over_damage_and_names_it(tmp_path):
    path = tmp_path / "a.rec"
    chips = [(bytes([65 + n]) * (20 + n), n) for n in range(6)]
    write(path, chips)
    index, data = read_records(path), bytearray(path.read_bytes())
    path.with_suffix(".idx").unlink()
    data[index.offsets[1]] ^= 1  # its magic
    struct.pack_into("<I", data, index.offsets[3] + 4, 300)  # its length, beyond the next ones
    del data[-4:]
    path.write_bytes(data)
    found = read_records(path)
    assert found.labels.tolist() == [0, 2, 4]
    assert pictures(found) == [chips[n][0] for n in (0, 2, 4)]
    assert len(found.damage) == 3
    assert f"byte {index.offsets[1]}: no record begins there" in found.damage[0]
    assert f"byte {index.offsets[3]}: the record ends early" in found.damage[1]
    assert "bytes skipped" in found.damage[2]
    chips = read_chip_set(records=path, min_images=1)
    assert "left out as damaged: a.rec, byte" in chips.describe()


@given(st.lists(payloads.map(lambda p: pack(p + b".", 1)), min_size=2, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_one_damaged_record_leaves_all_others_readable(records, data):
    framed = [frame(payload) for payload in records]
    bad = data.draw(st.integers(0, len(records) - 1))
    framed[bad] = b"\xff" + framed[bad][1:]
    places = list(scan(b"".join(framed)))
    starts = np.cumsum([0] + [len(record) for record in framed[:-1]]).tolist()
    whole = [place.offset for place in places if not place.fault]
    assert whole == [start for n, start in enumerate(starts) if n != bad]
    assert sum(place.length for place in places) == sum(map(len, framed))


def test_damage_with_an_index_is_named_by_key(tmp_path):
    path = tmp_path / "a.rec"
    write(path, [(b"abcd" * 9, n) for n in range(5)])
    index, data = read_records(path), bytearray(path.read_bytes())
    data[index.offsets[1]] ^= 1
    struct.pack_into("<f", data, index.offsets[2] + 12, 0.5)
    struct.pack_into("<I", data, index.offsets[3] + 8, 99)  # so many labels do not fit
    del data[-4:]
    path.write_bytes(data)
    found = read_records(path)
    assert found.keys.tolist() == [0]
    assert found.damage == (
        "a.rec#1 no record begins there",
        "a.rec#2 has no label that is a whole number from 0",
        "a.rec#3 is shorter than its header says",
        "a.rec#4 the record ends early",
    )


def test_an_index_of_another_file_is_refused(tmp_path):
    path = tmp_path / "a.rec"
    write(path, [(b"abcd", 0)])
    path.with_suffix(".idx").write_text("0\t4000\n1\t8000\n")
    with pytest.raises(InputError, match=r"a\.idx has no offset inside .*another file"):
        read_records(path)
    for text in ("", "0 zero\n", "1\n2\n", "1\t2\t3\n", "1\t99999999999999999999999\n", "\xe9"):
        path.with_suffix(".idx").write_text(text)
        with pytest.raises(InputError, match="lines of a key, a tab and an offset"):
            read_records(path)
    path.with_suffix(".idx").write_text("0\t0\n1\t4000\n")
    assert read_records(path).damage == ("a.rec#1 lies outside it",)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(InputError, match=r"\.rec file or a folder with train\.rec"):
        read_records(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        read_records(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"nonsense" * 9)
    with pytest.raises(InputError, match=r"has none: train\.rec, byte 0: no record begins there"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "said"),
    [(b"", 0, "got no bytes"), (b"x", -1, "whole number"), (b"x", 1 << 24, "whole number")],
)
def test_a_refused_chip_leaves_the_old_files(tmp_path, image, label, said):
    path = tmp_path / "a.rec"
    write(path, [(b"old", 3)])
    with pytest.raises(InputError, match=said):
        write(path, [(b"new", 1), (image, label)])
    assert pictures(read_records(path)) == [b"old"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.idx", "a.rec"]


def test_writers_refuse_other_names_layouts_and_orders(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.rec"):
        RecordWriter(tmp_path / "a.tar")
    with pytest.raises(InputError, match="did you mean 'insightface'"):
        RecordWriter(tmp_path / "a.rec", "insightfaces")
    with pytest.raises(InputError, match="got 1 after 2; sort them"):
        write(tmp_path / "a.rec", [(b"x", 2), (b"y", 1)], "insightface")
    assert not list(tmp_path.iterdir())


def test_a_chip_set_reads_records_in_place(tmp_path):
    magic = b"head" + MAGIC + b"tail"
    chips = [(b"c", 9), (magic, 2), (b"a", 9), (b"b", 2), (b"z", 5)]
    write(tmp_path / "train.rec", chips)
    found = read_chip_set(records=tmp_path)
    assert found.identities == ("0000002", "0000009") and found.dropped == {"0000005": 1}
    assert found.labels.tolist() == [0, 0, 1, 1] and found.paths == ()
    assert [found.read_bytes(row) for row in range(4)] == [magic, b"b", b"c", b"a"]
    assert [found.name(row) for row in (0, 3)] == ["train.rec#1", "train.rec#2"]
    assert found.digest() == read_chip_set(records=tmp_path / "train.rec").digest()
    with pytest.raises(UnreadableImageError, match=r"train\.rec#1 must be a picture"):
        found.read(0)
    data = bytearray((tmp_path / "train.rec").read_bytes())
    data[read_records(tmp_path).offsets[3]] ^= 1
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(UnreadableImageError, match=r"train\.rec#3 is not a whole record") as error:
        found.read_bytes(1)
    assert error.value.reason == "damaged"
