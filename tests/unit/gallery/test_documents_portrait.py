"""The portrait on a page: exact geometry, by a detector that finds drawn marks."""

import cv2
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery.documents import crop_portrait
from facerec.structures import Faces

# Quadrants of a mark, clockwise from its upper left: red, green, yellow, blue.
COLOURS = np.array([[230, 20, 20], [20, 200, 20], [235, 225, 20], [20, 20, 220]])
HUES = np.array([0, 60, 30, 120])
# Where the landmarks of an upright mark lie, in shares of its box.
POINTS = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
PAPER = 225


def draw(page, x, y, side, strength=1.0):
    """Draw a mark whose upright side is up; a fainter one is mixed with the paper."""
    half = side // 2
    for quadrant, (dx, dy) in enumerate([(0, 0), (half, 0), (half, half), (0, half)]):
        colour = strength * COLOURS[quadrant] + (1 - strength) * PAPER
        page[y + dy : y + dy + half, x + dx : x + dx + half] = np.round(colour)
    return page


def make_page(height=400, width=600):
    return np.full((height, width, 3), PAPER, np.uint8)


class MarkDetector:
    """Finds marks of at least 12 pixels in the picture shrunk to `side`, as a small net would.

    Upright ones score `upright`, turned ones less, with landmarks as if they were upright, as
    YuNet answers; with `honest`, the landmarks are turned with the mark and all score alike, as
    those of detectors that turn the picture themselves are.
    """

    name = "marks"

    def __init__(self, upright=0.95, turned=0.85, honest=False, side=640):
        self.upright, self.turned, self.honest = upright, turned, honest
        self.side, self.looks = side, 0

    def detect(self, image, key=""):
        self.looks += 1
        scale = min(1.0, self.side / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
        mask = (hsv[..., 1] > 40).astype(np.uint8)
        # Seams between colours may be grey: close them.
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        found = []
        for x, y, w, h, _ in cv2.connectedComponentsWithStats(mask)[2][1:]:
            if min(w, h) < 12 or max(w, h) > 1.3 * min(w, h):
                continue
            hue = int(hsv[y + h // 4, x + w // 4, 0])
            away = np.abs(HUES - hue)
            turn = int(np.argmin(np.minimum(away, 180 - away)))  # quarters counter-clockwise
            points = POINTS - 0.5
            if self.honest:
                for _ in range(turn):
                    points = points @ np.array([[0, -1], [1, 0]])
            points = (points + 0.5) * [w, h] + [x, y]
            score = self.upright if self.honest or not turn else self.turned
            found.append((score - 1e-4 * len(found), [x, y, x + w, y + h], points))
        if not found:
            return Faces.empty()
        scores, boxes, points = (np.array(column) for column in zip(*found, strict=True))
        return Faces(boxes / scale, points / scale, scores)


def turned_box(box, width, height, quarters):
    """Return a box of a (height, width) page after that many counter-clockwise quarters."""
    x1, y1, x2, y2 = box
    for _ in range(quarters):
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        width, height = height, width
    return [x1, y1, x2, y2]


@pytest.mark.parametrize("honest", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_the_portrait_is_cut_upright_from_any_quarter_turn(quarters, honest):
    page = draw(make_page(), 60, 100, 80)
    given = np.ascontiguousarray(np.rot90(page, quarters))
    portrait = crop_portrait(given, MarkDetector(honest=honest))
    assert portrait.reason == ""
    assert portrait.turn == 90 * quarters
    # Half a face of room on each side, to the pixel.
    np.testing.assert_array_equal(portrait.image, page[60:220, 20:180])
    expected = turned_box([20, 60, 180, 220], 600, 400, quarters)
    np.testing.assert_array_equal(portrait.box, expected)
    np.testing.assert_allclose(portrait.faces.boxes, [[40, 40, 120, 120]], atol=1.5)
    np.testing.assert_allclose(portrait.faces.landmarks[0], 40 + 80 * POINTS, atol=1.5)
    assert ("turned" in portrait.note) is bool(quarters)


@pytest.mark.parametrize("quarters", [0, 1])
def test_the_room_ends_at_the_page(quarters):
    page = draw(make_page(), 0, 310, 90)
    given = np.ascontiguousarray(np.rot90(page, quarters))
    portrait = crop_portrait(given, MarkDetector())
    np.testing.assert_array_equal(portrait.image, page[265:400, 0:135])
    np.testing.assert_array_equal(portrait.box, turned_box([0, 265, 135, 400], 600, 400, quarters))


@pytest.mark.parametrize(
    ("side", "strength"), [(60, 0.8), (140, 0.35), (120, 0.4)], ids=["small", "large", "equal"]
)
@pytest.mark.parametrize("quarters", [0, 3])
def test_a_ghost_is_passed_over_and_noted(side, strength, quarters):
    page = draw(draw(make_page(), 40, 120, 120), 420, 150, side, strength)
    portrait = crop_portrait(np.ascontiguousarray(np.rot90(page, quarters)), MarkDetector())
    np.testing.assert_array_equal(portrait.image, page[60:300, :220])
    assert portrait.others == 1
    assert not portrait.ambiguous
    assert "smaller or fainter second portrait was passed over" in portrait.note


def test_two_like_portraits_are_for_a_person_to_look_at():
    page = draw(draw(make_page(), 40, 120, 120), 420, 150, 110)
    portrait = crop_portrait(page, MarkDetector())
    assert portrait.box[0] < 100
    assert portrait.ambiguous
    assert "another face is nearly as prominent" in portrait.note


def test_of_equal_portraits_the_first_found_is_taken():
    page = draw(draw(make_page(), 420, 120, 120), 40, 120, 120)
    portraits = [crop_portrait(page, MarkDetector()) for _ in range(2)]
    np.testing.assert_array_equal(portraits[0].image, portraits[1].image)
    assert portraits[0].ambiguous


def test_three_portraits_are_counted():
    page = draw(draw(draw(make_page(), 40, 120, 120), 420, 50, 50), 420, 250, 40)
    portrait = crop_portrait(page, MarkDetector())
    assert portrait.others == 2
    assert "2 smaller or fainter portraits were passed over" in portrait.note


@pytest.mark.parametrize(
    "place", [(600, 450), (0, 0), (1452, 952), (740, 490), (360, 240), (1100, 30)]
)
@pytest.mark.parametrize("quarters", [0, 1])
def test_a_portrait_too_small_for_the_whole_page_is_found_in_tiles(place, quarters):
    x, y = place
    page = draw(make_page(1000, 1500), x, y, 48)
    given = np.ascontiguousarray(np.rot90(page, quarters))
    assert not len(MarkDetector(side=320).detect(given))
    portrait = crop_portrait(given, MarkDetector(side=320))
    assert portrait.turn == 90 * quarters
    assert portrait.others == 0  # tiles overlap: one face is one face
    left, top = max(0, x - 24), max(0, y - 24)
    np.testing.assert_allclose(
        portrait.box,
        turned_box([left, top, min(x + 72, 1500), min(y + 72, 1000)], 1500, 1000, quarters),
        atol=4,
    )
    assert "only 4" in portrait.note
    assert "higher resolution" in portrait.note


def test_a_small_page_is_enlarged():
    page = draw(make_page(60, 90), 30, 20, 8)
    assert not len(MarkDetector().detect(page))
    portrait = crop_portrait(page, MarkDetector())
    np.testing.assert_allclose(portrait.box, [26, 16, 42, 32], atol=1)
    assert portrait.faces.boxes[0, 2] - portrait.faces.boxes[0, 0] == pytest.approx(8, abs=1)


def test_a_page_without_a_face_has_a_reason_and_nothing_else():
    detector = MarkDetector()
    portrait = crop_portrait(make_page(), detector)
    assert portrait.reason.startswith("no portrait: no face was found")
    assert (len(portrait.faces), portrait.image.shape, portrait.note) == (0, (0, 0, 3), "")
    assert detector.looks > 4


def test_a_poor_score_is_refused_with_what_it_was():
    page = draw(make_page(), 60, 100, 80)
    portrait = crop_portrait(page, MarkDetector(upright=0.5, turned=0.45), least_score=0.4)
    assert portrait.reason == ""
    portrait = crop_portrait(page, MarkDetector(upright=0.5, turned=0.45))
    assert portrait.reason.startswith("no portrait: no face was found")


class FickleDetector(MarkDetector):
    """Sure of the page, in doubt about the crop."""

    def detect(self, image, key=""):
        faces = super().detect(image)
        return faces if self.looks == 1 else Faces(faces.boxes, faces.landmarks, faces.scores / 2)


def test_a_face_that_its_crop_does_not_confirm_is_refused():
    portrait = crop_portrait(draw(make_page(), 60, 100, 80), FickleDetector())
    assert "scores 0.47 as a face, below 0.60" in portrait.reason
    assert len(portrait.faces) == 0


class SidewaysBlindDetector(MarkDetector):
    """Misses large marks that are turned, as nets do whose training faces stood upright."""

    def detect(self, image, key=""):
        faces = super().detect(image)
        large = faces.boxes[:, 2] - faces.boxes[:, 0] > 90
        return faces[~large | (faces.scores > 0.9)]


def test_the_faces_of_a_turned_page_are_compared_upright():
    page = draw(draw(make_page(), 40, 120, 120), 420, 150, 60)
    given = np.ascontiguousarray(np.rot90(page))
    assert len(SidewaysBlindDetector().detect(given)) == 1  # the ghost alone
    portrait = crop_portrait(given, SidewaysBlindDetector())
    assert (portrait.turn, portrait.others) == (90, 1)
    np.testing.assert_array_equal(portrait.image, page[60:300, :220])
    np.testing.assert_array_equal(portrait.box, turned_box([0, 60, 220, 300], 600, 400, 1))


def test_an_upright_that_hardly_leads_is_noted():
    page = draw(make_page(), 60, 100, 80)
    assert "which way is up" in crop_portrait(page, MarkDetector(turned=0.949)).note
    assert "which way is up" not in crop_portrait(page, MarkDetector()).note


def test_the_page_is_left_as_it_was():
    page = draw(make_page(), 60, 100, 80)
    before = page.copy()
    portrait = crop_portrait(page, MarkDetector())
    portrait.image[:] = 0
    np.testing.assert_array_equal(page, before)


@pytest.mark.parametrize(
    ("page", "score", "message"),
    [
        (np.zeros((10, 10), np.uint8), 0.6, "must have shape"),
        (np.zeros((10, 10, 3), np.float32), 0.6, "uint8 RGB array"),
        (make_page(), 1.5, "least_score must lie in"),
    ],
)
def test_bad_input_is_refused(page, score, message):
    with pytest.raises(InputError, match=message):
        crop_portrait(page, MarkDetector(), score)
