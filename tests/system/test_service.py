"""The service under a real systemd: it starts, mends what hangs or dies, reloads, takes models up and stops, each within a time.

Run it alone with `-n0 -s`, and the times are printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from lab.container import Container
from lab.instance import DIGITS, TEST_PICTURE, Instance, captured, now, remove
from lab.releases import SECOND, second

# All of it on a machine that is slow and busy; a container boots in a second, and most else takes a few.
READY_S = 60.0
BOOT_S = 120.0
CAMERA_S = 60.0
RESTART_S = 120.0  # RestartSec= and a start
WATCHED_S = 10  # WatchdogSec= where something hangs that only systemd can end: as shipped it is 60
HANG_S = 180.0
RELOAD_S = 60.0
STOP_S = 60.0
SETTLED_S = 60.0  # until health believes that something is over
HANG_SIGN = "/run/the-model-hangs"
PIPE = "/srv/pipe"
RETRY = {"first": "200ms", "max": "1s"}
NOISE = {"type": "command", "format": "gray8", "width": 64, "height": 48, "stall_timeout": "2s", "retry": RETRY}
FRAMES = "while head -c 3072 /dev/urandom; do sleep 0.05; done"

Make = Callable[[str], Instance]


@pytest.fixture(scope="module")
def times() -> Iterator[dict[str, tuple[float, float]]]:
    """How long things took, and how long they were waited for at most."""
    noted: dict[str, tuple[float, float]] = {}
    yield noted
    sys.stdout.writelines(f"\n{what:70}{took:6.1f} s of {limit:3.0f}" for what, (took, limit) in noted.items())


@pytest.fixture(scope="module")
def make(board: Container, times: dict[str, tuple[float, float]]) -> Iterator[Make]:
    """Name an instance; all of them are stopped and removed at the end."""
    board.run("cp", "-rT", "/root/digits", DIGITS)
    made: dict[str, Instance] = {}

    def get(name: str) -> Instance:
        return made.setdefault(name, Instance(board, name, times))

    yield get
    remove(board, made)
    board.run("userdel", "--remove", "alice", check=False)
    board.run("sh", "-c", f"rm -rf {PIPE} {HANG_SIGN} /srv/* /var/lib/edge-runner/models/*")


@pytest.fixture(scope="module")
def door(make: Make) -> Instance:
    """One that runs: the test picture, into a log, the journal and snapshots."""
    instance = make("door")
    instance.configure(TEST_PICTURE, {"type": "console"}, {"type": "snapshots", "path": "snapshots"})
    began = now()
    instance.start()
    instance.took("start: READY", now() - began, READY_S)
    return instance


# --- start


def test_ready_is_running(door: Instance) -> None:
    """Once systemd calls it active there are results, and one line says how it goes; anybody may read its health."""
    assert door.show("ActiveState") == "active"
    runs = r"running: [\d.]+ results/s, \d+ ms old, [\d.]+ frames/s dropped"
    door.wait(lambda: re.fullmatch(runs, door.show("StatusText")), READY_S)
    (status,) = re.findall(r'^ +Status: "(.*)"$', door.board.run("systemctl", "status", door.unit).stdout, re.MULTILINE)
    assert re.fullmatch(runs, status)
    health = door.wait(door.health, READY_S)
    assert (health["health"], health["reasons"], health["pid"]) == ("running", [], door.main)
    assert health["model"]["name"] == "digits"
    door.await_results()
    assert door.results()[0]["seq"] == 1


def test_nothing_listens_whatever_the_outputs_are(door: Instance) -> None:
    """Neither the daemon nor its camera's process has a port."""
    listening = door.board.run("ss", "-l", "-n", "-t", "-u", "-w", "-p", "--no-header").stdout
    owners = set(map(int, re.findall(r"pid=(\d+)", listening)))
    assert len(door.processes()) == 2
    assert not owners & set(door.processes())


def test_exposure_where_it_runs(door: Instance) -> None:
    """What systemd has really been told is as tight as the file: 2.0 or better."""
    said = door.board.run("systemd-analyze", "security", "--no-pager", door.unit).stdout
    assert float(re.findall(r"Overall exposure level.*: (\d+\.\d)", said)[0]) <= 2.0


