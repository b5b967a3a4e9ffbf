import json
import os
import signal
import subprocess
import sys

import pytest

from facerec.checks import InputError
from facerec.io import (
    atomic_path,
    read_checkpoint,
    read_json,
    sha256_bytes,
    sha256_file,
    write_checkpoint,
    write_json,
    write_text,
)

WRITER = """
import sys
from pathlib import Path
from facerec.io import write_text
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_text(Path(sys.argv[1]), str(number) * 200_000)
"""


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_not_written(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_never_leaves_half_a_file(tmp_path):
    path = tmp_path / "value.txt"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        while not path.exists():
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        text = path.read_text()
        number = text[: len(text) // 200_000]
        assert text == number * 200_000


def test_result_has_ordinary_mode(tmp_path):
    umask = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_hashes_agree(tmp_path):
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == sha256_bytes(data)
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_bad_json_is_one_sentence(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="must be JSON"):
        read_json(path)
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "b.json")


def test_checkpoint_round_trip_and_truncation(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, {"step": 3, "weights": torch.arange(1000.0)})
    state = read_checkpoint(path)
    assert state["step"] == 3
    assert torch.equal(state["weights"], torch.arange(1000.0))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(path)
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_json_is_utf8(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Ødegård"})
    assert json.loads((tmp_path / "a.json").read_bytes())["name"] == "Ødegård"
