"""The command line, as real processes: verbs, exit codes, and one line for each failure."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runner import __version__, arguments, cli

Run = Callable[..., subprocess.CompletedProcess[str]]

# Every verb, and the test file that holds its tests.
VERBS = {
    "run": "service/test_daemon.py",
    "check": "tools/test_check.py",
    "snapshot": "tools/test_snapshot.py",
    "doctor": "tools/test_doctor.py",
    "init": "tools/test_init.py",
    "inspect": "tools/test_inspect.py",
    "model": "tools/test_models.py",
    "results": "tools/test_results.py",
}


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The error's line of a command that failed as it should: the last one, the only one, without a traceback."""
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("edge-runner: error: ")
    assert done.stderr.count("edge-runner: error: ") == 1
    assert "Traceback" not in done.stderr
    return last.removeprefix("edge-runner: error: ")


class TestHelp:
    def test_no_arguments(self, run_cli: Run) -> None:
        """Without arguments the usage is shown, and it is one error of usage."""
        done = run_cli()
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: edge-runner ")

    def test_help(self, run_cli: Run) -> None:
        """`--help` lists every verb, shows examples and tells the exit codes."""
        done = run_cli("--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert "examples:\n  edge-runner --config camera.yaml " in done.stdout
        assert all(f" {code} " in done.stdout.split("exit codes:")[1].replace(":", "") for code in (0, 1, 2, 69, 78))

    def test_every_verb_is_tested(self, run_cli: Run) -> None:
        """The verbs of `--help` are those of the table above, and each has its tests."""
        listed = re.findall(r"^    ([a-z]+)  ", run_cli("--help").stdout, re.MULTILINE)
        assert listed == list(VERBS)
        assert all((Path(__file__).parent / name).is_file() for name in VERBS.values())

    @pytest.mark.parametrize("verb", VERBS)
    def test_help_of_a_verb(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Each verb explains itself."""
        with pytest.raises(SystemExit) as caught:
            cli.main([verb, "--help"])
        assert caught.value.code == 0
        assert f"usage: edge-runner {verb} " in capsys.readouterr().out

    def test_examples_can_be_parsed(self) -> None:
        """Every example of `--help` is a command that is understood."""
        examples = re.findall(r"^  edge-runner (.*?)(?:   .*)?$", arguments.EXAMPLES, re.MULTILINE)
        assert len(examples) >= 5
        for example in examples:
            words = example.split()
            words = words if words[0] in VERBS else ["run", *words]
            assert callable(arguments.parser(cli.VERBS).parse_args(words).verb)

    def test_version(self, run_cli: Run) -> None:
        """`--version` says the package's version."""
        done = run_cli("--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"edge-runner {__version__}\n", "")

    def test_console_script(self) -> None:
        """The command `edge-runner` is the same as the module."""
        script = Path(sys.executable).with_name("edge-runner")
        if not script.exists():
            pytest.skip("not installed here")
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"edge-runner {__version__}\n")


class TestRun:
    def test_without_a_verb(self, run_cli: Run, configure: Any, colours: Path) -> None:
        """`edge-runner --config X` is `edge-runner run --config X`: exit 0 and the same results, but for times and the run."""
        path = configure(camera={"type": "images", "path": "colours"})
        found = []
        for verb in ([], ["run"]):
            done = run_cli(*verb, "--config", path)
            assert done.returncode == 0
            results = [json.loads(line) for line in done.stdout.splitlines()]
            found.append([[r["seq"], r["source"], r["classifications"], list(r)] for r in results])
        assert found[0] == found[1]
        assert [source for _, source, *_ in found[0]] == ["1.png", "2.png", "3.png"]

    def test_other_options_first(self, run_cli: Run, configure: Any, colours: Path) -> None:
        """Options in any order mean `run`; --set goes over the file."""
        done = run_cli(
            "--set", "camera.type=images", "--once", "--set", "camera.path=colours/3.png", "--config", configure()
        )
        assert done.returncode == 0, done.stderr
        [line] = done.stdout.splitlines()
        assert json.loads(line)["classifications"][0]["label"] == "blue"

    def test_from_anywhere(self, run_cli: Run, configure: Any, colours: Path, tmp_path: Path) -> None:
        """Paths in a configuration are relative to it, wherever the command is run."""
        path = configure(camera={"type": "images", "path": "colours"}, outputs=[{"type": "jsonl", "path": "out.jsonl"}])
        done = run_cli("--config", path, cwd="/")
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3

    def test_libraries_are_quiet(self, run_cli: Run, configure: Any, colours: Path) -> None:
        """Standard error has the product's own lines only, also where OpenCV and the interpreter would write some."""
        (colours / "4.png").write_bytes((colours / "1.png").read_bytes()[:60])
        done = run_cli("--config", configure(camera={"type": "images", "path": "colours"}))
        assert done.returncode == 0
        said = [line.split(": ") for line in done.stderr.splitlines()]
        assert [words[:2] for words in said if words[2:3] != ["health"]] == [  # which is told after a second
            ["edge-runner", "warning"], ["edge-runner", "info"],
        ]  # fmt: skip

    def test_closed_descriptors(self, run_cli: Run, configure: Any, colours: Path, tmp_path: Path) -> None:
        """Started without standard streams, results still go where they should, and nowhere else."""
        path = configure(camera={"type": "images", "path": "colours"}, outputs=[{"type": "jsonl", "path": "out.jsonl"}])
        command = f"{sys.executable} -m edge_runner --config {path} <&- >&- 2>&-"
        assert subprocess.run(["sh", "-c", command], check=False, cwd=tmp_path).returncode == 0
        assert [json.loads(line)["seq"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [1, 2, 3]

    def test_name_that_is_no_text(self, run_cli: Run, configure: Any, colours: Path) -> None:
        """A file's name that is not UTF-8 is no reason to stop."""
        os.rename(colours / "2.png", os.fsencode(colours) + b"/2 caf\xe9.png")
        done = run_cli("--config", configure(camera={"type": "images", "path": "colours"}))
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == ["1.png", "2 caf?.png", "3.png"]


class TestFailures:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["nonsense"],
            ["run"],
            ["run", "--config"],
            ["run", "--config", "camera.yaml", "--nonsense"],
            ["--nonsense"],
            ["snapshot", "--config", "camera.yaml"],
            ["inspect"],
        ],
    )
    def test_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong command line is exit 2, with where to find help."""
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        done = subprocess.CompletedProcess(arguments, int(caught.value.code or 0), *capsys.readouterr())
        assert "--help" in failed(done, 2)

    def test_usage_of_a_process(self, run_cli: Run) -> None:
        """The process, too, exits with 2."""
        failed(run_cli("nonsense"), 2)

    def test_configuration(self, run_cli: Run, configure: Any) -> None:
        """A wrong configuration is 78: a line for each mistake with file, line and key, then their number."""
        path = configure(camera={"type": "pattern", "widht": 3, "fps": -1}, nonsense=1)
        done = run_cli("--config", path)
        assert failed(done, 78) == "3 mistakes in the configuration"
        mistakes = done.stderr.splitlines()[:-1]
        assert [re.sub(r":\d+:", ":N:", m).split(": ")[:2] for m in mistakes] == [
            [f"{path}:N", "camera.widht"], [f"{path}:N", "camera.fps"], [f"{path}:N", "nonsense"],
        ]  # fmt: skip

    def test_configuration_that_is_not_there(self, run_cli: Run) -> None:
        """A missing file is named."""
        done = run_cli("--config", "nowhere.yaml")
        assert failed(done, 78) == "1 mistake in the configuration"
        assert done.stderr.startswith("nowhere.yaml: no such file or directory\n")

    def test_model(self, run_cli: Run, configure: Any, tmp_path: Path) -> None:
        """A file that is no model is 78, at the key's place."""
        (tmp_path / "m.tflite").write_text("this is no model")
        path = configure(model={"path": "m.tflite"})
        assert re.match(
            rf"{path}:\d+: model.path: .*m\.tflite is not a \.tflite file", failed(run_cli("--config", path), 78)
        )

    def test_broken_runtime(self, run_cli: Run, configure: Any, tmp_path: Path) -> None:
        """An interpreter that cannot be imported is 78, with the reason, at the key that chooses it."""
        package = next(name for name in ("tflite_runtime", "ai_edge_litert") if importlib.util.find_spec(name))
        (tmp_path / "site" / package).mkdir(parents=True)
        (tmp_path / "site" / package / "__init__.py").write_text("raise ImportError('not for this processor')")
        env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{Path(cli.__file__).parents[1]}"}
        wanted = f"model.runtime={package.replace('_', '-')}"
        message = failed(run_cli("--config", configure(), "--set", wanted, env=env), 78)
        assert "model.runtime" in message
        assert "not for this processor" in message

    def test_no_frame(self, run_cli: Run, configure: Any, tmp_path: Path) -> None:
        """`--once` without a frame within `start_timeout` is 69."""
        stuck = tmp_path / "stuck.jpg"
        os.mkfifo(stuck)  # whoever reads it waits, as before a camera that hangs
        path = configure(camera={"type": "images", "path": "stuck.jpg", "start_timeout": "200ms"})

        def let_go() -> None:
            with stuck.open("wb"):  # once somebody reads it
                time.sleep(2.0)

        late = threading.Thread(target=let_go, daemon=True)
        late.start()
        message = failed(run_cli("--once", "--config", path), 69)
        late.join(60)
        assert re.fullmatch(rf"{path}:\d+: camera\.start_timeout: no frame within 0\.2 s: it does not answer", message)

    def test_failed_while_running(self, run_cli: Run, configure: Any, colours: Path) -> None:
        """Lost results are 1, with `--once` too."""
        path = configure(camera={"type": "images", "path": "colours"}, outputs=[{"type": "jsonl", "path": "/dev/full"}])
        assert failed(run_cli("--config", path), 1) == "results were lost: 3 at outputs.0"
        assert failed(run_cli("--config", path, "--once"), 1) == "results were lost: 1 at outputs.0"

    def test_unexpected(
        self, configure: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A bug, too, ends with one line, that says how to see more."""

        def broken(_: object) -> int:
            raise ZeroDivisionError("two\nlines")

        monkeypatch.setitem(cli.VERBS, "check", broken)
        code = cli.main(["check", "--config", str(configure())])
        done = subprocess.CompletedProcess([], code, *capsys.readouterr())
        assert failed(done, 1) == "unexpected ZeroDivisionError: two lines; run it with --debug for the traceback"

    def test_debug_shows_the_traceback(self, run_cli: Run, configure: Any, tmp_path: Path) -> None:
        """With --debug there is a traceback, and the one line still comes last."""
        (tmp_path / "m.tflite").write_text("this is no model")
        path = configure(model={"path": "m.tflite"})
        done = run_cli("run", "--debug", "--config", path)
        assert done.returncode == 78
        assert done.stderr.count("Traceback (most recent call last)") >= 1
        assert done.stderr.splitlines()[-1].startswith("edge-runner: error: ")
        assert done.stderr.count("edge-runner: error: ") == 1

    def test_full_standard_output(self, run_cli: Run, configure: Any) -> None:
        """What cannot be printed makes a command fail, not succeed."""
        with open("/dev/full", "w") as full:
            assert "No space left on device" in failed(run_cli("check", "--config", configure(), stdout=full), 1)

    @pytest.mark.parametrize("camera", ["locked/pictures", "locked/*.png"])
    def test_locked_pictures(self, run_cli: Run, configure: Any, lock: Any, tmp_path: Path, camera: str) -> None:
        """Pictures in a folder that this user may not look into are a wrong setting."""
        (tmp_path / "locked").mkdir()
        prefix = lock(tmp_path / "locked")
        if os.getuid() == 0:
            os.chown(tmp_path / "locked", 65534, 65534)
        done = run_cli("check", "--config", configure(camera={"type": "images", "path": camera}), prefix=prefix)
        failed(done, 78)
        assert "camera.path" in done.stderr


def test_secrets_stay_secret(run_cli: Run, configure: Any, tmp_path: Path) -> None:
    """What a variable held is not in any message, with --debug neither."""
    (tmp_path / "camera.env").write_text("SECRET=swordfish\n")
    path = configure(camera={"type": "pattern", "fps": "${SECRET}"}, device="${SECRET}")
    for words in (["run"], ["check", "--debug"]):
        done = run_cli(*words, "--config", path)
        assert done.returncode == 78
        assert "camera.fps: got '${SECRET}'" in done.stderr
        assert "swordfish" not in done.stderr + done.stdout


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file and folder below: its content's hash, and when it was changed."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.stat().st_mtime_ns)
        for path in sorted([folder, *folder.rglob("*")])
    }


@pytest.mark.parametrize("verb", [["check", "--config", "camera.yaml"], ["inspect", "model.tflite"]])
def test_writes_nothing(
    run_cli: Run, configure: Any, colours: Path, tmp_path: Path, data: Path, verb: list[str]
) -> None:
    """Commands that only look leave everything as it was, times included."""
    (tmp_path / "model.tflite").write_bytes((data / "labelled.tflite").read_bytes())
    (tmp_path / "torn.jsonl").write_text('{"seq": 1}\n{"se')
    configure(
        camera={"type": "images", "path": "colours"},
        model={"path": "model.tflite"},
        outputs=[{"type": "jsonl", "path": path} for path in ("torn.jsonl", "new.jsonl", "folder/new.jsonl")],
    )
    before = tree(tmp_path)
    done = run_cli(*verb)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == before
