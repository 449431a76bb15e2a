"""What instances of the service say of themselves, as others read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge_runner.service.instances import HEALTH_FILE, Account, accounts, stand_in

MODEL = {"name": "digits", "version": "3f2a9c1d"}


def say(run: Path, instance: str, text: str) -> Path:
    path = run / instance / HEALTH_FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_by_name(tmp_path: Path) -> None:
    """Each instance that has a health file is there, with what it says; one with a folder only is not."""
    say(tmp_path, "yard", json.dumps({"health": "running", "model": MODEL}))
    say(tmp_path, "door", json.dumps({"health": "degraded"}))
    (tmp_path / "hall").mkdir()
    found = accounts(tmp_path)
    assert list(found) == ["door", "yard"]
    assert found["yard"] == Account({"health": "running", "model": MODEL})
    assert found["yard"].model == ("digits", "3f2a9c1d")
    assert found["door"].model is None
    assert accounts(tmp_path / "none") == {}


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "\udcff"])
def test_nothing_sensible(tmp_path: Path, text: str) -> None:
    """An instance that says nothing sensible is there, and has said nothing."""
    say(tmp_path, "door", "").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert accounts(tmp_path) == {"door": Account()}


@pytest.mark.parametrize("model", [None, [], "digits", {"name": "digits"}, {"version": "1"}])
def test_no_model(model: Any) -> None:
    """Of a model without its name or its version, nothing is known."""
    assert Account({"model": model}).model is None


def test_a_service_s_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read as its unit has it read, where nothing else was said."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    stand_in(tmp_path / "door.yaml")
    assert "LOGS_DIRECTORY" not in os.environ
    stand_in(Path("/etc/edge-runner/door.yaml"))
    assert os.environ["LOGS_DIRECTORY"] == "/var/log/edge-runner/door"
    stand_in(Path("/etc/edge-runner/gate.yaml"))
    assert os.environ["LOGS_DIRECTORY"] == "/var/log/edge-runner/door"
