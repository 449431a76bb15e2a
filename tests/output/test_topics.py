"""Where a daemon publishes what."""

from __future__ import annotations

import pytest

from edge_runner.errors import SettingError
from edge_runner.output.topics import check_topic, filled, topics

pytestmark = pytest.mark.arm

BOTH = ("{device}", "{camera}")


@pytest.mark.parametrize(
    ("template", "status", "results", "camera"),
    [
        ("edge-runner/{device}/{camera}", "edge-runner/pi/status", "edge-runner/pi/door", "edge-runner/pi/door/state"),
        ("a/{device}/b/{camera}/c", "a/pi/b/status", "a/pi/b/door/c", "a/pi/b/door/c/state"),
        ("a/{camera}", "a/pi/status", "a/door", "a/door/state"),
        ("{camera}", "pi/status", "door", "door/state"),
        ("a/{device}", "a/pi/status", "a/pi", "a/pi/door/state"),
        ("a", "a/pi/status", "a", "a/door/state"),
        ("a/{device}-{camera}", "a/pi/status", "a/pi-door", "a/pi-door/state"),
    ],
)
def test_what_follows_from_a_template(template: str, status: str, results: str, camera: str) -> None:
    """The daemon's own topics stand beside the cameras', and always tell the device; each camera has a state of its own."""
    found = topics(template, "pi", ["door", "gate"])
    assert (found.status, found.results["door"], found.cameras["door"]) == (status, results, camera)
    assert found.state == status.replace("status", "state")
    assert found.cameras["door"] != found.cameras["gate"]


def test_names_are_made_safe() -> None:
    """What a level of a topic cannot hold becomes an underscore; all else stays."""
    assert filled("{device}/{camera}", "a/b+c#d\n", "Käse links") == "a_b_c_d_/Käse links"
    assert filled("{device}/{camera}", "", "\udc80") == "_/?"


@pytest.mark.parametrize("camera", ["status", "state"])
def test_camera_that_takes_the_daemons_topic(camera: str) -> None:
    """A camera whose results would go where the daemon tells how it is is refused."""
    with pytest.raises(SettingError, match=f"camera '{camera}' would go to edge-runner/pi/{camera}") as caught:
        topics("edge-runner/{device}/{camera}", "pi", ["door", camera])
    assert caught.value.key == "topic"


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("", "without + and #"),
        ("a/#", "without + and #"),
        ("a/+/b", "without + and #"),
        ("a\nb", "without + and #"),
        ("a/{name}", "with {name}; allowed placeholders: {device} and {camera}"),
        ("a/{device", "with {device;"),
        ("a/}", "with };"),
    ],
)
def test_what_is_no_topic(template: str, word: str) -> None:
    """Wildcards and unknown placeholders are refused, in words."""
    with pytest.raises(SettingError) as caught:
        check_topic(template, "topic", *BOTH)
    assert word in str(caught.value)
    assert caught.value.key == "topic"


@pytest.mark.parametrize("template", ["edge-runner/{device}/{camera}", "$aws/rules/x", "/a//b", "ä b"])
def test_what_is_a_topic(template: str) -> None:
    """Everything else is allowed."""
    check_topic(template, "topic", *BOTH)
