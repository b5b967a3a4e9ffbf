"""One HTTP request under all limits: address, time, bytes, turn; every way to fail has a name."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import re
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from data_tools import crawl_rules
from data_tools.crawl_hosts import Hosts
from data_tools.crawl_settings import FetchError, Outside, Pace
from facerec.checks import JobError, require

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from aiohttp.abc import AbstractResolver
    from yarl import URL

START_BYTES = 32
"""What is looked at before a body is read any further."""
_CHUNK_BYTES = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAY_PASS = frozenset({408, 425, 429})
_LONGEST_REST_S = 86_400.0
_KEEP_ALIVE_S = 4.0  # idle connections to thousands of hosts would use up the open files
_DNS_LASTS_S = 300
_LOCAL_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_UNKNOWN_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class PrivateAddressError(OSError):
    """A host name that leads to no public address."""


@dataclass(frozen=True)
class Want:
    """What is asked for.

    Attributes:
        accept: the Accept header.
        max_bytes: most bytes of a body, packed and unpacked.
        truncate: whether a longer body is cut there; refused otherwise.
        check_tags: looks at the X-Robots-Tag headers of any answer; raises FetchError.
        check_start: looks at the first `START_BYTES` of a body; raises FetchError.
    """

    accept: str
    max_bytes: int
    truncate: bool = False
    check_tags: Callable[[Sequence[str]], None] = lambda values: None
    check_start: Callable[[bytes], None] = lambda start: None


@dataclass(frozen=True)
class Reply:
    """An answer that is none of "try again".

    Attributes:
        status: of HTTP.
        body: for status 200, else empty.
        location: where a redirect leads, None for any other answer.
    """

    status: int
    body: bytes = b""
    location: str | None = None


@dataclass
class Budget:
    """Seconds on the network that one try has left; waiting for a turn costs nothing."""

    left_s: float


class Client:
    """Asks hosts in turn.

    Args:
        session: of `open_session`.
        hosts: whose turn it is.
        pace: the limits.
        outside: the time of day.
    """

    def __init__(self, session: ClientSession, hosts: Hosts, pace: Pace, outside: Outside) -> None:
        self._session = session
        self._hosts = hosts
        self._pace = pace
        self._outside = outside

    async def get(self, url: URL, want: Want, budget: Budget) -> Reply:
        """Return the answer to one request; redirects are not followed.

        Args:
            url: checked by `crawl_rules.parse_url` and `check_host`.
            want: what is asked for.
            budget: the time left, which shrinks.

        Raises:
            FetchError: whatever went wrong.
            JobError: this machine is at its limits.
        """
        host = crawl_rules.host_of(url)
        async with self._hosts.slot(host):
            began = time.monotonic()
            response: ClientResponse | None = None
            try:
                async with self._session.get(
                    url,
                    headers={"Accept": want.accept},
                    timeout=self._build_timeout(budget.left_s),
                    allow_redirects=False,
                ) as response:
                    self._hosts.count_answer(host)
                    return await self._judge(host, response, want)
            except FetchError as error:
                error.http_status = response.status if response is not None else None
                raise
            except (JobError, asyncio.CancelledError):
                raise
            except Exception as error:  # one server's nonsense must not end a crawl of millions
                failure = _explain(error, self._pace)
                if response is None and failure.reason in ("connection", "dns", "timeout"):
                    self._hosts.count_failure(host)
                failure.http_status = response.status if response is not None else None
                raise failure from error
            finally:
                budget.left_s -= time.monotonic() - began

    def _build_timeout(self, left_s: float) -> object:
        import aiohttp

        if left_s <= 0:
            raise FetchError("timeout", f"not done within {self._pace.timeout_s:g} s", again=True)
        return aiohttp.ClientTimeout(total=left_s, sock_connect=self._pace.connect_timeout_s)

    async def _judge(self, host: str, response: ClientResponse, want: Want) -> Reply:
        status, headers = response.status, response.headers
        want.check_tags(headers.getall("X-Robots-Tag", []))
        if status in _REDIRECTS and headers.get("Location"):
            return Reply(status, location=headers["Location"])
        if status in _MAY_PASS or status >= 500:
            raise self._build_busy(host, status, headers)
        if status != 200:
            return Reply(status)
        return Reply(status, await _read_body(response, want))

    def _build_busy(self, host: str, status: int, headers: Mapping[str, str]) -> FetchError:
        """Return the failure for a server that cannot now, and leave it alone as it asks."""
        reason, message = f"http_{status}", f"the server answers {status}"
        wait = read_retry_after(headers.get("Retry-After", ""), self._outside)
        if wait is None and status in (429, 503):
            wait = self._pace.backoff_s
        if wait is None:
            return FetchError(reason, message, again=True)
        if wait > self._pace.max_wait_s:
            rest = min(wait, _LONGEST_REST_S)
            asked = f"{host} answered {status} and asked to be left alone for {wait:.0f} s"
            self._hosts.close(host, rest, "host_busy", asked)
            return FetchError(reason, f"{message} and asks to wait {wait:.0f} s")
        self._hosts.pause(host, wait)
        return FetchError(reason, message, again=True)


async def _read_body(response: ClientResponse, want: Want) -> bytes:
    """Return a body that stays under its cap, stated, sent and unpacked."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    plain = encoding in ("", "identity")
    too_large = FetchError("too_large", f"more than {want.max_bytes:,} bytes")
    if (response.content_length or 0) > want.max_bytes and not want.truncate:
        raise too_large
    data = bytearray()
    looked = not plain
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        data += chunk
        if not looked and len(data) >= START_BYTES:
            want.check_start(bytes(data[:START_BYTES]))
            looked = True
        if len(data) > want.max_bytes:
            if not want.truncate:
                raise too_large
            break
    body = bytes(data[: want.max_bytes]) if plain else _unpack(bytes(data), encoding, want)
    if not looked or not plain:
        want.check_start(body[:START_BYTES])
    return body