@pytest.mark.parametrize(
    ("name", "camera", "why"),
    [
        (
            "program",
            {**NOISE, "command": ["/bin/sh", "-c", f"test -e /srv/here && {FRAMES}"]},
            "sh ended with exit status 1",
        ),
        ("device", {"type": "v4l2", "device": "/dev/video9", "retry": RETRY}, "/dev/video9 is not there"),
    ],
)
def test_ready_without_a_camera(make: Make, name: str, camera: dict[str, object], why: str) -> None:
    """It is up, and degraded; STATUS and health.json say why. As the camera comes, so do results."""
    instance = make(name)
    instance.configure(camera)
    began = now()
    instance.start()
    instance.took(f"start without the camera ({name}): READY", now() - began, READY_S)
    lost = f"camera_lost: camera: {why}"
    instance.wait(lambda: lost in instance.show("StatusText"), READY_S)
    assert instance.show("StatusText").startswith("degraded: ")
    instance.wait(lambda: lost in instance.reasons(), READY_S)
    assert instance.results() == []
    if name == "program":
        began = now()
        instance.board.run("touch", "/srv/here")
        instance.took("the camera comes: results", instance.await_results(began, CAMERA_S) - began, CAMERA_S)
        instance.wait(lambda: instance.health().get("health") == "running", SETTLED_S)
    assert instance.show("NRestarts") == "0"
    instance.stop()


def test_after_a_power_cut(door: Instance) -> None:
    """Enabled, it comes up with the board, by itself; what it had written is there, each line whole."""
    door.await_results()
    door.board.run("systemctl", "enable", "--quiet", door.unit)
    before = door.results()
    door.board.cut_power()
    began = now()
    door.board.boot()
    first = door.await_results(began, BOOT_S, run=before[-1]["run"])
    door.took("power on (a container boots in a second): results", first - began, BOOT_S)
    door.board.wait(door.unit, "active", READY_S)
    door.board.run("systemctl", "disable", "--quiet", door.unit)
    after = door.results()
    assert after[: len(before)] == before
    assert {each["run"] for each in after} == {before[-1]["run"], after[-1]["run"]}


# --- what hangs, and what dies


@pytest.mark.parametrize("which", ["its process", "its program"])
@pytest.mark.parametrize("signal", ["STOP", "KILL"])
def test_a_camera_that_hangs_or_dies(make: Make, which: str, signal: str) -> None:
    """Another process takes its place, and results go on, in the same run of the same daemon."""
    instance = make("camera")
    if instance.show("ActiveState") != "active":
        instance.configure({**NOISE, "command": ["/bin/sh", "-c", FRAMES]})
        instance.start()
    instance.await_results()
    daemon, run = instance.main, instance.results(last=1)[0]["run"]
    worker = instance.worker
    program = next(pid for pid, command in instance.processes().items() if command.startswith("/bin/sh -c"))
    victim = worker if which == "its process" else program
    began = now()
    instance.board.run("kill", f"-{signal}", victim)
    instance.wait(lambda: victim not in instance.processes(), CAMERA_S)
    instance.wait(lambda: instance.worker not in (0, worker), CAMERA_S)
    again = instance.await_results(now(), CAMERA_S)
    word = "hangs (stall_timeout: 2s)" if signal == "STOP" else "is killed"
    instance.took(f"the camera, {which} {word}: results", again - began, CAMERA_S)
    assert (instance.main, instance.results(last=1)[0]["run"], instance.show("NRestarts")) == (daemon, run, "0")
    assert worker not in instance.processes()


