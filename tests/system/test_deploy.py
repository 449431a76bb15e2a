"""scripts/deploy.sh against a real sshd, in a container with a real systemd and no network but its loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_checks import OWN, PRIVATE, TRIAL, TRIAL_UNIT
from lab.broker import wait_until
from lab.container import Container, container_missing, tree
from lab.desk import BUNDLE, PASSWORD, Desk, copy_of_checkout
from lab.releases import second

ROOT = Path(__file__).parents[2]
UNIT = "edge-runner@front-door.service"
PLACE = "/etc/edge-runner/front-door.yaml"
CONFIG = """\
camera: {type: pattern, max_fps: 2}
model: {name: digits}
outputs:
  - {type: console, when: {min_interval: 1s}}
"""

missing = container_missing()
pytestmark = pytest.mark.skipif(bool(missing), reason=missing or "")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A workstation, and a board on which nothing is installed."""
    checkout = copy_of_checkout(tmp_path_factory.mktemp("checkout"))
    with Container(tree()) as board, Desk(board, checkout, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture
def config(desk: Desk) -> Path:
    """The configuration, on the workstation."""
    path = desk.folder / "front-door.yaml"
    path.write_text(CONFIG)
    path.with_suffix(".env").unlink(missing_ok=True)
    return path


@pytest.fixture(scope="module")
def deployed(desk: Desk) -> Desk:
    """The service runs, deployed by a user who may use sudo."""
    config = desk.folder / "front-door.yaml"
    config.write_text(CONFIG)
    done = desk.deploy("--bundle", BUNDLE, "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    desk.said = done.stderr
    return desk


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The last line, which says what is wrong."""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("edge-runner: error: "), done.stderr
    assert done.stderr.count("edge-runner: error: ") == 1, done.stderr
    return last.removeprefix("edge-runner: error: ")


def test_a_board_that_does_not_fit_is_refused_before_anything_is_copied(desk: Desk) -> None:
    """Another processor, one that is too old, an old Python: it says so, and what there is."""
    board = desk.board
    for program, says, words in (
        ("uname", "armv6l", "has an ARMv6 processor"),
        ("dpkg", "riscv64", "is riscv64; there are runtimes for arm64, armhf and amd64"),
        ("python3", "3.9", "has Python 3.9; 3.10 is the oldest that works"),
    ):
        place = f"/usr/bin/{program}"
        board.run("mv", place, f"{place}.real")
        board.write(place, f"#!/bin/sh\necho {says}\n", 0o755)
        done = desk.deploy()
        board.run("mv", f"{place}.real", place)
        assert done.returncode == 1
        assert words in error(done)
    assert not desk.left_overs()


def test_the_name_of_the_store_is_no_services(desk: Desk) -> None:
    """Where an instance of that name would keep its state lie the models."""
    config = desk.folder / "models.yaml"
    config.write_text(CONFIG)
    done = desk.deploy("--config", config)
    assert done.returncode == 1
    assert "'models' cannot be a service's name" in error(done)
    assert "asking" not in done.stderr


def test_a_user_who_may_not_become_root_is_told(desk: Desk) -> None:
    """sudo that asks for a password needs a terminal; without a right to use it, nothing helps but another user."""
    assert "this is no terminal to type it in" in error(desk.deploy(user="ada"))
    done = desk.deploy(user="nobody-there")
    assert done.returncode == 1
    assert "ssh nobody-there@board.local does not work" in error(done)


def test_the_first_deployment_ends_with_a_result(deployed: Desk) -> None:
    """From a bare board to a service that is enabled, ready, and has given a result, which is shown."""
    board, said = deployed.board, deployed.said
    assert board.show(UNIT, "ActiveState") == "active"
    assert board.show(UNIT, "UnitFileState") == "enabled"
    result = json.loads(next(line for line in said.splitlines() if line.startswith("a result: "))[10:])
    assert result["model"]["name"] == "digits"
    assert result["camera"] == "front-door"
    assert f"journalctl -fu {UNIT.removesuffix('.service')}" in said
    assert board.read(PLACE) == CONFIG
    assert not deployed.left_overs()


def test_a_process_of_the_unit_writes_to_its_own_folders_alone(deployed: Desk) -> None:
    """Every file and folder of the board is tried, those too whose rights would let it in."""
    board = deployed.board
    board.copy_in(ROOT / "tests/system/board_trial.py", "/checks/board_trial.py")
    board.write(f"/run/systemd/system/{TRIAL}.d/trial.conf", TRIAL_UNIT)
    board.run("install", "-d", "-m", "777", "/home/somebody", "/tmp/of-others", "/var/lib/edge-runner/elsewhere")
    board.run("systemctl", "daemon-reload")
    board.run("systemctl", "start", TRIAL)
    found = json.loads(board.hears(TRIAL, '{"folders": '))
    assert set(OWN) <= set(found["folders"])
    assert not [path for path in found["folders"] if not path.startswith((*OWN, *PRIVATE))]
    assert not found["files"]
    assert "of-others" not in found["seen"]


def test_a_second_run_is_quick_and_changes_nothing(deployed: Desk, config: Path) -> None:
    """It copies nothing that is there, restarts nothing, and shows a result all the same, whatever lies beside the results."""
    logs = "/var/log/edge-runner/front-door"
    deployed.board.run("mkfifo", f"{logs}/pipe.jsonl", user="edge-runner")
    deployed.board.write(f"{logs}/junk.jsonl", '{"schema": 1, "time": 5}\n')
    before = deployed.board.show(UNIT, "MainPID")
    done = deployed.deploy("--bundle", BUNDLE, "--config", config)
    assert done.returncode == 0, done.stderr
    assert "copying edge-runner" not in done.stderr
    assert "a result: " in done.stderr
    assert deployed.board.show(UNIT, "MainPID") == before


def test_a_new_configuration_is_taken_up_without_a_restart(deployed: Desk, config: Path) -> None:
    """It is checked, the service reloads it, and the result that is shown is of it. Who may read it stays."""
    deployed.board.run("chmod", "640", PLACE)
    before = deployed.board.show(UNIT, "MainPID")
    config.write_text(CONFIG.replace("max_fps: 2", "max_fps: 2, name: side-door"))
    done = deployed.deploy("--config", config)
    assert done.returncode == 0, done.stderr
    assert '"camera": "side-door"' in done.stderr
    assert deployed.board.show(UNIT, "MainPID") == before
    assert rights(deployed.board, PLACE) == "root:edge-runner 640"


def test_passwords_go_along(deployed: Desk, config: Path) -> None:
    """The old one is kept beside it, the passwords beside it are for the service alone, and the result is of the new one."""
    changed = CONFIG.replace("max_fps: 2", "max_fps: 2, name: '${DOOR}'")
    config.write_text(changed)
    config.with_suffix(".env").write_text("DOOR=back-door\n")
    done = deployed.deploy("--config", config)
    assert done.returncode == 0, done.stderr
    assert '"camera": "back-door"' in done.stderr
    assert deployed.board.read(PLACE) == changed
    assert "camera: {type: pattern" in deployed.board.read(f"{PLACE}.old")
    assert rights(deployed.board, PLACE.replace(".yaml", ".env")) == "root:edge-runner 640"


def rights(board: Container, path: str) -> str:
    """Whose it is, and who else may do what."""
    return board.run("stat", "-c", "%U:%G %a", path).stdout.strip()


def hidden(board: Container) -> list[str]:
    """What lies in the folder of the configurations, and should not be seen."""
    return [name for name in board.run("ls", "-A", "/etc/edge-runner").stdout.split() if name.startswith(".")]


def test_a_run_that_was_cut_off_before_the_reload_is_mended(deployed: Desk, config: Path) -> None:
    """The file is in its place, and its service does not know: the next run has it read, and clears away. Any file name does."""
    board, before = deployed.board, deployed.board.show(UNIT, "MainPID")
    config = config.rename(config.with_name("it's a door.yaml"))
    config.write_text(CONFIG.replace("max_fps: 2", "max_fps: 2, name: cut-off"))
    board.write(PLACE, config.read_text())
    for name in (".front-door.yaml", ".front-door.env", ".front-door.yaml.new"):
        board.write(f"/etc/edge-runner/{name}", "")
    done = deployed.deploy("--config", config, "--name", "front-door")
    assert done.returncode == 0, done.stderr
    assert "is the same already" in done.stderr
    assert '"camera": "cut-off"' in done.stderr
    assert board.show(UNIT, "MainPID") == before
    assert not hidden(board)


def test_a_run_that_was_cut_off_before_the_restart_is_mended(deployed: Desk, config: Path) -> None:
    """What the unit may do and knows was changed, and its process is older than that: it is started anew, once."""
    board, before = deployed.board, deployed.board.show(UNIT, "MainPID")
    part = f"/etc/systemd/system/{UNIT}.d/accelerator.conf"
    board.run("install", "-d", str(Path(part).parent))
    board.run("ln", "-s", "/opt/edge-runner/current/share/edge-runner/systemd/accelerator.conf", part)
    board.write(f"/etc/systemd/system/{UNIT}.d/name.conf", '[Service]\nEnvironment="NAME=side door"\n')
    config.write_text(CONFIG.replace("max_fps: 2", "max_fps: 2, name: '${NAME}'"))
    assert deployed.deploy("--config", config).returncode == 0
    after = board.show(UNIT, "MainPID")
    assert after != before
    assert part in board.show(UNIT, "DropInPaths")
    assert deployed.deploy("--config", config).returncode == 0
    assert board.show(UNIT, "MainPID") == after


def test_a_damaged_version_is_mended(deployed: Desk, config: Path) -> None:
    """Where a file of what is installed is no longer what it was, it is brought once more."""
    board = deployed.board
    part = board.run(
        "sh", "-c", "echo /opt/edge-runner/current/lib/python3*/site-packages/yaml/nodes.py"
    ).stdout.strip()
    whole = board.read(part)
    board.write(part, "")
    done = deployed.deploy("--config", config)
    assert done.returncode == 0, done.stderr
    assert "is damaged: yaml/nodes.py has changed" in done.stderr
    assert "a result: " in done.stderr
    assert board.read(part) == whole


def test_an_upgrade_that_was_cut_off_before_the_restart_is_mended(deployed: Desk) -> None:
    """What runs is of the version before: it is restarted, though there is nothing to bring; and the user may install models."""
    board = deployed.board
    here = "/opt/edge-runner/current"
    new = board.run("readlink", here).stdout.strip()
    old = "versions/0.0-00000000"
    board.run("cp", "-al", f"/opt/edge-runner/{new}", f"/opt/edge-runner/{old}")
    board.run("sed", "-i", f"s|{new}|{old}|", f"/opt/edge-runner/{old}/bin/edge-runner")
    board.run("ln", "-sfn", old, here)
    board.run("systemctl", "restart", UNIT)
    assert old in program(board)
    board.run("ln", "-sfn", new, here)
    board.run("gpasswd", "--delete", "pi", "edge-runner")
    done = deployed.deploy()
    assert done.returncode == 0, done.stderr
    assert "copying edge-runner" not in done.stderr
    assert new in program(board)
    assert "edge-runner" in board.run("id", "-nG", "pi").stdout.split()


def program(board: Container) -> str:
    """What the service's process was started as."""
    return board.run("cat", f"/proc/{board.show(UNIT, 'MainPID')}/cmdline").stdout


def test_two_at_once_do_not_get_in_each_others_way(deployed: Desk) -> None:
    """The second one is told to wait. The lock is where nobody but root can take it."""
    with deployed.board.start(
        "flock", "/run/edge-runner-deploy.lock", "sh", "-c", "echo mine; cat", stdin=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        done = deployed.deploy()
        holder.communicate()
    assert done.returncode == 1
    assert "another deploy.sh is at work on this board" in error(done)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"pattern": "patern"}, "front-door.yaml:1: camera.type"),
        ({"{name: digits}": "{path: models/digits}"}, "write model: {name: digits} instead of its path"),
        ({"name: digits": "name: birds"}, "birds"),
    ],
    ids=["a wrong key", "a path of the workstation", "no such model"],
)
def test_a_wrong_configuration_leaves_the_old_one(
    deployed: Desk, config: Path, mistake: dict[str, str], words: str
) -> None:
    """78; the mistake is told of the file here; what ran runs on, untouched."""
    board = deployed.board
    before = board.show(UNIT, "MainPID"), board.read(PLACE)
    text = CONFIG
    for right, wrong in mistake.items():
        text = text.replace(right, wrong)
    config.write_text(text)
    done = deployed.deploy("--bundle", BUNDLE, "--config", config)
    assert done.returncode == 78, done.stderr
    assert words in done.stderr
    assert "the old configuration stays" in error(done)
    assert (board.show(UNIT, "MainPID"), board.read(PLACE)) == before
    assert not hidden(board)


