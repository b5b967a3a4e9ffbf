"""The demo's data: who of a user's people goes where, what is linked, what is refused."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.pairs import read_pairs
from facerec.checks import InputError
from facerec.cli.demo import line, sets, slides
from facerec.cli.demo.line import _fit_recipe, _open_folder, run_demo
from facerec.cli.demo.sets import _choose_pairs, find_people, link_set, split_people
from facerec.io import write_json

NAMES = ["a,b", " lead", "Ana María", "张伟", 'O\'Neil & "Co"', *(f"p{i:02}" for i in range(13))]
SETTINGS = {"data": "", "detector": None, "seed": 1}


def write_people(root, names, images=3):
    for person, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(images):
            picture = np.full((20, 16, 3), 10 * person % 256, np.uint8)
            cv2.imwrite(str(root / name / f"{number}.png"), picture)
    return root


def snapshot(root):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    data, out = write_people(folder / "data", NAMES), folder / "out"
    before = snapshot(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slides, "_SECONDS", 1)
        made = link_set(out, data, "some.onnx", 1)
    assert snapshot(data) == before
    return data, out, made


@pytest.mark.parametrize("count", [12, 13, 17, 24, 60, 119, 120, 500])
def test_nobody_is_in_two_groups_and_each_group_suffices(count):
    names = [f"n{i:03}" for i in range(count)]
    split = split_people(names, 3)
    everybody = [name for group in split for name in group]
    assert len(everybody) == len(set(everybody)) == min(count, sets.MAX_OWN_PEOPLE)
    assert set(everybody) <= set(names)
    assert len(split.paired) >= 4
    assert len(split.crawl) >= 6
    assert split.listed
    assert split.strangers
    assert split == split_people(reversed(names), 3)


def test_another_seed_draws_other_people():
    names = [f"n{i:03}" for i in range(60)]
    assert split_people(names, 1) != split_people(names, 2)


def test_links_keep_the_groups_apart_and_lead_to_the_pictures(linked):
    data, out, made = linked
    people = {
        name: {folder.name for folder in (out / name).iterdir()} for name in ("crawl", "pairs")
    }
    probes = {folder.name for folder in (out / "probes").iterdir()}
    documents = {folder.name for folder in (out / "documents").iterdir()}
    assert not people["crawl"] & people["pairs"]
    assert not probes & (people["crawl"] | people["pairs"])
    assert documents == set(made.listed)
    assert documents < probes
    assert people["crawl"] | people["pairs"] | probes == set(NAMES)
    for link in (p for p in out.rglob("*.png") if p.parts[-3] != "camera"):
        assert link.is_symlink()
        assert link.resolve() == (data / link.parent.name / link.name).resolve()


def test_no_probe_is_its_own_document(linked):
    _, out, _ = linked
    for document in (out / "documents").rglob("*.png"):
        probes = {probe.resolve() for probe in (out / "probes" / document.parent.name).iterdir()}
        assert probes
        assert document.resolve() not in probes


def test_every_pair_is_there_and_folds_share_nobody(linked):
    _, out, _ = linked
    pairs = read_pairs(out / "pairs.csv", out / "pairs")  # refuses missing pictures
    people = {}
    for a, b, same, fold in zip(pairs.image_a, pairs.image_b, pairs.same, pairs.folds, strict=True):
        first, second = Path(a).parent.name, Path(b).parent.name
        assert (first == second) == same
        people.setdefault(int(fold), set()).update((first, second))
    assert not set.intersection(*people.values())


@pytest.mark.parametrize("name", ["a,b", " lead", 'with "quotes"', "张伟"])
def test_pairs_of_people_with_any_name_can_be_read_back(name, tmp_path):
    names = [name, "b", "c", "d"]
    write_people(tmp_path / "pairs", names)
    text = _choose_pairs({n: ["0.png", "1.png", "2.png"] for n in names}, 1)
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    pairs = read_pairs(tmp_path / "pairs.csv", tmp_path / "pairs")
    assert {Path(image).parent.name for image in pairs.images()} == set(names)


@pytest.mark.parametrize(("people", "folds"), [(4, 2), (5, 2), (6, 3), (20, 10), (33, 10)])
def test_each_fold_has_both_kinds_and_at_most_thirty_each(people, folds):
    text = _choose_pairs({f"n{i:02}": [f"{k}.jpg" for k in range(12)] for i in range(people)}, 1)
    rows = list(csv.DictReader(text.splitlines()))
    kinds = [(int(row["fold"]), row["same"]) for row in rows]
    assert set(kinds) == {(fold + 1, same) for fold in range(folds) for same in "01"}
    assert max(kinds.count(kind) for kind in set(kinds)) <= 30
    assert len({(r["image_a"], r["image_b"]) for r in rows}) == len(rows)


def test_pictures_of_one_name_in_deeper_folders_are_all_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "_SECONDS", 1)
    data = write_people(tmp_path / "data", [f"p{i:02}/{k}" for i in range(12) for k in "xy"], 2)
    link_set(tmp_path / "out", data, "some.onnx", 1)
    for person in (tmp_path / "out" / "crawl").iterdir():
        assert len({link.resolve() for link in person.iterdir()}) == 4


def test_a_slide_that_cannot_be_read_is_replaced_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "_SECONDS", 1)
    write_people(tmp_path, ["a", "b"])
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    (tmp_path / "broken.png").write_bytes(b"")
    seen = slides.write_slides(
        tmp_path / "v.mp4",
        {
            "a": [tmp_path / "a" / "0.png", tmp_path / "a" / "1.png"],
            "none": [tmp_path / "broken.png"],
            "b": [tmp_path / "b" / "0.png"],
        },
    )
    assert [walk["person"] for walk in seen] == ["a", "b"]
    assert [row[0] for row in seen[0]["boxes"]] == list(range(25))


def test_too_few_people_are_counted(tmp_path):
    write_people(tmp_path, ["enough", "also"])
    write_people(tmp_path, ["few"], images=2)
    with pytest.raises(InputError, match=r"at least 12 people with 3 pictures.* has 2$"):
        find_people(tmp_path)


@pytest.mark.parametrize("inside", ["data_in_out", "out_in_data", "same"])
def test_data_and_out_in_one_another_are_refused_untouched(inside, tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    data, out = {
        "data_in_out": (inner, outer),
        "out_in_data": (outer, inner),
        "same": (outer, outer),
    }[inside]
    write_people(data, NAMES)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="must not lie in one another"):
        run_demo(out, data=data, detector="aligned")
    assert snapshot(tmp_path) == before


def test_an_unknown_detector_leaves_an_earlier_demo_alone(tmp_path):
    _open_folder(tmp_path / "out", SETTINGS)
    (tmp_path / "out" / "index.html").write_text("finished")
    with pytest.raises(InputError, match="no model 'nosuch'"):
        run_demo(tmp_path / "out", detector="nosuch", seed=2)
    assert (tmp_path / "out" / "index.html").exists()


def test_pictures_without_a_detector_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"--detector .*facerec models fetch yunet"):
        run_demo(tmp_path / "out", data=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("state", [None, '{"mine": 1}', "[]"])
def test_foreign_files_are_refused_and_kept(state, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine.txt").write_text("mine")
    if state is not None:
        (tmp_path / "demo.json").write_text(state)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="holds other files than a demo's"):
        _open_folder(tmp_path, SETTINGS)
    assert snapshot(tmp_path) == before


def test_an_unfinished_demo_goes_on_and_another_starts_afresh(tmp_path):
    _open_folder(tmp_path, SETTINGS)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "data.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    _open_folder(tmp_path, SETTINGS)
    assert (tmp_path / "stages" / "data.json").exists()
    _open_folder(tmp_path, {**SETTINGS, "seed": 2})
    assert not (tmp_path / "stages").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    state = json.loads((tmp_path / "demo.json").read_text())
    assert state == {**SETTINGS, "seed": 2, "finished": False}


def test_an_interrupted_emptying_is_not_taken_for_an_unfinished_demo(tmp_path, monkeypatch):
    _open_folder(tmp_path, SETTINGS)
    (tmp_path / "stages").mkdir()

    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(line.shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            _open_folder(tmp_path, {**SETTINGS, "seed": 2})
    _open_folder(tmp_path, SETTINGS)
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize(
    ("chips", "epochs", "expected"),
    [
        (1900, 0, []),
        (1900, 6, ["epochs=6"]),
        (128, 0, ["epochs=168", "optim.warmup_epochs=24"]),
        (18, 6, ["epochs=144", "optim.warmup_epochs=48", "batch_size=18"]),
    ],
)
def test_small_sets_get_a_recipe_that_fits(chips, epochs, expected, monkeypatch):
    monkeypatch.setattr("facerec.data.datasets.read_chip_set", lambda **_: range(chips))
    assert _fit_recipe(Path("clean.parquet"), epochs) == expected


def test_a_stage_is_done_once_its_time_is_written(tmp_path):
    stages = line.Line(tmp_path)

    def stop(path):
        write_json(path, {"half": True})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.do("create", "shown", stop)
    assert not stages.is_done("create")
    assert stages.do("create", "shown", lambda path: write_json(path, {"n": 1})) == {"n": 1}
    assert stages.is_done("create")
    assert stages.do("create", "shown", stop) == {"n": 1}
