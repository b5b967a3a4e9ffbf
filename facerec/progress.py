"""Progress on standard error: count, rate and time left; a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

_LINE_EVERY_S = 10.0


class Progress:
    """Context manager that shows how far a long job is.

    Args:
        what: the job in a word or two ("embed").
        total: number of units, None when unknown.
        unit: what is counted, plural ("images").
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._started = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            self._start_bar()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._write_line(kind is None)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` units as done; `note` is shown behind the figures."""
        self.done += count
        if self._bar is not None:
            self._bar.update(
                self._task, advance=count, note=f"{self.rate():.0f} {self.unit}/s {note}"
            )
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._write_line(False, note)

    def rate(self) -> float:
        """Return units a second since the start."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    def _start_bar(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ModuleNotFoundError:  # lean machines: plain lines do
            return
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self.what, total=self.total, note="")
        self._bar.start()

    def _write_line(self, finished: bool, note: str = "") -> None:
        self._last_line = time.monotonic()
        spent = self._last_line - self._started
        of = f" of {self.total}" if self.total is not None else ""
        left = ""
        if not finished and self.total is not None and self.done:
            seconds = spent / self.done * max(self.total - self.done, 0)
            left = f", {seconds:.0f} s left"
        took = f" in {spent:.1f} s" if finished else ""
        tail = f" {note}" if note else ""
        sys.stderr.write(
            f"{self.what}: {self.done}{of} {self.unit}{took}, "
            f"{self.rate():.0f} {self.unit}/s{left}{tail}\n"
        )
        sys.stderr.flush()
