from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.align import ARCFACE_TEMPLATE
from facerec.data.synthetic import render_face
from facerec.data.synthetic_people import Nuisance, sample_identity
from facerec.gallery.enrolment_quality import QualityGate, measure_faces, measure_yaw
from facerec.structures import Faces

NOTHING = QualityGate(None, None, None, None, None, None)


def face(scale=1.0, score=0.9):
    """The alignment template as a face: eyes 35 px apart, box 112 px, at scale 1."""
    box = np.array([[0, 0, 112, 130]], np.float32) * scale
    return Faces(box, ARCFACE_TEMPLATE[None] * scale, np.array([score], np.float32))


def test_measures_by_hand():
    found = measure_faces(face(2.0), [17.5], [300])
    assert found.face_px.tolist() == [224] and found.inter_eye_px[0] == pytest.approx(70.5, abs=0.1)
    assert found.det_score[0] == pytest.approx(0.9) and found.norm.tolist() == [17.5]
    assert found.sharpness.tolist() == [300] and abs(found.yaw_deg[0]) < 1
    unknown = measure_faces(face())
    assert np.isnan(unknown.norm).all() and np.isnan(unknown.sharpness).all()
    assert len(measure_faces(Faces.empty())) == 0


@pytest.mark.parametrize(
    ("gate", "measures", "texts"),
    [
        (QualityGate(), measure_faces(face()), [""]),
        (
            replace(NOTHING, min_inter_eye_px=24),
            measure_faces(face(0.4)),
            ["inter-eye distance 14 px, at least 24 asked; take a larger picture"],
        ),
        (
            replace(NOTHING, min_face_px=48),
            measure_faces(face(0.425)),
            ["face 47.6 px, at least 48 asked; take a larger picture"],
        ),
        (
            replace(NOTHING, min_norm=12, min_sharpness=60),
            measure_faces(face(), [11.97], [59.9]),
            [
                "norm of the embedding 11.97, at least 12 asked; take a clearer picture; "
                "sharpness 59.9, at least 60 asked; take a picture that is in focus"
            ],
        ),
        (replace(NOTHING, min_norm=12, min_sharpness=60), measure_faces(face()), [""]),
        (replace(NOTHING, min_det_score=0.9), measure_faces(face(score=0.90001)), [""]),
    ],
)
def test_reasons_name_measure_value_and_bound(gate, measures, texts):
    assert gate.explain(measures) == texts


def test_a_refusal_holds_its_figures_and_each_face_has_its_own():
    two = Faces(
        np.array([[0, 0, 100, 100], [0, 0, 30, 40]], np.float32),
        np.stack([ARCFACE_TEMPLATE, ARCFACE_TEMPLATE * 0.3]),
        np.array([0.9, 0.45], np.float32),
    )
    fine, poor = QualityGate().find_refusals(measure_faces(two))
    assert fine == [] and [r.measure for r in poor] == ["face_px", "inter_eye_px", "det_score"]
    assert poor[0].value == 30 and poor[0].bound == 48 and "detector score 0.45" in poor[2].text


def turn(yaw, roll=0.0, pitch=0.0):
    """The five points of a common face (inter-eye distance 1), turned and seen from the front."""
    points = np.array(
        [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.571, 0.55], [-0.414, 1.155, 0.1], [0.414, 1.155, 0.1]]
    )
    a, b, c = np.deg2rad([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (points @ about_y.T @ about_x.T @ about_z.T)[:, :2]


@settings(max_examples=60, deadline=None)
@given(
    yaw=st.floats(-80, 80),
    roll=st.floats(-180, 180),
    pitch=st.floats(-30, 30),
    scale=st.floats(5, 500),
)
def test_the_yaw_is_found_whatever_roll_pitch_size_and_place(yaw, roll, pitch, scale):
    landmarks = turn(yaw, roll, pitch)[None] * scale + 100
    assert measure_yaw(landmarks)[0] == pytest.approx(yaw, abs=0.01)


@pytest.mark.parametrize("yaw", [-30.0, 0.0, 30.0])
def test_the_yaw_of_drawn_people_of_other_proportions(yaw):
    drawn = [
        render_face(sample_identity(0, number), Nuisance(yaw=yaw), 96).landmarks
        for number in range(3)
    ]
    assert np.abs(measure_yaw(np.stack(drawn)) - yaw).max() < 8


def test_a_profile_is_refused_and_degenerate_points_are_not_known():
    profile = np.float32(turn(-58) * 60)[None]
    faces = Faces(np.array([[0, 0, 99, 99]], np.float32), profile, np.array([1], np.float32))
    (text,) = QualityGate().explain(measure_faces(faces))
    assert text == "face turned by 58 degrees, at most 45 asked; take a picture from the front"
    assert np.isnan(measure_yaw(np.zeros((1, 5, 2)))[0])
    assert np.isnan(measure_yaw(np.full((1, 5, 2), np.nan))[0])


def test_bad_input():
    with pytest.raises(InputError, match="min_det_score must lie in"):
        QualityGate(min_det_score=2)
    with pytest.raises(InputError, match="max_yaw_deg"):
        QualityGate(max_yaw_deg=-1)
    with pytest.raises(InputError, match=r"norms must have shape \(1,\)"):
        measure_faces(face(), [1, 2])
    with pytest.raises(InputError, match=r"landmarks must have shape \(n, 5, 2\)"):
        measure_yaw(np.zeros((5, 2)))
