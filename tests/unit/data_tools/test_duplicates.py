"""Near-duplicates against a plain search of all pairs, and thresholds found from the set."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_tools import duplicate_cut
from data_tools.duplicate_cut import DIFFERENT_BITS, find_copy_cut
from data_tools.duplicates import KINDS, find_duplicates, settle_across
from data_tools.hashes import count_bits, hash_chips
from facerec.checks import InputError
from facerec.data.synthetic import make_chips


def scale(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def find_graph(vectors, k):
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    near = np.argpartition(-scores, min(k, len(scores) - 1), axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, near, axis=1), axis=1, kind="stable")
    near = np.take_along_axis(near, order, axis=1)
    return near.astype(np.int32), np.take_along_axis(scores, near, axis=1)


def make_set(seed=0, people=30, rows=12, dim=48, copies=60, spread=0.7):
    """Return vectors, labels, hashes and the row each planted copy was made of, -1 for none."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), rows)
    centres = scale(rng.standard_normal((people, dim)))
    noise = rng.standard_normal((len(labels), dim)) / np.sqrt(dim)
    vectors = scale(centres[labels] + spread * noise)
    hashes = rng.integers(0, 2**63, len(labels), dtype=np.uint64)
    origin = rng.choice(len(labels), copies, replace=False)
    near = vectors[origin] + 0.1 * rng.standard_normal((copies, dim)) / np.sqrt(dim)
    bits = hashes[origin] ^ (np.uint64(1) << rng.integers(0, 64, copies).astype(np.uint64))
    moved = np.where(rng.random(copies) < 0.3, rng.integers(0, people, copies), labels[origin])
    return (
        np.concatenate([vectors, scale(near)]),
        np.concatenate([labels, moved]).astype(np.int64),
        np.concatenate([hashes, bits]),
        np.concatenate([np.full(len(labels), -1), origin]),
    )


def judge_all_pairs(vectors, labels, hashes, quality, cut):
    """Return the kept row of each row by the definition: best rows first, twice."""
    cosines = vectors @ vectors.T
    bits = count_bits(hashes[:, None], hashes[None])
    near = (bits <= cut.bits) & (cosines >= cut.agree)
    copies = near | ((cosines >= cut.cosine) & (bits <= DIFFERENT_BITS))
    order = np.lexsort((np.arange(len(labels)), -quality))
    kept = np.full(len(labels), -1)
    for same in (True, False):
        left = kept < 0
        for row in order:
            if kept[row] >= 0:
                continue
            fits = copies[row] & left & (kept < 0) & ((labels == labels[row]) == same)
            fits[row] = False
            kept[fits] = row
    return kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("cosine", "bits"), [(0.97, 2), (0.8, 0), (0.6, 4)])
def test_kept_rows_are_those_of_a_search_of_all_pairs(seed, cosine, bits):
    vectors, labels, hashes, _ = make_set(seed)
    quality = np.random.default_rng(seed).integers(0, 5, len(labels)).astype(np.float64)
    found = find_duplicates(
        vectors,
        labels,
        *find_graph(vectors, len(labels) - 1),
        hashes,
        quality=quality,
        cosine=cosine,
        bits=bits,
    )
    expected = judge_all_pairs(vectors, labels, hashes, quality, found.cut)
    assert (expected >= 0).sum() >= 50
    assert np.array_equal(found.kept_row, expected)
    taken = np.flatnonzero(expected >= 0)
    assert np.array_equal(found.across[taken], labels[taken] != labels[expected[taken]])
    assert np.allclose(found.cosine[taken], (vectors[taken] * vectors[expected[taken]]).sum(axis=1))
    assert np.array_equal(found.bits[taken], count_bits(hashes[taken], hashes[expected[taken]]))


def test_planted_copies_are_found_with_thresholds_of_its_own():
    vectors, labels, hashes, origin = make_set(people=200, copies=200)
    found = find_duplicates(vectors, labels, *find_graph(vectors, 10), hashes)
    assert np.array_equal(np.flatnonzero(found.kept_row >= 0), np.flatnonzero(origin >= 0))
    assert np.array_equal(found.kept_row[origin >= 0], origin[origin >= 0])
    assert found.across.sum() > 20
    assert found.cut.photos >= 2000 and found.cut.strangers > 1_000_000
    assert found.cut.bits >= 2 and found.cut.agree < found.cut.cosine == 0.9