def _unpack(data: bytes, encoding: str, want: Want) -> bytes:
    """Return a packed body: servers pack though asked not to, and a bomb stops at the cap."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise FetchError("bad_encoding", f"the body is packed as {encoding[:20]!r}")
    unpacker = zlib.decompressobj(47)  # gzip or zlib, by its header
    try:
        body = unpacker.decompress(data, want.max_bytes + 1)
    except zlib.error:
        raise FetchError("bad_encoding", f"the body is no {encoding}") from None
    if len(body) > want.max_bytes and not want.truncate:
        raise FetchError("too_large", f"more than {want.max_bytes:,} bytes")
    if not unpacker.eof and not want.truncate:
        raise FetchError("connection", "the packed body is cut off", again=True)
    return body[: want.max_bytes]


def read_retry_after(text: str, outside: Outside) -> float | None:
    """Return the seconds that a Retry-After header asks for, None when it asks nothing."""
    text = text.strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, math.ceil(when.timestamp() - outside.now().timestamp()))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _explain(error: Exception, pace: Pace) -> FetchError:
    """Return what an exception of aiohttp means for a row.

    Raises:
        JobError: it is this machine's fault, not the server's.
    """
    import aiohttp

    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and cause.errno in _LOCAL_FAULTS:
        raise JobError(
            f"this machine opens no further connection ({cause.strerror}); raise ulimit -n or "
            "lower --concurrency, then run the same command to go on"
        ) from error
    if isinstance(cause, PrivateAddressError):
        return FetchError("private_address", str(cause))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        known = isinstance(cause, OSError) and cause.errno not in _UNKNOWN_NAME
        return FetchError("dns", f"{error.host} is not found", again=known)
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchError("tls", f"no safe connection: {type(error).__name__}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        message = f"no connection within {pace.connect_timeout_s:g} s"
        return FetchError("timeout", message, again=True)
    if isinstance(error, asyncio.TimeoutError):
        return FetchError("timeout", f"not done within {pace.timeout_s:g} s", again=True)
    if isinstance(error, aiohttp.InvalidURL):
        return FetchError("bad_url", "the address cannot be asked for")
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError("connection", "the body is cut off", again=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return FetchError("bad_response", "the server does not speak HTTP")
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return FetchError("connection", text, again=True)
    return FetchError("client_error", text)


@contextlib.asynccontextmanager
async def open_session(
    agent: str, pace: Pace, outside: Outside, allow_private: bool
) -> AsyncIterator[ClientSession]:
    """Hold a session that keeps no cookie, reads no proxy or password of the user's.

    Raises:
        MissingPackageError: aiohttp is not installed; the message names the pip command.
    """
    require("aiohttp")
    import aiohttp

    connector = aiohttp.TCPConnector(
        limit=pace.concurrency,
        resolver=_build_resolver(outside, allow_private),
        ttl_dns_cache=_DNS_LASTS_S,
        keepalive_timeout=_KEEP_ALIVE_S,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": agent, "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    ) as session:
        yield session


def _build_resolver(outside: Outside, allow_private: bool) -> AbstractResolver:
    """Return a resolver that passes on only addresses which may be connected to.

    aiohttp connects to just what this returns: a name cannot change behind the check.
    """
    from aiohttp.abc import AbstractResolver, ResolveResult

    class PublicResolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await outside.look_up(host, port)
            passed = [one for one in found if allow_private or crawl_rules.is_public(one)]
            if found and not passed:
                raise PrivateAddressError(f"{host} leads to no public address")
            return [_build_result(host, port, one) for one in passed]

        async def close(self) -> None:
            """Nothing is held."""

    def _build_result(host: str, port: int, address: str) -> ResolveResult:
        return ResolveResult(
            hostname=host,
            host=address,
            port=port,
            family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )

    return PublicResolver()
