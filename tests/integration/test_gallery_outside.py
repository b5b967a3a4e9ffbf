"""What a watch list's commands meet outside its folder: a server, other keys, Ctrl-C."""

import contextlib
import dataclasses

import pytest
from pattern_people import call, log, read, write_people, write_picture

from facerec.gallery import remote
from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import KEY_VARIABLE, make_key, read_key, write_key

URL = "https://qdrant.example:6333"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that keeps what it is given: the client's own engine on a folder."""
    pytest.importorskip("qdrant_client")
    connect, asked = remote.connect_remote, []

    def connect_here(settings, **place):
        asked.append((settings, place))
        folder = tmp_path / "server"
        return connect(dataclasses.replace(settings, url="", path=folder), **place)

    monkeypatch.setattr(remote, "connect_remote", connect_here)
    return asked


@pytest.fixture
def rows(watch_list, server):
    """Return what counts the rows on the server."""

    def count():
        with contextlib.closing(remote.connect_remote(server[0][0], **server[0][1])) as index:
            return len(index)

    return count


def test_rows_go_to_a_server_once_it_is_said_that_they_may(
    tmp_path, watch_list, server, rows, capsys
):
    ann, out = tmp_path / "people" / "ann" / "0.png", tmp_path / "out.json"
    capsys.readouterr()
    assert call("search", watch_list, ann, "--remote", URL) == 2
    assert "its embeddings lie plain; say --unencrypted" in capsys.readouterr().err
    assert server == []
    words = ("--remote", URL, "--remote-key-file", tmp_path / "api.key", "--unencrypted")
    assert call("search", watch_list, ann, *words, "--json", out) == 0
    (settings, place) = server[-1]
    assert (settings.url, settings.api_key_file) == (URL, tmp_path / "api.key")
    assert place["dim"] == 48 and rows() == 6
    (answer,) = read(out)["results"]
    assert call("search", watch_list, ann, "--json", out) == 0  # here
    assert read(out)["results"] == [answer]
    entries = log(watch_list, tmp_path)
    assert [entry["details"]["index"] for entry in entries if entry["action"] == "search"] == [
        "qdrant",
        "flat",
    ]
    (where,) = (entry["details"] for entry in entries if entry["action"] == "setting")
    assert where == {"key": "remote", "value": URL}
    more = write_people(tmp_path / "more", {"dee": 4})
    assert call("enrol", watch_list, more) == 0
    assert call("search", watch_list, ann, "--remote", URL) == 0  # agreed to before
    assert rows() == 8


def test_whoever_is_erased_is_erased_on_the_server_or_it_is_said_that_not(
    tmp_path, watch_list, server, rows, capsys
):
    ann = tmp_path / "people" / "ann" / "0.png"
    assert call("search", watch_list, ann, "--remote", URL, "--unencrypted") == 0
    capsys.readouterr()
    assert call("erase", watch_list, "ann") == 0
    assert f"may still lie on {URL}" in capsys.readouterr().err and rows() == 6
    assert call("erase", watch_list, "bob", "--remote", URL) == 0
    assert f"deleted on {URL}" in capsys.readouterr().err and rows() == 2
    assert call("search", watch_list, ann, "--remote", URL) == 0
    assert "0.png: unknown" in capsys.readouterr().out
    assert call("audit", watch_list) == 0


def test_an_address_that_gives_vectors_away_is_refused(tmp_path, watch_list, capsys):
    capsys.readouterr()
    words = ("--remote", "http://qdrant.example:6333", "--unencrypted")
    assert call("search", watch_list, tmp_path / "people", *words) == 2
    assert "unencrypted to another machine" in capsys.readouterr().err


@pytest.fixture
def staff(tmp_path, watch_list, patterns):
    """Another collection of the same gallery, with a key of its own, elsewhere."""
    key = tmp_path / "apart" / "staff.key"
    words = ("--model", patterns, "--detector", "aligned", "--collection", "staff")
    assert call("create", watch_list, *words, "--key-file", key) == 0
    people = write_people(tmp_path / "staff", {"dee": 4})
    assert call("enrol", watch_list, people, "--collection", "staff") == 0
    return key


