import errno
import importlib
import subprocess
import sys

import pytest

from facerec.checks import InputError, JobError
from facerec.command import build_parser, run_command

COMMANDS = {
    "facerec": "facerec.cli.main",
    "facerec-clean": "facerec.cli.clean",
    "facerec-train": "facerec.cli.train",
    "facerec-eval": "facerec.cli.evaluate",
    "facerec-gallery": "facerec.cli.gallery",
}
SUB_COMMANDS = [
    ("facerec", ["models", "list"]),
    ("facerec", ["models", "show"]),
    ("facerec", ["models", "add"]),
    ("facerec", ["models", "fetch"]),
    ("facerec", ["models", "verify"]),
    ("facerec", ["models", "remove"]),
    ("facerec", ["demo"]),
    ("facerec", ["info"]),
    ("facerec-clean", ["ingest"]),
    ("facerec-clean", ["run"]),
    ("facerec-clean", ["report"]),
    ("facerec-clean", ["undo"]),
    ("facerec-clean", ["export"]),
    ("facerec-clean", ["score"]),
    ("facerec-eval", ["verify"]),
    ("facerec-eval", ["doc2surv"]),
    ("facerec-eval", ["pack"]),
    ("facerec-eval", ["identify"]),
    ("facerec-eval", ["cfp"]),
    ("facerec-eval", ["ijb"]),
    ("facerec-eval", ["lfr"]),
    ("facerec-eval", ["survface"]),
    ("facerec-eval", ["tinyface"]),
    ("facerec-eval", ["megaface"]),
    ("facerec-eval", ["simulate"]),
    ("facerec-eval", ["compare"]),
    ("facerec-eval", ["report"]),
    *(
        ("facerec-gallery", [name])
        for name in (
            *("create", "key", "enrol", "calibrate", "cohort", "normalise", "search", "compare"),
            *("watch", "list", "show", "rename", "remove", "erase", "expire", "retain", "scrub"),
            *("index", "audit", "export", "backup"),
        )
    ),
]
HEAVY = ("torch", "cv2", "onnxruntime", "faiss", "av", "matplotlib", "sklearn", "numpy")


def call(command, *arguments):
    return importlib.import_module(COMMANDS[command]).main(list(arguments))


@pytest.mark.parametrize(
    ("command", "path"), [*((name, []) for name in COMMANDS), *SUB_COMMANDS], ids=str
)
def test_help_shows_an_example(command, path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(command, *path, "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"example:\n  {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_usage_is_2_and_no_traceback(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(command, "--no-such-option")
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_command_of_the_gallery_is_missing_here(capsys):
    with pytest.raises(SystemExit):
        call("facerec-gallery", "--help")
    listed = capsys.readouterr().out.split("COMMAND\n", 1)[1].split("\n\n")[0]
    named = [line.split()[0] for line in listed.splitlines() if line[:4] == "    " != line[4:8]]
    assert sorted(named) == sorted(p[0] for c, p in SUB_COMMANDS if c == "facerec-gallery")


def test_help_imports_nothing_heavy():
    code = f"""
import importlib, sys
for module in {list(COMMANDS.values())!r}:
    try:
        importlib.import_module(module).main(["--help"])
    except SystemExit:
        pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_info_lists_versions(capsys):
    assert call("facerec", "info") == 0
    assert "torch" in capsys.readouterr().out


def test_a_failure_is_1_in_one_line(monkeypatch, capsys):
    import facerec.provenance

    def fail():
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(facerec.provenance, "versions", fail)
    assert call("facerec", "info") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "RuntimeError: first second" in error


def test_ctrl_c_is_130(monkeypatch, capsys):
    import facerec.provenance

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(facerec.provenance, "versions", interrupt)
    assert call("facerec", "info") == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (JobError("the server is gone; try again"), 1, "the server is gone; try again"),
        (OSError(errno.ENOSPC, "x", "a/b"), 1, "a/b: the disk is full; free some space"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b: Not a directory;"),
        (IsADirectoryError(errno.EISDIR, "Is one", "tmp", None, "b"), 2, "b: Is one; check"),
        (InputError("no picture 'a\nb\x1b[31m\udcff'"), 2, "no picture 'a b [31m '"),
        (ZeroDivisionError("1 / 0"), 1, "failed: ZeroDivisionError: 1 / 0 (FACEREC_TRACEBACK=1"),
        (KeyboardInterrupt(), 130, "interrupted;"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_is_one_line(error, code, sentence, capsys):
    def fail(arguments):
        raise error

    parser = build_parser("tool", "Fails.", "tool")
    parser.set_defaults(run=fail)
    assert run_command(parser, []) == code
    text = capsys.readouterr().err
    assert text.startswith(f"tool: {sentence}") and text.count("\n") == 1 and text.endswith("\n")


def test_wrong_usage_is_one_line_that_names_the_help(capsys):
    with pytest.raises(SystemExit):
        call("facerec-clean", "ingest", "src")
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "facerec-clean ingest --help" in text


def test_a_json_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    import facerec.provenance

    called = []
    monkeypatch.setattr(facerec.provenance, "versions", lambda: called.append(1) or {})
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "out.json"):
        assert call("facerec", "info", "--json", str(path)) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert called == []
    assert call("facerec", "info", "--json", str(tmp_path / "new" / "out.json")) == 0
    assert (tmp_path / "new" / "out.json").is_file()
