import io
import json
import tarfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.datasets import read_chip_set, read_unlabelled
from facerec.data.images import UnreadableImageError
from facerec.data.tar_members import TarFaultError, TarMember, iter_members
from facerec.data.tars import TarSample, find_shards, read_tars, write_shards


def picture(value, suffix=".png"):
    return cv2.imencode(suffix, np.full((8, 8, 3), value, np.uint8))[1].tobytes()


def write_tar(path, files, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def list_members(path):
    with path.open("rb") as file:
        return list(iter_members(file))


names = st.text("ab/é.", min_size=1, max_size=180).filter(lambda n: n.strip("/.") == n)


@given(
    files=st.lists(st.tuples(names, st.binary(max_size=1100)), max_size=5),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=80, deadline=None)
def test_members_are_where_tarfile_finds_them(tmp_path_factory, files, form):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    write_tar(path, files, form)
    with tarfile.open(path) as archive:
        expected = [TarMember(m.name, m.offset_data, m.size) for m in archive]
    assert list_members(path) == expected


def test_folders_and_links_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, size in (("d", tarfile.DIRTYPE, 0), ("l", tarfile.LNKTYPE, 9)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "x", size
            archive.addfile(member)
        member = tarfile.TarInfo("f" * 90 + "/" + "g" * 90)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    found = list_members(tmp_path / "a.tar")
    assert [(m.name, m.length) for m in found] == [("f" * 90 + "/" + "g" * 90, 3)]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda d: d[:-10240], "end marker"),
        (lambda d: d[: 1024 + 100], "inside a header"),
        (lambda d: d[: 1024 + 512 + 7], "inside a member"),
        (lambda d: d[:1024] + b"\xff" * 512 + d[1536:], "header is damaged"),
        (lambda d: d[:1030] + b"z" + d[1031:], "header is damaged"),
    ],
)
def test_what_stands_before_damage_is_kept(tmp_path, cut, said):
    path = tmp_path / "a.tar"
    image = picture(40)
    assert len(image) <= 512
    files = [("a.png", image), ("b.png", image), *[(f"{n}.png", image) for n in range(40)]]
    write_tar(path, files)
    data = path.read_bytes()
    end = data.rstrip(b"\0")
    data = data[: -(-len(end) // 512) * 512] + bytes(10240)
    path.write_bytes(cut(data))
    kept = 42 if said == "end marker" else 1
    with pytest.raises(TarFaultError, match=said):
        list_members(path)
    index = read_tars(path)
    assert len(index.chips) == kept and index.chips.read_bytes(0) == image
    assert (
        len(index.damage) == 1 and said in index.damage[0] and f"{kept} pictures" in index.damage[0]
    )
    assert said in read_unlabelled(tars=path).describe()


def test_labels_come_from_json_or_cls_beside_the_picture(tmp_path):
    image = picture(30, ".jpg")
    files = [
        ("p/a.jpg", image),
        ("p/a.json", json.dumps({"identity": "zoë", "label": 3}).encode()),
        ("p/b.cls", b"12\n"),
        ("p/b.jpeg", image),
        ("p/c.PNG", picture(9)),
        ("p/c.json", b'{"label": 7, "identity": ""}'),
        ("p/d.jpg", image),
        ("q/d.cls", b"5"),
        ("p/e.webp", image),
        ("p/e.json", b'{"width": 8}'),
        ("p/e.cls", b"1"),
        ("p/f.seg.jpg", image),
        ("p/g.txt", b"text"),
    ]
    write_tar(tmp_path / "a.tar", files)
    index = read_tars(tmp_path)
    assert index.identities == ("zoë", "0000012", "0000007", "", "0000001")
    assert not index.damage and index.chips.name(2) == "a.tar/p/c.PNG"
    assert index.chips.read_bytes(2) == picture(9)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.cls", b"one", "whole number from 0, got 'one'"),
        ("a.cls", b"\xff", "ascii"),
        ("a.json", b"{", "Expecting"),
        ("a.json", b"[1]", "JSON object with identity or label"),
        ("a.json", b" " * (1 << 21), "is none"),
    ],
)
def test_a_broken_label_is_named_and_costs_its_picture_only(tmp_path, name, data, said):
    files = [("a.png", picture(1)), (name, data), ("b.png", picture(2)), ("b.cls", b"4")]
    write_tar(tmp_path / "s.tar", files)
    chips = read_chip_set(tars=tmp_path, min_images=1)
    assert len(chips) == 1 and chips.name(0) == "s.tar/b.png"
    assert f"s.tar/{name}: " in chips.damage[0] and said in chips.damage[0]


