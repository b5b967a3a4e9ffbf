"""Verification on real faces: part of LFW's first folds."""

import csv
import json

import pytest

from facerec.cli.evaluate import main

PER_KIND = 25


@pytest.fixture(scope="module")
def small_list(real_data, tmp_path_factory):
    """The first mated and non-mated pairs of two folds."""
    target = tmp_path_factory.mktemp("lfw") / "pairs.csv"
    with (real_data / "lfw" / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = []
    for fold in ("1", "2"):
        for same in ("1", "0"):
            here = [row for row in rows if (row["fold"], row["same"]) == (fold, same)]
            kept += here[:PER_KIND]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    return target


@pytest.mark.real
def test_real_faces_verify_well_and_none_is_missed(real_data, small_list, tmp_path):
    weights = real_data / "weights"
    command = [
        "verify", "--pairs", small_list, "--images", real_data / "lfw" / "images",
        "--model", weights / "MobileFaceNet.onnx", "--detector", weights / "yunet.onnx",
        "--all-pairs", "--json", tmp_path / "out.json", "--html", tmp_path / "out.html",
    ]  # fmt: skip
    assert main([str(part) for part in command]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["pairs"], result["failures"]) == (4 * PER_KIND, 0)
    assert result["accuracy"]["mean"] >= 0.96
    assert result["tar_at_far"][0]["tar"] >= 0.96
    assert result["all_pairs"]["tar_at_far"][0]["supported"]
    assert result["all_pairs"]["tar_at_far"][0]["tar"] >= 0.9
    # Curves only: no picture of a person.
    assert "data:image/jpeg" not in (tmp_path / "out.html").read_text()
