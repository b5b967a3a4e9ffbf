import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import coarse, cosine, faces, lowest_threshold

from eval.media import Templates, pool_templates
from eval.protocol_ijb import TemplateList, identify_templates, verify_templates
from facerec.checks import InputError


def templates_of(vectors):
    count = len(vectors)
    ones = np.ones(count, np.int64)
    made = np.any(vectors != 0, axis=1)
    return Templates(10 * np.arange(count), vectors, ones * made, ones * ~made, ones * made)


def unit(*degrees):
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees], np.float32)


def test_a_search_of_two_galleries_by_hand():
    # G1 enrols a at 0 degrees and b at 90; G2 enrols c at 180. FPIR 1 allows every stranger.
    templates = templates_of(unit(0, 90, 180, *[10] * 10, *[80] * 10, *[175] * 12))
    ids = templates.ids
    one = TemplateList("G1", ids[:2], ["a", "b"])
    two = TemplateList("G2", ids[2:3], ["c"])
    probes = TemplateList("probes", ids[3:], ["a"] * 10 + ["b"] * 10 + ["c"] * 12)
    found = identify_templates(templates, [one, two], probes, fpirs=[1.0], resamples=0)
    first, second = found.searches
    assert (first.own.size, first.best.size) == (20, 12)
    assert (second.own.size, second.best.size) == (12, 20)
    assert (first.people, second.people) == (2, 1)
    np.testing.assert_allclose(first.best, np.cos(np.radians(85)), atol=1e-6)
    np.testing.assert_allclose(second.best[:10], np.cos(np.radians(170)), atol=1e-6)
    # The lowest score observed in each search is the threshold there, not a pooled one.
    mean, g1, g2 = found.tpir[0]
    assert g1.threshold == pytest.approx(np.cos(np.radians(85)), abs=1e-6)
    assert g2.threshold == pytest.approx(np.cos(np.radians(170)), abs=1e-6)
    assert mean.value == 1 and [rate.value for rate in found.ranks] == [1, 1, 1]
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [g["people"] for g in plain["galleries"]] == [2, 1]
    assert set(plain["tpir_at_fpir"][0]["galleries"]) == {"G1", "G2"}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 1, 2]))
def test_both_galleries_equal_brute_force(seed, rank):
    rng = np.random.default_rng(seed)
    vectors = coarse(rng, 6 + 60)
    subjects = np.concatenate([np.arange(6), np.arange(6), rng.integers(6, size=54)])
    templates = templates_of(vectors)
    lists = [
        TemplateList(name, templates.ids[part], subjects[part])
        for name, part in (("G1", slice(3)), ("G2", slice(3, 6)), ("probes", slice(6, None)))
    ]
    found = identify_templates(
        templates, lists[:2], lists[2], fpirs=[0.8], ranks=[1, 2], rank=rank, resamples=0
    )
    values, ranks = [], []
    for people in (range(3), range(3, 6)):
        own, best, right = [], [], []
        for probe, subject in zip(vectors[6:], subjects[6:].tolist(), strict=True):
            scores = [cosine(probe, vectors[person]) for person in people]
            if subject in people:
                place = list(people).index(subject)
                mine = scores[place]
                ahead = sum(s > mine for s in scores) + sum(s == mine for s in scores[:place])
                lost = mine == -np.inf
                right.append(np.inf if lost else 1 + ahead)
                own.append(-np.inf if rank is not None and 1 + ahead > rank else mine)
            else:
                best.append(max(scores))
        threshold = lowest_threshold(best, own, 0.8)
        hits = 0 if threshold is None else sum(s >= threshold for s in own)
        values.append(hits / len(own))
        ranks.append([np.mean([r <= k for r in right]) for k in (1, 2)])
    for k in (0, 1):
        assert found.ranks[k].value == pytest.approx(np.mean([r[k] for r in ranks]))
    if all(search.best.size >= 13 for search in found.searches):
        assert found.tpir[0][0].value == pytest.approx(np.mean(values))


