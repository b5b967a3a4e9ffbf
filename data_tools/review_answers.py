"""The sample on disk, and what a reviewer's verdicts on it say of the set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv

from data_tools.review_sample import (
    SAMPLE_SCHEMA,
    count_answers,
    estimate_lost,
    estimate_residual,
    read_verdicts,
)
from data_tools.sets import open_set
from data_tools.verdicts import COLUMNS
from facerec.checks import InputError
from facerec.data.sources import read_table
from facerec.io import atomic_path

SITE, SAMPLE, EARLIER = "review", "sample.csv", "samples"


def write_sample(path: Path, sample: pa.Table) -> None:
    """Write a sample as CSV with the empty columns of a verdict table, to be filled in by hand.

    Args:
        path: of the file.
        sample: of `data_tools.review_sample.plan_sample`.
    """
    empty = pa.array([""] * sample.num_rows, pa.string())
    columns = {name: sample[name] if name in sample.column_names else empty for name in COLUMNS}
    rest = {name: sample[name] for name in SAMPLE_SCHEMA.names if name not in columns}
    with atomic_path(path) as temporary:
        pcsv.write_csv(pa.table({**columns, **rest}), temporary)


def read_sample(path: Path) -> pa.Table:
    """Return a sample that `write_sample` wrote.

    Raises:
        InputError: it is missing or was changed.
    """
    table = read_table(path)
    if missing := [name for name in SAMPLE_SCHEMA.names if name not in table.column_names]:
        raise InputError(f"{path} is no sample: the column {missing[0]!r} is missing")
    try:
        return table.select(SAMPLE_SCHEMA.names).cast(SAMPLE_SCHEMA)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} was changed and is no sample any more: {error}") from error


def answer_sample(out: Path, verdicts: Path) -> dict[str, Any]:
    """Return what verdicts on a sample of the set say.

    Of the site's sample and the earlier ones that it keeps, the one with most answers counts: the
    verdicts may have been taken into the log since, which makes another sample.

    Args:
        out: a set folder with a review site.
        verdicts: CSV or Parquet, as the sample's pages save it, or `sample.csv` filled in.

    Returns:
        residual (an `Estimate` as a dictionary: wrong rows in the clean set), lost (right rows
        among the dropped, or None), sample (the file answered).

    Raises:
        InputError: no set, no sample, or no verdict on any sample's clean rows.
    """
    site = open_set(out).root / SITE
    said = read_verdicts(verdicts)
    files = [site / SAMPLE, *sorted((site / EARLIER).glob("*.csv"), reverse=True)]
    found = [(file, read_sample(file)) for file in files if file.is_file()]
    if not found:
        raise InputError(
            f"{out} has no sample to answer; make one with: facerec-clean review {out}"
        )
    file, sample = max(found, key=lambda pair: count_answers(pair[1], said))
    lost = estimate_lost(sample, said)
    return {
        "residual": asdict(estimate_residual(sample, said)),
        "lost": None if lost is None else asdict(lost),
        "sample": file.relative_to(site).as_posix(),
    }
