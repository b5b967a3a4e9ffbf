"""The gallery that the tests of the command line begin with."""

import pytest
from pattern_people import call, write_people, write_recogniser


@pytest.fixture(scope="session")
def patterns(tmp_path_factory):
    """The recogniser of people who are patterns of colour."""
    return write_recogniser(tmp_path_factory.mktemp("patterns") / "patterns.onnx")


@pytest.fixture
def watch_list(tmp_path, patterns, monkeypatch):
    """An encrypted gallery of ann, bob and cem, two pictures each; its key is beside it."""
    monkeypatch.delenv("FACEREC_GALLERY_KEY", raising=False)
    folder = tmp_path / "list"
    people = write_people(tmp_path / "people", {"ann": 1, "bob": 2, "cem": 3})
    words = ("--model", patterns, "--detector", "aligned", "--threshold", 0.7)
    assert call("create", folder, *words) == 0
    assert call("enrol", folder, people, "--operator", "meg") == 0
    return folder
