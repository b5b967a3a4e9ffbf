"""Politeness: how many requests, and how close together, each host gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from data_tools.crawl_settings import FetchError, Outside, Pace
from facerec.checks import JobError

OFFLINE_HOSTS = 100
"""So many hosts without an answer, and none in between that gave one: the network is down."""
_MANY_HOSTS = 20_000


@dataclass(eq=False)
class _Host:
    """One host's queue.

    Attributes:
        slots: free requests.
        delay_s: least time between two requests.
        next_start: when the next request may begin, by the clock.
        quiet_until: no request begins before.
        closed_until: rows fail at once before.
        why: reason and message of the closing.
        failures: tries without an answer in a row.
        users: rows that hold or wait for a slot.
    """

    slots: asyncio.Semaphore
    delay_s: float
    next_start: float = 0.0
    quiet_until: float = 0.0
    closed_until: float = 0.0
    why: tuple[str, str] = field(default=("", ""))
    failures: int = 0
    users: int = 0


class Hosts:
    """Lets requests through: so many at once, spaced by host; a host that fails gets a rest.

    Args:
        pace: the limits.
        outside: clock and sleep.
    """

    def __init__(self, pace: Pace, outside: Outside) -> None:
        self._pace = pace
        self._outside = outside
        self._all_slots = asyncio.Semaphore(pace.concurrency)
        self._hosts: dict[str, _Host] = {}
        self._sweep_at = _MANY_HOSTS
        self._silent: set[str] = set()

    @contextlib.asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """Hold one request to a host, from the moment that it may begin.

        Raises:
            FetchError: the host is closed for now.
        """
        host = self._get(name)
        host.users += 1
        try:
            async with host.slots:
                while True:
                    await self._wait_turn(host)
                    # While this waits for a free request another may take the host's turn.
                    async with self._all_slots:
                        self._check_open(host)
                        if self._find_wait(host) <= 0:
                            host.next_start = self._outside.clock() + host.delay_s
                            yield
                            return
        finally:
            host.users -= 1

    def slow(self, name: str, delay_s: float) -> None:
        """Space a host's requests by at least `delay_s` seconds."""
        host = self._get(name)
        host.delay_s = max(host.delay_s, delay_s)

    def pause(self, name: str, seconds: float) -> None:
        """Begin no request to a host for some seconds; its rows wait."""
        host = self._get(name)
        host.quiet_until = max(host.quiet_until, self._outside.clock() + seconds)

    def close(self, name: str, seconds: float, reason: str, message: str) -> None:
        """Let a host's rows fail for some seconds, with this reason and message."""
        host = self._get(name)
        host.closed_until = max(host.closed_until, self._outside.clock() + seconds)
        host.why = (reason, message)

    def count_answer(self, name: str) -> None:
        """Note that a host answered."""
        self._get(name).failures = 0
        self._silent.clear()

    def count_failure(self, name: str) -> None:
        """Note that a host did not answer; after too many in a row it is closed for a while.

        Raises:
            JobError: nobody answers any more: better to stop than to write a list off.
        """
        self._silent.add(name)
        if len(self._silent) >= OFFLINE_HOSTS:
            raise JobError(
                f"{OFFLINE_HOSTS} hosts in a row gave no answer; check the network and the "
                "resolver, then run the same command to go on"
            )
        host = self._get(name)
        host.failures += 1
        if host.failures >= self._pace.host_failures:
            self.close(
                name,
                self._pace.host_pause_s,
                "host_down",
                f"{name} gave no answer {self._pace.host_failures} times in a row",
            )

    async def _wait_turn(self, host: _Host) -> None:
        self._check_open(host)
        # A host may be told to keep quiet, or be closed, while this row waits.
        while (wait := self._find_wait(host)) > 0:
            await self._outside.sleep(wait)
            self._check_open(host)

    def _find_wait(self, host: _Host) -> float:
        """Return the seconds until a host may be asked again."""
        return max(host.next_start, host.quiet_until) - self._outside.clock()

    def _check_open(self, host: _Host) -> None:
        if self._outside.clock() < host.closed_until:
            reason, message = host.why
            raise FetchError(reason, message)

    def _get(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= self._sweep_at:
                self._forget_idle()
            host = _Host(asyncio.Semaphore(self._pace.per_host), self._pace.host_delay_s)
            self._hosts[name] = host
        return host

    def _forget_idle(self) -> None:
        """Drop hosts that nothing is known or waited for, so that millions of hosts fit."""
        now = self._outside.clock()
        self._hosts = {
            name: host
            for name, host in self._hosts.items()
            if host.users or now < max(host.next_start, host.quiet_until, host.closed_until)
        }
        # Never sweep again and again for the few that may go.
        self._sweep_at = max(_MANY_HOSTS, 2 * len(self._hosts))
