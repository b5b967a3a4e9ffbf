"""What is kept in a watch list and how it leaves: names, erasure, keys, the log, copies."""

import datetime
import sqlite3
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from gallery_cases import faces, holds, ones
from pattern_people import call, log, read, write_people

from facerec.gallery import audit
from facerec.gallery.gallery import Gallery
from facerec.gallery.people import get_person, load_vectors
from facerec.gallery.vault import read_key


def embedding_of(folder, person, key):
    """The vectors of a person as they are held."""
    with Gallery.open(folder, key=key) as gallery, gallery.store.snapshot() as connection:
        found = get_person(gallery.store, connection, person)
        return load_vectors(gallery.store, connection, found)[0]


@pytest.fixture
def key(watch_list):
    return read_key(watch_list.with_suffix(".key"))


def test_people_are_listed_shown_renamed_and_removed_by_picture(tmp_path, watch_list, capsys):
    capsys.readouterr()
    assert call("list", watch_list, "--json", tmp_path / "list.json") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ann\t2 pictures\tsince 20")
    assert shown.endswith("3 people, 6 pictures, patterns; threshold 0.7, given\n")
    assert [one["name"] for one in read(tmp_path / "list.json")["people"]] == ["ann", "bob", "cem"]
    assert call("rename", watch_list, "ann", "Anna Doe") == 0
    assert call("rename", watch_list, "Anna Doe", "bob") == 2
    assert call("show", watch_list, "ann") == 2
    assert "nobody called 'ann'" in capsys.readouterr().err
    assert call("show", watch_list, "Anna Doe", "--json", tmp_path / "show.json") == 0
    first, second = (row["id"] for row in read(tmp_path / "show.json")["samples"])
    assert call("remove", watch_list, "bob", first) == 2
    assert f"has no sample {first}" in capsys.readouterr().err
    assert call("remove", watch_list, "Anna Doe", first) == 0
    assert "1 samples and 0 templates removed" in capsys.readouterr().out
    assert call("remove", watch_list, "Anna Doe", second) == 0  # and with the last the person
    assert call("show", watch_list, "Anna Doe") == 2
    assert call("search", watch_list, tmp_path / "people" / "ann" / "0.png") == 0
    assert "0.png: unknown" in capsys.readouterr().out
    assert call("audit", watch_list) == 0


def test_an_erased_person_is_in_no_file_and_a_receipt_says_so(tmp_path, watch_list, key, capsys):
    call("search", watch_list, tmp_path / "people" / "ann" / "0.png")
    vectors = embedding_of(watch_list, "ann", key)
    with sqlite3.connect(watch_list / "gallery.sqlite") as connection:
        sealed = [row[0] for row in connection.execute("SELECT embedding FROM samples")]
        uid = connection.execute("SELECT uid FROM people WHERE name = 'ann'").fetchone()[0]
    connection.close()
    assert holds(watch_list, sealed[0][:40]) and holds(watch_list, b"ann")
    receipt = tmp_path / "receipt.json"
    words = ("--receipt", receipt, "--purpose", "asked to on 3 May", "--operator", "meg")
    capsys.readouterr()
    assert call("erase", watch_list, "ann", *words) == 0
    shown, proof = capsys.readouterr().out, read(receipt)
    assert "2 samples" in shown and "none of theirs found" in shown and proof["head"] in shown
    assert proof["person"] == uid and proof["traces"] == [] and "gallery.sqlite" in proof["files"]
    for value in (*sealed[:2], *(vector.tobytes() for vector in vectors)):
        assert not holds(watch_list, value[:40])
    assert not holds(watch_list, b"ann")
    entry = next(e for e in log(watch_list, tmp_path) if e["number"] == proof["entry"])
    assert (entry["action"], entry["hash"], entry["operator"]) == ("erase", proof["head"], "meg")
    assert call("erase", watch_list, "ann") == 2
    assert "nobody called 'ann'" in capsys.readouterr().err
    assert call("audit", watch_list, "--head", proof["head"]) == 0
    assert "somebody erased" in capsys.readouterr().out  # who was searched for before


