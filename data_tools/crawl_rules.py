"""What a crawl may not fetch: private addresses, opted-out hosts, people and pictures."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.crawl_settings import FetchError
from facerec.checks import InputError

if TYPE_CHECKING:
    from yarl import URL

OPT_OUT_TAGS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""X-Robots-Tag directives that forbid to keep a picture."""
_VALUED_TAGS = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def parse_url(text: str) -> URL:
    """Return an address that may be asked for, as it will be asked for, without its fragment.

    Raises:
        FetchError: no http or https address, no host, or a name and password in it.
    """
    from yarl import URL

    text = text.strip()
    try:
        # Escapes that a server wrote are kept as they are: some are signed.
        url = URL(text, encoded=bool(re.fullmatch(r"[!-~]+", text)))
        scheme, host, port = url.scheme, url.host, url.port
        has_login = url.user is not None or url.password is not None
    except (ValueError, UnicodeError):
        raise FetchError("bad_url", "the address cannot be read as one") from None
    if scheme not in ("http", "https"):
        raise FetchError("bad_url", "the address must begin with http:// or https://")
    if not host or port == 0 or re.search(r"[\s\\@<>^|]", host):
        raise FetchError("bad_url", "the address names no host")
    if has_login:
        raise FetchError("credentials", "the address holds a name or password")
    return url.with_fragment(None)


def join_url(url: URL, location: str) -> URL:
    """Return where a redirect of `url` leads, checked like any address.

    Raises:
        FetchError: see `parse_url`.
    """
    from yarl import URL

    try:
        target = URL(location, encoded=bool(re.fullmatch(r"[!-~]+", location)))
        return parse_url(str(url.join(target)))
    except (ValueError, UnicodeError):
        raise FetchError("bad_redirect", "the server redirects to no address") from None


def host_of(url: URL) -> str:
    """Return the host of an address as ASCII in lower case, without a dot at its end."""
    return (url.raw_host or "").lower().rstrip(".")


def origin_of(url: URL) -> str:
    """Return scheme, host and port: what one robots.txt speaks for."""
    host = host_of(url)
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{url.port}"


def is_public(address: str) -> bool:
    """Return whether an IP address is one that anybody on the internet may reach.

    Addresses that wrap an IPv4 one (mapped, 6to4, NAT64) are judged by it.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = _unwrap(found)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def _unwrap(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, None when to none."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def check_host(url: URL, allow_private: bool) -> None:
    """Refuse a host written as a number that is private, or that is no plain IP address.

    Names are judged when they are looked up, at connect time.

    Raises:
        FetchError: as said.
    """
    host = host_of(url)
    if ":" in host or re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)", host.rpartition(".")[2]):
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:  # such as 127.1 or 2130706433, which resolvers take for addresses
            raise FetchError("bad_url", "the host is no plain IP address") from None
        if not allow_private and not is_public(host):
            raise FetchError("private_address", f"{host} is no public address")


def check_tags(values: Iterable[str], agent: str) -> None:
    """Refuse an answer whose X-Robots-Tag headers forbid to keep it.

    Args:
        values: the header values; "name: directives" speaks to the agent of that name only.
        agent: our product token, lower case.

    Raises:
        FetchError: one of `OPT_OUT_TAGS` speaks to everybody or to us.
    """
    for value in values:
        meant = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _VALUED_TAGS:
                meant = name.strip() in (agent, "*")
                part = rest
            if meant and part.strip() in OPT_OUT_TAGS:
                raise FetchError("x_robots_tag", f"the server says X-Robots-Tag: {part.strip()}")


class OptOut:
    """Who and what is never fetched.

    Args:
        lines: one entry a line. With `://` it is an address and covers all that begin with it,
            over http and https alike. Any other is both a host, with all hosts below it, and an
            identity, in any case. Empty lines and lines that begin with # say nothing.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._prefixes: dict[str, list[str]] = {}
        for number, line in enumerate(lines, 1):
            entry = line.strip()
            if not entry or entry.startswith("#"):
                continue
            if "://" in entry:
                self._add_prefix(entry, number)
                continue
            self._names.add(_fold(entry))
            self._names.add(_fold_host(entry))

    def _add_prefix(self, entry: str, number: int) -> None:
        try:
            url = parse_url(entry)
        except FetchError as error:
            raise InputError(
                f"opt-out line {number} must be a host, an address or an identity, got "
                f"{entry!r}: {error.message}"
            ) from None
        self._prefixes.setdefault(host_of(url), []).append(_path_of(url))

    def check_identity(self, identity: str) -> None:
        """Refuse a person who opted out.

        Raises:
            FetchError: as said.
        """
        if _fold(identity) in self._names:
            raise FetchError("opt_out", "the identity is on the opt-out list")

    def check_url(self, url: URL) -> None:
        """Refuse a host or address that opted out.

        Raises:
            FetchError: as said.
        """
        host = host_of(url)
        labels = host.split(".")
        if any(".".join(labels[start:]) in self._names for start in range(len(labels))):
            raise FetchError("opt_out", "the host is on the opt-out list")
        path = _path_of(url)
        if any(path.startswith(prefix) for prefix in self._prefixes.get(host, ())):
            raise FetchError("opt_out", "the address is on the opt-out list")


def read_opt_out(path: Path | None) -> OptOut:
    """Return the opt-out list in a UTF-8 text file, an empty one without a file.

    Raises:
        InputError: the file is missing or no UTF-8 text, or a line is no entry.
    """
    if path is None:
        return OptOut()
    try:
        with path.open(encoding="utf-8-sig") as file:
            return OptOut(file)
    except FileNotFoundError:
        raise InputError(f"opt-out list {path} does not exist; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"opt-out list {path} must be UTF-8 text; convert it") from None


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


def _fold_host(name: str) -> str:
    """Return a host as `host_of` has it, where the name is one."""
    host = name.strip().lower().strip(".")
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _path_of(url: URL) -> str:
    """Return path and query with one spelling for each character."""
    from yarl import URL

    plain = URL.build(path=url.path, query_string=url.query_string)
    return str(plain) or "/"


def guess_suffix(start: bytes) -> str | None:
    """Return the file ending for a picture by its first bytes, None when they are no picture's.

    Args:
        start: at least 32 bytes, or all there are.
    """
    if start.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    # Two letters alone could begin a text: the header's length is looked at too.
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return None


_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
