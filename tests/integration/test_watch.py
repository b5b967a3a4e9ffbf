"""Create, enrol, search, watch, audit: the commands on people who are patterns of colour."""

import csv
import json
import sqlite3
from fractions import Fraction

import cv2
import numpy as np
import onnx
import pytest
from pattern_people import SIDE, call, chip, read, write_picture, write_recogniser

from facerec.data.align import ARCFACE_TEMPLATE
from facerec.detection import AnnotationDetector
from facerec.embedder import Embedder
from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import read_key
from facerec.models.weights import ModelInfo
from facerec.video.sinks import JsonLines
from facerec.video.watch import WatchSettings, watch_video

av = pytest.importorskip("av")

FRAMES, FPS = 100, 25


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    return write_recogniser(tmp_path_factory.mktemp("model") / "patterns.onnx")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A video: 1 and 2 walk and cross, 3 is there for the first second only; and its table."""
    folder = tmp_path_factory.mktemp("scene")
    video, table = folder / "door.mp4", folder / "faces.csv"
    rows = []
    with av.open(str(video), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for number in range(FRAMES):
            image = np.full((360, 640, 3), 90, np.uint8)
            places = {1: (20 + 4 * number, 40), 2: (480 - 4 * number, 60), 3: (300, 230)}
            for person, (x, y) in places.items():
                if person == 3 and number >= FPS:
                    continue
                image[y : y + SIDE, x : x + SIDE] = chip(person)
                points = np.add(ARCFACE_TEMPLATE, (x, y)).ravel().tolist()
                hidden = person == 1 and abs(places[1][0] - places[2][0]) < SIDE
                if not hidden:
                    rows.append([f"door.mp4#{number}", x, y, x + SIDE, y + SIDE, *points, 0.95])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    names = [f"l{axis}{i}" for i in range(1, 6) for axis in "xy"]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "x1", "y1", "x2", "y2", *names, "score"])
        writer.writerows(rows)
    return video, table


@pytest.fixture
def people(tmp_path):
    """Documents of persons 1 and 2, one unreadable; and a stranger's picture."""
    folder = tmp_path / "people"
    for number, name in ((1, "ann"), (2, "bob")):
        for copy in range(2):
            write_picture(folder / name / f"{copy}.png", number, 6 * copy)
    (folder / "bob" / "broken.png").write_bytes(b"")
    write_picture(tmp_path / "stranger.png", 9)
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((50, 100, 3), np.uint8))
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def gallery(tmp_path, recogniser, scene):
    folder = tmp_path / "list"
    spec = f"annotations:{scene[1]}"
    assert call("create", folder, "--model", recogniser, "--detector", spec) == 0
    return folder


def enrol(gallery, people, *more):
    return call("enrol", gallery, people, "--detector", "aligned", *more)


def test_enrolment_says_what_became_of_every_picture(gallery, people, tmp_path, capsys):
    report = tmp_path / "enrol.json"
    assert enrol(gallery, people, "--json", report) == 0
    text = capsys.readouterr().out
    assert "bob/broken.png: refused: empty file" in text
    assert "4 enrolled, 0 already enrolled, 1 refused; 2 people" in text
    result = read(report)
    assert len(result["pictures"]) == 5 and result["provenance"]["hashes"]["model"]
    assert enrol(gallery, people) == 0
    assert "0 enrolled, 4 already enrolled, 1 refused" in capsys.readouterr().out
    assert enrol(gallery, people / "ann" / "0.png", "--person", "eve") == 2
    assert "already enrolled for 'ann'" in capsys.readouterr().out


def test_loose_pictures_are_named_after_their_file(gallery, people, tmp_path, capsys):
    loose = tmp_path / "loose"
    loose.mkdir()
    (people / "ann" / "0.png").rename(loose / "ann.png")
    (people / "bob" / "0.png").rename(loose / "bob.png")
    assert enrol(gallery, loose) == 0
    capsys.readouterr()
    assert call("list", gallery, "--json", tmp_path / "list.json") == 0
    assert [p["name"] for p in read(tmp_path / "list.json")["people"]] == ["ann", "bob"]


def test_search_knows_known_people_and_says_unknown(gallery, people, tmp_path, capsys):
    enrol(gallery, people)
    capsys.readouterr()
    out = tmp_path / "search.json"
    pictures = (people / "ann" / "0.png", tmp_path / "stranger.png")
    more = ("--top", 2, "--threshold", 0.7, "--json", out)
    assert call("search", gallery, *pictures, "--detector", "aligned", *more) == 0
    known, unknown = read(out)["results"]
    assert known["person"] == "ann" and known["score"] == pytest.approx(1, abs=1e-3)
    assert unknown["person"] == "unknown" and unknown["known"] is False
    assert len(unknown["candidates"]) == 2
    assert not any(c["accepted"] for c in unknown["candidates"])
    assert "unknown" in capsys.readouterr().out


