"""Making and filling a watch list, command by command."""

import cv2
import numpy as np
import pytest
from gallery_cases import holds
from pattern_people import call, chip, read, write_people, write_picture

from facerec.data.align import ARCFACE_TEMPLATE
from facerec.data.images import encode_png
from facerec.gallery import tools
from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import KEY_VARIABLE, make_key, read_key
from facerec.structures import Faces


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def create(folder, model, *more):
    return call("create", folder, "--model", model, "--detector", "aligned", *more)


def vector_of(person):
    """What the recogniser gives, by hand: the colours, brought to [-1, 1] and to unit norm."""
    cells = chip(person, 4).astype(np.float64).transpose(2, 0, 1).ravel() / 127.5 - 1
    return (cells / np.linalg.norm(cells)).astype("<f4")


def test_a_new_gallery_is_encrypted_and_its_key_lies_beside_it(
    tmp_path, patterns, watch_list, capsys
):
    folder, out = tmp_path / "other", tmp_path / "create.json"
    assert create(folder, patterns, "--json", out, "--purpose", "desk 4") == 0
    key = tmp_path / "other.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (folder / "gallery.sqlite").stat().st_mode & 0o777 == 0o600
    assert read(out)["key_id"] == read_key(key).id and read(out)["dim"] == 48
    shown = capsys.readouterr().out
    assert str(key) in shown and "without it nobody can read the faces again" in shown
    assert key.read_text().split()[-1] not in shown + out.read_text()
    with Gallery.open(watch_list, key=read_key(tmp_path / "list.key")) as gallery:
        (answer,) = gallery.search(vector_of(1)[None])
    assert answer.person == "ann" and answer.matches[0].score == pytest.approx(1, abs=2e-3)


def test_without_encryption_only_when_said(tmp_path, patterns, capsys):
    folder = tmp_path / "plain"
    assert create(folder, patterns, "--no-encryption") == 0
    assert not list(tmp_path.glob("*.key"))
    call("list", folder, "--collections")
    assert "main\tpatterns\tmax\tnot encrypted" in capsys.readouterr().out
    contradiction = ("--no-encryption", "--key-file", tmp_path / "k")
    assert create(tmp_path / "x", patterns, *contradiction) == 2
    assert "contradict each other" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_the_key_of_the_environment_is_written_nowhere(tmp_path, patterns, monkeypatch, capsys):
    key, folder = make_key(), tmp_path / "env"
    monkeypatch.setenv(KEY_VARIABLE, key.value.hex())
    assert create(folder, patterns) == 0
    assert call("enrol", folder, write_people(tmp_path / "p", {"ann": 1})) == 0
    assert not list(tmp_path.glob("*.key")) and not holds(tmp_path, key.value)
    monkeypatch.delenv(KEY_VARIABLE)
    capsys.readouterr()
    assert call("search", folder, tmp_path / "p") == 2
    said = capsys.readouterr().err
    assert f"is encrypted with key {key.id}; give the key file" in said
    monkeypatch.setenv(KEY_VARIABLE, make_key().value.hex())
    assert call("search", folder, tmp_path / "p") == 2
    assert "got key" in capsys.readouterr().err


def test_what_is_there_is_not_made_again(tmp_path, patterns, watch_list, capsys):
    before = sorted(path.name for path in tmp_path.iterdir())
    assert create(watch_list, patterns) == 2
    assert "with a collection 'main' already" in capsys.readouterr().err
    (tmp_path / "list.key").rename(tmp_path / "away.key")
    assert create(watch_list, patterns) == 2  # and leaves no key behind that opens nothing
    (tmp_path / "away.key").rename(tmp_path / "list.key")
    assert create(tmp_path / "new", patterns, "--threshold", 1.5) == 2
    assert create(tmp_path / "new", patterns, "--retention-days", -1) == 2
    assert create(tmp_path / "new", tmp_path / "none.onnx") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_gallery_holds_several_watch_lists(tmp_path, patterns, watch_list, capsys):
    words = ("--collection", "staff", "--fusion", "mean", "--threshold", 0.7)
    assert create(watch_list, patterns, *words) == 0
    assert (tmp_path / "list-staff.key").is_file()
    people = write_people(tmp_path / "staff", {"dee": 4})
    assert call("enrol", watch_list, people, "--collection", "staff") == 0
    capsys.readouterr()
    assert call("search", watch_list, people, "--collection", "staff") == 0
    assert "0.png: dee" in capsys.readouterr().out
    assert call("search", watch_list, people) == 0
    assert "dee" not in capsys.readouterr().out.replace("dee/", "")
    assert call("list", watch_list, "--collection", "stuff") == 2
    assert "did you mean 'staff'" in capsys.readouterr().err
    assert call("audit", watch_list, "--last", 9, "--key-file", tmp_path / "list.key") == 0
    shown = capsys.readouterr().out
    assert "enrol [staff]\tdee" in shown and "not at hand" not in shown


