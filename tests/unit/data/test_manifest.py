import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facerec.checks import InputError
from facerec.data.manifest import (
    MANIFEST_SCHEMA,
    build_manifest,
    check_manifest,
    read_manifest,
    write_manifest,
)


def usable(number=0, **changes):
    row = {
        "path": f"anna/{number}.jpg",
        "identity": "anna",
        "source": "crawl",
        "split": "",
        "width": 100,
        "height": 80,
        "box": np.array([10, 20, 60.5, 80], np.float32),
        "landmarks": np.arange(10, dtype=np.float32).reshape(5, 2),
        "det_score": 0.9,
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "face": 0,
        "faces": 1,
        "policy": "largest",
        "chip": f"chips/{number}.png",
        "reason": "",
    }
    return {**row, **changes}


def unreadable(number=0, **changes):
    return {
        "path": f"bad/{number}.jpg",
        "sha256": "",
        "width": 0,
        "height": 0,
        "reason": "missing file",
        **changes,
    }


def test_columns_and_order_are_the_contract():
    expected = (
        "image_id path identity source split width height box landmarks det_score sha256 "
        "face faces policy chip reason"
    )
    assert MANIFEST_SCHEMA.names == expected.split()


def test_round_trip(tmp_path):
    rows = [usable(0), usable(1, face=1, faces=2), unreadable(2)]
    table = build_manifest(rows)
    path = tmp_path / "sub" / "manifest.parquet"
    write_manifest(table, path)
    back = read_manifest(path)
    assert back.equals(table) and back.schema.equals(MANIFEST_SCHEMA, check_metadata=True)
    first, _, last = back.to_pylist()
    assert first["image_id"] == first["sha256"][:16] and first["box"] == [10, 20, 60.5, 80]
    assert first["landmarks"] == list(range(10))
    assert last["box"] is None and last["image_id"] == "" and last["reason"] == "missing file"


def test_no_rows_are_a_manifest(tmp_path):
    write_manifest(build_manifest([]), tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet").num_rows == 0


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"sha256": "ab"}, "sha256 must be 64 hex digits"),
        ({"sha256": "A" * 64}, "sha256 must be 64 hex digits"),
        ({"sha256": ""}, "sha256 may be empty only with a reason"),
        ({"image_id": "0" * 16}, "image_id must be the first 16 digits"),
        ({"path": ""}, "path must not be empty"),
        ({"path": "/etc/x.jpg"}, "path must be relative"),
        ({"path": "a/../../x.jpg"}, "path must be relative"),
        ({"path": "x.jpg", "chip": "../x.png"}, "chip must be relative"),
        ({"policy": "biggest"}, "policy must be one of"),
        ({"chip": ""}, "without a reason must have a chip"),
        ({"reason": "blurred"}, "with a reason must have no chip"),
        ({"width": -1}, "width and height"),
        ({"face": -1}, "face and faces"),
        ({"face": 1}, "face must be less than faces"),
        ({"box": [1, 2, 3]}, "box must be null or four finite"),
        ({"box": [1, 2, 3, NAN]}, "box must be null or four finite"),
        ({"box": [1, 2, None, 3]}, "box must be null or four finite"),
        ({"landmarks": [1.0] * 8}, "landmarks must be null or ten finite"),
        ({"box": None}, "there or null together"),
        ({"det_score": None}, "there or null together"),
        ({"box": None, "landmarks": None, "det_score": None}, "must have a box"),
        ({"box": [60, 20, 10, 80]}, "x1 < x2"),
        ({"box": [10, 20, 10, 80]}, "x1 < x2"),
        ({"box": [10, 20, 101, 80]}, "inside the picture"),
        ({"box": [-1, 20, 50, 80]}, "inside the picture"),
        ({"det_score": 1.5}, "det_score must lie in"),
        ({"det_score": NAN}, "det_score must lie in"),
    ],
)
def test_a_broken_row_is_named_by_number_path_and_rule(changes, rule):
    row = usable(2, **changes)
    with pytest.raises(InputError) as caught:
        build_manifest([usable(0), unreadable(1), row, usable(3)])
    message = str(caught.value)
    assert rule in message and "row 2" in message and repr(row["path"]) in message


