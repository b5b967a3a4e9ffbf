"""`facerec-gallery`: a watch list from its making to the erasure of everybody in it."""

from __future__ import annotations

from collections.abc import Sequence

from facerec.cli.gallery_audit import add_audit
from facerec.cli.gallery_calibrate import add_calibrate
from facerec.cli.gallery_create import add_create
from facerec.cli.gallery_enrol import add_enrol
from facerec.cli.gallery_index import add_index_command
from facerec.cli.gallery_people import add_people
from facerec.cli.gallery_search import add_search
from facerec.cli.gallery_watch import add_watch
from facerec.command import build_parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run `facerec-gallery` and return its exit code."""
    parser = build_parser(
        "facerec-gallery",
        "A watch list that knows when to say unknown. SQLite is the authority; every action is "
        "written to a hash-chained audit log; embeddings are encrypted unless told otherwise.",
        "facerec-gallery create list --model mobilefacenet --detector yunet\n"
        "  facerec-gallery enrol list people/\n"
        "  facerec-gallery calibrate list --impostors strangers/ --fpir 0.01\n"
        "  facerec-gallery search list photo.jpg",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        add_create,
        add_enrol,
        add_calibrate,
        add_search,
        add_watch,
        add_people,
        add_index_command,
        add_audit,
    ):
        add(commands)
    return run_command(parser, argv)
