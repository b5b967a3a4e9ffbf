import numpy as np
import pytest
from gallery_cases import faces, ones, toy

from facerec.checks import InputError
from facerec.gallery.calibration import describe_threshold, explain_growth
from facerec.gallery.gallery import Gallery
from facerec.metrics.error_rates import scale_fpir

PEOPLE = 60


@pytest.fixture
def gallery(tmp_path):
    with toy(tmp_path, threshold=0.9) as gallery:
        names = [f"person {n}" for n in range(PEOPLE)]
        gallery.enrol_many(names, faces(PEOPLE), ones(PEOPLE))
        yield gallery


def strangers(count=3000, seed=5):
    return faces(count, seed), [f"s{n}" for n in range(count)]


def test_a_calibrated_threshold_is_stored_logged_and_keeps_its_word(gallery):
    probes, subjects = strangers()
    (found,) = gallery.calibrate(probes, subjects, fpir=0.05, purpose="first")
    assert found.supported and found.result.people == PEOPLE
    threshold = found.result.threshold
    assert gallery.store.read_threshold() == threshold
    (answer,) = gallery.search(faces(1))
    assert answer.threshold == threshold and answer.fpir == pytest.approx(0.05)
    fresh, _ = strangers(seed=7)
    realised = np.mean([a.person is not None for a in gallery.search(fresh, top=1)])
    future = found.result.predict(len(fresh))
    assert future.low <= realised <= future.high < 0.1
    entry = next(e for e in gallery.list_audit() if e.action == "threshold")
    assert (entry.purpose, entry.details["kind"]) == ("first", "fpir")
    assert gallery.verify_audit() == []
    assert "FPIR 0.05 at 60 people" in describe_threshold(gallery.store.list_thresholds()[-1])
    with Gallery.open(gallery.store.folder) as again:
        assert again.search(faces(1))[0].fpir == pytest.approx(0.05)
        assert again.verify_audit() == []


def test_a_gallery_that_grows_says_what_its_threshold_is_worth(gallery):
    assert "was never calibrated" in explain_growth(gallery)
    gallery.calibrate(*strangers(), fpir=0.05)
    assert explain_growth(gallery) == ""
    gallery.enrol_many([f"new {n}" for n in range(6)], faces(6, 8), ones(6))
    assert explain_growth(gallery) == ""  # by a tenth
    gallery.enrol("one more", faces(1, 9), ones(1))
    assert "has grown from 60 to 67 people" in explain_growth(gallery)
    assert gallery.search(faces(1))[0].fpir == pytest.approx(scale_fpir(0.05, 60, 67))


def test_a_planned_size_needs_a_higher_threshold(gallery):
    (now,) = gallery.calibrate(*strangers(), fpir=0.05)
    (then,) = gallery.calibrate(*strangers(), fpir=0.05, people=10 * PEOPLE)
    assert then.result.threshold > now.result.threshold and then.result.people == 600
    assert gallery.search(faces(1))[0].fpir == pytest.approx(scale_fpir(0.05, 600, 60))


def test_what_nothing_supports_is_not_stored(gallery):
    before = gallery.store.read_threshold()
    (found,) = gallery.calibrate(*strangers(40), fpir=1e-4)
    assert not found.supported and found.result.needed_subjects > 1000
    assert gallery.store.read_threshold() == before and gallery.verify_audit() == []
    assert found.to_json()["threshold"] is None and found.to_json()["supported"] is False


def test_one_to_one_has_a_threshold_of_its_own(gallery):
    several = np.repeat(faces(120, 5), 2, axis=0) + 0.05 * faces(240, 6)
    several /= np.linalg.norm(several, axis=1, keepdims=True)
    subjects = np.repeat(np.arange(120), 2)
    (found,) = gallery.calibrate(several.astype(np.float32), subjects, fmr=0.01)
    assert found.supported and found.result.kind == "fmr"
    (comparison,) = gallery.compare("person 0", faces(1))
    assert comparison.threshold == found.result.threshold and comparison.fmr == 0.01
    assert gallery.store.read_threshold() == 0.9  # searching all is another question


def test_impostors_who_look_enrolled_are_named(gallery):
    probes, subjects = strangers(500)
    probes[7] = faces(PEOPLE)[3]
    (found,) = gallery.calibrate(probes, subjects, fpir=0.05)
    assert found.suspects[0][0] == "s7" and found.suspects[0][1] > 0.99


def test_known_strangers_are_nobody_s_false_alarm(gallery):
    probes, subjects = strangers(500)
    gallery.enrol_many([f"x{n}" for n in range(20)], probes[:20], ones(20), kind="stranger")
    (found,) = gallery.calibrate(probes, subjects, fpir=0.05)
    assert found.result.people == PEOPLE and found.result.threshold < 0.9


def test_bad_questions(gallery, tmp_path):
    probes, subjects = strangers(30)
    with pytest.raises(InputError, match="nothing to calibrate"):
        gallery.calibrate(probes, subjects)
    with pytest.raises(InputError, match="subjects must have shape"):
        gallery.calibrate(probes, subjects[:3], fpir=0.1)
    with (
        toy(tmp_path / "empty") as empty,
        pytest.raises(InputError, match="nobody to be taken for"),
    ):
        empty.calibrate(probes, subjects, fpir=0.1)


@pytest.mark.parametrize("kind", ["z", "t", "s"])
def test_normalised_scores_need_a_cohort_and_a_threshold(gallery, kind):
    with pytest.raises(
        InputError, match="needs a cohort of at least 20 faces, the collection has 0"
    ):
        gallery.normalise(kind)
    gallery.set_cohort(faces(100, 20))
    gallery.normalise(kind)
    with pytest.raises(InputError, match=f"no threshold for scores with normalisation '{kind}'"):
        gallery.search(faces(1))
    (listed,) = gallery.search(faces(1), investigate=True)
    assert listed.matches[0].person == "person 0" and listed.normalisation == kind
    (found,) = gallery.calibrate(*strangers(), fpir=0.05)
    assert found.normalisation == kind and found.result.threshold > 1
    assert gallery.search(faces(1))[0].person == "person 0"
    gallery.enrol("late", faces(1, 30), ones(1))
    assert gallery.search(faces(1, 30))[0].person == "late"
    gallery.erase("person 0")
    assert gallery.search(faces(1))[0].person is None
    gallery.set_cohort(faces(100, 21))
    late = gallery.search(faces(1, 30))[0].matches[0].score
    with Gallery.open(gallery.store.folder) as again:  # followed and opened anew agree
        assert again.search(faces(1, 30))[0].matches[0].score == pytest.approx(late, rel=1e-5)
    gallery.normalise("none")
    assert gallery.search(faces(1, 30))[0].threshold == 0.9
    assert gallery.verify_audit() == []
