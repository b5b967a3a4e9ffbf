"""How rows went from round to round: counts of who was in which state before and after each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.decisions import Round
from data_tools.log_state import locate_rows

STATES = (
    "given",
    "kept",
    "relabelled",
    "merged",
    "split",
    "restored",
    "duplicate",
    "overlap",
    "dropped",
)
"""What a row can be; the last three are not in the clean set."""

_BY_ACTION = {
    "keep": "kept",
    "relabel": "relabelled",
    "merge": "merged",
    "split": "split",
    "restore": "restored",
    "duplicate": "duplicate",
    "overlap": "overlap",
    "drop": "dropped",
}


@dataclass(frozen=True)
class Flow:
    """What one round did to the rows.

    Attributes:
        round: its number.
        counts: (state before, state after) -> rows, only those that occur, in the order of STATES.
    """

    round: int
    counts: dict[tuple[str, str], int]


def count_flows(rows: pa.Table, rounds: list[Round]) -> list[Flow]:
    """Return one flow a round.

    A row that a round says nothing of stays what it is; the first round finds all of them given.

    Args:
        rows: n rows with path and face, each pair once.
        rounds: those that count, in order.
    """
    keys = rows.select(["path", "face"])
    state = np.zeros(rows.num_rows, np.int64)
    flows = []
    actions = pa.array(list(_BY_ACTION))
    codes = np.array([STATES.index(name) for name in _BY_ACTION.values()], np.int64)
    for entry in rounds:
        found = entry.read(["path", "face", "action"])
        place = locate_rows(keys, found)
        told = place >= 0
        known = pc.fill_null(pc.index_in(found["action"], value_set=actions), 0).to_numpy()
        after = state.copy()
        after[told] = codes[known[place[told]]]
        pairs, counts = np.unique(state * len(STATES) + after, return_counts=True)
        flow = {
            (STATES[pair // len(STATES)], STATES[pair % len(STATES)]): count
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        }
        flows.append(Flow(entry.number, flow))
        state = after
    return flows
