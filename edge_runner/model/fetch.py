"""Fetches an archive over http or https, and gives up on whatever does not get on."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from edge_runner import __version__
from edge_runner.errors import ModelError, StoreError
from edge_runner.model.archive import MOST_BYTES, Room, Source

SCHEMES = ("http", "https")
ANSWER_S = 30.0  # for the connection, and for each piece of what comes
WINDOW_S, WINDOW_BYTES = 60.0, 16_000  # what comes more slowly does not come


def is_address(text: str) -> bool:
    """Whether it is an address rather than a path: `https://…`, `ftp://…`."""
    return "://" in text


@contextmanager
def fetched(address: str, room: Room) -> Iterator[Source]:
    """What there is at an address. Raise StoreError where it cannot be had, ModelError where it is no address for this."""
    told = _told(address)
    _check(address, told)
    request = urllib.request.Request(address, headers={"User-Agent": f"edge-runner/{__version__}"})
    with _explained(told), _opener().open(request, timeout=ANSWER_S) as answer:
        announced = answer.length or 0
        if announced > MOST_BYTES:
            raise ModelError(f"{told} has {announced / 1e9:.1f} GB, which no bundle has")
        room(announced)
        yield Source(_Download(answer, told), told)


class _Download:
    """An answer's body, as it comes."""

    def __init__(self, answer: http.client.HTTPResponse, told: str) -> None:
        self._answer, self._told = answer, told
        self._since, self._bytes = time.monotonic(), 0

    def read(self, size: int, /) -> bytes:
        with _explained(self._told):
            found = self._answer.read1(size)
            if not found and self._answer.length:
                raise http.client.IncompleteRead(b"", self._answer.length)
        self._watch(len(found))
        return found

    def _watch(self, size: int) -> None:
        self._bytes += size
        now = time.monotonic()
        if now - self._since > WINDOW_S:
            if self._bytes < WINDOW_BYTES:
                raise StoreError(f"{self._told}: only {self._bytes} bytes came in {WINDOW_S:g} s; try again later")
            self._since, self._bytes = now, 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to where an address may lead at all, and never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        with fp or nullcontext():  # the answer that leads on has nothing more to say
            _check(newurl, f"{_told(req.full_url)} leads to {_told(newurl)}, which")
            if req.type == "https" and not newurl.startswith("https:"):
                raise StoreError(f"{_told(req.full_url)} leads to {_told(newurl)}, which is not encrypted")
            return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Without the handlers of file:, ftp: and data:, which `build_opener` has."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(), _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


def _told(address: str) -> str:
    """An address for messages: without passwords, neither before the host nor in a query."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def _check(address: str, told: str) -> None:
    parts = None
    with suppress(ValueError):
        found = urllib.parse.urlsplit(address)
        parts = found if found.port != 0 else None  # the port is read here: it may be no number
    if not parts or parts.scheme not in SCHEMES or not parts.hostname or not address.isascii():
        raise ModelError(f"{told} is no address to fetch from; allowed: http://… and https://…")
    if "@" in parts.netloc:
        raise ModelError(
            f"{told}: names and passwords in addresses are not taken; curl can: curl -u NAME … | edge-runner model install -"
        )


@contextmanager
def _explained(told: str) -> Iterator[None]:
    """What goes wrong in a network, in words."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        reason = str(error.reason).partition("\n")[0].rstrip(".")
        raise StoreError(f"{told}: the server says {error.code} {reason}") from error
    except urllib.error.URLError as error:
        raise StoreError(f"{told}: {getattr(error.reason, 'strerror', None) or error.reason}") from error
    except http.client.IncompleteRead as error:
        raise StoreError(f"{told}: the connection ended {error.expected} bytes too early; try again") from error
    except TimeoutError as error:
        raise StoreError(f"{told}: no answer for {ANSWER_S:g} s") from error
    except (http.client.HTTPException, ConnectionError) as error:
        raise StoreError(f"{told}: {type(error).__name__}: {error}") from error
