"""The whole protocol over arrays, against brute force on the same frozen thresholds."""

import json

import numpy as np
import pytest
from surveillance_cases import draw_people, draw_sets, unit

from eval.compare import compare_evaluations
from eval.doc2surv import evaluate_doc2surv
from eval.doc2surv_data import build_documents, build_tracks, split_halves
from eval.doc2surv_distractors import build_distractors, read_distractors
from eval.doc2surv_scores import Half
from eval.doc2surv_settings import Doc2SurvSettings
from eval.evaluation import Evaluation
from facerec.checks import InputError

QUICK = Doc2SurvSettings(
    fmrs=(0.02, 1e-5), fpirs=(0.1, 0.003), rank=5, sizes=(50, 200, 10_000), resamples=100
)
LOST = (0, 50, 400)


@pytest.fixture(scope="module")
def sets():
    return draw_sets(120, 180, 2, noise=0.35, lost_tracks=LOST, seed=2)


@pytest.fixture(scope="module")
def distractors():
    return build_distractors(draw_people(400, seed=77), seed=1)


@pytest.fixture(scope="module")
def result(sets, distractors):
    return evaluate_doc2surv(*sets, QUICK, distractors=distractors, model="pool")


def brute(documents, tracks, seed=0):
    """Every score of the test half, and who is who: dictionaries and loops."""
    split = split_halves(documents, tracks, seed=seed)
    gallery = {
        str(person): vector.astype(np.float64)
        for person, vector, half in zip(
            documents.people, documents.vectors, split.documents, strict=True
        )
        if half == "test"
    }
    rows = []
    for person, vector, half in zip(tracks.people, tracks.vectors, split.tracks, strict=True):
        if half == "test":
            made = vector.any()
            scores = {p: np.float32(vector.astype(float) @ v) for p, v in gallery.items()}
            rows.append((str(person), made, scores if made else {}))
    return gallery, rows


def test_one_to_one_equals_brute_force(sets, result):
    gallery, rows = brute(*sets)
    point = result.verification[0]
    at = point.threshold.threshold
    mated = [(made, scores.get(person)) for person, made, scores in rows if person in gallery]
    acquired = [score for made, score in mated if made]
    fnmr = np.mean([score < at for score in acquired])
    fta = np.mean([not made for made, _ in mated])
    others = [s for person, _, scores in rows for p, s in scores.items() if p != person]
    assert point.find("fnmr").value == pytest.approx(fnmr)
    assert point.find("gfnmr").value == pytest.approx(fta + (1 - fta) * fnmr)
    assert point.find("fmr").value == pytest.approx(np.mean(np.array(others) >= at))
    assert point.find("fmr").trials == len(others)
    assert result.failures[1].value == pytest.approx(fta)
    assert 0 < fnmr < 1 and fta > 0


def test_one_to_many_equals_brute_force(sets, result):
    gallery, rows = brute(*sets)
    point = result.own_gallery.points[0]
    at = point.threshold.threshold
    missed, raised = [], []
    for person, _, scores in rows:
        if person in gallery:
            own = scores.get(person, -np.inf)
            ahead = sum(s > own for p, s in scores.items() if p != person)
            missed.append(own < at or ahead >= QUICK.rank)
        else:
            raised.append(max(scores.values(), default=-np.inf) >= at)
    assert result.fpir_probes == "unknown"
    assert point.find("fnir").value == pytest.approx(np.mean(missed))
    assert point.find("tpir").value == pytest.approx(1 - np.mean(missed))
    assert point.find("fpir").value == pytest.approx(np.mean(raised))
    assert point.people == len(gallery) == 60


def test_the_threshold_knows_only_the_development_half(sets, distractors, result):
    documents, tracks = sets
    split = split_halves(documents, tracks)
    rng = np.random.default_rng(0)
    changed = tracks.vectors.copy()
    test = split.tracks == "test"
    changed[test] = unit(rng.normal(size=changed[test].shape))
    other = evaluate_doc2surv(
        documents, build_tracks(changed, tracks.people, names=tracks.names), QUICK
    )
    assert other.verification[0].threshold == result.verification[0].threshold
    assert other.own_gallery.points[0].threshold == result.own_gallery.points[0].threshold
    assert other.verification[0].find("fnmr").value > 0.9


