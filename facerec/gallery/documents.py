"""Documents at enrolment: what kind, how old the picture, where the portrait, print or not."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from facerec.checks import InputError, check_one_of, check_range, check_whole
from facerec.gallery.documents_mrz import Mrz, parse_mrz
from facerec.gallery.documents_portrait import Portrait, crop_portrait
from facerec.gallery.documents_print import PrintCues, print_cues, print_scan_score

__all__ = [
    "DOCUMENT_CLASSES",
    "EARLIEST_YEAR",
    "DocumentInfo",
    "Mrz",
    "Portrait",
    "PrintCues",
    "crop_portrait",
    "parse_capture_year",
    "parse_mrz",
    "print_cues",
    "print_scan_score",
]

DOCUMENT_CLASSES = ("passport", "id_card", "licence", "visa", "photo", "other")
"""`photo` is a print or file of a portrait alone, as handed in with an application."""
EARLIEST_YEAR = 1900

_MONTH, _DAY = "(?:0?[1-9]|1[0-2])", "(?:0?[1-9]|[12][0-9]|3[01])"
_YEAR_FIRST = re.compile(
    rf"(?P<year>[0-9]{{4}})(?:[-:/.]{_MONTH}(?:[-:/.]{_DAY}(?:[T ][0-9]{{1,2}}:.*)?)?)?"
)
# Day or month first: that does not matter to the year.
_YEAR_LAST = re.compile(rf"{_DAY}([-/.]){_DAY}\1(?P<year>[0-9]{{4}})")


@dataclass(frozen=True)
class DocumentInfo:
    """What is kept about the document that a sample came from; number and dates are not.

    Attributes:
        document_class: one of DOCUMENT_CLASSES.
        capture_year: when the portrait was taken, which may be years before the document was
            issued; None when unknown.
        print_scan: whether it is a scan of a print, as stated by a person; None when nobody said.
        print_scan_score: what `print_scan_score` estimated, in [0, 1]; None when not looked at.

    Raises:
        InputError: one of them is out of its range.
    """

    document_class: str = "other"
    capture_year: int | None = None
    print_scan: bool | None = None
    print_scan_score: float | None = None

    def __post_init__(self) -> None:
        check_one_of(self.document_class, "document class", DOCUMENT_CLASSES)
        if self.capture_year is not None:
            year = check_whole(self.capture_year, "capture year", EARLIEST_YEAR, _this_year())
            object.__setattr__(self, "capture_year", year)
        if self.print_scan is not None and not isinstance(self.print_scan, bool):
            raise InputError(f"print_scan must be true, false or unknown, got {self.print_scan!r}")
        if self.print_scan_score is not None:
            check_range(self.print_scan_score, "print_scan_score", 0, 1)

    @property
    def looks_printed(self) -> bool:
        """What a person stated, else whether the estimate is above 0.5: a pattern was seen."""
        if self.print_scan is not None:
            return self.print_scan
        return self.print_scan_score is not None and self.print_scan_score > 0.5

    @property
    def captured(self) -> str:
        """The capture year as the store keeps capture dates: four digits, "" when unknown."""
        return "" if self.capture_year is None else str(self.capture_year)


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
