"""Sources in parts: what each kind lists, whom it names, and what it says of damage."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facerec.checks import InputError
from facerec.data.recordio import RecordWriter
from facerec.data.source_kinds import SOURCE_KINDS, guess_part_kind, open_parts
from facerec.data.source_parts import Part
from facerec.data.source_tars import TarReader
from facerec.data.sources import scan_source

BIG = 1 << 30


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def read_parts(source, listing, part_pictures=3, part_bytes=BIG):
    """Return the plan, and (key, identity, split, bytes) of all pictures, and all contents."""
    plan = source.plan(listing, part_pictures, part_bytes)
    reader = pickle.loads(pickle.dumps(plan.reader))  # as another process gets it
    contents = [reader.read_part(part) for part in plan.parts]
    rows = [
        (item.key, item.identity, item.split, item.read_bytes())
        for content in contents
        for item in content.items
    ]
    return plan, rows, contents


@pytest.fixture
def listing(tmp_path_factory):
    return tmp_path_factory.mktemp("listing") / ".listing.parquet"


@pytest.fixture
def tree(tmp_path):
    names = ["a b/2.jpg", "a/1.png", "a-b/x/3.jpg", "a.jpg", "z.gif", "b/note.txt"]
    for name in [*names, os.fsdecode(b"c/\xff.jpg")]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode("utf-8", "replace"))
    return tmp_path


@pytest.mark.parametrize("kind", ["folder", "loose"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_listed_folder_is_what_a_scan_finds(tree, listing, kind, size):
    plan, rows, _ = read_parts(open_parts(tree, kind), listing, size)
    scanned = scan_source(tree, kind).items
    assert [row[:3] for row in rows] == [(i.key, i.identity, i.split) for i in scanned]
    assert [row[3] for row in rows] == [item.path.read_bytes() for item in scanned]
    assert [item.key for item in scanned] == sorted(item.key for item in scanned)
    assert plan.pictures == 6 and plan.ignored == 1 and len(plan.parts) == -(-6 // size)
    assert plan.reader.name_part(plan.parts[0]).startswith("a b/2.jpg to ")
    assert plan.parts[-1].end == 6 and plan.parts[0:1] == [Part(0, "", 0, min(size, 6))]
    with pytest.raises(IndexError):
        plan.parts[len(plan.parts)]


def test_the_hash_of_a_listing_follows_names_and_identities(tree, listing):
    before = open_parts(tree).plan(listing, 2, BIG).listing
    assert open_parts(tree).plan(listing, 5, BIG).listing == before
    assert open_parts(tree, "loose").plan(listing, 2, BIG).listing != before
    (tree / "b" / "new.jpg").write_bytes(b"x")
    assert open_parts(tree).plan(listing, 2, BIG).listing != before


def test_a_list_names_whom_its_column_says(tree, listing):
    table = tree / "list.csv"
    table.write_text("path,identity,who,split\na/1.png,x,ann,test\n./a.jpg,y,bob,\n")
    _, rows, _ = read_parts(open_parts(table), listing)
    assert [row[:3] for row in rows] == [("a.jpg", "y", ""), ("a/1.png", "x", "test")]
    _, rows, _ = read_parts(open_parts(table, identity_column="who"), listing)
    assert [row[1] for row in rows] == ["bob", "ann"]
    with pytest.raises(InputError, match="'wo' is missing; did you mean 'who'"):
        open_parts(table, identity_column="wo")


def test_webdataset_labels(tmp_path, listing):
    write_tar(
        tmp_path / "0.tar",
        [
            ("./a.jpg", b"A"),
            ("a.json", b'{"identity": "ann", "who": "x"}'),
            ("a.cls", b"3"),
            ("b.cls", b" 17 "),  # before its picture
            ("b.PNG", b"B"),
            ("c.jpg", b"C"),
            ("c.txt", b"Carl\n"),
            ("d.jpg", b"D"),
            ("d.json", b"no json"),
            ("d.txt", b"two\nlines"),
            ("e.webp", b"E"),
            ("f/e.jpg", b"F"),
            ("f/e.json", b'{"label": 5}'),
            ("../g.jpg", b"G"),
            ("a.jpg", b"again"),
            ("notes.md", b""),
            ("._h.jpg", b""),
        ],
    )
    source = open_parts(tmp_path)
    assert source.kind == "webdataset"
    plan, rows, (content,) = read_parts(source, listing)
    assert not listing.exists() and plan.pictures is None and plan.shards == 1
    assert [(key, who, data) for key, who, _, data in rows] == [
        ("0.tar/a.jpg", "ann", b"A"),
        ("0.tar/b.PNG", "0000017", b"B"),
        ("0.tar/c.jpg", "Carl", b"C"),
        ("0.tar/d.jpg", "", b"D"),
        ("0.tar/e.webp", "", b"E"),
        ("0.tar/f/e.jpg", "0000005", b"F"),
        ("0.tar/%2e%2e/g.jpg", "", b"G"),
    ]
    (fault,) = content.faults
    assert fault.shard == "0.tar" and "1 labels cannot be read, first d.json" in fault.reason
    assert content.ignored == 2
    _, rows, _ = read_parts(open_parts(tmp_path, identity_column="who"), listing)
    assert [row[1] for row in rows][:2] == ["x", "0000017"]


@pytest.mark.parametrize("part_bytes", [512, 1024, 5000, BIG])
def test_ranges_of_a_shard_hold_each_picture_once(tmp_path, listing, part_bytes):
    members = []
    for number in range(9):
        members += [(f"{number}.jpg", bytes([number]) * 700), (f"{number}.cls", b"%d" % number)]
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "b.tar", members[:4])
    plan, rows, contents = read_parts(open_parts(tmp_path), listing, part_bytes=part_bytes)
    shards = [("a.tar", n) for n in range(9)] + [("b.tar", n) for n in range(2)]
    expected = [(f"{s}/{n}.jpg", f"{n:07d}", "", bytes([n]) * 700) for s, n in shards]
    assert rows == expected
    assert not any(content.faults for content in contents)
    assert [part.number for part in plan.parts] == list(range(len(plan.parts)))


def cut(path, size):
    os.truncate(path, size)


def test_a_cut_shard_keeps_what_stands_before(tmp_path, listing):
    path = write_tar(tmp_path / "a.tar", [(f"{n}.jpg", b"x" * 600) for n in range(5)])
    cut(path, 4000)  # in the third picture
    for part_bytes in (BIG, 1536):
        _, rows, contents = read_parts(open_parts(tmp_path), listing, part_bytes=part_bytes)
        assert [row[0] for row in rows] == ["a.tar/0.jpg", "a.tar/1.jpg"]
        (fault,) = [fault for content in contents for fault in content.faults]
        assert fault.shard == "a.tar" and "cut inside a member; the 2 pictures" in fault.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "end marker is missing"), (b"\x1f\x8bxx", "compressed"), (b"?" * 512, "damaged")],
)
def test_what_is_no_tar_is_a_fault(tmp_path, listing, content, reason):
    (tmp_path / "a.tar").write_bytes(content)
    _, rows, (found,) = read_parts(open_parts(tmp_path), listing)
    assert rows == [] and reason in found.faults[0].reason
    gone = TarReader(tmp_path, ("identity",), False).read_part(Part(0, "gone.tar", 0, 10))
    assert "cannot be read: No such file" in gone.faults[0].reason and not gone.items


def write_img2dataset(root, shard="00000", extra=None, rows=4):
    """Write a shard with a failed download at row 1."""
    keys = [f"{shard}{n:04d}" for n in range(rows)]
    good = [key for n, key in enumerate(keys) if n != 1]
    members = []
    for key in good:
        members += [(f"{key}.jpg", key.encode()), (f"{key}.txt", b"A caption")]
        members.append((f"{key}.json", json.dumps({"key": key, "name": f"json {key}"}).encode()))
    write_tar(root / f"{shard}.tar", members)
    table = {
        "url": [f"http://x/{key}" for key in keys],
        "key": keys,
        "status": ["failed_to_download" if n == 1 else "success" for n in range(rows)],
        **(extra or {}),
    }
    pq.write_table(pa.table(table), root / f"{shard}.parquet")
    (root / f"{shard}_stats.json").write_text("{}")
    return good


@pytest.mark.parametrize(
    ("extra", "column", "names"),
    [
        ({"identity": list("abcd"), "label": [9] * 4}, None, ["a", "c", "d"]),
        ({"label": [0, 1, 2, None]}, None, ["0000000", "0000002", ""]),
        ({"identity": list("abcd"), "person": list("wxyz")}, "person", ["w", "y", "z"]),
        ({}, None, ["json 000000000", "json 000000002", "json 000000003"]),
    ],
)
def test_img2dataset_identities(tmp_path, listing, extra, column, names):
    good = write_img2dataset(tmp_path, extra=extra)
    source = open_parts(tmp_path, identity_column=column)
    assert source.kind == "img2dataset"
    _, rows, (content,) = read_parts(source, listing)
    assert [row[0] for row in rows] == [f"00000.tar/{key}.jpg" for key in good]
    assert [row[1] for row in rows] == names
    assert content.skipped == 1 and content.faults == ()


def test_img2dataset_faults(tmp_path, listing):
    good = write_img2dataset(tmp_path)
    write_img2dataset(tmp_path, "00001", {"identity": list("abcd")})
    write_img2dataset(tmp_path, "00002", {"identity": list("abcdef")}, rows=6)
    write_tar(tmp_path / "00002.tar", [("000020000.jpg", b"x"), ("000020001.jpg", b"failed")])
    write_img2dataset(tmp_path, "00003")
    (tmp_path / "00003.tar").unlink()
    (tmp_path / "00000.parquet").write_bytes(b"torn")
    source = open_parts(tmp_path)
    plan, rows, contents = read_parts(source, listing)
    assert [(f.shard, f.reason[:10]) for f in plan.faults] == [("00003.tar", "is missing")]
    faults = [fault for content in contents for fault in content.faults]
    assert [fault.shard for fault in faults] == ["00000.parquet", "00002.tar"]
    assert "lacks 4 pictures" in faults[1].reason and plan.shards == 4
    assert [row[1] for row in rows] == [*(f"json {key}" for key in good), *"acd", "a"]
    with pytest.raises(InputError, match="has no column 'identiti'; did you mean 'identity'"):
        open_parts(tmp_path, identity_column="identiti")


def write_records(path, labels, layout="plain"):
    with RecordWriter(path, layout) as writer:
        for number, label in enumerate(labels):
            writer.write(f"{path.stem} {number}".encode(), label)


@pytest.mark.parametrize("layout", ["plain", "insightface"])
def test_recordio(tmp_path, listing, layout):
    write_records(tmp_path / "train.rec", [0, 0, 3, 7], layout)
    source = open_parts(tmp_path / "train.rec")
    plan, rows, _ = read_parts(source, listing)
    first = 1 if layout == "insightface" else 0
    assert [row[0] for row in rows] == [f"train.rec/{n + first}" for n in range(4)]
    assert [row[1] for row in rows] == ["0000000", "0000000", "0000003", "0000007"]
    assert [row[3] for row in rows] == [f"train {n}".encode() for n in range(4)]
    assert plan.kind == "recordio" and plan.pictures == 4 and plan.shards == 1


def test_several_record_files_and_damage(tmp_path, listing):
    for name in ("a", "b", "c"):
        write_records(tmp_path / f"{name}.rec", [1, 2])
    (tmp_path / "b.rec").write_bytes(b"no record at all")
    (tmp_path / "c.idx").unlink()
    data = bytearray((tmp_path / "c.rec").read_bytes())
    data[0] = 0
    (tmp_path / "c.rec").write_bytes(data)
    plan, rows, _ = read_parts(open_parts(tmp_path), listing)
    assert [row[0] for row in rows] == ["a.rec/0", "a.rec/1", "c.rec/0"]
    assert [fault.shard for fault in plan.faults] == ["b.rec", "c.rec"]
    with pytest.raises(InputError):
        open_parts(tmp_path / "b.rec")


def test_auto_tells_shards_from_pictures(tmp_path):
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "0.tar", [("a.jpg", b"x")])
    assert guess_part_kind(tmp_path / "tars") == "webdataset"
    assert guess_part_kind(tmp_path / "tars" / "0.tar") == "webdataset"
    assert open_parts(tmp_path / "tars" / "*.tar").root == tmp_path / "tars"
    (tmp_path / "tars" / "0.parquet").touch()
    assert guess_part_kind(tmp_path / "tars") == "img2dataset"
    (tmp_path / "tars" / "ann").mkdir()
    (tmp_path / "tars" / "ann" / "1.jpg").touch()  # a stray archive does not hide pictures
    assert guess_part_kind(tmp_path / "tars") == "folder"


def test_mistakes_are_one_sentence(tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "1.jpg").touch()
    for path, kind, column, message in (
        (tmp_path / "gone", "auto", None, "does not exist"),
        (tmp_path / "gone*.tar", "auto", None, "does not exist"),
        (tmp_path, "webdatset", None, "did you mean 'webdataset'"),
        (tmp_path, "webdataset", None, "matches nothing"),
        (tmp_path, "recordio", None, "must be a .rec file"),
        (tmp_path, "folder", "label", "an identity column is for img2dataset, list"),
        (tmp_path / "ann" / "1.jpg", "folder", None, "must be a folder"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_parts(path, kind, identity_column=column)
        assert "\n" not in str(caught.value)
    assert set(SOURCE_KINDS) >= {"folder", "img2dataset", "webdataset", "recordio"}
