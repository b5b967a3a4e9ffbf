"""When a refinement stops, which round was best, how sure a figure is, what a recipe becomes."""

from __future__ import annotations

import pytest

from data_tools.refine_state import (
    COLLAPSED,
    SETTLED,
    STALLED,
    USED_UP,
    build_row,
    find_best,
    find_stop,
    format_head,
    format_row,
)
from data_tools.refine_train import Trained, adapt_recipe, estimate_error, join_figures
from facerec.checks import InputError
from facerec.training.settings import TrainSettings

COUNTS = dict.fromkeys(
    (
        *("rows", "usable", "judged", "kept", "dropped", "relabelled", "merged", "split"),
        *("duplicates", "overlap", "restored"),
    ),
    7,
)


def rows(*figures, changed=0.5, error=0.01):
    summary = {**COUNTS, "changed": round(1000 * changed), "changed_share": changed, "noise": 0.2}
    return [build_row(n, "trained", summary, n + 1, f, error) for n, f in enumerate(figures)]


@pytest.mark.parametrize(
    ("table", "rounds", "reason"),
    [
        (rows(), 3, ""),
        (rows(0.5), 3, ""),
        (rows(0.5), 1, USED_UP),
        (rows(None, None), 3, ""),
        (rows(0.5, changed=0.0099), 3, SETTLED),
        (rows(0.5, changed=0.01), 3, ""),
        (rows(0.5, 0.505, 0.509), 9, STALLED),  # twice within the error of the best
        (rows(0.5, 0.505, 0.511), 9, ""),  # better than round 0 by more than the error
        (rows(0.5, 0.6, 0.55), 9, ""),
        (rows(0.5, 0.6, 0.55, 0.6), 9, STALLED),
        (rows(None, 0.5, 0.5), 9, ""),  # a given model has no figure
        (rows(None, 0.5, 0.5, 0.5), 9, STALLED),
    ],
)
def test_stop(table, rounds, reason):
    assert find_stop(table, rounds, 0.01) == reason


def test_a_round_that_changes_nothing_is_the_last_even_for_a_stop_share_of_0():
    assert find_stop(rows(0.5, changed=0.0), 9, 0.0) == SETTLED
    assert find_stop(rows(0.5, changed=0.001), 9, 0.0) == ""


@pytest.mark.parametrize(
    ("figures", "stop", "best"),
    [
        ((0.5, 0.6, 0.55, 0.6), STALLED, None),  # of equal ones the last
        ((0.5, 0.6, 0.55, 0.59), STALLED, 1),
        ((0.5, 0.49, 0.495), STALLED, 0),
        ((0.5, 0.6, 0.595), USED_UP, None),  # not worse by more than the error
        ((0.5, 0.6, 0.58), USED_UP, 1),
        ((0.5, 0.6, 0.58), SETTLED, 1),
        ((None, 0.6, 0.5), USED_UP, 1),
        ((None, None), USED_UP, None),
        ((0.5,), USED_UP, None),
    ],
)
def test_the_rounds_after_the_best_one_go(figures, stop, best):
    assert find_best(rows(*figures), stop) == best


def test_a_round_that_keeps_hardly_a_row_is_the_last_and_goes():
    table = rows(0.5, 0.6)
    table[-1] |= {"kept": 20, "dropped": 10, "duplicates": 70, "overlap": 500}
    assert find_stop(table, 9, 0.01) == ""
    table[-1]["kept"] = 19
    assert find_stop(table, 9, 0.01) == COLLAPSED
    assert find_best(table, COLLAPSED) == 0 and find_best(table[1:], COLLAPSED) == -1


def test_the_table_lines_up():
    table = [*rows(0.5, 0.25), *rows(None)]
    table[1]["undone"] = True
    head, first, second, none = format_head(), *map(format_row, table)
    assert len(head) == len(first) == len(none) == len(second) - len("  undone")
    titles = "round model kept dropped moved merged split restored changed noise validation"
    assert " ".join(head.split()) == titles
    assert first.split()[-5:] == ["50.00%", "20.00%", "0.5000", "±", "0.0100"]
    assert second.endswith("  undone") and none.endswith(" -")


def test_errors_of_figures():
    # (0.9 * 98 + 1) / 100 = 0.892
    assert estimate_error(0.9, 98) == pytest.approx((0.892 * 0.108 / 100) ** 0.5)
    assert 0 < estimate_error(1.0, 10) == pytest.approx(estimate_error(0.0, 10))
    pair = [Trained("a", 0.8, 0.01), Trained("b", 0.9, 0.02)]
    assert join_figures(pair) == (pytest.approx(0.85), pytest.approx(0.05))
    assert join_figures([Trained("a", 0.8, 0.01)]) == (0.8, 0.01)
    assert join_figures([Trained("a", None, None)]) == join_figures([]) == (None, None)


def test_recipes_are_made_robust_and_keep_what_they_say():
    plain = TrainSettings()
    assert adapt_recipe(plain, "none", None) == plain
    assert adapt_recipe(plain, "coteaching", None).noise.name == "coteaching"
    head = {"head": {"name": "cosface", "params": {"margin": 0.3, "sub_centers": 2}}}
    own = TrainSettings.model_validate({**head, "noise": {"name": "comining"}})
    assert adapt_recipe(own, "coteaching", None) == own
    params = adapt_recipe(own, "subcenter", None).head.params
    assert params == {"margin": 0.3, "sub_centers": 2, "filter_cosine": 0.4}


def test_validation_is_a_pack_or_a_folder_and_replaces_the_recipes(tmp_path):
    held = TrainSettings.model_validate({"validation": {"holdout": 0.1}})
    with pytest.raises(InputError, match="holdout must be 0 here"):
        adapt_recipe(held, "none", None)
    with pytest.raises(InputError, match=r"must be a \.bin pack or a folder"):
        adapt_recipe(held, "none", tmp_path / "absent")
    pack = tmp_path / "lfw.bin"
    pack.write_bytes(b"")
    found = adapt_recipe(held, "none", pack).validation
    assert (found.bins, found.folder, found.holdout) == ((pack,), None, 0)
    found = adapt_recipe(adapt_recipe(held, "none", pack), "none", tmp_path).validation
    assert (found.bins, found.folder) == ((), tmp_path)
