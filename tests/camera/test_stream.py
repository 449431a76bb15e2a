"""Network cameras, against real servers: MJPEG over HTTP, and RTSP where the system has GStreamer for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from lab import mjpeg_server, servers

from edge_runner.camera.base import Grab
from edge_runner.camera.rtsp import BUFFERS, LowerEdge, StreamClock, environment, reason
from edge_runner.camera.stream import Stream, StreamConfig, shown
from edge_runner.errors import CameraError, SettingError
from edge_runner.frame import Picture

ROOT = Path(__file__).parents[2]
SECOND_NS = 10**9
LOGIN = f"{mjpeg_server.USER}:{quote(mjpeg_server.PASSWORD, safe='')}@"
# Opens each address in turn with standard error in memory, as the worker has it; prints what it is told.
TELL = """
import json, os, sys, time
os.dup2(os.memfd_create("stderr"), 2)
from edge_runner.camera.rtsp import LowerEdge
from edge_runner.camera.stream import Stream, StreamConfig
from edge_runner.errors import CameraError
from lab.servers import age_ms
LowerEdge.STILL_S = 1.0
told = []
for url in sys.argv[2:]:
    camera = Stream(StreamConfig(url=url))
    try:
        with camera:
            for _ in range(int(sys.argv[1])):
                grab = camera.grab()
                picture = grab.decode(None)
                grab.release()
        told.append("went on" if age_ms(picture, time.monotonic_ns()) < 1500 else "went on with old pictures")
    except CameraError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def camera(url: str, **settings: Any) -> Stream:
    return Stream(StreamConfig(url=url, **settings))


def take(subject: Stream) -> tuple[Grab, Picture]:
    """The next frame that is converted; its buffer is given back."""
    while True:
        grab = subject.grab()
        assert grab is not None
        picture = grab.decode(None)
        grab.release()
        if picture is not None:
            return grab, picture


def pictures(url: str, count: int, **settings: Any) -> list[Picture]:
    with camera(url, **settings) as subject:
        return [take(subject)[1] for _ in range(count)]


def read(subject: Stream, count: int = 1000) -> None:
    for _ in range(count):
        subject.grab()


def error_of(url: str, grabs: int = 1, **settings: Any) -> str:
    with pytest.raises(CameraError) as caught, camera(url, **settings) as subject:
        read(subject, grabs)
    message = str(caught.value)
    assert "\n" not in message
    assert mjpeg_server.PASSWORD not in message
    assert quote(mjpeg_server.PASSWORD, safe="") not in message
    return message


def colours(picture: Picture, away: int) -> None:
    """The bars are those of the server, in blue, green, red."""
    width = picture.shape[1]
    seen = picture[10, [width * (2 * bar + 1) // 16 for bar in range(8)]].astype(int)
    assert np.abs(seen - np.array(mjpeg_server.BARS)).max() <= away


@pytest.fixture(scope="module")
def mjpeg() -> Iterator[servers.Server]:
    with servers.mjpeg() as server:
        yield server


@pytest.fixture(scope="module")
def rtsp() -> Iterator[servers.Server]:
    need_rtsp()
    with servers.rtsp("--fps", 30) as server:
        yield server


def need_rtsp() -> None:
    if missing := servers.rtsp_missing():
        pytest.skip(f"this needs {missing}")


# The address


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "ftp://user:secret@host/x",
            "ftp:// is no stream that can be read; there are rtsp://, rtsps://, http:// or https://",
        ),
        ("secret@host/stream", "no scheme"),
        ("user:secret@host/stream", "no scheme"),
        ("rtsp:///stream", "no host"),
        ("rtsp://user:se#cret@host/", "%23"),
        ("http://user:se/cret@host/", "%2F"),
        ("http://user:se@cret@host/", "%40"),
        ("http://host:70000/", "port"),
        ("http://user:secret@host/a stream", "%20"),
        ("http://user:secrét@host/", "ASCII"),
    ],
)
def test_bad_addresses(url: str, why: str) -> None:
    """An address that no camera can have is a mistake in the configuration, told without what may be a password."""
    with pytest.raises(SettingError) as caught:
        camera(url).verify()
    assert caught.value.key == "url"
    assert why in str(caught.value)
    assert "cret" not in str(caught.value)
    with pytest.raises(SettingError):
        camera(url).open()


def test_good_addresses() -> None:
    for url in ("rtsp://h", "rtsps://u:p%40@h:322/a", "http://[::1]:80/x?a=b", "HTTPS://u@h/"):
        camera(url).verify()