def test_a_service_that_does_not_come_up_goes_back_to_what_ran(deployed: Desk, config: Path) -> None:
    """What only the unit's own view of the board can show: the old configuration runs again, and nothing is said against it."""
    board = deployed.board
    before = board.read(PLACE)
    board.run("install", "-d", "-m", "755", "/home/pi", "/home/pi/pictures")
    board.copy_in(ROOT / "tests/data/colours.txt", "/home/pi/pictures/1.png")
    config.write_text(CONFIG.replace("type: pattern, max_fps: 2", "type: images, path: /home/pi/pictures"))
    done = deployed.deploy("--config", config)
    assert done.returncode != 0
    assert "the old configuration is back, and runs" in error(done)
    assert "front-door.yaml:1: camera.path" in done.stderr
    assert board.read(PLACE) == before
    board.wait(UNIT, "active")
    assert "reload: done" in board.journal(UNIT).rpartition("all goes on as before")[2]


def test_a_password_is_asked_for_in_the_terminal(deployed: Desk, config: Path) -> None:
    """Where sudo wants one, it is typed once."""

    def answer(said: str) -> str | None:
        return PASSWORD if said.endswith("password for ada: ") else None

    code, said = deployed.type(answer, "--bundle", BUNDLE, "--config", config, user="ada")
    assert code == 0, said
    assert said.count("password for ada: ") == 1
    assert "a result: " in said
    assert not deployed.left_overs()


