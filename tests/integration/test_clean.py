"""`facerec-clean` from source to score: on drawn people, and on real faces where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from facerec.cli.clean import main
from facerec.data.manifest import read_manifest


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_bad_input_is_one_sentence_and_code_2(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments in (
        ("ingest", tmp_path / "empty", tmp_path / "set", "--detector", "aligned"),
        ("run", tmp_path / "nothing", "--model", "m.onnx"),
        ("run", tmp_path, "--model", "m.onnx", "--threshold", "high"),
        ("report", tmp_path),
    ):
        assert run(*arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("facerec-clean") and message.count("\n") == 1


@pytest.mark.real
def test_a_real_crawl_from_ingest_to_report(real_data, tmp_path, capsys):
    source = tmp_path / "crawl"
    source.mkdir()
    for person in ("7202", "7223", "7245", "7212"):
        (source / person).symlink_to(real_data / "crawl" / person, target_is_directory=True)
    out, weights = tmp_path / "set", real_data / "weights"
    assert run("ingest", source, out, "--detector", weights / "yunet.onnx") == 0
    assert run("run", out, "--model", weights / "MobileFaceNet.onnx") == 0
    assert "not who their folder says" in capsys.readouterr().out
    assert run("report", out, "--json", tmp_path / "report.json") == 0
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["decided"] == figures["rows"] == 79
    gone = {
        row["path"]
        for row in read_manifest(out / "manifest.parquet").to_pylist()
        if row["path"] not in read_manifest(out / "clean.parquet")["path"].to_pylist()
    }
    # Two whose faces are plainly other people's; the hard ones are not asserted.
    assert {"7223/066026.jpg", "7245/202470.jpg"} <= gone
    assert len(gone) <= 17  # one of them a copy of another picture
    assert "image/jpeg" not in Path(out / "report.html").read_text()
    assert run("run", out, "--model", weights / "MobileFaceNet.onnx") == 0
    assert "nothing changed" in capsys.readouterr().out
    assert run("export", out, tmp_path / "clean") == 0
    assert run("undo", out) == 0


@pytest.mark.real
@pytest.mark.parametrize("crew", [("--workers", "2"), ("--ray", "local")], ids=["processes", "ray"])
def test_embedding_by_many_gives_the_same_round(real_data, tmp_path, crew):
    if crew[0] == "--ray":
        pytest.importorskip("ray")
    source, model = tmp_path / "crawl", real_data / "weights" / "MobileFaceNet.onnx"
    source.mkdir()
    for person in ("7202", "7223", "7212"):
        place = real_data / "aligned" / f"celeba_{person}"
        (source / person).symlink_to(place, target_is_directory=True)
    tables = []
    for name, more in (("one", ()), ("many", crew)):
        assert run("ingest", source, tmp_path / name, "--detector", "aligned") == 0
        assert run("run", tmp_path / name, "--model", model, *more) == 0
        tables.append(pq.read_table(tmp_path / name / "decisions" / "round-0001.parquet"))
    assert tables[0].num_rows > 30
    assert tables[0].drop_columns(["score"]).equals(tables[1].drop_columns(["score"]))
    pair = [table["score"].to_numpy(zero_copy_only=False) for table in tables]
    assert np.allclose(*pair, atol=1e-4, equal_nan=True)