def test_what_the_sample_cannot_support_has_no_figure(result):
    for point in (result.verification[1], result.own_gallery.points[1]):
        assert point.threshold.threshold is None
        for figure in point.figures:
            assert figure.value is None and figure.interval is None
            assert figure.reason.startswith("not supported: ")
            assert "at least 3 are needed" in figure.reason


def test_galleries_grow_by_exact_search(sets, distractors, result):
    own, below, grown, beyond = result.galleries
    assert [one.people for one in result.galleries] == [60, 50, 200, 10_000]
    assert below.reason == "not measured: the halves' own galleries have up to 60 people"
    assert beyond.reason == "not measured: only 400 distractors beside 60 enrolled people"
    assert (grown.distractors, grown.shared, grown.measured) == (140, 0, True)
    point = grown.points[0]
    at = point.threshold.threshold
    assert at > own.points[0].threshold.threshold
    gallery, rows = brute(*sets)
    more = distractors.vectors[distractors.take("test", 140)].astype(np.float64)
    documents, tracks = sets
    split = split_halves(documents, tracks)
    templates = tracks.vectors[split.tracks == "test"].astype(np.float64)
    best = (templates @ more.T).astype(np.float32).max(axis=1)
    raised = [
        max(max(scores.values(), default=-np.inf), best[i]) >= at
        for i, (person, made, scores) in enumerate(rows)
        if person not in gallery and made
    ]
    assert point.find("fpir").errors == sum(raised)
    assert point.find("fnir").value >= own.points[0].find("fnir").value


def test_an_index_is_held_against_exact_search(sets, distractors):
    settings = Doc2SurvSettings(
        fmrs=(), fpirs=(0.1,), rank=5, sizes=(200,), resamples=100, index="flat"
    )
    result = evaluate_doc2surv(*sets, settings, distractors=distractors)
    for gallery in result.galleries:
        exact, other = gallery.points[0], gallery.indexed[0]
        for name in ("fnir", "fpir"):
            assert other.find(name) == exact.find(name)
        assert [figure.value for figure in gallery.deltas] == [0.0, 0.0]
    assert result.own_gallery.deltas[0].name == "fnir at fpir 0.1, flat minus exact"
    assert result.to_evaluation().growth[1].name == "FNIR at FPIR 0.1, index flat"
    with pytest.raises(InputError, match="index must be one of"):
        evaluate_doc2surv(*sets, Doc2SurvSettings(index="flt"))


def test_without_strangers_everybody_is_searched_without_their_document():
    documents, tracks = draw_sets(180, 0, 2, noise=0.35)
    settings = Doc2SurvSettings(fmrs=(), fpirs=(0.2,), resamples=100)
    result = evaluate_doc2surv(documents, tracks, settings)
    assert result.fpir_probes == "left-out"
    _, rows = brute(documents, tracks)
    point = result.own_gallery.points[0]
    at = point.threshold.threshold
    raised = [max(s for p, s in scores.items() if p != person) >= at for person, _, scores in rows]
    assert point.find("fpir").value == pytest.approx(np.mean(raised))
    assert any("without its own person's document" in text for text in result.protocol)
    with pytest.raises(InputError, match="people without a document, but the dev half has none"):
        evaluate_doc2surv(documents, tracks, Doc2SurvSettings(fpirs=(0.2,), fpir_probes="unknown"))