def test_what_is_known_of_pictures_is_kept(tmp_path, watch_list, capsys):
    scans = write_people(tmp_path / "scans", {"dee": 4})
    words = ("--captured", "2019-05", "--print-scan")
    assert call("enrol", watch_list, scans, *words) == 0
    capsys.readouterr()
    assert call("show", watch_list, "dee", "--json", tmp_path / "show.json") == 0
    shown = capsys.readouterr().out
    assert "scene, a scan of a print\tcaptured 2019-05, enrolled 20" in shown
    first, _ = read(tmp_path / "show.json")["samples"]
    assert (first["source"], first["captured"], first["print_scan"]) == (
        "dee/0.png",
        "2019-05",
        True,
    )
    assert call("enrol", watch_list, scans, "--captured", "May 2019") == 2
    assert "must be YYYY, YYYY-MM or YYYY-MM-DD" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--min-eyes-px", 60), "inter-eye distance 35 px, at least 60 asked"),
        (("--min-face-px", 200), "face 112 px, at least 200 asked"),
        (("--min-norm", 1e6), "norm of the embedding"),
        (("--min-sharpness", 1e6), "sharpness"),
    ],
)
def test_a_picture_below_the_gate_is_refused_with_its_figure(
    tmp_path, watch_list, capsys, words, reason
):
    new = write_people(tmp_path / "new", {"dee": 4}, pictures=1)
    capsys.readouterr()
    assert call("enrol", watch_list, new, *words) == 2  # nothing was enrolled
    shown = capsys.readouterr().out
    assert f"dee/0.png: refused: {reason}" in shown and "0 enrolled" in shown
    assert "3 people in the collection" in shown
    assert call("enrol", watch_list, new) == 0


def test_a_face_under_two_names_is_said_or_refused(tmp_path, watch_list, capsys):
    double = write_people(tmp_path / "double", {"eve": 1}, pictures=1, start=3)
    capsys.readouterr()
    assert call("enrol", watch_list, double, "--check", "strict") == 2
    assert "0.png" not in (shown := capsys.readouterr().out)
    assert "eve/3.png: refused: nearly the same picture as one of ann" in shown
    assert call("enrol", watch_list, double) == 0  # the gallery's own check warns
    assert "eve/3.png: enrolled: nearly the same picture as one of" in capsys.readouterr().out
    more = write_people(tmp_path / "more", {"fay": 1}, pictures=1, start=4)
    assert call("enrol", watch_list, more, "--check", "off") == 0
    assert "fay/" not in capsys.readouterr().out


def test_kept_pictures_are_sealed(tmp_path, patterns):
    people = write_people(tmp_path / "people", {"ann": 1}, pictures=1)
    chip_bytes = encode_png(chip(1))
    for name, words in (("sealed", ()), ("plain", ("--no-encryption",))):
        assert create(tmp_path / name, patterns, "--keep-pictures", *words) == 0
        assert call("enrol", tmp_path / name, people) == 0
    assert holds(tmp_path / "plain", chip_bytes[16:64])
    assert not holds(tmp_path / "sealed", chip_bytes[16:64])
    assert not holds(tmp_path / "sealed", bytes(vector_of(1))[:32])
    assert call("audit", tmp_path / "sealed") == 0