def test_verification_equals_brute_force_and_counts_failures():
    vectors, people = faces(12, 8)
    vectors[5] = 0
    templates = templates_of(vectors)
    first, second = (row.ravel() for row in np.triu_indices(96, 1))
    same = people[first] == people[second]
    subjects = TemplateList("the lists", templates.ids, people)
    found = verify_templates(
        templates, 10 * first, 10 * second, same, subjects=subjects, fars=(0.1, 0.01, 1e-3),
        resamples=100,
    )  # fmt: skip
    scores = [cosine(vectors[a], vectors[b]) for a, b in zip(first, second, strict=True)]
    strangers = [s for s, mated in zip(scores, same, strict=True) if not mated]
    for rate in found.tar[:2]:
        threshold = lowest_threshold(strangers, scores, rate.target)
        hits = [s >= threshold for s, mated in zip(scores, same, strict=True) if mated]
        assert rate.value == pytest.approx(np.mean(hits), abs=1e-6)
        assert rate.interval.low <= rate.value <= rate.interval.high
    assert not found.tar[2].supported and "10 need 10,000" in found.tar[2].reason
    assert (found.templates, found.failed_templates, found.failed_pairs) == (96, 1, 95)
    assert (found.people, found.mated) == (12, int(same.sum()))
    joined = verify_templates(templates, 10 * first, 10 * second, same, resamples=100)
    assert joined.people == 12 and "mated pairs" in joined.note
    assert joined.tar[0] == found.tar[0]
    json.dumps(found.to_json(), allow_nan=False)


def test_media_weights_reach_the_figures():
    rng = np.random.default_rng(0)
    vectors, people = faces(30, 6, 1.5)
    norms = rng.uniform(0.1, 9, 180)
    ids = np.repeat(np.arange(60), 3)
    media = rng.integers(2, size=180)
    pools = [
        pool_templates(vectors, norms, ids, media, use_norms=norm, detector_scores=scores)
        for norm, scores in ((True, None), (False, None), (True, rng.random(180)))
    ]
    first, second = np.triu_indices(60, 1)
    same = people[::3][first] == people[::3][second]
    found = [verify_templates(pool, first, second, same, resamples=0, fars=[0.1]) for pool in pools]
    assert len({rate.tar[0].threshold for rate in found}) == 3


@pytest.mark.parametrize(
    ("galleries", "probes", "message"),
    [
        ([], ("p", [20], [1]), "at least one gallery"),
        ([("G1", [0], [1]), ("G2", [10], [1])], ("p", [20], [1]), "1 people are in both G1 and G2"),
        ([("G1", [0], [1])], ("p", [0], [1]), "1 templates are in both G1 and p"),
        ([("G1", [5], [1])], ("p", [20], [1]), "templates of G1 have no face .first: 5"),
        ([("G1", [0], [1])], ("p", [25], [1]), "templates of p have no face"),
        ([("G1", [0, 0], [1, 1])], ("p", [20], [1]), "lists template 0 2 times"),
        ([("G1", [], [])], ("p", [20], [1]), "G1 holds no template"),
        ([("G1", [0], [1, 2])], ("p", [20], [1]), "subjects of G1 must be"),
    ],
)
def test_bad_lists_are_named(galleries, probes, message):
    templates = templates_of(unit(0, 10, 20))
    with pytest.raises(InputError, match=message):
        lists = [TemplateList(*entry) for entry in galleries]
        identify_templates(templates, lists, TemplateList(*probes))


@pytest.mark.parametrize(
    ("pairs", "subjects", "message"),
    [
        (([0, 0], [10, 20], [1, 1]), None, "none is non-mated"),
        (([0, 3], [10, 20], [1, 0]), None, r"have no face \(first: 3\)"),
        (([0, 0], [10, 0], [1, 0]), None, "compares face 0 with itself"),
        (([0, 0], [10, 20], [1, 0]), ([0, 10], [1, 1]), "no subject in s .first: 20"),
        (([0, 0], [10, 20], [1, 0]), ([0, 10, 20], [1, 2, 3]), "contradict the people"),
    ],
)
def test_bad_pairs_are_named(pairs, subjects, message):
    named = None if subjects is None else TemplateList("s", *subjects)
    with pytest.raises(InputError, match=message):
        verify_templates(templates_of(unit(0, 10, 20)), *pairs, subjects=named)
