"""The machine readable zone of a travel document: its lines parsed, every check digit verified."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from facerec.checks import InputError

_WEIGHTS = (7, 3, 1)
_FILLER = "<"
_SIGNS = "[A-Z0-9<]*"
_CENTURY_YEARS = 50
_OTHER_SIGNS = "an MRZ must hold only A to Z, 0 to 9 and <; read its lines again"


@dataclass(frozen=True)
class Mrz:
    """What is taken from a machine readable zone; what is not needed is verified and let go.

    Attributes:
        kind: "TD1" (cards, 3 x 30), "TD2" (2 x 36), "TD3" (passports, 2 x 44), "MRV-A" (visas,
            2 x 44) or "MRV-B" (visas, 2 x 36).
        document_class: one of facerec.gallery.documents.DOCUMENT_CLASSES.
        issuer: three letters of the state or organisation, such as "UTO" or "D".
        expires: the last day on which it is valid; None where the document states none.
        surname: "" unless asked for; as printed, in capitals without accents.
        given_names: likewise, with spaces between them.
    """

    kind: str
    document_class: str
    issuer: str
    expires: datetime.date | None
    surname: str = ""
    given_names: str = ""

    def describe_expiry(self, today: datetime.date | None = None) -> str:
        """Return a warning if the document has expired, else "".

        Args:
            today: the day to judge by; the system's when None.
        """
        today = today or datetime.date.today()
        if self.expires is None or self.expires >= today:
            return ""
        return f"the document expired on {self.expires.isoformat()}"


@dataclass(frozen=True)
class _Layout:
    """Where fields lie in the lines joined end to end: (first, behind the last) of each.

    A check digit stands behind its field; `whole` are the parts that the composite digit covers,
    which stands at `composite`; `spare` is where a long document number goes on.
    """

    width: int
    number: tuple[int, int]
    birth: tuple[int, int]
    expiry: tuple[int, int]
    names: tuple[int, int]
    spare: tuple[int, int] | None = None
    checked: tuple[int, int] | None = None
    whole: tuple[tuple[int, int], ...] = ()
    composite: int = -1


# ICAO Doc 9303, eighth edition 2021: parts 5 (TD1), 6 (TD2), 4 (TD3) and 7 (visas).
_LAYOUTS = {
    "TD1": _Layout(
        30, (5, 14), (30, 36), (38, 44), (60, 90), spare=(15, 30),
        whole=((5, 30), (30, 37), (38, 45), (48, 59)), composite=59,
    ),
    "TD2": _Layout(
        36, (36, 45), (49, 55), (57, 63), (5, 36), spare=(64, 71),
        whole=((36, 46), (49, 56), (57, 71)), composite=71,
    ),
    "TD3": _Layout(
        44, (44, 53), (57, 63), (65, 71), (5, 44), checked=(72, 86),
        whole=((44, 54), (57, 64), (65, 87)), composite=87,
    ),
    "MRV-A": _Layout(44, (44, 53), (57, 63), (65, 71), (5, 44)),
    "MRV-B": _Layout(36, (36, 45), (49, 55), (57, 63), (5, 36)),
}  # fmt: skip


def parse_mrz(
    lines: str | Sequence[str], names: bool = False, today: datetime.date | None = None
) -> Mrz:
    """Return what a machine readable zone says (ICAO Doc 9303), every check digit verified.

    Spaces and empty lines do not count, small letters count as capitals, and nothing is guessed:
    a letter O in place of a zero is an error, which its check digit reports. The two digits of
    the expiry year are taken for the year nearest to `today`, between 50 before and 49 after it.

    Args:
        lines: the two or three lines, or one text with line breaks.
        names: whether to return the holder's names; they are personal data, so only if asked.
        today: the day that two-digit years are read by; the system's when None.

    Raises:
        InputError: not a zone of one of the five kinds, a letter that cannot be in one, a check
            digit that does not match (the message names its field, never what stands there), or
            an expiry that is no date.
    """
    rows = [lines] if isinstance(lines, str) else list(lines)
    rows = ["".join(row.split()).upper() for text in rows for row in str(text).splitlines()]
    rows = [row for row in rows if row]
    kind = _tell_kind(rows)
    text = "".join(rows)
    if re.fullmatch(_SIGNS, text) is None:
        raise InputError(_OTHER_SIGNS)
    layout = _LAYOUTS[kind]
    _verify(text, layout)
    surname, given = _split_names(text[slice(*layout.names)]) if names else ("", "")
    return Mrz(
        kind,
        _tell_class(text[:2]),
        text[2:5].rstrip(_FILLER),
        _read_expiry(text[slice(*layout.expiry)], today or datetime.date.today()),
        surname,
        given,
    )


def compute_check_digit(field: str) -> int:
    """Return the check digit of a field of A to Z, 0 to 9 and < (ICAO Doc 9303-3 section 4.9).

    Digits count as themselves, A to Z as 10 to 35, < as 0, with weights 7, 3, 1 in turn, modulo 10.

    Raises:
        InputError: another sign is in the field.
    """
    if re.fullmatch(_SIGNS, field) is None:
        raise InputError(_OTHER_SIGNS)
    values = (0 if sign == _FILLER else int(sign, 36) for sign in field)
    return sum(value * _WEIGHTS[i % 3] for i, value in enumerate(values)) % 10


def _tell_kind(rows: Sequence[str]) -> str:
    sizes = [len(row) for row in rows]
    visa = bool(rows) and rows[0].startswith("V")
    kinds = {
        (30, 30, 30): "TD1",
        (36, 36): "MRV-B" if visa else "TD2",
        (44, 44): "MRV-A" if visa else "TD3",
    }
    kind = kinds.get(tuple(sizes))
    if kind is None:
        got = ", ".join(map(str, sizes[:6])) or "none"
        raise InputError(
            "an MRZ must be 3 lines of 30 signs, 2 of 36 or 2 of 44, got lines of "
            f"{got}; give each line whole, with its < signs"
        )
    return kind


def _tell_class(code: str) -> str:
    """Return the document class of a two-letter document code."""
    first = {"P": "passport", "V": "visa", "I": "id_card", "D": "licence"}
    if code == "AC":  # a crew member's certificate
        return "other"
    return first.get(code[0], "id_card" if code[0] in "AC" else "other")


def _verify(text: str, layout: _Layout) -> None:
    """Raise InputError naming each field whose check digit does not match."""
    number, digit = text[slice(*layout.number)], text[layout.number[1]]
    if digit == _FILLER and layout.spare is not None and number.strip(_FILLER):
        # A number longer than nine: the rest, and then its digit, open the optional data.
        more = text[slice(*layout.spare)].split(_FILLER)[0]
        number, digit = number + more[:-1], more[-1:]
    fields = [
        ("document number", number, digit),
        ("date of birth", text[slice(*layout.birth)], text[layout.birth[1]]),
        ("date of expiry", text[slice(*layout.expiry)], text[layout.expiry[1]]),
    ]
    if layout.checked is not None:
        fields.append(("optional data", text[slice(*layout.checked)], text[layout.checked[1]]))
    if layout.composite >= 0:
        whole = "".join(text[slice(*part)] for part in layout.whole)
        fields.append(("whole zone", whole, text[layout.composite]))
    wrong = [name for name, field, digit in fields if not _matches(field, digit)]
    if wrong:
        raise InputError(
            f"the check digit of the {' and of the '.join(wrong)} does not match the MRZ; "
            "read its lines again, 0 and O, 1 and I are easily mistaken"
        )


def _matches(field: str, digit: str) -> bool:
    if digit == _FILLER:  # allowed for a field that is empty
        return not field.strip(_FILLER)
    return digit == str(compute_check_digit(field))


def _read_expiry(field: str, today: datetime.date) -> datetime.date | None:
    if not field.strip(_FILLER):
        return None
    if not field.isdigit():
        raise InputError("the date of expiry in an MRZ must be six digits; read its lines again")
    first = today.year - _CENTURY_YEARS
    year = first + (int(field[:2]) - first) % 100
    try:
        return datetime.date(year, int(field[2:4]), int(field[4:]))
    except ValueError:
        raise InputError(
            "the date of expiry in an MRZ must be a day of the calendar; read its lines again"
        ) from None


def _split_names(field: str) -> tuple[str, str]:
    """Return surname and given names: two fillers lie between them, one between words."""
    surname, _, given = field.rstrip(_FILLER).partition(_FILLER * 2)
    return _join(surname.split(_FILLER)), _join(given.split(_FILLER))


def _join(words: Iterable[str]) -> str:
    return " ".join(word for word in words if word)
