import importlib
import subprocess
import sys

import pytest

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
    ("facerec", ["demo"]),
    ("facerec", ["info"]),
    ("facerec-clean", ["ingest"]),
    ("facerec-clean", ["run"]),
    ("facerec-clean", ["report"]),
    ("facerec-clean", ["undo"]),
    ("facerec-clean", ["export"]),
    ("facerec-eval", ["verify"]),
    ("facerec-gallery", ["create"]),
    ("facerec-gallery", ["enrol"]),
    ("facerec-gallery", ["search"]),
    ("facerec-gallery", ["watch"]),
    ("facerec-gallery", ["audit"]),
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
