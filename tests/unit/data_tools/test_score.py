"""Fates against the truth: hand-counted cases, laws, and a set folder from end to end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.inject import CLEAN, DUPLICATE, FLIP, KINDS, LEAK, LOW_QUALITY, OUTLIER, plan_noise
from data_tools.score_fates import score_fates
from data_tools.score_pairs import find_majority
from data_tools.score_tables import format_kinds, format_methods
from facerec.checks import InputError


def array(text, codes=None):
    """Return the numbers of a row of letters: A is 0, - is -1; or of a row of kinds' initials."""
    if codes is not None:
        return np.array([codes[c] for c in text], np.int8)
    return np.array([-1 if c == "-" else ord(c) - ord("A") for c in text], np.int64)


CODES = dict(zip("cfodql", (CLEAN, FLIP, OUTLIER, DUPLICATE, LOW_QUALITY, LEAK), strict=True))


def score(fate, labels, person, kinds, resamples=0, **more):
    arrays = (array(fate), array(labels), array(person), array(kinds, CODES))
    return score_fates(*arrays, resamples=resamples, **more)


def test_drops_and_relabels_by_hand():
    figures = score(
        #     A: 4 own, a flip of B dropped, an outlier kept    B: 3 own, one lost; flips of A
        fate="AAAA-ABB-ACB",
        labels="AAAAAABBBBBB",
        person="AAAAB-BBBAAA",
        kinds="ccccfocccfff",
    )
    # Of 4 flips one went out, one home, one to a new identity C, which A holds alone; one stays.
    assert figures["flip"] == {
        "count": 4,
        "found": 3,
        "precision": 3 / 4,
        "recall": 3 / 4,
        "f1": 3 / 4,
    }
    assert figures["outlier"]["found"] == 0 and figures["outlier"]["f1"] == 0.0
    assert figures["wrong"]["count"] == 5 and figures["wrong"]["recall"] == 3 / 5
    # C is not A's main identity: moved, but not rightly.
    assert figures["relabel"] == {
        "moved": 2,
        "right": 1,
        "precision": 1 / 2,
        "f1": 2 / 6,
        "of_flips": 1 / 4,
    }
    assert figures["clean"]["lost"] == 1 and figures["clean"]["lost_share"] == 1 / 7
    # Kept and wrong: the outlier in A, the flip that stays in B.
    assert figures["residual"]["share"] == 2 / 10
    assert figures["duplicate"]["precision"] is not None and figures["duplicate"]["recall"] is None


def test_outliers_may_move_among_themselves_but_not_to_somebody():
    figures = score("AAAECCC", "AAAAACC", "AAA--CC", "cccoocc")
    assert figures["outlier"]["found"] == 1 and figures["relabel"]["moved"] == 2
    assert figures["relabel"]["precision"] == 0.0


def test_merges_count_as_pairs_of_given_identities():
    # B and C are A's second and third folder, E is D's; F and G are two people.
    labels = "AAABBBCCCDDDEEEFFFGGG"
    person = "AAAAAAAAADDDDDDFFFGGG"
    fate = "AAAAAACCCDDDDDDFFFFFF"
    merge = score(fate, labels, person, "c" * 21)["merge"]
    assert merge == {
        "true": 4,
        "found": 3,
        "right": 2,
        "false": 1,
        "precision": 2 / 3,
        "recall": 1 / 2,
        "f1": 4 / 7,
    }
    done = score("AAAAAAAAADDDDDDFFFGGG", labels, person, "c" * 21)
    assert done["merge"]["f1"] == 1.0 and done["clean"]["lost"] == 0
    assert done["relabel"]["moved"] == 0 and done["residual"]["share"] == 0.0


def test_a_wrong_merge_moves_no_row_but_leaves_wrong_ones():
    figures = score("AAAAAAA", "AAAABBB", "AAAABBB", "c" * 7)
    assert figures["merge"]["found"] == 1 and figures["merge"]["precision"] == 0.0
    assert figures["clean"]["lost"] == 0 and figures["relabel"]["moved"] == 0
    assert figures["residual"]["share"] == 3 / 7