def test_shown_without_secrets() -> None:
    """Neither the user nor the query, where cameras put passwords too, is ever shown."""
    assert shown("rtsp://user:secret@host:554/a/b") == "rtsp://host:554/a/b"
    assert shown("http://host/video.cgi?user=u&pwd=secret#secret") == "http://host/video.cgi?…"


# HTTP


def test_http_stream(mjpeg: servers.Server, nothing_left: None) -> None:
    """Frames come one by one, in true colours, numbered, and stamped with the moment of their arrival."""
    with camera(f"{mjpeg.url}/stream?size=320x240&fps=30") as subject:
        assert subject.describe() == f"{mjpeg.url}/stream?…, MJPEG 320x240"
        taken = [take(subject) for _ in range(5)]
    for number, (grab, picture) in enumerate(taken, 1):
        assert grab.stamp.number == number
        assert picture.shape == (240, 320, 3)
        colours(picture, 40)
        assert abs((time.time_ns() - grab.stamp.time_ns) - (time.monotonic_ns() - grab.stamp.monotonic_ns)) < 10e9
    ages_ms = [servers.age_ms(picture, grab.stamp.monotonic_ns) for grab, picture in taken]
    assert 0 <= min(ages_ms) < 30
    stamps = [grab.stamp.monotonic_ns for grab, _ in taken]
    assert stamps == sorted(set(stamps))


def test_http_ways_to_write_it(mjpeg: servers.Server) -> None:
    """With and without lengths, boundaries with blanks and dashes, no boundary at all, and at another address than given."""
    for path in ("nolength", "bare", "moved", "stream?size=64x48"):
        first, second = pictures(f"{mjpeg.url}/{path}", 2)
        colours(second, 80)
        assert servers.shown_ms(first) < servers.shown_ms(second)


@pytest.mark.parametrize("path", ["basic", "digest"])
def test_http_login(mjpeg: servers.Server, path: str) -> None:
    """User and password, percent-encoded in the address, are given in the way that the camera asks for."""
    pictures(f"http://{LOGIN}{mjpeg.address}/{path}", 1)
    assert "401 Unauthorized: it wants a user and a password" in error_of(f"{mjpeg.url}/{path}")
    assert "401 Unauthorized: user or password are wrong" in error_of(f"http://user:wrong@{mjpeg.address}/{path}")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing", "404 Not Found: there is no stream of this name"),
        ("forbidden", "403 Forbidden"),
        ("busy", "503 Service Unavailable"),
        ("round", "302 Found: it leads on"),
        ("single", "a single picture (image/jpeg), no stream"),
        ("html", "a web page (text/html), no stream"),
        ("garbage", "which began with b'garbage garb"),
        ("nohttp", "the answer is no HTTP"),
        ("empty", "the camera ended the stream"),
    ],
)
def test_http_refusals(mjpeg: servers.Server, path: str, why: str) -> None:
    """Each way to fail has its own line, with the address but without the password in it."""
    message = error_of(f"http://{LOGIN}{mjpeg.address}/{path}")
    assert message.startswith(f"{mjpeg.url}/{path}: ")
    assert why in message


def test_http_no_server(mjpeg: servers.Server) -> None:
    """A port where nobody listens, a name that nobody has, and a server that speaks no TLS."""
    with servers.mjpeg() as gone:
        pass
    assert "connection refused: nothing answers at this port" in error_of(f"{gone.url}/stream")
    assert "the name nobody.invalid is not known" in error_of("http://nobody.invalid/stream")
    assert "no secure connection" in error_of(f"https://{mjpeg.address}/stream")


