"""`edge-runner doctor`: the report, the command, and a Python that is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab import servers

from edge_runner import cli
from edge_runner.tools import doctor
from edge_runner.tools.doctor import Board, Finding, Part, ask


class TestFinding:
    def test_lines_on_a_phone(self) -> None:
        """Lines fit the terminal, the levels stand in one column, and a link is whole, however long."""
        link = "device: /dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_8F2C5E7F-video-index0"
        lines = Finding("problem", "words " * 20, (link, "a detail"), ("do this " * 10,)).lines(40)
        assert all(len(line) <= 40 for line in lines if "by-id" not in line)
        assert lines[0].startswith("problem  words")
        assert all(line.startswith(" " * 9) for line in lines[1:])
        assert any(line.endswith(link.split()[1]) for line in lines)
        assert [line[9:12] for line in lines if "do this" in line] == ["-> ", "   ", "   "]

    @pytest.mark.parametrize("level", ["ok", "warning", "problem"])
    def test_levels_are_aligned(self, level: Any) -> None:
        """What was found begins in the same column at each level."""
        assert Finding(level, "found").lines() == [f"{level:<9}found"]


class TestCommand:
    def test_cameras_of_a_configuration(self, run_cli: Any, configure: Any, colours: Path) -> None:
        """Streams, commands and files are tried, each on a line of its own; a problem is 1. No password is shown."""
        with servers.mjpeg() as server:
            cameras = {
                "door": {"type": "stream", "url": f"{server.url}/stream?size=320x240"},
                "gate": {"type": "stream", "url": f"http://me:swordfish@{server.address}/nowhere"},
                "tool": {
                    "type": "command",
                    "command": ["cat", "/dev/zero"],
                    "format": "bgr24",
                    "width": 64,
                    "height": 48,
                },
                "none": {"type": "command", "command": ["no-such-program"], "format": "mjpeg"},
                "files": {"type": "images", "path": "colours"},
            }
            path = configure(camera=None, cameras=cameras)
            done = run_cli("doctor", "--config", path)
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1] == "edge-runner: error: 2 problems found"
        whole = " ".join(done.stdout.split())
        assert "ok door (stream): a frame of 320x240 after " in whole
        assert "problem gate (stream): http://127.0.0.1:" in whole
        assert "ok tool (command): a frame of 64x48 after " in whole
        assert f"problem {path}:" in whole
        assert "cameras.none.command: no program 'no-such-program'" in whole
        assert "ok files (images): a frame of 30x20 after " in whole
        assert "swordfish" not in done.stdout + done.stderr
        assert "opening it again" not in done.stderr

    def test_rtsp(self, run_cli: Any, configure: Any) -> None:
        """An RTSP camera is tried."""
        if missing := servers.rtsp_missing():
            pytest.skip(missing)
        with servers.rtsp() as server:
            done = run_cli("doctor", "--config", configure(camera={"type": "stream", "url": f"{server.url}/h264"}))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ok       camera (stream): a frame of " in done.stdout

    def test_nothing_wrong(self, run_cli: Any, configure: Any) -> None:
        """Exit code 0, and the last line says so; --set goes over the configuration."""
        done = run_cli("doctor", "--config", configure(), "--set", "camera.width=80", "--set", "camera.name=door")
        assert done.returncode == 0, done.stderr
        assert "ok       door (pattern): a frame of 80x48 after " in done.stdout
        assert done.stdout.splitlines()[-1] == "nothing is wrong"

    def test_a_wrong_configuration(self, run_cli: Any, configure: Any) -> None:
        """What there is to say of the board is said all the same; then come the mistakes, and 78."""
        done = run_cli("doctor", "--config", configure(camera={"type": "pattern", "widht": 3}))
        assert done.returncode == 78
        assert done.stdout.startswith(("ok ", "warning ", "problem "))
        assert "camera.widht: unknown key" in done.stderr
        assert done.stderr.splitlines()[-1] == "edge-runner: error: 1 mistake in the configuration"

    def test_set_needs_a_configuration(self, run_cli: Any) -> None:
        """--set alone would change nothing."""
        done = run_cli("doctor", "--set", "camera.width=80")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("edge-runner: error: --set goes over a configuration")

    @pytest.mark.parametrize(
        ("levels", "code", "last"),
        [
            (["ok", "warning"], 0, ""),
            (["ok", "problem", "warning"], 1, "edge-runner: error: 1 problem found\n"),
            (["problem", "problem"], 1, "edge-runner: error: 2 problems found\n"),
        ],
    )
    def test_exit_codes(
        self,
        levels: list[Any],
        code: int,
        last: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """1 where anything is a problem; a warning is none."""
        monkeypatch.setattr(doctor, "examine", lambda board: (Finding(level, "found") for level in levels))
        assert cli.main(["doctor"]) == code
        out, err = capsys.readouterr()
        assert [line.split()[0] for line in out.splitlines()[: len(levels)]] == levels
        assert err == last

    def test_json(self, run_cli: Any, configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """One object for programs, with every finding and its remedies; no secret is in it."""
        monkeypatch.setenv("CAM_PASSWORD", "swordfish")
        camera = {"type": "stream", "url": "http://me:${CAM_PASSWORD}@127.0.0.1:9/x"}
        done = run_cli("doctor", "--json", "--config", configure(camera=camera))
        said = json.loads(done.stdout)
        assert done.returncode == 1
        assert sorted(said) == ["findings", "problems", "schema", "time", "warnings"]
        assert (said["schema"], len(said["time"]), said["time"][-1]) == (1, 20, "Z")
        assert all(list(f) == ["part", "level", "text", "details", "remedies"] for f in said["findings"])
        levels = [finding["level"] for finding in said["findings"]]
        assert (said["problems"], said["warnings"]) == (levels.count("problem"), levels.count("warning"))
        assert {"python", "packages", "board", "configuration", "model"} <= {f["part"] for f in said["findings"]}
        assert "swordfish" not in done.stdout + done.stderr

    def test_json_of_a_wrong_configuration(self, run_cli: Any, configure: Any) -> None:
        """Its mistakes are a finding; they end the command as ever."""
        done = run_cli("doctor", "--json", "--config", configure(camera={"type": "pattern", "widht": 3}))
        last = json.loads(done.stdout)["findings"][-1]
        assert done.returncode == 78
        assert (last["part"], last["level"]) == ("configuration", "problem")
        assert "camera.widht: unknown key" in last["details"][0]

    def test_json_where_nothing_is_wrong(self, run_cli: Any, configure: Any) -> None:
        """There is nothing but the object on standard output."""
        done = run_cli("doctor", "--json", "--config", configure())
        assert (done.returncode, json.loads(done.stdout)["problems"]) == (0, 0)

    def test_without_root(self, run_cli: Any) -> None:
        """Neither root's rights nor systemd are needed."""
        rights = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.getuid() == 0 else ()
        done = run_cli("doctor", "--json", prefix=rights)
        assert done.returncode in (0, 1), done.stderr
        findings = json.loads(done.stdout)["findings"]
        assert {"python", "packages", "board", "clock", "user", "cameras"} <= {f["part"] for f in findings}
        assert not [f["text"] for f in findings if "could not be examined" in f["text"]]


