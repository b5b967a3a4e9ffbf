"""Machine readable zones: the published specimens, and every digit that was misread."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.documents_mrz import compute_check_digit, parse_mrz

TODAY = datetime.date(2025, 6, 1)
# The specimens of ICAO Doc 9303, parts 4 to 7: Utopia's Anna Maria Eriksson.
TD3 = (
    "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<",
    "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
)
TD1 = (
    "I<UTOD231458907<<<<<<<<<<<<<<<",
    "7408122F1204159UTO<<<<<<<<<<<6",
    "ERIKSSON<<ANNA<MARIA<<<<<<<<<<",
)
TD2 = ("I<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<", "D231458907UTO7408122F1204159<<<<<<<6")
MRV_A = (
    "V<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<",
    "L8988901C4XXX4009078F96121096ZE184226B<<<<<<",
)
MRV_B = ("V<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<", "L8988901C4XXX4009078F9612109<<<<<<<<")
SPECIMENS = {"TD1": TD1, "TD2": TD2, "TD3": TD3, "MRV-A": MRV_A, "MRV-B": MRV_B}
CLASSES = {"TD1": "id_card", "TD2": "id_card", "TD3": "passport", "MRV-A": "visa", "MRV-B": "visa"}


def change(lines, row, column, sign):
    changed = list(lines)
    changed[row] = changed[row][:column] + sign + changed[row][column + len(sign) :]
    return changed


@pytest.mark.parametrize("kind", SPECIMENS)
def test_the_published_specimens_are_read(kind):
    mrz = parse_mrz(SPECIMENS[kind], today=TODAY)
    assert (mrz.kind, mrz.document_class, mrz.issuer) == (kind, CLASSES[kind], "UTO")
    visa = kind.startswith("MRV")
    assert mrz.expires == (datetime.date(1996, 12, 10) if visa else datetime.date(2012, 4, 15))


@pytest.mark.parametrize("kind", SPECIMENS)
def test_names_are_given_only_if_asked_for(kind):
    assert "ERIKSSON" not in repr(parse_mrz(SPECIMENS[kind], today=TODAY))
    mrz = parse_mrz(SPECIMENS[kind], names=True, today=TODAY)
    assert (mrz.surname, mrz.given_names) == ("ERIKSSON", "ANNA MARIA")


def test_number_and_birth_are_let_go():
    shown = repr(parse_mrz(TD3, names=True, today=TODAY))
    for secret in ("L898902C3", "740812", "1974", "ZE184226B"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("VAN<DER<MUELLEN<<JAN<PIETER<<<", ("VAN DER MUELLEN", "JAN PIETER")),
        ("ARKFREITH<<<<<<<<<<<<<<<<<<<<<", ("ARKFREITH", "")),
        ("NILAVADHANANANDA<<CHAYAPA<DEJT", ("NILAVADHANANANDA", "CHAYAPA DEJT")),
    ],
)
def test_names_of_several_words_and_of_one(field, names):
    mrz = parse_mrz((*TD1[:2], field), names=True, today=TODAY)
    assert (mrz.surname, mrz.given_names) == names


def test_a_text_with_spaces_and_small_letters_is_the_same():
    text = "\n\n" + "\r\n".join(" ".join(line.lower()) for line in TD3) + "\n"
    assert parse_mrz(text, today=TODAY) == parse_mrz(TD3, today=TODAY)


# Field, row and columns of each checked field and its digit, in the specimens.
CHECKED = [
    ("TD3", "document number", 1, range(0, 10)),
    ("TD3", "date of birth", 1, range(13, 20)),
    ("TD3", "date of expiry", 1, range(21, 28)),
    ("TD3", "optional data", 1, range(28, 43)),
    ("TD3", "whole zone", 1, range(43, 44)),
    ("TD1", "document number", 0, range(5, 15)),
    ("TD1", "date of birth", 1, range(0, 7)),
    ("TD1", "date of expiry", 1, range(8, 15)),
    ("TD1", "whole zone", 1, range(29, 30)),
    ("TD2", "document number", 1, range(0, 10)),
    ("TD2", "date of birth", 1, range(13, 20)),
    ("TD2", "date of expiry", 1, range(21, 28)),
    ("TD2", "whole zone", 1, range(35, 36)),
    ("MRV-A", "document number", 1, range(0, 10)),
    ("MRV-A", "date of expiry", 1, range(21, 28)),
    ("MRV-B", "date of birth", 1, range(13, 20)),
]


@pytest.mark.parametrize(("kind", "field", "row", "columns"), CHECKED)
def test_every_other_digit_in_a_checked_field_is_noticed(kind, field, row, columns):
    lines = SPECIMENS[kind]
    for column in columns:
        if not lines[row][column].isdigit():
            continue
        for digit in set("0123456789") - {lines[row][column]}:
            with pytest.raises(InputError, match=f"check digit of the .*{field}") as caught:
                parse_mrz(change(lines, row, column, digit), today=TODAY)
            assert lines[row][:9] not in str(caught.value)


def test_optional_data_of_cards_is_covered_by_the_composite_digit():
    with pytest.raises(InputError, match="check digit of the whole zone does not match"):
        parse_mrz(change(TD1, 0, 20, "7"), today=TODAY)
    with pytest.raises(InputError, match="check digit of the whole zone does not match"):
        parse_mrz(change(TD1, 1, 20, "7"), today=TODAY)


def test_an_o_for_a_zero_is_not_guessed():
    with pytest.raises(InputError, match="0 and O"):
        parse_mrz(change(TD1, 0, 13, "O"), today=TODAY)


def with_composite(lines, parts):
    """Return TD1 lines with their composite digit put right."""
    whole = lines[0][5:30] + lines[1][:7] + lines[1][8:15] + lines[1][18:29]
    assert parts == whole
    return [lines[0], lines[1][:29] + str(compute_check_digit(whole)), lines[2]]


def test_the_composite_digit_covers_the_optional_data_of_both_lines():
    lines = ["I<UTOD231458907ZE184226B<<<<<<", "7408122F1204159UTO4ZX82<<<<<<0", TD1[2]]
    whole = "D231458907ZE184226B<<<<<<" + "7408122" + "1204159" + "4ZX82<<<<<<"
    assert parse_mrz(with_composite(lines, whole), today=TODAY).kind == "TD1"


def test_the_composite_digit_covers_the_optional_data_of_two_lines():
    whole = "D231458907" + "7408122" + "1204159" + "ABC1234"
    line = f"D231458907UTO7408122F1204159ABC1234{compute_check_digit(whole)}"
    assert parse_mrz((TD2[0], line), today=TODAY).kind == "TD2"


def test_a_document_number_longer_than_nine_goes_on_in_the_optional_data():
    # 600001795015: 6*7+0+0+0+0+1*1+7*7+9*3+5*1+0+1*3+5*1 = 132, so its digit is 2.
    lines = ["I<BEL600001795<0152<<<<<<<<<<<", "7408122F1204159BEL<<<<<<<<<<<0", TD1[2]]
    whole = "600001795<0152<<<<<<<<<<<" + "7408122" + "1204159" + "<<<<<<<<<<<"
    assert parse_mrz(with_composite(lines, whole), today=TODAY).issuer == "BEL"
    lines[0] = lines[0].replace("0152", "0153")
    with pytest.raises(InputError, match="check digit of the document number does"):
        parse_mrz(with_composite(lines, whole.replace("0152", "0153")), today=TODAY)


def test_empty_optional_data_of_a_passport_may_have_a_filler_for_a_digit():
    for digit in "0<":
        line = "L898902C36UTO7408122F1204159" + "<" * 14 + digit
        line += str(compute_check_digit(line[:10] + line[13:20] + line[21:43]))
        assert parse_mrz((TD3[0], line), today=TODAY).kind == "TD3"


@given(st.text("0123456789ABCXYZ<", max_size=20), st.text("0123456789ABCXYZ<", max_size=20))
def test_check_digits_add_up(first, second):
    padded = first + "<" * (-len(first) % 3)
    total = compute_check_digit(padded) + compute_check_digit(second)
    assert compute_check_digit(padded + second) == total % 10


@pytest.mark.parametrize(
    ("field", "digit"), [("520727", 3), ("AB2134<<<", 5), ("HA672242<", 6), ("", 0), ("<<<", 0)]
)
def test_check_digits_by_hand(field, digit):
    assert compute_check_digit(field) == digit


def expiring(field, today=TODAY):
    line = MRV_B[1][:21] + field + str(compute_check_digit(field)) + MRV_B[1][28:]
    return parse_mrz((MRV_B[0], line), today=today)


@pytest.mark.parametrize(
    ("field", "today", "year"),
    [
        ("740101", TODAY, 2074),
        ("750101", TODAY, 1975),
        ("250101", TODAY, 2025),
        ("991231", TODAY, 1999),
        ("000229", datetime.date(1999, 1, 1), 2000),
    ],
)
def test_the_century_is_the_nearest(field, today, year):
    assert expiring(field, today).expires.year == year


def test_only_a_document_past_its_last_day_has_expired():
    mrz = expiring("250601")
    assert mrz.describe_expiry(datetime.date(2025, 6, 1)) == ""
    said = mrz.describe_expiry(datetime.date(2025, 6, 2))
    assert said == "the document expired on 2025-06-01"
    unlimited = expiring("<<<<<<")
    assert unlimited.expires is None
    assert unlimited.describe_expiry(TODAY) == ""
    assert parse_mrz(TD3).describe_expiry() == "the document expired on 2012-04-15"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("P<", "passport"), ("PD", "passport"), ("I<", "id_card"), ("ID", "id_card"),
        ("C<", "id_card"), ("A<", "id_card"), ("AC", "other"), ("D<", "licence"), ("X<", "other"),
    ],
)  # fmt: skip
def test_classes_follow_the_document_code(code, name):
    assert parse_mrz(change(TD1, 0, 0, code), today=TODAY).document_class == name


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "got lines of none"),
        ("", "got lines of none"),
        (TD3[:1], "got lines of 44;"),
        ((TD3[0][:-1], TD3[1]), "got lines of 43, 44;"),
        ((*TD1, TD1[0]), "got lines of 30, 30, 30, 30;"),
        (change(TD3, 0, 5, "É"), "only A to Z, 0 to 9 and <"),
        (change(TD3, 1, 13, "\u0667"), "only A to Z, 0 to 9 and <"),
        (change(TD3, 0, 5, "-"), "only A to Z, 0 to 9 and <"),
    ],
)
def test_what_is_no_zone_is_refused(lines, message):
    with pytest.raises(InputError, match=message):
        parse_mrz(lines, today=TODAY)


def test_a_check_digit_that_fits_makes_no_date_of_what_is_none():
    with pytest.raises(InputError, match="must be a day of the calendar"):
        expiring("250230")
    with pytest.raises(InputError, match="must be six digits"):
        expiring("2506<<")
    with pytest.raises(InputError, match="only A to Z"):
        compute_check_digit("a")
