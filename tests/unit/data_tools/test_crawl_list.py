"""The list, streamed: any cut gives the same rows; faults are named before a request is made."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools import crawl_list
from data_tools.crawl_list import count_list, iter_list
from facerec.checks import InputError


def write_both(folder, table):
    import pyarrow.csv as pcsv

    pq.write_table(table, folder / "list.parquet", row_group_size=7)
    pcsv.write_csv(table, folder / "list.csv")
    return [folder / "list.parquet", folder / "list.csv"]


@pytest.mark.parametrize("rows", [1, 3, 7, 50, 51, 1000])
def test_a_list_is_cut_without_loss(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(crawl_list, "_BATCH_ROWS", 6)
    table = pa.table(
        {
            "score": list(range(50)),
            "url": [f"http://a.test/{i}" for i in range(50)],
            "identity": [f"{i:03d}" for i in range(50)],
        }
    )
    for path in write_both(tmp_path, table):
        parts = list(iter_list(path, rows))
        assert [part.num_rows for part in parts[:-1]] == [rows] * (len(parts) - 1)
        found = pa.concat_tables(parts).to_pylist()
        assert found == table.select(["identity", "url"]).to_pylist()
        assert count_list(path) == 50


def test_odd_columns_become_text(tmp_path):
    table = pa.table(
        {"identity": pa.array([7, None]), "url": pa.array(["x", None]).dictionary_encode()}
    )
    path = tmp_path / "list.parquet"
    pq.write_table(table, path)
    (part,) = iter_list(path, 5)
    assert part.to_pylist() == [{"identity": "7", "url": "x"}, {"identity": "", "url": ""}]


def test_faults_are_named(tmp_path):
    def fault(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            count_list(path)
        return str(caught.value)

    assert "must end in .csv or .parquet" in fault("list.txt", b"")
    assert "has no row" in fault("a.csv", b"identity,url\n")
    assert "'url' is missing; did you mean 'urls'?" in fault("b.csv", b"identity,urls\na,b\n")
    assert "several columns called 'url'" in fault("c.csv", b"url,url,identity\na,b,c\n")
    assert "cannot be read as a list" in fault("d.csv", b"identity,url\na,b\nc\n")
    assert "cannot be read as a list" in fault("e.csv", b"")
    assert "cannot be read as a list" in fault("f.parquet", b"PAR1 and nothing else")
    with pytest.raises(InputError, match="is not a file"):
        count_list(tmp_path / "gone.csv")
    path = tmp_path / "g.parquet"
    pq.write_table(pa.table({"identity": ["a"], "url": [["b"]]}), path)
    with pytest.raises(InputError, match="column url must hold text"):
        count_list(path)
