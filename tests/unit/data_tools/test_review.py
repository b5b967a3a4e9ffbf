"""The review site of a drawn set: order by gain, escaping, paging, pictures, verdicts read back."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data_tools.review as review
from data_tools.decisions import append_round, read_log
from data_tools.log_rows import DECISION_SCHEMA
from data_tools.review import write_review
from data_tools.review_names import BLOCK, write_names
from data_tools.review_rows import collect_rows, group_rows
from data_tools.sets import SetFolder
from data_tools.verdicts import COLUMNS, import_verdicts
from facerec.checks import InputError
from facerec.cli.clean_review import add_review
from facerec.command import build_parser, run_command
from facerec.data.manifest import build_manifest, write_manifest
from facerec.io import write_json

HOSTILE = "<script>alert('x')</script>\"&\u202e عربي"
PEOPLE = ("sure", "doubtful", HOSTILE, "half")
OWN = {"sure": 0.999, "doubtful": 0.7, HOSTILE: 0.95, "half": 0.5}
NAMES = ("image_id", "path", "face", "identity", "chip")


def draw_rows():
    """Return 8 rows a person, each person's probability from OWN; one dropped, one moved."""
    rows = []
    for person, name in enumerate(PEOPLE):
        for i in range(8):
            sha = f"{person * 8 + i:064x}"[::-1]
            own, other, fate, action = OWN[name], (1 - OWN[name]) / 2, name, "keep"
            if name == "doubtful" and i == 0:
                own, other, fate, action = 0.1, 0.2, None, "drop"
            if name == "doubtful" and i == 1:
                own, other, fate, action = 0.01, 0.98, "sure", "relabel"
            rows.append(
                {
                    "image_id": sha[:16],
                    "path": f"{person}/<b>{i}&'\".jpg",
                    "face": 0,
                    "identity": name,
                    "chip": f"chips/{sha[:2]}/{sha[:16]}-0.png",
                    "own": own - 0.3,
                    "other": 0.2,
                    "other_identity": PEOPLE[person - 1] if action == "keep" else "sure",
                    "size": 8,
                    "core": action == "keep",
                    "p_own": own,
                    "p_other": other,
                    "p_nobody": 1 - own - other,
                    "quality": None,
                    "fate": fate,
                    "action": action,
                }
            )
    return rows


def decide(row, action=None, to=None, check="identity", score=None, threshold=None):
    action = action or row["action"]
    return {
        **{name: row[name] for name in ("image_id", "path", "face")},
        "check": check,
        "action": action,
        "from": row["identity"],
        "to": to or row["fate"],
        "score": score,
        "threshold": threshold,
        "model": "m",
        "reason": HOSTILE if action == "drop" else "near",
    }


def log_round(folder, decisions, summary):
    schema = pa.schema([f for f in DECISION_SCHEMA if f.name != "round"])
    return append_round(folder.log, pa.Table.from_pylist(decisions, schema), summary)


@pytest.fixture
def folder(tmp_path):
    folder = SetFolder(tmp_path / "set")
    write_json(folder.info, {"format": 1, "settings": {"source": "s"}, "stages": []})
    rows = draw_rows()
    shared = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0, "faces": 1}
    manifest = [
        {**shared, **{n: row[n] for n in NAMES[1:]}, "sha256": row["image_id"].ljust(64, "0")}
        for row in rows
    ]
    manifest = [{**row, "width": 9, "height": 9} for row in manifest]
    write_manifest(build_manifest(manifest), folder.manifest)
    folder.scores(1).parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder.scores(1))
    counts = np.bincount([300] * 28 + [120] * 4, minlength=400).tolist()
    summary = {"model": HOSTILE, "threshold": 0.2, "histograms": {"own": counts}}
    log_round(folder, [decide(row) for row in rows], summary)
    return folder


