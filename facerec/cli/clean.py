"""`facerec-clean`: from a crawl to a clean set, every decision logged and none for ever."""

from __future__ import annotations

from collections.abc import Sequence

from facerec.cli.clean_crawl import add_crawl
from facerec.cli.clean_ingest import add_ingest
from facerec.cli.clean_inject import add_inject
from facerec.cli.clean_log import add_log
from facerec.cli.clean_refine import add_refine
from facerec.cli.clean_rejects import add_rejects
from facerec.cli.clean_review import add_review
from facerec.cli.clean_run import add_run
from facerec.command import build_parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run `facerec-clean` and return its exit code."""
    parser = build_parser(
        "facerec-clean",
        "Clean a crawl: detect, align, embed, find the faces that are not who their folder says. "
        "The source is never touched; every decision is logged with its score and can be undone.",
        "facerec-clean ingest crawl/ set/ --detector yunet.onnx\n"
        "  facerec-clean run set/ --model recogniser.onnx\n"
        "  facerec-clean report set/",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        add_crawl,
        add_ingest,
        add_run,
        add_refine,
        add_review,
        add_log,
        add_rejects,
        add_inject,
    ):
        add(commands)
    return run_command(parser, argv)
