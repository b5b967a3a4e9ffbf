"""Noise plans: exact counts, the truth's laws; and crawls made of them, atomic and neutral."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.inject import (
    CLEAN,
    DUPLICATE,
    FLIP,
    KINDS,
    LEAK,
    LOW_QUALITY,
    OUTLIER,
    NoiseRates,
    plan_noise,
)
from data_tools.inject_folder import inject
from facerec.checks import InputError
from facerec.io import read_json

REPOSITORY = Path(__file__).resolve().parents[3]
RATES = {
    "flips": 0.2,
    "outliers": 0.1,
    "splits": 0.1,
    "merges": 0.1,
    "duplicates": 0.05,
    "low_quality": 0.05,
    "leakage": 0.05,
}
ALL = {**RATES, "outlier_pool": 500, "leak_labels": np.repeat(np.arange(30), 4)}
LABELS = np.repeat(np.arange(40), np.random.default_rng(1).integers(4, 30, 40))


def plan(labels=LABELS, seed=0, **settings):
    return plan_noise(labels, np.random.default_rng(seed), **settings)


def fold(noisy):
    """Return person -> the folders that are theirs, by the plan's own word."""
    folders = {}
    for place, whom in enumerate(noisy.owner.tolist()):
        folders.setdefault(whom, set()).add(place)
    for one, two in noisy.merges.tolist():
        folders[two] = folders[one]
    return folders


def test_counts_are_the_shares_of_the_final_rows():
    noisy = plan(**ALL)
    total, counts = len(noisy.source), noisy.count_kinds()
    assert counts["flip"] == round(0.2 * total) and counts["outlier"] == round(0.1 * total)
    for kind in ("duplicate", "low quality", "leak"):
        assert counts[kind] == round(0.05 * total)
    assert len(noisy.splits) == 4 and len(noisy.merges) == 4
    added = counts["outlier"] + counts["duplicate"] + counts["leak"]
    assert total - added == len(LABELS) and not len(noisy.left_out) and not noisy.thinned
    assert sum(counts.values()) == total


def test_the_truth_keeps_its_laws():
    noisy = plan(**ALL)
    kind, folders = noisy.kind, fold(noisy)
    base = ~np.isin(kind, (OUTLIER, DUPLICATE, LEAK))
    assert np.array_equal(np.sort(noisy.source[base]), np.arange(len(LABELS)))
    for code in (CLEAN, FLIP, LOW_QUALITY, DUPLICATE):
        rows = kind == code
        assert np.array_equal(noisy.person[rows], LABELS[noisy.source[rows]])
    home = np.array(
        [g in folders.get(p, ()) for g, p in zip(noisy.given, noisy.person, strict=True)]
    )
    assert home[np.isin(kind, (CLEAN, LOW_QUALITY, DUPLICATE))].all()
    assert not home[kind == FLIP].any()
    assert (noisy.person[kind == OUTLIER] == -1).all()
    assert len(set(noisy.source[kind == OUTLIER])) == (kind == OUTLIER).sum()
    place = dict(zip(noisy.source[base], np.flatnonzero(base), strict=True))
    for copy in np.flatnonzero(kind == DUPLICATE):
        original = place[noisy.source[copy]]
        assert kind[original] == CLEAN and noisy.given[original] == noisy.given[copy]
    leaks = noisy.person[kind == LEAK]
    assert leaks.min() >= 40 and (noisy.owner[noisy.given[kind == LEAK]] == leaks).all()
    assert np.array_equal(np.unique(noisy.given), np.arange(len(noisy.owner)))


def test_halves_have_two_rows_and_merged_folders_bear_the_larger_ones_name():
    noisy = plan(splits=0.2, merges=0.2)
    for large, small in noisy.splits.tolist():
        assert noisy.owner[large] == noisy.owner[small]
        sizes = [(noisy.given == place).sum() for place in (large, small)]
        assert sizes[0] >= sizes[1] >= 2 and sizes[1] >= 0.29 * sum(sizes) - 1
    for one, two in noisy.merges.tolist():
        rows = [noisy.person == whom for whom in (one, two)]
        assert rows[0].sum() >= rows[1].sum()
        assert len(set(noisy.given[rows[0] | rows[1]])) == 1
        assert noisy.owner[noisy.given[rows[1]][0]] == one
    assert not set(noisy.merges.ravel()) & set(noisy.owner[noisy.splits.ravel()])


def test_flips_go_to_folders_in_proportion_to_size():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    noisy = plan(labels, flips=0.5)
    flips = noisy.kind == FLIP
    from_last = noisy.given[flips & (noisy.person == 2)]
    assert np.mean(from_last == 0) == pytest.approx(2 / 3, abs=0.15)