def test_row_order_changes_nothing():
    vectors, labels, hashes, _ = make_set(people=200, copies=200)
    quality = np.random.default_rng(1).random(len(labels))
    graph = find_graph(vectors, 10)
    found = find_duplicates(vectors, labels, *graph, hashes, quality=quality)
    order = np.random.default_rng(2).permutation(len(labels))
    mixed = find_duplicates(
        vectors[order],
        labels[order],
        *find_graph(vectors[order], 10),
        hashes[order],
        quality=quality[order],
    )
    back = np.where(mixed.kept_row >= 0, order[mixed.kept_row], -1)
    assert np.array_equal(back, found.kept_row[order])
    assert mixed.cut == found.cut


def lie_at(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("quality", "kept"), [([1, 2, 3, 4], [1, -1, 3, -1]), ([1, 3, 2, 0], [1, -1, 1, -1])]
)
def test_chains_make_no_groups(quality, kept):
    vectors = lie_at(0, 10, 20, 30)
    found = find_duplicates(
        vectors,
        np.zeros(4, np.int64),
        *find_graph(vectors, 3),
        quality=np.array(quality, float),
        cosine=float(np.cos(np.deg2rad(11))),
    )
    assert found.kept_row.tolist() == kept


def test_bytes_and_hashes_need_a_cosine_that_agrees():
    vectors = lie_at(0, 90, 30, 31)
    sha = np.array([b"one", b"one", b"", b""], "S8")
    hashes = np.array([7, 7, 56, 56], np.uint64)
    graph = find_graph(vectors, 3)
    labels = np.zeros(4, np.int64)
    found = find_duplicates(vectors, labels, *graph, hashes, sha, cosine=0.9999)
    assert found.kept_row.tolist() == [-1, -1, -1, 2]
    assert KINDS[found.kind[3]] == "near picture"
    bytes_too = find_duplicates(
        lie_at(0, 1, 50, 51), labels, *graph, sha=np.array([5, 5, 0, 0]), cosine=0.9999
    )
    assert bytes_too.kept_row.tolist() == [-1, 0, -1, -1]
    assert KINDS[bytes_too.kind[1]] == "same bytes"


def embed(chips):
    """Return what a model that flips would: thumbnails with their mirror image, whitened a bit."""
    small = np.stack([cv2.resize(chip, (14, 14), interpolation=cv2.INTER_AREA) for chip in chips])
    both = (small.astype(np.float64) + small[:, :, ::-1]).reshape(len(chips), -1)
    return scale(both - both.mean(axis=1, keepdims=True))


def test_recoded_noisy_cropped_and_mirrored_copies_of_chips():
    chips, labels, _ = make_chips(30, 2, seed=4)
    rng = np.random.default_rng(0)
    noisy = np.clip(chips[0] + rng.normal(0, 4, chips[0].shape), 0, 255).astype(np.uint8)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", chips[9], [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
    crop = cv2.resize(chips[20][1:-1, 1:-1], (112, 112))
    copies = np.stack([noisy, jpeg, crop, chips[30][:, ::-1]])
    chips = np.concatenate([chips, copies])
    labels = np.concatenate([labels, labels[[0, 9, 20]], [29]])
    vectors = embed(chips)
    found = find_duplicates(
        vectors,
        labels,
        *find_graph(vectors, 5),
        hash_chips(chips),
        mirrors=hash_chips(chips, mirrored=True),
        cosine=0.999,
        bits=4,
    )
    assert np.flatnonzero(found.kept_row >= 0).tolist() == [60, 61, 62, 63]
    assert found.kept_row[60:].tolist() == [0, 9, 20, 30]
    assert found.mirrored[60:].tolist() == [False, False, False, True]
    assert found.across[60:].tolist() == [False, False, False, True]


@pytest.mark.parametrize("by", ["hash", "bytes"])
def test_hundreds_of_copies_leave_one_though_the_graph_is_narrow(by):
    vectors, labels, hashes, _ = make_set(copies=0)
    n, many = len(labels), 300
    rng = np.random.default_rng(1)
    near = scale(vectors[:1] + 0.05 * rng.standard_normal((many, 48)) / np.sqrt(48))
    vectors = np.concatenate([vectors, near])
    labels = np.concatenate([labels, np.zeros(many, np.int64)])
    quality = np.concatenate([np.zeros(n), rng.random(many)])
    keys = np.concatenate([hashes, np.full(many, hashes[0])])
    given = {"hashes": keys} if by == "hash" else {"sha": keys}
    graph = find_graph(vectors, 3)
    found = find_duplicates(vectors, labels, *graph, quality=quality, cosine=0.99999, **given)
    kept = np.flatnonzero(found.kept_row < 0)
    assert len(kept) == n and n + int(np.argmax(quality[n:])) in kept


