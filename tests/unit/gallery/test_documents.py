"""What is kept about a document, and the year of its portrait."""

import datetime

import pytest

from facerec.checks import InputError
from facerec.gallery.documents import DOCUMENT_CLASSES, parse_capture_year
from facerec.gallery.samples import Origin

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


def test_the_classes_are_a_closed_list():
    for name in DOCUMENT_CLASSES:
        assert Origin("document", name).document_class == name
    with pytest.raises(
        InputError, match=r"document class must be one of .*did you mean 'passport'"
    ):
        Origin("document", "pasport")
    with pytest.raises(InputError, match="a scene has no document class"):
        Origin("scene", "passport")
