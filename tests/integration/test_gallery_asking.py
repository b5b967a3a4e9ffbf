"""Asking a watch list, and finding out what its answers are worth, command by command."""

import csv
import os

import pytest
from pattern_people import call, log, read, write_people, write_picture

from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import read_key


@pytest.fixture
def strangers(tmp_path):
    """150 people who are not in the gallery, a picture each."""
    faces = {f"s{number:03}": 100 + number for number in range(150)}
    return write_people(tmp_path / "strangers", faces, pictures=1)


def test_answers_in_words_rows_and_json(tmp_path, watch_list, capsys):
    known, stranger = tmp_path / "people" / "ann" / "0.png", write_picture(tmp_path / "s.png", 9)
    table, out = tmp_path / "answers.csv", tmp_path / "answers.json"
    words = ("--top", 2, "--csv", table, "--json", out, "--purpose", "case 7")
    capsys.readouterr()
    assert call("search", watch_list, known, stranger, *words) == 0
    shown = capsys.readouterr()
    first, *rest = shown.out.splitlines()
    assert first == "0.png: ann 1.000 (threshold 0.7)" and rest[0] == "    1  1.000 * ann"
    assert rest[2].startswith("s.png: unknown 0.") or rest[2].startswith("s.png: unknown -0.")
    assert "was never calibrated" in shown.err
    one, two = read(out)["results"]
    assert (one["person"], one["known"], one["mode"]) == ("ann", True, "identification")
    assert (two["person"], two["known"], two["fpir"]) == ("unknown", False, None)
    assert one["margin"] == one["candidates"][0]["score"] - one["candidates"][1]["score"]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["0.png"] * 2 + ["s.png"] * 2
    assert [row["accepted"] for row in rows] == ["True", "False", "False", "False"]
    assert [row["rank"] for row in rows] == ["1", "2"] * 2 and rows[0]["x2"] == "112.0"
    entries = log(watch_list, tmp_path)[-2:]
    assert {entry["purpose"] for entry in entries} == {"case 7"}
    assert [entry["details"]["source"] for entry in entries] == ["0.png", "s.png"]
    assert entries[1]["details"]["person"] is None and len(entries[1]["details"]["candidates"]) == 2


def test_questions_of_other_kinds(tmp_path, watch_list, capsys):
    ann, out = tmp_path / "people" / "ann" / "0.png", tmp_path / "out.json"
    capsys.readouterr()
    assert call("search", watch_list, ann, "--investigate", "--json", out) == 0
    shown = capsys.readouterr()
    assert "0.png: investigation 1.000" in shown.out and "*" not in shown.out
    assert "nobody is accepted" in shown.err
    (answer,) = read(out)["results"]
    assert (answer["mode"], answer["threshold"], answer["known"]) == ("investigation", None, False)
    assert call("search", watch_list, ann, "--people", "bob", "cem", "--json", out) == 0
    (answer,) = read(out)["results"]
    assert {one["person"] for one in answer["candidates"]} == {"bob", "cem"}
    assert answer["known"] is False
    assert call("search", watch_list, ann, "--exact", "--json", out) == 0
    assert read(out)["results"][0]["person"] == "ann"
    assert log(watch_list, tmp_path)[-1]["details"]["index"] == "exact"


def test_a_known_stranger_is_turned_away(tmp_path, watch_list, capsys):
    courier = write_people(tmp_path / "strangers", {"the courier": 7})
    assert call("enrol", watch_list, courier, "--kind", "stranger") == 0
    capsys.readouterr()
    assert call("search", watch_list, courier) == 0
    shown = capsys.readouterr().out
    assert "0.png: unknown" in shown and "; known stranger" in shown
    assert "the courier" not in shown.replace("the courier/", "")
    call("list", watch_list)
    assert "the courier\t2 pictures\tsince 20" in (shown := capsys.readouterr().out)
    assert "\tstranger\n" in shown