def test_the_same_seed_gives_the_same_plan_and_arrays_cannot_be_changed():
    one, two, other = plan(seed=3, **ALL), plan(seed=3, **ALL), plan(seed=4, **ALL)
    for name in ("source", "given", "person", "kind", "owner", "splits", "merges"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert not np.array_equal(one.source, other.source)
    with pytest.raises(ValueError, match="read-only"):
        one.given[0] = 1


def test_people_are_left_out_until_the_pool_suffices():
    noisy = plan(outliers=0.5, outlier_pool=100)
    counts = noisy.count_kinds()
    assert len(noisy.left_out) and counts["outlier"] <= 100
    assert counts["outlier"] == round(0.5 * len(noisy.source))
    assert not set(noisy.left_out) & set(noisy.person)
    assert set(noisy.left_out) | set(noisy.owner) == set(range(40))
    with pytest.raises(InputError, match="even for two people"):
        plan(outliers=0.5, outlier_pool=10)


def test_long_tail_thins_to_small_folders():
    labels = np.repeat(np.arange(400), 50)
    sizes = np.bincount(plan(labels, profile="long tail").given)
    assert sizes.min() == 3 and sizes.max() > 20
    assert np.mean(sizes <= 10) == pytest.approx(1 - 3 / 11, abs=0.08)
    few = plan(np.array([0, 0, 1, 1, 1, 2, 2, 2]), profile="long tail")
    assert set(few.person) == {1, 2} and few.thinned == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flips": 1.2}, "flips must lie in"),
        ({"flips": 0.5, "outliers": 0.46}, "must together be at most"),
        ({"merges": 0.6}, "a merge takes two people"),
        ({"outliers": 0.1}, "need more than the 0 strangers"),
        ({"leakage": 0.1}, "test people with at least 3"),
        ({"profile": "flat"}, "profile must be one of"),
        ({"labels": np.zeros(9, np.int64)}, "at least two people, got 1"),
        ({"labels": np.array([0, 0, 0, 1, 1, 1]), "splits": 0.5}, "1 people of 4 rows to split"),
        ({"labels": np.array([0, 1] * 4), "merges": 0.5, "flips": 0.2}, "somebody else"),
        ({"labels": np.array([0, 1] * 4), "flips": 0.5, "duplicates": 0.4}, "right rows to copy"),
    ],
)
def test_what_cannot_be_planned_is_named(settings, message):
    with pytest.raises(InputError, match=message):
        plan(**settings)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 12), min_size=6, max_size=15),
    flips=st.floats(0, 0.3),
    outliers=st.floats(0, 0.3),
    low=st.floats(0, 0.1),
    splits=st.floats(0, 0.3),
    merges=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)
def test_any_plan_accounts_for_every_row(sizes, flips, outliers, low, splits, merges, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    shares = {"flips": flips, "outliers": outliers, "low_quality": low}
    noisy = plan(labels, seed, **shares, splits=splits, merges=merges, outlier_pool=200)
    kept = ~np.isin(labels, noisy.left_out)
    base = noisy.kind != OUTLIER
    assert np.array_equal(np.sort(noisy.source[base]), np.flatnonzero(kept))
    folders = fold(noisy)
    strays = [g in folders.get(p, ()) for g, p in zip(noisy.given, noisy.person, strict=True)]
    assert not np.any(np.array(strays) & np.isin(noisy.kind, (FLIP, OUTLIER)))
    assert len(noisy.owner) == noisy.given.max() + 1


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (28, 28, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC))
    os.utime(path, (1e9, 1e9))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    for person in range(12):
        for number in range(6):
            draw(root / "clean" / f"Name_{person}" / f"{number}.jpg", (person, number))
    draw(root / "clean" / "loose.jpg", 1)
    for number in range(20):
        draw(root / "others" / ("Name_3" if number < 3 else "x") / f"{number}.jpg", (50, number))
        draw(root / "test" / f"T{number // 4}" / f"{number}.png", (60, number))
    return root


RATES_HERE = NoiseRates(**{**RATES, "flips": 0.1})


def make(clean, out, seed=0, **settings):
    pools = {"outliers_from": clean / "others", "leak_from": clean / "test"} | settings
    return inject(clean / "clean", out, settings.pop("rates", RATES_HERE), seed=seed, **pools)


