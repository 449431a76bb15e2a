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
    assert filled("{device}/{camera}", "\x85", "a\uffff") == "_/a_"


@pytest.mark.parametrize(
    ("template", "cameras", "owners"),
    [
        ("edge-runner/{device}/{camera}", ["door", "status"], "the daemon's status and the results of camera 'status'"),
        ("edge-runner/{device}/{camera}", ["door", "state"], "its state and the results of camera 'state'"),
        ("edge-runner/{camera}", ["door", "pi"], "its state and the state of camera 'pi'"),
        (
            "edge-runner/{device}/{camera}",
            ["a+b", "a/b"],
            "the results of camera 'a\\+b' and the results of camera 'a/b'",
        ),
        ("edge-runner/{device}", ["a+b", "a/b"], "the state of camera 'a\\+b' and the state of camera 'a/b'"),
    ],
)
def test_one_topic_for_two(template: str, cameras: list[str], owners: str) -> None:
    """Names of cameras by which two things would be published on one topic are refused; results may share one that is meant so."""
    with pytest.raises(SettingError, match=f"{owners} would go to one topic, ") as caught:
        topics(template, "pi", cameras)
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
