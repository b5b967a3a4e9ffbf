"""A list of identities and addresses to shards of pictures: polite, bounded, resumable.

The list is cut into shards of a fixed number of rows. A shard is published whole, with a row for
every row of the list; what is not published when the process ends is fetched again by the next
run. Nothing is fetched that robots.txt, X-Robots-Tag or an opt-out list forbids.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_tools.crawl_fetch import Fetcher, open_fetcher
from data_tools.crawl_list import count_list, iter_list
from data_tools.crawl_rules import read_opt_out
from data_tools.crawl_settings import DEFAULT_AGENT, Outside, Pace, build_agent
from data_tools.crawl_shards import Shard, clear_temporary, is_published, iter_counts
from facerec.checks import InputError, check_whole, require
from facerec.io import lock_folder, read_json, sha256_file, write_json
from facerec.progress import Progress
from facerec.provenance import versions

CRAWL_FORMAT = 1
SHARD_ROWS = 1000
MAX_BYTES = 20 << 20
"""Most bytes of a picture: a camera's best JPEG, and no archive."""
OPEN_SHARDS = 4
"""Shards under way at once: one slow host at the end of a shard holds nobody up."""
_LOOK_UP_THREADS = 64


def crawl(
    listing: Path,
    out: Path,
    *,
    agent: str = DEFAULT_AGENT,
    contact: str | None = None,
    opt_out: Path | None = None,
    allow_private: bool = False,
    max_bytes: int = MAX_BYTES,
    shard_rows: int = SHARD_ROWS,
    pace: Pace | None = None,
    seed: int = 0,
    outside: Outside | None = None,
) -> dict[str, Any]:
    """Fetch the pictures of a list into the folder `out`, or go on where a run was ended.

    Args:
        listing: a .csv or .parquet file with the columns identity and url.
        out: the folder; made if missing, gone on with if it was begun with this list and these
            settings. `opt_out`, `pace`, `contact` and `seed` may change from run to run: each
            shard's table says what it was fetched with.
        agent: our name for servers; what stands before / is what robots.txt calls us.
        contact: an address of mail or web where a server's owner reaches who runs this.
        opt_out: a text file of hosts, addresses and identities never fetched: see
            `data_tools.crawl_rules.OptOut`.
        allow_private: fetch from addresses inside our own network too.
        max_bytes: most bytes of a picture; at most `pace.concurrency` of them are in memory.
        shard_rows: rows of the list a shard.
        pace: how hard and how long to try, `Pace()` when None.
        seed: of the jitter between retries.
        outside: clock, sleep and resolver; the real ones when None.

    Returns:
        rows, success, failed, bytes, reasons (reason -> rows, most first), shards, fetched_rows
        and seconds of this run, already (whether all had been done before), settings, pace.

    Raises:
        InputError: the list, the opt-out list or a setting is no such thing; `out` is in use,
            holds something else, or was begun with another list or other settings.
        MissingPackageError: aiohttp is not installed.
        JobError: no server answers any more, or this machine is at its limits.
    """
    require("aiohttp")
    check_whole(max_bytes, "max_bytes", 1, 1 << 30)
    check_whole(shard_rows, "shard_rows", 1, 100_000)
    pace, outside = pace or Pace(), outside or Outside()
    header = build_agent(agent, contact)
    opening = open_fetcher(
        agent=header,
        opt_out=read_opt_out(opt_out),
        pace=pace,
        max_bytes=max_bytes,
        allow_private=allow_private,
        seed=seed,
        outside=outside,
    )
    settings: dict[str, Any] = {
        "rows": count_list(listing),
        "list_sha256": sha256_file(listing),
        "shard_rows": shard_rows,
        "agent": agent,
        "allow_private": allow_private,
        "max_bytes": max_bytes,
    }
    about = {
        "agent": header,
        "pace": asdict(pace),
        "seed": seed,
        "opt_out_sha256": None if opt_out is None else sha256_file(opt_out),
        "versions": versions(),
    }
    began = time.monotonic()
    with lock_folder(out, "facerec-clean crawl"):
        _begin(out, settings)
        fetched = _fetch_missing(listing, out, settings, about, opening, outside)
        figures = _count(out, -(-settings["rows"] // shard_rows))
    return {
        **figures,
        "fetched_rows": fetched,
        "seconds": round(time.monotonic() - began, 3),
        "already": not fetched,
        "settings": settings,
        "pace": asdict(pace),
    }


def _fetch_missing(
    listing: Path,
    out: Path,
    settings: dict[str, Any],
    about: dict[str, Any],
    opening: AbstractAsyncContextManager[Fetcher],
    outside: Outside,
) -> int:
    """Fetch the shards that are not there; return their rows."""
    rows, shard_rows = int(settings["rows"]), int(settings["shard_rows"])
    shards = range(-(-rows // shard_rows))
    missing = frozenset(number for number in shards if not is_published(out, number))
    left = sum(min(shard_rows, rows - number * shard_rows) for number in missing)
    if missing:
        with Progress("crawl", left, "rows") as progress:
            run = _Run(out, shard_rows, about, outside, progress)
            asyncio.run(run.fetch_shards(listing, missing, opening))
    return left


class _Run:
    """One run over the shards that are missing.

    Args:
        out: the folder.
        shard_rows: rows of the list a shard.
        about: goes into each table's metadata.
        outside: the time of day.
        progress: counts rows.
    """

    def __init__(
        self,
        out: Path,
        shard_rows: int,
        about: dict[str, Any],
        outside: Outside,
        progress: Progress,
    ) -> None:
        self._out = out
        self._shard_rows = shard_rows
        self._about = about
        self._outside = outside
        self._progress = progress
        self._failed = 0

    async def fetch_shards(
        self,
        listing: Path,
        missing: frozenset[int],
        opening: AbstractAsyncContextManager[Fetcher],
    ) -> None:
        """Fetch and publish the shards of these numbers, a few at a time, first ones first."""
        # Looking up names blocks a thread each; with a handful, slow ones would stop the crawl.
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_LOOK_UP_THREADS))
        waiting: set[asyncio.Task[None]] = set()
        async with opening as fetcher:
            try:
                for number, listed in enumerate(iter_list(listing, self._shard_rows)):
                    if number not in missing:
                        continue
                    if len(waiting) >= OPEN_SHARDS:
                        waiting = await _wait_for_one(waiting)
                    waiting.add(asyncio.create_task(self._fetch_shard(fetcher, number, listed)))
                while waiting:
                    waiting = await _wait_for_one(waiting)
            finally:
                await _cancel(waiting)

    async def _fetch_shard(self, fetcher: Fetcher, number: int, listed: pa.Table) -> None:
        shard = Shard(self._out, number, self._shard_rows, listed)
        try:
            rows = [
                asyncio.create_task(self._fetch_row(fetcher, shard, row))
                for row in range(listed.num_rows)
            ]
            try:
                await asyncio.gather(*rows)
            finally:
                await _cancel(rows)
            # Not in the loop: the disk may take its time. Once begun it is let finish.
            publishing = asyncio.ensure_future(asyncio.to_thread(shard.publish, self._about))
            try:
                await asyncio.shield(publishing)
            except asyncio.CancelledError:
                await asyncio.wait([publishing])
                raise
        finally:
            shard.close()

    async def _fetch_row(self, fetcher: Fetcher, shard: Shard, row: int) -> None:
        place = shard.number * self._shard_rows + row
        fetched = await fetcher.fetch(place, shard.identities[row], shard.urls[row])
        shard.add(row, fetched, self._outside.now())
        self._failed += bool(fetched.reason)
        self._progress.advance(note=f"({self._failed:,} failed)")


async def _wait_for_one(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Return the tasks that go on after at least one has ended; what one raised is raised."""
    done, going = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return going


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Write `crawl.json`, or compare what it says."""
    clear_temporary(out)
    info = out / "crawl.json"
    if not info.is_file():
        if any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(
                f"{out} holds other files and is no crawl; give a new or an empty folder"
            )
        write_json(info, {"format": CRAWL_FORMAT, "settings": settings})
        return
    before = read_json(info)
    if not isinstance(before, dict) or before.get("format") != CRAWL_FORMAT:
        raise InputError(f"{info} must be a crawl of format {CRAWL_FORMAT}; take another folder")
    for name, value in settings.items():
        was = before.get("settings", {}).get(name)
        if was != value:
            what = (
                "another list"
                if name in ("list_sha256", "rows")
                else f"{name} {was!r}, now it is {value!r}"
            )
            raise InputError(
                f"{out} was begun with {what}; use the same list and settings or another folder"
            )


def _count(out: Path, shards: int) -> dict[str, Any]:
    """Return the figures of a whole crawl."""
    reasons: Counter[str] = Counter()
    size = 0
    for counted, length in iter_counts(out, shards):
        reasons.update(counted)
        size += length
    success = reasons.pop("", 0)
    failed = sum(reasons.values())
    return {
        "rows": success + failed,
        "success": success,
        "failed": failed,
        "bytes": size,
        "reasons": dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        "shards": shards,
    }
