"""From files to a report: drawn chips, a small video and a network of one pooling layer."""

import argparse
import json

import cv2
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from eval.doc2surv_embed import SetEmbedder
from eval.doc2surv_frames import EmbedSettings
from eval.doc2surv_layout import DocumentFile, TrackFiles, read_folders
from eval.doc2surv_run import LAYOUTS
from eval.evaluation_files import read_evaluation
from facerec.checks import InputError
from facerec.cli.evaluate_doc2surv import add_doc2surv
from facerec.command import build_parser, run_command
from facerec.data.align import ARCFACE_TEMPLATE
from facerec.data.video_writer import open_video
from facerec.detection import AlignedDetector
from facerec.embedder import Embedder
from facerec.structures import Faces

ENROLLED, STRANGERS = 20, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Mean colours of 14 x 14 squares, 192-d."""
    path = tmp_path_factory.mktemp("model") / "pool.onnx"
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["p"], ["y"], axis=1),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 192])
    graph = helper.make_graph(nodes, "pool", [given], [made])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def draw_chip(rng, base, noise=25):
    noisy = np.clip(base + rng.normal(0, noise, base.shape), 0, 255).astype(np.uint8)
    return cv2.resize(noisy, (112, 112), interpolation=cv2.INTER_NEAREST)


def save(path, chip):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), chip)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Folders of documents and of tracks of three frames."""
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for person in range(ENROLLED + STRANGERS):
        base = rng.integers(0, 256, (8, 8, 3))
        if person < ENROLLED:
            save(root / f"documents/p{person:02d}/0.png", draw_chip(rng, base))
        for track in range(2):
            for frame in range(3):
                path = root / f"tracks/p{person:02d}/t{track}/{frame}.png"
                save(path, draw_chip(rng, base))
    return root


def run(people, model, *more):
    parser = build_parser("facerec-eval", "Evaluate.", "facerec-eval doc2surv")
    commands = parser.add_subparsers(required=True)
    add_doc2surv(commands)
    words = ["doc2surv", "--root", str(people), "--model", str(model), "--detector", "aligned",
             "--runtime", "onnxruntime", "--resamples", "100", *map(str, more)]  # fmt: skip
    return run_command(parser, words)


def test_the_command_writes_everything_and_embeds_nothing_twice(people, model, tmp_path, capsys):
    files = {name: tmp_path / f"out.{name}" for name in ("json", "html", "csv")}
    more = ["--cache", tmp_path / "kept", "--sizes", 100]
    assert run(people, model, *more, *(w for n, f in files.items() for w in (f"--{n}", f))) == 0
    shown = capsys.readouterr().out
    assert "test: enrolled people (N): 10" in shown
    assert "FNIR, N = 100: not measured: only 0 distractors" in shown
    assert "simulated" not in shown
    evaluation = read_evaluation(files["json"])
    assert evaluation.task == "doc2surv" and not evaluation.simulated
    assert evaluation.provenance["config"]["layout"] == "folders"
    assert "Documents against surveillance" in files["html"].read_text(encoding="utf-8")
    assert files["csv"].read_text(encoding="utf-8").startswith("part,name")
    kept = sorted((tmp_path / "kept/tracks").iterdir())
    assert len(kept) == 2 * (ENROLLED + STRANGERS)
    again = tmp_path / "again.json"
    assert run(people, model, *more, "--json", again) == 0
    first, second = (json.loads(f.read_text(encoding="utf-8")) for f in (files["json"], again))
    assert first["evaluation"]["headline"] == second["evaluation"]["headline"]
    kept[0].write_bytes(b"torn")
    assert run(people, model, *more) == 2
    assert "of the cache is damaged" in capsys.readouterr().err


def test_a_copied_picture_is_found_by_its_file(people, model, tmp_path, capsys):
    stolen = people / "tracks/p03/t9/0.png"
    save(stolen, cv2.imread(str(people / "documents/p03/0.png")))
    try:
        assert run(people, model) == 2
        assert "'p03/0.png' and 'p03/t9' are the same file" in capsys.readouterr().err
        assert run(people, model, "--allow-overlap") == 0
        assert "pictures on both sides, allowed: 1" in capsys.readouterr().out
    finally:
        stolen.unlink()
        stolen.parent.rmdir()


def test_wrong_usage_is_one_sentence(people, model, capsys):
    for more, message in (
        (["--fmr", "2"], "target in fmrs"),
        (["--tracks", "nowhere"], "nowhere"),
        (["--faces", "table"], "comes without landmarks"),
        (["--distractors", "none.npy"], "does not exist"),
    ):
        assert run(people, model, *more) == 2
        shown = capsys.readouterr().err
        assert message in shown and "Traceback" not in shown


