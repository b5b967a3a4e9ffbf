"""What a refinement is asked to do: its settings checked, and as a record to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.refine_train import ROBUST, adapt_recipe
from data_tools.sets import SetFolder
from facerec.checks import InputError, check_one_of, check_range, check_whole
from facerec.config import load_config
from facerec.io import sha256_file
from facerec.models.store import resolve_model
from facerec.training.settings import TrainSettings


@dataclass(frozen=True)
class Plan:
    """What a refinement does.

    Attributes:
        first: recipe of the first training, None for no training at all.
        later: recipe of the trainings after it.
        model: the recogniser of round 0, None to train it.
        rounds: most rounds.
        stop_share: see `refine`.
        robust: one of ROBUST.
        cross_fit: whether each half is judged by a net that did not train on it.
        seed: of everything random.
        round_options: further arguments of `run_round`.
    """

    first: TrainSettings | None
    later: TrainSettings | None
    model: str | Path | None
    rounds: int
    stop_share: float
    robust: str
    cross_fit: bool
    seed: int
    round_options: dict[str, Any]


def make_plan(
    recipe: Path | None,
    model: str | Path | None,
    *,
    rounds: int,
    stop_share: float,
    robust: str,
    cross_fit: bool,
    validation: Path | None,
    overrides: Sequence[str],
    later: Sequence[str],
    seed: int | None,
    round_options: dict[str, Any],
) -> Plan:
    """Return the plan for the arguments of `data_tools.refine.refine`.

    Raises:
        InputError: a value out of range, a bad recipe, or neither recipe nor model.
    """
    check_whole(rounds, "rounds", 1, 1000)
    check_range(stop_share, "stop_share", 0.0, 1.0)
    check_one_of(robust, "robust", ROBUST)
    if recipe is None:
        if model is None:
            raise InputError("refine needs a recipe to train with or a model, got neither")
        # The same model would decide the same again.
        return Plan(None, None, model, 1, stop_share, robust, False, seed or 0, round_options)
    first, rest = (
        adapt_recipe(load_config(TrainSettings, recipe, given), robust, validation)
        for given in ([*overrides], [*overrides, *later])
    )
    base = first.seed if seed is None else check_whole(seed, "seed", 0, 2**31 - 1)
    return Plan(first, rest, model, rounds, stop_share, robust, cross_fit, base, round_options)


def describe_plan(plan: Plan, folder: SetFolder) -> dict[str, Any]:
    """Return what decides the result of a refinement of a set, as plain JSON values.

    How fast it is computed, and when it ends, is left out.

    Raises:
        InputError: no such model.
    """
    options = plan.round_options
    return {
        "recipe": None if plan.first is None else plan.first.model_dump(mode="json"),
        "later": None if plan.later is None else plan.later.model_dump(mode="json"),
        "model_sha256": None if plan.model is None else resolve_model(plan.model).info.sha256,
        "robust": plan.robust,
        "cross_fit": plan.cross_fit,
        "seed": plan.seed,
        "targets": asdict(options["targets"]),
        "evaluation": [str(place) for place in options.get("evaluation", ())],
        "flip": options["flip"],
        "manifest_sha256": sha256_file(folder.manifest),
    }