def test_an_audit_takes_each_key_where_it_fits(tmp_path, watch_list, staff, monkeypatch, capsys):
    def audit(*words):
        capsys.readouterr()
        assert call("audit", watch_list, *words) == 0
        return capsys.readouterr().out

    away = staff.rename(tmp_path / "away.key")
    shown = audit()
    assert "'staff': its key is not at hand" in shown and "'main'" not in shown
    assert "not at hand" not in audit("--collection", "staff", "--key-file", away)
    monkeypatch.setenv(KEY_VARIABLE, read_key(away).value.hex())
    assert "not at hand" not in audit("--collection", "staff")
    other = tmp_path / "other.key"
    write_key(make_key(), other)
    assert call("audit", watch_list, "--key-file", other) == 2  # named, and another's
    assert "got key" in capsys.readouterr().err


def test_a_key_that_opens_one_collection_opens_no_other(tmp_path, watch_list, staff, capsys):
    capsys.readouterr()
    assert call("search", watch_list, tmp_path / "staff", "--key-file", staff) == 2
    assert "collection 'main'" in capsys.readouterr().err
    words = ("--collection", "staff", "--threshold", 0.7)
    assert call("search", watch_list, tmp_path / "staff", *words) == 0
    assert "0.png: dee" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "method", "kept"),
    [
        ("search", "search", "is in the log; no --json or --csv was written"),
        ("compare", "compare", "is in the log; no --json or --csv was written"),
        ("calibrate", "calibrate", "no threshold was stored; the same command begins again"),
    ],
)
def test_ctrl_c_says_what_is_kept(tmp_path, watch_list, monkeypatch, capsys, command, method, kept):
    do, asked, table = getattr(Gallery, method), [], tmp_path / "out"
    people = tmp_path / "people"
    words = {
        "search": (people, "--csv", table, "--json", table),
        "compare": ("ann", people, "--json", table),
        "calibrate": ("--impostors", people, "--fpir", 0.1, "--json", table),
    }

    def interrupted(self, *arrays, **named):
        asked.append(arrays)
        if command == "calibrate" or len(asked) == 3:
            raise KeyboardInterrupt
        return do(self, *arrays, **named)

    monkeypatch.setattr(Gallery, method, interrupted)
    before = len(log(watch_list, tmp_path))
    capsys.readouterr()
    assert call(command, watch_list, *words[command]) == 130
    shown = capsys.readouterr()
    assert kept in shown.err and "Traceback" not in shown.err and not table.exists()
    done = log(watch_list, tmp_path)[before:]
    assert [entry["action"] for entry in done] == [command] * (len(asked) - 1)
    assert shown.out.count(".png: ") == len(asked) - 1


def test_every_kind_of_entry_is_shown_in_a_line(tmp_path, watch_list, capsys):
    stranger = write_picture(tmp_path / "s.png", 9)
    faces = {f"s{number}": 100 + number for number in range(99)}
    strangers = write_people(tmp_path / "strangers", faces, pictures=1)
    call("search", watch_list, stranger, "--purpose", "case 7")
    call("calibrate", watch_list, "--impostors", strangers, "--fpir", 0.2)
    call("cohort", watch_list, strangers)
    call("retain", watch_list, 90)
    call("backup", watch_list, tmp_path / "copy")
    call("rename", watch_list, "ann", "Anna")
    call("remove", watch_list, "bob", 3)
    call("key", watch_list, "--new-key-file", tmp_path / "new.key")
    capsys.readouterr()
    assert call("audit", watch_list, "--last", 10) == 0
    rows = [line.split("\t")[3:] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert rows[0] == ["search", "unknown", "case 7"]
    assert rows[1][0] == "threshold" and rows[1][1].startswith("fpir 0.")
    assert rows[2:6] == [
        ["cohort", "99"],
        ["setting", "retention_days = 90"],
        ["export", "backup 3"],
        ["rename", "Anna"],
    ]
    assert [row[0] for row in rows[6:]] == ["remove", "scrub", "rotate", "setting"]
    assert rows[8][1] == read_key(tmp_path / "new.key").id
    assert rows[9][1] == f"key_file = {tmp_path / 'new.key'}"