def test_impostors_are_of_ones_own_group():
    groups = ["f", "m"] * 30
    tracks = {"groups": np.repeat(groups + ["f", "", "m"] * 4, 3)}
    documents, tracks = draw_sets(60, 12, documents={"groups": groups}, tracks=tracks)
    split = split_halves(documents, tracks)
    rows = [np.flatnonzero(row == "test") for row in (split.documents, split.tracks)]
    half = Half(documents, tracks, *rows)
    group_of = dict(zip(documents.people.tolist(), groups, strict=True))
    wanted = 0
    for person, group in zip(tracks.people[rows[1]], tracks.groups[rows[1]], strict=True):
        for other in documents.people[rows[0]]:
            same = group == "" or group == group_of[str(other)]
            wanted += person != other and same
    sample = half.collect(10**6)
    assert sample.comparisons == wanted == sample.total(np.ones((1, sample.people)))[0]
    mixed = build_tracks(tracks.vectors, tracks.people, groups=["f"] * len(tracks))
    with pytest.raises(InputError, match="bears the groups"):
        evaluate_doc2surv(documents, mixed)


def test_failures_to_enrol_are_counted_beside():
    documents, tracks = draw_sets(60, 180, 2)
    vectors = documents.vectors.copy()
    split = split_halves(documents, tracks)
    lost = np.flatnonzero(split.documents == "test")[:2]
    vectors[lost] = 0
    names = documents.names[lost].tolist()
    failed = build_documents(
        vectors, documents.people, names=documents.names, failed={names[0]: "no face"}
    )
    settings = Doc2SurvSettings(fmrs=(), fpirs=(0.2,), resamples=100)
    result = evaluate_doc2surv(failed, tracks, settings)
    assert (result.failures[0].errors, result.failures[0].trials) == (2, 30)
    assert result.counts["test: tracks of people not enrolled"] == 4
    assert [(one.file, one.reason, one.kind) for one in result.failed] == [
        (names[0], "no face", "FTE"),
        (names[1], "no embedding", "FTE"),
    ]
    point = result.own_gallery.points[0]
    assert point.find("fnir").trials == 28 * 2
    assert point.find("fnir_with_fte").trials == 30 * 2
    assert point.find("fnir_with_fte").errors == point.find("fnir").errors + 4


def test_the_result_is_an_evaluation_that_survives_json(result):
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["task"] == "doc2surv" and not plain["simulated"]
    evaluation = result.to_evaluation()
    again = Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False)))
    assert again.headline == evaluation.headline and again.subjects == evaluation.subjects
    names = [one.name for one in evaluation.headline]
    assert {"GFNMR at FMR 0.02", "FNIR at FPIR 0.1", "FTE (people)"} <= set(names)
    assert [one.people for one in evaluation.growth] == [(50, 60, 200, 10_000)] * 2
    assert evaluation.worst[0].kind == "mated" and evaluation.worst[-1].kind == "non-mated"
    assert len(evaluation.failures) == len(LOST)


def test_two_models_are_paired_on_the_same_people(sets, result):
    documents, tracks = sets
    noise = np.random.default_rng(5).normal(0, 0.12, tracks.vectors.shape)
    worse = unit(tracks.vectors + noise)
    worse[list(LOST)] = 0
    other = evaluate_doc2surv(
        documents, build_tracks(worse, tracks.people, names=tracks.names), QUICK, model="worse"
    )
    comparison = compare_evaluations(
        [result.to_evaluation(), other.to_evaluation()], ["a", "b"], resamples=200
    )
    difference = next(d for d in comparison.differences if d.name == "GFNMR at FMR 0.02")
    assert difference.value > 0 and difference.verdict == "worse"


def test_the_same_seed_gives_the_same_result(sets, result, distractors):
    again = evaluate_doc2surv(*sets, QUICK, distractors=distractors, model="pool")
    assert again.verification == result.verification and again.galleries == result.galleries


def test_pictures_on_both_sides_are_refused_or_listed():
    documents, tracks = draw_sets(30, 20)
    vectors = tracks.vectors.copy()
    vectors[4] = documents.vectors[1]
    copied = build_tracks(vectors, tracks.people, names=tracks.names)
    settings = {"fmrs": (), "fpirs": (0.3,), "resamples": 100}
    with pytest.raises(InputError, match="near-duplicate"):
        evaluate_doc2surv(documents, copied, Doc2SurvSettings(**settings))
    result = evaluate_doc2surv(documents, copied, Doc2SurvSettings(**settings, allow_overlap=True))
    assert [one.second for one in result.overlaps] == [str(tracks.names[4])]


