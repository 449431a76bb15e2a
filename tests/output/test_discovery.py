"""What Home Assistant is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_runner.output.discovery import MOST_LABELS, discovery, discovery_topic, slug
from edge_runner.output.topics import topics

pytestmark = pytest.mark.arm

# The short names that Home Assistant knows (homeassistant/components/mqtt/abbreviations.py), of those that are used here.
SHORT = {
    "": {"dev", "o", "avty_t", "cmps"},
    "dev": {"ids", "name", "mf", "sw"},
    "o": {"name", "sw"},
    "sensor": {
        "p", "uniq_id", "name", "ic", "ent_cat", "stat_t", "val_tpl", "json_attr_t", "dev_cla", "unit_of_meas", "stat_cla",
    },
}  # fmt: skip


def told(
    task: str = "detect", cameras: tuple[str, ...] = ("front-door",), labels: tuple[str, ...] = ()
) -> dict[str, Any]:
    places = topics("edge-runner/{device}/{camera}", "pi-7", cameras)
    message = discovery("board", "pi-7", places, task, labels, "0.1.0")
    again: dict[str, Any] = json.loads(json.dumps(message))
    return again


def test_message() -> None:
    """A board with a camera, whole."""
    message = told(labels=("person",))
    assert message["dev"] == {"ids": ["board"], "name": "pi-7", "mf": "edge-runner", "sw": "0.1.0"}
    assert message["o"] == {"name": "edge-runner", "sw": "0.1.0"}
    assert message["avty_t"] == "edge-runner/pi-7/status"
    assert {key: (c["p"], c["name"], c["stat_t"], c["val_tpl"]) for key, c in message["cmps"].items()} == {
        "health": ("sensor", "Health", "edge-runner/pi-7/state", "{{ value_json.health }}"),
        "temperature": ("sensor", "Temperature", "edge-runner/pi-7/state", "{{ value_json.temperature }}"),
        "front-door.label": (
            "sensor", "front-door label", "edge-runner/pi-7/front-door/state", "{{ (value_json.label or 'none')[:250] }}",
        ),
        "front-door.score": ("sensor", "front-door score", "edge-runner/pi-7/front-door/state", "{{ value_json.score }}"),
        "front-door.count.person": (
            "sensor", "front-door person", "edge-runner/pi-7/front-door/state", '{{ value_json.counts.get("person", 0) }}',
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("detect", {"label", "score", "count"}),
        ("classify", {"label", "score"}),
        ("segment", {"label", "score"}),
        ("pose", {"label", "score"}),
        ("raw", set()),
    ],
)
def test_tasks(task: str, kinds: set[str]) -> None:
    """A camera has the sensors that its task has answers for; counters only where there can be several of a kind."""
    found = {key.split(".")[1] for key in told(task, labels=("person", "cat"))["cmps"] if "." in key}
    assert found == kinds


def test_short_names() -> None:
    """Every key is one that Home Assistant knows."""
    message = told(labels=("person",))
    assert set(message) == SHORT[""]
    assert set(message["dev"]) == SHORT["dev"]
    assert set(message["o"]) == SHORT["o"]
    assert set().union(*message["cmps"].values()) <= SHORT["sensor"]


def test_unique() -> None:
    """Each sensor has an identity of its own, which begins with the board's and does not change."""
    cameras, labels = ("a", "a b", "a_b", "ä"), ("x", "x y", "x_y", "Käse", "x/y")
    first, second = told(cameras=cameras, labels=labels), told(cameras=cameras, labels=labels)
    assert first == second
    idents = [component["uniq_id"] for component in first["cmps"].values()]
    assert len(set(idents)) == len(idents) == 2 + len(cameras) * (2 + len(labels))
    assert all(ident.startswith("board.") for ident in idents)


def test_labels_are_quoted() -> None:
    """A label stands in its template as text, whatever is in it."""
    odd = 'a "quoted" \\ {{ label }} ö'
    key = next(key for key in told(labels=(odd,))["cmps"] if ".count." in key)
    template = told(labels=(odd,))["cmps"][key]["val_tpl"]
    assert template == '{{ value_json.counts.get("a \\"quoted\\" \\\\ {{ label }} ö", 0) }}'


def test_many_labels() -> None:
    """So many labels have a counter, and no more."""
    message = told(labels=tuple(f"label {n}" for n in range(1000)))
    assert sum(".count." in key for key in message["cmps"]) == MOST_LABELS
    assert len(json.dumps(message)) < 40_000


@pytest.mark.parametrize("text", ["pi-7", "a_B-9"])
def test_plain_names_stay(text: str) -> None:
    """A name that Home Assistant allows is left as it is."""
    assert slug(text) == text
    assert discovery_topic("homeassistant", slug(text)) == f"homeassistant/device/{text}/config"


def test_odd_names() -> None:
    """All others become one that it allows, and stay different."""
    odd = ["", "a b", "a_b", "a/b", "Käse", "x" * 41, "x" * 42, "\udc80"]
    slugs = [slug(text) for text in odd]
    assert len(set(slugs)) == len(odd)
    assert all(set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for made in slugs)
    assert all(0 < len(made) < 60 for made in slugs)
