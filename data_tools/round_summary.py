"""What a round knows of its rows, put together: the score table's columns and the summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools import round_table as word
from data_tools.centres import Labels
from data_tools.duplicate_cut import CopyCut
from data_tools.duplicates import Duplicates
from data_tools.looks import Looks
from data_tools.outliers import MIN_PICTURES
from data_tools.round_rows import Usable
from data_tools.round_table import ACTION_NAMES, REASONS, Verdicts
from data_tools.round_verdicts import Views, agree_merges, name_identities
from data_tools.spaces import Embedded
from facerec.io import sha256_bytes


@dataclass(frozen=True)
class RoundViews:
    """The judgements of a round: one of all rows, or one a half of the set.

    Attributes:
        embedded: a model's view each.
        judged: the rows that each speaks of, and its judgement.
        duplicates: in the first view; None where they are not looked for.
        cut: from where on two rows are copies, in the first view.
        looks: of the chips; None where copies are not looked for.
    """

    embedded: list[Embedded]
    judged: Views
    duplicates: Duplicates | None
    cut: CopyCut
    looks: Looks | None

    def name_models(self, usable: Usable) -> pa.Array:
        """Return the hash of the model that judged each row, text (n,)."""
        models = pa.array([one.model for one in self.embedded])
        which = usable.half if len(self.embedded) > 1 else np.zeros(len(usable.ids), np.int8)
        return models.take(pa.array(which))

    def gather(self, pick: str) -> NDArray[Any]:
        """Return a column of the judgements, "scores.own" for one, each row from its own."""
        first, second = pick.split(".")
        columns = [(rows, getattr(getattr(j, first), second)) for rows, j in self.judged]
        out = columns[0][1].copy()
        for rows, values in columns[1:]:
            out[rows] = values[rows]
        if self.duplicates is not None:
            # A copy had no vote: it scores what the row that stands for it does.
            copy = (self.duplicates.kept_row >= 0) & ~self.duplicates.across
            out[copy] = out[self.duplicates.kept_row[copy]]
        return np.asarray(out)


def gather_columns(usable: Usable, views: RoundViews) -> dict[str, NDArray[Any]]:
    """Return the columns of the score table; each row's from the judgement that speaks of it."""
    picks = {
        "own": "scores.own",
        "other": "scores.other",
        "size": "scores.size",
        "core": "scores.core",
        "p_own": "owners.own",
        "p_other": "owners.other",
        "p_nobody": "owners.nobody",
    }
    columns = {name: views.gather(pick) for name, pick in picks.items()}
    _, codes = name_identities(usable, views.judged)
    whom = np.full(len(usable.ids), -1, np.int64)
    for (rows, judgement), known in zip(views.judged, codes, strict=True):
        other = judgement.scores.other_identity[rows]
        whom[rows] = np.where(other >= 0, known[other], -1)
    columns["other_identity"] = whom
    if views.duplicates is not None:
        columns["copy_of"] = _find_manifest_row(usable, views.duplicates.kept_row)
    return columns


def _find_manifest_row(usable: Usable, places: Labels) -> NDArray[np.float64]:
    return np.where(places >= 0, usable.rows[places], np.nan)


def summarise(
    usable: Usable, views: RoundViews, verdicts: Verdicts, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures that a round records of itself, plain values."""
    judgement = views.judged[0][1]
    labelled, own = usable.labels >= 0, views.gather("owners.own")
    counts = {
        name: int(np.count_nonzero(verdicts.action == code))
        for code, name in enumerate(ACTION_NAMES)
    }
    reasons = {
        text: int(np.count_nonzero(verdicts.reason == code)) for code, text in enumerate(REASONS)
    }
    merged = agree_merges(views.judged, len(usable.names))
    return {
        "settings": settings,
        "settings_sha256": sha256_bytes(json.dumps(settings, sort_keys=True).encode()),
        "model": " and ".join(one.name for one in views.embedded),
        "runtime": views.embedded[0].runtime,
        "rows": len(usable.ids),
        "usable": len(usable.ids),
        "judged": int(np.count_nonzero(views.gather("scores.size") >= MIN_PICTURES)),
        "kept": int(np.count_nonzero(verdicts.fate >= 0)),
        "dropped": counts["drop"],
        "relabelled": counts["relabel"],
        "merged": counts["merge"],
        "split": counts["split"],
        "duplicates": counts["duplicate"],
        "overlap": counts["overlap"],
        "merged_identities": int(np.count_nonzero(merged != np.arange(len(merged)))),
        "new_identities": len(verdicts.names) - 1 - len(usable.names),
        "flagged": counts["drop"] + reasons[REASONS[word.CAPPED]],
        "reasons": {text: number for text, number in reasons.items() if number},
        "threshold": judgement.cut.value,
        "threshold_found": judgement.cut.found,
        "keep_at": judgement.keep_at,
        "move_at": judgement.move_at,
        "merge_at": [_finite(value) for value in judgement.kinship.thresholds],
        "noise": float(1.0 - own[labelled].mean()) if labelled.any() else 0.0,
        "expected_wrong_drops": judgement.cut.wrong_drops,
        "expected_missed": judgement.cut.missed,
        "copy_cosine": views.cut.cosine,
        "histograms": {
            "own": judgement.cut.own.tolist(),
            "strangers": judgement.cut.strangers.tolist(),
        },
        "densities": {
            "right": judgement.cut.right.tolist(),
            "wrong": judgement.cut.wrong.tolist(),
        },
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
