"""The page of a verification: headline figures, curves, failures, protocol. No pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.verify import Verification, thin_curve
from facerec.pages import Page, build_line_plot
from facerec.provenance import versions

_UNSUPPORTED = "no: fewer than 10 false accepts possible"


def build_verify_page(
    result: Mapping[str, Any], pairs: Verification, all_pairs: Verification | None
) -> Page:
    """Return the page of one `facerec-eval verify`.

    Args:
        result: what the JSON file holds.
        pairs: figures over the list of pairs.
        all_pairs: figures over all pairs, None when they were not asked for.
    """
    page = Page(f"Verification: {result['model']}", f"on {result['pairs_file']}")
    page.heading("Figures").key_values(_headline(result))
    _add_operating_points(page, result["tar_at_far"], "TAR at each FAR over the list of pairs")
    if all_pairs is not None:
        figures = all_pairs.figures
        _add_operating_points(
            page,
            figures["tar_at_far"],
            f"TAR at each FAR over all {figures['pairs']:,} pairs of {figures['pictures']:,} "
            f"pictures of {figures['people']:,} people (EER {figures['eer']:.2%})",
        )
    page.table(
        ["fold", "accuracy", "threshold"],
        [
            (f"fold {entry['fold']}", entry["accuracy"], entry["threshold"])
            for entry in result["accuracy"]["folds"]
        ],
        "Accuracy of each fold at the threshold chosen on the other folds",
    )
    _add_curves(page, pairs, all_pairs)
    _add_failures(page, result["failed_files"])
    _add_protocol(page, result)
    return page


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain text table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [columns, *rows]
    ]
    return "\n".join(lines)


def describe_points(points: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return FAR, TAR, 95 % interval, threshold, false accepts and support of each, as text."""
    return [
        [
            f"{point['far']:.0e}",
            f"{point['tar']:.4f}",
            _range_text(point.get("interval")),
            f"{point['threshold']:.4f}",
            f"{point['false_accepts']:,} of {point['non_mated']:,}",
            "yes" if point["supported"] else _UNSUPPORTED,
        ]
        for point in points
    ]


POINT_COLUMNS = ("FAR", "TAR", "95 % interval", "threshold", "false accepts", "supported")


def _headline(result: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = result["accuracy"]
    return {
        "Accuracy": f"{accuracy['mean']:.4f} ± {accuracy['std']:.4f} over "
        f"{len(accuracy['folds'])} folds, 95 % interval {_range_text(accuracy['interval'])}",
        "Equal error rate": f"{result['eer']:.2%}",
        "Pairs": f"{result['pairs']:,} ({result['mated']:,} mated)",
        "Pictures embedded": result["embedded"],
        "Failures": f"{result['failures']:,} pictures, {result['failed_pairs']:,} pairs",
        "Model sha256": result["model_sha256"],
    }


def _range_text(interval: Mapping[str, Any] | None) -> str:
    return "-" if interval is None else f"{interval['low']:.4f} to {interval['high']:.4f}"


def _add_operating_points(page: Page, points: Sequence[Mapping[str, Any]], caption: str) -> None:
    page.table(POINT_COLUMNS, describe_points(points), caption)


def _add_curves(page: Page, pairs: Verification, all_pairs: Verification | None) -> None:
    sets = {"list of pairs": pairs}
    if all_pairs is not None:
        sets["all pairs"] = all_pairs
    page.heading("Curves")
    thin = {name: thin_curve(found.curve) for name, found in sets.items()}
    roc = {name: (curve.far, curve.tar) for name, curve in thin.items()}
    det = {name: (curve.far, 1 - curve.tar) for name, curve in thin.items()}
    at = "; ".join(
        f"{name}: TAR {point['tar']:.4f} at FAR {point['far']:.0e}"
        for name, found in sets.items()
        for point in found.figures["tar_at_far"]
        if point["supported"]
    )
    plot = build_line_plot(
        roc, "false accept rate", "true accept rate", x_scale="log", markers=False
    )
    page.figure(plot, f"ROC. {at or 'No point is supported.'}", "ROC: higher is better.")
    plot = build_line_plot(
        det,
        "false accept rate",
        "false reject rate",
        x_scale="log",
        y_scale="log",
        markers=False,
    )
    page.figure(
        plot,
        "DET curve, the ROC with 1 - TAR on a log axis: equal error rate "
        + ", ".join(f"{found.figures['eer']:.2%} ({name})" for name, found in sets.items()),
        "DET: lower is better; both axes are logarithmic, so rates of zero are not drawn.",
    )
    for name, found in sets.items():
        _add_histogram(page, name, found)


def _add_histogram(page: Page, name: str, found: Verification) -> None:
    counts = {"mated": found.mated_counts, "non-mated": found.non_mated_counts}
    edges = np.linspace(-1, 1, len(found.mated_counts) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    used = np.flatnonzero(found.mated_counts + found.non_mated_counts)
    shown = slice(max(int(used[0]) - 1, 0), int(used[-1]) + 2) if used.size else slice(None)
    series = {
        kind: (middles[shown], values[shown] / max(int(values.sum()), 1))
        for kind, values in counts.items()
    }
    points = found.figures["tar_at_far"]
    threshold = [point for point in points if point["supported"] or point is points[0]][-1]
    modes = ", ".join(
        f"{kind} scores are densest near {middles[int(np.argmax(values))]:.2f}"
        for kind, values in counts.items()
    )
    page.figure(
        build_line_plot(
            series,
            "cosine",
            "share of the group",
            markers=False,
            lines={f"threshold at FAR {threshold['far']:.0e}": threshold["threshold"]},
        ),
        f"Distribution of scores, {name}: {modes}.",
        f"Scores of the {name}, each group scaled to a sum of one; failures are not drawn.",
    )


def _add_failures(page: Page, failed: Mapping[str, str]) -> None:
    page.heading("Failures")
    if not failed:
        page.paragraph("Every picture gave a face.")
        return
    page.paragraph(
        "These pictures have no embedding. Each pair they stand in counts as rejected, so a mated "
        "one counts against accuracy and TAR."
    )
    page.table(["picture", "why"], sorted(failed.items()), "Pictures without an embedding")


def _add_protocol(page: Page, result: Mapping[str, Any]) -> None:
    page.heading("Protocol")
    page.paragraph(
        "A pair is accepted when its cosine reaches the threshold. TAR at a FAR uses the lowest "
        "observed score whose FAR does not exceed the target; a figure that rests on fewer than "
        "10 possible false accepts is given but not supported. The accuracy of a fold uses the "
        "threshold that is most accurate on the other folds. Intervals come from drawing people, "
        "not pairs, with replacement."
    )
    settings = ("detector", "policy", "flip", "runtime")
    page.key_values(
        {
            **{name.capitalize(): result[name] for name in settings},
            **{f"Version of {name}": text for name, text in versions().items()},
        }
    )