def test_path_and_face_are_unique_together():
    twice = usable(0, face=1, faces=2)
    build_manifest([usable(0, faces=2), twice])
    with pytest.raises(InputError, match=r"row 2 .*'anna/0.jpg'.*unique"):
        build_manifest([usable(0, faces=2), twice, twice])


def test_a_box_may_touch_the_edge_in_float32():
    third = np.float32(100 / 3) * np.float32(3)
    build_manifest([usable(0, box=[0, 0, third + np.float32(4e-6), 80])])


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(InputError, match=r"row 0 .*'identiy'.*'identity'"):
        build_manifest([{**usable(0), "identiy": "x"}])
    row = usable(0)
    del row["width"]
    with pytest.raises(InputError, match="'width'"):
        build_manifest([row])
    with pytest.raises(InputError, match="types"):
        build_manifest([usable(0, width="wide")])
    with pytest.raises(InputError):
        build_manifest([usable(0, face=1 << 40)])


def test_nulls_are_refused_by_row():
    table = build_manifest([usable(0), usable(1)])
    place = table.column_names.index("identity")
    holed = table.set_column(place, "identity", pa.array(["a", None]))
    with pytest.raises(InputError, match=r"row 1 .*identity must not be null"):
        check_manifest(holed)


def test_columns_are_cast_where_nothing_is_lost():
    table = build_manifest([usable(0), unreadable(1)])
    wide = table.set_column(
        table.column_names.index("width"), "width", pa.array([100, 0], pa.int64())
    )
    wide = wide.set_column(
        wide.column_names.index("box"),
        "box",
        pa.array([[10.0, 20, 60.5, 80], None], pa.list_(pa.float64(), 4)),
    )
    shuffled = wide.select(wide.column_names[::-1])
    assert check_manifest(shuffled).equals(table)
    text = table.set_column(table.column_names.index("width"), "width", pa.array(["100", "0"]))
    with pytest.raises(InputError, match="'width' must be int32, got string"):
        check_manifest(text)
    huge = table.set_column(table.column_names.index("width"), "width", pa.array([1 << 40, 0]))
    with pytest.raises(InputError, match="'width'"):
        check_manifest(huge)


def test_wrong_columns_are_named():
    table = build_manifest([usable(0)])
    with pytest.raises(InputError, match="missing"):
        check_manifest(table.drop_columns(["sha256"]))
    with pytest.raises(InputError, match=r"'sha265'.*'sha256'"):
        check_manifest(table.append_column("sha265", pa.array(["x"])))


def test_the_check_runs_at_every_load_and_save(tmp_path):
    table = build_manifest([usable(0)])
    bad = table.set_column(table.column_names.index("chip"), "chip", pa.array([""]))
    with pytest.raises(InputError, match="row 0"):
        write_manifest(bad, tmp_path / "m.parquet")
    assert list(tmp_path.iterdir()) == []
    pq.write_table(bad, tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"m.parquet, row 0 \('anna/0.jpg'\)"):
        read_manifest(tmp_path / "m.parquet")


def test_what_is_no_manifest(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_manifest(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match="must be a Parquet manifest"):
        read_manifest(tmp_path / "text.parquet")
    table = build_manifest([usable(0)])
    newer = table.replace_schema_metadata({"facerec.manifest": "7"})
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(InputError, match="version 7"):
        read_manifest(tmp_path / "newer.parquet")


def test_chunks_and_slices_are_checked_like_one_table():
    parts = [build_manifest([usable(n), unreadable(n)]) for n in range(3)]
    joined = check_manifest(pa.concat_tables(parts).slice(1, 4))
    assert joined.num_rows == 4
    with pytest.raises(InputError, match=r"row 2 .*unique"):
        check_manifest(pa.concat_tables([parts[0], parts[0]]))
