"""A person erased: nothing of that person stays, others stay as they are, a kill is finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.decisions import Decision, append_round, read_log, undo_last
from data_tools.erasure import erase, find_erased, is_erased
from data_tools.exports import export_set
from data_tools.log_clean import refresh_clean, undo_rounds
from data_tools.log_receipts import read_receipts
from data_tools.sets import SetFolder, record_stage
from facerec.checks import InputError
from facerec.cli.clean_log import add_log
from facerec.command import build_parser, run_command
from facerec.data.embedding_cache import EmbeddingCache
from facerec.data.manifest import build_manifest, read_manifest, write_manifest
from facerec.io import read_json, sha256_bytes, write_json

NAME = "Erika Müster"
MODELS = ("1" * 64, "2" * 64)
DIM = 8
# path, identity as ingested, the picture's number; x/7 is Erika's picture 0 under another name.
ROWS = [
    *[(f"{NAME}/{number}.png", NAME, number) for number in range(4)],
    *[(f"Otto/{number}.png", "Otto", number) for number in (4, 5, 6)],
    ("x/7.png", "Xaver", 0),
    ("x/8.png", "Xaver", 8),
]
LEFTOVERS = [".manifest.tmp.parquet", "decisions/.round-0009.x.parquet", "report.html", "review"]


def picture(number):
    return f"picture {number} ".encode() * 20


def embedding(number, model):
    rng = np.random.default_rng([number, int(model[0])])
    vector = rng.normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def decide(row, action, before, after, reason=""):
    path, _, number = ROWS[row]
    image = sha256_bytes(picture(number))[:16]
    return Decision(image, path, 0, 0, "check", action, before, after, 0.5, 0.3, "", reason)


def chip_of(number):
    digest = sha256_bytes(picture(number))
    return f"chips/{digest[:2]}/{digest[:16]}-0.png"


def fill_rounds(folder):
    """Log two rounds and an undone one: Otto/5 was Erika for a round, and Erika/3 is Otto."""
    first = [decide(n, "keep", name, name) for n, (_, name, _) in enumerate(ROWS)]
    first[6] = decide(6, "drop", "Otto", None, f"far, near that of {NAME}")
    first[8] = decide(8, "drop", "Xaver", None, f"near {NAME}-Schmidt, not {NAME}s")
    append_round(folder.log, first, {"largest": [NAME], "settings": {"check": "check"}})
    append_round(folder.log, [decide(3, "relabel", NAME, "Otto")], {})
    append_round(folder.log, [decide(5, "relabel", "Otto", NAME)], {})
    undo_last(folder.log)
    refresh_clean(folder)


def fill_scores(folder):
    count = len(ROWS)
    table = pa.table(
        {
            "path": [path for path, _, _ in ROWS],
            "face": pa.array([0] * count, pa.int32()),
            "other": pa.array([NAME, *["Otto"] * (count - 2), NAME]).dictionary_encode(),
            "near": pa.array([*[[NAME, "Otto"]] * (count - 1), None], pa.list_(pa.string())),
            "own": np.arange(count) / 10,
        }
    )
    folder.scores(1).parent.mkdir()
    pq.write_table(table, folder.scores(1), row_group_size=4)
    people = pa.table({"identity": [NAME, "Otto"], "merges_with": ["Otto", NAME]})
    pq.write_table(people, folder.scores(1).with_name("round-0001-people.parquet"))


def fill_leftovers(folder):
    """Leave what reports, killed writers and damaged shards leave."""
    (folder.root / "review").mkdir()
    (folder.root / "report.html").write_text(f"<p>{NAME}</p>")
    (folder.root / "review" / "erika.png").write_bytes(picture(1))
    (folder.root / ".manifest.tmp.parquet").write_text(NAME)
    (folder.root / "decisions" / ".round-0009.x.parquet").write_text(NAME)
    (folder.root / "decisions" / "round-0004.parquet").write_text(NAME)  # not committed
    (folder.root / chip_of(1)).with_name(".half.tmp").write_bytes(picture(1))
    cache = folder.embeddings / MODELS[0][:16]
    (cache / ".half.npy").write_bytes(embedding(1, MODELS[0]).tobytes())
    (cache / "orphan.npy").write_bytes(embedding(1, MODELS[0]).tobytes())
    (cache / "damaged.npy").write_bytes(embedding(1, MODELS[0]).tobytes())
    (cache / "damaged.ids").write_text("no names")


def build_set(root):
    folder = SetFolder(root)
    settings = {"source": "/somewhere/crawl", "root": "/somewhere/crawl"}
    write_json(folder.info, {"format": 1, "settings": settings, "stages": []})
    rows = []
    for path, name, number in ROWS:
        chip = chip_of(number)
        (root / chip).parent.mkdir(parents=True, exist_ok=True)
        (root / chip).write_bytes(picture(number))
        row = {"path": path, "identity": name, "sha256": sha256_bytes(picture(number))}
        row |= {"width": 9, "height": 9, "box": [0, 0, 9, 9], "landmarks": [1] * 10}
        rows.append({**row, "det_score": 1.0, "faces": 1, "chip": chip})
    write_manifest(build_manifest(rows), folder.manifest)
    for model in MODELS:
        cache = EmbeddingCache(folder.embeddings, model, DIM)
        for numbers in ((0, 1, 2, 4), (3,), (5, 6, 8)):
            vectors = np.stack([embedding(number, model) for number in numbers])
            norms = np.ones(len(numbers), np.float32)
            cache.append([Path(chip_of(number)).stem for number in numbers], vectors, norms)
    fill_rounds(folder)
    fill_scores(folder)
    fill_leftovers(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_set(tmp_path_factory.mktemp("erasure") / "set").root


@pytest.fixture
def folder(built, tmp_path):
    shutil.copytree(built, tmp_path / "set")
    return SetFolder(tmp_path / "set")


def read_everything(folder):
    """Yield all bytes below a set folder, and every table's values as text as well."""
    for path in sorted(folder.root.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()
        # Compressed, a name cannot be seen; what killed writers left is plain here.
        if path.suffix == ".parquet" and path.read_bytes()[:4] == b"PAR1":
            table = pq.read_table(path, partitioning=None)
            yield path, f"{table.to_pydict()} {table.schema}".encode()
        yield path, path.name.encode()


def find_traces(folder, erased=(1, 2, 3, 5)):
    """Return where something of Erika still is: name, pictures that only she has, embeddings."""
    traces = [NAME.encode()]
    for number in erased:
        traces += [picture(number), sha256_bytes(picture(number))[:16].encode()]
        traces += [embedding(number, model).tobytes() for model in MODELS]
    return [
        (path, trace)
        for path, data in read_everything(folder)
        for trace in traces
        if trace in data.replace(f"{NAME}s".encode(), b"")  # another name, which begins alike
    ]


def test_nothing_of_the_person_stays(folder):
    assert len(find_traces(folder)) > 30
    figures = erase(folder.root, NAME)
    assert find_traces(folder) == []
    assert figures["removed"] == {
        "rows": 5,
        "as_ingested": 4,
        "decided": 1,
        "chips": 4,
        "shared_chips": 1,
        "embeddings": 8,
        "decisions": 7,
        "scores": 6,
        "mentions": 7,
        "deleted": LEFTOVERS,
    }
    assert figures["source"]["root"] == "/somewhere/crawl"
    assert figures["source"]["paths"] == [*(path for path, _, _ in ROWS[:4]), "Otto/5.png"]
    assert figures["named_in"] == [] and figures["finished"] is None


def test_other_people_stay_as_they_were(folder):
    erase(folder.root, NAME)
    left = ["Otto/4.png", "Otto/6.png", "x/7.png", "x/8.png"]
    assert read_manifest(folder.manifest)["path"].to_pylist() == left
    clean = read_manifest(folder.clean)
    assert clean["path"].to_pylist() == ["Otto/4.png", "x/7.png"]
    assert (folder.root / chip_of(0)).read_bytes() == picture(0)  # Xaver has the same
    for model in MODELS:
        cache = EmbeddingCache(folder.embeddings, model, DIM)
        assert cache.ids() == sorted(Path(chip_of(n)).stem for n in (0, 4, 6, 8))
        assert cache.damaged == [] and cache.verify() == []
        vectors, _ = cache.load([Path(chip_of(8)).stem])
        assert np.array_equal(vectors[0], embedding(8, model))
    log = read_log(folder.log)
    rounds = [(entry.number, entry.rows, entry.undone) for entry in log.rounds]
    assert rounds == [(1, 4, False), (2, 0, False), (3, 0, True)]
    assert [d.reason for d in log.rounds[0].decisions] == [
        "",
        "far, near that of (erased)",
        "",
        f"near (erased)-Schmidt, not {NAME}s",
    ]
    assert log.rounds[0].summary == {"largest": ["(erased)"], "settings": {"check": "check"}}
    assert log.rounds[0].counts["action"] == {"drop": 2, "keep": 2}
    scores = pq.read_table(folder.scores(1))
    assert scores["other"].to_pylist() == [*["Otto"] * 3, ""]
    assert scores["near"].to_pylist() == [*[["", "Otto"]] * 3, None]
    assert pa.types.is_dictionary(scores.schema.field("other").type)
    undo_rounds(folder.root, 1)  # the log goes on
    assert append_round(folder.log, [], {}) == 4


def test_the_receipt_knows_the_person_without_the_name(folder):
    assert not is_erased(folder, NAME) and read_receipts(folder) == []
    figures = erase(folder.root, NAME)
    assert is_erased(folder, NAME) and not is_erased(folder, "Otto")
    decomposed = NAME.replace("ü", "u\u0308")
    assert find_erased(folder, ["Otto", NAME, decomposed]) == {NAME, decomposed}
    [receipt] = read_receipts(folder)
    assert receipt["id"] == figures["id"] and receipt["removed"]["rows"] == 5
    assert receipt["removed"]["deleted"] == 4 and "facerec" in receipt["versions"]
    with pytest.raises(InputError, match=r"has nobody called .*; this name was erased before"):
        erase(folder.root, NAME)
    with pytest.raises(InputError, match="has nobody called 'Nobody'; check the name"):
        erase(folder.root, "Nobody")
    erase(folder.root, "Xaver")
    assert [entry["removed"]["rows"] for entry in read_receipts(folder)] == [5, 2]
    assert not (folder.root / chip_of(0)).exists() and is_erased(folder, NAME)


def test_a_dry_run_says_the_same_and_touches_nothing(folder):
    before = set(read_everything(folder))
    dry = erase(folder.root, NAME, dry_run=True)
    lock = folder.root / ".lock"
    assert set(read_everything(folder)) - before <= {(lock, b""), (lock, b".lock")}
    assert before <= set(read_everything(folder))
    figures = erase(folder.root, NAME)
    assert dry["dry_run"] and dry["removed"] == figures["removed"]
    assert dry["source"] == figures["source"]


def test_what_is_not_of_the_set_stops_it_unless_told(folder):
    (folder.root / "notes.txt").touch()
    (folder.root / "scores" / "centres.npy").touch()
    with pytest.raises(InputError, match=r"holds notes\.txt, scores/centres\.npy, which is not"):
        erase(folder.root, NAME)
    assert find_traces(folder) and not is_erased(folder, NAME)
    figures = erase(folder.root, NAME, delete_unknown=True)
    assert {"notes.txt", "scores/centres.npy"} <= set(figures["removed"]["deleted"])
    assert not (folder.root / "notes.txt").exists()
    with pytest.raises(InputError, match="must not be empty"):
        erase(folder.root, "")
    with pytest.raises(InputError, match=r"no erasure of .* is unfinished"):
        erase(folder.root)


def test_where_the_person_still_is_gets_told(folder, tmp_path):
    export_set(folder.root, tmp_path / "out.csv")
    export_set(folder.root, tmp_path / "gone.csv")
    (tmp_path / "gone.csv").unlink()
    record_stage(folder, f"of {NAME}", 1.0)
    figures = erase(folder.root, "Otto")
    assert figures["exports"] == [str((tmp_path / "out.csv").resolve())]
    assert figures["named_in"] == []
    assert erase(folder.root, NAME)["named_in"] == [
        "set.json, where the source or an export is called so"
    ]


class Killed(BaseException):
    """Stands for kill -9: from some moment on, no file is renamed or removed any more."""


def kill_after(monkeypatch, count):
    """Let `count` renames and removals happen, and none after them."""
    left = [count]

    def wrap(function):
        def call(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments, **named)

        return call

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, wrap(getattr(Path, name)))


