"""QMUL-SurvFace and TinyFace."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import coarse, cosine, faces
from scipy.io import savemat

from eval.protocol_open_set import identify_open_set
from eval.protocol_survface import identify_survface, read_survface, read_survface_pairs
from eval.protocol_tinyface import identify_closed_set, read_tinyface
from facerec.checks import InputError


def unit(*degrees):
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees], np.float32)


def test_tpir20_is_not_whether_anybody_is_above_the_threshold():
    # 30 people; the mated probe's own is at rank 25 though 24 others are far above any threshold.
    gallery = unit(*np.arange(30.0), 90)
    own, unmated = unit(0), unit(*[60.0] * 40)
    found = identify_survface(
        gallery, [*range(30), 99], own, [24], unmated, fpirs=[0.5], gallery_rule="best", resamples=0
    )
    assert found.search.ranks.tolist() == [25]
    rate = found.tpir[0]
    assert rate.supported and rate.name == "tpir20" and rate.value == 0
    near = identify_survface(
        gallery, [*range(30), 99], own, [3], unmated, fpirs=[0.5], gallery_rule="best", resamples=0
    )
    assert near.search.ranks.tolist() == [4] and near.tpir[0].value == 1
    assert near.area == 1 and [r.value for r in near.ranks] == [0, 1, 1]


def test_a_gallery_person_is_the_mean_or_the_best_picture():
    gallery, people = unit(0, 60, 50), ["a", "a", "b"]
    probe = unit(52)
    kinds = {
        rule: identify_open_set(probe, ["a"], gallery, people, gallery_rule=rule, resamples=0)
        for rule in ("mean", "best")
    }
    assert kinds["best"].search.own[0] == pytest.approx(np.cos(np.radians(8)), abs=1e-6)
    assert kinds["mean"].search.own[0] == pytest.approx(np.cos(np.radians(22)), abs=1e-6)
    assert kinds["mean"].search.people == 2
    assert (
        kinds["best"].tpir[0].value is None and "no non-mated probe" in kinds["best"].tpir[0].reason
    )
    with pytest.raises(InputError, match="gallery_rule must be one of"):
        identify_open_set(probe, ["a"], gallery, people, gallery_rule="worst")


@pytest.mark.parametrize("rule", ["mean", "best"])
def test_equal_scores_rank_by_the_first_row_of_a_person(rule):
    gallery = unit(0, 0, 0)
    found = identify_open_set(
        unit(10, 10), ["b", "a"], gallery, ["b", "a", "b"], gallery_rule=rule, resamples=0
    )
    assert found.search.ranks.tolist() == [1, 2]


def test_intervals_and_failures_to_acquire():
    vectors, people = faces(60, 4, 1.0)
    probes = vectors[1::2].copy()
    probes[::10] = 0
    whose = people[1::2]
    mated = whose < 30
    found = identify_survface(
        vectors[::2][mated], people[::2][mated], probes[mated], whose[mated], probes[~mated],
        whose[~mated], resamples=100,
    )  # fmt: skip
    assert found.search.failed_mated == found.search.failed_non_mated == 6
    rate = found.tpir[0]
    assert rate.trials == 60 and rate.value <= 0.9
    assert rate.interval.low <= rate.value <= rate.interval.high
    assert [r.supported for r in found.tpir] == [True, True, False, False]
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["search"]["people"] == 30 and plain["candidate_list"] == 20


def test_people_on_the_wrong_side_are_named():
    x = unit(0, 30)
    with pytest.raises(InputError, match="1 people of the mated probes are not in the gallery"):
        identify_survface(x, [1, 2], x, [1, 3], x)
    with pytest.raises(InputError, match="1 people of the unmated probes are in the gallery"):
        identify_survface(x, [1, 2], x, [1, 2], x, [2, 9])
    with pytest.raises(InputError, match="two models"):
        identify_survface(x, [1, 2], x, [1, 2], np.eye(3, dtype=np.float32))


def precision(scores, right):
    """Average precision by walking down the list; what failed is never reached."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    hits, total = 0, 0.0
    for place, row in enumerate([i for i in order if scores[i] > -np.inf], start=1):
        if right[row]:
            hits += 1
            total += hits / place
    return total / sum(right)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_closed_set_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    gallery, owners = coarse(rng, 10), np.concatenate([np.arange(4), rng.integers(4, size=6)])
    others, probes = coarse(rng, 5), coarse(rng, 6)
    people = rng.integers(4, size=6)
    found = identify_closed_set(probes, people, gallery, owners, others, ranks=[1, 3], resamples=0)
    rows = np.concatenate([gallery, others])
    wanted, ranks = [], []
    for probe, person in zip(probes, people.tolist(), strict=True):
        scores = [cosine(probe, row) for row in rows]
        right = [*(owners == person).tolist(), *[False] * 5]
        wanted.append(precision(scores, right))
        order = sorted(range(15), key=lambda i: -scores[i])
        first = [p for p, i in enumerate(order, 1) if right[i] and scores[i] > -np.inf]
        ranks.append(first[0] if first else np.inf)
    assert found.mean_ap.value == pytest.approx(np.mean(wanted))
    for rate, k in zip(found.ranks, (1, 3), strict=True):
        assert rate.value == pytest.approx(np.mean([r <= k for r in ranks]))


