"""robots.txt as RFC 9309 has it: groups by product token, the longest match, `*` and `$`.

The standard library's reader takes the first match and knows no wildcard, so that
`Disallow: /*.jpg$` would not be honoured.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from data_tools.crawl_hosts import Hosts
from data_tools.crawl_rules import host_of, origin_of
from data_tools.crawl_settings import FetchError, Outside, Pace

if TYPE_CHECKING:
    from yarl import URL

MAX_ROBOTS_BYTES = 512_000
"""What is read of a robots.txt; RFC 9309 section 2.5 asks for at least 500 KiB."""
_LASTS_S = 24 * 3600.0  # RFC 9309 section 2.4
_MANY_ORIGINS = 20_000
# Why an origin is not reached, where that says more than that its robots.txt was not.
_TELLING = frozenset({"dns", "host_busy", "host_down", "opt_out", "private_address", "tls"})
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


@dataclass(frozen=True)
class Robots:
    """What one robots.txt says to one agent.

    Attributes:
        rules: (pattern, allowed), of all groups that speak to it.
        delay_s: Crawl-delay, 0 without one.
        fault: why the origin must not be asked for anything, "" when it may be.
        fault_reason: the same for counting.
    """

    rules: tuple[tuple[str, bool], ...] = ()
    delay_s: float = 0.0
    fault: str = ""
    fault_reason: str = ""

    def allows(self, path: str) -> bool:
        """Return whether a path with its query may be fetched: the longest match decides.

        Of matches of one length, the one that allows counts (RFC 9309 section 2.2.2).
        """
        path = _normalise(path)
        best, allowed = -1, True
        for pattern, allows in self.rules:
            length = len(pattern)
            if (length > best or (length == best and allows)) and _matches(pattern, path):
                best, allowed = length, allows
        return allowed


def parse_robots(text: str, agent: str) -> Robots:
    """Return what a robots.txt says to an agent.

    Args:
        text: the file; lines that are no rules are passed over.
        agent: our product token, in lower case; without a group of its own, `*` counts.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    speaks_to: list[str] = []
    in_rules = False
    for line in text.lstrip("\ufeff").splitlines():
        field, colon, value = line.partition("#")[0].partition(":")
        field, value = field.strip().lower(), value.strip()
        if not colon:
            continue
        if field == "user-agent":
            if in_rules:
                speaks_to, in_rules = [], False
            speaks_to.append(re.split(r"[/\s]", value, maxsplit=1)[0].lower())
            groups.setdefault(speaks_to[-1], [])
        elif field in ("allow", "disallow", "crawl-delay"):
            in_rules = True
            for name in speaks_to:
                groups[name].append((field, value))
    said = groups[agent] if agent in groups else groups.get("*", [])
    rules = {
        (_normalise(value), field == "allow")
        for field, value in said
        if field != "crawl-delay" and value
    }
    delays = [_read_seconds(value) for field, value in said if field == "crawl-delay"]
    return Robots(tuple(sorted(rules)), max(delays, default=0.0))


def _read_seconds(text: str) -> float:
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else 0.0


def _normalise(path: str) -> str:
    """Return a path or pattern with one spelling for each character."""

    def spell(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if char in _UNRESERVED else match[0].upper()

    escaped = quote(path, safe="/%:?#[]@!$&'()*+,;=~", errors="replace")
    return re.sub(r"%([0-9A-Fa-f]{2})", spell, escaped)


def _matches(pattern: str, path: str) -> bool:
    """Return whether a path begins like a pattern, `*` standing for anything, `$` for its end.

    In one pass over the path: a hostile pattern costs no more than a long one.
    """
    ends = pattern.endswith("$")
    parts = (pattern[:-1] if ends else pattern).split("*")
    if not path.startswith(parts[0]):
        return False
    position = len(parts[0])
    for part in parts[1:-1]:
        found = path.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    if len(parts) == 1:
        return not ends or position == len(path)
    if ends:
        return len(path) - len(parts[-1]) >= position and path.endswith(parts[-1])
    return path.find(parts[-1], position) >= 0


class RobotsCache:
    """The robots.txt of each origin, fetched once a day when it is first needed.

    Args:
        fetch: address of a robots.txt -> its text, None where there is none (4xx).
        agent: our product token, in lower case.
        hosts: told of each Crawl-delay.
        pace: see `Pace`.
        outside: the clock.
    """

    def __init__(
        self,
        fetch: Callable[[URL], Awaitable[str | None]],
        agent: str,
        hosts: Hosts,
        pace: Pace,
        outside: Outside,
    ) -> None:
        self._fetch = fetch
        self._agent = agent
        self._hosts = hosts
        self._pace = pace
        self._outside = outside
        self._known: OrderedDict[str, tuple[asyncio.Task[Robots], float]] = OrderedDict()

    async def check(self, url: URL) -> None:
        """Refuse an address that its origin's robots.txt forbids.

        Raises:
            FetchError: as said, or nobody knows what it says: it is not reached, the server
                fails (RFC 9309 section 2.3.1.4), or it asks for more time than we have.
        """
        robots = await self._get(url)
        if robots.fault:
            raise FetchError(robots.fault_reason, robots.fault)
        if robots.delay_s > self._pace.max_wait_s:
            raise FetchError(
                "robots", f"robots.txt asks for {robots.delay_s:g} s between two requests"
            )
        if robots.delay_s:
            self._hosts.slow(host_of(url), robots.delay_s)
        if not robots.allows(url.raw_path_qs):
            raise FetchError("robots", "robots.txt forbids this address")

    async def _get(self, url: URL) -> Robots:
        origin = origin_of(url)
        task, until = self._known.get(origin, (None, 0.0))
        if task is None or (task.done() and self._outside.clock() >= until):
            task = asyncio.ensure_future(self._load(url))
            self._known[origin] = (task, float("inf"))
            task.add_done_callback(lambda done: self._set_end(origin, done))
        self._known.move_to_end(origin)
        # All who wait share one fetch: it goes on when one of them is called off.
        return await asyncio.shield(task)

    def _set_end(self, origin: str, task: asyncio.Task[Robots]) -> None:
        """Note how long an answer counts; make room, oldest first."""
        if task.cancelled() or task.exception() is not None:
            self._known.pop(origin, None)
            return
        lasts = self._pace.host_pause_s if task.result().fault else _LASTS_S
        self._known[origin] = (task, self._outside.clock() + lasts)
        while len(self._known) > _MANY_ORIGINS:
            self._known.popitem(last=False)

    async def _load(self, url: URL) -> Robots:
        try:
            text = await self._fetch(url.origin().join(_robots_path()))
        except FetchError as error:
            reason = error.reason if error.reason in _TELLING else "robots_unreachable"
            return Robots(fault=f"robots.txt: {error.message}", fault_reason=reason)
        return Robots() if text is None else parse_robots(text, self._agent)


def _robots_path() -> URL:
    from yarl import URL

    return URL("/robots.txt")
