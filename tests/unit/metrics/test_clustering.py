import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.clustering import (
    NORMALISATIONS,
    cluster_figures,
    count_contingency,
    normalised_mutual_information,
)

LABELS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-1, 5), min_size=n, max_size=n),
        st.lists(st.integers(-1, 5), min_size=n, max_size=n),
    )
)


def bcubed_by_loop(people, clusters):
    rows = range(len(people))
    precision = recall = 0.0
    for i in rows:
        cluster = [j for j in rows if clusters[j] == clusters[i]]
        person = [j for j in rows if people[j] == people[i]]
        both = len(set(cluster) & set(person))
        precision += both / len(cluster) / len(people)
        recall += both / len(person) / len(people)
    return precision, recall


def pairs_by_loop(people, clusters):
    right = joined = true = 0
    for i, j in itertools.combinations(range(len(people)), 2):
        own, together = people[i] == people[j], clusters[i] == clusters[j]
        right, joined, true = right + (own and together), joined + together, true + own
    return right, joined, true


@given(LABELS)
@settings(max_examples=80, deadline=None)
def test_figures_equal_brute_force(labels):
    people, clusters = labels
    found = cluster_figures(people, clusters)
    precision, recall = bcubed_by_loop(people, clusters)
    assert found.bcubed.precision == pytest.approx(precision)
    assert found.bcubed.recall == pytest.approx(recall)
    assert found.bcubed.f_score == pytest.approx(2 * precision * recall / (precision + recall))
    right, joined, true = pairs_by_loop(people, clusters)
    assert found.pairwise.precision == (right / joined if joined else None)
    assert found.pairwise.recall == (right / true if true else None)
    assert found.pairwise.f_score == (2 * right / (joined + true) if joined + true else None)
    assert (found.rows, found.people, found.clusters) == (
        len(people),
        len(set(people)),
        len(set(clusters)),
    )


@given(LABELS)
@settings(max_examples=20, deadline=None)
def test_figures_equal_sklearn(labels):
    metrics = pytest.importorskip("sklearn.metrics")
    people, clusters = labels
    found = cluster_figures(people, clusters)
    assert found.nmi == pytest.approx(
        metrics.normalized_mutual_info_score(people, clusters), abs=1e-9
    )
    table = count_contingency(people, clusters)
    for name in NORMALISATIONS:
        expected = metrics.normalized_mutual_info_score(people, clusters, average_method=name)
        assert normalised_mutual_information(table, name) == pytest.approx(expected, abs=1e-9)
    _, joined_wrongly, split, joined_rightly = metrics.pair_confusion_matrix(
        people, clusters
    ).ravel()
    if joined_rightly:
        assert found.pairwise.precision == joined_rightly / (joined_rightly + joined_wrongly)
        assert found.pairwise.recall == joined_rightly / (joined_rightly + split)


def test_hand_computed_miniature():
    found = cluster_figures(["a", "a", "a", "b", "b"], [1, 1, 2, 2, 2])
    # Cluster 1 is pure; cluster 2 holds one of a and two of b.
    assert found.bcubed.precision == pytest.approx((2 * 1 + 1 / 3 + 2 * 2 / 3) / 5)
    assert found.bcubed.recall == pytest.approx((2 * 2 / 3 + 1 / 3 + 2 * 1) / 5)
    # Joined: 1 + 3 pairs, of which 1 + 1 are right; of one person: 3 + 1.
    assert (found.pairwise.precision, found.pairwise.recall) == (0.5, 0.5)
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    shared = 0.4 * math.log(0.4 / 0.24) + 0.2 * math.log(0.2 / 0.36) + 0.4 * math.log(0.4 / 0.24)
    assert found.nmi == pytest.approx(shared / entropy)


@given(LABELS, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_order_and_names_do_not_matter_and_the_sides_mirror(labels, seed):
    people, clusters = np.array(labels)
    order = np.random.default_rng(seed).permutation(people.size)
    renamed = np.array(list("cbadefg"))[clusters[order] + 1]
    found, again = cluster_figures(people, clusters), cluster_figures(people[order], renamed)
    assert again.pairwise == found.pairwise
    assert again.nmi == pytest.approx(found.nmi)
    assert again.bcubed.precision == pytest.approx(found.bcubed.precision)
    mirrored = cluster_figures(clusters, people)
    assert mirrored.pairwise.precision == found.pairwise.recall
    assert mirrored.bcubed.precision == pytest.approx(found.bcubed.recall)
    assert mirrored.nmi == pytest.approx(found.nmi)


def test_perfect_and_useless_clusterings():
    people = [1, 1, 2, 2]
    perfect = cluster_figures(people, ["x", "x", "y", "y"])
    assert perfect.bcubed.f_score == perfect.pairwise.f_score == perfect.nmi == 1
    together = cluster_figures(people, [0, 0, 0, 0])
    assert (together.bcubed.recall, together.bcubed.precision, together.nmi) == (1, 0.5, 0)
    apart = cluster_figures(people, [0, 1, 2, 3])
    assert (apart.pairwise.precision, apart.pairwise.recall, apart.pairwise.f_score) == (None, 0, 0)
    assert cluster_figures([1, 1], [5, 5]).nmi == 1


def test_noise_rows_are_clusters_of_their_own():
    people = [1, 1, 2, 2, 3]
    given_noise = cluster_figures(people, [-1, -1, 4, 4, -1], noise=-1)
    assert given_noise == cluster_figures(people, [0, 1, 4, 4, 5])
    assert given_noise.clusters == 4
    assert cluster_figures(people, ["", "", "x", "x", ""], noise="") == given_noise
    assert cluster_figures(people, [-1, -1, 4, 4, -1]).clusters == 2


def test_sizes_of_the_contingency_table():
    table = count_contingency(["b", "a", "b", "b"], [7, 7, 9, 9])
    assert table.person_sizes().tolist() == [1, 3]
    assert table.cluster_sizes().tolist() == [2, 2]
    assert sorted(table.cells.tolist()) == [1, 1, 2]


@pytest.mark.parametrize(
    ("people", "clusters", "noise", "message"),
    [
        ([1, 2], [1], None, "equal length"),
        ([], [], None, "at least one row"),
        ([[1]], [[1]], None, "people must be a row"),
        ([1.0], [1], None, "whole numbers or text"),
        ([1], [1], "x", "label as clusters has them"),
    ],
)
def test_bad_input_is_one_sentence(people, clusters, noise, message):
    with pytest.raises(InputError, match=message):
        cluster_figures(people, clusters, noise)
    with pytest.raises(InputError, match="did you mean 'geometric'"):
        normalised_mutual_information(count_contingency([1], [1]), "geometrical")
