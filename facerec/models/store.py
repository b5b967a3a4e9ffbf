"""The model store: artefacts under a name, in the user's data folder or FACEREC_HOME."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerec.checks import InputError, nearest
from facerec.io import sync_file, sync_folder
from facerec.models.contract import check_contract
from facerec.models.graphs import load_graph, read_shape
from facerec.models.weights import (
    GRAPH_NAME,
    INFO_NAME,
    WEIGHTS_NAME,
    Artefact,
    ModelInfo,
    external_files,
    hash_model,
    read_artefact,
    read_info,
    write_info,
)

BARE_SOURCE = "bare file, defaults assumed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# What a killed command may leave; dot names are never listed.
_TEMPORARY = ".adding-"
_REPLACED = ".removed-"


def store_home() -> Path:
    """Return the folder of the store: FACEREC_HOME, else the platform's user data folder."""
    home = os.environ.get("FACEREC_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("facerec"))


def check_name(name: str) -> str:
    """Return `name` if it can be a store name, else raise InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "a store name must be 1 to 80 letters, digits, '.', '_' or '-', the first a letter or "
            f"digit, got {name!r}"
        )
    return name


@dataclass(frozen=True)
class StoreEntry:
    """One line of `facerec models list`.

    Attributes:
        name: in the store.
        folder: of the artefact.
        info: what model.json says, None when it cannot be read.
        problem: why not, "" otherwise.
    """

    name: str
    folder: Path
    info: ModelInfo | None
    problem: str


class ModelStore:
    """Artefacts under names.

    Args:
        home: folder of the store, `store_home()` when None.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or store_home()
        self.folder = self.home / "models"

    def names(self) -> list[str]:
        """Return the names of the artefacts, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.folder.iterdir()
            if _NAME.fullmatch(entry.name) and (entry / INFO_NAME).is_file()
        )

    def list(self) -> list[StoreEntry]:
        """Return all entries, sorted by name; weights are not hashed."""
        entries = []
        for name in self.names():
            folder = self.folder / name
            try:
                entries.append(StoreEntry(name, folder, read_info(folder), ""))
            except InputError as error:
                entries.append(StoreEntry(name, folder, None, str(error)))
        return entries

    def path(self, name: str) -> Path:
        """Return the folder of the artefact called `name`.

        Raises:
            InputError: there is none; the message lists those there are.
        """
        names = self.names()
        if name not in names:
            known = f"it has {', '.join(names)}" if names else "it is empty"
            raise InputError(
                f"the store has no model {name!r}{nearest(name, names)} ({known}); facerec models "
                "list shows what is there"
            )
        return self.folder / name

    def verify(self, name: str) -> Artefact:
        """Return the artefact called `name` after hashing its weights and running them.

        Raises:
            InputError: there is none, or it is not what its model.json says.
        """
        artefact = read_artefact(self.path(name))
        check_contract(artefact)
        return artefact

    def check_free(self, name: str, force: bool = False) -> None:
        """Raise InputError when `name` is unusable, or taken and `force` is not given."""
        if check_name(name) in self.names() and not force:
            raise InputError(f"the store already has {name!r}; take another name or give --force")

    def add(self, file: Path, name: str, *, force: bool = False, **fields: Any) -> Artefact:
        """Copy a model into the store and check its contract by running it.

        The copy becomes visible only when it is whole and has passed.

        Args:
            file: a .onnx file with its external data beside it, or an artefact folder.
            name: under which it is kept.
            force: replace an artefact of that name.
            fields: of ModelInfo (task, mean, std, channel_order, licence, input_height, ...). For
                an artefact folder its own model.json holds, and `fields` change it.

        Raises:
            InputError: the name is taken or unusable, the file is not a model, or it fails its
                contract.
        """
        self.check_free(name, force)
        with self.staging() as staged:
            _copy_model(file, staged)
            info = read_artefact(file).info if file.is_dir() else read_bare(file).info
            base = info.model_dump()
            if info.source == BARE_SOURCE:
                base["source"] = f"local file {file.name}"
            return self.install(staged, name, {**base, **fields}, force=force)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield a folder in the store that is not listed, removed again unless installed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def install(
        self, staged: Path, name: str, fields: dict[str, Any], *, force: bool = False
    ) -> Artefact:
        """Check what lies in a `staging` folder and rename it into the store.

        Args:
            staged: holds `model.onnx` and its external data.
            name: under which it is kept.
            fields: of ModelInfo; name and sha256 are filled in here, the input size where absent.
            force: replace an artefact of that name.

        Raises:
            InputError: the name is taken, or the model fails its contract.
        """
        graph = staged / GRAPH_NAME
        sizes = _read_sizes(graph)
        info = build_info({**sizes, **fields, "name": name, "sha256": hash_model(graph)})
        artefact = check_contract(Artefact(graph, info))
        write_info(staged, artefact.info)
        staged.chmod(0o755)
        for file in staged.rglob("*"):
            sync_file(file)
        target = self.folder / check_name(name)
        if force and target.exists():
            aside = Path(tempfile.mkdtemp(prefix=_REPLACED, dir=self.folder))
            target.rename(aside / name)
            staged.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            try:
                staged.rename(target)
            except OSError:
                raise InputError(
                    f"{target} already exists; take another name or give --force"
                ) from None
        sync_folder(self.folder)
        return Artefact(target / GRAPH_NAME, artefact.info)

    def remove(self, name: str) -> None:
        """Delete the artefact called `name`.

        Raises:
            InputError: there is none.
        """
        folder = self.path(name)
        aside = Path(tempfile.mkdtemp(prefix=_REPLACED, dir=self.folder))
        folder.rename(aside / name)  # gone from the list at once, whatever happens to the files
        shutil.rmtree(aside)


def build_info(fields: dict[str, Any]) -> ModelInfo:
    """Return checked ModelInfo; a wrong value is an InputError that names it."""
    from pydantic import ValidationError

    try:
        return ModelInfo.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{key}: {first['msg']}, got {first.get('input')!r}") from None


def _copy_model(file: Path, staged: Path) -> None:
    """Copy a graph as model.onnx, with all that it needs under the names that it knows."""
    graph = file / GRAPH_NAME if file.is_dir() else file
    if not graph.is_file():
        raise InputError(f"{graph} is not a file; give a .onnx file or an artefact folder")
    extra = external_files(graph)
    root = graph.parent.resolve()
    if any(one.relative_to(root).as_posix() in (GRAPH_NAME, INFO_NAME) for one in extra):
        raise InputError(f"{graph} keeps its data in a file called {GRAPH_NAME} or {INFO_NAME}")
    shutil.copyfile(graph, staged / GRAPH_NAME)
    for one in extra:
        target = staged / one.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one, target)
    weights = graph.parent / WEIGHTS_NAME
    if file.is_dir() and weights.is_file():
        shutil.copyfile(weights, staged / WEIGHTS_NAME)


def resolve_model(spec: str | Path, task: str = "recognition") -> Artefact:
    """Return the artefact that `--model` or `--detector` names.

    Args:
        spec: a store name, an artefact folder, or a bare .onnx file. A store name wins over a
            folder of the same name: write ./NAME for the folder. A bare recogniser is taken to
            want RGB, mean 127.5, std 127.5, which `info.source` says.
        task: "recognition" or "detection".

    Raises:
        InputError: nothing there (the message names what is), weights that differ from their
            recorded hash, or a model for another task.
    """
    artefact = find_model(spec)
    if artefact.info.source == BARE_SOURCE:
        return Artefact(artefact.graph, build_info({**artefact.info.model_dump(), "task": task}))
    if artefact.info.task != task:
        raise InputError(
            f"{artefact.info.name} is a {artefact.info.task} model, but a {task} model is needed"
        )
    return artefact


def find_model(spec: str | Path) -> Artefact:
    """Return the artefact that `spec` names, whatever its task: see `resolve_model`."""
    store = ModelStore()
    names = store.names()
    if str(spec) in names:
        return read_artefact(store.folder / str(spec))
    path = Path(spec).expanduser()
    if path.is_dir():
        return read_artefact(path)
    if path.is_file():
        return read_bare(path)
    raise InputError(_not_found(str(spec), names))


def read_bare(graph: Path) -> Artefact:
    """Return a bare .onnx file as an artefact with the usual preprocessing assumed."""
    info = build_info(
        {
            **_read_sizes(graph),
            "name": graph.stem,
            "sha256": hash_model(graph),
            "source": BARE_SOURCE,
        }
    )
    return Artefact(graph, info)


def _read_sizes(graph: Path) -> dict[str, int]:
    """Return the input size that a graph fixes, 112x112 where it fixes none."""
    shape = next(iter(read_shape(load_graph(graph, weights=False)).inputs.values()), ())
    height, width = (shape[2], shape[3]) if len(shape) == 4 else (None, None)
    return {"input_height": height or 112, "input_width": width or 112}


def _not_found(spec: str, names: list[str]) -> str:
    known = f"the store has {', '.join(names)}" if names else "the store is empty"
    return (
        f"no model {spec!r}: neither a store name, an artefact folder nor a file"
        f"{nearest(spec, names)} ({known}); facerec models add FILE --name NAME registers one, "
        "facerec models fetch NAME downloads one"
    )
