"""What a refinement remembers of itself: its settings, its table of rounds, when it is to stop."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.decisions import Log
from facerec.checks import InputError
from facerec.io import read_json, write_json
from facerec.training.settings import find_change

NAME = "refine.json"
FORMAT = 1
PATIENCE = 2
"""Rounds without a better validation figure after which nothing more is expected."""

LEAST_KEPT = 0.2
"""Share of the labelled faces under which a round is taken for a net's failure, not the set's."""

COLLAPSED = "hardly a row was kept"
SETTLED = "few labels changed"
STALLED = "the validation figure did not improve"
USED_UP = "all rounds are used up"

Row = dict[str, Any]

_RECIPES = ("recipe", "later")
_FIGURES = (
    *("rows", "usable", "judged", "kept", "dropped", "merged", "split"),
    *("duplicates", "overlap", "restored", "changed", "changed_share", "noise"),
)


@dataclass
class RefineState:
    """The content of `refine.json`; every step is written before the next one begins.

    Attributes:
        path: of the file.
        settings: what decides the result.
        table: one row a finished round, see `build_row`.
        deciding: the round whose decisions may or may not be in the log already: {"round": its
            place in the table, "next": the number that the log would have given}; None for none.
        undoing: numbers of the log's rounds that are to be taken back, first to last.
        undone: whether that is done.
        note: what the user should know about the end.
        stopped: why there are no more rounds; "" while there may be.
        final: the model of the whole clean set: the log's digest, and its artefact when made.
    """

    path: Path
    settings: dict[str, Any]
    table: list[Row] = field(default_factory=list)
    deciding: dict[str, int] | None = None
    undoing: list[int] = field(default_factory=list)
    undone: bool = False
    note: str = ""
    stopped: str = ""
    final: dict[str, Any] | None = None

    def save(self) -> None:
        """Write the file, all or nothing."""
        values = {name: value for name, value in vars(self).items() if name != "path"}
        write_json(self.path, {"format": FORMAT, **values})


def open_state(work: Path, settings: dict[str, Any], restart: bool = False) -> RefineState:
    """Return the state in a work folder, a fresh one where there is none; its lock must be held.

    Args:
        work: the folder.
        settings: what decides the result, plain JSON values; "recipe" and "later" hold resolved
            training settings, whose neutral keys (device, workers) may differ.
        restart: forget what is there.

    Raises:
        InputError: the folder was begun with other settings, or its file is damaged.
    """
    if restart:
        _clear(work)
    path = work / NAME
    if not path.exists():
        return RefineState(path, settings)
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise InputError(
            f"{path} must be a refinement of format {FORMAT}; begin anew with --restart"
        )
    state = RefineState(path, **values)
    if (key := _find_change(state.settings, settings)) is not None:
        raise InputError(
            f"{work} was begun with another {key}; give the same settings, or begin anew with "
            "--restart (rounds in the log stay)"
        )
    state.settings = settings
    return state


def check_rounds(state: RefineState, log: Log) -> None:
    """Raise InputError if a round of the table was taken back by somebody else."""
    active = {entry.number for entry in log.active}
    for row in state.table:
        number = row["log_round"]
        if number is not None and number not in active and number not in state.undoing:
            raise InputError(
                f"round {number} of the log, which round {row['round']} of {state.path} made, was "
                "undone since; begin anew with --restart (rounds in the log stay)"
            )


def build_row(
    number: int,
    model: str,
    summary: dict[str, Any],
    log_round: int | None,
    validation: float | None,
    error: float | None,
) -> Row:
    """Return a row of the table.

    Args:
        number: of the round, from 0.
        model: "given" or "trained".
        summary: of `data_tools.rounds.run_round`.
        log_round: the round's number in the log, None where nothing changed.
        validation: the figure, higher is better.
        error: its standard error.

    Returns:
        round, model, log_round, the summary's counts (`moved` are rows relabelled), noise
        (estimated share of wrong labels), validation, validation_error and undone.
    """
    return {
        "round": number,
        "model": model,
        "log_round": log_round,
        **{name: summary[name] for name in _FIGURES},
        "moved": summary["relabelled"],
        "validation": validation,
        "validation_error": error,
        "undone": False,
    }


def find_stop(table: Sequence[Row], rounds: int, stop_share: float) -> str:
    """Return why no round should follow those of a table, "" if one should.

    Args:
        table: of finished rounds.
        rounds: most of them.
        stop_share: a round that changed less than this share of the rows is the last.
    """
    if not table:
        return ""
    if table[-1]["kept"] < LEAST_KEPT * count_labelled(table[-1]):
        return COLLAPSED
    if table[-1]["changed_share"] < stop_share or table[-1]["changed"] == 0:
        return SETTLED
    if _count_idle(table) >= PATIENCE:
        return STALLED
    return USED_UP if len(table) >= rounds else ""


def find_best(table: Sequence[Row], stop: str) -> int | None:
    """Return the place of the round after which all are to be taken back, None for none.

    It is the round with the best figure, of equal ones the last. The rounds after it go when the
    figure stalled, or when the last one lies more than its standard error below the best. When
    hardly a row was kept it is the round before, -1 where there is none.

    Args:
        table: of finished rounds.
        stop: why they ended.
    """
    if stop == COLLAPSED:
        return len(table) - 2
    scored = [place for place, row in enumerate(table) if row["validation"] is not None]
    if not scored:
        return None
    best = max(scored, key=lambda place: (table[place]["validation"], place))
    last = table[scored[-1]]
    worse = last["validation"] < table[best]["validation"] - last["validation_error"]
    if best == len(table) - 1 or not (worse or stop == STALLED):
        return None
    return best


def count_labelled(row: Row) -> int:
    """Return how many faces a round kept, dropped or found to be copies."""
    return int(row["kept"] + row["dropped"] + row["duplicates"])


def _count_idle(table: Sequence[Row]) -> int:
    """Return how many scored rounds have passed since one was better by more than its error."""
    best, idle = None, 0
    for row in table:
        figure = row["validation"]
        if figure is None:
            continue
        if best is None or figure > best + row["validation_error"]:
            best, idle = figure, 0
        else:
            idle += 1
    return idle


def format_head() -> str:
    """Return the line above the rows of `format_row`."""
    return "".join(f"{title:>{width}}" for title, width in _COLUMNS.values())


def format_row(row: Row) -> str:
    """Return a round as a line of the table."""
    shown = {name: f"{row[name]:,}" for name in _COUNTS}
    shown["changed"] = f"{row['changed_share']:.2%}"
    shown["noise"] = f"{row['noise']:.2%}"
    figure = row["validation"]
    shown["validation"] = "-" if figure is None else f"{figure:.4f} ± {row['validation_error']:.4f}"
    shown["round"], shown["model"] = str(row["round"]), row["model"]
    line = "".join(f"{shown[name]:>{width}}" for name, (_, width) in _COLUMNS.items())
    return f"{line}  undone" if row["undone"] else line


_COUNTS = ("kept", "dropped", "moved", "merged", "split", "restored")
_COLUMNS = {
    "round": ("round", 5),
    "model": ("model", 9),
    **{name: (name, 12 if name == "kept" else 11) for name in _COUNTS},
    "changed": ("changed", 9),
    "noise": ("noise", 9),
    "validation": ("validation", 18),
}


def _find_change(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if key in _RECIPES and isinstance(before, dict) and isinstance(after, dict):
            if found := find_change(before, after):
                return f"{key} key {found}" if key == "later" else found
        elif before != after:
            return key
    return None


def _clear(work: Path) -> None:
    """Remove everything in the work folder but its lock; what says that it is valid goes first."""
    (work / NAME).unlink(missing_ok=True)
    for entry in work.iterdir():
        if entry.name == ".lock":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