def test_a_picture_without_a_face_is_2_when_it_is_the_only_one(gallery, people, tmp_path, capsys):
    enrol(gallery, people)
    no_face = tmp_path / "stranger.png"  # the gallery's own detector has no entry for it
    assert call("search", gallery, no_face) == 2
    assert "stranger.png: no face" in capsys.readouterr().out
    pictures = (tmp_path / "wide.png", people / "ann" / "0.png")
    assert call("search", gallery, *pictures, "--detector", "aligned") == 0
    assert "wide.png: not a square chip" in capsys.readouterr().out


def test_watch_searches_each_track_once(gallery, people, scene, tmp_path):
    enrol(gallery, people)
    out, whole = tmp_path / "tracks.jsonl", tmp_path / "watch.json"
    with Gallery.open(gallery, key=read_key(gallery.with_suffix(".key"))) as opened:
        before = opened.audit_head()[0]
    more = ("--threshold", 0.8, "--purpose", "case 7", "--json", whole)
    assert call("watch", gallery, scene[0], "--out", out, *more) == 0
    tracks = {row["person"]: row for row in lines(out)}
    assert set(tracks) == {"ann", "bob", "unknown"} and len(lines(out)) == 3
    assert tracks["bob"]["frames"] == FRAMES
    assert (tracks["ann"]["first_frame"], tracks["ann"]["last_frame"]) == (0, FRAMES - 1)
    assert 0 < FRAMES - tracks["ann"]["frames"] < 60  # hidden behind bob, and taken up again
    assert (tracks["unknown"]["last_frame"], tracks["unknown"]["last_s"]) == (24, 0.96)
    assert all(row["score"] > 0.95 for row in (tracks["ann"], tracks["bob"]))
    assert read(whole)["frames"] == FRAMES and read(whole)["known"] == 2
    with Gallery.open(gallery, key=read_key(gallery.with_suffix(".key"))) as opened:
        entries = opened.list_audit()[before:]
        assert [e.action for e in entries] == ["search"] * 3
        assert {e.purpose for e in entries} == {"case 7"}
        assert sorted(e.details["source"] for e in entries)[0] == "door.mp4 track 1"
        assert opened.verify_audit() == []


def test_watch_every_third_frame_gives_the_same_people(gallery, people, scene, tmp_path):
    enrol(gallery, people)
    out = tmp_path / "tracks.jsonl"
    assert call("watch", gallery, scene[0], "--out", out, "--every", 3, "--threshold", 0.8) == 0
    assert sorted(row["person"] for row in lines(out)) == ["ann", "bob", "unknown"]
    assert max(row["frames"] for row in lines(out)) == 34


def test_an_interruption_keeps_the_tracks_that_had_ended(
    gallery, people, scene, tmp_path, monkeypatch, capsys
):
    enrol(gallery, people)
    detect = AnnotationDetector.detect

    def interrupted(self, image, key=""):
        if key == "door.mp4#95":  # 3's track ended at 0.96 s + 2 s of patience = frame 75
            raise KeyboardInterrupt
        return detect(self, image, key)

    monkeypatch.setattr(AnnotationDetector, "detect", interrupted)
    out = tmp_path / "tracks.jsonl"
    assert call("watch", gallery, scene[0], "--out", out) == 130
    assert [row["last_frame"] for row in lines(out)] == [24]
    assert "begins the video again" in capsys.readouterr().err


def test_a_wrong_video_or_question_leaves_earlier_results_alone(gallery, scene, tmp_path, capsys):
    out, text = tmp_path / "tracks.jsonl", tmp_path / "text.mp4"
    out.write_text("earlier\n")
    text.write_text("no video")
    for words in ((text,), (tmp_path / "none.mp4",), (tmp_path,), (scene[0], "--top", 0)):
        assert call("watch", gallery, *words, "--out", out) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert out.read_text() == "earlier\n"


def test_watch_does_not_look_twice_at_empty_frames(gallery, scene, tmp_path, monkeypatch):
    from facerec.gallery import tools

    asked, build = [], tools.build_detector

    def spy(spec, **options):
        asked.append(options)
        return build(spec, **options)

    monkeypatch.setattr(tools, "build_detector", spy)
    assert call("watch", gallery, scene[0], "--out", tmp_path / "t.jsonl", "--every", 50) == 0
    assert asked == [{"second_look": False}]