def test_a_closed_set_has_no_tpir_and_no_strangers():
    vectors, people = faces(20, 3)
    found = identify_closed_set(
        vectors[::3], people[::3], vectors[1::3], people[1::3], vectors[2::3], resamples=50
    )
    assert found.tpir.value is None and "closed set" in found.tpir.reason
    assert (found.search.people, found.distractors, found.search.rows) == (20, 20, 40)
    assert found.mean_ap.interval.low <= found.mean_ap.value <= found.mean_ap.interval.high
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(InputError, match="people of the probes are not in the gallery"):
        identify_closed_set(vectors[::3], people[::3] + 1, vectors[1::3], people[1::3])


def cells(names):
    rows = np.empty((len(names), 1), object)
    rows[:, 0] = names
    return rows


def test_survface_is_read(tmp_path):
    test_set = tmp_path / "Face_Identification_Test_Set"
    for name in ("unmated_probe/9_cam1_1.jpg", "unmated_probe/x.jpg", "unmated_probe/list.txt"):
        (test_set / name).parent.mkdir(parents=True, exist_ok=True)
        (test_set / name).touch()
    savemat(
        test_set / "gallery_img_ID_pairs.mat",
        {"gallery_set": cells(["1_cam1_1.jpg", "2_cam1_1.jpg"]), "gallery_ids": [[1], [2]]},
    )
    evaluation = tmp_path / "Face_Identification_Evaluation"
    evaluation.mkdir()
    mated = {"mated_probe_set": cells(["1_cam2_1.jpg"]), "mated_probe_ids": [[1]]}
    savemat(evaluation / "mated_probe_img_ID_pairs.mat", mated)
    lists = read_survface(tmp_path)
    assert lists.gallery == ["gallery/1_cam1_1.jpg", "gallery/2_cam1_1.jpg"]
    assert (lists.gallery_people.tolist(), lists.mated_people.tolist()) == ([1, 2], [1])
    assert lists.mated == ["mated_probe/1_cam2_1.jpg"]
    assert lists.unmated == ["unmated_probe/9_cam1_1.jpg", "unmated_probe/x.jpg"]
    assert lists.unmated_people == ["unmated 9", "unmated x.jpg"]
    savemat(evaluation / "mated_probe_img_ID_pairs.mat", {**mated, "mated_probe_ids": [[1], [2]]})
    with pytest.raises(InputError, match="as many mated_probe_ids as mated_probe_set, got 2 and 1"):
        read_survface(tmp_path)
    savemat(evaluation / "mated_probe_img_ID_pairs.mat", {"mated_probe_set": cells(["a"])})
    with pytest.raises(InputError, match="variable mated_probe_ids, which is missing"):
        read_survface(tmp_path)
    (evaluation / "mated_probe_img_ID_pairs.mat").write_bytes(b"no matrix")
    with pytest.raises(InputError, match="must be a MATLAB file"):
        read_survface(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_survface(tmp_path / "nowhere")


def test_survface_pairs_are_read(tmp_path):
    folder = tmp_path / "Face_Verification_Test_Set"
    folder.mkdir()
    for kind in ("positive", "negative"):
        table = np.empty((10, 2), object)
        table[:] = [[f"{kind}{i}a.jpg", f"{kind}{i}b.jpg"] for i in range(10)]
        name = f"{kind}_pairs_names"
        savemat(folder / f"{name}.mat", {name: table})
    pairs = read_survface_pairs(tmp_path)
    assert (pairs.image_a[0], pairs.image_b[0]) == ("positive0a.jpg", "positive0b.jpg")
    assert pairs.same.tolist() == [True] * 10 + [False] * 10
    assert pairs.folds.tolist() == [*range(1, 11)] * 2
    savemat(folder / "positive_pairs_names.mat", {"positive_pairs_names": cells(["a"])})
    with pytest.raises(InputError, match="two names a row"):
        read_survface_pairs(tmp_path)


def test_tinyface_is_read(tmp_path):
    folder = tmp_path / "Testing_Set"
    for name in ("Gallery_Distractor/b.jpg", "Gallery_Distractor/a.png", "Probe/p.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    savemat(folder / "probe_img_ID_pairs.mat", {"probe_set": cells(["p.jpg"]), "probe_ids": [[5]]})
    gallery = {"gallery_set": cells(["g.jpg", "h.jpg"]), "gallery_ids": [[5], [6]]}
    savemat(folder / "gallery_match_img_ID_pairs.mat", gallery)
    for root in (tmp_path, folder):
        lists = read_tinyface(root)
        assert lists.probes == ["Probe/p.jpg"] and lists.gallery_people.tolist() == [5, 6]
        assert lists.gallery == ["Gallery_Match/g.jpg", "Gallery_Match/h.jpg"]
        assert lists.distractors == ["Gallery_Distractor/a.png", "Gallery_Distractor/b.jpg"]
