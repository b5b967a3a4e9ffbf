"""Iterative train-and-refine (METHODS section 8.4): train, embed, decide, and train on the result.

Labels that a net was trained on look right to it. So, unless asked otherwise, two nets are trained
a round, each on one half of the pictures, and each judges the half that it never saw. The whole
set is judged anew each time from its given labels: what was dropped wrongly comes back.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_tools.decisions import Log, read_log
from data_tools.judgement import Targets
from data_tools.log_clean import refresh_clean, undo_rounds
from data_tools.log_rows import REVIEW
from data_tools.refine_plan import Plan, describe_plan, make_plan
from data_tools.refine_state import (
    COLLAPSED,
    RefineState,
    Row,
    build_row,
    check_rounds,
    count_labelled,
    find_best,
    find_stop,
    open_state,
)
from data_tools.refine_train import Trained, join_figures, place_recipe, run_training, write_rows
from data_tools.rounds import run_round
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError
from facerec.io import lock_folder

WORK = "refine"
"""Folder in the set folder; it may be deleted when nothing is to be gone on with."""

_HALVES = (0, 1)
_Model = str | Path | tuple[str | Path, str | Path]


def refine(
    out: Path,
    recipe: Path | None = None,
    *,
    model: str | Path | None = None,
    rounds: int = 3,
    stop_share: float = 0.01,
    robust: str = "coteaching",
    cross_fit: bool = True,
    validation: Path | None = None,
    overrides: Sequence[str] = (),
    later: Sequence[str] = (),
    targets: Targets | None = None,
    evaluation: Sequence[Path] = (),
    runtime: str = "auto",
    flip: bool = False,
    batch_size: int = 32,
    threads: int | None = None,
    seed: int | None = None,
    final: bool = False,
    restart: bool = False,
    report: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Clean a set by rounds of training and judging, and return the table of rounds.

    Round 0 judges with `model`, or with nets trained on the set as the log leaves it: on the raw
    labels while no round counts. Each later round trains on the clean set so far, starting from
    the weights of the round before (of the same half, which has seen nothing else) with class
    centres at the mean of their embeddings, and judges again. Identities with too few images
    (`data.min_images`) are left out of a training, never out of the set.

    It ends when a round changes fewer than `stop_share` of the rows, when no validation figure
    was better than the best before it by more than its standard error in two rounds, or after
    `rounds`. The rounds after the best one are then undone in the log (`undo`) if the figure
    stalled, or if the last is worse than the best by more than its error. A round that keeps
    hardly a row is undone at once. `refine/refine.json` says so, and has the table. Killed at any
    moment, the same call goes on where it was.

    Args:
        out: a set folder.
        recipe: of facerec-train; None needs `model`, and there is one round.
        model: a recogniser that was not trained on this set.
        rounds: most rounds, round 0 included. May be raised later to go on.
        stop_share: in [0, 1].
        robust: "coteaching", "subcenter" or "none": see `data_tools.refine_train.adapt_recipe`.
        cross_fit: two trainings a round, each on half of the pictures, instead of one on all.
        validation: a `.bin` pack of pairs or a folder of chips of people who are not in the set.
        overrides: `key=value` for the recipe.
        later: further ones for the trainings after the first, such as `epochs=8`.
        targets: what a round may get wrong.
        evaluation: evaluation sets, as for `run_round`.
        runtime: of embedding, likewise.
        flip: likewise.
        batch_size: likewise.
        threads: likewise.
        seed: of sampling and of the trainings, each its own; None: the recipe's.
        final: train one more model, on the whole clean set, and export it: `refine/final/model`.
        restart: forget the trainings and the table; rounds in the log stay.
        report: called with each row of the table as soon as it is there.

    Raises:
        InputError: no complete set, in use, a bad recipe or model, other settings than those the
            work folder was begun with, or a round was undone by somebody else since.
    """
    folder = open_set(out)
    plan = make_plan(
        recipe,
        model,
        rounds=rounds,
        stop_share=stop_share,
        robust=robust,
        cross_fit=cross_fit,
        validation=validation,
        overrides=overrides,
        later=later,
        seed=seed,
        round_options={
            "targets": targets or Targets(),
            "runtime": runtime,
            "flip": flip,
            "batch_size": batch_size,
            "threads": threads,
            **({"evaluation": tuple(evaluation)} if evaluation else {}),
        },
    )
    if final and plan.first is None:
        raise InputError("a final training needs a recipe; give one, or leave it out")
    work = folder.root / WORK
    with lock_folder(work, "facerec-clean refine"):
        state = open_state(work, describe_plan(plan, folder), restart)
        check_rounds(state, read_log(folder.log))
        for row in state.table:
            _tell(report, row)
        _iterate(folder, plan, state, report)
        if final:
            _train_final(folder, plan, state)
    return state.table


def _iterate(
    folder: SetFolder, plan: Plan, state: RefineState, report: Callable[[Row], None] | None
) -> None:
    """Run the rounds that are missing, and take back those that made things worse."""
    while not (state.undoing or state.undone):
        state.stopped = find_stop(state.table, plan.rounds, plan.stop_share)
        if state.stopped:
            break
        row = _run_one(folder, plan, state)
        state.table.append(row)
        state.deciding, state.note = None, ""
        state.save()
        _tell(report, row)
    _settle(folder, state)