@pytest.fixture(scope="module")
def struck(make: Make) -> Iterator[dict[str, float]]:
    """Four instances, all hit at about the same time; when each one was. Each takes systemd a while."""
    board = make("model").board
    make("model").drop_in(f"WatchdogSec={WATCHED_S}", f"Environment=EDGE_RUNNER_HANG={HANG_SIGN}")
    make("output").drop_in(f"WatchdogSec={WATCHED_S}", f"StandardOutput=file:{PIPE}", "StandardError=journal")
    board.run("sh", "-c", f"mkfifo {PIPE} && chmod 666 {PIPE}")
    make("model").configure()
    make("output").configure(TEST_PICTURE, {"type": "console"})
    make("killed").configure()
    board.write("/srv/picture.jpg", "is damaged")
    make("exits").configure({"type": "images", "path": "/srv/picture.jpg", "loop": True, "max_fps": 20})
    with board.start("sh", "-c", f"echo $$; exec cat 0<>{PIPE} >/dev/null") as reader:
        assert reader.stdout
        pid = reader.stdout.readline().strip()
        for name in ("model", "output", "killed"):
            make(name).start()
        hit = {}
        for name, deed in {
            "model": ("touch", HANG_SIGN),
            "output": ("kill", "-STOP", pid),
            "killed": ("kill", "-KILL", make("killed").main),
            "exits": ("systemctl", "start", "--no-block", make("exits").unit),
        }.items():
            make(name).await_results() if name != "exits" else None
            hit[name] = now()
            board.run(*deed)
        yield hit
        board.run("kill", "-KILL", pid)
        reader.kill()  # nsenter, which stopped as what it waits for did


def test_kill_9(make: Make, struck: dict[str, float]) -> None:
    """Systemd starts it anew; nothing is left of the first one's processes, and no line is torn."""
    instance, (first, *_) = make("killed"), make("killed").results()
    again = instance.await_results(struck["killed"], RESTART_S, run=first["run"])
    instance.took("the daemon is killed (RestartSec=5): results", again - struck["killed"], RESTART_S)
    instance.board.wait(instance.unit, "active", READY_S)
    assert instance.show("NRestarts") == "1"
    assert len(instance.processes()) == 2
    daemons = [make(each) for each in ("killed", "door", "camera", "model", "output")]
    instance.wait(lambda: not orphans(instance.board, daemons), READY_S)  # others are being ended just now
    instance.stop()


def orphans(board: Container, daemons: list[Instance]) -> set[str]:
    """What the cameras' processes descend from, and is none of the daemons."""
    workers = board.run("pgrep", "-f", "camera import worker", check=False).stdout.split()
    parents = {board.run("ps", "-o", "ppid=", "-p", pid, check=False).stdout.strip() for pid in workers}
    return parents - {""} - {str(each.main) for each in daemons}


def test_a_failure_is_tried_again(
    make: Make, struck: dict[str, float], paint: Callable[..., Path], tmp_path: Path
) -> None:
    """Exit code 1: systemd tries for ever, so that what is put right is found without anybody at the board."""
    instance = make("exits")
    instance.wait(lambda: int(instance.show("NRestarts")) >= 1, RESTART_S)
    instance.hears("status=1/FAILURE")
    instance.hears("camera.path: no frame could be read")
    began = now()
    instance.board.copy_in(paint(tmp_path / "picture.jpg"), "/srv/picture.jpg")
    again = instance.await_results(began, RESTART_S)
    instance.took("what ended it with exit code 1 is put right: results", again - began, RESTART_S)
    instance.stop()


def test_a_model_that_hangs(make: Make, struck: dict[str, float]) -> None:
    """The watchdog gets no proof of progress: the journal says what hangs, systemd ends the daemon and starts it anew."""
    instance, (first, *_) = make("model"), make("model").results()
    instance.hears("no_progress: the model has not answered", HANG_S)
    instance.hears("Watchdog timeout", HANG_S)
    instance.board.run("rm", HANG_SIGN)
    again = instance.await_results(struck["model"], HANG_S, run=first["run"])
    instance.took(f"the model hangs (WatchdogSec={WATCHED_S}): results", again - struck["model"], HANG_S)
    instance.board.wait(instance.unit, "active", READY_S)
    assert instance.show("NRestarts") == "1"


# --- what another start does not mend