def test_a_receipt_that_cannot_be_written_is_said_before_anybody_is_erased(
    tmp_path, watch_list, capsys
):
    assert call("erase", watch_list, "ann", "--receipt", tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert call("show", watch_list, "ann") == 0


def test_a_server_that_has_a_copy_is_not_forgotten(watch_list, key, capsys):
    with Gallery.open(watch_list, key=key) as gallery:
        gallery.store.change_setting("remote", "https://far.example:6333", "meg")
    capsys.readouterr()
    assert call("erase", watch_list, "ann") == 0
    assert "may still lie on https://far.example:6333" in capsys.readouterr().err


def test_what_is_overdue_is_not_searched_and_goes(tmp_path, patterns, monkeypatch, capsys):
    folder, people = tmp_path / "old", write_people(tmp_path / "people", {"ann": 1})
    now = datetime.datetime.now(datetime.timezone.utc)
    then = (now - datetime.timedelta(days=400)).isoformat(timespec="microseconds")
    with monkeypatch.context() as past:
        past.setattr(audit, "utc_now", lambda: then)
        words = ("--model", patterns, "--detector", "aligned", "--threshold", 0.7)
        assert call("create", folder, *words) == 0
        assert call("enrol", folder, people) == 0
    new = write_people(tmp_path / "new", {"ann": 1}, pictures=1, start=5)
    assert call("enrol", folder, new) == 0
    capsys.readouterr()
    assert call("expire", folder) == 0
    assert "0 samples of 0 people erased; kept without end" in capsys.readouterr().out
    assert call("retain", folder, -1) == 2
    assert call("retain", folder, 365) == 0
    capsys.readouterr()
    assert call("expire", folder, "--json", tmp_path / "expire.json") == 0
    assert "2 samples of 1 people erased; kept 365 days" in capsys.readouterr().out
    (receipt,) = read(tmp_path / "expire.json")["receipts"]
    assert len(receipt["samples"]) == 2
    call("list", folder)
    assert "1 people, 1 pictures" in capsys.readouterr().out
    assert call("audit", folder) == 0


def test_a_scrub_rewrites_the_file(watch_list, tmp_path, capsys):
    capsys.readouterr()
    assert call("scrub", watch_list) == 0
    assert "the file was rewritten" in capsys.readouterr().out
    assert log(watch_list, tmp_path)[-1]["action"] == "scrub"


def test_after_a_rotation_the_old_key_opens_nothing(tmp_path, watch_list, key, capsys):
    ann, new = tmp_path / "people" / "ann" / "0.png", tmp_path / "keys" / "new.key"
    old = tmp_path / "list.key"
    new.parent.mkdir()
    capsys.readouterr()
    assert call("key", watch_list, "--new-key-file", new, "--purpose", "yearly") == 0
    fresh = read_key(new)
    assert fresh.id != key.id and f"3 people are bound to key {fresh.id}" in capsys.readouterr().out
    assert new.stat().st_mode & 0o777 == 0o600
    assert call("search", watch_list, ann) == 0  # the gallery knows where its key lies
    capsys.readouterr()
    assert call("search", watch_list, ann, "--key-file", old) == 2
    assert f"encrypted with key {fresh.id}, got key {key.id}" in capsys.readouterr().err
    assert call("key", watch_list, "--new-key-file", new) == 2
    assert f"has key {fresh.id} already" in capsys.readouterr().err
    assert call("key", watch_list, "--new-key-file", tmp_path / "x.key", "--key-file", old) == 2
    assert not (tmp_path / "x.key").exists()
    assert call("audit", watch_list) == 0


def test_a_plain_gallery_becomes_an_encrypted_one(tmp_path, patterns):
    folder, people = tmp_path / "plain", write_people(tmp_path / "people", {"ann": 1})
    words = ("--model", patterns, "--detector", "aligned", "--no-encryption")
    assert call("create", folder, *words) == 0 and call("enrol", folder, people) == 0
    vectors = embedding_of(folder, "ann", None)
    assert holds(folder, vectors[0].tobytes()[:40])
    assert call("key", folder, "--new-key-file", tmp_path / "new.key") == 0
    assert not holds(folder, vectors[0].tobytes()[:40])
    assert call("search", folder, people) == 0 and call("audit", folder) == 0


def test_a_key_file_that_others_may_read_is_refused(watch_list, tmp_path, capsys):
    (tmp_path / "list.key").chmod(0o644)
    assert call("search", watch_list, tmp_path / "people") == 2
    assert "run: chmod 600" in capsys.readouterr().err


def test_the_log_is_checked_with_and_without_the_key(tmp_path, watch_list, capsys):
    capsys.readouterr()
    assert call("audit", watch_list, "--last", 2, "--json", tmp_path / "audit.json") == 0
    *entries, last = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2:] for line in entries] == [
        ["meg", "enrol", "bob"],
        ["meg", "enrol", "cem"],
    ]
    head = last.split("head ")[1]
    assert last == f"4 entries, whole; head {head}" and read(tmp_path / "audit.json")["count"] == 4
    assert [entry["number"] for entry in log(watch_list, tmp_path)] == [1, 2, 3, 4]
    call("search", watch_list, tmp_path / "people" / "ann" / "0.png")
    assert call("audit", watch_list, "--head", head) == 0
    assert call("audit", watch_list, "--head", "0" * 63 + "1") == 1
    assert "FAULT: " in capsys.readouterr().out
    (tmp_path / "list.key").rename(tmp_path / "away.key")
    assert call("audit", watch_list) == 0
    assert "'main': its key is not at hand" in capsys.readouterr().out
    assert call("list", watch_list) == 0
    assert call("search", watch_list, tmp_path / "people") == 2
    assert "list.key is not there any more; say where" in capsys.readouterr().err
    assert call("audit", watch_list, "--key-file", tmp_path / "away.key") == 0
    assert "not at hand" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE samples SET source = 'x' WHERE id = 3", "sample 3 of 'bob' was changed"),
        ("UPDATE people SET name = 'eve' WHERE name = 'bob'", "'eve' was changed"),
        ("DELETE FROM samples WHERE id = 3", "sample 3 is in the log, but not in the gallery"),
        ("UPDATE thresholds SET value = 0.2", "the threshold is 0.2, the log says 0.7"),
    ],
)
def test_a_change_behind_the_log_is_found(watch_list, capsys, change, fault):
    connection = sqlite3.connect(watch_list / "gallery.sqlite", isolation_level=None)
    connection.execute(change)
    connection.close()
    capsys.readouterr()
    assert call("audit", watch_list) == 1
    shown = capsys.readouterr().out
    assert f"FAULT: {fault}" in shown and "entries, NOT whole; head " in shown


