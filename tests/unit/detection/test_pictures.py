import hashlib
import threading

import cv2
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.align import ARCFACE_TEMPLATE
from facerec.data.sources import SourceItem
from facerec.detection import AlignedDetector, detect_picture, iter_pictures
from facerec.structures import Faces


def write_chip(path, colour=90, side=112):
    image = np.full((side, side, 3), colour, np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return SourceItem(path, path.name, "anna", "test")


class Scripted:
    """A detector that answers by the picture's brightness."""

    name = "scripted"

    def __init__(self, **answers):
        self.answers = answers

    def detect(self, image, key=""):
        answer = self.answers[key.split(".")[0]]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def faces(*places, points=None):
    boxes = np.array([[x, y, x + side, y + side] for x, y, side in places], np.float32)
    marks = [ARCFACE_TEMPLATE * side / 112 + [x, y] for x, y, side in places]
    if points is not None:
        marks = points
    return Faces(boxes, np.array(marks, np.float32), np.linspace(0.9, 0.5, len(boxes)))


def test_a_good_picture(tmp_path):
    item = write_chip(tmp_path / "a.png", 77)
    (picture,) = iter_pictures([item], AlignedDetector())
    assert picture.item is item and picture.reason == "" and picture.found == 1
    assert picture.sha256 == hashlib.sha256(item.path.read_bytes()).hexdigest()
    assert picture.image_id == picture.sha256[:16]
    assert (picture.width, picture.height) == (112, 112)
    assert picture.chips.shape == (1, 112, 112, 3) and (picture.chips == 77).all()


def test_everything_wrong_is_a_reason(tmp_path):
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.jpg"
    text.write_text("hello")
    empty.touch()
    dot = np.zeros((1, 5, 2), np.float32)
    detector = Scripted(
        good=faces((0, 0, 112)),
        none=Faces.empty(),
        broken=RuntimeError("out of luck\nsecond line"),
        dot=faces((0, 0, 50), points=dot),
        outside=faces((500, 0, 50)),
        nan=faces((0, 0, 50), points=dot * np.nan),
    )
    names = ("good", "none", "broken", "dot", "outside", "nan")
    items = [write_chip(tmp_path / f"{name}.png") for name in names]
    items += [SourceItem(path, path.name) for path in (text, empty, tmp_path / "gone.jpg")]
    found = list(iter_pictures(items, detector, threads=3))
    assert [picture.item for picture in found] == items
    assert [picture.reason for picture in found] == [
        "",
        "no face",
        "detector failed: RuntimeError: out of luck",
        "degenerate landmarks",
        "no face",
        "no face",
        "not an image",
        "empty file",
        "missing file",
    ]
    for picture in found[1:]:
        assert len(picture.faces) == 0 and picture.chips.shape == (0, 112, 112, 3)
    assert found[6].sha256 == hashlib.sha256(b"hello").hexdigest() and found[6].width == 0
    assert found[8].sha256 == ""
    assert found[1].width == 112 and found[3].found == 1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("largest", [[60, 60, 110, 110]]), ("central", [[40, 40, 60, 60]]), ("all", None)],
)
def test_policies(tmp_path, policy, expected):
    item = write_chip(tmp_path / "a.png")
    detector = Scripted(a=faces((40, 40, 20), (60, 60, 50), (0, 0, 30)))
    picture = detect_picture(item, detector, policy)
    assert picture.found == 3 and len(picture.chips) == len(picture.faces)
    if expected is None:
        assert len(picture.faces) == 3
    else:
        assert picture.faces.boxes.tolist() == expected


def test_one_bad_face_of_several_is_left_out(tmp_path):
    good = ARCFACE_TEMPLATE * 0.25
    points = np.stack([good, np.zeros((5, 2)), good + 50]).astype(np.float32)
    detector = Scripted(a=faces((0, 0, 28), (30, 30, 20), (50, 50, 28), points=points))
    picture = detect_picture(write_chip(tmp_path / "a.png"), detector, "all")
    assert picture.found == 3 and picture.reason == "" and len(picture.chips) == 2
    assert picture.faces.boxes[:, 0].tolist() == [0, 50]


class Gate:
    """Lets the first picture through only when others have been begun; counts what was begun."""

    name = "gate"

    def __init__(self, wait_for):
        self.begun = 0
        self.lock = threading.Lock()
        self.others = threading.Event()
        self.wait_for = wait_for

    def detect(self, image, key=""):
        with self.lock:
            self.begun += 1
            if self.begun >= self.wait_for:
                self.others.set()
        if key == "0.png":
            assert self.others.wait(60)
        return Faces.empty()


def test_order_is_kept_when_the_first_is_the_slowest(tmp_path):
    items = [write_chip(tmp_path / f"{n}.png") for n in range(6)]
    found = list(iter_pictures(items, Gate(4), threads=3))
    assert [picture.item for picture in found] == items
    assert {picture.reason for picture in found} == {"no face"}


def test_look_ahead_is_bounded_and_stopping_drops_the_rest(tmp_path):
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield write_chip(tmp_path / f"{number}.png")
            number += 1

    stream = iter_pictures(endless(), Gate(1), threads=2)
    assert taken == []
    for _ in range(3):
        next(stream)
    assert len(taken) <= 3 + 4
    stream.close()
    assert len(taken) <= 3 + 4
    with pytest.raises(StopIteration):
        next(stream)


def test_ctrl_c_in_the_consumer_leaves_promptly(tmp_path):
    items = [write_chip(tmp_path / f"{n}.png") for n in range(50)]
    gate = Gate(1)

    def consume():
        for _ in iter_pictures(items, gate, threads=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    for thread in threading.enumerate():
        if thread.name.startswith("pictures"):
            thread.join(30)
            assert not thread.is_alive()
    assert gate.begun <= 6


def test_an_error_of_the_item_iterator_is_not_hidden(tmp_path):
    def items():
        yield write_chip(tmp_path / "0.png")
        raise InputError("the list ends badly")

    with pytest.raises(InputError, match="ends badly"):
        list(iter_pictures(items(), Gate(1)))


def test_no_pictures_and_wrong_arguments():
    assert list(iter_pictures([], AlignedDetector())) == []
    with pytest.raises(InputError, match="face policy"):
        iter_pictures([], AlignedDetector(), "biggest")
    with pytest.raises(InputError, match="threads"):
        iter_pictures([], AlignedDetector(), threads=0)
