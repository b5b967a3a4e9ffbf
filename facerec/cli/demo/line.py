"""Runs the public commands one after the other, skips what an interrupted demo had done."""

from __future__ import annotations

import contextlib
import importlib
import io
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facerec.checks import InputError
from facerec.cli.demo.page import write_page
from facerec.cli.demo.sets import (
    CAMERA,
    CRAWL,
    DOCUMENTS,
    PAIRS,
    PAIRS_FILE,
    PROBES,
    VIDEO,
    DemoSet,
    draw_set,
    find_people,
    link_set,
)
from facerec.cli.demo.summary import find_point, summarise
from facerec.command import INTERRUPTED
from facerec.io import read_json, write_json, write_text
from facerec.provenance import write_result

FIRST_EPOCHS = 6
# Of the drawn crawl, about; a smaller set of a user's gets more epochs to make up for it.
_STEPS_AN_EPOCH = 24
_SHOWN_LINES = 8
_STATE = "demo.json"
# Everything that a demo writes into its folder, beside its state.
_OWN = (
    *(CAMERA, CRAWL, DOCUMENTS, PAIRS, PAIRS_FILE, PROBES, "gallery", "runs", "set", "stages"),
    *("truth", "index.html", "tracks.jsonl", "verify-final.html", "verify-raw.html"),
)
_RECIPE = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"
_COMMANDS = {
    "facerec-clean": "facerec.cli.clean",
    "facerec-train": "facerec.cli.train",
    "facerec-eval": "facerec.cli.evaluate",
    "facerec-gallery": "facerec.cli.gallery",
}


class Line:
    """The stages of one demo, each with its result on disk.

    Args:
        out: the demo's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.stages: list[dict[str, Any]] = []

    def run(self, name: str, command: str, *words: object) -> dict[str, Any]:
        """Run a public command with `--json` and return what it wrote.

        Raises:
            InputError: the command failed; it has said why.
            KeyboardInterrupt: the user stopped it.
        """
        texts = [str(word) for word in words]

        def call(path: Path) -> None:
            main = importlib.import_module(_COMMANDS[command]).main
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = main([*texts, "--json", str(path)])
            _show(printed.getvalue().splitlines(), path.with_suffix(".txt"))
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            if code or not path.exists():
                raise InputError(f"the demo stopped at stage {name!r}; the line above says why")

        return self.do(name, " ".join([command, *texts]), call)

    def is_done(self, name: str) -> bool:
        """Return whether a stage's result is there, from this run or an interrupted one."""
        return self._clock(name).exists()

    def _clock(self, name: str) -> Path:
        return self.out / "stages" / f"{name}.seconds.json"

    def do(self, name: str, shown: str, work: Callable[[Path], None]) -> dict[str, Any]:
        """Do a stage unless its result is there, and return its result.

        Args:
            name: of the stage and its file.
            shown: what is printed: the command.
            work: writes the result, a JSON object, to the path that it is given.
        """
        path = self.out / "stages" / f"{name}.json"
        clock = self._clock(name)
        _say(f"\n== {name}\n$ {shown}")
        if clock.exists():
            _say("done already")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            work(path)
            write_json(clock, time.monotonic() - started)
        self.stages.append({"stage": name, "command": shown, "seconds": read_json(clock)})
        result: dict[str, Any] = read_json(path)
        return result


