"""The benchmark of degradations names every operation and prints a ratio to its baseline."""

import json

from eval.bench import degrade
from facerec.data.degrade_replay import OPERATIONS


def test_it_measures_every_operation(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(degrade, "_LEAST_S", 0.0)
    monkeypatch.setattr(degrade, "_CHIPS", 4)
    assert {operation.name for _, operation in degrade.list_operations()} == set(OPERATIONS)
    assert degrade.main(["--repeats", "1", "--json", str(tmp_path / "figures.json")]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert rows[0]["name"] == degrade.BASELINE
    assert rows[0]["ratio"] == 1
    assert all(row["images_per_s"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(name in printed for name, _ in degrade.list_operations())
    assert degrade.main(["--repeats", "0"]) == 2
