"""`facerec models`: list, show, add, fetch, verify and remove what is in the model store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.checks import InputError
from facerec.command import FAILED, add_command, write_json_result

if TYPE_CHECKING:
    from facerec.models.catalogue import CatalogueEntry
    from facerec.models.weights import ModelInfo


def add_models_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models` and the commands below it."""
    models = commands.add_parser(
        "models",
        help="the model store: list, show, add, fetch, verify, remove",
        description="The model store: models under names, each with how it wants its input.",
        allow_abbrev=False,
    )
    below = models.add_subparsers(dest="models_command", required=True, metavar="COMMAND")
    add_command(below, "list", _run_list, "list the models in the store", "facerec models list")
    show = add_command(
        below, "show", _run_show, "show what is known of a model", "facerec models show yunet"
    )
    show.add_argument("model", help="store name, artefact folder or .onnx file")
    _add_add(below)
    _add_fetch(below)
    verify = add_command(
        below,
        "verify",
        _run_verify,
        "hash the weights again and run them",
        "facerec models verify yunet",
    )
    verify.add_argument("names", nargs="*", metavar="NAME", help="all when none is given")
    remove = add_command(
        below, "remove", _run_remove, "delete a model from the store", "facerec models remove old"
    )
    remove.add_argument("name", metavar="NAME")


