import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.datasets import hold_out, read_chip_set
from facerec.data.loader import ChipDataset, ChipLoader
from facerec.data.manifest import build_manifest, write_manifest
from facerec.data.transforms import Augmentation, resize_chip

FACE = {
    "box": [10, 10, 90, 110],
    "landmarks": [30, 40, 70, 40, 50, 60, 35, 80, 65, 80],
    "det_score": 0.9,
    "faces": 1,
    "policy": "largest",
}


def write_chip(path, value, size=112):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((size, size, 3), value, np.uint8)
    image[: size // 2, : size // 4] = 255 - value
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def folder(tmp_path):
    for person, count in (("zoe", 4), ("amy", 3), ("one", 1), (".hidden", 5)):
        for number in range(count):
            write_chip(tmp_path / "chips" / person / f"{number}.png", 20 + 10 * number)
    (tmp_path / "chips" / "amy" / "notes.txt").write_text("not a picture")
    return tmp_path / "chips"


def test_folder_labels_are_sorted_identities_and_small_ones_are_named(folder):
    chips = read_chip_set(manifest=None, folder=folder)
    assert chips.identities == ("amy", "zoe") and chips.dropped == {"one": 1}
    assert chips.labels.tolist() == [0] * 3 + [1] * 4
    assert [path.name for path in chips.paths[:3]] == ["0.png", "1.png", "2.png"]
    assert "1 identities with 1 chips dropped" in chips.describe()
    assert read_chip_set(manifest=None, folder=folder, min_images=1).identities == (
        "amy",
        "one",
        "zoe",
    )


def test_manifest_rows_without_chip_or_identity_are_left_out(tmp_path):
    rows = []
    cases = [("b", "x", ""), ("b", "x", "train"), ("a", "x", "train"), ("", "x", ""), ("a", "", "")]
    for number, (identity, chip, split) in enumerate(cases):
        name = f"chips/{number}.png" if chip else ""
        if chip:
            write_chip(tmp_path / name, 40)
        rows.append(
            {
                "path": f"{number}.jpg",
                "sha256": f"{number:064x}",
                "width": 200,
                "height": 200,
                "identity": identity,
                "split": split,
                "chip": name,
                "reason": "" if chip else "no face",
                **(FACE if chip else {}),
            }
        )
    write_manifest(build_manifest(rows), tmp_path / "clean.parquet")
    chips = read_chip_set(manifest=tmp_path / "clean.parquet", folder=None, min_images=1)
    assert chips.identities == ("a", "b") and chips.labels.tolist() == [0, 1, 1]
    assert [str(p.relative_to(tmp_path)) for p in chips.paths] == [
        "chips/2.png",
        "chips/0.png",
        "chips/1.png",
    ]
    part = read_chip_set(
        manifest=tmp_path / "clean.parquet", folder=None, min_images=1, split="train"
    )
    assert len(part) == 2


def test_missing_data_is_said(tmp_path):
    with pytest.raises(InputError, match="got none"):
        read_chip_set(manifest=None, folder=None)
    with pytest.raises(InputError, match=r"got data\.manifest and data\.folder"):
        read_chip_set(manifest=tmp_path / "a", folder=tmp_path)
    with pytest.raises(InputError, match="sub-folder an identity"):
        read_chip_set(manifest=None, folder=tmp_path / "absent")
    with pytest.raises(InputError, match="at least 2 chips each, got 0 chips"):
        read_chip_set(manifest=None, folder=tmp_path)


def test_hold_out_takes_whole_people(tmp_path):
    for person in range(10):
        for number in range(2):
            write_chip(tmp_path / f"p{person}" / f"{number}.png", 30)
    chips = read_chip_set(manifest=None, folder=tmp_path)
    kept, held = hold_out(chips, 0.3, seed=4)
    assert len(held.identities) == 3 and len(kept.identities) == 7
    assert not set(kept.identities) & set(held.identities)
    assert held.labels.tolist() == [0, 0, 1, 1, 2, 2]
    again = hold_out(chips, 0.3, seed=4)[1]
    assert again.identities == held.identities and again.digest() == held.digest()
    assert kept.digest() != held.digest()
    with pytest.raises(InputError, match="leaves fewer than two"):
        hold_out(held, 0.1, seed=0)


def test_order_is_a_pure_function_of_seed_and_epoch(folder):
    chips = read_chip_set(manifest=None, folder=folder, min_images=1)
    loader = ChipLoader(ChipDataset(chips, 32), 3, seed=5)
    assert loader.steps_per_epoch == 2
    assert loader.order(1).tolist() == ChipLoader(ChipDataset(chips, 32), 3, 5).order(1).tolist()
    orders = {tuple(loader.order(epoch)) for epoch in range(4)}
    assert len(orders) == 4 and all(len(set(order)) == 6 for order in orders)


@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("workers", [0, 3])
def test_batches_depend_neither_on_workers_nor_cache_nor_where_an_epoch_starts(
    folder, workers, cache
):
    chips = read_chip_set(manifest=None, folder=folder)
    reference = ChipLoader(ChipDataset(chips, 56, "none"), 2, 9, Augmentation(blur=0.5), 0)
    loader = ChipLoader(ChipDataset(chips, 56, cache), 2, 9, Augmentation(blur=0.5), workers)
    for epoch in range(2):
        expected = list(reference.iter_epoch(epoch))
        for first in (0, 2):
            found = list(loader.iter_epoch(epoch, first))
            assert len(found) == 3 - first
            for a, b in zip(expected[first:], found, strict=True):
                assert np.array_equal(a.images, b.images) and a.images.shape == (2, 56, 56, 3)
                assert np.array_equal(a.labels, chips.labels[b.indices])


def test_a_loader_left_early_stops_its_threads(folder):
    import threading

    chips = read_chip_set(manifest=None, folder=folder)
    batches = ChipLoader(ChipDataset(chips, 32), 2, 0, workers=2).iter_epoch(0)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("chips")]


