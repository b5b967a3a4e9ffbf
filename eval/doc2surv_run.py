"""From folders to a result: one call reads a set, embeds it and evaluates it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from eval.doc2surv import evaluate_doc2surv
from eval.doc2surv_adapters import read_chokepoint, read_cox, read_ijbs, read_scface
from eval.doc2surv_distractors import read_distractors
from eval.doc2surv_embed import SetEmbedder
from eval.doc2surv_frames import EmbedSettings
from eval.doc2surv_layout import (
    Layout,
    read_documents,
    read_folders,
    read_people,
    read_track_table,
)
from eval.doc2surv_result import Doc2SurvResult
from eval.doc2surv_settings import Doc2SurvSettings
from eval.doc2surv_simulated import read_simulation
from facerec.checks import InputError, check_one_of
from facerec.detection import build_detector, hash_detector
from facerec.embedder import Embedder
from facerec.io import sha256_file

LAYOUTS = ("folders", "simulation", "scface", "chokepoint", "cox", "ijbs")


@dataclass(frozen=True)
class Doc2SurvInputs:
    """Where a set lies.

    Attributes:
        layout: one of `LAYOUTS`.
        root: the set's folder; for "folders" it may be left out.
        documents: folder or table of documents, for "folders" and "chokepoint".
        tracks: folder of tracks, or table of tracks, for "folders".
        videos: folder of the videos that a table of tracks names; the table's own when None.
        people: table of people with halves and groups.
        distractors: file or folder of embeddings.
    """

    layout: str = "folders"
    root: Path | None = None
    documents: Path | None = None
    tracks: Path | None = None
    videos: Path | None = None
    people: Path | None = None
    distractors: Path | None = None

    def __post_init__(self) -> None:
        check_one_of(self.layout, "layout", LAYOUTS)


@dataclass(frozen=True)
class Doc2SurvModel:
    """What embeds.

    Attributes:
        model: store name, artefact folder or .onnx file.
        detector: see `facerec.detection.build_detector`.
        runtime: "auto", "onnxruntime", "openvino" or "torch".
        batch_size: faces a call of the model.
        flip: average each face with its mirror image.
        cache: folder of kept embeddings, None for none.
    """

    model: str
    detector: str
    runtime: str = "auto"
    batch_size: int = 32
    flip: bool = False
    cache: Path | None = None


def read_layout(inputs: Doc2SurvInputs) -> Layout:
    """Return the set's list of documents and tracks.

    Raises:
        InputError: a path is missing or of no use for the layout, or what the readers refuse.
    """
    kind = inputs.layout
    if kind == "folders":
        return _read_folders(inputs)
    if inputs.root is None:
        raise InputError(f"layout {kind} needs the folder of the set: give it with --root")
    if kind == "chokepoint":
        if inputs.documents is None:
            raise InputError("ChokePoint has no documents: give stills with --documents")
        return read_chokepoint(inputs.root, inputs.documents)
    readers = {
        "simulation": read_simulation,
        "scface": read_scface,
        "cox": read_cox,
        "ijbs": read_ijbs,
    }
    return readers[kind](inputs.root)


def run_doc2surv(
    inputs: Doc2SurvInputs,
    means: Doc2SurvModel,
    settings: Doc2SurvSettings | None = None,
    embedding: EmbedSettings | None = None,
) -> Doc2SurvResult:
    """Return the figures of a model over a set of documents and videos.

    Args:
        inputs: where the set lies.
        means: what embeds.
        settings: of the evaluation.
        embedding: how faces are found.

    Raises:
        InputError: anything wrong with the input; JobError and OSError as the parts raise them.
    """
    settings, embedding = settings or Doc2SurvSettings(), embedding or EmbedSettings()
    layout = read_layout(inputs)
    distractors = None
    hashes = dict(layout.hashes)
    if inputs.distractors is not None:
        distractors = read_distractors(inputs.distractors, settings.seed)
        if inputs.distractors.is_file():
            hashes["distractors"] = sha256_file(inputs.distractors)
    embedder = Embedder(means.model, means.runtime, means.batch_size, means.flip)
    # A document without a face is worth a second look; a frame is not, the next one comes anyway.
    looks = [build_detector(means.detector, second_look=again) for again in (True, False)]
    finds = [hash_detector(means.detector, one) for one in looks]
    detector = looks[1]
    hashes |= {"model": embedder.info.sha256, "detector": finds[1]}
    patient, quick = (
        SetEmbedder(embedder, one, embedding, means.cache, digest)
        for one, digest in zip(looks, finds, strict=True)
    )
    documents = patient.embed_documents(layout.documents)
    tracks = quick.embed_tracks(layout.tracks)
    how = "the detector" if embedding.faces == "detector" else "the landmarks of the tracks' table"
    frames = "each frame" if embedding.every == 1 else f"every {embedding.every}th frame"
    notes = (
        *layout.notes,
        f"Set: {layout.name}. Faces of the tracks come from {how}, in {frames}; a track's template "
        "is that of the watch list (outlier frames dropped, one vote a distinct view).",
    )
    described = {
        "layout": inputs.layout,
        "model": embedder.info.name,
        "detector": detector.name,
        "runtime": embedder.runtime_name,
        "flip": means.flip,
        **{f"faces_{name}": value for name, value in asdict(embedding).items()},
    }
    return evaluate_doc2surv(
        documents,
        tracks,
        settings,
        distractors=distractors,
        title=f"Documents against surveillance: {layout.name}",
        model=embedder.info.name,
        simulated=layout.simulated,
        notes=notes,
        hashes=hashes,
        config=described,
    )


def _read_folders(inputs: Doc2SurvInputs) -> Layout:
    documents, tracks = inputs.documents, inputs.tracks
    if inputs.root is not None:
        documents = documents or inputs.root / "documents"
        tracks = tracks or inputs.root / "tracks"
    if documents is None or tracks is None:
        raise InputError("layout folders needs --documents and --tracks, or --root with both in it")
    if tracks.is_dir():
        found = read_folders(documents, tracks)
    else:
        found = Layout(
            f"{documents.name} and {tracks.name}",
            tuple(read_documents(documents)),
            tuple(read_track_table(tracks, inputs.videos or tracks.parent)),
            hashes={tracks.name: sha256_file(tracks)},
        )
    return found if inputs.people is None else found.place(read_people(inputs.people))