def test_interrupted_while_it_copies_it_leaves_nothing(deployed: Desk, config: Path) -> None:
    """Ctrl-C in the middle: no folder on the board, no connection here, and what runs runs on."""
    board = deployed.board
    before = board.show(UNIT, "MainPID")
    board.write("/usr/local/bin/readlink", "#!/bin/sh\n", 0o755)  # as if nothing were installed
    # It has not ended yet, however late we are.
    board.write("/usr/local/bin/tar", '#!/bin/sh\n/usr/bin/tar "$@"\nsleep 30\n', 0o755)
    with deployed.start("--bundle", BUNDLE, "--config", config) as child:
        assert child.stdout
        assert any(line.startswith("copying edge-runner") for line in child.stdout)
        time.sleep(0.1)
        os.killpg(child.pid, signal.SIGINT)
        said = child.stdout.read()
    assert child.returncode == 130, said
    board.run("rm", "/usr/local/bin/readlink", "/usr/local/bin/tar")
    wait_until(60, lambda: not deployed.left_overs())
    assert board.show(UNIT, "MainPID") == before
    assert deployed.deploy("--bundle", BUNDLE, "--config", config).returncode == 0


def test_another_model_is_taken_up_by_what_runs(deployed: Desk, config: Path, tmp_path: Path) -> None:
    """The result that is shown is of the new release, and the service was not restarted for it."""
    before = deployed.board.show(UNIT, "MainPID")
    done = deployed.deploy("--bundle", second(BUNDLE, tmp_path / "digits"), "--config", config)
    assert done.returncode == 0, done.stderr
    assert '"model": {"name": "digits", "version": "second"}' in done.stderr
    assert deployed.board.show(UNIT, "MainPID") == before


def test_a_camera_that_is_down_is_said(deployed: Desk, config: Path) -> None:
    """The service runs and tries on; deploy.sh says why there is no result, a second time as well. For a ribbon cable, the
    unit got what that needs, or has it by hand.
    """
    part = f"/etc/systemd/system/{UNIT}.d/csi-camera.conf"
    says_none = "#!/bin/sh\necho 'ERROR: *** no cameras available ***' >&2\nexit 255\n"
    deployed.board.write("/usr/local/bin/rpicam-vid", says_none, 0o755)
    config.write_text(CONFIG.replace("type: pattern, max_fps: 2", "\"type\": 'rpicam'"))
    for _ in range(2):
        done = deployed.deploy("--config", config)
        assert done.returncode == 69, done.stderr
        assert "camera_lost" in error(done)
        deployed.board.run(
            "cp", "--remove-destination", "/opt/edge-runner/current/share/edge-runner/systemd/csi-camera.conf", part
        )
    assert "is the same already" in done.stderr
    assert deployed.board.show(UNIT, "ActiveState") == "active"
    assert "csi-camera.conf" in deployed.board.show(UNIT, "DropInPaths")
    assert "char-media" in deployed.board.show(UNIT, "DeviceAllow")