def test_http_no_answer(mjpeg: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing is given up on."""
    monkeypatch.setattr("edge_runner.camera.http.CONNECT_S", 0.3)
    assert "no answer within 0.3 s" in error_of(f"{mjpeg.url}/silent")


def test_http_breaks(mjpeg: servers.Server) -> None:
    """A stream that ends, or stands still, is an error of its own."""
    assert "the camera ended the stream" in error_of(f"{mjpeg.url}/dies?after=3&fps=100", 4)
    assert "no data for 0.3 s" in error_of(f"{mjpeg.url}/hangs?after=3&fps=100", 4, stall_timeout=0.3)


def test_http_torn_frames(mjpeg: servers.Server) -> None:
    """Frames without an end are left out, and counted among the camera's."""
    with camera(f"{mjpeg.url}/cut?fps=100") as subject:
        taken = [take(subject) for _ in range(4)]
        assert subject.torn in (3, 4)
    assert [grab.stamp.number for grab, _ in taken] == [1, 3, 5, 7]
    for _, picture in taken:
        colours(picture, 40)


def test_http_size_changes(mjpeg: servers.Server) -> None:
    assert [p.shape for p in pictures(f"{mjpeg.url}/resize?after=2&fps=100", 4)] == [(240, 320, 3)] * 2 + [
        (360, 480, 3)
    ] * 2


def test_http_same_frames_are_seen(mjpeg: servers.Server) -> None:
    """Only of a picture that stands still do the fingerprints stay."""
    for path, different in (("frozen", 1), ("stream", 4)):
        with camera(f"{mjpeg.url}/{path}?fps=100") as subject:
            grabs = [subject.grab() for _ in range(4)]
        assert len({grab.fingerprint() for grab in grabs if grab}) == different


def test_http_interrupt(mjpeg: servers.Server, nothing_left: None) -> None:
    """A grab that waits ends at once when no more frames are wanted."""
    ended: list[Grab | None] = []
    with camera(f"{mjpeg.url}/hangs?after=1", stall_timeout=3600.0) as subject:
        subject.grab()
        thread = threading.Thread(target=lambda: ended.append(subject.grab()))
        thread.start()
        time.sleep(0.1)
        subject.interrupt()
        thread.join(60)
    assert ended == [None]


def test_http_server_restarts() -> None:
    """A killed server ends the stream; a camera made anew reads the next one, at the same address."""
    with servers.mjpeg() as server:
        url = f"{server.url}/stream?fps=100"
        with camera(url) as subject:
            take(subject)
            server.kill()
            with pytest.raises(CameraError, match=r"ended the stream|closed the connection"):
                read(subject)
        server.start()
        colours(pictures(url, 1)[0], 40)


def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate has to be one that the system trusts."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    pem = tmp_path / "camera.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(tmp_path / "key"),
        "-out",
        str(pem),
    ]
    subject = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "key").read_text())
    with servers.mjpeg("--certificate", pem, scheme="https") as server:
        assert "certificate is not trusted" in error_of(f"{server.url}/stream")
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        colours(pictures(f"{server.url}/stream", 2)[1], 40)


# RTSP


def test_rtsp_stream(rtsp: servers.Server, nothing_left: None) -> None:
    """The first frame is a new one, the burst before it is only counted; frames are whole, numbered, and in true colours."""
    with camera(f"{rtsp.url}/h264") as subject:
        assert subject.describe().startswith(f"{rtsp.url}/h264, h264 320x240 at ")
        assert subject.describe().endswith(" a second over tcp")
        taken = [take(subject) for _ in range(5)]
    first = taken[0][0].stamp.number
    assert first > 10
    for number, (grab, picture) in enumerate(taken, first):
        assert grab.stamp.number == number
        assert picture.shape == (240, 320, 3)
        colours(picture, 12)
        assert abs((time.time_ns() - grab.stamp.time_ns) - (time.monotonic_ns() - grab.stamp.monotonic_ns)) < 10e9
    assert 0 <= min(servers.age_ms(picture, grab.stamp.monotonic_ns) for grab, picture in taken) < 300


def test_rtsp_backlog(rtsp: servers.Server) -> None:
    """Frames that had to queue are as old as they are, though they come only now."""
    with camera(f"{rtsp.url}/h264") as subject:
        way_ms = min(
            servers.age_ms(picture, grab.stamp.monotonic_ns) for grab, picture in (take(subject) for _ in range(5))
        )
        time.sleep(1)
        ages_ms = []
        for _ in range(5):
            grab, picture = take(subject)
            assert time.monotonic_ns() - grab.stamp.monotonic_ns > 0.5 * SECOND_NS
            ages_ms.append(servers.age_ms(picture, grab.stamp.monotonic_ns))
        assert min(abs(age_ms - way_ms) for age_ms in ages_ms) < 60


@pytest.mark.parametrize(("path", "transport", "codec"), [("h264", "udp", "h264"), ("mjpeg", "tcp", "mjpg")])
def test_rtsp_other_ways(rtsp: servers.Server, path: str, transport: Any, codec: str) -> None:
    """UDP as well, and motion JPEG."""
    with camera(f"{rtsp.url}/{path}", transport=transport) as subject:
        assert f", {codec} 320x240 at " in subject.describe()
        assert subject.describe().endswith(f"over {transport}")
        taken = [take(subject) for _ in range(5)]
    colours(taken[0][1], 30)
    assert min(servers.age_ms(picture, grab.stamp.monotonic_ns) for grab, picture in taken) < 300