def test_is_it_who_it_is_said_to_be(tmp_path, watch_list, capsys):
    people, out = tmp_path / "people", tmp_path / "compare.json"
    pictures = (people / "ann" / "0.png", people / "bob" / "0.png")
    capsys.readouterr()
    assert call("compare", watch_list, "ann", *pictures, "--json", out) == 0
    yes, no = capsys.readouterr().out.splitlines()
    assert yes == "0.png: yes 1.000 (threshold 0.7)" and no.startswith("0.png: no ")
    assert [row["accepted"] for row in read(out)["results"]] == [True, False]
    assert call("compare", watch_list, "eve", pictures[0]) == 2
    assert "nobody called 'eve'" in capsys.readouterr().err
    assert call("compare", watch_list, "ann", os.devnull) == 2


def test_a_calibrated_gallery_says_what_its_answers_are_worth(
    tmp_path, watch_list, strangers, capsys
):
    out = tmp_path / "calibrate.json"
    capsys.readouterr()
    words = ("--impostors", strangers, "--fpir", 0.1, "--fmr", 0.05, "--json", out)
    assert call("calibrate", watch_list, *words) == 0
    search, verify = capsys.readouterr().out.splitlines()
    assert search.startswith("FPIR 0.1 at 3 people: threshold 0.")
    assert verify.startswith("FMR 0.05: threshold 0.") and "150 subjects" in verify
    found = {c["kind"]: c["threshold"] for c in read(out)["calibrations"]}
    ann, new = tmp_path / "people" / "ann" / "0.png", write_people(tmp_path / "n", {"gus": 11})
    assert call("search", watch_list, ann) == 0
    shown = capsys.readouterr()
    assert f"(threshold {found['fpir']:.4g}, FPIR 0.1)" in shown.out and "note:" not in shown.err
    call("compare", watch_list, "ann", ann)
    assert f"(threshold {found['fmr']:.4g}, FMR 0.05)" in capsys.readouterr().out
    call("list", watch_list)
    assert "for FPIR 0.1 at 3 people" in capsys.readouterr().out
    assert call("enrol", watch_list, new) == 0
    assert call("search", watch_list, ann) == 0
    shown = capsys.readouterr()
    assert (
        "note: the gallery has grown from 3 to 4 people" in shown.err and "FPIR 0.13" in shown.out
    )
    assert call("calibrate", watch_list, "--impostors", strangers, "--fpir", 1e-6) == 2
    assert "FPIR 1e-06: not supported: " in capsys.readouterr().out
    with Gallery.open(watch_list, key=read_key(tmp_path / "list.key")) as gallery:
        assert gallery.store.read_threshold() == found["fpir"]


def test_impostors_who_are_enrolled_are_pointed_at(watch_list, strangers, capsys):
    write_people(strangers, {"somebody": 1}, pictures=1)
    assert call("calibrate", watch_list, "--impostors", strangers, "--fpir", 0.2) == 0
    assert "if they are, take them out and calibrate again" in capsys.readouterr().err


def test_normalised_scores(tmp_path, watch_list, strangers, capsys):
    ann = tmp_path / "people" / "ann" / "0.png"
    assert call("normalise", watch_list, "s") == 2
    assert "the collection has 0" in capsys.readouterr().err
    assert call("cohort", watch_list, strangers) == 0
    assert "the cohort has 150 faces" in capsys.readouterr().out
    assert call("normalise", watch_list, "s") == 0
    assert "there is no threshold for such scores yet" in capsys.readouterr().err
    assert call("search", watch_list, ann) == 2
    assert "no threshold for scores with normalisation 's'" in capsys.readouterr().err
    assert call("calibrate", watch_list, "--impostors", strangers, "--fpir", 0.1) == 0
    assert call("search", watch_list, ann, "--json", tmp_path / "out.json") == 0
    (answer,) = read(tmp_path / "out.json")["results"]
    assert answer["person"] == "ann" and answer["score"] > 1 and answer["normalisation"] == "s"
    assert call("normalise", watch_list, "none") == 0
    assert call("cohort", watch_list, "--clear") == 0
    assert call("cohort", watch_list) == 2
    assert "either a set of faces or --clear" in capsys.readouterr().err
    assert call("audit", watch_list) == 0
