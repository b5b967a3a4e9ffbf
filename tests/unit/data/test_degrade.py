"""Degradation as a whole: how often, in what order, replayed, ramped up, independent parts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.degrade import (
    SURVEILLANCE,
    Degradation,
    build_degradation,
    replay,
)
from facerec.data.degrade_optics import DownUp
from facerec.data.degrade_replay import OPERATIONS, run_operations
from facerec.data.synthetic import make_chips

NOTHING = dict.fromkeys(OPERATIONS, 0.0)
EVERYTHING = dict.fromkeys(OPERATIONS, 1.0)


@pytest.fixture(scope="module")
def chip():
    return make_chips(1, 1, seed=6)[0][0]


def rng(seed=0):
    return np.random.default_rng(seed)


def steps(record):
    return {step["name"]: step for step in record.get("operations", [])}


def test_the_order_is_that_of_the_light():
    assert list(OPERATIONS) == [
        "print_scan",
        "defocus",
        "motion",
        "down_up",
        "interlace",
        "low_light",
        "sensor_noise",
        "h264",
        "jpeg",
    ]


def test_nothing_is_the_very_chip(chip):
    before = chip.copy()
    for degradation in (Degradation(probability=0.0), Degradation(**NOTHING)):
        for seed in range(20):
            image, record = degradation.apply(chip, rng(seed))
            assert image is chip
            assert record == {}
    assert np.array_equal(chip, before)
    assert replay(chip, {}) is chip


def test_everything_leaves_a_json_record_that_replays(chip):
    before = chip.copy()
    everything = Degradation(probability=1.0, **EVERYTHING)
    for seed in range(4):
        image, record = everything.apply(chip, rng(seed))
        assert [step["name"] for step in record["operations"]] == list(OPERATIONS)
        again = json.loads(json.dumps(record))
        assert again == record
        assert np.array_equal(replay(chip, again), image)
        assert np.array_equal(everything.apply(chip, rng(seed))[0], image)
        assert not np.array_equal(image, chip)
    assert np.array_equal(chip, before)


@pytest.mark.parametrize("build", [Degradation, Degradation.surveillance, Degradation.document])
def test_presets_replay(build, chip):
    degradation = build()
    for seed in range(12):
        image, record = degradation.apply(chip, rng(seed), force=True)
        assert (image.shape, image.dtype) == (chip.shape, np.uint8)
        assert np.array_equal(replay(chip, json.loads(json.dumps(record))), image)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), st.integers(1, 48), st.integers(0, 999), st.floats(0, 1))
def test_no_size_is_too_odd(height, width, seed, severity):
    image = rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preset = Degradation.surveillance(severity, print_scan=0.5)
    out, record = preset.apply(image, rng(seed), force=True)
    assert (out.shape, out.dtype) == (image.shape, np.uint8)
    assert np.array_equal(replay(image, record), out)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (5, 3), (64, 48)])
def test_every_operation_takes_every_size(height, width):
    image = rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out, record = Degradation(probability=1.0, **EVERYTHING).apply(image, rng(2))
    assert len(record["operations"]) == len(OPERATIONS)
    assert out.shape == image.shape


def test_a_view_that_is_not_contiguous_is_taken(chip):
    mirrored = chip[:, ::-1]
    preset = Degradation.surveillance(0.5)
    expected = preset.apply(np.ascontiguousarray(mirrored), rng(3), force=True)[0]
    assert np.array_equal(preset.apply(mirrored, rng(3), force=True)[0], expected)


def test_one_in_five_by_default():
    degradation, tiny = Degradation(), np.full((2, 2, 3), 128, np.uint8)
    generator, count = rng(7), 4000
    records = [degradation.apply(tiny, generator)[1] for _ in range(count)]
    shares = [getattr(degradation, name) for name in OPERATIONS]
    expected = 0.2 * (1 - np.prod(1 - np.array(shares)))
    assert expected == pytest.approx(0.19, abs=0.01)
    spread = np.sqrt(expected * (1 - expected) / count)
    assert abs(np.mean([bool(record) for record in records]) - expected) < 4 * spread
    for name, share in zip(OPERATIONS, shares, strict=True):
        found = np.mean([name in steps(record) for record in records])
        spread = np.sqrt(max(1e-9, 0.2 * share * (1 - 0.2 * share) / count))
        assert abs(found - 0.2 * share) <= 4 * spread


def test_turning_one_off_leaves_the_others(chip):
    every = Degradation(probability=1.0, **EVERYTHING)
    for name in OPERATIONS:
        for seed in range(3):
            whole = steps(every.apply(chip, rng(seed))[1])
            less = steps(replace(every, **{name: 0.0}).apply(chip, rng(seed))[1])
            whole.pop(name)
            assert less == whole


def test_the_number_of_draws_is_fixed(chip):
    def after(degradation, **options):
        generator = rng(5)
        degradation.apply(chip, generator, **options)
        return generator.random()

    everything = Degradation(probability=1.0, **EVERYTHING)
    expected = after(Degradation(**NOTHING))
    assert after(everything) == expected
    assert after(everything, progress=0.1, force=True) == expected
    assert after(Degradation.document(0.3)) == expected


@settings(max_examples=50, deadline=None)
@given(*[st.floats(0, 1) for _ in range(5)])
def test_the_ramp_rises(start, width, initial, early, late):
    early, late = sorted((early, late))
    full = min(1.0, start + width)
    degradation = Degradation(ramp_start=start, ramp_full=full, initial_share=initial)
    assert initial <= degradation.share(early) <= degradation.share(late) <= 1 + 1e-9
    assert degradation.share(1.0) == 1
    assert full == 0 or degradation.share(0.0) == initial


def test_the_ramp_in_numbers():
    degradation = Degradation(ramp_start=0.2, ramp_full=0.6, initial_share=0.25)
    shares = [degradation.share(progress) for progress in (0, 0.2, 0.4, 0.6, 1)]
    assert shares == pytest.approx([0.25, 0.25, 0.625, 1, 1])
    assert Degradation(ramp_start=0.5, ramp_full=0.5).share(0.5) == 1


def test_the_curriculum_raises_probability_and_strength(chip):
    degradation = Degradation(
        probability=1.0, ramp_full=1.0, initial_share=0.0, **NOTHING | {"down_up": 1.0}
    )
    strengths, counts = [], []
    for progress in (0.1, 0.4, 0.7, 1.0):
        records = [steps(degradation.apply(chip, rng(seed), progress)[1]) for seed in range(300)]
        counts.append(sum(bool(record) for record in records))
        forced = [degradation.apply(chip, rng(seed), progress, force=True) for seed in range(20)]
        strengths.append([steps(record)["down_up"]["scale"] for _, record in forced])
    assert counts == sorted(counts)
    assert counts[-1] == 300
    # The same draws at every progress: each scale falls on its own.
    assert (np.diff(np.array(strengths), axis=0) < 0).all()


def test_severity_costs_likeness(chip):
    def error(severity):
        preset = Degradation.surveillance(severity, h264=0)
        pictures = [preset.apply(chip, rng(seed), force=True)[0] for seed in range(25)]
        return np.mean([(picture.astype(float) - chip) ** 2 for picture in pictures])

    found = [error(severity) for severity in (0, 0.35, 0.7, 1)]
    assert found == sorted(found)


def test_force_applies_a_surveillance_operation(chip):
    rare = dict.fromkeys(SURVEILLANCE, 1e-6)
    names = set()
    for seed in range(40):
        degradation = Degradation(probability=0.0, print_scan=1.0, **rare)
        _, record = degradation.apply(chip, rng(seed), force=True)
        found = [step["name"] for step in record["operations"]]
        assert found[0] == "print_scan"
        assert len(found) == 2
        names.add(found[1])
    assert len(names) > 4
    only = Degradation(probability=0.0, **NOTHING | {"motion": 0.01})
    assert list(steps(only.apply(chip, rng(), force=True)[1])) == ["motion"]
    assert list(steps(Degradation.document().apply(chip, rng(), force=True)[1])) == ["print_scan"]
    with pytest.raises(InputError, match="force needs an operation with a probability above 0"):
        Degradation(**NOTHING).apply(chip, rng(), force=True)


def test_few_pixels_stay_few_until_the_end(chip):
    record = Degradation(
        probability=1.0, **NOTHING | {"down_up": 1.0, "sensor_noise": 1.0, "defocus": 1.0}
    ).apply(chip, rng(1))[1]
    kinds = [OPERATIONS[step["name"]] for step in record["operations"]]
    defocus, few, noise = (
        kind(**{k: v for k, v in step.items() if k != "name"})
        for kind, step in zip(kinds, record["operations"], strict=True)
    )
    small = noise.apply(few.shrink(defocus.apply(chip)))
    assert small.shape[0] == round(few.scale * 112)
    assert np.array_equal(replay(chip, record), few.enlarge(small, 112, 112))
    twice = run_operations(chip, [DownUp(0.5), DownUp(0.5)])
    assert twice.shape == chip.shape


def test_pixels_grow_with_the_chip(chip):
    degradation = Degradation(probability=1.0, **NOTHING | {"motion": 1.0})
    small = steps(degradation.apply(chip, rng(4))[1])["motion"]
    large = steps(degradation.apply(chip.repeat(2, axis=0).repeat(2, axis=1), rng(4))[1])["motion"]
    assert large["length_px"] == pytest.approx(2 * small["length_px"])
    assert large["angle_deg"] == small["angle_deg"]


def test_recipes_build_presets():
    assert build_degradation("none") is None
    built = build_degradation("surveillance", 0.3, probability=0.4, jpeg_quality=[80, 50])
    assert built == Degradation.surveillance(0.3, probability=0.4, jpeg_quality=(80.0, 50.0))
    assert built.probability == 0.4
    document = build_degradation("document", 1)
    assert document.print_severity == (0.25, 1.0)
    assert all(getattr(document, name) == 0 for name in SURVEILLANCE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Degradation(probability=1.5), "probability must lie in"),
        (lambda: Degradation(motion="often"), "motion must be a number"),
        (lambda: Degradation(jpeg_quality=(40, 90)), r"from mild to harsh.*write \(90, 40\)"),
        (lambda: Degradation(jpeg_quality=40), "jpeg_quality must be two numbers"),
        (lambda: Degradation(h264_crf=(20, 60)), r"h264_crf must lie in \[0, 51\]"),
        (lambda: Degradation(ramp_start=0.6, ramp_full=0.5), "ramp_full must not come before"),
        (lambda: Degradation().share(1.1), "progress must lie in"),
        (lambda: Degradation.surveillance(2), "severity must lie in"),
        (lambda: Degradation.document(0.5, jpg=1), "no parameter 'jpg'; did you mean 'jpeg'"),
        (lambda: build_degradation("survaillance"), "did you mean 'surveillance'"),
        (lambda: Degradation().apply(np.zeros((4, 4)), rng()), "chip must be a uint8"),
    ],
)
def test_bad_settings_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"version": 9, "operations": []}, "must have version 1, got 9"),
        ({"version": 1}, "must hold a list of operations"),
        ({"version": 1, "operations": [{"name": "defocsu"}]}, "did you mean 'defocus'"),
        ({"version": 1, "operations": [{"name": "defocus"}]}, "lacks radius_px"),
        ({"version": 1, "operations": [{"name": "defocus", "radius": 1}]}, "no parameter 'radius'"),
        ({"version": 1, "operations": [{"name": "defocus", "radius_px": -1}]}, "must lie in"),
    ],
)
def test_bad_records_are_refused(record, message, chip):
    with pytest.raises(InputError, match=message):
        replay(chip, record)
