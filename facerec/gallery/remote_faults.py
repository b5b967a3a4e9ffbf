"""What a Qdrant client complains of, as one sentence, and how often a request is tried."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from facerec.checks import InputError, require

_Result = TypeVar("_Result")

_LONGEST_WAIT_S = 10.0
_LONGEST_ECHO = 160
_PASSING_STATUSES = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})


@dataclass(frozen=True)
class Fault:
    """What went wrong.

    Attributes:
        sentence: what, and what to do.
        passing: whether the same request may succeed a moment later.
        missing: whether the collection or snapshot is not there.
        wait_s: seconds that the server asked to wait, 0 = it did not say.
    """

    sentence: str
    passing: bool = False
    missing: bool = False
    wait_s: float = 0.0


class RemoteError(InputError):
    """A request to a Qdrant server failed; the sentence says why and what to do."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.sentence)
        self.fault = fault


class Caller:
    """Makes requests, tries again what may pass, and says the rest in one sentence.

    Every request of a remote index may be repeated: upserts and deletions name their points.

    Args:
        place: the address, for messages.
        key: the API key, so that it can be struck from whatever a server sends back.
        attempts: tries of one request.
        backoff_s: seconds before the second; doubled for each one after it.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        place: str,
        key: str | None = None,
        attempts: int = 4,
        backoff_s: float = 0.25,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.place = place
        self._key = key
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._sleep = sleep

    def call(self, function: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        """Return `function(*args, **kwargs)`.

        Raises:
            RemoteError: it failed for good, or in every attempt.
        """
        for attempt in range(self._attempts):
            try:
                return function(*args, **kwargs)
            except InputError:
                raise
            except Exception as error:
                fault = explain_fault(error, self.place)
                if fault is None:
                    raise
                if not fault.passing or attempt + 1 == self._attempts:
                    # From None: what the client raised may carry the request with its headers.
                    raise RemoteError(self.censor(fault)) from None
                wait = max(self._backoff_s * 2**attempt, fault.wait_s)
                self._sleep(min(wait, _LONGEST_WAIT_S))
        raise AssertionError("attempts are at least 1")

    def censor(self, fault: Fault) -> Fault:
        """Return the fault with the API key struck out of what a server may have echoed."""
        if not self._key:
            return fault
        return replace(fault, sentence=fault.sentence.replace(self._key, "***"))


def explain_fault(error: Exception, place: str) -> Fault | None:
    """Return what an exception of the client means, None when it is not one of a request.

    Args:
        error: what the client raised.
        place: the address, for the sentence.
    """
    for explain in (_explain_status, _explain_grpc, _explain_transport, _explain_rest):
        fault = explain(error, place)
        if fault is not None:
            return fault
    return None


def _explain_status(error: Exception, place: str) -> Fault | None:
    """HTTP answers that are not a success."""
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import UnexpectedResponse

    if isinstance(error, ResourceExhaustedResponse):
        return Fault(
            f"{place} is asked too much at once ({_shorten(error.message)}); try again later or "
            "raise the server's limits",
            passing=True,
            wait_s=float(error.retry_after_s),
        )
    if isinstance(error, UnexpectedResponse):
        status = int(error.status_code or 0)
        return explain_status(status, place, read_words(error.content), error.reason_phrase)
    return None


def explain_status(status: int, place: str, words: str, reason: str = "") -> Fault:
    """Return what an HTTP status means.

    Args:
        status: three digits.
        place: the address.
        words: what the server said, "" for nothing.
        reason: the status line's phrase.
    """
    said = f": {words}" if words else ""
    if status == 401 or (status == 403 and "api-key" in words.lower()):
        return _refuse_key(place, f"{status}")
    if status == 403:
        return Fault(
            f"{place} knows the key but does not allow this (403{said}); use a key that may read "
            "and write, not a read-only one"
        )
    if status == 404:
        return Fault(
            f"{place} has nothing there (404{said}); was the collection dropped, or is this "
            "another server? Bring it up to date from the gallery again",
            missing=True,
        )
    if status == 413:
        return Fault(f"{place} refuses a request of that size (413); ask for smaller batches")
    if status in _PASSING_STATUSES:
        return Fault(
            f"{place} cannot answer now ({status} {reason or 'error'}{said}); look at the "
            "server's log and at its disk and memory, then try again",
            passing=True,
        )
    return Fault(
        f"{place} refuses the request ({status} {reason}{said}); is it a Qdrant server, and of a "
        "version that fits the installed qdrant-client?"
    )


def _explain_grpc(error: Exception, place: str) -> Fault | None:
    grpc = require("grpc")
    if not isinstance(error, grpc.RpcError) or not hasattr(error, "code"):
        return None
    code = str(getattr(error.code(), "name", error.code()))
    words = _shorten(str(error.details() or ""))
    if code in ("UNAUTHENTICATED",) or (code == "PERMISSION_DENIED" and "api-key" in words.lower()):
        return _refuse_key(place, code)
    if code == "PERMISSION_DENIED":
        return explain_status(403, place, words)
    if code == "NOT_FOUND":
        return explain_status(404, place, words)
    if any(word in words.lower() for word in ("certificate", "handshake", "ssl_error")):
        return _refuse_certificate(place, words)
    if code in _PASSING_CODES:
        return Fault(
            f"{place} cannot be reached by gRPC ({code}: {words}); is its gRPC port open, and "
            "the server up?",
            passing=True,
        )
    return Fault(f"{place} refuses the request ({code}: {words}); is the server too old?")


def _explain_transport(error: Exception, place: str) -> Fault | None:
    """Connections that fail before there is an answer."""
    import httpx

    causes = list(_iter_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _refuse_certificate(place, _shorten(cause.reason or str(cause)))
    for cause in causes:
        text = str(cause)
        if isinstance(cause, httpx.ConnectError) and ("SSL" in text or "certificate" in text):
            return _refuse_certificate(place, _shorten(text))
        if isinstance(cause, httpx.ConnectTimeout | httpx.ConnectError):
            return Fault(
                f"no Qdrant server answers at {place} ({_shorten(text) or 'timed out'}); start "
                "it, or correct the address and the port (docs/cluster.md)",
                passing=True,
            )
        if isinstance(cause, httpx.TimeoutException):
            return Fault(
                f"{place} did not answer in time; is it busy building its index? Raise timeout_s "
                "or ask again later",
                passing=True,
            )
        if isinstance(cause, httpx.TransportError | OSError):
            return Fault(
                f"the connection to {place} broke ({_shorten(text)}); is a Qdrant server behind "
                "that port, and does it expect https:// rather than http:// there?",
                passing=True,
            )
    return None


def _explain_rest(error: Exception, place: str) -> Fault | None:
    """Answers that are no Qdrant's, and what the client's own engine raises."""
    from pydantic import ValidationError
    from qdrant_client.http.exceptions import ResponseHandlingException

    # The client asserts that a successful answer has a result.
    foreign = (ResponseHandlingException, ValidationError, json.JSONDecodeError, AssertionError)
    if isinstance(error, foreign):
        return Fault(
            f"{place} does not answer like a Qdrant server; check the address, and that the "
            "server's version fits the installed qdrant-client"
        )
    text = _shorten(str(error))
    if isinstance(error, NotImplementedError):
        return Fault(f"{place} is the client's own engine, which cannot do this; use a server")
    if isinstance(error, ValueError) and text.endswith("not found"):
        return explain_status(404, place, text)
    if isinstance(error, RuntimeError) and "already accessed by another instance" in text:
        return Fault(
            f"{place} is open in another process; close that one, or run a Qdrant server, which "
            "many processes may use at once"
        )
    if isinstance(error, RuntimeError) and "closed" in text:
        return Fault(f"the connection to {place} is closed; connect again")
    return None


def _refuse_key(place: str, code: str) -> Fault:
    return Fault(
        f"{place} refuses the API key, or asks for one ({code}); put the server's key into a "
        "file of mode 600 or into FACEREC_QDRANT_KEY"
    )


def _refuse_certificate(place: str, words: str) -> Fault:
    return Fault(
        f"no trusted TLS connection to {place} ({words}); name the certificate of the authority "
        "that signed the server's as ca_file, check that the address is the name in the "
        "certificate, and that the port speaks TLS at all"
    )


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, what the client wrapped in it, and what those came from."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        wrapped = getattr(cause, "source", None)
        pending += [wrapped if isinstance(wrapped, BaseException) else None, cause.__cause__]


def read_words(content: bytes) -> str:
    """What a Qdrant server says in the JSON of an error, else the first words of the body."""
    try:
        words = json.loads(content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        words = content.decode("utf-8", "replace")
    return _shorten(str(words))


def _shorten(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
    return line if len(line) <= _LONGEST_ECHO else line[: _LONGEST_ECHO - 3] + "..."