class TestParts:
    @pytest.fixture
    def part(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Put one part into the place of all."""

        def put(body: str, needs: Any = "") -> None:
            (tmp_path / "a_part.py").write_text(
                "from edge_runner.tools.doctor import Finding\n"
                "from edge_runner.errors import SettingError\n"
                f"def look(board):\n    yield Finding('ok', 'begun')\n    {body}\n"
            )
            monkeypatch.syspath_prepend(str(tmp_path))
            monkeypatch.delitem(sys.modules, "a_part", raising=False)
            monkeypatch.setattr(doctor, "PARTS", {"clock": Part("a_part:look", needs)})

        return put

    def test_can_be_added(self, board: Board, part: Any) -> None:
        """A part of the examination is a function in the table; its findings carry its name."""
        part("yield Finding('warning', 'the clock is wrong')")
        assert [(f.part, f.level, f.text) for f in doctor.examine(board)] == [
            ("clock", "ok", "begun"),
            ("clock", "warning", "the clock is wrong"),
        ]

    @pytest.mark.parametrize(
        ("body", "level", "text"),
        [
            ("raise ValueError('no sense')", "warning", "clock: could not be examined: ValueError: no sense"),
            ("import no_such_module", "warning", "clock: could not be examined: ModuleNotFoundError: No module"),
            ("raise SettingError('not so')", "problem", "clock: not so"),
        ],
    )
    def test_that_fail(self, board: Board, part: Any, body: str, level: str, text: str) -> None:
        """What one part cannot do is a finding, after those that it made."""
        part(body)
        first, second = doctor.examine(board)
        assert first.text == "begun"
        assert second.level == level
        assert second.text.startswith(text)

    @pytest.mark.parametrize("needs", ["packages", "configuration"])
    def test_without_packages(self, board: Board, part: Any, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What stands on a package that does not load is not even tried, and that is said."""
        part("", needs)
        monkeypatch.setattr(doctor, "unloadable", lambda: ["NumPy"])
        [finding] = doctor.examine(replace(board, named=True))
        assert (finding.level, finding.text) == ("warning", "not examined, without NumPy: clock")

    def test_without_a_configuration(self, board: Board, part: Any) -> None:
        """What is about the configuration has nothing to say where there is none."""
        part("", "configuration")
        assert list(doctor.examine(board)) == []

    def test_all_are_there(self) -> None:
        """Every row of the table leads to a function."""
        for row in doctor.PARTS.values():
            assert callable(doctor.load(row.place))


class TestAsk:
    def test_answers(self) -> None:
        """A program's words and its exit code, in plain English whatever the user's language is."""
        said = ask("sh", "-c", "echo $LC_ALL; echo no >&2; exit 3")
        assert said == doctor.Said(3, "C.UTF-8\n", "no\n")

    def test_takes_too_long(self) -> None:
        """One that hangs is not waited for."""
        assert ask("sleep", "60", limit_s=0.2) == doctor.Said(None, "", "")

    def test_is_not_there(self) -> None:
        assert ask("no-such-program") is None

    def test_a_signal(self) -> None:
        said = ask("sh", "-c", "kill -9 $$")
        assert said is not None
        assert said.code == -9


def test_light() -> None:
    """The module itself takes nothing but Python: it has to load where everything else is broken."""
    code = "import sys, edge_runner.cli, edge_runner.tools.doctor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "cv2", "yaml", "edge_runner.settings"} & set(done.stdout.split())
