"""The commands' choices are written out, so that --help needs no gallery; they must be the same."""

from facerec.cli import gallery_create, gallery_enrol
from facerec.gallery.enrolment_checks import CHECK_MODES
from facerec.gallery.fusion import FUSIONS
from facerec.gallery.schema import DOCUMENT_CLASSES, KINDS


def test_the_choices_are_those_of_the_gallery():
    assert gallery_create._FUSIONS == FUSIONS
    assert gallery_create._CHECKS == gallery_enrol._CHECKS == CHECK_MODES
    assert gallery_enrol._DOCUMENTS == DOCUMENT_CLASSES
    assert gallery_enrol._KINDS == KINDS
