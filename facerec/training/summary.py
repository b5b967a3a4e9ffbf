"""One page a run: what was trained, how it went, what came out."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facerec.io import read_json
from facerec.training.log import METRICS, read_metrics
from facerec.training.settings import TrainSettings
from facerec.training.unlabelled import ADMISSION

SUMMARY = "summary.html"
_CURVES = (
    ("Loss", "loss", {"loss": "loss"}),
    ("Angles", "degrees", {"target_angle": "own class", "negative_angle": "nearest other class"}),
    ("Embedding norm", "norm", {"norm": "norm"}),
    ("Learning rate", "learning rate", {"lr": "learning rate"}),
    ("Speed", "images a second", {"images_per_s": "images a second"}),
)


def write_summary(folder: Path, settings: TrainSettings, result: Mapping[str, Any]) -> Path | None:
    """Write `summary.html` into a run folder and return its path.

    None is returned where jinja2 or matplotlib is not installed: a training machine may be lean,
    and the figures are in metrics.jsonl all the same.

    Args:
        folder: run folder with its metrics.
        settings: the recipe.
        result: values of `result.json`.
    """
    if any(importlib.util.find_spec(name) is None for name in ("jinja2", "matplotlib")):
        return None
    from facerec.pages import Page

    lines = read_metrics(folder / METRICS)
    page = Page(f"Training {folder.resolve().name}", _describe(settings, result))
    page.heading("Result")
    shown = {**result, "corrupt_chips": len(result["corrupt_chips"])}
    page.key_values({name.replace("_", " "): value for name, value in shown.items()})
    _add_curves(page, lines)
    _add_validation(page, lines)
    _add_selection(page, lines)
    if (folder / ADMISSION).exists():
        rows = read_json(folder / ADMISSION)["refreshes"]
        page.heading("Unlabelled faces")
        page.table(
            [name.replace("_", " ") for name in rows[0]],
            [list(row.values()) for row in rows],
            "Faces admitted as unknown at each refresh: their largest cosine with any known "
            "centre lies below the bound",
        )
    page.heading("Recipe")
    page.key_values(_flatten(settings.model_dump(mode="json")))
    return page.write(folder / SUMMARY)


def _describe(settings: TrainSettings, result: Mapping[str, Any]) -> str:
    parts = [settings.backbone.name, settings.head.name]
    parts += [name for name in (settings.noise.name, settings.mining.name) if name != "none"]
    return (
        f"{' + '.join(parts)}, {result['chips']:,} chips of {result['identities']:,} identities, "
        f"{settings.epochs} epochs, seed {settings.seed}"
    )


def _add_curves(page: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    from facerec.pages import build_line_plot

    page.heading("How it went")
    for title, label, names in _CURVES:
        series = {word: _series(lines, name) for name, word in names.items()}
        series = {name: xy for name, xy in series.items() if xy[0]}
        if not series:
            continue
        first, last = next(iter(series.values()))[1][0], next(iter(series.values()))[1][-1]
        page.figure(
            build_line_plot(series, "step", label, markers=False),
            f"{title} over the run: from {first:.4g} to {last:.4g}",
            title,
        )


def _add_validation(page: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    from facerec.pages import build_line_plot

    names = [n for line in lines for n in line if n.startswith("validation_")]
    shown = [n for n in dict.fromkeys(names) if n.endswith(("_tar", "_accuracy"))]
    if not shown:
        return
    page.heading("People it was not trained on")
    series = {name.removeprefix("validation_"): _series(lines, name) for name in shown}
    best = {name: max(values) for name, (_, values) in series.items()}
    page.figure(
        build_line_plot(series, "step", "share"),
        "Validation over the run; best: " + ", ".join(f"{n} {v:.4f}" for n, v in best.items()),
    )


def _add_selection(page: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    chosen = [line for line in lines if "kept" in line]
    if not chosen:
        return
    page.heading("Rows selected")
    columns = [name for name in chosen[-1] if name != "step"]
    page.table(
        [name.replace("_", " ") for name in columns],
        [[line.get(name) for name in columns] for line in chosen],
        "What the method kept in each epoch; precision and recall where the truth is known",
    )


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    found = [(line["step"], float(line[name])) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]


def _flatten(values: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{parent}.{key}" if parent else key
        flat |= _flatten(value, dotted) if isinstance(value, dict) else {dotted: str(value)}
    return flat
