"""From an address to the bytes of a picture: rules, redirects, retries."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from data_tools import crawl_rules
from data_tools.crawl_client import Budget, Client, Reply, Want, open_session
from data_tools.crawl_hosts import Hosts
from data_tools.crawl_robots import MAX_ROBOTS_BYTES, RobotsCache
from data_tools.crawl_rules import OptOut
from data_tools.crawl_settings import MAX_REDIRECTS, FetchError, Outside, Pace, product_token

if TYPE_CHECKING:
    from yarl import URL

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Fetched:
    """What became of one row.

    Attributes:
        data: the picture's bytes as the server sent them, empty without one.
        suffix: "jpg", "png", "webp", "gif" or "bmp" by its first bytes, "" without one.
        reason: "" for a picture, else why there is none: short and stable.
        message: the same for a reader.
        http_status: of the last answer, None without one.
    """

    data: bytes = b""
    suffix: str = ""
    reason: str = ""
    message: str = ""
    http_status: int | None = None


class Fetcher:
    """Fetches pictures by all the rules.

    Args:
        client: asks one host once.
        hosts: the client's.
        agent: the User-Agent header.
        opt_out: who is never asked for.
        pace: the limits.
        max_bytes: most bytes of a picture.
        allow_private: whether addresses inside our own network may be asked.
        seed: of the back-off's jitter.
        outside: clock and sleep.
    """

    def __init__(
        self,
        client: Client,
        hosts: Hosts,
        *,
        agent: str,
        opt_out: OptOut,
        pace: Pace,
        max_bytes: int,
        allow_private: bool,
        seed: int,
        outside: Outside,
    ) -> None:
        token = product_token(agent)
        self._client = client
        self._opt_out = opt_out
        self._pace = pace
        self._allow_private = allow_private
        self._seed = seed
        self._outside = outside
        self._robots = RobotsCache(self._fetch_robots, token, hosts, pace, outside)
        self._picture = Want(
            "image/webp,image/png,image/jpeg,image/*;q=0.8",
            max_bytes,
            check_tags=lambda values: crawl_rules.check_tags(values, token),
            check_start=_check_start,
        )
        self._rules_file = Want("text/plain,*/*;q=0.5", MAX_ROBOTS_BYTES, truncate=True)

    async def fetch(self, row: int, identity: str, address: str) -> Fetched:
        """Return the picture at an address or why there is none; only JobError is raised.

        Args:
            row: of the list; with the seed it fixes the jitter.
            identity: whom the list names.
            address: as the list has it.
        """
        try:
            self._opt_out.check_identity(identity)
            url = crawl_rules.parse_url(address)
            return await self._try_often(f"{row}", lambda: self._fetch_picture(url))
        except FetchError as error:
            return Fetched(
                reason=error.reason, message=error.message, http_status=error.http_status
            )

    async def _fetch_picture(self, url: URL) -> Fetched:
        async def check(url: URL) -> None:
            self._opt_out.check_url(url)
            await self._robots.check(url)

        reply = await self._follow(url, self._picture, check)
        if reply.status != 200:
            raise FetchError(
                f"http_{reply.status}",
                f"the server answers {reply.status}",
                http_status=reply.status,
            )
        suffix = crawl_rules.guess_suffix(reply.body)
        assert suffix is not None, "the client has looked at the first bytes"
        return Fetched(reply.body, suffix, http_status=reply.status)

    async def _fetch_robots(self, url: URL) -> str | None:
        """Return the text of a robots.txt, None where a server has none (RFC 9309 2.3.1)."""

        async def check(url: URL) -> None:
            self._opt_out.check_url(url)

        reply = await self._try_often(str(url), lambda: self._follow(url, self._rules_file, check))
        if reply.status == 200:
            return reply.body.decode("utf-8", "replace")
        if 400 <= reply.status < 500:
            return None
        raise FetchError("robots_unreachable", f"the server answers {reply.status}")

    async def _follow(self, url: URL, want: Want, check: Callable[[URL], Awaitable[None]]) -> Reply:
        """Return the answer at the end of the redirects; each hop is checked like the first."""
        budget = Budget(self._pace.timeout_s)
        for _ in range(MAX_REDIRECTS + 1):
            crawl_rules.check_host(url, self._allow_private)
            await check(url)
            reply = await self._client.get(url, want, budget)
            if reply.location is None:
                return reply
            url = crawl_rules.join_url(url, reply.location)
        raise FetchError(
            "too_many_redirects",
            f"more than {MAX_REDIRECTS} redirects",
            http_status=reply.status,
        )

    async def _try_often(self, key: str, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return the first result; a failure that may pass is tried again after a back-off."""
        for number in range(self._pace.retries):
            try:
                return await attempt()
            except FetchError as error:
                if not error.again:
                    raise
            await self._outside.sleep(self.back_off(key, number))
        return await attempt()

    def back_off(self, key: str, number: int) -> float:
        """Return the seconds before retry `number`, from 0: doubling, half of it left to chance.

        The same row of the same seed waits the same, however busy the crawl is.
        """
        longest = min(self._pace.backoff_s * 2.0**number, self._pace.max_wait_s)
        chance = random.Random(f"{self._seed}:{key}:{number}").random()
        return longest * (0.5 + 0.5 * chance)


def _check_start(start: bytes) -> None:
    if not start:
        raise FetchError("empty", "the body is empty")
    if crawl_rules.guess_suffix(start) is None:
        raise FetchError("not_a_picture", "the body begins like no JPEG, PNG, WebP, GIF or BMP")


@contextlib.asynccontextmanager
async def open_fetcher(
    *,
    agent: str,
    opt_out: OptOut,
    pace: Pace,
    max_bytes: int,
    allow_private: bool,
    seed: int,
    outside: Outside,
) -> AsyncIterator[Fetcher]:
    """Hold a fetcher and its connections; arguments as `Fetcher`.

    Raises:
        MissingPackageError: aiohttp is not installed; the message names the pip command.
    """
    hosts = Hosts(pace, outside)
    async with open_session(agent, pace, outside, allow_private) as session:
        yield Fetcher(
            Client(session, hosts, pace, outside),
            hosts,
            agent=agent,
            opt_out=opt_out,
            pace=pace,
            max_bytes=max_bytes,
            allow_private=allow_private,
            seed=seed,
            outside=outside,
        )
