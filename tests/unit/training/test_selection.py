import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.training.selection import (
    SelectionReport,
    count_kept,
    find_sub_center_outliers,
    select_small_losses,
)


def rows_of(mask):
    return mask.nonzero()[:, 0].tolist()


@st.composite
def draw_batch(draw):
    size = draw(st.integers(0, 24))
    values = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    within = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    extra = draw(st.lists(st.integers(0, 6), min_size=5, max_size=5))
    images = [labels.count(own) + extra[own] for own in labels]
    return values, within, labels, images, draw(st.floats(0, 1)), draw(st.integers(0, 3))


def select_by_hand(values, within, labels, images, rate, floor):
    """Return the kept rows by the letter of the docstring."""
    ranked = sorted((i for i in range(len(values)) if within[i]), key=lambda i: (values[i], i))
    count = min(len(ranked), max(1, round(len(ranked) * rate))) if ranked else 0
    kept = set()
    for own in set(labels):
        here = [i for i in ranked if labels[i] == own]
        if floor and here:
            share = min(1.0, floor / images[here[0]])
            kept |= set(here[: math.floor(len(here) * share + 1e-9)])
    for row in ranked:
        if len(kept) >= count:
            break
        kept.add(row)
    return sorted(kept)


@given(draw_batch())
@settings(max_examples=300, deadline=None)
def test_selection_is_that_of_brute_force(batch):
    values, within, labels, images, rate, floor = batch
    kept = select_small_losses(
        torch.tensor(values, dtype=torch.float32),
        rate,
        torch.tensor(within, dtype=torch.bool),
        torch.tensor(labels, dtype=torch.int64),
        floor,
        torch.tensor(images, dtype=torch.int64),
    )
    assert rows_of(kept) == select_by_hand(*batch)


def test_a_rate_of_one_keeps_all_and_ties_go_to_the_first():
    losses = torch.tensor([2.0, 1.0, 1.0, 1.0, 3.0], requires_grad=True)
    assert select_small_losses(losses, 1.0).all()
    kept = select_small_losses(losses, 0.4)
    assert rows_of(kept) == [1, 2] and kept.dtype == torch.bool and not kept.requires_grad
    assert rows_of(select_small_losses(losses, 0.0)) == [1]
    assert count_kept(10, 0.25) == 2 and count_kept(3, 0.0) == 1 and count_kept(0, 1.0) == 0


def test_nan_counts_as_the_largest_loss():
    losses = torch.tensor([math.nan, 2.0, math.inf, 1.0])
    assert rows_of(select_small_losses(losses, 0.75)) == [1, 2, 3]


def test_nothing_to_choose_from_gives_nothing():
    losses = torch.ones(3)
    nobody = torch.zeros(3, dtype=torch.bool)
    assert rows_of(select_small_losses(losses, 0.5, nobody)) == []
    labels = torch.arange(3)
    assert rows_of(select_small_losses(losses, 0.5, nobody, labels, 2)) == []


def test_the_floor_keeps_identities_with_few_images():
    losses = torch.tensor([0.1, 0.2, 0.3, 0.4, 9.0, 8.0, 7.0])
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    images = torch.tensor([50, 50, 50, 50, 1, 2, 2])
    assert rows_of(select_small_losses(losses, 0.5)) == [0, 1, 2, 3]
    # One image: kept. Two images and a floor of one: the easier of them.
    kept = select_small_losses(losses, 0.5, None, labels, 1, images)
    assert rows_of(kept) == [0, 1, 4, 6]
    # More protected rows than the rate keeps: all of them stay.
    assert rows_of(select_small_losses(losses, 0.1, None, labels, 2, images)) == [4, 5, 6]
    # Unknown numbers of images: each identity keeps so many of its rows.
    assert rows_of(select_small_losses(losses, 0.1, None, labels, 1)) == [0, 4, 6]
    with pytest.raises(InputError, match="needs labels, got none"):
        select_small_losses(losses, 0.5, floor_per_identity=1)
    with pytest.raises(InputError, match="keep_rate must lie in"):
        select_small_losses(losses, 1.5)


def test_sub_centre_outliers_are_far_from_what_most_images_vote_for():
    def row(*angles):
        return [math.cos(math.radians(angle)) for angle in angles]

    cosines = torch.tensor(
        [
            row(30, 80, 90),  # class 4: two votes for the first sub-centre
            row(74, 80, 90),
            row(76, 20, 90),  # nearest to another one, and 76 degrees from the dominant
            row(80, 79, 78),  # class 1: one vote each for the last and the second: the second
            row(85, 10, 60),
        ]
    )
    labels = torch.tensor([4, 4, 4, 1, 1])
    assert find_sub_center_outliers(cosines, labels).tolist() == [False, False, True, True, False]
    assert find_sub_center_outliers(cosines, labels, 79.5).tolist() == [False] * 5
    order = torch.tensor([3, 2, 0, 4, 1])
    shuffled = find_sub_center_outliers(cosines[order], labels[order])
    assert shuffled.tolist() == [True, True, False, False, False]
    assert find_sub_center_outliers(cosines[:0], labels[:0]).tolist() == []


def test_one_sub_centre_is_a_plain_angle_threshold():
    cosines = torch.tensor([[1.0000001], [0.2], [0.3], [-1.0]])
    found = find_sub_center_outliers(cosines, torch.zeros(4, dtype=torch.int64))
    assert found.tolist() == [False, True, False, True]


def test_bad_sub_centre_input_is_explained():
    with pytest.raises(InputError, match=r"cosines must have shape \(n, K\)"):
        find_sub_center_outliers(torch.ones(3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match="max_angle_deg"):
        find_sub_center_outliers(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), 200)


def test_a_report_adds_up_over_an_epoch_and_forgets():
    report = SelectionReport()
    assert report.as_dict() == {}
    kept = np.array([True, True, True, False])
    report.add(kept)
    assert report.as_dict() == {"kept": 3, "dropped": 1, "kept_share": 0.75}
    report.reset()
    report.add(kept, np.array([True, True, False, False]))
    report.add(~kept, np.array([True, False, False, True]))
    # Kept: clean 3, noisy 1; dropped: clean 1, noisy 3.
    assert report.as_dict() == {
        "kept": 4,
        "dropped": 4,
        "kept_share": 0.5,
        "kept_precision": 0.75,
        "kept_recall": 0.75,
        "noise_precision": 0.75,
        "noise_recall": 0.75,
    }
    resumed = SelectionReport()
    resumed.load_state_dict(report.state_dict())
    assert resumed.as_dict() == report.as_dict()
    report.reset()
    assert report.as_dict() == {} and resumed.as_dict() != {}


def test_a_report_leaves_out_what_would_divide_by_nothing():
    report = SelectionReport()
    report.add(np.array([True, True]), np.array([True, True]))
    found = report.as_dict()
    assert found["kept_precision"] == found["kept_recall"] == 1
    assert "noise_precision" not in found and "noise_recall" not in found
