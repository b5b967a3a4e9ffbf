import datetime
import importlib.metadata
import json
import platform

import pytest

from facerec import __version__
from facerec.command import add_json, build_parser, run_command, write_json_result
from facerec.provenance import versions, write_result


def test_write_result_puts_the_envelope_beside_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/facerec-eval", "verify", "--seed", "7"])
    path = tmp_path / "new" / "out.json"
    write_result(path, {"eer": 0.25}, seed=7, config={"flip": True}, hashes={"model": "ab" * 32})
    written = json.loads(path.read_text(encoding="utf-8"))
    block = written.pop("provenance")
    assert written == {"eer": 0.25}
    assert block["command"] == ["facerec-eval", "verify", "--seed", "7"]
    assert (block["seed"], block["config"]) == (7, {"flip": True})
    assert block["hashes"] == {"model": "ab" * 32} and block["versions"] == versions()
    assert datetime.datetime.fromisoformat(block["created"]).utcoffset() == datetime.timedelta(0)


def test_what_is_not_given_is_empty_and_not_missing(tmp_path):
    write_result(tmp_path / "out.json", {})
    block = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["provenance"]
    assert (block["seed"], block["config"], block["hashes"]) == (None, {}, {})


def test_a_result_that_is_no_json_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path / "out.json", {"tar": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_versions_leave_out_what_is_not_installed(monkeypatch):
    whole = versions()
    assert whole["facerec"] == __version__ and whole["python"] == platform.python_version()
    assert whole["numpy"] == importlib.metadata.version("numpy")
    real = importlib.metadata.version

    def absent(name):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert versions() == {name: value for name, value in whole.items() if name != "torch"}


def test_a_command_writes_its_arguments_unless_it_gives_settings(tmp_path):
    parser = build_parser("prog", "A program.", "prog a b")
    parser.add_argument("words", nargs="+", type=tmp_path.__class__)
    add_json(parser)
    settings = [None, {"k": 1}]
    parser.set_defaults(run=lambda given: write_json_result(given, {"n": 2}, config=settings[0]))
    out = tmp_path / "out.json"
    assert run_command(parser, ["a", "b"]) == 0 and not out.exists()
    assert run_command(parser, ["a", "b", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["provenance"]["config"] == {"words": ["a", "b"]}
    settings.reverse()
    assert run_command(parser, ["a", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["provenance"]["config"] == {"k": 1}
