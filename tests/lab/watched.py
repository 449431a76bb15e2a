"""The daemon as systemd runs it: watched over its notify socket, with folders of its own, by a test that asks how it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.board import children, read
from lab.notified import WITHIN_S, Notified, wait_until


class Watched:
    """A daemon that was started with `start` (the fixture start_cli). `words` has what it wrote to its log, a line each."""

    def __init__(
        self,
        start: Callable[..., subprocess.Popen[str]],
        folder: Path,
        config: Path,
        watchdog_s: float | None = None,
        environ: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.folder, self.runtime = folder, folder / "run"
        self.runtime.mkdir(exist_ok=True)
        self.systemd = Notified(folder, f"notify-{len(list(folder.glob('notify-*')))}").__enter__()
        own = {"NOTIFY_SOCKET": self.systemd.address, "RUNTIME_DIRECTORY": str(self.runtime)}
        if watchdog_s:
            own["WATCHDOG_USEC"] = f"{watchdog_s * 1e6:.0f}"
        whole = {**os.environ, **own, **(environ or {})}
        self.process = start("--config", config, env=whole, **{"stdout": subprocess.DEVNULL, **options})
        self.words: list[str] = []
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.systemd.__exit__()

    def _listen(self) -> None:
        assert self.process.stderr
        self.words.extend(iter(self.process.stderr.readline, ""))

    def said(self, words: str) -> list[str]:
        """The lines of its log with those words in them."""
        return [line.rstrip() for line in list(self.words) if words in line]

    def hears(self, words: str, times: int = 1) -> str:
        """Wait until its log has those words so often; return the last such line."""
        wait_until(lambda: len(self.said(words)) >= times or self.process.poll() is not None, self._tail)
        assert len(self.said(words)) >= times, self._tail()
        return self.said(words)[-1]

    def ready(self) -> Watched:
        wait_until(lambda: self.systemd.all("READY") or self.process.poll() is not None, self._tail)
        assert self.process.poll() is None, self._tail()
        return self

    def health(self) -> dict[str, Any]:
        """What health.json says; empty where there is none."""
        content = read(str(self.runtime / "health.json"))
        return json.loads(content) if content else {}

    def becomes(self, name: str, *codes: str) -> dict[str, Any]:
        """Wait until its health is that, for those reasons and no others; return all of it."""

        def holds() -> bool:
            now = self.health()
            return now.get("health") == name and [reason.split(":")[0] for reason in now["reasons"]] == [*codes]

        wait_until(holds, lambda: f"{self.health()}\n{self._tail()}")
        return self.health()

    def results(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """Those in a log, without a line that is being written."""
        lines = read(str(self.folder / name)).split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def goes_on(self, name: str = "out.jsonl", more: int = 5) -> dict[str, Any]:
        """Wait for results that are new; return the last of them."""
        before = len(self.results(name))
        wait_until(lambda: len(self.results(name)) >= before + more, self._tail)
        return self.results(name)[-1]

    def workers(self) -> list[int]:
        """The processes of its cameras."""
        pids = children(self.process.pid)
        return sorted(pid for pid in pids if "edge_runner.camera" in read(f"/proc/{pid}/cmdline"))

    def reload(self) -> str:
        """SIGHUP, and wait for what comes of it: a line of its log."""
        before = len(self._ends())
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self._ends()) > before or self.process.poll() is not None, self._tail)
        assert len(self._ends()) == before + 1, self._tail()
        return self._ends()[-1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(WITHIN_S)
        self._reader.join()
        return code

    def _ends(self) -> list[str]:
        return [line.rstrip() for line in list(self.words) if "reload: done; " in line or "; all goes on as" in line]

    def _tail(self) -> str:
        return "".join(self.words[-30:])
