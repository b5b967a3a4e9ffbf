import sys
import threading
import types
from typing import ClassVar

import cv2
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.align import ARCFACE_TEMPLATE, align_faces, similarity_transform
from facerec.data.images import UnreadableImageError, read_image
from facerec.detection import (
    AlignedDetector,
    AnnotationDetector,
    InsightFaceDetector,
    YuNetDetector,
    build_detector,
)

POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
BLACK = np.zeros((60, 80, 3), np.uint8)


class FakeYuNet:
    """Finds upright squares whose left half is pure red and right half green, in BGR.

    The score falls with the share of the picture that the square fills, as YuNet's does for faces
    that fill everything, and a turned square is no square: enough to test every look.
    """

    made: ClassVar[list["FakeYuNet"]] = []
    calls: ClassVar[list[tuple[int, int]]] = []

    @classmethod
    def create(cls, path, config, size, score, nms):
        cls.made.append(cls())
        cls.made[-1].thread = threading.get_ident()
        return cls.made[-1]

    def setScoreThreshold(self, score):
        self.score = score

    def setInputSize(self, size):
        self.size = size

    def detect(self, image):
        assert threading.get_ident() == self.thread, "a detector was used by two threads"
        assert image.shape[1::-1] == tuple(self.size) and image.dtype == np.uint8
        FakeYuNet.calls.append((image.shape[1], image.shape[0]))
        # Loose thresholds: pictures are shrunk and turned on the way.
        red = (image[..., 2] > 150) & (image[..., 1] < 90) & (image[..., 0] < 90)
        green = (image[..., 1] > 150) & (image[..., 2] < 90) & (image[..., 0] < 90)
        rows = []
        # Turning mixes the colours where they meet: close that seam.
        mask = cv2.morphologyEx((red | green).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, 5)))
        count, _, boxes, _ = cv2.connectedComponentsWithStats(mask)
        for x, y, w, h, area in boxes[1:count]:
            left = red[y : y + h, x : x + w // 2].mean()
            right = green[y : y + h, x + w - w // 2 : x + w].mean()
            full = area / (w * h)
            score = 0.9 - 0.5 * (w >= 0.9 * image.shape[1])
            if min(left, right, full) > 0.9 and score >= self.score:
                points = POINTS * [w, h] + [x, y]
                rows.append([x, y, w, h, *points.ravel(), score])
        return 1, (np.array(rows, np.float32) if rows else None)


@pytest.fixture
def yunet(tmp_path, monkeypatch):
    graph = tmp_path / "yunet.onnx"
    graph.write_bytes(b"onnx")
    monkeypatch.setattr(FakeYuNet, "made", [])
    monkeypatch.setattr(FakeYuNet, "calls", [])
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", FakeYuNet.create)
    return graph


def draw(image, x, y, side):
    image[y : y + side, x : x + side // 2] = (255, 0, 0)
    image[y : y + side, x + side // 2 : x + side] = (0, 255, 0)
    return image


def face_at(x, y, side):
    return np.array([x, y, x + side, y + side]), POINTS * side + [x, y]


def test_yunet_gets_bgr_and_gives_corners_and_points(yunet):
    image = draw(draw(np.zeros((200, 300, 3), np.uint8), 20, 30, 40), 150, 90, 60)
    faces = YuNetDetector(yunet).detect(image)
    assert len(faces) == 2
    for row, place in enumerate(((20, 30, 40), (150, 90, 60))):
        box, points = face_at(*place)
        assert np.allclose(faces.boxes[row], box) and np.allclose(faces.landmarks[row], points)
    assert FakeYuNet.calls[-1] == (300, 200)
    # Red and blue swapped is no face: the colour order is not guessed.
    assert len(YuNetDetector(yunet, retry_score=None).detect(image[..., ::-1].copy())) == 0


def test_large_pictures_are_shrunk_and_faces_scaled_back(yunet):
    image = draw(np.zeros((1500, 3000, 3), np.uint8), 1200, 600, 300)
    faces = YuNetDetector(yunet, max_side=600).detect(image)
    box, points = face_at(1200, 600, 300)
    assert FakeYuNet.calls[-1] == (600, 300)
    assert np.abs(faces.boxes[0] - box).max() <= 10
    assert np.abs(faces.landmarks[0] - points).max() <= 10


def test_a_face_that_fills_the_picture_is_found_at_the_second_look(yunet):
    image = draw(np.zeros((400, 400, 3), np.uint8), 0, 0, 400)
    assert len(YuNetDetector(yunet, retry_score=None).detect(image)) == 0
    faces = YuNetDetector(yunet).detect(image)
    box, points = face_at(0, 0, 400)
    assert max(FakeYuNet.calls[-1]) <= 320
    assert np.abs(faces.boxes[0] - box).max() <= 4
    assert np.abs(faces.landmarks[0] - points).max() <= 6
    assert faces.boxes.min() >= 0 and faces.boxes.max() <= 400


@pytest.mark.parametrize("degrees", [-45, 45, 90, -90, 180])
def test_a_turned_head_is_found_and_its_landmarks_turned_back(yunet, degrees):
    upright = draw(np.zeros((300, 400, 3), np.uint8), 150, 100, 100)
    matrix = cv2.getRotationMatrix2D((200, 150), degrees, 1)
    image = cv2.warpAffine(upright, matrix, (400, 300))
    assert len(YuNetDetector(yunet, retry_score=None).detect(image)) == 0
    faces = YuNetDetector(yunet).detect(image)
    expected = face_at(150, 100, 100)[1] @ matrix[:, :2].T + matrix[:, 2]
    assert len(faces) == 1
    assert np.abs(faces.landmarks[0] - expected).max() <= 3
    centre = (faces.boxes[0, :2] + faces.boxes[0, 2:]) / 2
    assert np.abs(centre - (matrix[:, :2] @ [200, 150] + matrix[:, 2])).max() <= 3
    assert np.abs(faces.boxes[0, 2:] - faces.boxes[0, :2] - 100).max() <= 6


def test_no_face_is_an_empty_answer_for_any_size(yunet):
    detector = YuNetDetector(yunet)
    for shape in ((1, 1), (1, 500), (900, 2), (31, 33)):
        assert len(detector.detect(np.zeros((*shape, 3), np.uint8))) == 0
    FakeYuNet.calls.clear()
    YuNetDetector(yunet, retry_score=None).detect(BLACK)
    assert FakeYuNet.calls == [(64, 64), (80, 60)]  # the check when it is made, and one look


def test_each_thread_has_its_own_model(yunet):
    detector = YuNetDetector(yunet)
    image = draw(np.zeros((100, 100, 3), np.uint8), 10, 10, 40)
    found = []
    workers = [
        threading.Thread(target=lambda: found.append(len(detector.detect(image)))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [1] * 4 and len(FakeYuNet.made) == 5


def test_what_is_no_yunet_model_is_said_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        YuNetDetector(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(InputError, match="must be a YuNet model"):
        YuNetDetector(text)


@pytest.mark.parametrize(
    "options", [{"min_score": 2}, {"retry_score": -1}, {"max_side": 1}, {"nms_overlap": 5}]
)
def test_options_out_of_range_are_refused(yunet, options):
    with pytest.raises(InputError, match=next(iter(options))):
        YuNetDetector(yunet, **options)


def test_wrong_pictures_are_refused(yunet):
    for detector in (YuNetDetector(yunet), AlignedDetector()):
        with pytest.raises(InputError, match="uint8 RGB"):
            detector.detect(np.zeros((10, 10, 3), np.float32))


@pytest.mark.parametrize("side", [112, 224, 250, 56])
def test_aligned_chips_come_back_as_they_are(side):
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8), (9, 9), 0
    )
    faces = AlignedDetector().detect(image)
    assert faces.boxes.tolist() == [[0, 0, side, side]] and faces.scores.tolist() == [1]
    _, (chip,) = align_faces(image, faces)
    if side == 112:
        assert np.array_equal(chip, image)
    else:
        resized = cv2.resize(image, (112, 112), interpolation=cv2.INTER_LINEAR)
        assert np.abs(chip[2:-2, 2:-2].astype(int) - resized[2:-2, 2:-2]).max() <= 4


def test_a_picture_that_is_no_chip_is_refused():
    with pytest.raises(UnreadableImageError) as caught:
        AlignedDetector().detect(BLACK, "a/b.jpg")
    assert caught.value.reason == "not a square chip" and "a/b.jpg" in str(caught.value)


HEAD = "key,x1,y1,x2,y2,lx1,ly1,lx2,ly2,lx3,ly3,lx4,ly4,lx5,ly5,score,person\n"


def annotation(key, x, y, side, score):
    box, points = face_at(x, y, side)
    numbers = [*box, *points.ravel()]
    return f"{key},{','.join(str(float(n)) for n in numbers)},{score},someone\n"


def test_annotations_by_key_best_first(tmp_path):
    table = tmp_path / "faces.csv"
    rows = [
        annotation("007", 1, 2, 20, 0.5),
        annotation("b/x.jpg", 5, 6, 10, 0.9),
        annotation("007", 30, 20, 20, 0.8),
    ]
    table.write_text(HEAD + "".join(rows))
    detector = AnnotationDetector(table)
    faces = detector.detect(BLACK, "007")
    assert faces.scores.tolist() == pytest.approx([0.8, 0.5])
    assert faces.boxes.tolist() == [[30, 20, 50, 40], [1, 2, 21, 22]]
    assert np.allclose(faces.landmarks[1], face_at(1, 2, 20)[1])
    assert len(detector.detect(BLACK, "b/x.jpg")) == 1
    assert len(detector.detect(BLACK, "7")) == 0 and len(detector.detect(BLACK)) == 0


def test_annotated_boxes_are_cut_to_the_picture(tmp_path):
    table = tmp_path / "faces.csv"
    rows = [annotation("k", -5, 50, 20, 0.9), annotation("k", 500, 500, 20, 0.8)]
    table.write_text(HEAD + "".join(rows))
    faces = AnnotationDetector(table).detect(BLACK, "k")
    assert faces.boxes.tolist() == [[0, 50, 15, 60]]


def test_annotations_as_parquet_without_scores(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = HEAD.strip().split(",")[:15]
    values = [["k"], *[[float(n)] for n in (0, 0, 30, 30, *range(10))]]
    path = tmp_path / "faces.parquet"
    pq.write_table(pa.table(dict(zip(names, values, strict=True))), path)
    assert AnnotationDetector(path).detect(BLACK, "k").scores.tolist() == [1]


def test_broken_annotations_are_named(tmp_path):
    table = tmp_path / "faces.csv"
    with pytest.raises(InputError, match="is not a file; check the path"):
        AnnotationDetector(table)
    table.write_text("key,x1\nk,1\n")
    with pytest.raises(InputError, match="'y1'"):
        AnnotationDetector(table)
    for wrong in ("nan", "", "left"):
        row = annotation("k", 1, 2, 20, 0.5).replace("21.0", wrong, 1)
        table.write_text(HEAD + annotation("k", 1, 2, 20, 0.5) + row)
        with pytest.raises(InputError, match="row 1: x2 must be a finite number"):
            AnnotationDetector(table)


class FakeScrfd:
    taskname = "detection"

    def prepare(self, ctx_id, **options):
        self.options = (ctx_id, options)

    def detect(self, image):
        assert image[0, 0].tolist() == [3, 2, 1], "InsightFace wants BGR"
        rows = np.array([[5, 5, 30, 30, 0.6], [10, 10, 200, 50, 0.9]], np.float32)
        return rows, np.stack([POINTS * 25 + 5, POINTS * 40 + 10]).astype(np.float32)


@pytest.fixture
def zoo(monkeypatch):
    """A stand-in for insightface.model_zoo: what a file holds decides which model it gives."""
    models = {}

    def get_model(name, **options):
        assert options == {"download": False}
        with open(name) as file:  # noqa: PTH123
            kind = file.read()
        if kind == "broken":
            raise RuntimeError("INVALID_PROTOBUF")
        models[name] = {"det": FakeScrfd, "rec": types.SimpleNamespace, "none": type(None)}[kind]()
        return models[name]

    package = types.ModuleType("insightface")
    package.model_zoo = types.ModuleType("insightface.model_zoo")
    package.model_zoo.get_model = get_model
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", package.model_zoo)
    return models


def test_insightface_takes_the_folder_s_detector(tmp_path, zoo):
    for name, kind in (("a", "broken"), ("b", "rec"), ("c", "none"), ("d", "det")):
        (tmp_path / f"{name}.onnx").write_text(kind)
    detector = InsightFaceDetector(tmp_path, min_score=0.4, side=320)
    assert zoo[str(tmp_path / "d.onnx")].options == (
        -1,
        {"det_thresh": 0.4, "input_size": (320, 320)},
    )
    image = np.zeros((60, 80, 3), np.uint8)
    image[...] = (1, 2, 3)
    faces = detector.detect(image)
    assert faces.scores.tolist() == pytest.approx([0.9, 0.6])
    assert faces.boxes.tolist() == [[10, 10, 80, 50], [5, 5, 30, 30]]
    assert np.allclose(faces.landmarks[0], POINTS * 40 + 10)


def test_insightface_folder_without_a_detector(tmp_path, zoo):
    with pytest.raises(InputError, match="does not exist"):
        InsightFaceDetector(tmp_path / "none")
    with pytest.raises(InputError, match=r"none of its 0 \.onnx"):
        InsightFaceDetector(tmp_path)
    (tmp_path / "w600k.onnx").write_text("rec")
    with pytest.raises(InputError, match=r"none of its 1 \.onnx"):
        InsightFaceDetector(tmp_path)


def test_build_detector_by_spec(tmp_path, yunet, zoo):
    assert isinstance(build_detector("aligned"), AlignedDetector)
    table = tmp_path / "faces.csv"
    table.write_text(HEAD + annotation("k", 1, 2, 20, 0.5))
    annotations = build_detector(f"annotations:{table}")
    assert isinstance(annotations, AnnotationDetector) and annotations.name.endswith("faces.csv")
    (tmp_path / "det.onnx").write_text("det")
    assert isinstance(build_detector(f"insightface:{tmp_path}"), InsightFaceDetector)
    asked = []

    def resolve(spec):
        asked.append(spec)
        return yunet

    built = build_detector("yunet", resolve)
    assert isinstance(built, YuNetDetector) and built.graph == yunet and asked == ["yunet"]
    assert built.retry_score is not None
    assert build_detector("yunet", resolve, second_look=False).retry_score is None
    asked.pop()
    for empty in ("annotations:", "insightface:"):
        with pytest.raises(InputError, match="must name a path"):
            build_detector(empty, resolve)
    with pytest.raises(InputError):
        build_detector("no-such-detector-anywhere")


@pytest.mark.real
def test_real_faces_are_found_upright_and_fit_the_template(real_data):
    """Every picture has its face; landmarks are in our order: they fit the template closely."""
    detector = build_detector(str(real_data / "weights" / "yunet.onnx"))
    paths = sorted((real_data / "lfw" / "images").rglob("*.jpg"))[::190]
    errors = []
    for path in paths:
        image = read_image(path)
        face = detector.detect(image).select("central", *image.shape[:2])
        assert len(face) == 1
        (points,) = face.landmarks
        matrix = similarity_transform(points, ARCFACE_TEMPLATE)
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        errors.append(np.sqrt(((moved - ARCFACE_TEMPLATE) ** 2).sum(axis=1).mean()))
        # LFW is upright: no turn beyond 45 degrees, both axes point as the template's.
        assert matrix[0, 0] > abs(matrix[0, 1])
        _, (chip,) = align_faces(image, face)
        assert len(YuNetDetector(detector.graph).detect(chip)) >= 1
    assert len(paths) >= 20 and np.median(errors) < 4


@pytest.mark.real
def test_a_real_model_of_another_kind_is_no_detector(real_data):
    with pytest.raises(InputError, match="must be a YuNet model"):
        YuNetDetector(real_data / "weights" / "MobileFaceNet.onnx")
