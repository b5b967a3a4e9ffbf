"""What bounds a crawl: limits, the outside world that tests replace, and how a fetch fails."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from datetime import datetime, timezone

from facerec.checks import InputError, check_range, check_whole

DEFAULT_AGENT = "facerec-clean/0.1"
MAX_REDIRECTS = 5
"""Redirects that are followed for one address; RFC 9309 asks for at least five."""

_RANGES: dict[str, tuple[float, float]] = {
    "concurrency": (1, 4096),
    "per_host": (1, 64),
    "host_delay_s": (0, 3600),
    "timeout_s": (0.01, 3600),
    "connect_timeout_s": (0.01, 600),
    "retries": (0, 20),
    "backoff_s": (0, 600),
    "max_wait_s": (0, 86_400),
    "host_failures": (1, 10_000),
    "host_pause_s": (0, 86_400),
}
_WHOLE = ("concurrency", "per_host", "retries", "host_failures")


@dataclass(frozen=True)
class Pace:
    """How hard and how long a crawl tries; may be changed between runs in one folder.

    Attributes:
        concurrency: requests under way at once, all hosts together; each may hold a whole
            picture in memory.
        per_host: requests under way at once to one host.
        host_delay_s: least time between two requests to one host; a longer Crawl-delay of its
            robots.txt counts instead.
        timeout_s: most seconds for one try of a picture, redirects and body included.
        connect_timeout_s: most seconds to reach a server.
        retries: further tries after a failure that may pass: 429, 5xx, time-outs, connections.
        backoff_s: wait before the first retry; doubled for each further one, with jitter.
        max_wait_s: longest wait that a server (Retry-After, Crawl-delay) or the back-off can ask
            for; a host that asks for more is left alone for as long as it asks.
        host_failures: failures to connect or answer in a row after which a host rests.
        host_pause_s: how long it rests; its rows fail meanwhile.
    """

    concurrency: int = 128
    per_host: int = 2
    host_delay_s: float = 0.2
    timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    retries: int = 2
    backoff_s: float = 1.0
    max_wait_s: float = 60.0
    host_failures: int = 10
    host_pause_s: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _RANGES[field.name]
            if field.name in _WHOLE:
                check_whole(getattr(self, field.name), field.name, int(low), int(high))
            else:
                check_range(getattr(self, field.name), field.name, low, high)


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host as texts.

    Raises:
        OSError: the name is unknown or the resolver does not answer.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=getattr(socket, "AI_ADDRCONFIG", 0)
    )
    return [str(address[0]) for *_, address in found]


def _read_clock() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Outside:
    """What a crawl takes from the world beside HTTP; tests put their own here.

    Attributes:
        sleep: waits a number of seconds.
        clock: seconds that only go forward.
        now: time of day, UTC.
        look_up: (host, port) -> addresses.
    """

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _read_clock
    look_up: Callable[[str, int], Awaitable[list[str]]] = look_up


class FetchError(Exception):
    """A fetch that gave no picture.

    Attributes:
        reason: short and stable, for counting: "timeout", "http_404", "robots", ...
        message: one line for the row.
        http_status: of the last answer, None without one.
        again: whether it may go better another time.
    """

    def __init__(
        self, reason: str, message: str, *, http_status: int | None = None, again: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.http_status = http_status
        self.again = again


def build_agent(agent: str, contact: str | None) -> str:
    """Return the User-Agent header: `agent`, with a way to reach whoever runs the crawl.

    Raises:
        InputError: not a product token such as "mybot/1.0", or not printable ASCII.
    """
    text = agent if contact is None else f"{agent} (+{contact})"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*(/[^\s]+)?( .*)?", text) or not (
        text.isascii() and text.isprintable()
    ):
        raise InputError(
            "agent must be a name such as mybot/1.0 and contact an address, in printable ASCII, "
            f"got {text!r}"
        )
    return text


def product_token(agent: str) -> str:
    """Return the name that robots.txt and X-Robots-Tag call an agent by, in lower case."""
    return re.split(r"[/\s]", agent, maxsplit=1)[0].lower()