@pytest.mark.parametrize("what", ["wrong", "missing"])
def test_exit_78_stays_down(make: Make, what: str) -> None:
    """A configuration that is wrong, or not there: one start, and a line that says so."""
    instance = make(what)
    if what == "wrong":
        instance.configure(NOISE | {"widht": 3})
    assert instance.board.run("systemctl", "start", instance.unit, check=False).returncode != 0
    assert instance.board.run("systemctl", "is-failed", instance.unit).stdout == "failed\n"
    assert (instance.show("SubState"), instance.show("ExecMainStatus"), instance.show("NRestarts")) == (
        "failed",
        "78",
        "0",
    )
    instance.hears({"wrong": "did you mean 'width'?", "missing": "missing.yaml: no such file"}[what])


# --- reload


def test_reload_under_load(door: Instance, times: dict[str, tuple[float, float]]) -> None:
    """Three new configurations while results come: none is left out, the run is the same, the camera's process too."""
    door.await_results()
    before, worker = door.results(last=1)[0], door.worker
    outputs = {"type": "console"}, {"type": "snapshots", "path": "snapshots"}
    for answers in (1, 2, 3):
        door.configure(TEST_PICTURE, *outputs, task={"max_results": answers})
        done, began = door.journal().count("reload: done"), now()
        door.board.run("systemctl", "reload", door.unit)
        door.wait(lambda done=done: door.journal().count("reload: done") > done, RELOAD_S)
        door.took("reload: the new configuration is taken up", now() - began, RELOAD_S)
    door.await_results(now())
    results = door.results()
    results = results[results.index(before) :]
    assert [each["seq"] for each in results] == list(range(before["seq"], before["seq"] + len(results)))
    assert {each["run"] for each in results} == {before["run"]}
    assert all(one["frame"] < other["frame"] for one, other in pairwise(results))
    assert door.worker == worker
    assert switches([len(each["classifications"]) for each in results]) == [5, 1, 2, 3]
    door.board.wait(door.unit, "active", READY_S)


def switches(values: list[int]) -> list[int]:
    """Without those that are as the one before."""
    return [value for index, value in enumerate(values) if index == 0 or values[index - 1] != value]


def test_a_bad_reload_keeps_the_old_one(door: Instance) -> None:
    """One line says where it is wrong; STATUS and health.json say reload_failed, until one goes well; results go on."""
    good = door.board.read(door.config)
    daemon, worker, run, said = door.main, door.worker, door.results(last=1)[0]["run"], len(door.journal())
    door.board.write(door.config, good.replace('"width"', '"widht"'))
    door.board.run("systemctl", "reload", door.unit)
    door.wait(lambda: "reload_failed" in door.reasons(), RELOAD_S)
    door.wait(lambda: "reload_failed: " in door.show("StatusText"), RELOAD_S)
    door.await_results(now(), RELOAD_S)
    door.hears("all goes on as before")
    (line,) = [each for each in door.journal()[said:].splitlines() if "all goes on as before" in each]
    assert f"{door.config}:" in line
    assert "did you mean 'width'?" in line
    assert (door.main, door.worker, door.results(last=1)[0]["run"]) == (daemon, worker, run)
    door.board.write(door.config, good)
    door.board.run("systemctl", "reload", door.unit)
    door.wait(lambda: door.is_over("reload_failed"), SETTLED_S)
    assert (door.main, door.worker) == (daemon, worker)


# --- models


