"""An archive from the network is there as a whole, or it is said why not; nothing waits for ever."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edge_runner.errors import EXIT_CONFIG, EXIT_FAILED, EdgeRunnerError, ModelError, StoreError
from edge_runner.model import fetch
from edge_runner.model.fetch import fetched

BODY = b"\x1f\x8b" + bytes(range(256)) * 1000
Answer = Callable[[BaseHTTPRequestHandler], object]


def sent(body: bytes, announced: int | None = None, code: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def unannounced(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(BODY)


def silent(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.server.over.wait(60)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"x")


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


ANSWERS: dict[str, Answer] = {
    "whole": sent(BODY),
    "unannounced": unannounced,
    "cut": sent(BODY[:1000], announced=len(BODY)),
    "huge": sent(b"", announced=3 * 10**9),
    "gone": sent(b"no", code=404),
    "there": sent(b"", code=302, Location="/whole"),
    "round": sent(b"", code=302, Location="/round"),
    "file": sent(b"", code=302, Location="file:///etc/passwd"),
    "ftp": sent(b"", code=302, Location="ftp://localhost/x"),
    "silent": silent,
    "trickling": trickling,
    "nonsense": nonsense,
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        ANSWERS[self.path.strip("/").partition("?")[0]](self)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.over, server.handle_error = [], threading.Event(), lambda *_: None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def address(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return f"http://127.0.0.1:{server.server_port}"


def read(address: str, room: Callable[[int], object] = lambda size: None) -> bytes:
    with fetched(address, room) as source:
        return b"".join(iter(lambda: source.read(10_000), b""))


def failure(address: str, kind: type[EdgeRunnerError] = StoreError) -> str:
    with pytest.raises(kind) as caught:
        read(address)
    assert caught.value.exit_code == (EXIT_CONFIG if kind is ModelError else EXIT_FAILED)
    return str(caught.value)


@pytest.mark.parametrize("path", ["whole", "unannounced", "there"])
def test_fetched(address: str, server: ThreadingHTTPServer, path: str) -> None:
    """What is there is read to its last byte, also where the address leads on, and without its size having been announced."""
    assert hashlib.sha256(read(f"{address}/{path}")).digest() == hashlib.sha256(BODY).digest()
    assert server.asked[0][1]["User-Agent"].startswith("edge-runner/")


def test_room(address: str) -> None:
    """Whether there is room for what is announced is asked before any of it is read."""
    asked: list[int] = []
    read(f"{address}/whole", asked.append)
    assert asked == [len(BODY)]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gone", "the server says 404 Not Found"),
        ("cut", f"the connection ended {len(BODY) - 1000} bytes too early; try again"),
        ("round", "the server says 302 The HTTP server returned a redirect error that would lead to an infinite loop"),
        ("file", "the server says 302 Found - Redirection to url 'file:///etc/passwd' is not allowed"),
        ("nonsense", "BadStatusLine: SSH-2.0-OpenSSH_9.2"),
    ],
)
def test_not_to_be_had(address: str, path: str, says: str) -> None:
    """What the network or the server does is said, with the address and how it failed."""
    assert failure(f"{address}/{path}").startswith(f"{address}/{path}: {says}")


def test_too_large(address: str) -> None:
    """What is larger than any bundle is refused before it is read."""
    assert failure(f"{address}/huge", ModelError) == f"{address}/huge has 3.0 GB, which no bundle has"


def test_nobody_there(address: str) -> None:
    """A server that is not there, or has no name, is told with the system's reason."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}/x"
        assert failure(nobody) == f"{nobody}: Connection refused"
    assert failure("http://no.such.host.invalid/x").startswith("http://no.such.host.invalid/x: ")


def test_silence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing more is not waited for for ever."""
    monkeypatch.setattr(fetch, "ANSWER_S", 0.3)
    assert failure(f"{address}/silent") == f"{address}/silent: no answer for 0.3 s"


def test_trickle(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that gives a byte now and then."""
    monkeypatch.setattr(fetch, "WINDOW_S", 0.5)
    started = time.monotonic()
    assert "bytes came in 0.5 s; try again later" in failure(f"{address}/trickling")
    assert time.monotonic() - started < 30


def test_leads_to_something_else(address: str) -> None:
    """A server cannot lead to what is no web server; to the board's own files neither, as was seen above."""
    assert failure(f"{address}/ftp", ModelError) == (
        f"{address}/ftp leads to ftp://localhost/x, which is no address to fetch from; allowed: http://… and https://…"
    )


def test_leads_out_of_encryption() -> None:
    """Nor from an encrypted connection to one that is not."""
    request = urllib.request.Request("https://models.example/x?token=7")
    with pytest.raises(StoreError) as caught:
        fetch._Redirects().redirect_request(request, None, 302, "Found", {}, "http://models.example/x?token=7")
    assert str(caught.value) == "https://models.example/x leads to http://models.example/x, which is not encrypted"


@pytest.mark.parametrize(
    "address",
    ["ftp://host/x", "file:///etc/passwd", "http://", "http://[", "http://host:port/x", "s3://b/x", "https://ä/x"],
)
def test_no_address(address: str) -> None:
    """What is no address of a web server is refused, before anything is asked for."""
    assert "is no address to fetch from; allowed: http://… and https://…" in failure(address, ModelError)


def test_passwords_are_not_shown(address: str) -> None:
    """Neither a password before the host nor a token in the query is in a message; the former is not taken at all."""
    told = failure("https://me:secret@host/x?token=hidden", ModelError)
    assert told.startswith("https://host/x: names and passwords in addresses are not taken; curl can: ")
    assert "hidden" not in failure(f"{address}/gone?token=hidden")
