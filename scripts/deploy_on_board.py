"""What scripts/deploy.sh does on the board, as root, with Debian's own Python: installs what was brought, and starts the service.

What is there runs on until its successor was tried. Each step is whole or not done, so that a second run goes on from any of them.
"""

from __future__ import annotations

import argparse
import fcntl
import grp
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

USER = "edge-runner"
COMMAND = "/usr/local/bin/edge-runner"
CONFIGS, LOGS, STATES, RUNTIME = (Path(root, "edge-runner") for root in ("/etc", "/var/log", "/var/lib", "/run"))
DROP_INS, SHARE = Path("/etc/systemd/system"), Path("/opt/edge-runner/current/share/edge-runner")
PARTS = {"csi-camera.conf": r"""\btype["']?\s*:\s*["']?rpicam\b"""}
"""The unit's drop-ins, and what a configuration has that needs them."""
COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)
LOCK = Path("/run/edge-runner-deploy.lock")  # where only root may write
TAIL_BYTES = 1 << 20
ERROR = "edge-runner: error: "
START_S = 600.0  # a small board imports for a minute, and replays the goldens
RESULT_S = 90.0
PATIENCE_S = 10.0  # for a camera that does not come
RELOAD_BEGINS = "reload: SIGHUP", "reload: again"
RELOAD_DONE, RELOAD_REFUSED = "reload: done", "all goes on as before"
"""What the daemon says of it."""
DOWN = "camera_", "reload_failed", "model_fallback"
"""Reasons of its health for which there is no result, or none of the new model."""
EXIT_FAILED, EXIT_NO_FRAME, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 69, 78, 130


class Failed(Exception):
    """One line for the user, with what to do."""

    def __init__(self, words: str, code: int = EXIT_FAILED) -> None:
        super().__init__(words)
        self.code = code


def main() -> int:
    """Do it all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", type=Path, help="the folder of what was brought")
    parser.add_argument("--name", help="the service")
    parser.add_argument("--file", help="what its configuration is called on the workstation")
    parser.add_argument("--bundle", action="store_true", help="a model was brought")
    options = parser.parse_args()
    os.umask(0o022)  # folders above those that are made are for all to enter
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a line that is lost ends nothing half-way
    try:
        with only_one():
            deploy(options.stage, options.name, options.file, options.bundle)
    except Failed as error:
        say(f"{ERROR}{error}")
        return error.code
    except KeyboardInterrupt:
        say(f"{ERROR}interrupted; what was begun is whole, or not done: run it again")
        return EXIT_INTERRUPTED
    except OSError as error:
        say(f"{ERROR}{error.filename or 'the board'}: {(error.strerror or str(error)).lower()}")
        return EXIT_FAILED
    return 0


def deploy(stage: Path, name: str | None, file: str | None, with_bundle: bool) -> None:
    """What was brought, in this order: edge-runner, the model, the configuration, the service."""
    service = Service(name) if name else None
    install(stage / "wheelhouse")
    bundle = Bundle.brought(stage) if with_bundle else None
    if bundle:
        bundle.install()
    if service and file:
        configuration = Configuration(service, file, bundle)
        configuration.bring(stage)
        try:
            service.bring_up()
        except Failed as error:
            raise Failed(f"{error}{configuration.restore()}", error.code) from None
        service.show_result(bundle)


def install(wheelhouse: Path) -> None:
    """Install or upgrade. The installer leaves what runs alone until the new version was tried, and does nothing twice.

    Where there is nothing to bring, the board's own puts in order what an interrupted one left.
    """
    if wheelhouse.is_dir():
        run("bash", wheelhouse / "install_device.sh", "--upgrade", "--wheelhouse", wheelhouse)
    else:
        run("bash", SHARE / "install_device.sh")


@dataclass(frozen=True)
class Bundle:
    """The model that was brought."""

    folder: Path
    name: str
    version: str

    @classmethod
    def brought(cls, stage: Path) -> Bundle:
        folder = next((stage / "bundle").glob("*"), None)
        if not folder:
            raise Failed("what was brought has gone, with who brought it: run it again")
        try:
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            return cls(folder, str(manifest["name"]), str(manifest["version"]))
        except (ValueError, LookupError, TypeError):
            raise Failed(f"{folder.name}/manifest.json is damaged; build the bundle again", EXIT_CONFIG) from None

    def install(self) -> None:
        """By the service's user, whose rights suffice. It may not look into the home of others, hence the pipe."""
        packed = self.folder.parent.parent / "bundle.tar.gz"
        with tarfile.open(packed, "w:gz") as archive:
            archive.add(self.folder, self.folder.name)
        with packed.open("rb") as file:
            run(*as_service(), COMMAND, "model", "install", "-", stdin=file.fileno())

    def made(self, result: dict[str, Any]) -> bool:
        """Whether a result is this model's, or that of one which has nothing to do with it."""
        model = result["model"]
        return bool(model.get("name") != self.name or model.get("version") == self.version)