def test_splits_need_both_people_to_stand_apart():
    labels, person = "AAAAAAACCCCC", "AAAABBBCCCCC"
    right = score("AAAADDDCCCCC", labels, person, "c" * 12)["split"]
    assert (right["true"], right["found"], right["right"]) == (1, 1, 1)
    wrong = score("AAAAAAACCCDD", labels, person, "c" * 12)["split"]
    assert (wrong["found"], wrong["right"], wrong["recall"]) == (1, 0, 0.0)
    stray = score("AAAAAAACCCCD", labels, person, "c" * 12)["split"]
    assert stray["found"] == 0 and stray["precision"] is None
    dropped = score("AAAA---CCCCC", labels, person, "c" * 12)
    assert dropped["split"]["found"] == 0 and dropped["clean"]["lost"] == 3
    across = score("AADDADDCCCCC", labels, person, "c" * 12)["split"]
    assert (across["found"], across["right"]) == (1, 1)  # B's majority parts from A's


def test_a_folder_that_lost_its_own_rows_is_nobodys_home():
    # All that is left of A's folder is a flip of C, moved rightly: no merge of A and C.
    figures = score("----CCCC", "AAAAACCC", "AAAACCCC", "ccccfccc")
    assert figures["merge"]["found"] == 0 and figures["flip"]["found"] == 1
    assert figures["relabel"]["right"] == 1
    stays = score("----ACCC", "AAAAACCC", "AAAACCCC", "ccccfccc")
    assert stays["flip"]["found"] == 0 and stays["relabel"]["moved"] == 0


def test_a_single_row_that_went_astray_is_no_merge_but_a_loss():
    #     one of A's own rows is left, and goes to B by mistake; the flips in A are dropped
    figures = score("B--BBB", "AAABBB", "ABBBBB", "cffccc")
    assert figures["merge"]["found"] == 0 and figures["clean"]["lost"] == 1
    assert figures["relabel"]["moved"] == 1 and figures["relabel"]["right"] == 0
    # Two of A's own rows go to B, but A goes on: again no merge. Were none left, it would be one.
    goes_on = score("BBCBBBA", "AACBBBB", "AACBBBA", "ccccccf")
    assert goes_on["merge"]["found"] == 0 and goes_on["clean"]["lost"] == 2
    joined = score("BBCBBB", "AACBBB", "AACBBB", "cccccc")
    assert joined["merge"]["false"] == 1 and joined["clean"]["lost"] == 0
    # A half of a person with one row left may well have been joined to the other half.
    half = score("AAAA", "AAAB", "AAAA", "cccc")["merge"]
    assert half["true"] == half["right"] == 1


def test_any_picture_of_a_duplicate_group_may_stay():
    copies = np.array([0, 0, 0, 1, 2])
    truth = ("AAAAA", "AAAAA", "cddcc")
    for fate, found, lost in (
        ("A--AA", 2, 0),
        ("-A-AA", 2, 0),
        ("--AAA", 2, 0),
        ("-AAAA", 1, 0),
        ("---AA", 2, 1),
        ("AAAAA", 0, 0),
    ):
        figures = score(fate, *truth, copies=copies)
        assert (figures["duplicate"]["found"], figures["clean"]["lost"]) == (found, lost)


def test_quality_noise_and_leaks():
    labels = np.zeros(40, np.int64)
    fate, kinds = labels.copy(), np.zeros(40, np.int8)
    kinds[:10], fate[:6] = LEAK, -1
    kinds[10:20] = LOW_QUALITY
    fate[[20, 39]] = -1
    quality = np.arange(40.0)
    figures = score_fates(fate, labels, labels, kinds, quality=quality, noise=0.1)
    assert figures["clean"]["hard_lost_share"] == 1 / 2  # rows 20 and 21 of 20 clean ones
    assert figures["leak"]["recall"] == 0.6 and figures["low quality"]["recall"] == 0.0
    assert figures["leak"]["precision"] == 6 / 8
    assert figures["noise"] == {"estimated": 0.1, "true": 0.0, "error": 0.1}
    flat = score_fates(fate, labels, labels, kinds, quality=np.ones(40), resamples=0)
    assert flat["clean"]["hard_lost_share"] is None and flat["noise"]["error"] is None


def test_rows_without_label_are_passed_over():
    one = score("AAAB-", "AAABB", "AAABB", "ccccc")
    two = score("AAABA-", "AAAB-B", "AAABAB", "cccccc")
    assert one == two


