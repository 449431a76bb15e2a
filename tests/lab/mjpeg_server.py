"""The tests' network camera: a real server of MJPEG over HTTP, with the faults that real ones have.

    python mjpeg_server.py PORT [--certificate FILE]

/stream?size=320x240&fps=15 shows eight colour bars over a strip of 20 black or white blocks: the CLOCK_MONOTONIC milliseconds at
which the frame was made, modulo 2**20, highest bit first. Each other path of PAGES and MODES is one fault; `&after=N` lets a mode
begin after N frames, and /set?mode=MODE changes what every /stream does from now on.
It prints `ready PORT`; PORT 0 is any free one.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import socket
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np

BITS = 20
USER, PASSWORD = "user", "pa:ss@"
REALM, NONCE = "camera", "dcd98b7102dd2f0e8b11d0f600bfb0c0"
BARS = ((255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0))
"""Blue, green, red of white, yellow, cyan, green, magenta, red, blue and black."""
MODES = {
    "stream": "as it should be",
    "dies": "closes the connection in the middle of a frame",
    "hangs": "sends nothing more, and keeps the connection",
    "corrupt": "every second frame has wrong bytes inside",
    "cut": "every second frame has no end",
    "resize": "frames are half as large again",
    "frozen": "the same frame for ever",
    "black": "frames without any light",
    "junk": "no JPEGs any more",
    "scene": "a few frames again and again that cost a decoder as much as a room does: shapes, shades and a sensor's noise",
}
SCENE_FRAMES = 8


def picture(width: int, height: int) -> Any:
    """Bars, and below them the time."""
    made = np.empty((height, width, 3), np.uint8)
    made[:] = np.array(BARS, np.uint8)[np.arange(width) * len(BARS) // width]
    shown = int(time.monotonic() * 1000) % 2**BITS
    bits = np.array([shown >> (BITS - 1 - bit) & 1 for bit in range(BITS)], np.uint8) * 255
    made[height - height // 8 :] = bits[np.arange(width) * BITS // width][:, np.newaxis]
    return made


@cache
def scene(width: int, height: int) -> list[bytes]:
    """JPEGs of something like a room; at 1280x720 some 170 kB each, as a webcam's are."""
    chance, y = np.random.default_rng(1), np.linspace(0, 1, height)[:, np.newaxis, np.newaxis]
    room = np.empty((height, width, 3), np.float32)
    room[:] = 60 + 120 * y + np.linspace(-30, 30, 3)
    for _ in range(60):
        place, reach = chance.integers(0, (width, height)), chance.integers(height // 30, height // 5)
        shade = chance.uniform(0, 255, 3).tolist()
        cv2.rectangle(room, place.tolist(), (place + reach).tolist(), shade, -1) if reach % 2 else cv2.circle(
            room, place.tolist(), int(reach), shade, -1
        )
    room = cv2.GaussianBlur(room, (0, 0), 1.0)
    noise = [
        cv2.GaussianBlur(chance.normal(0, 9, room.shape).astype(np.float32), (0, 0), 0.7) for _ in range(SCENE_FRAMES)
    ]
    return [jpeg(np.clip(room + each, 0, 255).astype(np.uint8)) for each in noise]


def jpeg(pixels: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


class Show:
    """The frames of one connection."""

    def __init__(self, server: Server, mode: str, query: dict[str, str]) -> None:
        self.server, self.mode, self.after = server, mode, int(query.get("after", 0))
        self.width, self.height = map(int, query.get("size", "320x240").split("x"))
        self.still = jpeg(picture(self.width, self.height))
        self.scene = scene(self.width, self.height) if mode == "scene" else []

    def mode_now(self, number: int) -> str:
        return self.mode if self.mode != "stream" and number >= self.after else self.server.mode

    def frame(self, number: int, mode: str) -> bytes:
        if mode == "frozen":
            return self.still
        if mode == "scene":
            return self.scene[number % len(self.scene)]
        if mode == "black":
            return jpeg(np.zeros((self.height, self.width, 3), np.uint8))
        if mode == "junk":
            return b"no picture " * 3000
        larger = 3 if mode == "resize" else 2
        made = jpeg(picture(self.width * larger // 2, self.height * larger // 2))
        if mode == "cut" and number % 2:
            return made[: len(made) // 2]
        if mode == "corrupt" and number % 2:
            middle = len(made) // 2
            return made[:middle] + bytes(byte ^ 0x5A for byte in made[middle : middle + 200]) + made[middle + 200 :]
        return made


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        name, query = address.path.strip("/"), dict(parse_qsl(address.query))
        try:
            if name in PAGES:
                PAGES[name](self, query)
            elif name in MODES:
                self.stream(name, query)
            else:
                self.send_error(404)
        except (ConnectionError, TimeoutError):
            pass  # the client has gone
        self.close_connection = True

    def answer(self, kind: str, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def stream(
        self,
        mode: str,
        query: dict[str, str],
        kind: str = "multipart/x-mixed-replace; boundary=frame",
        before: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        show, interval_s, started = Show(self.server, mode, query), 1 / float(query.get("fps", 15)), time.monotonic()
        for number in range(sys.maxsize):
            now = show.mode_now(number)
            if now == "hangs":
                time.sleep(3600)
            frame = show.frame(number, now)
            if now == "dies":
                self.wfile.write(self.headers_of(frame) + frame[: len(frame) // 2])
                return
            self.wfile.write((before or self.headers_of)(frame) + frame + b"\r\n")
            time.sleep(max(0.0, started + (number + 1) * interval_s - time.monotonic()))

    @staticmethod
    def headers_of(frame: bytes) -> bytes:
        return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(frame)

    def no_length(self, query: dict[str, str]) -> None:
        kind = 'multipart/x-mixed-replace;boundary="--my frame"'
        self.stream("stream", query, kind, lambda frame: b"----my frame\r\nContent-type: image/jpeg\r\n\r\n")

    def bare(self, query: dict[str, str]) -> None:
        self.stream("stream", query, "video/x-motion-jpeg", lambda frame: b"")

    def basic(self, query: dict[str, str]) -> None:
        if self.headers["Authorization"] == "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            return self.stream("stream", query)
        self.answer("text/plain", b"", 401, WWW_Authenticate=f'Basic realm="{REALM}"')

    def digest(self, query: dict[str, str]) -> None:
        given = dict(re.findall(r'(\w+)="?([^",]+)"?', self.headers["Authorization"] or ""))
        user = hashed(f"{USER}:{REALM}:{PASSWORD}")
        parts = (user, NONCE, given.get("nc"), given.get("cnonce"), "auth", hashed(f"GET:{self.path}"))
        if given.get("response") == hashed(":".join(map(str, parts))):
            return self.stream("stream", query)
        challenge = f'Digest realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm=MD5'
        self.answer("text/plain", b"", 401, WWW_Authenticate=challenge)

    def moved(self, query: dict[str, str]) -> None:
        self.answer("text/plain", b"", 302, Location="/stream")

    def round(self, query: dict[str, str]) -> None:
        self.answer("text/plain", b"", 302, Location="/round?" + str(time.monotonic_ns()))

    def garbage(self, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while True:
            self.wfile.write(b"garbage " * 1000)

    def no_http(self, query: dict[str, str]) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    def mode(self, query: dict[str, str]) -> None:
        if query.get("mode") not in MODES:
            return self.send_error(400)
        self.server.mode = query["mode"]
        self.answer("text/plain", b"so it is\n")


PAGES: dict[str, Callable[[Handler, dict[str, str]], None]] = {
    "set": Handler.mode,
    "nolength": Handler.no_length,
    "bare": Handler.bare,
    "basic": Handler.basic,
    "digest": Handler.digest,
    "moved": Handler.moved,
    "round": Handler.round,
    "garbage": Handler.garbage,
    "nohttp": Handler.no_http,
    "single": lambda handler, _: handler.answer("image/jpeg", jpeg(picture(320, 240))),
    "html": lambda handler, _: handler.answer("text/html", b"<html>Please log in.</html>"),
    "empty": lambda handler, _: handler.answer("multipart/x-mixed-replace; boundary=frame", b""),
    "forbidden": lambda handler, _: handler.send_error(403),
    "busy": lambda handler, _: handler.send_error(503),
    "silent": lambda handler, _: time.sleep(3600),
}


def hashed(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """It can be started again on its port at once: http.server sets SO_REUSEADDR."""

    daemon_threads = True
    mode = "stream"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--certificate", help="serve https with this file of certificate and key")
    options = parser.parse_args(arguments)
    server = Server(("127.0.0.1", options.port), Handler)
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write(f"ready {server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