# The configuration


class Configuration:
    """The service's file and the one with its passwords, beside those that are to take their places."""

    def __init__(self, service: Service, file: str, bundle: Bundle | None) -> None:
        self.service, self.file, self.bundle = service, file, bundle
        self.places = [CONFIGS / f"{service.name}{ending}" for ending in (".yaml", ".env")]
        self.candidates = [CONFIGS / f".{service.name}{ending}" for ending in (".yaml", ".env")]
        self.changed: list[Path] = []
        """What is in its place now, and was not before."""
        self.first = not self.places[0].exists()

    def bring(self, stage: Path) -> None:
        """Put what was brought in its place if nothing is wrong with it."""
        self._clear()  # of a run that was killed
        brought = [stage / "config.yaml", stage / "config.env"]
        if not any(differ(*pair) for pair in zip(brought, self.places, strict=True)):
            say(f"{self.places[0]} is the same already")
            self.service.permit(self.places[0].read_text("utf-8", "replace"))
            return
        try:
            self._propose(brought)
            self._check()
            self.service.permit(self.candidates[0].read_text("utf-8"))
            self._replace()
        finally:
            self._clear()

    def _clear(self) -> None:
        """Candidates that are not to be."""
        for path in (*self.candidates, *map(old_one, self.places)):
            new_one(path).unlink(missing_ok=True)
        for candidate in self.candidates:
            candidate.unlink(missing_ok=True)

    def _replace(self) -> None:
        """Each in one step, the configuration last; the old ones are kept beside them."""
        for candidate, place in reversed(list(zip(self.candidates, self.places, strict=True))):
            if not differ(candidate, place):
                continue
            old_one(place).unlink(missing_ok=True)
            if place.exists():
                write(old_one(place), place.read_bytes(), rights(place, 0))
            candidate.rename(place)
            self.changed.append(place)
        sync(CONFIGS)

    def _propose(self, brought: list[Path]) -> None:
        """Passwords that were not brought are those that are there."""
        for new, place, candidate, mode in zip(brought, self.places, self.candidates, (0o644, 0o640), strict=True):
            source = new if new.exists() else place
            if source.exists():
                write(candidate, source.read_bytes(), rights(place, mode))

    def _check(self) -> None:
        """As the service will read it: as its user, in its place. What is wrong is told of the file on the workstation."""
        folders = [f"{key}_DIRECTORY={root / self.service.name}" for key, root in (("LOGS", LOGS), ("STATE", STATES))]
        for root in (LOGS, STATES):
            self._make(root / self.service.name)
        environment = [*folders, *self.service.environment()]
        command = [*as_service(), *environment, COMMAND, "check", "--config", str(self.candidates[0])]
        pipe = subprocess.PIPE
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode == 0:
            say(f"{self.file}: nothing is wrong")
            return
        lines = done.stdout.replace(str(self.candidates[0]), self.file).splitlines() or ["it says nothing"]
        *more, last = lines
        for line in more:
            say(line)
        stays = "; the old configuration stays" if self.places[0].exists() else ""
        raise Failed(f"{last.removeprefix(ERROR)}{self._hint(done.stdout)}{stays}", done.returncode)

    def restore(self) -> str:
        """The files before these, with which it ran, take their places again; say so. "" where there is nothing to put back."""
        if self.first or not self.changed:
            return ""
        for place in self.changed:
            if old_one(place).exists():
                old_one(place).rename(place)
            else:
                place.unlink()
        sync(CONFIGS)
        return f"; the old configuration is back, and {'runs' if self.service.go_back() else 'does not run either'}"

    def _make(self, folder: Path) -> None:
        """As systemd would at the start: outputs are checked against it."""
        if not folder.is_dir():
            folder.mkdir(0o750, parents=True)
            shutil.chown(folder, USER, USER)

    def _hint(self, said: str) -> str:
        """What cannot be right on another machine: a model's path on the workstation."""
        if "model.path" not in said:
            return ""
        if not self.bundle:
            return "; on the board, a model has a name: deploy it with --bundle DIR, and write model: {name: …}"
        return (
            f"; the board's copy of the model has a name: write model: {{name: {self.bundle.name}}} instead of its path"
        )


