"""`facerec-clean crawl`: a list of identities and addresses to shards of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.command import add_command, write_json_result

Commands = Any


def add_crawl(commands: Commands) -> None:
    """Add the `crawl` command."""
    parser = add_command(
        commands,
        "crawl",
        _run_crawl,
        "fetch a list of identities and addresses into shards (img2dataset layout), politely: "
        "robots.txt, X-Robots-Tag and opt-outs are honoured; run again, it goes on",
        "facerec-clean crawl list.parquet crawl/ --contact crawl@example.org",
    )
    parser.add_argument(
        "list", type=Path, help=".csv or .parquet file with the columns identity and url"
    )
    parser.add_argument("out", type=Path, help="folder for the shards")
    parser.add_argument(
        "--contact", help="mail or web address that servers see, to reach you: please give one"
    )
    parser.add_argument(
        "--agent", default="facerec-clean/0.1", help="name that servers see and robots.txt means"
    )
    parser.add_argument(
        "--opt-out",
        type=Path,
        metavar="FILE",
        help="hosts, beginnings of addresses and identities never fetched, one a line",
    )
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch from private addresses too (intranets)"
    )
    parser.add_argument(
        "--max-mb", type=float, default=20.0, help="most megabytes (2^20 bytes) of a picture"
    )
    parser.add_argument("--shard-rows", type=int, default=1000, help="rows of the list a shard")
    parser.add_argument("--seed", type=int, default=0, help="of the jitter between retries")
    _add_pace(parser)


def _add_pace(parser: argparse.ArgumentParser) -> None:
    pace = parser.add_argument_group("pace, which may change from run to run")
    pace.add_argument(
        "--concurrency", type=int, default=128, help="requests at once, all hosts together"
    )
    pace.add_argument("--per-host", type=int, default=2, help="requests at once to one host")
    pace.add_argument(
        "--host-delay", type=float, default=0.2, help="seconds between requests to one host"
    )
    pace.add_argument("--timeout", type=float, default=30.0, help="seconds for a try of a picture")
    pace.add_argument(
        "--connect-timeout", type=float, default=10.0, help="seconds to reach a server"
    )
    pace.add_argument(
        "--retries", type=int, default=2, help="after 429, 5xx, time-outs, broken connections"
    )
    pace.add_argument(
        "--backoff", type=float, default=1.0, help="seconds before the first retry, then doubled"
    )
    pace.add_argument(
        "--max-wait", type=float, default=60.0, help="longest wait that a server can ask for"
    )


def _run_crawl(arguments: argparse.Namespace) -> None:
    from data_tools.crawl import crawl
    from data_tools.crawl_settings import Pace
    from facerec.checks import check_range

    check_range(arguments.max_mb, "--max-mb", 0.001, 1024)
    figures = crawl(
        arguments.list,
        arguments.out,
        agent=arguments.agent,
        contact=arguments.contact,
        opt_out=arguments.opt_out,
        allow_private=arguments.allow_private,
        max_bytes=int(arguments.max_mb * (1 << 20)),
        shard_rows=arguments.shard_rows,
        pace=Pace(
            concurrency=arguments.concurrency,
            per_host=arguments.per_host,
            host_delay_s=arguments.host_delay,
            timeout_s=arguments.timeout,
            connect_timeout_s=arguments.connect_timeout,
            retries=arguments.retries,
            backoff_s=arguments.backoff,
            max_wait_s=arguments.max_wait,
        ),
        seed=arguments.seed,
    )
    if figures["already"]:
        print(f"{arguments.out} was fetched already; nothing to do")
    print(
        f"{figures['rows']:,} rows in {figures['shards']:,} shards: {figures['success']:,} "
        f"pictures ({figures['bytes'] / (1 << 20):,.1f} MB), {figures['failed']:,} failed; "
        f"{figures['fetched_rows']:,} rows in {figures['seconds']:.1f} s this time"
    )
    for reason, count in figures["reasons"].items():
        print(f"  {count:>9,}  {reason}")
    write_json_result(
        arguments,
        figures,
        seed=arguments.seed,
        hashes={"list": figures["settings"]["list_sha256"]},
    )