def test_a_moved_model_or_detector_is_named_with_its_remedy(recogniser, scene, tmp_path, capsys):
    model, table = tmp_path / "m.onnx", tmp_path / "faces.csv"
    model.write_bytes(recogniser.read_bytes())
    table.write_bytes(scene[1].read_bytes())
    where = tmp_path / "moved"
    assert call("create", where, "--model", model, "--detector", f"annotations:{table}") == 0
    for path in (model, table):
        path.rename(path.with_suffix(".away"))
        assert call("watch", where, scene[0]) == 2
        assert f"{path} is not there any more; say where" in capsys.readouterr().err
        path.with_suffix(".away").rename(path)


def test_a_bad_name_refuses_its_pictures_only(gallery, people, tmp_path, capsys):
    (people / ("x" * 201)).mkdir()
    cv2.imwrite(str(people / ("x" * 201) / "0.png"), chip(9))
    assert enrol(gallery, people) == 0
    assert "refused: a person's name must be" in capsys.readouterr().out
    assert enrol(gallery, people / "ann", "--person", "a\nb") == 2
    assert "a person's name must be" in capsys.readouterr().err


def test_another_model_is_refused(gallery, people, recogniser, tmp_path, capsys):
    other = tmp_path / "other.onnx"
    model = onnx.load(str(recogniser))
    model.graph.name = "others"
    onnx.save(model, str(other))
    assert enrol(gallery, people, "--model", other) == 2
    message = capsys.readouterr().err
    assert "into another gallery or collection" in message and message.count("\n") == 1


def test_audit_finds_a_change(gallery, people, capsys):
    enrol(gallery, people)
    capsys.readouterr()
    assert call("audit", gallery) == 0
    shown = capsys.readouterr().out
    assert "whole; head " in shown and "enrol\tann" in shown
    head = shown.split("head ")[1].strip()
    assert call("audit", gallery, "--head", head) == 0
    connection = sqlite3.connect(gallery / "gallery.sqlite", isolation_level=None)
    connection.execute("DROP TRIGGER audit_is_not_updated")
    connection.execute("UPDATE audit SET entry = replace(entry, 'enrol', 'erase') WHERE id = 2")
    connection.close()
    capsys.readouterr()
    assert call("audit", gallery) == 1
    assert "FAULT: entry 2 was changed" in capsys.readouterr().out


def test_wrong_input_is_one_sentence_and_2(gallery, scene, tmp_path, capsys):
    for words in (
        ("watch", gallery, tmp_path / "none.mp4"),
        ("watch", gallery, scene[1]),  # a table is no video
        ("search", tmp_path / "nowhere", tmp_path),
        ("enrol", gallery, tmp_path / "nowhere"),
        ("watch", gallery, scene[0], "--every", 0),
    ):
        assert call(*words) == 2
        message = capsys.readouterr().err
        said = [line for line in message.splitlines() if line.startswith("facerec-gallery: ")]
        assert len(said) == 1 and message.endswith(said[0] + "\n")  # behind the progress, if any
        assert "Traceback" not in message


def test_threads_and_blocks_do_not_change_the_result(recogniser, scene, tmp_path):
    video, table = scene
    embedder = Embedder(recogniser)
    found = []
    for threads, block in ((1, 1), (3, 7), (2, 200)):
        info = ModelInfo(name="p", sha256=embedder.model_hash, embedding_dim=48)
        path = tmp_path / f"{threads}.jsonl"
        settings = WatchSettings(threads=threads, block=block)
        detector = AnnotationDetector(table)
        with Gallery.create(tmp_path / str(threads), info) as gallery, JsonLines(path) as sink:
            for counts in watch_video(gallery, video, detector, embedder, sink, settings):
                last = counts
        assert (last.frames, last.tracks, last.known) == (FRAMES, 3, 0)
        found.append(path.read_text(encoding="utf-8"))
    assert found[0] == found[1] == found[2]


@pytest.mark.real
def test_real_people_in_a_street_keep_their_tracks(real_data):
    from eval.bench.tracks import measure_tracks
    from facerec.detection import build_detector
    from facerec.video.watch import iter_tracks, summarise

    weights = real_data / "weights"
    tracks = [
        track
        for track in iter_tracks(
            real_data / "video" / "six_people_1080p.mp4",
            build_detector(str(weights / "yunet.onnx")),
            Embedder(weights / "MobileFaceNet.onnx"),
            WatchSettings(every=3),
        )
        if track is not None
    ]
    for track in tracks:
        summarise(track)
    found = measure_tracks(tracks, 90)
    assert found["full_tracks"] == 0 and found["long_tracks"] >= 5
    assert found["switches"] == 0 and found["strays"] <= 3