def test_a_changed_byte_of_an_embedding_is_found(watch_list, capsys):
    connection = sqlite3.connect(watch_list / "gallery.sqlite", isolation_level=None)
    (value,) = connection.execute("SELECT embedding FROM samples WHERE id = 4").fetchone()
    value = value[:50] + bytes([value[50] ^ 1]) + value[51:]
    connection.execute("UPDATE samples SET embedding = ? WHERE id = 4", (value,))
    connection.close()
    capsys.readouterr()
    assert call("audit", watch_list) == 1
    assert "FAULT: 'bob': " in capsys.readouterr().out


def test_an_export_has_to_be_wanted_and_is_logged(tmp_path, watch_list, key, capsys):
    out = tmp_path / "people.parquet"
    assert call("export", watch_list, out) == 2
    assert "say --unencrypted if that is wanted" in capsys.readouterr().err
    assert not out.exists() and log(watch_list, tmp_path)[-1]["action"] == "enrol"
    assert call("export", watch_list, out, "--unencrypted", "--purpose", "move") == 0
    assert out.stat().st_mode & 0o777 == 0o600
    table = pq.read_table(out)
    assert table["person"].to_pylist() == ["ann", "ann", "bob", "bob", "cem", "cem"]
    held = np.array(table["embedding"].to_pylist()[:2], np.float32)
    assert np.array_equal(held, embedding_of(watch_list, "ann", key))
    assert table["source"].to_pylist()[0] == "ann/0.png"
    entry = log(watch_list, tmp_path)[-1]
    assert (entry["action"], entry["purpose"]) == ("export", "move")
    assert entry["details"]["rows"] == 6
    for words in ((out, "--unencrypted"), (tmp_path / "people.csv", "--unencrypted")):
        assert call("export", watch_list, *words) == 2
    assert log(watch_list, tmp_path)[-1] == entry


