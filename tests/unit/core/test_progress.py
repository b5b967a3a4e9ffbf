import io
import itertools

import pytest

from facerec import progress as module
from facerec.progress import Progress


class Clock:
    """Seconds that pass only when a test says so."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_lines_hold_count_rate_and_time_left(clock, capsys):
    with Progress("embed", 100, "images") as shown:
        clock.now += 9.9
        shown.advance(10)
        assert capsys.readouterr().err == ""  # at most a line every ten seconds
        clock.now += 0.1
        shown.advance(10, "3 tracks")
        assert capsys.readouterr().err == (
            "embed: 20 of 100 images, 2 images/s, 40 s left 3 tracks\n"
        )
        clock.now += 5
        shown.advance(80)
    assert capsys.readouterr().err == "embed: 100 of 100 images in 15.0 s, 7 images/s\n"


def test_an_unknown_total_has_no_time_left(clock, capsys):
    with Progress("watch", None, "frames") as shown:
        clock.now += 10
        shown.advance(50)
        assert capsys.readouterr().err == "watch: 50 frames, 5 frames/s\n"


def test_an_error_leaves_how_far_it_came(clock, capsys):
    with pytest.raises(KeyError), Progress("ingest", 4, "pictures") as shown:
        clock.now += 2
        shown.advance()
        raise KeyError
    assert capsys.readouterr().err == "ingest: 1 of 4 pictures, 0 pictures/s, 6 s left\n"


@pytest.mark.parametrize(
    ("total", "steps"), list(itertools.product([None, 0, 1], [(), (0,), (1,), (3,)]))
)
def test_no_time_and_nothing_done_divide_by_nothing(clock, capsys, total, steps):
    with Progress("job", total, "units") as shown:
        for step in steps:
            shown.advance(step)
    assert capsys.readouterr().err.startswith(f"job: {sum(steps)}")
    with pytest.raises(RuntimeError), Progress("job", total, "units") as shown:
        raise RuntimeError
    assert "left" not in capsys.readouterr().err


@pytest.mark.parametrize("total", [3, None])
def test_a_terminal_gets_a_bar(monkeypatch, total):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("train", total, "steps") as shown:
        shown.advance(3, "loss 1")
    assert "train" in terminal.getvalue() and "steps/s" in terminal.getvalue()
    assert "train: 3" not in terminal.getvalue()  # no lines beside the bar