def test_one_picture_under_hundreds_of_names_stays_with_one():
    rng = np.random.default_rng(1)
    shown = scale(np.ones((200, 16)) + 0.05 * rng.standard_normal((200, 16)))
    labels, hashes = np.arange(200), np.full(200, 5, np.uint64)
    found = find_duplicates(shown, labels, *find_graph(shown, 3), hashes, cosine=0.99999)
    assert found.across.sum() == 199
    right = rng.random(200)
    assert np.flatnonzero(~settle_across(found, right)).tolist() == [int(np.argmax(right))]


def test_blank_chips_of_different_people_are_no_copies():
    vectors, labels, _, _ = make_set(copies=0, spread=1.5)
    blank = np.zeros(len(labels), np.uint64)
    found = find_duplicates(vectors, labels, *find_graph(vectors, 5), blank, mirrors=blank)
    assert not (found.kept_row >= 0).any()


def test_settling_keeps_the_likeliest_and_its_identity():
    # Row 1 is kept; 0 and 2 of identity 5 are copies of it, not of each other; 3 is a third's.
    vectors = lie_at(0, 10, 20, 10)
    labels = np.array([5, 6, 5, -1])
    found = find_duplicates(
        vectors,
        labels,
        *find_graph(vectors, 3),
        quality=np.array([0.0, 1, 0, 0]),
        cosine=float(np.cos(np.deg2rad(11))),
    )
    assert found.kept_row.tolist() == [1, -1, 1, 1] and found.across.tolist() == [1, 0, 1, 1]
    drop = settle_across(found, np.array([0.9, 0.5, 0.2, 0.1]))
    assert drop.tolist() == [False, True, False, True]
    tied = settle_across(found, np.array([0.5, 0.5, np.nan, 0.5]))
    assert tied.tolist() == [False, True, False, True]
    assert settle_across(found, np.array([0, 1.0, 0, 0])).tolist() == [True, False, True, True]
    assert settle_across(found, np.full(4, np.nan)).tolist() == [False, True, False, True]


def test_near_but_different_photos_raise_the_cosine():
    rng = np.random.default_rng(0)
    vectors, labels, hashes, _ = make_set(people=250, copies=0, spread=0.25)
    graph = find_graph(vectors, 10)
    cut = find_copy_cut(vectors, labels, *graph, hashes)
    nearest = np.sort(graph[1][:, 0])
    assert 0.9 < cut.cosine <= nearest[-1]
    assert np.mean(nearest >= cut.cosine) <= 2e-3
    # Copies, told by their hashes, do not count as different photos.
    rows = rng.choice(len(labels), 300, replace=False)
    more = np.concatenate([vectors, vectors[rows]])
    same = [np.concatenate([part, part[rows]]) for part in (labels, hashes)]
    again = find_copy_cut(more, same[0], *find_graph(more, 10), same[1])
    assert again.cosine == pytest.approx(cut.cosine, abs=5e-3)


def test_small_sets_say_why_a_fixed_value_is_taken():
    vectors, labels, hashes, _ = make_set(people=5)
    graph = find_graph(vectors, 5)
    cut = find_copy_cut(vectors, labels, *graph, hashes)
    fixed = duplicate_cut.FALLBACK_COSINE, duplicate_cut.FALLBACK_BITS
    assert (cut.cosine, cut.bits) == fixed
    assert "2000 are needed" in cut.reason and "500000 are needed" in cut.reason
    plain = find_copy_cut(vectors, labels, *graph)
    assert plain.bits == -1 and "without hashes" in plain.reason
    given = find_copy_cut(vectors, labels, *graph, hashes, cosine=0.7, bits=1)
    assert (given.cosine, given.bits) == (0.7, 1) and given.agree <= 0.7


def test_an_empty_set_has_no_duplicates():
    empty = np.zeros((0, 4), np.float32)
    graph = np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32)
    found = find_duplicates(empty, np.zeros(0, np.int64), *graph, np.zeros(0, np.uint64))
    assert found.kept_row.shape == (0,) and settle_across(found, np.zeros(0)).shape == (0,)


def test_bad_input_is_named():
    vectors, labels, hashes, _ = make_set(people=3, copies=5)
    graph = find_graph(vectors, 2)
    with pytest.raises(InputError, match="hashes must have shape"):
        find_duplicates(vectors, labels, *graph, hashes[1:])
    with pytest.raises(InputError, match="neighbours must have shape"):
        find_duplicates(vectors, labels, graph[0][:, 0], graph[1])
    with pytest.raises(InputError, match="mirrors are of use beside hashes"):
        find_duplicates(vectors, labels, *graph, mirrors=hashes)
    with pytest.raises(InputError, match=r"bits must lie in \[0, 10\]"):
        find_duplicates(vectors, labels, *graph, hashes, bits=30)
    with pytest.raises(InputError, match="unit norm"):
        find_duplicates(vectors * 2, labels, *graph)
