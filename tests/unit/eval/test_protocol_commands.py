"""The commands of the protocols on drawn chips and a network of one pooling layer."""

import json

import cv2
import numpy as np
import pytest
from pattern_people import chip, write_people, write_picture, write_recogniser
from protocol_faces import faces
from scipy.io import savemat

from eval.evaluation_files import read_evaluation
from eval.protocol_files import write_matrix
from eval.protocol_table import list_rates
from facerec.cli.evaluate_protocols import add_protocols
from facerec.command import build_parser, run_command
from facerec.data.bins import write_bin


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_recogniser(tmp_path_factory.mktemp("model") / "net.onnx")


def call(*words):
    parser = build_parser("facerec-eval", "Evaluate.", "facerec-eval pack a.bin --model M")
    add_protocols(parser.add_subparsers(required=True))
    return run_command(parser, [str(word) for word in words])


def read(path):
    """Return a result whose evaluation has been read as a comparison would read it."""
    result = json.loads(path.read_text(encoding="utf-8"))
    evaluation = read_evaluation(path)
    assert evaluation.task == result["task"] and evaluation.counts
    assert len(evaluation.headline) == len(list_rates(result))
    assert {failure.file for failure in evaluation.failures} == set(result.get("failed_files", ()))
    return result


def encode(person, shift=0):
    picture = np.clip(chip(person).astype(int) + shift, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


def test_pack(model, tmp_path, capsys):
    images, same = [], []
    for number in range(20):
        images += [encode(number), encode(number if number % 2 else number + 50, 4)]
        same.append(number % 2 == 1)
    images[2] = b"no picture"
    write_bin(tmp_path / "toy.bin", images, same)
    out = tmp_path / "out.json"
    assert call("pack", tmp_path / "toy.bin", "--model", model, "--json", out,
                "--resamples", 20) == 0  # fmt: skip
    result = read(out)
    found = result["packs"]["toy"]
    assert (found["pairs"], found["mated"], found["failed_pairs"]) == (20, 10, 1)
    # The pair with a picture lost is mated: rejected, hence wrong.
    assert found["accuracy"]["value"] == pytest.approx(19 / 20)
    assert found["note"] == "people as mated pairs join their faces"
    assert list(result["failed_files"]) == ["toy.bin#2"]
    assert {"toy", "model"} <= set(result["provenance"]["hashes"])
    shown = capsys.readouterr().out
    assert "toy accuracy" in shown and "10 trials allow 0 errors" in shown
    assert "no face   toy.bin#2" in shown


def test_identify_folders(model, tmp_path, capsys):
    gallery, probe = tmp_path / "gallery", tmp_path / "probe"
    write_people(gallery, {f"p{n}": n for n in range(8)}, 1)
    write_people(probe, {f"p{n}": n for n in range(30)}, 1, start=2)
    for broken in (probe / "p3", gallery / "p7"):
        (broken / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "out.json"
    words = ["identify", "--gallery", gallery, "--probe", probe, "--model", model, "--detector",
             "aligned", "--fpir", 0.5, 0.001, "--resamples", 20]  # fmt: skip
    (probe / "p5" / "copy.png").write_bytes((gallery / "p5" / "0.png").read_bytes())
    assert call(*words) == 2
    assert "p5/0.png = p5/copy.png (1.0000)" in capsys.readouterr().err
    page = tmp_path / "out.html"
    assert call(*words, "--allow-overlap", "--json", out, "--html", page) == 0
    result = read(out)
    kinds = {failure.file: failure.kind for failure in read_evaluation(out).failures}
    assert kinds == {"gallery/p7/broken.png": "FTE", "probe/p3/broken.png": "FTA"}
    text = page.read_text(encoding="utf-8")
    assert "TPIR at FPIR 0.5" in text and "22 trials allow 0 errors" in text
    assert result["near_duplicates"] == 1
    search = result["search"]
    assert (search["people"], search["mated_probes"], search["non_mated_probes"]) == (8, 10, 22)
    assert search["failed_to_acquire"] == {"mated": 1, "non_mated": 0}
    assert result["ranks"][0]["value"] == pytest.approx(9 / 10)
    assert result["tpir_at_fpir"][0]["value"] == pytest.approx(9 / 10)
    assert result["tpir_at_fpir"][1]["value"] is None


def test_cfp(model, tmp_path):
    protocol, numbered = tmp_path / "Protocol", {}
    for pose in ("frontal", "profile"):
        names = [f"{person:03d}/{pose}/01.png" for person in range(1, 7)]
        for person, name in enumerate(names, start=1):
            shift = 5 if pose == "profile" else 0
            write_picture(tmp_path / "Data" / "Images" / name, person, shift)
        numbered[pose] = [f"{n} ../Data/Images/{name}" for n, name in enumerate(names, start=1)]
    for fold in range(2):
        folder = protocol / "Split" / "FP" / f"{fold:02d}"
        folder.mkdir(parents=True)
        mine = range(1 + 3 * fold, 4 + 3 * fold)
        (folder / "same.txt").write_text("\n".join(f"{n},{n}" for n in mine))
        (folder / "diff.txt").write_text("\n".join(f"{n},{n % 6 + 1}" for n in mine))
    for letter, pose in (("F", "frontal"), ("P", "profile")):
        (protocol / f"Pair_list_{letter}.txt").write_text("\n".join(numbered[pose]))
    out = tmp_path / "out.json"
    assert call("cfp", "--root", tmp_path, "--model", model, "--detector", "aligned",
                "--resamples", 20, "--json", out) == 0  # fmt: skip
    result = read(out)
    assert (result["name"], result["pairs"], result["people"]) == ("CFP-FP", 12, 6)
    assert result["accuracy"]["value"] == 1 and result["accuracy"]["interval"]["low"] < 1


def write_ijb(root, vectors, people):
    """Four faces a template, two templates a person: one enrolled, one a probe."""
    meta = root / "meta"
    meta.mkdir(parents=True)
    templates = np.arange(len(vectors)) // 4
    points, scored, listed = " ".join("1" * 10), [], []
    for face, template in enumerate(templates.tolist()):
        scored.append(f"{face}.png {points} 0.9")
        listed.append(f"{face}.png {template} {face // 2}")
    (meta / "ijbc_name_5pts_score.txt").write_text("\n".join(scored))
    (meta / "ijbc_face_tid_mid.txt").write_text("\n".join(listed))
    owner = people[::4]
    pairs = [
        f"{a} {b} {int(owner[a] == owner[b])}"
        for a in range(0, len(owner), 2)
        for b in range(1, len(owner), 2)
    ]
    (meta / "ijbc_template_pair_label.txt").write_text("\n".join(pairs))
    half = len(owner) // 2
    parts = {
        "gallery_G1": range(0, half, 2),
        "gallery_G2": range(half, len(owner), 2),
        "probe_mixed": range(1, len(owner), 2),
    }
    for name, part in parts.items():
        rows = [f"{template},{owner[template]}" for template in part]
        text = "\n".join(["TEMPLATE_ID,SUBJECT_ID", *rows])
        (meta / f"ijbc_1N_{name}.csv").write_text(text + "\n")


def test_ijb_from_features(tmp_path, capsys):
    vectors, people = faces(40, 8, 1.0)
    write_ijb(tmp_path, vectors, people)
    norms = np.random.default_rng(0).uniform(5, 25, len(vectors))
    norms[:4] = 0
    np.savez(tmp_path / "f.npz", vectors=vectors, norms=norms)
    out = tmp_path / "out.json"
    words = ["ijb", "--root", tmp_path, "--features", tmp_path / "f.npz", "--resamples", 20]
    assert call(*words, "--json", out) == 0
    result = read(out)
    verification, identification = result["verification"], result["identification"]
    assert (verification["pairs"], verification["mated"]) == (1600, 40)
    assert (verification["failed_templates"], verification["failed_faces"]) == (1, 4)
    assert verification["tar"][0]["value"] <= 39 / 40
    first, second = identification["galleries"]
    assert (first["people"], first["failed_to_enrol"], second["people"]) == (19, 1, 20)
    assert (first["mated_probes"], first["non_mated_probes"]) == (20, 20)
    assert identification["tpir_at_fpir"][0]["value"] is None
    assert result["weights"] == {"norm": True, "detector_score": True}
    assert "verification tar" in capsys.readouterr().out
    plain = tmp_path / "plain.json"
    assert call(*words, "--no-norm", "--no-detector-score", "--json", plain) == 0
    assert read(plain)["verification"]["tar"][0] != verification["tar"][0]
    np.savez(tmp_path / "f.npz", vectors=vectors[1:], norms=norms[1:])
    assert call(*words) == 2
    assert "a row a listed face, 320, got 319" in capsys.readouterr().err


def test_ijb_from_pictures(model, tmp_path):
    people = np.repeat(np.arange(4), 8)
    write_ijb(tmp_path, people, people)
    for face, person in enumerate(people.tolist()):
        write_picture(tmp_path / "loose_crop" / f"{face}.png", person, face % 5)
    meta = tmp_path / "meta" / "ijbc_name_5pts_score.txt"
    points = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"
    lines = [f"{face}.png {points} 0.9" for face in range(len(people))]
    meta.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.json"
    words = ["ijb", "--root", tmp_path, "--model", model, "--resamples", 0, "--json", out]
    assert call(*words) == 0
    assert [rate["value"] for rate in read(out)["identification"]["ranks"]] == [1, 1, 1]
    (tmp_path / "loose_crop" / "0.png").unlink()
    assert call(*words) == 0
    assert read(out)["failed_files"] == {"0.png": "no such file"}


def test_lfr(model, tmp_path, capsys):
    videos = [f"v{n}" for n in range(8)]
    (tmp_path / "filelist.txt").write_text("".join(f"{video} 2\n" for video in videos))
    (tmp_path / "labels.txt").write_text("".join(f"p{n // 2}\n" for n in range(8)))
    for number, video in enumerate(videos[:-1]):
        for frame in range(2):
            write_picture(tmp_path / video / f"{frame}.jpg", number // 2, 3 * frame + number % 2)
    out = tmp_path / "out.json"
    words = ["lfr", "--root", tmp_path, "--labels", tmp_path / "labels.txt", "--resamples", 0]
    assert call(*words, "--model", model, "--json", out) == 0
    result = read(out)
    assert (result["videos"], result["failed_videos"], result["failed_mated"]) == (8, 1, 1)
    assert (result["pairs"], result["mated"]) == (28, 4)
    write_matrix(tmp_path / "v.bin", faces(8, 1)[0])
    assert call(*words, "--features", tmp_path / "v.bin", "--json", out) == 0
    assert read(out)["features"] == "v.bin"
    assert call(*words) == 2
    assert "a model or stored features, one of the two" in capsys.readouterr().err


def mat(path, **lists):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, values in lists.items():
        rows = np.empty((len(values), 1), object if isinstance(values[0], str) else np.int64)
        rows[:, 0] = values
        table[name] = rows
    savemat(path, table)


def test_survface_and_tinyface(model, tmp_path):
    root = tmp_path / "survface"
    part = root / "Face_Identification_Test_Set"
    names = [f"{n}_cam1_1.png" for n in range(1, 31)]
    for number, name in enumerate(names, start=1):
        place = "gallery" if number < 6 else "unmated_probe"
        write_picture(part / place / name, number)
        if number < 6:
            write_picture(part / "mated_probe" / name, number, 8)
    ids = [1, 2, 3, 4, 5]
    mat(part / "gallery_img_ID_pairs.mat", gallery_set=names[:5], gallery_ids=ids)
    mat(part / "mated_probe_img_ID_pairs.mat", mated_probe_set=names[:5], mated_probe_ids=ids)
    pairs = root / "Face_Verification_Test_Set"
    pictures = [f"{n}.png" for n in range(12)]
    for number, name in enumerate(pictures):
        write_picture(pairs / "verification_images" / name, number // 2, number % 2)
    for kind, step in (("positive", 1), ("negative", 3)):
        table = np.empty((12, 2), object)
        for row in range(12):
            start = row // 2 * 2
            table[row] = [pictures[start], pictures[(start + step) % 12]]
        savemat(pairs / f"{kind}_pairs_names.mat", {f"{kind}_pairs_names": table})
    out = tmp_path / "out.json"
    assert call("survface", "--root", root, "--model", model, "--resamples", 0,
                "--json", out) == 0  # fmt: skip
    result = read(out)
    assert result["search"]["non_mated_probes"] == 25 and result["ranks"][0]["value"] == 1
    assert result["verification"]["accuracy"]["value"] == 1
    root = tmp_path / "Testing_Set"
    for number in range(6):
        write_picture(root / "Gallery_Match" / f"{number}.png", number)
        write_picture(root / "Probe" / f"{number}.png", number, 8)
        write_picture(root / "Gallery_Distractor" / f"{number}.png", 50 + number)
    listed, ids = [f"{n}.png" for n in range(6)], list(range(6))
    mat(root / "gallery_match_img_ID_pairs.mat", gallery_set=listed, gallery_ids=ids)
    mat(root / "probe_img_ID_pairs.mat", probe_set=listed, probe_ids=ids)
    assert call("tinyface", "--root", tmp_path, "--model", model, "--resamples", 0,
                "--json", out) == 0  # fmt: skip
    result = read(out)
    assert result["mean_ap"]["value"] == 1 and result["distractors"] == 6
    assert not result["tpir_at_fpir"]["supported"]


def test_megaface(tmp_path, capsys):
    vectors, people = faces(5, 3, 0.3)
    names = [f"{person}/{person}_{n}.jpg" for n, person in enumerate(people.tolist())]
    others = [f"1/2/{n}.jpg" for n in range(12)]
    for name, row in zip(names, vectors, strict=True):
        write_matrix(tmp_path / "fs" / f"{name}_net.bin", row[:, None])
    for name, row in zip(others, faces(12, 1, seed=5)[0], strict=True):
        write_matrix(tmp_path / "mf" / f"{name}_net.bin", row[:, None])
    listed = {"path": names, "id": [str(person) for person in people]}
    (tmp_path / "fs.json").write_text(json.dumps(listed))
    (tmp_path / "mf.json").write_text(json.dumps({"path": others}))
    (tmp_path / "noise.txt").write_text("# list\n7\t1/2/3.jpg\n")
    out = tmp_path / "out.json"
    words = ["megaface", "--probes", tmp_path / "fs.json", "--distractors", tmp_path / "mf.json",
             "--probe-features", tmp_path / "fs", "--distractor-features", tmp_path / "mf",
             "--ending", "_net.bin", "--distractor-noise", tmp_path / "noise.txt",
             "--resamples", 20, "--json", out]  # fmt: skip
    assert call(*words) == 0
    result = read(out)
    assert (result["distractors"], result["noisy_distractors"], result["pairs"]) == (11, 1, 30)
    assert result["ranks"]["11"][0]["value"] == 1
    (tmp_path / "fs.json").write_text(json.dumps({"path": names}))
    assert call(*words) == 2
    assert "a list `id` beside `path`" in capsys.readouterr().err


def test_every_command_has_help_with_an_example(capsys):
    for name in ("pack", "identify", "cfp", "ijb", "lfr", "survface", "tinyface", "megaface"):
        with pytest.raises(SystemExit) as caught:
            call(name, "--help")
        assert caught.value.code == 0
        assert "example:" in capsys.readouterr().out
