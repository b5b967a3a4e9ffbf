import json

import numpy as np
import pytest
from protocol_faces import faces

from eval.protocol_files import read_features, read_lines, read_matrix, read_path_list, write_matrix
from eval.protocol_ijb_files import (
    ListedDetector,
    find_prefix,
    join_lists,
    read_faces,
    read_search_lists,
    read_template_pairs,
)
from eval.protocol_overlap import check_overlap, find_overlap
from eval.protocol_table import RATE_COLUMNS, list_rates
from facerec.checks import InputError


def test_a_matrix_comes_back(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_matrix(tmp_path / "m.bin", rows)
    data = (tmp_path / "m.bin").read_bytes()
    assert np.frombuffer(data[:16], "<i4").tolist() == [2, 3, 12, 5]
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.bin"), rows)
    for broken, message in (
        (data[:-1], "announces 2 x 3 numbers, 24 bytes, but holds 23"),
        (data[:9], "only 9 bytes"),
        (b"\1" * 40, "must be a float32 feature matrix"),
    ):
        (tmp_path / "b.bin").write_bytes(broken)
        with pytest.raises(InputError, match=message):
            read_matrix(tmp_path / "b.bin")
    with pytest.raises(InputError, match="does not exist"):
        read_matrix(tmp_path / "none.bin")
    with pytest.raises(InputError, match="must be a matrix"):
        write_matrix(tmp_path / "m.bin", np.ones(3))


def test_stored_embeddings_are_read(tmp_path):
    raw = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.save(tmp_path / "a.npy", raw)
    vectors, norms = read_features(tmp_path / "a.npy")
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]], atol=1e-7)
    assert norms.tolist() == [5, 0]
    np.savez(tmp_path / "b.npz", vectors=raw / 5, norms=[17.0, 0.0])
    vectors, norms = read_features(tmp_path / "b.npz")
    assert norms.tolist() == [17, 0] and vectors[0].tolist() == pytest.approx([0.6, 0.8])
    write_matrix(tmp_path / "c.bin", raw)
    assert read_features(tmp_path / "c.bin")[1].tolist() == [5, 0]
    np.savez(tmp_path / "d.npz", other=raw)
    np.savez(tmp_path / "e.npz", vectors=raw, norms=[1.0])
    np.save(tmp_path / "f.npy", np.array([[np.nan, 1.0]]))
    np.save(tmp_path / "g.npy", np.ones(3))
    (tmp_path / "h.npy").write_bytes(b"no array")
    for name, message in (
        ("d.npz", "must hold the array `vectors`"),
        ("e.npz", r"norms in .* must be \(2,\)"),
        ("f.npy", "must be finite, but row 0"),
        ("g.npy", "must be floating"),
        ("h.npy", "must be .npz, .npy or .bin"),
        ("none.npy", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            read_features(tmp_path / name)


def test_lists_are_read(tmp_path):
    path = tmp_path / "l.json"
    path.write_text(json.dumps({"path": ["a/1.jpg"], "id": ["a"]}))
    assert read_path_list(path) == (["a/1.jpg"], ["a"])
    for value, message in (({"path": []}, "list `path`"), ({"path": ["a"], "id": []}, "as many")):
        path.write_text(json.dumps(value))
        with pytest.raises(InputError, match=message):
            read_path_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="text file in UTF-8"):
        read_lines(path)


def write_ijb(root, prefix="ijbc", galleries=("G1", "G2")):
    meta = root / "meta"
    meta.mkdir(parents=True)
    points = " ".join(str(n) for n in range(10))
    (meta / f"{prefix}_name_5pts_score.txt").write_text(
        f"1.jpg {points} 0.9\n2.jpg {points} 0.8\n3.jpg {points} 0.7\n"
    )
    (meta / f"{prefix}_face_tid_mid.txt").write_text("1.jpg 1 10\n2.jpg 1 10\n3.jpg 5 11\n")
    (meta / f"{prefix}_template_pair_label.txt").write_text("1 5 1\n1 7 0\n")
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X\n"
    for name, rows in zip(
        [*(f"gallery_{name}" for name in galleries), "probe_mixed"],
        ("1,100,img/1.jpg,0\n1,100,img/2.jpg,0\n", "7,200,img/9.jpg,0\n", "5,100,f/3.jpg,0\n"),
        strict=True,
    ):
        (meta / f"{prefix}_1N_{name}.csv").write_text(head + rows)
    return meta


@pytest.mark.parametrize(("prefix", "names"), [("ijbc", ("G1", "G2")), ("ijbb", ("S1", "S2"))])
def test_ijb_is_read(tmp_path, prefix, names):
    write_ijb(tmp_path, prefix, names)
    place = find_prefix(tmp_path)
    faces_found = read_faces(place)
    assert faces_found.names == ["1.jpg", "2.jpg", "3.jpg"]
    assert faces_found.landmarks.shape == (3, 5, 2) and faces_found.landmarks[0, 1, 0] == 2
    np.testing.assert_allclose(faces_found.detector_scores, [0.9, 0.8, 0.7], atol=1e-7)
    assert faces_found.template_ids.tolist() == [1, 1, 5]
    assert faces_found.media_ids.tolist() == [10, 10, 11]
    assert faces_found.images == tmp_path / "loose_crop"
    first, second, same = read_template_pairs(place)
    assert (first.tolist(), second.tolist(), same.tolist()) == ([1, 1], [5, 7], [True, False])
    galleries, probes = read_search_lists(place)
    assert [(g.name, g.template_ids.tolist(), g.subjects.tolist()) for g in galleries] == [
        (names[0], [1], [100]), (names[1], [7], [200])
    ]  # fmt: skip
    joined = join_lists(galleries, probes)
    assert joined.template_ids.tolist() == [1, 7, 5]
    detector = ListedDetector(faces_found)
    picture = np.zeros((20, 30, 3), np.uint8)
    assert len(detector.detect(picture, "9.jpg")) == 0
    found = detector.detect(picture, "2.jpg")
    assert found.boxes.tolist() == [[0, 0, 30, 20]] and found.scores[0] == np.float32(0.8)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("face_tid_mid.txt", "1.jpg 1 10\n4.jpg 1 10\n3.jpg 5 11\n", "differ in line 2"),
        ("face_tid_mid.txt", "1.jpg 1 10\n", r"differ in line 2 \(3 and 1 faces\)"),
        ("face_tid_mid.txt", "1.jpg 1\n", "picture and 2 numbers"),
        ("face_tid_mid.txt", "", "holds no face"),
        ("name_5pts_score.txt", "1.jpg 1 2 3\n", "picture and 11 numbers"),
        ("name_5pts_score.txt", "1.jpg" + " nan" * 11, "finite numbers, but those of 1.jpg"),
        ("name_5pts_score.txt", None, "does not exist"),
        ("template_pair_label.txt", "1 5 2\n", "with 0 or 1"),
        ("template_pair_label.txt", "1 5\n", "TEMPLATE TEMPLATE LABEL"),
        ("template_pair_label.txt", "1 x 0\n", "TEMPLATE TEMPLATE LABEL"),
        ("1N_gallery_G1.csv", "TEMPLATE_ID,NAME\n1,2\n", "the column SUBJECT_ID, which is missing"),
        ("1N_gallery_G1.csv", "TEMPLATE_ID,SUBJECT_ID\n1,x\n", "line 2: TEMPLATE_ID and"),
        ("1N_gallery_G1.csv", "TEMPLATE_ID,SUBJECT_ID\n1,2\n1,3\n", "subject 2 and of 3"),
        ("1N_probe_mixed.csv", None, "does not exist"),
    ],
)
def test_a_broken_ijb_is_named(tmp_path, file, text, message):
    path = write_ijb(tmp_path) / f"ijbc_{file}"
    path.unlink()
    if text is not None:
        path.write_text(text)
    prefix = tmp_path / "meta" / "ijbc"
    with pytest.raises(InputError, match=message):
        read_faces(prefix)
        read_template_pairs(prefix)
        read_search_lists(prefix)


