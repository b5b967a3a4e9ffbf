"""Train-and-refine from a noisy folder to a clean set, with real trainings of a tiny net."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_tools.ingest import ingest
from facerec.cli.clean_refine import add_refine
from facerec.command import build_parser, run_command
from facerec.data.manifest import read_manifest
from facerec.io import read_json
from facerec.models.weights import read_artefact
from facerec.training import build as training_build
from facerec.training.loop import Hook

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, EACH = 8, 20
RECIPE = f"""
base: {ROOT / "configs" / "demo.yaml"}
backbone:
  name: mobilefacenet
  args: {{embedding_dim: 64, width: 0.25, blocks: [1, 1, 1, 1], input_size: 32}}
head: {{name: arcface, params: {{scale: 16, margin: 0.2}}}}
epochs: 10
validation: {{every_epochs: 10}}
batch_size: 16
device: cpu
tensorboard: false
noise: {{warmup_epochs: 1, gradual_epochs: 1, tau: 0.1}}
optim: {{lr: 0.05, warmup_epochs: 1}}
"""


def smooth(rng, cells):
    return cv2.resize(rng.integers(0, 256, (cells, cells, 3)).astype(np.float32), (112, 112))


def draw(person, rng):
    """Return a chip: a smooth pattern a person, under one a picture, moved and lit otherwise."""
    own = smooth(np.random.default_rng(person), 5)
    place = np.float32([[1, 0, rng.normal(0, 4)], [0, 1, rng.normal(0, 4)]])
    own = cv2.warpAffine(own, place, (112, 112), borderMode=cv2.BORDER_REFLECT)
    mixed = 0.7 * own + 0.3 * smooth(rng, 4) + rng.normal(0, 10)
    return np.clip(mixed, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    """Return a set with a wrong face in every second folder, and chips of people to validate on."""
    root = tmp_path_factory.mktemp("refine")
    rng = np.random.default_rng(3)
    wrong = set()
    for person in range(PEOPLE + 4):
        for image in range(EACH):
            place = root / ("crawl" if person < PEOPLE else "others") / f"p{person:02d}"
            place.mkdir(parents=True, exist_ok=True)
            flipped = person < PEOPLE and person % 2 == 0 and image == 5
            shown = (person + 3) % PEOPLE if flipped else person
            cv2.imwrite(str(place / f"{image:02d}.png"), draw(shown, rng))
            if flipped:
                wrong.add(f"p{person:02d}/{image:02d}.png")
    (root / "recipe.yaml").write_text(RECIPE)
    return root, wrong


def call(root, out, *extra):
    parser = build_parser("facerec-clean", "Clean.", "facerec-clean")
    commands: argparse._SubParsersAction = parser.add_subparsers(required=True)
    add_refine(commands)
    options = ["--recipe", root / "recipe.yaml", "--validation", root / "others", *extra]
    return run_command(parser, [str(part) for part in ("refine", out, *options)])


def labels(out):
    table = read_manifest(out / "clean.parquet")
    return dict(zip(table["path"].to_pylist(), table["identity"].to_pylist(), strict=True))


def test_wrong_faces_are_found_by_nets_that_learnt_from_them(crawl, tmp_path, capsys):
    root, wrong = crawl
    out = tmp_path / "set"
    ingest(root / "crawl", out, "aligned")
    options = ["--rounds", 2, "--stop-share", 0, "--robust", "none"]
    assert call(root, out, *options) == 0
    said = capsys.readouterr().out
    assert "stopped after round 1: all rounds are used up" in said
    notes = read_json(out / "refine" / "refine.json")
    assert [row["model"] for row in notes["table"]] == ["trained", "trained"]
    assert all(0 < row["validation"] <= 1 for row in notes["table"])
    clean = labels(out)
    left = {path for path in wrong if clean.get(path) == path.split("/")[0]}
    assert len(left) <= 1
    right = {path for path in clean if path not in wrong and clean[path] == path.split("/")[0]}
    assert len(right) >= 0.5 * (PEOPLE * EACH - len(wrong))
    first, second = (
        read_artefact(out / "refine" / f"round-{number}" / "half-0" / "artefact").info
        for number in (0, 1)
    )
    start = second.training["config"]["init"]
    assert start["head"] == "centroids" and start["artefact"].endswith("round-0/half-0/artefact")
    assert first.sha256 != second.sha256
    assert call(root, out, *options) == 0
    assert read_json(out / "refine" / "refine.json") == notes


class End(Hook):
    """Ends a training after a step as a kill would: nothing is saved."""

    def after_step(self, state, step):
        if state.step == 13:
            raise SystemExit(9)


def test_a_refinement_cut_off_in_a_training_goes_on_to_the_same_set(crawl, tmp_path):
    root, _ = crawl
    extra = ["--rounds", "1", "--robust", "none", "--no-cross-fit", "--final"]
    extra += ["--set", "epochs=6"]
    whole, cut = tmp_path / "whole" / "set", tmp_path / "cut" / "set"
    ingest(root / "crawl", whole, "aligned")
    shutil.copytree(whole, cut)
    assert call(root, whole, *extra) == 0
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        build = training_build.build_hooks
        patch.setattr(training_build, "build_hooks", lambda *a: [*build(*a), End()])
        call(root, cut, *extra)
    assert (cut / "refine" / "round-0" / "all" / "last.ckpt").exists()
    assert not (cut / "refine" / "refine.json").exists()
    assert call(root, cut, *extra) == 0
    ends = [read_json(out / "refine" / "refine.json") for out in (whole, cut)]
    assert ends[0]["table"] == ends[1]["table"]
    models = [
        read_artefact(o / e["final"]["artefact"]).info
        for o, e in zip((whole, cut), ends, strict=True)
    ]
    assert models[0].sha256 == models[1].sha256 and models[0].name == "set-clean"
    assert labels(whole) == labels(cut)