def _run_one(folder: SetFolder, plan: Plan, state: RefineState) -> Row:
    """Train, embed, decide and log one round; return its row."""
    number = len(state.table)
    trained: list[Trained] = []
    model: _Model
    if number == 0 and plan.model is not None:
        model = plan.model
    else:
        halves = _HALVES if plan.cross_fit else (None,)
        trained = [_train_part(folder, plan, number, half) for half in halves]
        # Half 0 is judged by the net that was trained on half 1, and the other way round.
        pair = (trained[-1].artefact, trained[0].artefact)
        model = pair if plan.cross_fit else trained[0].artefact
    log = read_log(folder.log)
    if state.deciding is None or state.deciding["round"] != number:
        state.deciding = {"round": number, "next": log.next_number}
        state.save()
    try:
        summary = run_round(folder.root, model, seed=plan.seed, **plan.round_options)
    except InputError as refusal:
        if not trained:
            raise
        raise InputError(
            f"round {number}, judged by the nets just trained: {refusal} (if they have learnt too "
            "little to tell people apart: --restart, and train longer or give --model)"
        ) from refusal
    log_round = summary["round"]
    if log_round is None:
        log_round, summary = _adopt(read_log(folder.log), state.deciding["next"], summary)
    figure, error = join_figures(trained)
    return build_row(number, "trained" if trained else "given", summary, log_round, figure, error)


def _adopt(log: Log, least: int, summary: dict[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """Return the round that a killed run logged just before it could note it, if it did."""
    for entry in reversed(log.active):
        if entry.number >= least and entry.summary.get("check") != REVIEW:
            return entry.number, {**summary, **entry.summary}
    return None, {**summary, "restored": 0}


def _train_part(folder: SetFolder, plan: Plan, number: int, half: int | None) -> Trained:
    """Train one of a round's nets, or go on with it."""
    settings = plan.later if _has_nets(plan, number) else plan.first
    assert settings is not None, "a plan without recipe has one round, of the model given"
    place = _name_part(folder, number, half)
    rows = place.with_suffix(".parquet")
    if not rows.exists():
        with folder.lock("refine"):
            write_rows(folder, _is_cleaned(folder), rows, half)
    start = None
    if _has_nets(plan, number):
        start = _name_part(folder, number - 1, half) / "artefact"
    seed = plan.seed + len(_HALVES) * number + (half or 0)
    name = f"refine-{number}" if half is None else f"refine-{number}-half-{half}"
    return run_training(place_recipe(settings, rows, name=name, seed=seed, start=start), place)


def _has_nets(plan: Plan, number: int) -> bool:
    """Return whether the round before trained nets that this one may start from."""
    return number > (0 if plan.model is None else 1)


def _name_part(folder: SetFolder, number: int, half: int | None) -> Path:
    name = "all" if half is None else f"half-{half}"
    return (folder.root / WORK / f"round-{number}" / name).resolve()


def _is_cleaned(folder: SetFolder) -> bool:
    """Return whether a round counts, and make sure that the clean set is then that of the log."""
    if not read_log(folder.log).active:
        return False
    refresh_clean(folder)
    return True


def _settle(folder: SetFolder, state: RefineState) -> None:
    """Take the rounds after the best one back, if they are to be."""
    best = find_best(state.table, state.stopped)
    if best is not None and not state.undone:
        later = state.table[best + 1 :]
        state.undoing = [row["log_round"] for row in later if row["log_round"] is not None]
        state.save()
        _take_back(folder, state, best)
    state.save()


def _take_back(folder: SetFolder, state: RefineState, best: int) -> None:
    """Undo the rounds noted in the state; none if somebody else's were made on top of them."""
    log, numbers = read_log(folder.log), state.undoing
    left = [number for number in numbers if not log.find_round(number).undone]
    others = [e.number for e in log.active if left and e.number > left[0] and e.number not in left]
    named = f"round{'s' * (len(numbers) > 1)} " + ", ".join(map(str, numbers))
    are = "are" if len(numbers) > 1 else "is"
    state.note = f"round {best} has the best validation figure"
    if state.stopped == COLLAPSED:
        row = state.table[-1]
        state.note = (
            f"round {row['round']} kept {row['kept']:,} of {count_labelled(row):,} labelled faces: "
            "its net is too weak to judge them; train longer or on more, or give a model"
        )
    if others:
        state.note += (
            f", but {named} of the log could not be undone, because round {others[0]} was made "
            f"since by others; to undo them all: facerec-clean undo --round {left[0]}"
        )
        state.undoing = []
        return
    if left:
        undo_rounds(folder.root, left[0])
    else:  # a killed run may have left the clean set of before
        with folder.lock("refine"):
            _is_cleaned(folder)
    if numbers:
        state.note += f"; {named} of the log {are} undone"
    for row in state.table[best + 1 :]:
        row["undone"] = True
    state.undone = True


def _train_final(folder: SetFolder, plan: Plan, state: RefineState) -> None:
    """Train one model on the whole clean set, anew if the log has changed since the last one."""
    assert plan.first is not None, "checked before the first round"
    place = (folder.root / WORK / "final").resolve()
    rows = place / "all.parquet"
    with folder.lock("refine"):
        if not _is_cleaned(folder):
            state.final = None
            why = "no final model, because nothing was cleaned"
            if why not in state.note:
                state.note = f"{state.note}; {why}" if state.note else why
            state.save()
            return
        digest = read_log(folder.log).digest
        if state.final is None or state.final["log"] != digest:
            shutil.rmtree(place, ignore_errors=True)
            state.final = {"log": digest}
            state.save()
        if not rows.exists():
            write_rows(folder, True, rows, None)
    name = f"{folder.root.resolve().name}-clean"
    settings = place_recipe(plan.first, rows, name=name, seed=plan.seed, start=None)
    found = run_training(settings, place / "model")
    state.final = {
        "log": digest,
        "artefact": str(found.artefact.relative_to(folder.root.resolve())),
        "validation": found.figure,
        "validation_error": found.error,
    }
    state.save()


def _tell(report: Callable[[Row], None] | None, row: Row) -> None:
    if report is not None:
        report(row)
