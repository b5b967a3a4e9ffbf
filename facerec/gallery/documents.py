"""Documents at enrolment: what kind, how old the picture, where the portrait, print or not."""

from __future__ import annotations

import datetime
import re

from facerec.checks import InputError, check_whole
from facerec.gallery.documents_mrz import Mrz, parse_mrz
from facerec.gallery.documents_portrait import Portrait, crop_portrait
from facerec.gallery.documents_print import PrintCues, print_cues, print_scan_score
from facerec.gallery.schema import DOCUMENT_CLASSES

__all__ = [
    "DOCUMENT_CLASSES",
    "EARLIEST_YEAR",
    "Mrz",
    "Portrait",
    "PrintCues",
    "crop_portrait",
    "parse_capture_year",
    "parse_mrz",
    "print_cues",
    "print_scan_score",
]

EARLIEST_YEAR = 1900

_MONTH, _DAY = "(?:0?[1-9]|1[0-2])", "(?:0?[1-9]|[12][0-9]|3[01])"
_YEAR_FIRST = re.compile(
    rf"(?P<year>[0-9]{{4}})(?:[-:/.]{_MONTH}(?:[-:/.]{_DAY}(?:[T ][0-9]{{1,2}}:.*)?)?)?"
)
# Day or month first: that does not matter to the year.
_YEAR_LAST = re.compile(rf"{_DAY}([-/.]){_DAY}\1(?P<year>[0-9]{{4}})")


def parse_capture_year(text: str) -> int | None:
    """Return the year of a date that a person or a camera wrote, None for an empty text.

    Read are `2019`, `2019-05`, `2019-05-03` with or without a time (also with colons, as Exif
    writes dates) and, because its year is beyond doubt, `3.5.2019` and `03/05/2019`.

    Raises:
        InputError: no such date, two digits for a year, or a year outside [1900, this year].
    """
    clean = text.strip()
    if not clean:
        return None
    found = _YEAR_FIRST.fullmatch(clean) or _YEAR_LAST.fullmatch(clean)
    if found is None:
        raise InputError(
            f"a capture date must be YYYY, YYYY-MM or YYYY-MM-DD, got {clean[:40]!r}; "
            "write the year with four digits"
        )
    return check_whole(int(found["year"]), "capture year", EARLIEST_YEAR, _this_year())


def _this_year() -> int:
    return datetime.date.today().year