def test_a_crawl_of_links_with_the_truth_beside_it(clean, tmp_path):
    info = make(clean, tmp_path / "noisy")
    crawl = tmp_path / "noisy" / "crawl"
    rows = pq.read_table(tmp_path / "noisy" / "truth.parquet").to_pylist()
    files = {p.relative_to(crawl).as_posix() for p in crawl.rglob("*") if p.is_file()}
    assert files == {row["key"] for row in rows} and len(rows) == info["pictures"]
    assert all(re.fullmatch(r"p\d{7}/\d{6}\.(jpg|png)", name) for name in files)
    roots = {"set": "clean", "outliers": "others", "leak": "test"}
    for row in rows:
        place, source = crawl / row["key"], clean / roots[row["origin"]] / row["source"]
        changed = row["kind"] in ("duplicate", "low quality")
        assert place.samefile(source) != changed
        assert place.stat().st_mtime == source.stat().st_mtime == 1e9
        assert place.suffix == source.suffix
        assert (row["kind"] == "outlier") == (row["person"] == "")
        assert (row["copy_of"] in files) == (row["kind"] == "duplicate")
    assert {row["kind"] for row in rows} == set(KINDS)
    assert sum(info["kinds"].values()) == info["pictures"]
    assert info["unlabelled"] == 1 and info["of_same_name"] == 3
    assert info == read_json(tmp_path / "noisy" / "inject.json")


def test_one_person_has_one_name_and_it_is_the_folders(clean, tmp_path):
    make(clean, tmp_path / "noisy")
    rows = pq.read_table(tmp_path / "noisy" / "truth.parquet").to_pylist()
    names, homes = {}, {}
    for row in rows:
        if row["origin"] == "set":
            names.setdefault(row["source"].split("/")[0], set()).add(row["person"])
        if row["kind"] == "clean":
            homes.setdefault(row["person"], set()).add(row["key"].split("/")[0])
    assert all(len(one) == 1 for one in names.values()) and len(names) == 12
    away = [person for person, folders in homes.items() if person not in folders]
    split = [person for person, folders in homes.items() if len(folders) == 2]
    assert len(away) == 1 and len(split) == 1  # the smaller one of the merged; the split one


def measure_detail(path):
    image = cv2.imread(str(path)).astype(np.float32)
    return (image - cv2.blur(image, (9, 9))).var()


def test_poor_pictures_lose_detail_and_copies_keep_it(clean, tmp_path):
    make(clean, tmp_path / "noisy")
    left = {"duplicate": [], "low quality": []}
    for row in pq.read_table(tmp_path / "noisy" / "truth.parquet").to_pylist():
        if row["kind"] in left:
            made = measure_detail(tmp_path / "noisy" / "crawl" / row["key"])
            left[row["kind"]].append(made / measure_detail(clean / "clean" / row["source"]))
    assert min(left["duplicate"]) > 0.6 and max(left["low quality"]) < 0.3
    assert len(left["duplicate"]) == len(left["low quality"]) == 4


def read_all(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(clean, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make(clean, tmp_path / name, seed)
    one, two, other = (read_all(tmp_path / name) for name in "abc")
    assert one == two and one["truth.parquet"] != other["truth.parquet"]


def test_bad_places_are_refused_and_nothing_is_left(clean, tmp_path):
    (tmp_path / "there").mkdir()
    for out, changes, message in (
        (tmp_path / "there", {}, "exists; give a new folder"),
        (clean / "clean" / "noisy", {}, "must lie outside"),
        (tmp_path / "n", {"outliers_from": None}, "--outliers-from must name"),
        (tmp_path / "n", {"leak_from": None}, "--leak-from must name"),
        (tmp_path / "n", {"leak_from": tmp_path / "none"}, "must be a folder"),
        (tmp_path / "n", {"outliers_from": tmp_path / "there"}, "holds no picture"),
    ):
        with pytest.raises(InputError, match=message):
            make(clean, out, **changes)
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_unreadable_pictures_are_not_changed(clean, tmp_path):
    for person in range(3):
        for number in range(5):
            draw(tmp_path / "bad" / f"N{person}" / f"{number}.jpg", number)
            (tmp_path / "bad" / f"N{person}" / f"{number}.jpg").write_bytes(b"no picture")
    rates = NoiseRates(low_quality=0.2, duplicates=0.2)
    info = inject(tmp_path / "bad", tmp_path / "noisy", rates)
    assert info["kinds"]["clean"] == 15 == info["pictures"] and info["unreadable"] == 8


KILLED = """
import os, signal, sys
from pathlib import Path
import data_tools.inject_folder as folder
real, done = os.link, []
def link(*names):
    done.append(names)
    if len(done) > 20:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*names)
os.link = link
folder.inject(Path(sys.argv[1]), Path(sys.argv[2]), folder.NoiseRates(flips=0.2))
"""


def test_killed_there_is_nothing_and_again_gives_the_same(clean, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(clean / "clean"), str(tmp_path / "noisy")]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "noisy").exists()
    inject(clean / "clean", tmp_path / "noisy", NoiseRates(flips=0.2))
    inject(clean / "clean", tmp_path / "fresh", NoiseRates(flips=0.2))
    assert read_all(tmp_path / "noisy") == read_all(tmp_path / "fresh")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh", "noisy"]