def test_shards_are_found_by_folder_pattern_or_name(tmp_path, monkeypatch):
    for name in ("b.tar", "a.tar", "a.txt"):
        write_tar(tmp_path / name, [("x.png", picture(1))])
    both = (tmp_path / "a.tar", tmp_path / "b.tar")
    assert find_shards(tmp_path) == find_shards(tmp_path / "*.tar") == both
    assert find_shards(tmp_path / "b.tar") == both[1:]
    monkeypatch.chdir(tmp_path.parent)
    assert [p.name for p in find_shards(type(tmp_path)(f"{tmp_path.name[:-1]}?/[b].tar"))] == [
        "b.tar"
    ]
    with pytest.raises(InputError, match="matches nothing"):
        find_shards(tmp_path / "*.zip")
    with tarfile.open(tmp_path / "c.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x.png"))
    with pytest.raises(InputError, match=r"c\.tar is compressed"):
        read_tars(tmp_path)
    write_tar(tmp_path / "c.tar", [("x.txt", b"")])
    with pytest.raises(InputError, match=r"must hold pictures .* got none in 1 shards"):
        read_tars(tmp_path / "c.tar")


def test_written_shards_read_back_and_are_the_same_each_time(tmp_path):
    samples = [
        TarSample(f"d/{n}", picture(n, [".png", ".jpg", ".webp"][n % 3]), ["amy", 3, None][n % 3])
        for n in range(7)
    ]
    shards = write_shards(iter(samples), tmp_path / "one", 3)
    assert [path.name for path in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    again = write_shards(samples, tmp_path / "two", 3)
    assert [p.read_bytes() for p in shards] == [p.read_bytes() for p in again]
    index = read_tars(tmp_path / "one")
    assert index.identities == ("amy", "0000003", "") * 2 + ("amy",)
    assert [index.chips.read_bytes(n) for n in range(7)] == [s.image for s in samples]
    chips = read_chip_set(tars=tmp_path / "one")
    assert chips.identities == ("0000003", "amy") and chips.labels.tolist() == [0, 0, 1, 1, 1]
    assert [chips.name(n) for n in (0, 1)] == ["000000.tar/d/1.jpg", "000001.tar/d/4.jpg"]
    assert chips.read(0).shape == (8, 8, 3)
    assert chips.digest() == read_chip_set(tars=tmp_path / "two").digest()
    nobody = read_unlabelled(tars=tmp_path / "one")
    assert nobody.labels.tolist() == [-1] * 7 and nobody.identities == ()
    shards[1].unlink()
    with pytest.raises(UnreadableImageError, match=r"000001\.tar/d/4\.jpg in .* cannot be read"):
        chips.take(np.array([1])).read(0)
    fresh = read_unlabelled(tars=tmp_path / "two").take(np.array([6, 3]))
    (tmp_path / "two" / "000001.tar").write_bytes(again[0].read_bytes()[:520])
    with pytest.raises(UnreadableImageError, match=r"000001\.tar/d/3\.png ends early"):
        fresh.read(1)
    assert (fresh.read(0) == 6).all()


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "at least one sample"),
        ([TarSample("a.b", picture(1))], "without a dot, got 'a.b'"),
        ([TarSample("a", picture(1)), TarSample("a", picture(1))], "'a' again"),
        ([TarSample("a", b"text")], "JPEG, PNG or WebP"),
    ],
)
def test_a_refused_sample_leaves_nothing(tmp_path, samples, said):
    with pytest.raises(InputError, match=said):
        write_shards(samples, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(InputError, match="new or empty folder"):
        write_shards([TarSample("a", picture(1))], tmp_path / "out")
