"""MJPEG over HTTP, as network cameras serve it. The pictures are not decoded here: only those that the model wants will be."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections import deque
from typing import Any
from urllib.parse import unquote, urlsplit

from edge_runner import __version__
from edge_runner.camera import jpeg
from edge_runner.camera.base import Camera, Grab
from edge_runner.camera.mjpeg import Splitter
from edge_runner.camera.pixels import Layout, RawFrame
from edge_runner.camera.stream import shown
from edge_runner.errors import CameraError
from edge_runner.frame import Stamp

CONNECT_S = 10.0
CHUNK_BYTES = 1 << 18  # a frame in one piece, mostly: each piece costs a turn of the reader
STREAM_TYPES = (
    "multipart/",
    "video/x-motion-jpeg",
    "video/x-mjpeg",
    "video/x-jpeg",
    "video/mjpeg",
    "application/octet-stream",
)
REMEDIES = {
    401: "",
    403: "the camera does not let this user see it",
    404: "there is no stream of this name; look the address up in the camera's manual",
    503: "the camera has no free connection, or is still starting",
}


class HttpReader:
    """The reader of one `camera` with an address of http or https."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._url = camera.config.url
        self._place = shown(self._url)
        self._splitter = Splitter()
        self._pictures: deque[tuple[bytes, int]] = deque()  # with their arrival
        self._response: Any = None
        self._socket: socket.socket | None = None
        self._whole = 0
        self._size: tuple[int, int] | None = None

    def open(self) -> None:
        """Return when the first picture has come."""
        self._connect()
        kind = self._response.headers.get("Content-Type", "").lower()
        if kind and not kind.startswith(STREAM_TYPES):
            raise CameraError(f"{self._place}: {_no_stream(kind)}")
        self._receive()
        if self._pictures:
            self._size = jpeg.size(self._pictures[0][0])

    def grab(self) -> Grab | None:
        if not self._pictures:
            self._receive()
        if not self._pictures:
            return None
        picture, arrived_ns = self._pictures.popleft()
        self._whole += 1
        stamp = Stamp(self._whole + self._camera.torn, arrived_ns, time.time_ns() - (time.monotonic_ns() - arrived_ns))
        return RawFrame(stamp, picture, Layout("mjpeg", 0, 0))

    def interrupt(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS, the connection beneath it

    def describe(self) -> str:
        width, height = self._size or (0, 0)
        return f"{self._place}, MJPEG {width}x{height}"

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = self._socket = None

    def _connect(self) -> None:
        request = urllib.request.Request(_without_user(self._url), headers={"User-Agent": f"edge-runner/{__version__}"})
        opener = _opener(self._url, self._keep_socket)
        try:
            self._response = opener.open(request, timeout=CONNECT_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise CameraError(f"{self._place}: {self._refused(error)}") from None
        except urllib.error.URLError as error:
            raise CameraError(f"{self._place}: {_why(error.reason, self._url)}") from None
        except (OSError, http.client.HTTPException) as error:
            raise CameraError(f"{self._place}: {_why(error, self._url)}") from None
        except ValueError:  # from urllib's handlers, of a way that they do not know
            raise CameraError(
                f"{self._place}: asks for another way to log in than basic or digest (MD5, SHA); change it in the camera"
            ) from None
        if self._socket is not None:
            self._socket.settimeout(self._camera.config.stall_timeout)

    def _keep_socket(self, connected: socket.socket) -> None:
        self._socket = connected

    def _refused(self, error: urllib.error.HTTPError) -> str:
        remedy = REMEDIES.get(error.code, "the camera refuses or fails")
        if error.code == 401:
            given = urlsplit(self._url).username is not None
            remedy = (
                "user or password are wrong" if given else "it wants a user and a password: http://USER:PASSWORD@HOST/…"
            )
        elif 300 <= error.code < 400:
            remedy = "it leads on to an address that cannot be read, or round in a circle"
        reason = http.client.responses.get(error.code, "")
        return f"{error.code} {reason}".strip() + f": {remedy}"

    def _receive(self) -> None:
        """Wait until a picture has come whole; there is none where no more are wanted."""
        while not self._pictures and not self._camera.stopping.is_set():
            chunk = self._read()
            try:
                pictures = self._splitter.feed(chunk)
            except CameraError as error:
                raise CameraError(f"{self._place}: {error}") from None
            arrived_ns = time.monotonic_ns()
            self._pictures.extend((picture, arrived_ns) for picture in pictures)
            self._camera.torn = self._splitter.torn

    def _read(self) -> bytes:
        """The next bytes; none where no more are wanted."""
        chunk, why = b"", "the camera ended the stream"
        try:
            chunk = self._response.read1(CHUNK_BYTES)
        except TimeoutError:
            why = f"no data for {self._camera.config.stall_timeout:g} s"
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a damaged length of a chunk
            why = _why(error, self._url)
        if not chunk and not self._camera.stopping.is_set():
            raise CameraError(f"{self._place}: {why}")
        return chunk


def _opener(url: str, connected: Any) -> urllib.request.OpenerDirector:
    """What opens an address, following where it leads, but by http and https only, and through no proxy."""
    handlers = [
        _Http(connected),
        _Https(connected),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ]
    parts = urlsplit(url)
    if parts.username is not None:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, _without_user(url), unquote(parts.username), unquote(parts.password or ""))
        handlers += [
            _Again(),
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
        ]
    opener = urllib.request.OpenerDirector()
    for handler in handlers:
        opener.add_handler(handler)
    return opener


class _Again(urllib.request.BaseHandler):
    """Closes the connection whose answer is to log in: urllib asks again by another one, and forgets the first."""

    handler_order = 100  # before those that ask again

    def http_error_401(self, request: Any, response: Any, *_: Any) -> None:
        response.close()


class _HandsOut:
    """Hands out the connection's socket, by which a reader that waits can be woken."""

    def __init__(self, connected: Any) -> None:
        super().__init__()
        self._connected = connected


class _Http(_HandsOut, urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, connected=self._connected), request)


class _Https(_HandsOut, urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_TlsConnection, connected=self._connected), request)


class _Connection(http.client.HTTPConnection):
    def __init__(self, *arguments: Any, connected: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connected = connected

    def connect(self) -> None:
        super().connect()
        self._connected(self.sock)


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, *arguments: Any, connected: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connected = connected

    def connect(self) -> None:
        super().connect()
        self._connected(self.sock)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _no_stream(kind: str) -> str:
    kind = kind.partition(";")[0].strip()
    if kind == "image/jpeg":
        return "a single picture (image/jpeg), no stream; give the address of the camera's MJPEG stream"
    if kind == "text/html":
        return "a web page (text/html), no stream; give the address of the camera's MJPEG stream"
    return f"'{kind[:40]}' is no MJPEG stream (multipart/x-mixed-replace)"


def _why(error: object, url: str) -> str:
    """One line on a connection that failed. It never repeats the error's own words where these may hold the address."""
    host = urlsplit(url).hostname
    if isinstance(error, socket.gaierror):
        return f"the name {host} is not known ({error.strerror}); check the address and the network"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing answers at this port; is the camera on, and the port right?"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s; is the camera on, and in this network?"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); add it to the system's, or use http"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection ({error.reason}); does it serve https at this port?"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
        return "the camera closed the connection"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is no HTTP ({type(error).__name__}); is the port right?"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "it cannot be opened"