def test_bad_chips_and_batches_are_named(folder):
    chips = read_chip_set(manifest=None, folder=folder)
    with pytest.raises(InputError, match=r"number of chips \(7\), got 8; set batch_size=7"):
        ChipLoader(ChipDataset(chips), 8, 0)
    bad = chips.paths[2]
    bad.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"amy.2\.png"):
        list(ChipLoader(ChipDataset(chips), 7, 0, workers=2).iter_epoch(0))
    cv2.imwrite(str(bad), np.zeros((100, 112, 3), np.uint8))
    with pytest.raises(InputError, match="square aligned chip, got 112x100"):
        ChipDataset(chips).read(2)


def test_chips_shrink_by_area():
    chip = np.zeros((112, 112, 3), np.uint8)
    chip[::2] = 200
    assert np.unique(resize_chip(chip, 56)).tolist() == [100]
    assert resize_chip(chip, 112) is chip


def test_augmentation_does_what_it_says():
    chip = np.full((8, 8, 3), 100, np.uint8)
    chip[:, :2] = 10
    still = Augmentation(0, 0, 0, 0)
    rng = np.random.default_rng
    assert np.array_equal(still.apply(chip, rng(0)), chip)
    mirror = Augmentation(1, 0, 0, 0).apply(chip, rng(0))
    assert np.array_equal(mirror, chip[:, ::-1])
    # Turning one part off leaves the draws of the others as they were.
    whole = Augmentation(1, 0.2, 0.2, 0).apply(chip, rng(3))
    half = Augmentation(0, 0.2, 0.2, 0).apply(chip, rng(3))
    assert np.array_equal(whole[:, ::-1], half)
    soft = Augmentation(0, 0, 0, 1).apply(chip, rng(0))
    assert 10 < soft[4, 1, 0] < 100 or 10 < soft[4, 2, 0] < 100


@given(seed=st.integers(0, 2**32), brightness=st.floats(0, 1), contrast=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_light_changes_are_monotone_and_never_wrap(seed, brightness, contrast):
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    out = Augmentation(0, brightness, contrast, 0).apply(ramp, np.random.default_rng(seed))
    levels = out.reshape(-1, 3)[:, 0].astype(int)
    assert (np.diff(levels) >= 0).all()
    assert np.abs(levels - np.arange(256)).max() <= 255 * brightness + 127.5 * contrast + 1
