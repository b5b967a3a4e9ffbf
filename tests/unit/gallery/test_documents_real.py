"""Drawn pages with real portraits on them, through YuNet."""

import cv2
import numpy as np
import pytest

from facerec.data.align import align_face
from facerec.data.images import read_image
from facerec.detection import YuNetDetector
from facerec.gallery.documents import crop_portrait

CARD_HEIGHT, CARD_WIDTH = 540, 856  # ten pixels a millimetre of an ID-1 card
PLACE = (45, 130, 300, 470)  # of the portrait on the card


@pytest.fixture(scope="module")
def detector(real_data):
    # Without its own second look: turns and tiles are what is tested, and it is faster.
    return YuNetDetector(real_data / "weights" / "yunet.onnx", retry_score=None)


@pytest.fixture(scope="module")
def photos(real_data):
    """Two pictures of one face each."""
    files = sorted((real_data / "lfw" / "images").rglob("*.jpg"))
    return [read_image(file)[25:225, 50:200] for file in (files[100], files[2000])]


def paste(page, photo, place, strength=1.0):
    x1, y1, x2, y2 = place
    fitted = cv2.resize(photo, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
    part = page[y1:y2, x1:x2]
    page[y1:y2, x1:x2] = np.round(strength * fitted + (1 - strength) * part)


def make_card(photo, ghost=True):
    """Return a card with waves, lines of text, a portrait and its ghost."""
    card = np.full((CARD_HEIGHT, CARD_WIDTH, 3), (226, 233, 238), np.uint8)
    across = np.linspace(0, CARD_WIDTH, 200)
    for wave in range(12):
        heights = 270 + (30 + 18 * wave) * np.sin(across / 70 + wave)
        line = np.stack([across, heights], axis=1).astype(np.int32)
        cv2.polylines(card, [line], False, (150 + 6 * wave, 190, 215), 1, cv2.LINE_AA)
    for row in range(6):
        place = (330, 130 + 60 * row)
        cv2.putText(card, "SPECIMEN 0123", place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (40, 40, 60), 2)
    paste(card, photo, PLACE)
    if ghost:
        paste(card, photo, (690, 300, 790, 433), 0.45)
    return card


def same_chip(portrait, photo, detector):
    """Return the correlation of the portrait's chip with that of the photo it was drawn from.

    Landmarks that lie a pixel or two elsewhere cost a third of it, a wrong turn or face all.
    """
    chips = []
    for image, faces in (
        (portrait.image, portrait.faces),
        (photo, detector.detect(photo).select("largest", *photo.shape[:2])),
    ):
        grey = cv2.cvtColor(align_face(image, faces.landmarks[0]), cv2.COLOR_RGB2GRAY)
        chips.append(grey[20:-20, 20:-20].ravel().astype(float))
    return np.corrcoef(chips)[0, 1]


@pytest.mark.real
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_the_portrait_of_a_card_is_found_upright_at_any_turn(quarters, photos, detector):
    photo = photos[quarters % 2]
    card = make_card(photo)
    portrait = crop_portrait(np.ascontiguousarray(np.rot90(card, quarters)), detector)
    assert portrait.reason == ""
    assert portrait.turn == 90 * quarters
    assert not portrait.ambiguous
    assert portrait.faces.scores[0] > 0.8
    assert same_chip(portrait, photo, detector) > 0.55
    assert abs(same_chip(portrait, photos[1 - quarters % 2], detector)) < 0.5


@pytest.mark.real
def test_a_card_far_away_on_a_large_page_is_found_in_tiles(photos, detector):
    page = np.full((2400, 1700, 3), 250, np.uint8)
    small = cv2.resize(make_card(photos[0]), None, fx=0.16, fy=0.16, interpolation=cv2.INTER_AREA)
    page[1800 : 1800 + small.shape[0], 1100 : 1100 + small.shape[1]] = small
    portrait = crop_portrait(page, detector)
    assert portrait.reason == ""
    assert portrait.turn == 0
    x1, y1, x2, y2 = np.array(PLACE) * 0.16 + [1100, 1800, 1100, 1800]
    middle = (portrait.box[:2] + portrait.box[2:]) / 2
    assert x1 < middle[0] < x2
    assert y1 < middle[1] < y2
    assert "higher resolution" in portrait.note


@pytest.mark.real
def test_a_card_without_a_portrait_has_none(photos, detector):
    card = make_card(photos[0], ghost=False)
    paste(card, np.full((10, 10, 3), 230, np.uint8), PLACE)
    assert crop_portrait(card, detector).reason.startswith("no portrait: no face was found")


@pytest.mark.real
def test_two_people_on_a_page_are_for_a_person_to_look_at(photos, detector):
    card = make_card(photos[0], ghost=False)
    paste(card, photos[1], (560, 130, 815, 470))
    portrait = crop_portrait(card, detector)
    assert portrait.others == 1
    assert portrait.ambiguous