def test_rtsp_converts_what_is_wanted(rtsp: servers.Server) -> None:
    """Until shortly before a frame is due, one a second is converted; it never takes more than its buffers."""
    with camera(f"{rtsp.url}/h264") as subject:
        subject.due_ns = time.monotonic_ns() + 100 * SECOND_NS
        grabs = [grab for grab in (subject.grab() for _ in range(45)) if grab]
        converted = [grab for grab in grabs if grab.decode(None) is not None]
        assert 1 <= len(converted) <= 5
        assert [grab.fingerprint() is not None for grab in grabs] == [grab in converted for grab in grabs]
        for grab in grabs:
            grab.release()
        subject.due_ns = 0
        held = [grab for grab in (subject.grab() for _ in range(BUFFERS + 2)) if grab]
        seen = [grab.decode(None) is not None for grab in held]
        assert seen == [True] * BUFFERS + [False] * 2
        kept = held[0].decode(None)
        assert kept is not None
        assert held[0].decode(kept) is kept
        assert len({grab.fingerprint() for grab in held[:BUFFERS]}) == BUFFERS
        held[1].release()
        subject.due_ns = time.monotonic_ns() + SECOND_NS // 100
        assert take(subject)[1].shape == kept.shape


def test_rtsp_server_restarts() -> None:
    """A killed server ends the stream; a camera made anew reads the next one, at the same address."""
    need_rtsp()
    with servers.rtsp("--fps", 30) as server:
        with camera(f"{server.url}/mjpeg") as subject:
            take(subject)
            server.kill()
            with pytest.raises(CameraError, match="ended the stream"):
                read(subject)
        server.start()
        colours(pictures(f"{server.url}/mjpeg", 1)[0], 30)


def tell(grabs: int, *urls: str) -> list[str]:
    command = [sys.executable, "-c", TELL, str(grabs), *urls]
    paths = os.pathsep.join(map(str, (ROOT / "tests", ROOT)))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stdout
    told: list[str] = json.loads(done.stdout)
    return told


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
def test_rtsp_refusals(rtsp: servers.Server) -> None:
    """FFmpeg's reason is told, in one line, without the password that the address holds."""
    with servers.rtsp("--login") as private:
        missing, wanted, wrong, right, nobody = tell(
            1,
            f"{rtsp.url}/missing",
            f"{private.url}/h264",
            f"rtsp://user:wr%6Fng@{private.address}/h264",
            f"rtsp://user:pa%20ss@{private.address}/h264",
            "rtsp://user:wr%6Fng@nobody.invalid/",
        )
    [refused] = tell(1, f"rtsp://user:wr%6Fng@{private.address}/h264")
    assert missing.startswith(f"{rtsp.url}/missing: 404 Not Found: there is no stream of this name")
    assert wanted.startswith(f"{private.url}/h264: 401 Unauthorized: it wants a user and a password")
    assert wrong == f"{private.url}/h264: 401 Unauthorized: user or password are wrong"
    assert right.startswith("went on")
    assert nobody.startswith("rtsp://nobody.invalid/: the name nobody.invalid is not known")
    assert refused.startswith(f"{private.url}/h264: connection refused: nothing answers at this port")


def test_rtsp_refused_without_a_file(rtsp: servers.Server, capfd: pytest.CaptureFixture[str]) -> None:
    """Where FFmpeg's words cannot be read, it says what it knows."""
    read, write = os.pipe()
    kept = os.dup(2)
    os.dup2(write, 2)
    try:
        assert error_of(f"{rtsp.url}/missing") == f"{rtsp.url}/missing: it cannot be opened"
    finally:
        os.dup2(kept, 2)
        for descriptor in (read, write, kept):
            os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
@pytest.mark.parametrize("sizes", [("320x240", "480x360"), ("480x360", "320x240")])
def test_rtsp_size_changes(sizes: tuple[str, str]) -> None:
    """Where OpenCV cannot follow a new size, the camera says so, to be opened again; nobody gets garbled pictures for long."""
    need_rtsp()
    with servers.rtsp(
        "--size", sizes[0], "--then", sizes[1], "--after", 2.5, "--fps", 30, "--key-seconds", 0.3
    ) as server:
        [told] = tell(150, f"{server.url}/h264")
    assert told in ("went on", f"{server.url}/h264: the size of its pictures has changed")


# What it is made of