def test_unnamed_people_count_one_by_one():
    documents, tracks = draw_sets(40, 180, 2)
    people = ["" if person[0] == "u" else person for person in tracks.people.tolist()]
    unnamed = build_tracks(tracks.vectors, people, names=tracks.names, videos=tracks.names)
    settings = Doc2SurvSettings(fmrs=(), fpirs=(0.1,), resamples=100)
    result = evaluate_doc2surv(documents, unnamed, settings)
    found = result.own_gallery.points[0].find("fpir")
    assert found.trials == found.people == 180
    subjects = next(
        one for one in result.to_evaluation().subjects if one.figure.startswith("FPIR")
    ).subjects
    assert all(name.startswith("unnamed v") for name in subjects)
    assert any("360 tracks bear no name" in text for text in result.protocol)


def test_people_of_other_names_are_no_mates():
    documents, tracks = draw_sets(20, 10)
    renamed = build_tracks(tracks.vectors, [f"x{p}" for p in tracks.people])
    with pytest.raises(InputError, match="do the people of documents and tracks bear the same"):
        evaluate_doc2surv(documents, renamed)


def test_slices_count_their_tracks_and_name_the_empty_ones():
    sizes = np.tile([10.0, 20, 30], 100)
    more = {"sizes_px": sizes, "qualities": np.arange(300.0), "years": np.full(300, 2022.5)}
    documents, tracks = draw_sets(
        60, 40, 3, noise=0.35, documents={"years": np.full(60, 2020)}, tracks=more
    )
    settings = Doc2SurvSettings(fmrs=(0.03,), fpirs=(), resamples=100, quality_parts=2)
    result = evaluate_doc2surv(documents, tracks, settings)
    found = {one.dimension: dict(one.parts) for one in result.slices}
    size = found["face size"]
    assert [size[k].trials for k in ("below 16 px", "16 to 24 px", "24 to 40 px")] == [30] * 3
    assert size["from 80 px"].reason == "not supported: no track"
    assert size["below 16 px"].interval is not None
    assert sum(figure.trials for figure in found["quality"].values()) == 90
    assert found["years"]["2 to 5 years"].trials == 90
    assert sum(figure.trials for figure in found["camera"].values()) == 90


def test_distractors_from_files(tmp_path):
    people = draw_people(30)
    np.save(tmp_path / "a.npy", people[:20])
    np.savez(tmp_path / "b.npz", vectors=people[20:] * 3)
    found = read_distractors(tmp_path, seed=1)
    assert sorted(found.order.tolist()) == list(range(30))
    np.testing.assert_allclose(found.vectors, people, atol=1e-6)
    assert not set(found.take("dev", 15)) & set(found.take("test", 15))
    np.save(tmp_path / "c.npy", draw_people(3, dim=8))
    with pytest.raises(InputError, match=r"24 dimensions and c\.npy 8"):
        read_distractors(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="must hold embeddings"):
        read_distractors(tmp_path / "none")


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (draw_people(100, dim=8), "8 dimensions and documents 24"),
        (draw_people(100) * 2, "of unit norm, but row"),
        (np.full((100, 24), np.nan, np.float32), "finite"),
    ],
)
def test_bad_distractors(vectors, message):
    settings = Doc2SurvSettings(fmrs=(), fpirs=(0.3,), resamples=100, sizes=(60,))
    with pytest.raises(InputError, match=message):
        evaluate_doc2surv(*draw_sets(30, 20), settings, distractors=build_distractors(vectors))


def test_a_distractor_who_is_on_a_track_is_refused():
    documents, tracks = draw_sets(30, 20)
    vectors = draw_people(100, 50)
    vectors[:] = tracks.vectors[7]
    settings = Doc2SurvSettings(fmrs=(), fpirs=(0.3,), resamples=100, sizes=(60,))
    with pytest.raises(InputError, match="it must be nobody of the set"):
        evaluate_doc2surv(documents, tracks, settings, distractors=build_distractors(vectors))
