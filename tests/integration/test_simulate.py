"""The whole command, tiny: what it leaves, the same bytes for any crew, and going on."""

import json
import shutil

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import eval.simulate as simulation
from facerec.cli.evaluate_simulate import add_simulate
from facerec.command import build_parser, run_command
from facerec.detection import AnnotationDetector
from facerec.video.frames import VideoReader

SMALL = [
    "--detector", "aligned", "--people", 8, "--sizes", 12, 24, "--seconds", 0.5, "--width", 160,
    "--height", 96, "--people-a-scene", 2, "--documents-only", 1, "--impostor-frames", 0.34,
    "--low-light", 0.5, "--seed", 7,
]  # fmt: skip


def call(*words):
    parser = build_parser("facerec-eval", "Evaluate.", "facerec-eval simulate")
    add_simulate(parser.add_subparsers(metavar="COMMAND", required=True))
    return run_command(parser, ["simulate", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def stills(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stills")
    for person in range(9):
        for number in range(1 if person < 3 else 3):
            path = folder / f"person {person}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            rng = np.random.default_rng([person, number])
            colours = rng.integers(20, 235, (8, 8, 3)).astype(np.uint8)
            cv2.imwrite(str(path), cv2.resize(colours, (112, 112)))
    (folder / "person 8" / "3.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def simulated(stills, tmp_path_factory):
    out = tmp_path_factory.mktemp("sim") / "out"
    assert call(stills, "--out", out, "--workers", 1, "--json", out.parent / "x.json", *SMALL) == 0
    return out


def collect(out):
    """Return every file that must not depend on how the work was done."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".lock" not in path.name and path.name != "simulation.json"
    }


def test_the_layout_and_the_truth_agree(simulated):
    record = json.loads((simulated / "simulation.json").read_text())
    assert record["complete"]
    assert record["people"] == {"enrolled": 6, "unknown": 2, "document only": 1}
    assert record["rejected"] == [{"still": "person 8/3.png", "reason": "empty file"}]
    people = {row["person"]: row for row in pq.read_table(simulated / "people.parquet").to_pylist()}
    for name, row in people.items():
        assert bool(row["document"]) == (row["role"] != "unknown")
        assert row["document_still"] not in row["video_stills"]
        assert not row["document"] or (simulated / row["document"]).is_file()
        assert row["role"] != "enrolled" or name >= "person 3"
    rows = pq.read_table(simulated / "tracks.parquet").to_pylist()
    videos = {path.name for path in (simulated / "videos").iterdir()}
    assert {row["video"] for row in rows} == videos == {v["video"] for v in record["videos"]}
    in_videos = {name for name, row in people.items() if row["role"] != "document only"}
    for size in (12, 24):
        assert {row["person"] for row in rows if row["size_px"] == size} == in_videos
    for row in rows:
        assert row["still"] in people[row["shown"]]["video_stills"]
        assert row["impostor"] == (row["shown"] != row["person"])
        assert people[row["shown"]]["half"] == people[row["person"]]["half"]
        assert 0 <= row["visible"] <= 1
        x1, y1, x2, y2 = row["box"]
        assert 0 <= x1 < x2 <= 160
        assert 0 <= y1 < y2 <= 96
    tracks = {}
    for row in rows:
        tracks.setdefault((row["video"], row["track"]), []).append(row)
    assert len(tracks) == record["tracks"] == 16
    for track in tracks.values():
        assert sum(row["impostor"] for row in track) == round(0.34 * len(track))
        assert len({row["person"] for row in track}) == 1


def test_every_file_says_that_it_is_simulated(simulated):
    for path in simulated.rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert b"simulated" in path.read_bytes(), path
    assert '"simulated": true' in (simulated.parent / "x.json").read_text()


def test_faces_lie_where_the_annotations_say(simulated):
    detector = AnnotationDetector(simulated / "annotations.parquet")
    rows = pq.read_table(simulated / "tracks.parquet").to_pylist()
    seen = [row for row in rows if row["visible"] >= 0.5]
    assert len(seen) > 20
    found = 0
    for path in sorted((simulated / "videos").iterdir()):
        with VideoReader(path) as reader:
            frames = list(reader)
        assert [frame.number for frame in frames] == list(range(6))
        found += sum(len(detector.detect(f.image, f"{path.name}#{f.number}")) for f in frames)
    assert found == len(seen)


def test_a_run_that_was_cut_off_goes_on_with_any_crew_to_the_same_bytes(
    stills, simulated, tmp_path, monkeypatch, capsys
):
    out, made = tmp_path / "out", []
    film_scene = simulation.film_scene

    def film(task):
        if len(made) == 3:
            (out / "videos" / ".half.x.mp4").write_bytes(b"left by a killed process")
            raise KeyboardInterrupt
        made.append(task.video)
        return film_scene(task)

    monkeypatch.setattr(simulation, "film_scene", film)
    assert call(stills, "--out", out, "--workers", 1, *SMALL) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert json.loads((out / "simulation.json").read_text())["complete"] is False
    monkeypatch.setattr(simulation, "film_scene", film_scene)
    monkeypatch.setattr(simulation, "choose_cast", None)  # the stills are not looked at again
    before = [path.stat().st_mtime_ns for path in made]
    assert call(stills, "--out", out, "--workers", 2, *SMALL) == 0
    assert [path.stat().st_mtime_ns for path in made] == before
    assert collect(out) == collect(simulated)


def test_a_still_that_changed_since_it_was_chosen_is_named(stills, tmp_path, capsys):
    folder = shutil.copytree(stills, tmp_path / "stills")
    out = tmp_path / "out"
    few = [*SMALL, "--sizes", 12]
    assert call(folder, "--out", out, "--workers", 1, *few) == 0
    video = min((out / "videos").iterdir())
    row = next(
        r for r in pq.read_table(out / "tracks.parquet").to_pylist() if r["video"] == video.name
    )
    video.unlink()
    (folder / row["still"]).write_bytes((folder / "person 0" / "0.png").read_bytes())
    assert call(folder, "--out", out, "--workers", 1, *few) == 2
    said = capsys.readouterr().err
    assert "has changed since it was chosen" in said
    assert row["still"] in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "8"], "another simulation (seed was 7); give a new folder"),
        (["--sizes", "60"], "need a picture of at least 180 each way, got 160 x 96"),
        (["--people", "80"], "60 enrolled people need two usable stills"),
        (["--workers", "0"], "workers must lie in [1, 1024]"),
        (["--leave-out", "nowhere.txt"], "must be a text file with a name a line"),
    ],
)
def test_bad_input_is_one_sentence(stills, simulated, tmp_path, capsys, words, message):
    out = simulated if "--seed" in words else tmp_path / "new"
    assert call(stills, "--out", out, *SMALL, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said


def test_a_folder_of_other_files_is_refused(stills, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert call(stills, "--out", tmp_path, *SMALL) == 2
    assert "must be a new or empty folder, but holds mine.txt" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_disk_too_small_is_said_before_the_work(stills, tmp_path, monkeypatch, capsys):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(simulation.shutil, "disk_usage", lambda path: usage)
    assert call(stills, "--out", tmp_path / "out", *SMALL) == 1
    assert "MB are needed, but 0 MB are free" in capsys.readouterr().err
    assert not (tmp_path / "out" / "videos").exists()
