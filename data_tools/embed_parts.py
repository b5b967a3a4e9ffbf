"""A set's chips to embeddings by many workers: in processes of this machine or on a Ray cluster.

Each worker appends what it embedded to the set's own cache, which takes several writers; what comes
back is a count. So a killed run loses the parts that were being worked on and nothing else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools.round_rows import Usable
from data_tools.sets import SetFolder
from data_tools.workers import Crew, Died, run_in_processes, run_on_ray
from facerec.checks import JobError
from facerec.data.embedding_cache import EmbeddingCache
from facerec.embedder import Embedder
from facerec.progress import Progress

PART = 4096


@dataclass(frozen=True)
class EmbedPart:
    """A part of the work.

    Attributes:
        root: the set folder, on storage that every worker sees.
        ids: of the embeddings.
        chips: of each id, the chip relative to the set folder.
        model: as for `facerec.embedder.Embedder`.
        runtime: likewise.
        batch_size: likewise.
        flip: likewise.
        threads: likewise.
        model_hash: what the worker's model must hash to.
    """

    root: Path
    ids: tuple[str, ...]
    chips: tuple[str, ...]
    model: str
    runtime: str
    batch_size: int
    flip: bool
    threads: int
    model_hash: str


def embed_part(part: EmbedPart) -> int:
    """Embed a part into the set's cache and return how many there were.

    Raises:
        JobError: this worker's model is another one than that of the run.
    """
    from data_tools.spaces import read_chip

    embedder = _build_embedder(part.model, part.runtime, part.batch_size, part.flip, part.threads)
    if embedder.model_hash != part.model_hash:
        raise JobError(
            f"the model {part.model} on this worker hashes to {embedder.model_hash[:16]}…, the run "
            f"is of {part.model_hash[:16]}…; give all machines the same file"
        )
    chips = np.stack([read_chip(part.root / name) for name in part.chips])
    found = embedder.embed(chips)
    cache = EmbeddingCache(SetFolder(part.root).embeddings, embedder.model_hash, embedder.dim)
    cache.append(part.ids, found.vectors, found.norms)
    return len(part.ids)


def embed_missing(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    embedder: Embedder,
    cache: EmbeddingCache,
    crew: Crew,
) -> None:
    """Fill the set's cache with what it lacks of the usable rows.

    Args:
        folder: of the set.
        manifest: all rows.
        usable: the rows wanted.
        embedder: the model; workers build their own from its settings.
        cache: of this process; refreshed at the end.
        crew: who embeds.

    Raises:
        JobError: a worker died twice on a part.
    """
    missing = np.flatnonzero(~cache.has(usable.ids))
    _, first = np.unique(np.array([usable.ids[row] for row in missing]), return_index=True)
    rows = missing[np.sort(first)]
    if not len(rows):
        return
    with Progress("embed", len(rows), "faces") as progress:
        for part, done in _run(_iter_parts(folder, manifest, usable, embedder, rows, crew), crew):
            if isinstance(done, Died):
                raise JobError(
                    f"a worker died twice while embedding {part.chips[0]} and the chips behind it "
                    f"({done.reason}); run again with fewer workers"
                )
            progress.advance(done)
    cache.refresh()


def _run(parts: Iterator[EmbedPart], crew: Crew) -> Generator[tuple[EmbedPart, Any], None, None]:
    if crew.ray is not None:
        return run_on_ray(embed_part, parts, crew.ray, crew.workers, crew.count_threads())
    return run_in_processes(embed_part, parts, crew.abreast)


def _iter_parts(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    embedder: Embedder,
    rows: np.ndarray,
    crew: Crew,
) -> Iterator[EmbedPart]:
    place = Path(embedder.model)
    model = str(place.resolve()) if place.exists() else str(place)
    for at in range(0, len(rows), PART):
        part = rows[at : at + PART]
        chips = manifest["chip"].take(pa.array(usable.rows[part])).to_pylist()
        yield EmbedPart(
            folder.root.resolve(),
            tuple(usable.ids[row] for row in part.tolist()),
            tuple(chips),
            model,
            embedder.runtime_name,
            embedder.batch_size,
            embedder.flip,
            crew.count_threads(),
            embedder.model_hash,
        )


@lru_cache(maxsize=2)
def _build_embedder(
    model: str, runtime: str, batch_size: int, flip: bool, threads: int
) -> Embedder:
    return Embedder(model, runtime, batch_size, flip, threads)
