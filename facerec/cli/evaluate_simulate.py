"""`facerec-eval simulate`: documents and surveillance videos made from stills, with their truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.command import add_command, write_json_result

Commands = Any


def add_simulate(commands: Commands) -> None:
    """Add `simulate` to the sub-commands of `facerec-eval`."""
    parser = add_command(
        commands,
        "simulate",
        _run_simulate,
        "documents and H.264 surveillance videos made from stills; every figure from them is one "
        "of a simulated set",
        "facerec-eval simulate lfw/ --out sim/ --detector yunet --people 200 --sizes 12 20 32 64",
    )
    add = parser.add_argument
    add("images", type=Path, nargs="+",
        help="stills: folders with a folder a person, or lists with path and identity")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR",
        help="new folder: documents/, videos/, tracks.parquet, people.parquet, simulation.json; "
        "or one of a run that was cut off")  # fmt: skip
    add("--detector", required=True,
        help="store name, artefact folder or .onnx file of YuNet, insightface:FOLDER, or aligned "
        "(every still is a chip)")  # fmt: skip
    add("--policy", choices=("central", "largest"), default="central",
        help="which face of a still is the person's")  # fmt: skip
    add("--leave-out", type=Path, metavar="FILE", help="names, one a line, who must not appear")
    add("--workers", type=int, help="processes, one a core if not given; they change no file")
    _add_people(parser.add_argument_group("people"))
    _add_videos(parser.add_argument_group("videos"))


def _add_people(group: Any) -> None:
    add = group.add_argument
    add("--people", type=int, default=40, help="who appear in videos")
    add("--unknown-share", type=float, default=0.25, metavar="SHARE",
        help="of the people: have no document")  # fmt: skip
    add("--documents-only", type=int, default=0, metavar="N",
        help="people more who have a document and appear nowhere")  # fmt: skip
    add("--print-severity", type=float, nargs=2, default=(0.1, 0.5), metavar=("LOW", "HIGH"),
        help="of the documents' print and scan, 0 to 1")  # fmt: skip
    add("--seed", type=int, default=0, help="of everything random")


def _add_videos(group: Any) -> None:
    add = group.add_argument
    add("--sizes", type=int, nargs="+", default=(12, 20, 32, 64), metavar="PX",
        help="widths of the faces (a detector's box, 2.26 times the eyes' distance), pixels; "
        "everybody walks by at each")  # fmt: skip
    add("--visits", type=int, default=1, help="walks of each person at each size")
    add("--people-a-scene", type=int, default=4, metavar="N", help="at most in a video together")
    add("--seconds", type=float, default=4.0, help="of each video")
    add("--fps", type=int, default=12, help="frames a second")
    add("--width", type=int, default=960, help="of the videos, pixels")
    add("--height", type=int, default=540, help="likewise")
    add("--bit-rate", type=int, default=600, metavar="KBIT", help="of the videos, kbit/s")
    add("--low-light", type=float, default=0.3, metavar="SHARE", help="of the videos: dark")
    add("--noise-gain", type=float, nargs=2, default=(2.0, 16.0), metavar=("LOW", "HIGH"),
        help="of the sensor in lit videos, ISO / 100")  # fmt: skip
    add("--defocus", type=float, nargs=2, default=(0.3, 1.2), metavar=("LOW", "HIGH"),
        help="radius of the lens's disk, pixels")  # fmt: skip
    add("--yaw", type=float, default=20.0, metavar="DEGREES",
        help="greatest turn of a head, beside the still's own pose")  # fmt: skip
    add("--impostor-frames", type=float, default=0.0, metavar="SHARE",
        help="of each track's frames: show somebody else's head")  # fmt: skip


def _run_simulate(arguments: argparse.Namespace) -> None:
    from eval.simulate import Inputs, simulate
    from eval.simulate_settings import SimulationSettings
    from facerec.detection import build_detector, hash_detector

    same = (
        "people", "unknown_share", "documents_only", "seed", "visits", "people_a_scene",
        "seconds", "fps", "width", "height", "low_light", "impostor_frames",
    )  # fmt: skip
    settings = SimulationSettings(
        sizes=tuple(arguments.sizes),
        bit_rate_kbit=arguments.bit_rate,
        yaw_deg=arguments.yaw,
        noise_gain_range=tuple(arguments.noise_gain),
        defocus_px_range=tuple(arguments.defocus),
        print_severity_range=tuple(arguments.print_severity),
        **{name: getattr(arguments, name) for name in same},
    )
    detector = build_detector(arguments.detector)
    inputs = Inputs(
        tuple(arguments.images),
        detector,
        hash_detector(arguments.detector, detector),
        arguments.policy,
        _read_names(arguments.leave_out),
    )
    record = simulate(inputs, arguments.out, settings, arguments.workers)
    provenance = record.pop("provenance")
    write_json_result(
        arguments,
        record,
        seed=settings.seed,
        config=provenance["config"],
        hashes=provenance["hashes"],
    )
    print(_summarise(record, arguments.out))


def _read_names(path: Path | None) -> frozenset[str]:
    from facerec.checks import InputError

    if path is None:
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"--leave-out {path} must be a text file with a name a line") from None
    return frozenset(line.strip() for line in lines if line.strip())


def _summarise(record: dict[str, Any], out: Path) -> str:
    people, rejected = record["people"], record["rejected"]
    lines = [
        f"simulated  {len(record['videos'])} videos, {record['tracks']} tracks, "
        f"faces {', '.join(map(str, record['settings']['sizes']))} px wide",
        "people     " + ", ".join(f"{count} {role}" for role, count in people.items()),
    ]
    lines += [f"left out   {entry['still']}: {entry['reason']}" for entry in rejected[:5]]
    if len(rejected) > 5:
        lines.append(f"           and {len(rejected) - 5} stills more: see simulation.json")
    return "\n".join([*lines, f"wrote      {out}"])