def _add_add(below: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    add = add_command(
        below,
        "add",
        _run_add,
        "copy a local model into the store after running it",
        "facerec models add net.onnx --name net --mean 127.5 --std 127.5 --channel-order rgb",
    )
    add.add_argument("file", type=Path, help=".onnx file (external data beside it) or artefact")
    add.add_argument("--name", required=True, help="name in the store")
    # Absent ones stay absent: an artefact's own model.json holds for them.
    absent: Any = argparse.SUPPRESS
    add.add_argument(
        "--task",
        choices=("recognition", "detection"),
        default=absent,
        help="what it does (recognition)",
    )
    add.add_argument("--mean", type=float, default=absent, help="taken from 0..255 (127.5)")
    add.add_argument("--std", type=float, default=absent, help="then divided by (127.5)")
    add.add_argument(
        "--channel-order", choices=("rgb", "bgr"), default=absent, help="of its input (rgb)"
    )
    add.add_argument("--input-size", metavar="HxW", help="pixels, when not what the graph says")
    add.add_argument("--licence", default=absent, help="of the weights")
    add.add_argument("--source", default=absent, help="where they come from")
    add.add_argument("--training-data", default=absent, help="what they were trained on")
    add.add_argument("--force", action="store_true", help="replace a model of that name")


def _add_fetch(below: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fetch = add_command(
        below,
        "fetch",
        _run_fetch,
        "download a known model into the store; without a name, list what is known",
        "facerec models fetch yunet",
    )
    fetch.add_argument("name", nargs="?", metavar="NAME")
    fetch.add_argument("--yes", action="store_true", help="accept the licence without asking")
    fetch.add_argument("--force", action="store_true", help="replace a model of that name")
    fetch.add_argument("--address", metavar="URL", help="another place that has the same file")
    fetch.add_argument("--catalogue", type=Path, metavar="FILE", help="JSON list of other entries")
    fetch.add_argument("--timeout-s", type=float, default=30.0, help="longest silence, seconds")


def _run_list(arguments: argparse.Namespace) -> None:
    from facerec.models.store import ModelStore

    store = ModelStore()
    entries = store.list()
    for entry in entries:
        if entry.info is None:
            print(f"{entry.name:20} unreadable: {entry.problem}")
            continue
        dim = f"{entry.info.embedding_dim}-d" if entry.info.embedding_dim else ""
        print(
            f"{entry.name:20} {entry.info.task:12} {dim:6} {entry.info.sha256[:16]}  "
            f"{entry.info.licence}"
        )
    if not entries:
        print(
            f"the store at {store.home} is empty; facerec models add FILE --name NAME registers "
            "a model, facerec models fetch lists what can be downloaded"
        )
    write_json_result(
        arguments,
        {
            "home": str(store.home),
            "models": [
                {
                    "name": entry.name,
                    "problem": entry.problem,
                    "info": entry.info.model_dump(mode="json") if entry.info else None,
                }
                for entry in entries
            ],
        },
        hashes={entry.name: entry.info.sha256 for entry in entries if entry.info},
    )


def _run_show(arguments: argparse.Namespace) -> None:
    from facerec.models.store import find_model

    artefact = find_model(arguments.model)
    _print_info(artefact.info, artefact.graph)
    write_json_result(
        arguments,
        {"graph": str(artefact.graph), "info": artefact.info.model_dump(mode="json")},
        hashes={"model": artefact.info.sha256},
    )


def _run_add(arguments: argparse.Namespace) -> None:
    from facerec.models.store import ModelStore

    fields: dict[str, Any] = {
        key: getattr(arguments, key)
        for key in ("task", "mean", "std", "channel_order", "licence", "source", "training_data")
        if hasattr(arguments, key)
    }
    if arguments.input_size is not None:
        fields["input_height"], fields["input_width"] = _read_size(arguments.input_size)
    artefact = ModelStore().add(arguments.file, arguments.name, force=arguments.force, **fields)
    _print_info(artefact.info, artefact.graph)
    write_json_result(
        arguments,
        {"info": artefact.info.model_dump(mode="json")},
        hashes={"model": artefact.info.sha256},
    )


def _read_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if not all(side.isdecimal() for side in sides) or len(sides) > 2:
        raise InputError(f"--input-size must read HEIGHTxWIDTH or one number, got {text!r}")
    return int(sides[0]), int(sides[-1])


def _run_fetch(arguments: argparse.Namespace) -> int | None:
    from facerec.models.catalogue import find_entry, load_catalogue
    from facerec.models.fetch import PACK_FOLDER, fetch_model
    from facerec.models.store import ModelStore

    catalogue = load_catalogue(arguments.catalogue)
    if arguments.name is None:
        for known in catalogue.values():
            print(f"{known.name:12} {known.about}; licence: {known.licence}")
        return None
    entry = find_entry(arguments.name, catalogue)
    store = ModelStore()
    store.check_free(entry.name, arguments.force)
    _print_entry(entry, arguments.address)
    if not (arguments.yes or _ask()):
        print("not fetched")
        return FAILED
    artefact = fetch_model(
        entry,
        store,
        address=arguments.address,
        force=arguments.force,
        timeout_s=arguments.timeout_s,
    )
    print(f"fetched {entry.name} into {artefact.graph.parent}")
    if entry.recogniser:
        print(f"its detector: --detector insightface:{artefact.graph.parent / PACK_FOLDER}")
    write_json_result(
        arguments,
        {"info": artefact.info.model_dump(mode="json")},
        hashes={"model": artefact.info.sha256},
    )
    return None


def _print_entry(entry: CatalogueEntry, address: str | None) -> None:
    print(f"{entry.name}: {entry.about}")
    print(f"  licence: {entry.licence}")
    print(f"  address: {address or entry.address}")
    print(f"  size:    {f'{entry.size:,} bytes' if entry.size else 'not pinned'}")
    print(f"  sha256:  {entry.sha256 or 'not pinned; what comes is recorded, not vetted'}")


def _ask() -> bool:
    if not sys.stdin.isatty():
        raise InputError("nobody is there to accept the licence; read it above and give --yes")
    try:
        return input("Download under this licence? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _run_verify(arguments: argparse.Namespace) -> None:
    from facerec.models.store import ModelStore

    store = ModelStore()
    names = arguments.names or store.names()
    problems: dict[str, str] = {}
    for name in names:
        try:
            artefact = store.verify(name)
            print(f"{name}: sound, sha256 {artefact.info.sha256}")
        except InputError as error:
            problems[name] = str(error)
    write_json_result(
        arguments, {"verified": [n for n in names if n not in problems], "problems": problems}
    )
    if problems:
        raise InputError("; ".join(f"{name}: {problem}" for name, problem in problems.items()))


def _run_remove(arguments: argparse.Namespace) -> None:
    from facerec.models.store import ModelStore

    ModelStore().remove(arguments.name)
    print(f"removed {arguments.name}")
    write_json_result(arguments, {"removed": arguments.name})


def _print_info(info: ModelInfo, graph: Path) -> None:
    print(f"{'graph':16} {graph}")
    for key, value in info.model_dump(mode="json").items():
        if value not in (None, "", {}):
            print(f"{key:16} {value}")
