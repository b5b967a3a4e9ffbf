"""`facerec-clean ingest`: a source of any size to a set of aligned faces."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from facerec.cli.clean_json import write_set_json
from facerec.command import add_command

Commands = Any

_KINDS = ("auto", "folder", "list", "loose", "img2dataset", "webdataset", "recordio")
_SHOWN_FAULTS = 20


def add_ingest(commands: Commands) -> None:
    """Add `ingest` to the sub-commands of `facerec-clean`."""
    parser = add_command(
        commands,
        "ingest",
        _run_ingest,
        "detect and align the faces of a source into a set folder; run again, it goes on",
        "facerec-clean ingest crawl/ set/ --detector yunet.onnx --policy largest\n"
        "  facerec-clean ingest shards/ set/ --detector yunet.onnx --workers 8\n"
        "  facerec-clean ingest /nfs/shards /nfs/set --detector yunet.onnx --ray head:6379",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="folder of pictures, .csv or .parquet list, folder (or pattern) of .tar shards as "
        "img2dataset or WebDataset write them, or RecordIO (.rec)",
    )
    parser.add_argument("out", type=Path, help="set folder, outside the source")
    parser.add_argument(
        "--detector",
        required=True,
        help="YuNet model (store name, folder or file), insightface:FOLDER, annotations:TABLE "
        "or aligned",
    )
    parser.add_argument(
        "--policy",
        default="largest",
        choices=("largest", "central", "all"),
        help="which of several faces",
    )
    _add_source_options(parser)
    parser.add_argument(
        "--chips",
        default="png",
        choices=("png", "jpg"),
        help="png keeps every pixel, jpg (quality 95) saves space",
    )
    _add_crew_options(parser)


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", default="auto", choices=_KINDS, help="kind of source")
    parser.add_argument("--root", type=Path, help="folder that a list's paths are relative to")
    parser.add_argument(
        "--identity-column",
        metavar="NAME",
        help="column of a list or of img2dataset's tables, or field of the .json in tar shards, "
        "that names who is shown; if left, identity (shards: also label, cls or name)",
    )
    parser.add_argument(
        "--max-faults",
        type=int,
        metavar="N",
        help="damaged or missing shards to pass over before stopping; if left, a tenth of them, "
        "at least 3",
    )


def _add_crew_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=int,
        help="for decoding and detection in each worker; if left, the cores shared out",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes; if left, this one alone, and with --ray as many as the cluster holds",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster (auto, HOST:PORT or ray://HOST:PORT), or over a "
        "Ray started here (local); source, set folder and detector must lie on storage that all "
        "machines share, under the same paths, and facerec must be installed on each",
    )


def _run_ingest(arguments: argparse.Namespace) -> None:
    from data_tools.ingest import ingest

    figures = ingest(
        arguments.source,
        arguments.out,
        arguments.detector,
        policy=arguments.policy,
        kind=arguments.kind,
        root=arguments.root,
        identity_column=arguments.identity_column,
        chip_format=arguments.chips,
        threads=arguments.threads,
        workers=arguments.workers,
        ray=arguments.ray,
        max_faults=arguments.max_faults,
    )
    if figures["already"]:
        print(f"{arguments.out} was ingested already; nothing to do")
    print(
        f"{figures['pictures']:,} pictures of {figures['identities']:,} identities in "
        f"{figures['seconds']:.1f} s: {figures['faces']:,} faces, "
        f"{figures['unusable']:,} without a usable face"
    )
    for reason, count in figures["reasons"].items():
        print(f"  {count:>7,}  {reason}")
    if figures["skipped"]:
        print(f"{figures['skipped']:,} rows of the source have no picture by its own account")
    _show_faults(figures["faults"])
    write_set_json(arguments, figures)


def _show_faults(faults: list[dict[str, str]]) -> None:
    """Name on standard error what could not be read; `set.json` has all of it."""
    if not faults:
        return
    print(f"{len(faults):,} faults in the source, passed over:", file=sys.stderr)
    for fault in faults[:_SHOWN_FAULTS]:
        print(f"  {fault['shard']}: {fault['reason']}", file=sys.stderr)
    if len(faults) > _SHOWN_FAULTS:
        print(f"  and {len(faults) - _SHOWN_FAULTS:,} more, see set.json", file=sys.stderr)
