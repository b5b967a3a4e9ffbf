"""The whole command on drawn chips and a network of one pooling layer."""

import json
import re

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eval.embedding import embed_files
from facerec.checks import InputError
from facerec.cli.evaluate import main
from facerec.detection import AlignedDetector, hash_detector
from facerec.embedder import Embedder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Mean colours of 8 x 8 squares, 192-d."""
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


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """12 people with two chips each, and pairs in 4 folds."""
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    rows = ["fold,same,image_a,image_b"]
    for person in range(12):
        base = rng.integers(0, 256, (8, 8, 3))
        for number in range(2):
            noisy = np.clip(base + rng.normal(0, 10, base.shape), 0, 255).astype(np.uint8)
            chip = cv2.resize(noisy, (112, 112), interpolation=cv2.INTER_NEAREST)
            path = root / "images" / f"p{person:02d}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), chip)
        rows.append(f"{person % 4},1,p{person:02d}/0.png,p{person:02d}/1.png")
        rows.append(f"{person % 4},0,p{person:02d}/0.png,p{(person + 1) % 12:02d}/1.png")
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")
    return root


def run(lfw, model, *more, pairs="pairs.csv"):
    return main(
        ["verify", "--pairs", str(lfw / pairs), "--images", str(lfw / "images"), "--model",
         str(model), "--detector", "aligned", "--runtime", "onnxruntime", *more]
    )  # fmt: skip


def test_verify_writes_json_page_and_table(lfw, model, tmp_path, capsys):
    target, page = tmp_path / "out.json", tmp_path / "out.html"
    more = ["--all-pairs", "--json", str(target), "--html", str(page), "--resamples", "50"]
    assert run(lfw, model, *more) == 0
    result = json.loads(target.read_text())
    assert (result["pairs"], result["embedded"], result["failures"]) == (24, 24, 0)
    assert result["accuracy"]["mean"] == 1.0
    assert result["accuracy"]["std"] == 0.0
    assert result["eer"] == 0.0
    assert re.fullmatch("[0-9a-f]{64}", result["model_sha256"])
    assert {"far", "tar", "supported"} <= set(result["tar_at_far"][0])
    assert [point["far"] for point in result["tar_at_far"]] == [1e-1, 1e-2, 1e-3, 1e-4]
    every = result["all_pairs"]
    assert (every["pairs"], every["mated"], every["people"]) == (276, 12, 12)
    assert [point["far"] for point in every["tar_at_far"]] == [1e-3, 1e-4, 1e-5, 1e-6]
    assert not any(point["supported"] for point in every["tar_at_far"])
    assert set(result["provenance"]["hashes"]) == {"pairs", "model", "detector"}
    shown = capsys.readouterr().out
    assert "1.0000 ± 0.0000 over 4 folds" in shown
    assert "no: fewer than 10 false accepts possible" in shown
    text = page.read_text()
    assert "DET curve" in text
    assert text.count("<img") == 4
    assert "data:image/jpeg" not in text


def test_a_failed_picture_is_counted_listed_and_hurts(lfw, model, tmp_path, capsys):
    broken = lfw / "images" / "p00" / "0.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    try:
        target, page = tmp_path / "out.json", tmp_path / "out.html"
        assert run(lfw, model, "--json", str(target), "--html", str(page)) == 0
    finally:
        broken.write_bytes(whole)
    result = json.loads(target.read_text())
    assert (result["embedded"], result["failures"], result["failed_pairs"]) == (23, 1, 2)
    assert list(result["failed_files"]) == ["p00/0.png"]
    # The mated pair is lost; refusing the other one is right.
    assert result["accuracy"]["mean"] == pytest.approx(1 - (1 / 6) / 4)
    assert result["tar_at_far"][0]["tar"] == pytest.approx(11 / 12)
    assert "no face   p00/0.png" in capsys.readouterr().out
    assert "p00/0.png" in page.read_text()


def test_the_cache_embeds_nothing_twice_and_gives_the_same_figures(lfw, model, tmp_path):
    results = []
    for name, flip in (("a", []), ("b", []), ("c", ["--flip"])):
        target = tmp_path / f"{name}.json"
        assert (
            run(lfw, model, "--cache", str(tmp_path / "cache"), "--json", str(target), *flip) == 0
        )
        results.append(json.loads(target.read_text()))
    assert [result["newly_embedded"] for result in results] == [24, 0, 24]
    assert results[0]["tar_at_far"] == results[1]["tar_at_far"]
    assert results[0]["accuracy"] == results[1]["accuracy"]


def test_two_files_of_one_content_share_an_embedding(lfw, model, tmp_path):
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    data = (lfw / "images" / "p03" / "0.png").read_bytes()
    for name in ("a/1.png", "a/2.png"):
        (images / name).write_bytes(data)
    embedder = Embedder(model, "onnxruntime")
    for computed in (2, 0):
        found = embed_files(
            images, ["a/1.png", "a/2.png"], AlignedDetector(), embedder, cache=tmp_path / "cache"
        )
        assert found.computed == computed
        np.testing.assert_array_equal(found.vectors[0], found.vectors[1])
        assert found.made().all()


@pytest.mark.parametrize(
    ("pairs", "more", "message"),
    [
        ("none.csv", [], "does not exist"),
        ("bad.csv", [], "1 of 3 pictures that"),
        ("pairs.csv", ["--images", "nowhere"], "must be the folder of the pictures"),
        ("pairs.csv", ["--resamples", "1"], "resamples must be 0 or at least 2"),
        ("pairs.csv", ["--runtime", "onxruntime"], "onnxruntime"),
        ("pairs.csv", ["--detector", "nothing-of-this-name"], "nothing-of-this-name"),
        ("pairs.csv", ["--batch-size", "0"], "batch_size"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(lfw, model, capsys, pairs, more, message):
    (lfw / "bad.csv").write_text(
        "fold,same,image_a,image_b\n1,1,p00/0.png,p00/1.png\n2,0,p00/0.png,p99/0.png\n"
    )
    assert run(lfw, model, *more, pairs=pairs) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_pictures_without_any_face_are_refused(lfw, model, tmp_path, capsys):
    table = tmp_path / "faces.csv"
    columns = ",".join(f"l{axis}{i}" for i in range(1, 6) for axis in "xy")
    table.write_text(f"key,x1,y1,x2,y2,{columns},score\nother.png" + ",1" * 15 + "\n")
    assert run(lfw, model, "--detector", f"annotations:{table}") == 2
    assert "none of 24 pictures gave a face (first: p00/0.png: no face)" in capsys.readouterr().err


def test_policy_all_is_refused(lfw, model):
    with pytest.raises(InputError, match="one face a picture"):
        embed_files(lfw, [], AlignedDetector(), Embedder(model, "onnxruntime"), policy="all")


def test_detector_hash_follows_the_file_not_its_name(tmp_path):
    class Detector:
        name = "annotations:t.csv"

    (tmp_path / "t.csv").write_text("one")
    spec = f"annotations:{tmp_path / 't.csv'}"
    before = hash_detector(spec, Detector())
    (tmp_path / "t.csv").write_text("two")
    assert hash_detector(spec, Detector()) != before
    assert hash_detector("aligned", AlignedDetector()) == hash_detector(
        "aligned", AlignedDetector()
    )


def test_an_embedding_without_direction_is_a_failure_with_its_reason(lfw, model, tmp_path):
    grey = np.full((112, 112, 3), 127, np.uint8)
    grey[:, ::2] = 128  # means of 127.5, which the preprocessing makes 0
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "face.png"), grey // 2)
    for computed in (2, 0):  # the second time from the cache
        names, embedder = ["face.png", "grey.png"], Embedder(model)
        found = embed_files(tmp_path, names, AlignedDetector(), embedder, cache=tmp_path / "cache")
        assert found.failed == {"grey.png": "no direction: embedding of norm 0"}
        assert found.computed == computed and found.norms[0] > 0
