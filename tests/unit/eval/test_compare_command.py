"""`facerec-eval report` and `compare`, and the files that they read and write."""

import csv
import io
import json

import pytest
from evaluation_cases import BARE, FNIR, make_counts, make_evaluation

from eval.evaluation import Failure
from eval.evaluation_files import COLUMNS, read_evaluation, to_csv
from facerec.checks import InputError
from facerec.cli.evaluate_compare import add_compare, add_report
from facerec.command import build_parser, run_command

VERIFY = {
    "task": "verify", "pairs_file": "pairs.csv", "model": "m", "model_sha256": "ab",
    "accuracy": {"mean": 0.9, "std": 0.1, "folds": [], "interval": {"low": 0.8, "high": 0.95}},
    "eer": 0.1, "pairs": 20, "mated": 10, "non_mated": 10, "embedded": 30, "failures": 1,
    "failed_pairs": 2, "failed_files": {"a.png": "no face"},
    "roc": {"far": [0.0, 0.5, 1.0], "tar": [0.5, 0.9, 1.0]},
    "tar_at_far": [
        {"far": 0.1, "tar": 0.7, "supported": True, "interval": {"low": 0.6, "high": 0.8}},
        {"far": 1e-3, "tar": 0.5, "supported": False, "non_mated": 10,
         "allowed_false_accepts": 0, "interval": None},
    ],
}  # fmt: skip


def run(*words):
    parser = build_parser("facerec-eval", "Evaluate.", "facerec-eval compare A.json B.json")
    commands = parser.add_subparsers(required=True)
    add_compare(commands)
    add_report(commands)
    return run_command(parser, [str(word) for word in words])


@pytest.fixture
def files(tmp_path):
    """Two evaluations, the second within the result of its command."""
    first, second = make_evaluation("small", **BARE), make_evaluation("big", 0.1, 1, **BARE)
    (tmp_path / "a.json").write_text(json.dumps(first.to_json()))
    whole = {"evaluation": second.to_json(), "provenance": {"hashes": {"model": "11"}}}
    (tmp_path / "b.json").write_text(json.dumps(whole))
    return [tmp_path / "a.json", tmp_path / "b.json"]


def read_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_compare_writes_page_table_and_json(files, tmp_path, capsys):
    outputs = [tmp_path / f"out.{end}" for end in ("html", "csv", "json")]
    words = [word for out in outputs for word in (f"--{out.suffix[1:]}", out)]
    assert run("compare", *files, *words, "--resamples", "100") == 0
    shown = capsys.readouterr().out
    gain = make_counts(0.1, 1).value - make_counts(0.3, 0).value
    assert f"{FNIR}: big minus small = {gain:+.4g}, 95 % interval" in shown
    assert ", better" in shown
    assert "note: " not in shown
    assert "big minus small" in outputs[0].read_text()
    rows = read_rows(outputs[1].read_text())
    (row,) = [row for row in rows if row["part"] == "difference" and row["name"] == FNIR]
    assert (row["model"], row["item"], row["reason"]) == ("big", "minus small", "better")
    assert (row["unit"], row["better"], row["count"]) == ("share", "lower", "60")
    result = json.loads(outputs[2].read_text())
    assert result["differences"][0]["verdict"] == "better"
    assert result["provenance"]["seed"] == 0
    assert len(result["provenance"]["hashes"]) == 2


def test_report_writes_a_page_and_a_table(files, tmp_path, capsys):
    page, table = tmp_path / "a.html", tmp_path / "a.csv"
    assert run("report", files[0], "--html", page, "--csv", table) == 0
    assert "30.67 %  25.67 to 35.67 %" in capsys.readouterr().out
    assert "<img" not in page.read_text()
    assert read_rows(table.read_text())[0]["name"] == FNIR


def test_report_writes_json_that_it_reads_again(files, tmp_path):
    again = tmp_path / "again.json"
    assert run("report", files[0], "--json", again) == 0
    first, second = read_evaluation(files[0]), read_evaluation(again)
    assert first.headline == second.headline
    assert second.provenance["command"]


def test_the_table_has_every_part_and_no_formula():
    failures = (Failure("=cmd()", "-x"), Failure("fine", "no face", "FTE"))
    text = to_csv(make_evaluation("@m", simulated=True, failures=failures))
    rows = read_rows(text)
    assert tuple(rows[0]) == COLUMNS
    assert {row["simulated"] for row in rows} == {"yes"}
    assert {row["part"] for row in rows} == {
        "headline", "slice", "gallery size", "det", "histogram", "threshold", "failure",
        "worst error", "count", "versions", "hashes", "seed", "protocol",
    }  # fmt: skip
    assert {row["model"] for row in rows} == {"'@m"}
    (failure,) = [row for row in rows if row["reason"] == "'-x"]
    assert failure["item"] == "'=cmd()"
    (missing,) = [row for row in rows if row["name"] == "FNMR at FMR 1e-05"]
    assert (missing["value"], missing["supported"]) == ("", "no")
    sizes = [row["x"] for row in rows if row["part"] == "gallery size"]
    assert sizes == ["100", "1000", "10000", "100000"]


def test_a_result_of_verify_is_an_evaluation(tmp_path):
    path = tmp_path / "v.json"
    path.write_text(json.dumps(VERIFY))
    found = read_evaluation(path)
    values = {each.name: each.value for each in found.headline}
    assert values == {
        "accuracy": 0.9, "equal error rate": 0.1, "TAR at FAR 1e-01": 0.7, "TAR at FAR 1e-03": None,
    }  # fmt: skip
    assert found.det[0].y == pytest.approx((0.5, 0.1, 0.0))
    assert found.failures == (Failure("a.png", "no face"),)
    assert found.provenance["hashes"] == {"model": "ab"}
    assert run("compare", path, path) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold an evaluation"),
        ("{", "must be JSON"),
        ("{}", "must be an evaluation"),
        ('{"evaluation": 3}', "must be an evaluation"),
        ('{"task": "verify"}', "a result of facerec-eval verify, but a part is missing"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_evaluation(path)


def test_wrong_usage_is_one_sentence(files, tmp_path, capsys):
    assert run("compare", files[0]) == 2
    assert "at least two evaluations" in capsys.readouterr().err
    assert run("report", files[0], "--with-images", tmp_path) == 2
    assert "say where with --html" in capsys.readouterr().err
    page = tmp_path / "p.html"
    assert run("report", files[0], "--html", page, "--with-images", tmp_path / "no") == 2
    assert "must be a folder" in capsys.readouterr().err
    assert run("compare", tmp_path / "none.json", files[0]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run("compare", *files, "--resamples", "1") == 2
    assert "resamples" in capsys.readouterr().err