def run_demo(
    out: Path,
    *,
    data: Path | None = None,
    detector: str | None = None,
    seed: int = 1,
    json_path: Path | None = None,
) -> int:
    """Run the whole line in `out` and print where its page lies.

    An interrupted demo of the same settings goes on where it was; a finished one starts afresh.

    Args:
        out: a folder of this demo alone; made if missing.
        data: a user's pictures, one folder a person; people who do not exist when None.
        detector: spec of a detector; the model store's when None, and for synthetic people
            without one the annotations that are drawn with them.
        seed: of everything random.
        json_path: where to write all figures.

    Raises:
        InputError: foreign files in `out`, no detector for `data`, or a stage failed.
    """
    started = time.monotonic()
    out = out.resolve()
    detector = detector or _find_detector()
    _check_input(out, data, detector, seed)
    settings = {"data": str(data.resolve()) if data else "", "detector": detector, "seed": seed}
    _open_folder(out, settings)
    line = Line(out)

    def prepare(path: Path) -> None:
        if data is None:
            found = draw_set(out, detector, seed)
        else:
            assert detector is not None
            found = link_set(out, data, detector, seed)
        write_json(path, found.to_json())

    shown = "draw people who do not exist" if data is None else f"link the pictures in {data}"
    demo_set = DemoSet(**line.do("data", shown, prepare))
    results = _run_stages(line, demo_set, seed)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    summary = summarise(demo_set, results)
    page = write_page(out, demo_set, line.stages, results, summary, seconds, peak)
    write_json(out / _STATE, {**settings, "finished": True})
    _say(f"\n{seconds:.0f} s in all, {peak / 2**20:.0f} MiB at most. The report: {page.as_uri()}")
    if json_path is not None:
        figures: dict[str, Any] = {"summary": summary, "stages": line.stages}
        figures.update(seconds=seconds, peak_bytes=peak)
        write_result(json_path, figures, seed=seed, config=settings)
    return 0


def _check_input(out: Path, data: Path | None, detector: str | None, seed: int) -> None:
    """Refuse what is wrong before an earlier demo is removed for it."""
    from facerec.detection import build_detector

    if data is not None and detector is None:
        raise InputError(
            "your own pictures need a face detector: give --detector FILE.onnx (YuNet), or put one "
            "into the model store with `facerec models fetch yunet`"
        )
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}")
    if detector is not None:
        build_detector(detector)
    if data is not None:
        _check_own(data.resolve(), out)


def _run_stages(line: Line, data: DemoSet, seed: int) -> dict[str, Any]:
    """Run every stage after the data and return the results by name."""
    out = line.out
    found: dict[str, Any] = {}
    found["ingest"] = line.run(
        "ingest", "facerec-clean", "ingest", out / CRAWL, out / "set",
        "--detector", data.read_by(out / CRAWL),
    )  # fmt: skip
    # Stopped early: a net learns what most labels say before it learns the wrong ones by heart.
    raw_set = out / "set" / "manifest.parquet"
    _train(line, "first-model", raw_set, seed, epochs=FIRST_EPOCHS)
    first = out / "runs" / "first-model" / "artefact"
    found["clean"] = line.run("clean", "facerec-clean", "run", out / "set", "--model", first)
    found["report"] = line.run("clean-report", "facerec-clean", "report", out / "set")
    if data.truth:
        found["score"] = line.run(
            "clean-score", "facerec-clean", "score", out / "set", "--truth", out / data.truth
        )
    _train(line, "raw-model", raw_set, seed)  # what would have been without cleaning
    found["final"] = _train(line, "final-model", out / "set" / "clean.parquet", seed)
    model = out / "runs" / "final-model" / "artefact"
    for kind in ("raw", "final"):
        name = f"verify-{kind}"
        found[name] = line.run(
            name, "facerec-eval", "verify", "--pairs", out / PAIRS_FILE, "--images",
            out / PAIRS, "--model", out / "runs" / f"{kind}-model" / "artefact",
            "--detector", data.read_by(out / PAIRS), "--policy", "largest", "--flip", "--all-pairs",
            "--html", out / f"{name}.html", "--seed", seed,
        )  # fmt: skip
    threshold = round(float(find_point(found["verify-final"])["threshold"]), 6)
    if not line.is_done("gallery-create"):  # a demo stopped just there may have made it
        shutil.rmtree(out / "gallery", ignore_errors=True)
    found["create"] = line.run(
        "gallery-create", "facerec-gallery", "create", out / "gallery", "--model", model,
        "--detector", data.read_by(out / DOCUMENTS), "--threshold", threshold, "--flip",
    )  # fmt: skip
    found["enrol"] = line.run(
        "enrol-documents", "facerec-gallery", "enrol", out / "gallery", out / DOCUMENTS
    )
    found["watch"] = line.run(
        "watch", "facerec-gallery", "watch", out / "gallery", out / VIDEO,
        "--detector", data.read_by(out / CAMERA), "--out", out / "tracks.jsonl",
        "--purpose", "demo",
    )  # fmt: skip
    found["search"] = line.run(
        "search", "facerec-gallery", "search", out / "gallery", out / PROBES,
        "--detector", data.read_by(out / PROBES), "--top", 3, "--purpose", "demo",
    )  # fmt: skip
    found["audit"] = line.run("audit", "facerec-gallery", "audit", out / "gallery", "--last", 3)
    return found


