"""A worker process from the outside: started by exec, talked to over a socket, and ended with all that it has started."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

from edge_runner.camera.shared import Block
from edge_runner.camera.worker import MESSAGE_BYTES, REFIT, Order
from edge_runner.frame import Prepare
from edge_runner.process import child_code, child_command, signal_name

WORKER = child_code("edge_runner.camera.worker", "worker.main()")
GRACE_S = 3.0  # for a worker that was told to end
FATE_S = 0.1  # until a process whose socket ended can be waited for


class Child:
    """One worker process. It leads a process group of its own, with whatever its camera may start; all of it ends together."""

    def __init__(self, order: Order, block: Block) -> None:
        """Start it. Raise OSError where this board cannot start another process."""
        self.started_at = time.monotonic()
        self.begun_at: float | None = None
        self.opened = False
        self.flowing_since: float | None = None
        self.logged = 0
        self.failed: str | None = None
        self.talks = True
        self.leaving = False
        self.kill_at = 0.0
        # Inherited, it would let the kernel reap the process, and nobody hear how it ended.
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with ExitStack() as undo:
            self._errors = os.memfd_create("edge-runner-stderr", os.MFD_CLOEXEC)
            undo.callback(os.close, self._errors)
            fcntl.fcntl(self._errors, fcntl.F_SETFL, os.O_APPEND)
            self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._link.close)
            with theirs:
                handed = (theirs.fileno(), *block.descriptors)
                self._link.setblocking(False)
                self._link.send(pickle.dumps(order))
                self._process = subprocess.Popen(
                    child_command(WORKER, *map(str, handed)),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=handed,
                    start_new_session=True,
                )
            undo.pop_all()

    def fileno(self) -> int:
        return self._link.fileno()

    def say(self, message: bytes) -> None:
        with suppress(ConnectionError):  # it has gone; the end of its socket says so as well
            self._link.send(message)

    def refit(self, prepare: Prepare) -> None:
        """From now on frames are prepared in another way."""
        self.say(REFIT + pickle.dumps(prepare))

    def messages(self) -> Iterator[dict[str, Any]]:
        """What has come from it; `talks` is false after the last."""
        while self.talks:
            try:
                data = self._link.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.talks = False
                return
            message: dict[str, Any] = json.loads(data)
            self.failed = message.get("failed", self.failed)
            yield message

    def fate(self) -> str:
        """Why its socket ended, in a few words."""
        until = time.monotonic() + FATE_S
        while (done := self._done()) is None and time.monotonic() < until:
            time.sleep(0.001)  # its descriptors are closed a moment before it can be waited for
        if done is None:
            return "its process broke off"
        if done.si_code == os.CLD_EXITED:
            return f"its process ended with {done.si_status}{self._last_words()}"
        return f"its process died of {signal_name(done.si_status)}{self._last_words()}"

    def end(self, *, kill: bool = False) -> None:
        """Let it close its camera and go, within GRACE_S; or kill it now."""
        self.leaving = True
        self.kill_at = time.monotonic() + (0.0 if kill else GRACE_S)
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self.talks = False
        self.gone()

    def gone(self) -> bool:
        """Whether all of it has ended and everything was given back. Kills what had its time."""
        if self._process.returncode is not None:
            return True
        done = self._done()
        if done is None and time.monotonic() < self.kill_at:
            return False
        # The process, not reaped yet, keeps its group's number from others.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if done is None:
            return False
        self._process.wait()
        self._link.close()
        os.close(self._errors)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has gone."""
        until = time.monotonic() + timeout_s
        while not self.gone():
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _done(self) -> os.waitid_result | None:
        """How it ended, without reaping it; None while it runs."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)

    def _last_words(self) -> str:
        """The last line that was written to its standard error, by Python or by a library."""
        size = os.fstat(self._errors).st_size
        text = os.pread(self._errors, 4096, max(0, size - 4096)).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""
