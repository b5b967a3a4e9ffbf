"""`facerec-gallery index`: how a collection is searched, and what that costs in recall."""

from __future__ import annotations

import argparse
from typing import Any

from facerec.cli.gallery_options import add_gallery, add_who, open_gallery
from facerec.command import add_command, write_json_result


def add_index_command(commands: Any) -> None:
    """Add the command that explains the index."""
    index = add_command(
        commands,
        "index",
        _run_index,
        "say which index is used and why, and measure its recall at the threshold",
        "facerec-gallery index list --recall",
    )
    add_gallery(index)
    add = index.add_argument
    add("--index", default="auto", metavar="RUNG", help="flat, rabitq+exact, pq4+exact, ...")
    add("--recall", action="store_true", help="compare it with exact search on the gallery itself")
    add("--probes", type=int, default=1000, help="rows to ask for the recall")
    add("--seed", type=int, default=0, help="of the draw")
    add_who(index)


def _run_index(arguments: argparse.Namespace) -> None:
    from facerec.gallery.index_ladder import choose_rung, list_rungs
    from facerec.gallery.index_recall import measure_recall

    with open_gallery(arguments) as gallery:
        view = gallery.searcher.look()
        choice = choose_rung(len(view.index), gallery.model.dim, people=view.people)
        result: dict[str, Any] = {
            "rows": len(view.index),
            "index": view.index.name,
            "chosen": choice.name,
            "explanation": choice.explanation,
            "rungs": list_rungs(),
        }
        print(f"{len(view.index)} rows, searched with {view.index.name}")
        print(f"chosen by size: {choice.explanation}")
        print(f"there are: {', '.join(list_rungs())}")
        if arguments.recall:
            threshold = view.threshold
            limit = threshold.value if threshold is not None and view.normaliser is None else 0.4
            found = measure_recall(view.index, limit, count=arguments.probes, seed=arguments.seed)
            for name, share in (
                ("at the threshold", found.at_threshold),
                ("just above it", found.edge),
                ("rank 1", found.rank1),
            ):
                print(
                    f"recall {name} {limit:.3f}: {share.share:.4f} "
                    f"({share.low:.4f} to {share.high:.4f}), {share.found} of {share.compared}"
                )
            result["recall"] = {
                "threshold": limit,
                "at_threshold": vars(found.at_threshold),
                "edge": vars(found.edge),
                "rank1": vars(found.rank1),
            }
    write_json_result(arguments, result, seed=arguments.seed)
