"""Document pages as pictures: the main portrait of each, upright and aligned."""

from __future__ import annotations

from facerec.data.align import align_faces
from facerec.data.images import UnreadableImageError, decode_image
from facerec.data.pictures import BAD_LANDMARKS, DetectedPicture
from facerec.data.sources import SourceItem
from facerec.gallery.documents_portrait import crop_portrait
from facerec.gallery.documents_print import print_scan_score
from facerec.io import sha256_bytes
from facerec.structures import Detector

_PRINTED = 0.5


def detect_portrait(item: SourceItem, detector: Detector, policy: str = "") -> DetectedPicture:
    """Return the portrait of a page; as `facerec.data.pictures.detect_picture`, for documents.

    Boxes and landmarks are in pixels of the portrait, cut out and turned upright. What was chosen
    among several faces, and what looks like print, is said in `note`.

    Args:
        item: the page.
        detector: what finds faces.
        policy: not asked: a document has one portrait, the most prominent.
    """
    sha256, width, height = "", 0, 0
    try:
        data = item.read_bytes()
        sha256 = sha256_bytes(data)
        image = decode_image(data, item.key)
        height, width = image.shape[:2]
        portrait = crop_portrait(image, detector)
        if portrait.reason:
            return DetectedPicture(item, sha256, width, height, reason=portrait.reason)
        faces, chips = align_faces(portrait.image, portrait.faces)
        notes = [portrait.note] if portrait.note else []
        if print_scan_score(portrait.image) > _PRINTED:
            notes.append("it looks like a scan of a print; say so with --print-scan if it is")
    except UnreadableImageError as error:
        return DetectedPicture(item, sha256, width, height, reason=error.reason)
    except Exception as error:  # one bad picture must not end the enrolment of the others
        text = f"detector failed: {type(error).__name__}: {error}".split("\n")[0]
        return DetectedPicture(item, sha256, width, height, reason=text[:200])
    reason = "" if len(faces) else BAD_LANDMARKS
    note = "; ".join(notes)
    return DetectedPicture(item, sha256, width, height, faces, chips, len(faces), reason, note)