def test_one_set_a_folder(tmp_path):
    with pytest.raises(InputError, match="one of them, got 0"):
        find_prefix(tmp_path)
    write_ijb(tmp_path)
    (tmp_path / "meta" / "ijbb_face_tid_mid.txt").touch()
    with pytest.raises(InputError, match="one of them, got 2"):
        find_prefix(tmp_path)


def test_copies_are_found_and_refused():
    vectors, _ = faces(30, 2, 1.0)
    gallery, probes = vectors[::2].copy(), vectors[1::2].copy()
    assert find_overlap(gallery, probes) == []
    probes[4] = gallery[17]
    gallery[3] = probes[5] = 0
    assert [entry[:2] for entry in find_overlap(gallery, probes)] == [(17, 4)]
    names = [[f"{side}/{i}.jpg" for i in range(30)] for side in "gp"]
    with pytest.raises(InputError, match=r"1 pictures are in .* g/17.jpg = p/4.jpg \(1.0000\)"):
        check_overlap(gallery, probes, *names)
    assert check_overlap(gallery, probes, *names, allow=True) == 1


def test_every_figure_is_a_row():
    rate = {
        "name": "tar", "value": 0.5, "target": 1e-4, "threshold": 0.25, "errors": 3,
        "allowed": 12, "trials": 120000, "interval": {"low": 0.4, "high": 0.6},
        "reason": "", "supported": True,
    }  # fmt: skip
    lost = {**rate, "value": None, "supported": False, "reason": "not supported: few"}
    alone = {**rate, "name": "rank-1", "target": None, "threshold": None, "errors": None,
             "interval": None}  # fmt: skip
    result = {
        "packs": {"lfw": {"tar": [rate]}},
        "identification": {"tpir": [{**lost, "galleries": {"G1": rate}}], "ranks": [alone]},
    }
    rows = list_rates(result)
    assert all(len(row) == len(RATE_COLUMNS) for row in rows)
    assert rows[0] == ["lfw tar", "0.0001", "0.5000", "0.4000 to 0.6000", "0.2500", "3 of 120,000"]
    assert rows[1] == ["identification tar", "0.0001", "not supported", "", "", "few"]
    assert rows[2][0] == "identification G1 tar"
    assert rows[3] == ["identification rank-1", "", "0.5000", "-", "", "120,000"]