@pytest.fixture(scope="module")
def twins(make: Make, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    """Two instances that run the store's active version. The user alice, of the group, has installed it without root."""
    board = make("left").board
    board.copy_in(second(digits, tmp_path_factory.mktemp("release") / SECOND), f"/srv/{SECOND}")
    board.copy_in(digits, "/srv/first")
    board.run("useradd", "--groups", "edge-runner", "alice")
    board.run("edge-runner", "model", "install", "/srv/first", user="alice")
    both = [make("left"), make("right")]
    for each in both:
        each.configure({**TEST_PICTURE, "fps": 20}, model={"name": "digits"})
        each.start()
        each.await_results()
    return both


def test_an_installed_model_is_taken_up(twins: list[Instance]) -> None:
    """By every instance that runs it, in the same run and with the same camera, without root."""
    before = [(each.main, each.worker, each.results(last=1)[0]["run"]) for each in twins]
    began = now()
    twins[0].board.run("edge-runner", "model", "install", f"/srv/{SECOND}", user="alice")
    installed = now()
    for each in twins:
        model = {"name": "digits", "version": SECOND}
        taken = each.await_results(began, RELOAD_S, model=model)
        each.took(
            f"model install is done: the version is taken up ({each.name})", max(0.0, taken - installed), RELOAD_S
        )
        numbers = [result["seq"] for result in each.results()]
        assert numbers == list(range(1, len(numbers) + 1))
    assert [(each.main, each.worker, each.results(last=1)[0]["run"]) for each in twins] == before


def test_a_reload_of_one_is_not_the_others(twins: list[Instance]) -> None:
    """Its neighbour hears nothing of it."""
    left, right = twins
    done = left.journal().count("reload: done")
    left.board.run("systemctl", "reload", left.unit)
    left.wait(lambda: left.journal().count("reload: done") > done, RELOAD_S)
    right.await_results(now())
    assert "SIGHUP" not in right.journal()
    folders = [set(each.board.run("ls", f"/var/log/edge-runner/{each.name}").stdout.split()) for each in twins]
    assert folders == [{"left.jsonl"}, {"right.jsonl"}]


def test_a_broken_model_gives_way(twins: list[Instance]) -> None:
    """A version that the card has damaged: the one before runs on, also after a new start, and health says so until then."""
    left, _ = twins
    store = "/var/lib/edge-runner/models/digits"
    run = left.results(last=1)[0]["run"]
    damage = f"cp -r {SECOND} damaged && truncate -s 1000 damaged/model.tflite && ln -s damaged .new && ln -sfn {SECOND} previous"
    left.board.run("sh", "-c", f"cd {store} && {damage} && mv -T .new current", user="alice")
    left.wait(lambda: "model_fallback" in left.reasons(), RELOAD_S)
    left.await_results(now(), run=None, model={"name": "digits", "version": SECOND})
    assert left.results(last=1)[0]["run"] == run
    began = now()
    left.board.run("systemctl", "restart", left.unit)
    left.await_results(began, run=run, model={"name": "digits", "version": SECOND})
    left.wait(lambda: "model_fallback" in left.show("StatusText"), RELOAD_S)
    left.board.run("edge-runner", "model", "rollback", "digits", user="alice")
    left.wait(lambda: left.is_over("model_fallback"), SETTLED_S)


# --- late, since it takes long, and nobody has to wait for it: an output that hangs


def test_an_output_that_hangs(make: Make, struck: dict[str, float]) -> None:
    """The others go on meanwhile. Systemd starts the daemon anew, once: where that is no help, it runs on without it."""
    instance, run = make("output"), make("output").results()[0]["run"]
    again = instance.await_results(struck["output"], HANG_S, run=run)
    instance.took(f"an output hangs (WatchdogSec={WATCHED_S}): a new start, results", again - struck["output"], HANG_S)
    before = [each for each in instance.results() if each["run"] == run]
    assert captured(before[-1]) > struck["output"] + WATCHED_S
    assert [each["seq"] for each in before] == list(range(1, len(before) + 1))
    instance.hears("no_progress: outputs.1 (console): hangs in the middle of its work")
    instance.wait(lambda: "output_backlog: outputs.1 (console)" in instance.reasons(), HANG_S)
    assert "no_progress" not in instance.reasons()
    assert instance.show("NRestarts") == "1"
    instance.await_results(now(), HANG_S)
    instance.stop()


# --- the sandbox, where it counts: in what the daemon starts

PROBE = """
import ctypes, json, os, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def listen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
def keep(variable):
    with open(os.environ[variable] + "/kept", "w") as file:
        file.write("x")
DEEDS = {
    "the state folder": lambda: keep("STATE_DIRECTORY"), "the log folder": lambda: keep("LOGS_DIRECTORY"),
    "the run folder": lambda: keep("RUNTIME_DIRECTORY"), "loopback": listen,
    "is the clock set": lambda: call("adjtimex", ctypes.create_string_buffer(512)),
    **{"write " + path: lambda path=path: open(path + "/probe", "w") for path in PLACES},
    **{"append to " + path: lambda path=path: open(path, "a").close() for path in FILES},
    "make a device": lambda: os.mknod("/tmp/device", 0o20600, os.makedev(1, 1)),
    "a set-uid program": lambda: (open("/tmp/program", "w").close(), os.chmod("/tmp/program", 0o4755)),
    "setuid": lambda: os.setuid(0), "chroot": lambda: os.chroot("/tmp"), "chown": lambda: os.chown(__file__, os.getuid(), -1),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None), "umount": lambda: call("umount", b"/tmp"),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "name the host": lambda: socket.sethostname("other"), "load a module": lambda: call("init_module", b"", 0, b""),
    "restart the board": lambda: call("reboot", 0),  # no command that there is
    "trace the daemon": lambda: call("ptrace", 16, DAEMON, 0, 0), "another root": lambda: call("unshare", 0x10000000),
    "signal systemd": lambda: os.kill(1, 0), "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), "the kernel's log": lambda: call("klogctl", 3, None, 0),
}
report = {}
for what, deed in DEEDS.items():
    try:
        deed()
        report[what] = "done"
    except OSError as error:
        report[what] = error.strerror or str(error)
with open(os.environ["LOGS_DIRECTORY"] + "/report.new", "w") as file:
    json.dump(report, file)
os.rename(file.name, file.name[:-4])
while True:
    os.write(1, os.urandom(64 * 48))
    time.sleep(0.1)
"""
NEEDED = {"the state folder", "the log folder", "the run folder", "loopback", "is the clock set"}
PLACES = [
    "", "/etc", "/etc/edge-runner", "/usr/local/bin", "/opt/edge-runner/current", "/var/lib", "/var/lib/edge-runner/models",
    "/var/lib/edge-runner/door", "/var/log/edge-runner/door", "/run/edge-runner/door", "/home/open", "/root", "/srv/open",
    "/var/tmp/../open", "/dev", "/proc/sys/kernel", "/sys/fs/cgroup",
]  # fmt: skip
FILES = ["/dev/mem", "/dev/kmsg", "/etc/passwd", "/etc/edge-runner/sandbox.yaml", "/proc/sysrq-trigger", "/proc/1/mem"]


def test_what_a_cameras_program_can_do(make: Make, door: Instance) -> None:
    """Any program that the configuration names is held as tight as the daemon: it writes to the instance's folders alone."""
    instance = make("sandbox")
    instance.board.run("mkdir", "-p", "-m", "777", "/home/open", "/srv/open", "/var/open")
    head = f"PLACES, FILES = {PLACES!r}, {FILES!r}\nimport os\nDAEMON = os.getppid()\n"
    instance.board.write("/srv/probe.py", head + PROBE)
    instance.configure({**NOISE, "command": ["/usr/bin/python3", "/srv/probe.py"]})
    instance.start()
    path = "/var/log/edge-runner/sandbox/report"
    instance.wait(lambda: instance.board.exists(path), READY_S)
    report = json.loads(instance.board.read(path))
    assert {what for what, outcome in report.items() if outcome == "done"} == NEEDED, report
    rights = set(report) - NEEDED - {each for each in report if each.startswith(("write ", "append "))}
    assert len(rights) == 17
    assert {report[each] for each in rights - {"packets"}} == {"Operation not permitted"}, report
    instance.await_results()


# --- stop


def test_stop(door: Instance) -> None:
    """SIGTERM: exit code 0, the last result is on disk, no process is left, nor health.json."""
    run = door.results(last=1)[0]["run"]
    began = now()
    door.stop()
    door.took("stop: nothing is left", now() - began, STOP_S)
    assert (door.show("ActiveState"), door.show("Result"), door.show("ExecMainStatus")) == ("inactive", "success", "0")
    said = door.hears(" results in ")
    kept = [each for each in door.results() if each["run"] == run]
    assert f"info: {len(kept)} results in " in said
    assert len(kept) == kept[-1]["seq"]
    assert door.board.read(door.log).endswith("}\n")
    assert door.processes() == {}
    assert not door.board.exists("/run/edge-runner/door/health.json")