def test_intervals_hold_the_figure_and_follow_the_seed():
    labels = np.repeat(np.arange(50), 8)
    noisy = plan_noise(labels, np.random.default_rng(0), flips=0.2)
    rng = np.random.default_rng(1)
    out = np.where(noisy.kind == FLIP, rng.random(len(labels) * 1) < 0.8, rng.random(400) < 0.05)
    fate = np.where(out, -1, noisy.given)
    truth = (noisy.given, noisy.person, noisy.kind)
    figures = score_fates(fate, *truth, resamples=100)
    low, high = figures["intervals"]["flip f1"]
    assert low < figures["flip"]["f1"] < high and high - low < 0.3
    assert figures == score_fates(fate, *truth, resamples=100)
    assert figures != score_fates(fate, *truth, resamples=100, seed=1)
    assert score_fates(fate, *truth, resamples=0)["intervals"] == {}


def build_plan(seed):
    labels = np.repeat(np.arange(20), 9)
    shares = {"flips": 0.2, "outliers": 0.1, "splits": 0.1, "merges": 0.1, "duplicates": 0.05}
    return plan_noise(labels, np.random.default_rng(seed), **shares, outlier_pool=99)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_truth_itself_scores_all_and_names_do_not_matter(seed):
    noisy = build_plan(seed)
    truth = (noisy.given, noisy.person, noisy.kind)
    perfect = np.where(noisy.kind == DUPLICATE, -1, noisy.person)
    figures = score_fates(perfect + 500 * (perfect >= 0), *truth, resamples=0)
    for kind in ("flip", "outlier", "duplicate", "wrong", "merge", "split", "relabel"):
        assert figures[kind]["f1"] == 1.0, kind
    assert figures["clean"]["lost"] == 0 and figures["residual"]["share"] == 0.0
    names = 500 + np.random.default_rng(seed).permutation(100)  # of new ones
    renamed = np.where(perfect >= 0, names[perfect], -1)
    assert score_fates(renamed, *truth, resamples=0) == figures
    nothing = score_fates(noisy.given, *truth, resamples=0)
    assert nothing["flip"]["f1"] == nothing["outlier"]["f1"] == nothing["merge"]["f1"] == 0.0
    assert nothing["relabel"]["moved"] == nothing["clean"]["lost"] == 0
    order = np.random.default_rng(seed).permutation(len(perfect))
    shuffled = score_fates(renamed[order], *(a[order] for a in truth), resamples=0)
    assert shuffled == figures


def test_majorities_against_a_loop():
    rng = np.random.default_rng(0)
    keys, values = rng.integers(0, 30, 200), rng.integers(0, 4, 200)
    found = find_majority(keys, values, 32)
    for key in range(32):
        counts = np.bincount(values[keys == key], minlength=4)
        assert found[key] == (np.argmax(counts) if counts.any() else -1)
    assert find_majority(keys[:0], values[:0], 2).tolist() == [-1, -1]


def test_bad_arrays_are_named():
    with pytest.raises(InputError, match="fate must have shape"):
        score("AA", "AAA", "AAA", "ccc")
    with pytest.raises(InputError, match="kinds must be places"):
        score_fates(*np.zeros((3, 2), np.int64), np.full(2, len(KINDS), np.int8))
    with pytest.raises(InputError, match="copies must have shape"):
        score("AAA", "AAA", "AAA", "ccc", copies=np.zeros(2, np.int64))


def test_tables_show_means_with_spread_and_leave_empty_columns_out():
    one = score("AAA-", "AAAA", "AAA-", "ccco", noise=0.2)
    two = score("AA--", "AAAA", "AAA-", "ccco", noise=0.3)
    text = format_methods({"tool": [one, two], "none": [score("AAAA", "AAAA", "AAA-", "ccco")]})
    head, first, second = text.splitlines()
    assert "outlier F1" in head and "flip F1" not in head and "merge" not in head
    wrong = score("AAAAAAA", "AAAABBB", "AAAABBB", "ccccccc")
    assert "false merges" in format_methods({"x": [wrong]}).splitlines()[0]
    assert "0.8333 ± 0.2357" in first and "+0.0000 ± 0.0707" in first
    assert second.split()[0] == "none" and second.rstrip().endswith("-")
    assert format_kinds(one) == "outlier: 1 of 1, precision 1.0000, recall 1.0000, f1 1.0000"