def test_an_interrupted_enrolment_goes_on(tmp_path, watch_list, monkeypatch, capsys):
    more = write_people(tmp_path / "more", {"dee": 4, "eli": 5, "fay": 6})
    enrol = Gallery.enrol

    def interrupted(self, person, *arrays, **named):
        if person == "eli":
            raise KeyboardInterrupt
        return enrol(self, person, *arrays, **named)

    monkeypatch.setattr(Gallery, "enrol", interrupted)
    capsys.readouterr()
    assert call("enrol", watch_list, more) == 130
    assert "the same command goes on with the rest" in capsys.readouterr().err
    monkeypatch.setattr(Gallery, "enrol", enrol)
    assert call("enrol", watch_list, more) == 0
    shown = capsys.readouterr().out
    assert "4 enrolled, 2 already enrolled, 0 refused; 6 people" in shown
    assert call("audit", watch_list) == 0


class PageDetector:
    """Finds one person's pattern on white paper, if it stands upright."""

    name = "pages"

    def __init__(self, person):
        self.pattern = chip(person, 32).astype(np.float32)

    def detect(self, image, key=""):
        rows, columns = np.nonzero((image < 240).any(axis=2))
        if len(rows) < 100:
            return Faces.empty()
        x, y = columns.min(), rows.min()
        side = max(columns.max() - x, rows.max() - y) + 1
        seen = cv2.resize(image[y : y + side, x : x + side], (32, 32)).astype(np.float32)
        score = 0.95 if np.abs(seen - self.pattern).mean() < 12 else 0.1
        points = (ARCFACE_TEMPLATE + 0.5) * side / 112 - 0.5 + (x, y)
        box = np.array([[x, y, x + side, y + side]], np.float32)
        return Faces(box, points[None].astype(np.float32), np.array([score], np.float32))


def test_a_portrait_is_taken_from_the_page_of_a_document(tmp_path, watch_list, monkeypatch, capsys):
    page = np.full((500, 800, 3), 255, np.uint8)
    page[140:364, 80:304] = chip(8, 224)
    page = np.ascontiguousarray(np.rot90(page))
    (tmp_path / "pages" / "hal").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "pages" / "hal" / "passport.png"), page[:, :, ::-1])
    blank = tmp_path / "pages" / "ida" / "blank.png"
    blank.parent.mkdir()
    cv2.imwrite(str(blank), np.full((300, 400, 3), 255, np.uint8))
    monkeypatch.setattr(tools, "build_detector", lambda spec, **more: PageDetector(8))
    capsys.readouterr()
    words = ("--document", "passport")
    assert call("enrol", watch_list, tmp_path / "pages", *words) == 0
    shown = capsys.readouterr()
    assert "hal/passport.png: enrolled: the page was turned by 90 degrees" in shown.out
    assert "ida/blank.png: refused: no portrait: no face was found" in shown.out
    assert "no capture date" in shown.err
    monkeypatch.undo()
    assert call("search", watch_list, write_picture(tmp_path / "hal.png", 8)) == 0
    assert "hal.png: hal 1.000 " in capsys.readouterr().out
    call("show", watch_list, "hal")
    assert "\tpassport\tenrolled" in capsys.readouterr().out


def test_a_machine_readable_zone_says_what_the_document_is(tmp_path, watch_list, capsys):
    zone = ("V<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<", "L8988901C4XXX4009078F9612109<<<<<<<<")
    words = ("--mrz", *zone, "--captured", "3.5.1996")
    assert call("enrol", watch_list, tmp_path / "people", *words, "--document", "passport") == 2
    assert "contradicts --mrz, which is that of a visa" in capsys.readouterr().err
    assert call("enrol", watch_list, tmp_path / "people", "--mrz", "P<UTO") == 2
    capsys.readouterr()
    new = write_people(tmp_path / "new", {"dee": 4}, pictures=1)
    assert call("enrol", watch_list, new, *words) == 0
    assert "expire" in capsys.readouterr().err
    assert call("show", watch_list, "dee", "--json", tmp_path / "show.json") == 0
    (sample,) = read(tmp_path / "show.json")["samples"]
    assert (sample["document_class"], sample["captured"]) == ("visa", "1996")
