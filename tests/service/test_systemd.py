"""What systemd hears, over real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from lab.notified import Notified

from edge_runner.service.systemd import STAGE_S, STATUS_CHARACTERS, Systemd


@pytest.mark.parametrize("abstract", [True, False], ids=["abstract", "path"])
def test_everything_is_heard(tmp_path: Path, abstract: bool) -> None:
    """Each word of the service arrives as one datagram of its own, at a socket of either kind."""
    with Notified(None if abstract else tmp_path) as heard:
        subject = Systemd({"NOTIFY_SOCKET": heard.address})
        before_us = time.monotonic_ns() // 1000
        subject.stage("loading digits")
        subject.ready()
        subject.reloading()
        subject.alive()
        subject.status("running: 7.0 results/s")
        subject.watch_every(12.5)
        subject.stopping()
        subject.close()
        subject.alive()
        heard.wait_for("STOPPING")
        fields = [fields for _, fields in heard.said]
    reloading = fields.pop(2)
    assert fields == [
        {"STATUS": "starting: loading digits", "EXTEND_TIMEOUT_USEC": f"{STAGE_S * 1e6:.0f}"},
        {"READY": "1"},
        {"WATCHDOG": "1"},
        {"STATUS": "running: 7.0 results/s"},
        {"WATCHDOG_USEC": "12500000"},
        {"STOPPING": "1"},
    ]
    assert reloading["RELOADING"] == "1"
    assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert subject.watchdog_s == 12.5


def test_a_status_is_one_short_line() -> None:
    """Nothing that stands in a status can pass for another word of the service, and none is too long for a screen."""
    with Notified() as heard, closing(Systemd({"NOTIFY_SOCKET": heard.address})) as subject:
        subject.status("degraded: no frame\nREADY=1\tat\r all " + "é" * 2000)
        subject.status("surrogate \udcff")  # of a file's name that is not UTF-8
        heard.wait_for("STATUS", 1)
        [(_, first), (_, second)] = heard.said
    assert list(first) == ["STATUS"]
    assert first["STATUS"].startswith("degraded: no frame READY=1 at all éé")
    assert len(first["STATUS"]) == STATUS_CHARACTERS
    assert second == {"STATUS": "surrogate ?"}


@pytest.mark.usefixtures("nothing_left")
def test_without_systemd() -> None:
    """Where nobody listens nothing is opened, and nothing happens."""
    subject = Systemd({})
    subject.stage("")
    subject.ready()
    subject.watch_every(3)
    assert subject.watchdog_s == 3
    assert Systemd({"NOTIFY_SOCKET": ""}).watchdog_s is None


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-listens-here", "vsock:2:1234", "x" * 500])
def test_nobody_at_the_address(address: str) -> None:
    """A systemd that has gone, or that is spoken to otherwise, is no reason to fail."""
    with closing(Systemd({"NOTIFY_SOCKET": address})) as subject:
        subject.ready()
        subject.alive()


def test_a_systemd_that_does_not_read(tmp_path: Path) -> None:
    """One whose socket is full holds the daemon up in nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        with closing(Systemd({"NOTIFY_SOCKET": str(tmp_path / "deaf")})) as subject:
            for _ in range(5000):
                subject.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    """The interval is what sd_watchdog_enabled(3) says: the environment's, where it is meant for this process."""
    assert Systemd(environ).watchdog_s == seconds


def test_children_do_not_speak_for_the_service(tmp_path: Path) -> None:
    """The socket is not handed down to cameras and whatever else is started."""
    with Notified(tmp_path) as heard, closing(Systemd({"NOTIFY_SOCKET": heard.address})) as subject:
        subject.ready()
        script = "import os; print([os.path.realpath(f'/proc/self/fd/{number}') for number in range(3, 64)])"
        shown = subprocess.run(
            [sys.executable, "-c", script], close_fds=False, capture_output=True, text=True, check=True
        )
    assert "socket:" not in shown.stdout