def describe_set(folder):
    """Return what a set holds, whatever its shards and rounds are called."""
    log = read_log(folder.log)
    tables = [folder.manifest, folder.clean, *sorted((folder.root / "scores").iterdir())]
    return {
        "tables": [pq.read_table(path, partitioning=None) for path in tables],
        "erasures": len(log.erasures),
        "rounds": [(entry.number, entry.undone, entry.read()) for entry in log.rounds],
        "caches": [EmbeddingCache(folder.embeddings, model, DIM).ids() for model in MODELS],
        "files": sorted(
            path.name
            for path in folder.root.rglob("*")
            if path.parent.name not in (*(m[:16] for m in MODELS), "decisions")
        ),
        "receipts": [{**entry["removed"], "deleted": 0} for entry in read_receipts(folder)],
    }


@pytest.fixture(scope="module")
def undisturbed(built, tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed") / "set"
    shutil.copytree(built, place)
    erase(place, NAME)
    return describe_set(SetFolder(place))


# The whole erasure has 63 renames and removals; the last one takes the plan away.
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 9, 12, 16, 20, 25, 30, 37, 45, 54, 62])
def test_killed_anywhere_the_next_erase_finishes_it(folder, undisturbed, monkeypatch, count):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, count)
        erase(folder.root, NAME)
    if (folder.root / "erasing.parquet").is_file():
        with pytest.raises(InputError, match="was not finished; finish it with: facerec-clean er"):
            undo_rounds(folder.root)
        assert erase(folder.root, dry_run=True)["removed"]["rows"] == 5
        assert erase(folder.root)["finished"] is not None
    else:
        erase(folder.root, NAME)
    assert find_traces(folder) == []
    assert describe_set(folder) == undisturbed


def test_the_command(folder, tmp_path, capsys):
    parser = build_parser("facerec-clean", "", "")
    add_log(parser.add_subparsers(dest="command", required=True))
    arguments = ["erase", str(folder.root), "--identity", NAME]
    assert run_command(parser, [*arguments, "--dry-run"]) == 0
    assert "would be removed" in capsys.readouterr().out and find_traces(folder)
    assert run_command(parser, [*arguments, "--json", str(tmp_path / "r.json")]) == 0
    out = capsys.readouterr().out
    assert "5 rows: 4 ingested under the name, 1 that decisions gave it or took from it" in out
    assert "1 chips stay for rows of other people who have the very same picture" in out
    assert "not touched: 5 pictures in the source /somewhere/crawl:" in out
    assert read_json(tmp_path / "r.json")["removed"]["embeddings"] == 8
    assert run_command(parser, arguments) == 2
    assert "this name was erased before" in capsys.readouterr().err