def _train(line: Line, name: str, manifest: Path, seed: int, *, epochs: int = 0) -> dict[str, Any]:
    return line.run(
        name, "facerec-train", _RECIPE, f"run={line.out / 'runs' / name}",
        f"data.manifest={manifest}", f"seed={seed}", *_fit_recipe(manifest, epochs),
    )  # fmt: skip


def _fit_recipe(manifest: Path, epochs: int) -> list[str]:
    """Return overrides of the recipe: `epochs` if not 0, and about as many steps for a small set.

    A user's set may be smaller than a batch, and the recipe's epochs over it hardly a start.
    """
    from facerec.config import load_config
    from facerec.data.datasets import read_chip_set
    from facerec.training.settings import TrainSettings

    recipe = load_config(TrainSettings, _RECIPE)
    chips = len(read_chip_set(manifest=manifest, folder=None))
    batch = min(recipe.batch_size, chips)
    times = max(1, _STEPS_AN_EPOCH * batch // chips)
    overrides = []
    if epochs or times > 1:
        overrides.append(f"epochs={(epochs or recipe.epochs) * times}")
    if times > 1:
        overrides.append(f"optim.warmup_epochs={recipe.optim.warmup_epochs * times:g}")
    if batch < recipe.batch_size:
        overrides.append(f"batch_size={batch}")
    return overrides


def _find_detector() -> str | None:
    from facerec.models.store import ModelStore

    entries = ModelStore().list()
    names = [e.name for e in entries if e.info is not None and e.info.task == "detection"]
    return names[0] if names else None


def _check_own(data: Path, out: Path) -> None:
    """Refuse a user's folder that cannot be run on, or whose files the demo could change."""
    if data == out or data in out.parents or out in data.parents:
        raise InputError(f"--out {out} and --data {data} must not lie in one another")
    find_people(data)


def _open_folder(out: Path, settings: dict[str, Any]) -> None:
    """Keep an unfinished demo of these settings, empty one of others, refuse foreign files.

    Of a demo's folder only what a demo writes is removed: a user may have put files beside it.
    """
    if not _RECIPE.is_file():
        raise InputError(f"the demo's recipe {_RECIPE} is missing; run it from a checkout")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        state = read_json(out / _STATE) if (out / _STATE).is_file() else None
        if not isinstance(state, dict) or state.keys() != {*settings, "finished"}:
            raise InputError(f"{out} holds other files than a demo's; give an empty --out")
        if state == {**settings, "finished": False}:
            return
        # An emptying that is cut off is gone on with: no finished demo, of no settings.
        write_json(out / _STATE, {**dict.fromkeys(settings), "finished": False})
        for name in _OWN:
            if (out / name).is_dir() and not (out / name).is_symlink():
                shutil.rmtree(out / name)
            else:
                (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _STATE, {**settings, "finished": False})


def _show(lines: list[str], log: Path) -> None:
    """Print the first lines of a command's answer, and keep all of them."""
    write_text(log, "\n".join(lines) + "\n")
    for text in lines[:_SHOWN_LINES]:
        _say(text)
    if len(lines) > _SHOWN_LINES:
        _say(f"… {len(lines) - _SHOWN_LINES} more lines in {log}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