def test_clock_sees_a_backlog() -> None:
    """The frame that came fastest is the measure; none is captured after it arrived."""
    clock = StreamClock()
    for n in range(1, 100):
        assert clock.captured_ns(n * SECOND_NS + 5 * 10**6, n * SECOND_NS) == n * SECOND_NS + 5 * 10**6
    assert clock.captured_ns(102 * SECOND_NS, 100 * SECOND_NS) == 100 * SECOND_NS + 5 * 10**6
    assert clock.captured_ns(102 * SECOND_NS + 1, 102 * SECOND_NS) == 102 * SECOND_NS + 1


def test_clock_follows_drift() -> None:
    """A camera's clock that is slow by 200 millionths costs milliseconds, for ever."""
    clock = StreamClock()
    for n in range(1, 5000):
        arrived_ns = n * SECOND_NS
        assert 0 <= arrived_ns - clock.captured_ns(arrived_ns, arrived_ns * (1 - 200e-6)) < 20e6


def test_clock_that_is_no_clock() -> None:
    """One that runs a fifth too slow is not believed for long; one that stands still or says nothing, never."""
    clock = StreamClock()
    ages = [n * SECOND_NS - clock.captured_ns(n * SECOND_NS, n * 0.8 * SECOND_NS) for n in range(1, 300)]
    assert max(ages) < 15 * SECOND_NS
    assert ages[120:] == [0] * len(ages[120:])
    for pts_ns in (0.0, -5.0, float("nan"), float("inf")):
        assert clock.captured_ns(10**12, pts_ns) == 10**12


@pytest.mark.parametrize("jump_s", [-50, 50, 3600])
def test_clock_that_jumps(jump_s: int) -> None:
    """After a jump or a reset it starts again."""
    clock = StreamClock()
    for n in range(100, 120):
        clock.captured_ns(n * SECOND_NS, n * SECOND_NS)
    for n in range(120, 300):
        assert clock.captured_ns(n * SECOND_NS, (n + jump_s) * SECOND_NS) == n * SECOND_NS


def test_lower_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What used to change and stands still beneath a moving picture was left behind; a still scene or a black edge was not."""
    now = [0.0]
    monkeypatch.setattr("edge_runner.camera.rtsp.time.monotonic", lambda: now[0])
    noise = np.random.default_rng(1)

    def seen(*parts: tuple[bool, bool]) -> bool:
        edge, picture, told = LowerEdge(), np.zeros((64, 64, 3), np.uint8), []
        for rest_moves, edge_moves in parts:
            now[0] += 1
            if rest_moves:
                picture[:40] = noise.integers(0, 256, (40, 64, 3))
            if edge_moves:
                picture[40:] = noise.integers(0, 256, (24, 64, 3))
            told.append(edge.left_behind(picture))
        return any(told)

    moves, stays, left_behind = (True, True), (False, False), (True, False)
    assert seen(*[moves] * 10, *[left_behind] * 6)
    assert not seen(*[moves] * 10, *[left_behind] * 2, *[moves] * 5, *[left_behind] * 2)
    assert not seen(*[moves] * 10, *[stays] * 100)
    assert not seen(*[left_behind] * 100)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg is told the transport, what a user has set comes after that, and afterwards all is as it was."""
    monkeypatch.setenv("OPENCV_FFMPEG_DEBUG", "1")
    monkeypatch.delenv("OPENCV_FFMPEG_THREADS", raising=False)
    before = dict(os.environ)
    with environment("udp") as transport:
        assert transport == "udp"
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"
        assert os.environ["OPENCV_FFMPEG_THREADS"] == "1"
        assert "OPENCV_FFMPEG_DEBUG" not in os.environ
    assert dict(os.environ) == before
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "stimeout;5|rtsp_transport;udp_multicast")
    with environment("tcp") as transport:
        assert transport == "udp_multicast"
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"].startswith("rtsp_transport;tcp|stimeout;5|")


@pytest.mark.parametrize("secret", ["hunter2", "hunter%32"])
def test_reason_keeps_secrets(secret: str) -> None:
    """Whatever FFmpeg writes, neither user nor password are repeated, encoded or not."""
    url = f"rtsp://user:{secret}@host/a"
    for line in (f"cannot open {url}", f"bad password {secret}", "bad password hunter2", "hunter2 of user: no"):
        said = reason(f"[rtsp @ 0x55d0] {line}\n", url, late=False)
        assert "hunter" not in said
    assert reason("[rtsp @ 0x55d0] method SETUP failed: 461 Unsupported transport\n", url, late=False).startswith(
        "461 Unsupp"
    )
    assert reason("[ WARN:0@1.2] global cap.cpp:215 open\n", url, late=True).startswith("no answer within")
