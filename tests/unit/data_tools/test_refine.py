"""The loop of train-and-refine with faked trainings: what learns from what, stops, undo, kills."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import pytest

from data_tools import refine as module
from data_tools import refine_train
from data_tools.decisions import Decision, append_round, find_dropped, read_log
from data_tools.log_clean import undo_rounds, write_clean
from data_tools.log_rows import REVIEW
from data_tools.refine import refine
from data_tools.refine_state import COLLAPSED, SETTLED, STALLED, USED_UP
from data_tools.rounds import find_half
from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.cli.clean_refine import add_refine
from facerec.command import build_parser, run_command
from facerec.data.manifest import build_manifest, read_manifest, write_manifest
from facerec.io import read_json, sha256_bytes, write_json

RECIPE = "head: {name: arcface, params: {scale: 16}}\nvalidation: {bins: [pairs.bin]}\n"


class Stop(BaseException):
    """A kill."""


def make_set(root):
    """Write a set of 4 people with 10 faces each, one copy, one row without face or name each."""
    rows = []
    for number in range(43):
        person = f"p{number % 4}" if number < 42 else ""
        sha = sha256_bytes(f"{number if number != 40 else 0}".encode())
        row = {"path": f"{number}.jpg", "identity": person, "sha256": sha}
        row |= {"width": 9, "height": 9}
        face = {"box": [0, 0, 9, 9], "landmarks": [1] * 10, "det_score": 1.0, "faces": 1}
        face |= {"chip": f"chips/{sha[:2]}/{number}.png"}
        rows.append({**row, **(face if number != 41 else {"reason": "no face"})})
    write_manifest(build_manifest(rows), root / "manifest.parquet")
    write_json(root / "set.json", {"format": 1, "settings": {}, "stages": []})
    (root / "chips").mkdir()
    return root


class World:
    """Stands in for the trainer and the round, writes down what they were asked, and kills.

    `drops` has the rows that each round's decisions take out, `figures` the validation figure of
    each training.
    """

    def __init__(self, tmp_path):
        self.out = make_set(tmp_path / "set")
        self.recipe = tmp_path / "recipe.yaml"
        self.recipe.write_text(RECIPE)
        self.trained, self.judged = [], []
        self.drops = [{1, 2, 3, 4}, {1, 2, 5}, {1, 6}, {1, 7}, {1, 8}]
        self.figures = {}
        self.kill = ""

    def train(self, settings, run):
        name = run.relative_to(self.out / "refine").as_posix()
        if (run / "result.json").exists():
            return
        self.stop(f"train {name}")
        paths = read_manifest(settings.data.manifest)["path"].to_pylist()
        self.trained.append(SimpleNamespace(name=name, settings=settings, paths=paths))
        (run / "artefact").mkdir(parents=True)
        figure = self.figures.get(name.split("/")[0], 0.5 + 0.05 * len(self.trained))
        write_json(run / "result.json", {"best_tar": figure})
        line = {"step": 1, "validation_pairs_pairs": 10_000}
        (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        self.stop(f"trained {name}")

    def run_round(self, out, model, *, seed, targets, **options):
        folder = SetFolder(out)
        log = read_log(folder.log)
        names = (
            [m.relative_to(out / "refine") for m in model] if isinstance(model, tuple) else model
        )
        number = len(log.active)
        if not self.drops:
            raise InputError("no threshold")
        if log.active and log.active[-1].summary["model"] == str(names):
            return {**log.active[-1].summary, "round": None, "changed": 0, "changed_share": 0.0}
        self.stop(f"judge {len(self.judged)}")
        gone = {f"{n}.jpg" for n in self.drops[number]}
        before = {path for path, _ in find_dropped(log)}
        changed = gone ^ before
        decisions = [
            Decision("0" * 16, path, 0, 0, "identity", "drop" if path in gone else "restore",
                     None if path in before else "p0", None if path in gone else "p0",
                     None, None, "m", "why")
            for path in sorted(changed)
        ]  # fmt: skip
        counts = ("rows", "judged", "relabelled", "merged", "split")
        summary = {
            "usable": 42,
            "kept": 42 - len(gone),
            **dict.fromkeys((*counts, "duplicates", "overlap"), 0),
            "dropped": len(gone),
            "restored": len(before - gone),
            "changed": len(changed),
            "changed_share": len(changed) / 43,
            "noise": 0.1,
            "model": str(names),
        }
        logged = append_round(folder.log, decisions, summary)
        self.stop(f"logged {len(self.judged)}")
        self.judged.append(names)
        write_clean(folder, read_log(folder.log))
        return {**summary, "round": logged}

    def undo_rounds(self, out, number):
        self.stop("undo")
        undo_rounds(out, number)
        self.stop("undid")

    def stop(self, place):
        if self.kill == place:
            self.kill = ""
            raise Stop(place)

    def refine(self, **options):
        return refine(self.out, self.recipe, **options)

    def clean(self):
        return set(read_manifest(self.out / "clean.parquet")["path"].to_pylist())

    def notes(self):
        return read_json(self.out / "refine" / "refine.json")

    def active(self):
        return [entry.number for entry in read_log(self.out / "decisions.jsonl").active]


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    monkeypatch.setattr(refine_train, "train", world.train)
    monkeypatch.setattr(module, "run_round", world.run_round)
    monkeypatch.setattr(module, "undo_rounds", world.undo_rounds)
    return world


def test_each_half_is_judged_by_the_net_that_did_not_see_it(world):
    table = world.refine()
    assert [row["log_round"] for row in table] == [1, 2, 3]
    assert [row["dropped"] for row in table] == [4, 3, 2]
    assert [row["restored"] for row in table] == [0, 2, 2]
    for number, pair in enumerate(world.judged):
        names = [f"round-{number}/half-{half}/artefact" for half in (1, 0)]
        assert [place.as_posix() for place in pair] == names
    manifest = read_manifest(world.out / "manifest.parquet")
    half = dict(zip(manifest["path"].to_pylist(), find_half(manifest["image_id"]), strict=True))
    first, second = world.trained[:2]
    assert {half[path] for path in first.paths} == {0}
    assert {half[path] for path in second.paths} == {1}
    # Raw labels: all but the row without a face and the one without a name.
    assert sorted(first.paths + second.paths) == sorted(f"{n}.jpg" for n in range(41))
    assert ("0.jpg" in first.paths) == ("40.jpg" in first.paths)  # the same bytes
    later = [path for one in world.trained[2:4] for path in one.paths]
    assert set(later) == {f"{n}.jpg" for n in range(41)} - {f"{n}.jpg" for n in (1, 2, 3, 4)}
    chips = world.out / "refine" / "round-1" / "chips"
    assert chips.is_symlink() and chips.resolve() == (world.out / "chips").resolve()


def test_later_trainings_start_from_the_same_halfs_net(world):
    world.refine(overrides=["epochs=7"], later=["optim.lr=0.01"], seed=4)
    assert [one.name for one in world.trained[:3]] == [
        "round-0/half-0",
        "round-0/half-1",
        "round-1/half-0",
    ]
    assert len({one.settings.seed for one in world.trained}) == 6
    for one in world.trained:
        settings = one.settings
        assert settings.epochs == 7 and settings.noise.name == "coteaching"
        number, half = int(one.name[6]), one.name[-1]
        if number == 0:
            assert settings.init.artefact is None and settings.init.head == "random"
            assert settings.optim.lr == 0.1
        else:
            before = world.out / "refine" / f"round-{number - 1}" / f"half-{half}" / "artefact"
            assert settings.init.artefact == before.resolve()
            assert settings.init.head == "centroids" and settings.optim.lr == 0.01


def test_one_net_a_round_and_a_given_model(world, monkeypatch):
    monkeypatch.setattr(
        "data_tools.refine_plan.resolve_model",
        lambda model: SimpleNamespace(info=SimpleNamespace(sha256="f" * 64)),
    )
    table = world.refine(model="teacher", cross_fit=False, robust="subcenter", rounds=3)
    assert [row["model"] for row in table] == ["given", "trained", "trained"]
    assert table[0]["validation"] is None and table[1]["validation"] == pytest.approx(0.55)
    assert world.judged[0] == "teacher"
    assert [one.name for one in world.trained] == ["round-1/all", "round-2/all"]
    assert world.trained[0].settings.init.artefact is None  # a teacher is another net
    assert world.trained[1].settings.init.artefact.parts[-3:] == ("round-1", "all", "artefact")
    assert world.trained[0].settings.head.params["sub_centers"] == 3
    with pytest.raises(InputError, match="begun with another"):
        refine(world.out, model="teacher", cross_fit=False)
    only = refine(world.out, model="other", restart=True)
    assert len(only) == 1 and len(world.trained) == 2
    assert world.notes()["stopped"] == USED_UP


def test_it_stops_when_few_labels_change_and_can_be_told_to_go_on(world):
    world.drops[1] = world.drops[0] - {1}
    assert len(world.refine(stop_share=0.03)) == 2
    assert world.notes()["stopped"] == SETTLED
    assert len(world.refine(stop_share=0.01)) == 3
    assert world.notes()["stopped"] == USED_UP
    assert len(world.refine(stop_share=0.01, rounds=4)) == 4


def test_rounds_after_the_best_are_undone_when_the_figure_stalls(world):
    world.figures = {"round-0": 0.5, "round-1": 0.8, "round-2": 0.79, "round-3": 0.7}
    table = world.refine(rounds=9)
    assert [row["undone"] for row in table] == [False, False, True, True]
    assert world.notes()["stopped"] == STALLED and world.active() == [1, 2]
    assert (
        "round 1 has the best validation figure; rounds 3, 4 of the log are undone"
        in world.notes()["note"]
    )
    assert world.clean() == {f"{n}.jpg" for n in range(43)} - {"1.jpg", "2.jpg", "5.jpg", "41.jpg"}
    assert world.refine(rounds=20) == table and len(world.trained) == 8


@pytest.mark.parametrize("number", [0, 1])
def test_a_round_that_keeps_hardly_a_row_is_undone(world, number):
    world.drops[number] = set(range(35))
    table = world.refine(final=True)
    assert len(table) == number + 1 and table[-1]["undone"]
    assert world.notes()["stopped"] == COLLAPSED and world.active() == [1][:number]
    note = f"round {number} kept 7 of 42 labelled faces: its net is too weak to judge them"
    assert world.notes()["note"].startswith(note)
    assert f"; round {number + 1} of the log is undone" in world.notes()["note"]
    assert (world.notes()["final"] is None) == (number == 0)
    assert ("no final model" in world.notes()["note"]) == (number == 0)
    gone = {"1.jpg", "2.jpg", "3.jpg", "4.jpg"} if number else set()
    assert world.clean() == {f"{n}.jpg" for n in range(43)} - {"41.jpg"} - gone
    assert world.refine(rounds=9, final=True) == table


def test_rounds_that_somebody_built_on_are_not_undone(world):
    world.figures = {"round-0": 0.8, "round-1": 0.7, "round-2": 0.7}
    world.kill = "undo"
    with pytest.raises(Stop):
        world.refine()
    verdict = Decision("0" * 16, "9.jpg", 0, 0, REVIEW, "drop", "p1", None, None, None, "", "seen")
    append_round(world.out / "decisions.jsonl", [verdict], {"check": REVIEW})
    table = world.refine()
    assert world.active() == [1, 2, 3, 4] and not any(row["undone"] for row in table)
    assert "rounds 2, 3 of the log could not be undone, because round 4" in world.notes()["note"]


PLACES = ("trained round-0/half-0", "judge 0", "logged 0", "train round-1/half-1", "logged 3")


@pytest.mark.parametrize("place", [*PLACES, "undo", "undid", "trained final/model"])
def test_a_killed_refinement_ends_as_an_undisturbed_one(world, place):
    figures = {"round-0": 0.5, "round-1": 0.8, "round-2": 0.79, "round-3": 0.7, "final": 0.8}
    world.figures = figures
    world.kill = place
    with pytest.raises(Stop):
        world.refine(rounds=9, final=True)
    table = world.refine(rounds=9, final=True)
    assert [row["dropped"] for row in table] == [4, 3, 2, 2]
    assert [row["changed"] for row in table] == [4, 3, 3, 2]
    assert [row["log_round"] for row in table] == [1, 2, 3, 4] and world.active() == [1, 2]
    assert world.clean() == {f"{n}.jpg" for n in range(43)} - {"1.jpg", "2.jpg", "5.jpg", "41.jpg"}
    assert len(world.trained) == 9 and len({one.name for one in world.trained}) == 9
    assert world.notes()["final"]["artefact"] == "refine/final/model/artefact"


def test_other_settings_are_refused_until_restarted(world):
    world.refine(rounds=1)
    assert len(world.refine(rounds=1, overrides=["device=cpu"])) == 1
    changes = {"overrides": ["epochs=3"], "later": ["epochs=3"], "robust": "none", "seed": 5}
    for name, value in {**changes, "cross_fit": False, "flip": True}.items():
        with pytest.raises(InputError, match=r"begun with another .*--restart"):
            world.refine(rounds=1, **{name: value})
    table = world.refine(rounds=1, overrides=["epochs=3"], restart=True)
    assert table[0]["log_round"] is None and table[0]["changed"] == table[0]["restored"] == 0
    assert world.notes()["stopped"] == SETTLED and world.active() == [1]
    assert set(world.trained[-1].paths).isdisjoint({"1.jpg", "2.jpg"})  # the clean set so far


def test_a_round_undone_by_somebody_else_is_noticed(world):
    world.refine(rounds=2)
    undo_rounds(world.out)
    with pytest.raises(InputError, match=r"round 2 of the log.*was undone since"):
        world.refine(rounds=3)


def test_the_final_model_is_trained_on_the_clean_set_and_again_when_it_changes(world):
    world.refine(rounds=1, final=True)
    last = world.trained[-1]
    assert last.name == "final/model" and last.settings.init.artefact is None
    assert set(last.paths) == {f"{n}.jpg" for n in range(41)} - {f"{n}.jpg" for n in (1, 2, 3, 4)}
    world.refine(rounds=2, final=True)
    assert world.trained[-1].name == "final/model" and "3.jpg" in world.trained[-1].paths


def test_bad_calls(world, tmp_path):
    for options, message in (
        ({"rounds": 0}, "rounds"),
        ({"stop_share": 2}, "stop_share"),
        ({"robust": "coteach"}, "did you mean 'coteaching'"),
        ({"overrides": ["epoch=3"]}, "did you mean 'epochs'"),
        ({"validation": tmp_path / "absent"}, "validation .* must be"),
    ):
        with pytest.raises(InputError, match=message):
            world.refine(**options)
    with pytest.raises(InputError, match="a recipe to train with or a model"):
        refine(world.out)
    world.drops = []
    with pytest.raises(InputError, match="round 0, judged by the nets just trained: no threshold"):
        world.refine()
    with pytest.raises(InputError, match="is no set"):
        refine(tmp_path / "absent", world.recipe)
    assert world.notes()["table"] == [] and world.active() == []


def test_the_command_prints_the_table_and_writes_it(world, tmp_path, capsys):
    world.figures = {"round-0": 0.8, "round-1": 0.7, "round-2": 0.7, "final": 0.75}
    parser = build_parser("facerec-clean", "Clean.", "facerec-clean")
    commands: argparse._SubParsersAction = parser.add_subparsers(required=True)
    add_refine(commands)
    call = ["refine", str(world.out), "--recipe", str(world.recipe), "--final"]
    call += ["--json", str(tmp_path / "out.json"), "--later", "epochs=3", "--seed", "2"]
    assert run_command(parser, call) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "round" and [line.split()[0] for line in lines[1:4]] == list(
        "012"
    )
    assert lines[4].startswith("stopped after round 2: the validation figure did not improve")
    assert "rounds 2, 3 of the log are undone" in lines[5]
    assert "refine/final/model/artefact, validation 0.7500" in lines[6]
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row["undone"] for row in result["table"]] == [False, True, True]
    assert result["provenance"]["seed"] == 2
