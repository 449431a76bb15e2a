"""Network cameras: RTSP, and MJPEG over HTTP. The address's scheme chooses the reader."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from edge_runner.camera.base import Camera, Grab, LiveConfig, without_credentials
from edge_runner.errors import SettingError
from edge_runner.fields import listed, load

READERS = {
    "rtsp": "edge_runner.camera.rtsp:RtspReader",
    "rtsps": "edge_runner.camera.rtsp:RtspReader",
    "http": "edge_runner.camera.http:HttpReader",
    "https": "edge_runner.camera.http:HttpReader",
}
"""An address's scheme -> what reads such a stream: made from the camera, with its methods."""

ESCAPED = "characters such as : / ? # @ % in a user or password are written as %3A %2F %3F %23 %40 %25"


@dataclass(frozen=True, kw_only=True)
class StreamConfig(LiveConfig):
    """The configuration's `camera` of type stream. `transport` is of RTSP."""

    url: str
    type: Literal["stream"] = "stream"
    transport: Literal["tcp", "udp"] = "tcp"


class Stream(Camera):
    """A live camera on the network."""

    Config = StreamConfig
    live = True

    def __init__(self, config: StreamConfig) -> None:
        super().__init__(config)
        self._reader: Any = None

    def verify(self) -> None:
        check_url(self.config.url)

    def open(self) -> None:
        self.close()
        self.verify()
        self._reader = load(READERS[urlsplit(self.config.url).scheme])(self)
        try:
            self._reader.open()
        except BaseException:
            self.close()
            raise

    def grab(self) -> Grab | None:
        grabbed: Grab | None = self._reader.grab()
        return grabbed

    def interrupt(self) -> None:
        super().interrupt()
        if self._reader is not None:
            self._reader.interrupt()

    def describe(self) -> str:
        return str(self._reader.describe()) if self._reader is not None else ""

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def check_url(url: str) -> None:
    """Raise SettingError where no camera can have this address. No message holds what may be a password."""
    known = listed((f"{scheme}://" for scheme in READERS), "or")
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise SettingError(f"no scheme; a stream's address begins with {known}", key="url")
    if scheme.lower() not in READERS:
        raise SettingError(f"{scheme}:// is no stream that can be read; there are {known}", key="url")
    if not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
        raise SettingError(
            "a blank or a character beyond ASCII in the address; write it as %20 and the like", key="url"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingError(f"the host or its port is damaged; {ESCAPED}", key="url") from None
    if not host or rest.count("@") > 1:
        raise SettingError(f"no host, or more than one @; {ESCAPED}", key="url")


def shown(url: str) -> str:
    """The address for messages: without user and password, nor a query, which may hold them as well."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return without_credentials(f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}")