def test_a_backup_is_a_gallery_of_one_moment(tmp_path, watch_list, key, capsys):
    copy, stop = tmp_path / "copy", threading.Event()
    written = []

    def write():
        with Gallery.open(watch_list, key=key) as gallery:
            while not stop.is_set():
                seed = len(written)
                gallery.enrol(f"new {seed}", faces(1, seed, 48), ones(1))
                written.append(seed)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert call("backup", watch_list, copy) == 0
    finally:
        stop.set()
        writer.join()
    assert written and (copy / "gallery.sqlite").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in copy.iterdir()] == ["gallery.sqlite"]
    capsys.readouterr()
    assert call("audit", copy, "--last", 0) == 0 and call("audit", watch_list, "--last", 0) == 0
    assert capsys.readouterr().out.count("whole; head ") == 2
    assert call("search", copy, tmp_path / "people" / "ann" / "0.png") == 0
    assert "0.png: ann 1.000" in capsys.readouterr().out
    assert call("backup", watch_list, copy) == 2
    assert "exists already; give a new folder" in capsys.readouterr().err


def test_the_index_is_explained_and_its_recall_measured(tmp_path, watch_list, capsys):
    out = tmp_path / "index.json"
    capsys.readouterr()
    assert call("index", watch_list, "--recall", "--json", out) == 0
    shown = capsys.readouterr().out
    assert "6 rows, searched with flat" in shown and "recall rank 1 0.700: 1.0000" in shown
    assert read(out)["recall"]["at_threshold"]["share"] == 1 and "flat" in read(out)["rungs"]
    assert call("index", watch_list, "--index", "falt") == 2
    assert "did you mean 'flat'" in capsys.readouterr().err


WRONG = {
    "no gallery": ("search", "{tmp}/nowhere", "{people}"),
    "no such collection": ("list", "{list}", "--collection", "other"),
    "no picture": ("search", "{list}", "{tmp}/nothing.png"),
    "a text": ("search", "{list}", "{tmp}/text.txt"),
    "top": ("search", "{list}", "{people}", "--top", "0"),
    "threshold": ("search", "{list}", "{people}", "--threshold", "1.5"),
    "no number": ("search", "{list}", "{people}", "--threshold", "nan"),
    "both": ("search", "{list}", "{people}", "--investigate", "--threshold", "0.3"),
    "unknown name": ("search", "{list}", "{people}", "--people", "ann", "eve"),
    "csv": ("search", "{list}", "{people}", "--csv", "{tmp}"),
    "index": ("search", "{list}", "{people}", "--index", "tree"),
    "compare": ("compare", "{list}", "ann", "{people}", "--threshold", "2"),
    "no rate": ("calibrate", "{list}", "--impostors", "{people}"),
    "rate": ("calibrate", "{list}", "--impostors", "{people}", "--fpir", "1.5"),
    "impostors": ("calibrate", "{list}", "--impostors", "{tmp}/nowhere", "--fpir", "0.1"),
    "gate": ("enrol", "{list}", "{people}", "--max-yaw-deg", "200"),
    "name": ("enrol", "{list}", "{people}", "--person", "a\nb"),
    "source": ("enrol", "{list}", "{tmp}/nowhere"),
    "empty": ("enrol", "{list}", "{tmp}/empty"),
    "key inside": ("key", "{list}", "--new-key-file", "{list}/inside.key"),
    "lines": ("audit", "{list}", "--lines", "{tmp}"),
    "receipt": ("erase", "{list}", "ann", "--receipt", "{tmp}"),
    "backup inside": ("backup", "{list}", "{list}/backup"),
    "key": ("list", "{list}", "--key-file", "{tmp}/none.key"),
    "no key": ("list", "{list}", "--key-file", "{tmp}/text.txt"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_nothing_is_written(tmp_path, watch_list, capsys, case):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no picture")
    (tmp_path / "text.txt").chmod(0o600)
    entries = log(watch_list, tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*") if path.suffix != ".jsonl")
    places = {"tmp": tmp_path, "list": watch_list, "people": tmp_path / "people"}
    capsys.readouterr()
    assert call(*(word.format(**places) for word in WRONG[case])) == 2
    shown = capsys.readouterr()
    said = [line for line in shown.err.splitlines() if line.startswith("facerec-gallery: ")]
    assert len(said) == 1 and shown.err.endswith(said[0] + "\n") and "Traceback" not in shown.err
    assert log(watch_list, tmp_path) == entries
    after = sorted(str(path) for path in tmp_path.rglob("*") if path.suffix != ".jsonl")
    assert after == before