def differ(new: Path, old: Path) -> bool:
    """Whether a file was brought, and is not what is there."""
    return new.exists() and (not old.exists() or new.read_bytes() != old.read_bytes())


def old_one(place: Path) -> Path:
    """Where the one before is kept."""
    return place.with_name(f"{place.name}.old")


def new_one(path: Path) -> Path:
    """Where it is written, before it takes its place."""
    return path.with_name(f"{path.name}.new")


@dataclass(frozen=True)
class Rights:
    """Whose a file is, and its mode."""

    owner: int
    group: int
    mode: int


def rights(place: Path, mode: int) -> Rights:
    """For the service to read, and root to write; where there is a file, as somebody has set them. No password is for all."""
    group = grp.getgrnam(USER).gr_gid
    if not place.exists():
        return Rights(0, group, mode)
    found = place.stat()
    mode = found.st_mode & (0o660 if place.suffix == ".env" else 0o666)
    return Rights(found.st_uid, found.st_gid, mode) if mode & 0o004 else Rights(found.st_uid, group, mode | 0o040)


def write(path: Path, content: bytes, rights: Rights) -> None:
    """A whole file, on the disk."""
    new = new_one(path)
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        os.fchown(file.fileno(), rights.owner, rights.group)
        os.fchmod(file.fileno(), rights.mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def sync(folder: Path) -> None:
    """What was renamed in it is so after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# The service


@dataclass(frozen=True)
class State:
    """What systemd knows of the unit."""

    active: str
    result: str
    invocation: str
    status: int

    @property
    def runs(self) -> bool:
        return self.active in ("active", "reloading")

    @property
    def ended(self) -> bool:
        """By itself, as one does whose camera is a file."""
        return self.active == "inactive" and self.result == "success"


class Service:
    """The unit edge-runner@NAME, its health and its results."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = f"edge-runner@{name}.service"
        self.since = time.time()
        """When what runs now began, or was seen to be right: results from then on count."""
        self.before: Any = 0
        """How many results there were then; None where that is yet to be seen."""

    def permit(self, configuration: str) -> None:
        """What its cameras open beyond a webcam, which the unit is without by default."""
        wanted = [part for part, sign in PARTS.items() if re.search(sign, COMMENT.sub("", configuration))]
        missing = [part for part in wanted if not os.path.lexists(DROP_INS / f"{self.unit}.d" / part)]
        for part in missing:
            place = DROP_INS / f"{self.unit}.d" / part
            say(f"{self.unit} gets {part}")
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(SHARE / "systemd" / part)

    def bring_up(self) -> None:
        """Enabled, and run with what is there now, until it is ready: the model is proven, each camera tried.

        A reload touches nothing that is the same, so that one too many does no harm: who knows what the run before came to.
        """
        systemctl("enable", "--quiet", self.unit)
        if self._unit_changed() or not self.state().runs:
            self._start()
        else:
            self._reload()

    def go_back(self) -> bool:
        """Run with what is there again; whether it does."""
        with suppress(Failed):
            if self.state().runs:
                self._reload()
            else:
                systemctl("start", self.unit, check=False)
        return self.state().runs

    def _unit_changed(self) -> bool:
        """Whether the process is older than what systemd is to set for it."""
        self._read_again()
        facts = self._facts("FragmentPath", "DropInPaths", "ExecMainStartTimestampMonotonic")
        age_s = time.monotonic() - int(facts["ExecMainStartTimestampMonotonic"] or 0) / 1e6
        files = f"{facts['FragmentPath']} {facts['DropInPaths']}".split()
        return any(os.path.lexists(file) and os.lstat(file).st_mtime > time.time() - age_s for file in files)

    def _read_again(self) -> None:
        """Where its files are newer than what systemd knows."""
        if self._facts("NeedDaemonReload")["NeedDaemonReload"] == "yes":
            systemctl("daemon-reload")

    def _start(self) -> None:
        say(f"starting {self.unit} …")
        systemctl("reset-failed", self.unit, check=False)
        self.since, self.before = time.time(), 0
        systemctl("restart", self.unit, check=False)
        state = self.state()
        if not (state.runs or state.ended):
            self._give_up(state)

    def _reload(self) -> None:
        """It takes the configuration over between two frames, or goes on as before, and says so."""
        say(f"{self.unit} takes the configuration over …")
        cursor = f"--after-cursor={self._cursor()}"
        systemctl("reload", self.unit)
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            begun = False
            for line in self.journal(1000, cursor, "-u", self.unit):
                begun = begun or any(word in line for word in RELOAD_BEGINS)
                if begun and RELOAD_DONE in line:
                    self.before, self.since = self.health().get("results"), time.time()
                    return
                if begun and RELOAD_REFUSED in line:
                    raise Failed(line.partition("reload: ")[2].partition(RELOAD_REFUSED)[0].strip("; "), EXIT_CONFIG)
            if not self.state().runs:
                self._give_up(self.state())
            time.sleep(0.5)
        raise Failed(f"{self.unit} did not take the configuration over within {START_S:g} s")

    def _cursor(self) -> str:
        """The journal's end."""
        command = ["journalctl", "--quiet", "--no-pager", "-n", "0", "--show-cursor"]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        return done.stdout.partition("-- cursor: ")[2].strip()

    def state(self) -> State:
        facts = self._facts("ActiveState", "Result", "InvocationID", "ExecMainStatus")
        return State(facts["ActiveState"], facts["Result"], facts["InvocationID"], int(facts["ExecMainStatus"] or 0))

    def environment(self) -> list[str]:
        """What its unit and drop-ins set, as NAME=value."""
        self._read_again()
        return shlex.split(self._facts("Environment")["Environment"])

    def _facts(self, *names: str) -> dict[str, str]:
        """What systemd knows of the unit; "" for what it does not."""
        said = systemctl("show", "-p", ",".join(names), self.unit)
        return dict.fromkeys(names, "") | dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def _give_up(self, state: State) -> NoReturn:
        """Stop it, or systemd tries for ever; say its last words."""
        systemctl("stop", self.unit, check=False)
        said = [line for line in self.journal(20, f"_SYSTEMD_INVOCATION_ID={state.invocation}") if line[:1] != "{"]
        errors = [line.removeprefix(ERROR) for line in said if line.startswith(ERROR)]
        for line in said:
            if not line.startswith(ERROR):
                say(f"    {line}")
        why = errors[-1] if errors else f"exit code {state.status}"
        raise Failed(f"{self.unit} does not come up: {why}", state.status or EXIT_FAILED)

    def journal(self, lines: int, *matches: str) -> list[str]:
        """The unit's last lines."""
        command = [
            "journalctl",
            "--quiet",
            "--no-pager",
            "-o",
            "cat",
            "-n",
            str(lines),
            *(matches or ["-u", self.unit]),
        ]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, errors="replace")
        return done.stdout.splitlines()

    # Its results

    def show_result(self, bundle: Bundle | None) -> None:
        """A result from now on. Where none comes, its health says why."""
        began = time.monotonic()
        while time.monotonic() < began + RESULT_S:
            line = next((line for line in self.newest() if self._is_news(line, bundle)), None)
            if line:
                say(f"a result: {line}")
                return
            if time.monotonic() > began + PATIENCE_S and self._explains_itself():
                return
            time.sleep(0.5)
        self._require_patience()

    def _is_news(self, line: str, bundle: Bundle | None) -> bool:
        """Its lines are what the service's user writes there: anything, in the end."""
        with suppress(LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            result = json.loads(line)
            time_s = datetime.fromisoformat(result["time"].replace("Z", "+00:00")).timestamp()
            return time_s >= self.since and (not bundle or bundle.made(result))
        return False

    def _explains_itself(self) -> bool:
        """Whether there are results all the same: they go elsewhere, or nothing has changed. Failed where something is down."""
        health = self.health()
        down = [reason for reason in health.get("reasons", []) if str(reason).startswith(DOWN)]
        if down:
            code = EXIT_NO_FRAME if any(reason.startswith("camera_") for reason in down) else EXIT_FAILED
            raise Failed(f"{self.unit} runs, but gave no result: {'; '.join(down)}; doctor says more", code)
        if self.before is None:
            self.before = health.get("results")
        if health.get("results") in (0, None, self.before):
            return False
        say(f"{health.get('status')}; none of its outputs has written anything new here")
        return True

    def _require_patience(self) -> None:
        """A camera may be asked for one frame an hour, and there was one; otherwise, Failed."""
        health = self.health()
        if health.get("health") != "running" or not health.get("results"):
            raise Failed(f"{self.unit} runs, but gave no result within {RESULT_S:g} s; doctor says more", EXIT_NO_FRAME)
        say(f"{health.get('status')}; no new result within {RESULT_S:g} s")

    def newest(self) -> list[str]:
        """The last result in the journal and in each log that it writes."""
        ends = [self.journal(1000), *(tail(path).splitlines() for path in (LOGS / self.name).rglob("*.jsonl"))]
        return [line for lines in ends for line in [last_result(lines)] if line]

    def health(self) -> dict[str, Any]:
        """What it says of itself; {} where that is from before."""
        with suppress(LookupError, ValueError, TypeError, AttributeError, RecursionError):
            said = json.loads(tail(RUNTIME / self.name / "health.json"))
            time_s = datetime.fromisoformat(said["time"].replace("Z", "+00:00")).timestamp()
            return said if time_s >= self.since and isinstance(said["reasons"], list) else {}
        return {}


def last_result(lines: list[str]) -> str:
    """The last line that is a whole result."""
    for line in reversed(lines):
        if line.startswith('{"schema"'):
            with suppress(ValueError, RecursionError):
                json.loads(line)
                return line
    return ""


def tail(path: Path) -> str:
    """The end of a file that the service's user may have made: a pipe, or a link to elsewhere, is none."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                file.seek(max(0, found.st_size - TAIL_BYTES))
                return file.read(TAIL_BYTES).decode("utf-8", "replace")
    return ""


# The board


@contextmanager
def only_one() -> Iterator[None]:
    """Two at once would each undo what the other does."""
    with LOCK.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed("another deploy.sh is at work on this board; wait for its end") from None
        yield


def as_service() -> list[str]:
    """A command before those that the service's user is to run."""
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "env", "-i", "-C", "/"]
    return [*command, f"PATH={os.environ.get('PATH', os.defpath)}", f"HOME={STATES}", "LC_ALL=C.UTF-8"]


def run(*command: str | Path, stdin: int = subprocess.DEVNULL) -> None:
    """Run it, and say what it says; its error, if it fails, is ours."""
    error = ""
    argv = [str(word) for word in command]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdin=stdin, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout
        for line in map(str.rstrip, child.stdout):
            if line.startswith(ERROR):
                error = line.removeprefix(ERROR)
            else:
                say(line)
    if child.returncode:
        raise Failed(error or f"{' '.join(argv)}: exit code {child.returncode}", child.returncode)


def systemctl(*words: str, check: bool = True) -> str:
    """Ask systemd; give its answer."""
    command = ["systemctl", *words]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: no answer within {START_S:g} s") from None
    if check and done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def say(line: str) -> None:
    """To whoever still listens; what was begun is done even where nobody does. What a terminal would obey is not for it."""
    with suppress(BrokenPipeError):
        print("".join(each if each.isprintable() else " " for each in line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
