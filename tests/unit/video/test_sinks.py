import json
import sys

import pytest

from facerec.checks import InputError
from facerec.video.sinks import JsonLines


def test_each_line_is_there_before_the_next(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with JsonLines(path, keep=True) as sink:
        for number in range(3):
            sink.write({"track": number, "person": "Åsa"})
            lines = path.read_text(encoding="utf-8").splitlines()
            assert json.loads(lines[-1]) == {"track": number, "person": "Åsa"}
            assert len(lines) == len(sink.records) == number + 1


def test_lines_written_before_an_exception_stay(tmp_path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt), JsonLines(path) as sink:
        sink.write({"track": 1})
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == '{"track": 1}\n'


def test_a_stream_without_end_does_not_fill_the_memory(tmp_path):
    with JsonLines(tmp_path / "out.jsonl") as sink:
        sink.write({"track": 1})
        assert sink.records == []


def test_standard_output_is_not_closed(capsys):
    with JsonLines() as sink:
        sink.write({"a": 1})
    sys.stdout.write("still open\n")
    assert capsys.readouterr().out == '{"a": 1}\nstill open\n'


def test_nan_and_a_folder_in_the_way_are_refused(tmp_path):
    with JsonLines(tmp_path / "x.jsonl") as sink, pytest.raises(ValueError):
        sink.write({"score": float("nan")})
    with pytest.raises(InputError, match="cannot write"), JsonLines(tmp_path):
        pass