def place_marks(shift):
    return ARCFACE_TEMPLATE + np.array([shift, 0], np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two chips side by side in each of five frames, and their tracks."""
    folder = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(1)
    left, right = (draw_chip(rng, rng.integers(0, 256, (8, 8, 3)), 0) for _ in range(2))
    with open_video(folder / "v.mp4", 224, 112, quality=4) as append:
        for _ in range(5):
            append(np.ascontiguousarray(np.concatenate([left, right], axis=1)))
    boxes = np.array([[0, 0, 112, 112]], np.float32)
    tracks = [
        TrackFiles(
            f"v.mp4#{name}",
            name,
            "v.mp4",
            clip=folder / "v.mp4",
            frames=np.array(frames),
            boxes=np.repeat(boxes + np.array([shift, 0, shift, 0]), len(frames), axis=0),
            landmarks=np.repeat(place_marks(shift)[None], len(frames), axis=0),
        )
        for name, shift, frames in (("a", 0, [0, 2, 3]), ("b", 112, [1, 2, 9]))
    ]
    return tracks, (left, right)


class Halves:
    """Finds a chip in the left half; in the right half only where told to."""

    name = "halves"

    def __init__(self, both):
        self.both = both

    def detect(self, image, key=""):
        shifts = [0, 112] if self.both else [0]
        boxes = np.array([[s, 0, s + 112, 112] for s in shifts], np.float32)
        marks = np.stack([place_marks(s) for s in shifts])
        return Faces(boxes, marks, np.ones(len(shifts)))


def test_tracks_of_a_video_at_the_landmarks_of_the_table(clip, model):
    tracks, chips = clip
    embedder = Embedder(model, "onnxruntime")
    made = SetEmbedder(embedder, AlignedDetector(), EmbedSettings("table")).embed_tracks(tracks)
    wanted = embedder.embed(np.stack(chips)).vectors
    assert (made.vectors * wanted).sum(axis=1).min() > 0.99
    assert made.sizes_px.tolist() == [112, 112] and (made.qualities > 0).all()
    assert made.hashes == (frozenset(), frozenset())


def test_the_detector_decides_what_is_acquired(clip, model, tmp_path):
    tracks, chips = clip
    embedder = Embedder(model, "onnxruntime")
    for both, reason in ((True, ""), (False, "no face in 2 frames")):
        job = SetEmbedder(embedder, Halves(both), EmbedSettings(), tmp_path / str(both))
        found = job.embed_tracks(tracks)
        assert found.reasons.tolist() == ["", reason]
        again = job.embed_tracks(tracks)
        np.testing.assert_array_equal(found.vectors, again.vectors)
        np.testing.assert_array_equal(found.qualities, again.qualities)
        assert again.reasons.tolist() == ["", reason]
    whole = TrackFiles("v", "a", "v", clip=tracks[0].clip)
    every = SetEmbedder(embedder, Halves(False), EmbedSettings(every=2)).embed_tracks([whole])
    assert (every.vectors[0] @ embedder.embed(chips[0][None]).vectors[0]) > 0.99


def test_pictures_that_cannot_be_read_are_failures_with_their_reason(people, model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    embedder = Embedder(model, "onnxruntime")
    job = SetEmbedder(embedder, AlignedDetector(), EmbedSettings())
    good = people / "documents/p00/0.png"
    documents = [
        DocumentFile(good, "good", "a"), DocumentFile(tmp_path / "bad.png", "bad", "b")
    ]  # fmt: skip
    found = job.embed_documents(documents)
    assert found.made.tolist() == [True, False] and found.reasons[1]
    tracks = job.embed_tracks([TrackFiles("t", "a", "t", (tmp_path / "bad.png",))])
    assert not tracks.made[0] and tracks.reasons[0] and np.isnan(tracks.sizes_px[0])
    with pytest.raises(InputError, match="none of 1 documents gave a face"):
        job.embed_documents(documents[1:])
    with pytest.raises(InputError, match="is listed 2 times"):
        job.embed_documents([documents[0], DocumentFile(good, "again", "b")])
    missing = DocumentFile(tmp_path / "none.png", "none", "a")
    with pytest.raises(InputError, match="does not exist"):
        job.embed_documents([missing])
    with pytest.raises(InputError, match="of track t does not exist"):
        job.embed_tracks([TrackFiles("t", "a", "t", (missing.path,))])


def test_a_simulation_says_so_everywhere(clip, model, tmp_path, capsys):
    tracks, chips = clip
    (tmp_path / "videos").mkdir()
    rows, people = [], []
    source = tracks[0].clip.read_bytes()
    for number in range(12):
        video, name = f"v{number}.mp4", f"p{number}"
        (tmp_path / "videos" / video).write_bytes(source)
        save(tmp_path / f"documents/{name}/0.png", chips[number % 2] // (1 + number % 3))
        rows.append({"video": video, "track": 1, "person": name, "frame": 0,
                     "box": [0.0, 0.0, 112.0, 112.0],
                     "landmarks": ARCFACE_TEMPLATE.ravel().tolist()})  # fmt: skip
        people.append({"person": name, "half": ("dev", "test")[number % 2], "role": "enrolled"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tracks.parquet")
    pq.write_table(pa.Table.from_pylist(people), tmp_path / "people.parquet")
    (tmp_path / "simulation.json").write_text('{"complete": true}', encoding="utf-8")
    out = tmp_path / "out.json"
    more = ["--layout", "simulation", "--faces", "table", "--allow-overlap", "--json", out]
    assert run(tmp_path, model, *more) == 0
    assert "(simulated)" in capsys.readouterr().out
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["simulated"] and result["evaluation"]["simulated"]
    assert any("imulated" in text for text in result["protocol"])


def test_help_has_an_example(capsys):
    parser = argparse.ArgumentParser()
    add_doc2surv(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["doc2surv", "--help"])
    shown = capsys.readouterr().out
    assert "--fpir-probes" in shown
    assert "{" + ",".join(LAYOUTS) + "}" in shown


def test_folders_make_a_layout(people):
    layout = read_folders(people / "documents", people / "tracks")
    assert len(layout.documents) == ENROLLED
    assert len(layout.tracks) == 2 * (ENROLLED + STRANGERS)
