"""Synthetic crawls, documents, pairs and videos: exact noise, matching tables, the truth apart."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from facerec.checks import InputError
from facerec.data.align import align_face
from facerec.data.images import UnreadableImageError, read_image
from facerec.data.scene_drawing import PlacedFace, draw_scene
from facerec.data.scenes import (
    CrawlNoise,
    sample_people,
    sample_strangers,
    write_crawl,
    write_documents,
    write_pairs,
    write_video,
)
from facerec.data.synthetic import Nuisance, render_chip, sample_identity
from facerec.data.video_writer import open_video

NOISE = CrawlNoise(
    flips=0.1, outliers=0.1, groups=0.1, duplicates=0.1, no_face=0.05, unreadable=0.075
)


def rows(path):
    return pq.read_table(path).to_pylist()


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def marks(row):
    return np.array([[row[f"lx{i}"], row[f"ly{i}"]] for i in range(1, 6)])


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    root = tmp_path_factory.mktemp("crawl")
    people = sample_people(3, 4)
    return write_crawl(root / "set", root / "truth.parquet", people, 10, 3, NOISE), people


def test_crawl_has_a_folder_a_person_and_exactly_the_noise_asked_for(crawl):
    written, people = crawl
    truth = rows(written.truth)
    kinds = Counter({row["key"]: row["kind"] for row in truth}.values())
    assert kinds == {
        "clean": 19,
        "flip": 4,
        "outlier": 4,
        "group": 4,
        "duplicate": 4,
        "no_face": 2,
        "unreadable": 3,
    }
    assert written.pictures == 40
    folders = Counter(path.parent.name for path in written.folder.glob("*/*.jpg"))
    assert folders == {person.name: 10 for person in people}


def test_truth_says_who_is_shown(crawl):
    written, people = crawl
    names = {person.name for person in people}
    for row in rows(written.truth):
        assert row["key"].startswith(row["folder"] + "/")
        if row["kind"] == "no_face":
            assert row["person"] == "" and row["face"] == -1
        elif row["kind"] == "outlier" or row["face"] > 0:
            assert row["person"] not in names
        elif row["kind"] == "flip":
            assert row["person"] in names - {row["folder"]}
        else:
            assert row["person"] == row["folder"]
        assert -40 < row["yaw"] < 40 and row["jpeg"] >= 40


def test_annotations_hold_every_face_of_every_readable_picture_and_no_names(crawl):
    written, _ = crawl
    annotated = rows(written.annotations)
    expected = [
        row["key"]
        for row in rows(written.truth)
        if row["face"] >= 0 and row["kind"] != "unreadable"
    ]
    assert sorted(row["key"] for row in annotated) == sorted(expected)
    assert len(annotated) == written.faces
    assert "person" not in annotated[0] and "kind" not in annotated[0]
    for row in annotated:
        height, width = read_image(written.folder / row["key"]).shape[:2]
        assert 0 <= row["x1"] < row["x2"] <= width and 0 <= row["y1"] < row["y2"] <= height
        eyes = marks(row)[:2]
        assert (eyes > (row["x1"], row["y1"])).all() and (eyes < (row["x2"], row["y2"])).all()


def test_groups_have_bystanders_and_the_person_is_the_largest(crawl):
    written, _ = crawl
    truth = rows(written.truth)
    groups = {row["key"] for row in truth if row["kind"] == "group"}
    for key in groups:
        faces = [row for row in truth if row["key"] == key]
        assert len(faces) >= 2
        assert max(faces, key=lambda row: row["eye_distance"])["face"] == 0


def test_unreadable_files_are_refused_by_the_reader_and_all_others_open(crawl):
    written, _ = crawl
    kinds = {row["key"]: row["kind"] for row in rows(written.truth)}
    for key, kind in kinds.items():
        if kind == "unreadable":
            with pytest.raises(UnreadableImageError):
                read_image(written.folder / key)
        else:
            assert read_image(written.folder / key).ndim == 3


def test_alignment_by_the_annotations_matches_the_chip_of_the_same_face(crawl):
    written, people = crawl
    truth = {row["key"]: row for row in rows(written.truth) if row["kind"] == "clean"}
    fields = Nuisance.__dataclass_fields__
    inner = (slice(40, 95), slice(35, 78))
    gaps = []
    for row in rows(written.annotations):
        fact = truth.get(row["key"])
        if fact is None or len(gaps) == 8:
            continue
        chip = align_face(read_image(written.folder / row["key"]), marks(row))
        person = next(p for p in people if p.name == fact["person"])
        look = Nuisance(**{**{name: fact[name] for name in fields}, "shift": 0.0})
        own = render_chip(person, look)
        gaps.append(np.abs(chip[inner].astype(float).mean(2) - own[inner].mean(2)).mean())
    assert len(gaps) == 8 and np.mean(gaps) < 10


def test_a_duplicate_shows_the_same_moment_as_its_original(crawl):
    written, _ = crawl
    truth = {row["key"]: row for row in rows(written.truth)}
    copies = [row for row in truth.values() if row["kind"] == "duplicate"]
    for row in copies:
        source = truth[row["copy_of"]]
        assert all(row[name] == source[name] for name in ("person", "yaw", "smile", "seed"))
        data, original = ((written.folder / r["key"]).read_bytes() for r in (row, source))
        assert data != original
    assert copies


def test_same_arguments_write_the_same_bytes_whatever_the_threads(tmp_path):
    people = sample_people(5, 2)
    for name, threads in (("a", 1), ("b", 3)):
        write_crawl(tmp_path / name, tmp_path / f"{name}.parquet", people, 4, 5, threads=threads)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")
    write_crawl(tmp_path / "c", tmp_path / "c.parquet", people, 4, 6)
    assert files(tmp_path / "c") != files(tmp_path / "a")


def test_long_tail_has_large_and_small_folders(tmp_path):
    people = sample_people(1, 6)
    written = write_crawl(
        tmp_path / "set", tmp_path / "truth.parquet", people, 5, 1, CrawlNoise(), long_tail=True
    )
    sizes = sorted(len(list((written.folder / p.name).iterdir())) for p in people)
    assert sizes[0] >= 2 and sizes[-1] >= 2 * sizes[0]
    assert 24 <= sum(sizes) <= 36


def test_foreign_files_and_a_truth_inside_the_set_are_refused(tmp_path):
    people = sample_people(1, 1)
    with pytest.raises(InputError, match="truth table must lie outside"):
        write_crawl(tmp_path / "set", tmp_path / "set" / "truth.parquet", people, 1, 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="must be empty or hold an earlier run"):
        write_crawl(tmp_path / "set", tmp_path / "truth.parquet", people, 1, 1)
    assert (tmp_path / "set" / "holiday.jpg").read_bytes() == b"mine"
    with pytest.raises(InputError, match="needs people and images"):
        write_crawl(tmp_path / "other", tmp_path / "truth.parquet", [], 1, 1)
    with pytest.raises(InputError, match="sum to at most 1"):
        CrawlNoise(flips=0.6, outliers=0.6)


@pytest.mark.skipif(os.name != "posix", reason="kills a process by signal")
def test_a_killed_writer_started_again_gives_the_same_set(tmp_path):
    code = (
        "from pathlib import Path; from facerec.data.scenes import *;"
        f"root = Path({str(tmp_path)!r});"
        "write_crawl(root / 'set', root / 'truth.parquet', sample_people(2, 2), 50, 2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    folder = tmp_path / "set"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if folder.is_dir() and len(list(folder.glob("*/*.jpg"))) > 3:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "truth.parquet").exists()  # what stands for a finished set is last
    left = {path.name for path in folder.rglob("*.jpg")}
    # A smaller set of the same people would have other names among them: it is refused.
    with pytest.raises(InputError, match="earlier run"):
        write_documents(folder, tmp_path / "truth.parquet", sample_people(2, 2), 2)
    half_done = folder / sample_identity(2, 0).name / ".0001.k1ll3d.jpg"
    half_done.write_bytes(b"half")
    people = sample_people(2, 2)
    again = write_crawl(folder, tmp_path / "truth.parquet", people, 50, 2)
    assert again.pictures == 100 and not half_done.exists()
    assert left - {half_done.name} <= {path.name for path in folder.rglob("*.jpg")} | {
        name for name in left if name.startswith(".")
    }
    assert len(list(folder.rglob("*.jpg"))) == 100


def test_documents_are_one_frontal_picture_a_person(tmp_path):
    people = sample_people(1, 3)
    written = write_documents(tmp_path / "docs", tmp_path / "truth.parquet", people, 1)
    keys = [row["key"] for row in rows(written.annotations)]
    assert keys == [f"{person.name}/document.jpg" for person in people]
    for row in rows(written.annotations):
        image = read_image(written.folder / row["key"])
        assert image.shape == (360, 280, 3)
        left, right = marks(row)[:2]
        assert abs(left[1] - right[1]) < 8 and 55 < right[0] - left[0] < 85
        assert image[:20, :20].mean() > 150  # a light wall
    assert all(abs(row["yaw"]) < 10 for row in rows(written.truth))


def test_pairs_are_balanced_subject_disjoint_and_on_disk(tmp_path):
    people = sample_people(1, 8, first=500)
    pairs = tmp_path / "pairs.csv"
    written = write_pairs(
        tmp_path / "images",
        tmp_path / "truth.parquet",
        pairs,
        people,
        3,
        seed=1,
        folds=4,
        pairs_per_fold=8,
    )
    with pairs.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["fold", "same", "image_a", "image_b"]
    assert Counter((r["fold"], r["same"]) for r in table) == {
        (str(fold), same): 4 for fold in range(1, 5) for same in "01"
    }
    assert len({(r["image_a"], r["image_b"]) for r in table}) == len(table)
    who = {}
    for row in table:
        names = [row[name].split("/")[0] for name in ("image_a", "image_b")]
        assert (names[0] == names[1]) == (row["same"] == "1")
        for name in names:
            assert who.setdefault(name, row["fold"]) == row["fold"]
        assert (written.folder / row["image_a"]).is_file()
    with pytest.raises(InputError, match="ask for fewer pairs"):
        write_pairs(
            tmp_path / "i2", tmp_path / "t2", pairs, people, 2, seed=1, folds=4, pairs_per_fold=50
        )
    with pytest.raises(InputError, match="at least 20 people"):
        write_pairs(tmp_path / "i2", tmp_path / "t2", pairs, people, 2, seed=1)


def write_short_video(folder, **changes):
    people = sample_people(1, 2) + sample_strangers(1, 1)
    options = {"seconds": 1.6, "width": 320, "height": 180, "face_px": (30.0, 44.0), **changes}
    frames = write_video(
        folder / "cam.mp4", folder / "faces.parquet", folder / "truth.parquet", people, 1, **options
    )
    return frames, people


def test_video_decodes_to_the_frames_and_faces_it_states(tmp_path):
    av = pytest.importorskip("av")
    frames, people = write_short_video(tmp_path)
    with av.open(str(tmp_path / "cam.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 25
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == frames == 40
    assert pictures[0].shape == (180, 320, 3)
    annotated, truth = rows(tmp_path / "faces.parquet"), rows(tmp_path / "truth.parquet")
    assert {row["person"] for row in truth} == {person.name for person in people}
    assert len(annotated) == sum(row["annotated"] for row in truth) > 20
    numbers = {int(row["key"].removeprefix("cam.mp4#")) for row in annotated}
    assert min(numbers) >= 0 and max(numbers) < frames
    for row in truth:
        assert row["key"] == f"cam.mp4#{row['frame']}"
        assert row["annotated"] == (row["visible"] >= 0.5)


def test_a_track_is_one_person_moving_smoothly(tmp_path):
    pytest.importorskip("av")
    write_short_video(tmp_path)
    truth = rows(tmp_path / "truth.parquet")
    for track in (1, 2, 3):
        own = [row for row in truth if row["track"] == track]
        assert len({row["person"] for row in own}) == 1
        numbers = [row["frame"] for row in own]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))  # enters once, leaves once
        assert np.abs(np.diff([row["yaw"] for row in own])).max() < 5
        assert np.abs(np.diff([row["eye_distance"] for row in own])).max() < 1


def test_the_same_video_twice_is_the_same_bytes(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        write_short_video(tmp_path / name, seconds=0.4)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_nearer_person_hides_the_one_behind():
    wall = np.full((120, 160, 3), 90, np.uint8)
    far = PlacedFace(sample_identity(1, 0), Nuisance(), (80, 50), 14)
    near = PlacedFace(sample_identity(1, 1), Nuisance(), (82, 50), 24)
    scene = draw_scene(wall, [near, far])
    assert scene.visible[0] == 1 and scene.visible[1] < 0.2
    apart = draw_scene(wall, [far, PlacedFace(near.person, Nuisance(), (300, 50), 24)])
    assert apart.visible[0] == 1 and apart.visible[1] == 0
    assert (wall == 90).all()


def test_bad_video_sizes_are_refused_and_leave_nothing(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(InputError, match="must be even"), open_video(tmp_path / "v.mp4", 33, 20):
        pass
    frame = np.zeros((20, 30, 3), np.uint8)
    with (
        pytest.raises(InputError, match="frames must be"),
        open_video(tmp_path / "v.mp4", 32, 20) as append,
    ):
        append(frame)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="needs people and time"):
        write_video(tmp_path / "v.mp4", tmp_path / "a", tmp_path / "t", [], 1)


@pytest.mark.real
def test_a_real_detector_finds_synthetic_faces_near_the_stated_landmarks(real_data, crawl):
    import cv2

    written, _ = crawl
    detector = cv2.FaceDetectorYN.create(
        str(real_data / "weights" / "yunet.onnx"), "", (320, 320), 0.6
    )
    found, errors = 0, []
    clean = {row["key"] for row in rows(written.truth) if row["kind"] in ("clean", "flip")}
    annotated = [row for row in rows(written.annotations) if row["key"] in clean]
    for row in annotated:
        image = read_image(written.folder / row["key"])
        detector.setInputSize((image.shape[1], image.shape[0]))
        _, faces = detector.detect(np.ascontiguousarray(image[..., ::-1]))
        if faces is None:
            continue
        found += 1
        truth = marks(row)
        seen = faces[0][4:14].reshape(5, 2)
        errors.append(np.linalg.norm(seen - truth, axis=1).mean() / np.ptp(truth[:2, 0]))
    assert found >= 0.9 * len(annotated)
    assert np.median(errors) < 0.15