class Reader(HTMLParser):
    """What a browser makes of a page: tags with attributes, the text of headings."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.headings, self._heading = [], [], False
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "h2":
            self._heading = True
            self.headings.append("")

    def handle_endtag(self, tag):
        self._heading = self._heading and tag != "h2"

    def handle_data(self, data):
        if self._heading:
            self.headings[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_site(folder):
    return {path.name: Reader(path) for path in sorted((folder.root / "review").glob("*.html"))}


def test_identities_are_ordered_by_the_wrong_decisions_expected_in_them(folder):
    groups = group_rows(collect_rows(folder, read_log(folder.log)).table)
    assert groups.names.to_pylist() == ["half", "doubtful", HOSTILE, "sure"]
    # doubtful: six that stay at 0.7, one dropped that is right at 0.1, one moved right at 0.98.
    assert groups.gains == pytest.approx([4.0, 6 * 0.3 + 0.1 + 0.02, 0.4, 0.008])
    assert groups.starts.tolist() == [0, 8, 16, 24, 32]
    mine = groups.table.slice(8, 8)
    assert mine["doubt"].to_pylist() == pytest.approx([0.3] * 6 + [0.1, 0.02])
    assert mine["fate"].to_pylist()[6:] == [None, "sure"]


def test_joins_near_their_threshold_count_and_what_people_or_hashes_decided_does_not(folder):
    rows = draw_rows()
    half = [row for row in rows if row["identity"] == "half"]
    decisions = [decide(half[0], "keep", "half", "review")]
    decisions.append(decide(half[1], "duplicate", None, "same picture") | {"to": None})
    sure = [row for row in rows if row["identity"] == "sure"]
    decisions.append(decide(sure[0], "merge", "half", "identity", 0.8, 0.8))
    decisions.append(decide(sure[1], "merge", "half", "identity", 0.9, 0.8))
    log_round(folder, decisions, {})
    table = collect_rows(folder, read_log(folder.log)).table
    doubt = dict(zip(table["path"].to_pylist(), table["doubt"].to_pylist(), strict=True))
    assert doubt[half[0]["path"]] == doubt[half[1]["path"]] == 0
    assert doubt[half[2]["path"]] == pytest.approx(0.5)
    assert doubt[sure[0]["path"]] == pytest.approx(1 - 0.999 * 0.5)
    assert doubt[sure[1]["path"]] == pytest.approx(1 - 0.999 * (1 - 0.5 * np.exp(-2)))


def test_every_name_is_escaped_and_only_our_script_may_run(folder):
    write_review(folder.root)
    for name, page in read_site(folder).items():
        assert "<script>alert" not in page.text and "<b>" not in page.text, name
        assert not [a for a in page.all("script") if a.get("type") != "application/json" and a]
        policy = page.all("meta")[3]["content"]
        assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
        assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    pages = read_site(folder)
    assert any(HOSTILE in heading for heading in pages["identities-0001.html"].headings)
    paths = {a["data-path"] for a in pages["identities-0001.html"].all("li") if "data-path" in a}
    assert paths == {row["path"] for row in draw_rows()}
    block = (folder.root / "review" / "names" / "0000.js").read_text()
    assert "<" not in block and block.isascii()
    listed = json.loads(block[len("facerecNames(0, ") : -len(");\n")])
    assert [HOSTILE, 1, 3] in listed


def test_no_picture_unless_asked_and_then_a_link_to_the_chip(folder):
    write_review(folder.root)
    for page in read_site(folder).values():
        assert not page.all("img") and "data:image" not in page.text
    write_review(folder.root, with_images=True)
    page = read_site(folder)["identities-0001.html"]
    images = page.all("img")
    assert len(images) == 32 and "data:image" not in page.text
    assert all(a["src"].startswith("../chips/") and a["alt"] for a in images)
    assert all(a["loading"] == "lazy" for a in images)


def test_pages_are_cut_and_linked_and_long_identities_shortened(folder):
    figures = write_review(folder.root, per_page=3, rows=5)
    assert (figures["pages"], figures["identities"], figures["rows"]) == (2, 4, 32)
    pages = read_site(folder)
    assert len(pages["identities-0001.html"].headings) == 3
    assert [h.split(". ")[0] for h in pages["identities-0002.html"].headings] == ["4"]
    assert "3 more rows" in pages["identities-0001.html"].text
    links = {a["href"] for page in pages.values() for a in page.all("a")}
    for link in links:
        file, _, place = link.partition("#")
        assert not file or (folder.root / "review" / file).is_file(), link
        if place and file:
            assert f'id="{place}"' in pages[file].text, link
    assert "sample-0011.html" in pages and "identities-0003.html" not in pages


def test_figures_are_drawn_with_text_for_those_who_do_not_see_them(folder):
    write_review(folder.root)
    page = read_site(folder)["index.html"]
    assert len(page.all("svg")) == 2 and all(a["role"] == "img" for a in page.all("svg"))
    assert "threshold 0.200" in page.text and 'class="cut"' in page.text
    assert "after the last: 30 kept, 1 relabelled, 1 dropped" in page.text
    assert page.headings[:2] == ["Summary", "Find an identity"]
    assert page.all("html")[0]["lang"] == "en"


def test_it_is_written_again_only_when_the_log_or_the_settings_change(folder):
    assert write_review(folder.root)["written"]
    before = (folder.root / "review" / "index.html").stat().st_ino
    again = write_review(folder.root)
    assert not again["written"] and again["identities"] == 4
    assert (folder.root / "review" / "index.html").stat().st_ino == before
    assert write_review(folder.root, per_page=2)["written"]
    log_round(folder, [decide(draw_rows()[0], "drop") | {"to": None}], {})
    assert write_review(folder.root, per_page=2)["written"]
    assert [path.name for path in folder.root.glob(".review*")] == []
    # The sample of the earlier log stays: verdicts on it may still come.
    assert len(list((folder.root / "review" / "samples").glob("*.csv"))) == 1


def test_a_stop_between_the_two_renames_loses_nothing(folder, monkeypatch):
    write_review(folder.root)

    def stop(*_):
        (folder.root / "review").rename(folder.root / ".review.old")
        raise KeyboardInterrupt

    monkeypatch.setattr(review, "_swap", stop)
    with pytest.raises(KeyboardInterrupt):
        write_review(folder.root, per_page=2)
    monkeypatch.undo()
    assert not write_review(folder.root)["written"]
    assert write_review(folder.root, per_page=2)["written"]


def test_a_round_that_kept_little_is_shown_with_what_there_is(folder):
    names = [*NAMES, "own"]
    pq.write_table(pq.read_table(folder.scores(1)).select(names), folder.scores(1))
    write_review(folder.root)
    text = (folder.root / "review" / "index.html").read_text()
    assert "lack core, other, other_identity, p_nobody, p_other, p_own, size" in text
    pq.write_table(pq.read_table(folder.scores(1)).drop_columns(["chip"]), folder.scores(1))
    with pytest.raises(InputError, match="lacks the column 'chip'"):
        write_review(folder.root, seed=1)
    folder.scores(1).unlink()
    with pytest.raises(InputError, match="no round with scores"):
        write_review(folder.root, seed=1)


def test_names_are_found_in_files_sorted_as_the_page_compares(tmp_path):
    names = [f"N{i:05d}" for i in range(BLOCK + 5)] + ["\uff21 wide", "\U0001f600", "\uff5e"]
    firsts = write_names(tmp_path, names, 10)
    files = sorted((tmp_path / "names").glob("*.js"))
    assert len(files) == len(firsts) == 2 and firsts[0] == "a wide" and firsts == sorted(firsts)
    text = files[0].read_text()
    assert '["N00010",2,11]' in text and text.startswith("facerecNames(0, [[")


def test_filled_in_verdicts_are_taken_in_and_answer_the_sample(folder, tmp_path, capsys):
    write_review(folder.root)
    sample = folder.root / "review" / "sample.csv"
    lines = list(csv.DictReader(sample.open(newline="")))
    assert list(lines[0])[: len(COLUMNS)] == list(COLUMNS) and len(lines) == 32
    for line in lines:
        line["verdict"] = "keep" if line["given"] != "half" else "drop"
    answers = tmp_path / "verdicts.csv"
    with answers.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    assert import_verdicts(folder.root, answers)["verdicts"] == {"drop": 8, "keep": 24}
    write_review(folder.root)  # another log, another sample: the earlier one is answered
    assert run("review", folder.root, "--verdicts", answers, "--json", tmp_path / "r.json") == 0
    printed = capsys.readouterr().out
    assert "clean set: 25.81% (95 % interval 25.81% to 25.81%; 31 of 31 judged)" in printed
    assert "among the dropped: 100.00%" in printed
    assert json.loads((tmp_path / "r.json").read_text())["residual"]["value"] == 8 / 31


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's script")
def test_the_pages_script_writes_a_table_that_is_read_back(folder, tmp_path):
    write_review(folder.root)
    page = (folder.root / "review" / "identities-0001.html").read_text()
    script = re.findall(r"<script>(.*?)</script>", page, re.S)[-1]
    rows = draw_rows()[:3]
    entries = {
        row["path"]: {
            "path": row["path"],
            "image_id": row["image_id"],
            "face": "0",
            "verdict": verdict,
            "identity": identity,
            "note": 'said, "so"',
        }
        for row, verdict, identity in zip(
            rows, ("drop", "relabel", "relabel"), ("x", HOSTILE, " "), strict=True
        )
    }
    stub = """
      const element = { value: "", addEventListener() {}, textContent: "" };
      const known = ["reviewer", "save", "forget", "status"];
      globalThis.window = {};
      globalThis.document = { body: { dataset: { set: "x" } }, querySelectorAll: () => [],
        getElementById: (name) => known.includes(name) ? element : null };
    """
    call = f"process.stdout.write(window.facerecReview.buildCsv({json.dumps(entries)}, 'R'));"
    (tmp_path / "run.js").write_text(stub + script + call)
    done = subprocess.run(["node", tmp_path / "run.js"], capture_output=True, check=True)
    (tmp_path / "verdicts.csv").write_bytes(done.stdout)
    figures = import_verdicts(folder.root, tmp_path / "verdicts.csv")
    assert figures["verdicts"] == {"drop": 1, "relabel": 1}  # one names no identity
    said = {d.path: (d.to_identity, d.reason) for d in read_log(folder.log).rounds[-1].decisions}
    assert said[rows[0]["path"]] == (None, 'R: said, "so"')
    assert said[rows[1]["path"]][0] == HOSTILE


def run(*arguments):
    parser = build_parser("facerec-clean", "d", "e")
    add_review(parser.add_subparsers(dest="command", required=True))
    return run_command(parser, [str(argument) for argument in arguments])


def test_commands_print_where_the_site_is_and_refuse_in_one_sentence(folder, capsys):
    assert run("review", folder.root, "--per-page", "2", "--sample", "40") == 0
    assert "4 identities on 2 pages, 6.3 wrong decisions expected" in capsys.readouterr().out
    assert run("review", folder.root, "--per-page", "2", "--sample", "40") == 0
    assert "nothing changed" in capsys.readouterr().out
    for wrong in (("--sample", "3"), ("--per-page", "0"), ("--verdicts", folder.root / "no.csv")):
        assert run("review", folder.root, *wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
