"""What is kept about a document, and the year of its portrait."""

import datetime

import pytest

from facerec.checks import InputError
from facerec.gallery.documents import DOCUMENT_CLASSES, DocumentInfo, parse_capture_year
from facerec.gallery.schema import check_captured

THIS_YEAR = datetime.date.today().year


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("2019", 2019),
        (" 2019-05 ", 2019),
        ("2019-05-03", 2019),
        ("2019-05-03T10:11:12Z", 2019),
        ("2019:05:03 10:11:12", 2019),
        ("2019/5/3", 2019),
        ("3.5.2019", 2019),
        ("05/31/2019", 2019),
        ("1900", 1900),
        (str(THIS_YEAR), THIS_YEAR),
        ("", None),
        ("  ", None),
    ],
)
def test_years_are_read_where_they_are_beyond_doubt(text, year):
    assert parse_capture_year(text) == year


@pytest.mark.parametrize(
    "text",
    ["19", "03/05/19", "2019-13", "2019-00-01", "2019-05-32", "may 2019", "20190503", "²019"],
)
def test_other_dates_are_refused_with_the_form_that_is_read(text):
    with pytest.raises(InputError, match=r"YYYY-MM-DD.*four digits"):
        parse_capture_year(text)


@pytest.mark.parametrize("year", [0, 1899, THIS_YEAR + 1, 9999])
def test_years_before_photography_and_after_today_are_refused(year):
    with pytest.raises(InputError, match=r"capture year must lie in \[1900, "):
        parse_capture_year(f"{year:04d}")
    with pytest.raises(InputError, match="capture year must lie"):
        DocumentInfo(capture_year=year)


def test_the_classes_are_a_closed_list():
    for name in DOCUMENT_CLASSES:
        assert DocumentInfo(name).document_class == name
    with pytest.raises(
        InputError, match=r"document class must be one of .*did you mean 'passport'"
    ):
        DocumentInfo("pasport")


def test_the_store_takes_the_capture_year_as_it_is_given():
    assert check_captured(DocumentInfo(capture_year=2004).captured) == "2004"
    assert check_captured(DocumentInfo().captured) == ""


@pytest.mark.parametrize(
    ("stated", "score", "printed"),
    [
        (None, None, False),
        (None, 0.5, False),
        (None, 0.51, True),
        (True, 0.0, True),
        (True, None, True),
        (False, 1.0, False),
    ],
)
def test_a_person_overrules_the_estimate(stated, score, printed):
    info = DocumentInfo("photo", print_scan=stated, print_scan_score=score)
    assert info.looks_printed is printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"print_scan": 1}, "print_scan must be true, false or unknown"),
        ({"print_scan": "yes"}, "print_scan must be true, false or unknown"),
        ({"print_scan_score": 1.1}, "print_scan_score must lie in"),
        ({"print_scan_score": float("nan")}, "print_scan_score must lie in"),
        ({"capture_year": 2004.5}, "capture year must be a whole number"),
        ({"capture_year": "2004"}, "capture year must be a number"),
        ({"capture_year": True}, "capture year must lie"),
    ],
)
def test_what_is_no_such_thing_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        DocumentInfo(**arguments)
