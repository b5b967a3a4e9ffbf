"""A round's verdicts as tables: one line a row of scores, one decision a row of the manifest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_tools.centres import Labels, Mask
from data_tools.round_rows import Usable

CHECKS = (
    "identity",
    "same picture",
    "evaluation overlap",
    "quality",
    "embedding",
    "ingest",
    "review",
)
ACTION_NAMES = ("keep", "drop", "relabel", "merge", "split", "duplicate", "overlap")
REASONS = (
    "near its identity's centre",  # 0
    "far from its identity's centre",
    "far from its identity's centre, kept by the cap on drops",
    "too few to judge",
    "no identity to judge against",
    "nearer to another identity, not surely enough to move it there",  # 5
    "nearer to another identity, which too many strangers are near to",
    "shows the other identity",
    "its identity is the other one by another name",
    "a second person of this name",
    "the same picture is kept as another row",  # 10
    "shows a person or a picture of an evaluation set",
    "another face of the same picture is more like this identity",
    "no direction: embedding of norm 0",
    "poorer than the limits on quality",
    "decided by a person",  # 15
)
(
    NEAR,
    FAR,
    CAPPED,
    TOO_FEW,
    UNLABELLED,
    UNSURE,
    CROWDED,
    SHOWS,
    RENAMED,
    SECOND,
    COPY,
    LEAK,
    SIBLING,
    NO_DIRECTION,
    POOR,
    PINNED,
) = range(len(REASONS))
KEEP, DROP, RELABEL, MERGE, SPLIT, DUPLICATE, OVERLAP = range(len(ACTION_NAMES))
IDENTITY, SAME_PICTURE, EVALUATION, QUALITY, EMBEDDING, INGEST, REVIEW = range(len(CHECKS))


@dataclass
class Verdicts:
    """What is decided on n usable rows, as numbers; filled in by one check after the other.

    Attributes:
        names: all identities, given and new.
        fate: int64 (n,), in `names`, -1 = out.
        action: int8 (n,), in ACTION_NAMES.
        check: int8 (n,), in CHECKS.
        reason: int8 (n,), in REASONS.
        score: float64 (n,), NaN where there is none.
        threshold: float64 (n,), likewise.
        other: text for the reason: int64 (n,), in `names`, -1 for none.
    """

    names: list[str]
    fate: Labels
    action: NDArray[np.int8]
    check: NDArray[np.int8]
    reason: NDArray[np.int8]
    score: NDArray[np.float64]
    threshold: NDArray[np.float64]
    other: Labels

    @classmethod
    def start(cls, names: list[str], labels: Labels) -> Verdicts:
        """Return verdicts that keep every row as it is labelled."""
        n = len(labels)
        return cls(
            names,
            labels.copy(),
            np.zeros(n, np.int8),
            np.zeros(n, np.int8),
            np.zeros(n, np.int8),
            np.full(n, np.nan),
            np.full(n, np.nan),
            np.full(n, -1, np.int64),
        )

    def decide(
        self,
        rows: Mask,
        action: int,
        reason: int,
        *,
        check: int | None = None,
        fate: Labels | int | None = None,
        other: Labels | None = None,
    ) -> None:
        """Decide some rows anew.

        Args:
            rows: bool (n,).
            action: of ACTION_NAMES.
            reason: of REASONS.
            check: of CHECKS; as before when None.
            fate: the identity of each of all n rows, or one number; as before when None.
            other: of all n rows, the identity that the reason names.
        """
        self.action[rows], self.reason[rows] = action, reason
        if check is not None:
            self.check[rows] = check
        if fate is not None:
            self.fate[rows] = fate if isinstance(fate, int) else fate[rows]
        if other is not None:
            self.other[rows] = other[rows]


def build_round(
    manifest: pa.Table,
    usable: Usable,
    verdicts: Verdicts,
    before: pa.ChunkedArray,
    models: pa.Array,
) -> tuple[pa.Table, Mask]:
    """Return a decision for every row of the manifest, and which rows end otherwise than before.

    Args:
        manifest: all rows, with image_id, path, face, chip and reason.
        usable: those that were judged.
        verdicts: on them.
        before: text, who each row of the manifest was before; null = not in the clean set.
        models: text (n,), hash of the model that scored each usable row.

    Returns:
        A table like `data_tools.log_rows.DECISION_SCHEMA` without `round`, in the manifest's
        order, and bool (rows,).
    """
    total = manifest.num_rows
    spread = _spread(total, usable.rows)
    place = pa.array(spread, mask=spread < 0)
    to = _name(verdicts.names, verdicts.fate).take(place)
    action = pa.array(ACTION_NAMES).take(pa.array(verdicts.action)).take(place)
    check = pa.array(CHECKS).take(pa.array(verdicts.check)).take(place)
    reason = _word_reasons(verdicts).take(place)
    before = before.combine_chunks()
    came_back = pc.and_(pc.is_null(before), pc.is_valid(to))
    action = pc.if_else(came_back, "restore", pc.fill_null(action, "drop"))
    one_null = pc.xor(pc.is_null(before), pc.is_null(to))
    changed = pc.or_(pc.fill_null(pc.not_equal(before, to), False), one_null)
    # A row with a chip that was not judged is one that the model gave no direction.
    blank = pc.and_(pc.is_null(place), pc.not_equal(manifest["chip"].combine_chunks(), ""))
    missing = pc.if_else(blank, CHECKS[EMBEDDING], CHECKS[INGEST])
    why = pc.if_else(blank, REASONS[NO_DIRECTION], manifest["reason"].combine_chunks())
    table = pa.table(
        {
            "image_id": manifest["image_id"],
            "path": manifest["path"],
            "face": manifest["face"],
            "check": pc.coalesce(check, missing),
            "action": action,
            "from": before,
            "to": to,
            "score": pa.array(verdicts.score).take(place),
            "threshold": pa.array(verdicts.threshold).take(place),
            "model": pc.coalesce(models.take(place), pc.if_else(blank, models[0], "")),
            "reason": pc.coalesce(reason, why),
        }
    )
    return table, np.asarray(changed.to_numpy(zero_copy_only=False), bool)


def build_scores(
    manifest: pa.Table, usable: Usable, verdicts: Verdicts, columns: dict[str, NDArray[np.generic]]
) -> pa.Table:
    """Return what was known of each usable row, and what was decided, a line a row.

    Args:
        manifest: all rows.
        usable: those that were judged.
        verdicts: on them.
        columns: float, int or bool (n,); of a float NaN means null; a column whose name ends in
            "_identity" holds numbers in `verdicts.names`, -1 = null.
    """
    kept = ["image_id", "path", "face", "identity", "chip"]
    table = manifest.select(kept).take(pa.array(usable.rows))
    for name, values in columns.items():
        if name.endswith("_identity"):
            column = _name(verdicts.names, values.astype(np.int64))
        else:
            column = pa.array(values, from_pandas=True)
        table = table.append_column(name, column)
    table = table.append_column("fate", _name(verdicts.names, verdicts.fate))
    return table.append_column("action", pa.array(ACTION_NAMES).take(pa.array(verdicts.action)))


def _spread(total: int, rows: Labels) -> Labels:
    places = np.full(total, -1, np.int64)
    places[rows] = np.arange(len(rows))
    return places


def _name(names: list[str], codes: Labels) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(codes, mask=codes < 0))


def _word_reasons(verdicts: Verdicts) -> pa.Array:
    """Return the reasons as text, with the identity they speak of where there is one."""
    text = pa.array(REASONS).take(pa.array(verdicts.reason))
    other = _name(verdicts.names, verdicts.other)
    named = pc.binary_join_element_wise(text, other, ": ")
    return pc.coalesce(named, text)
