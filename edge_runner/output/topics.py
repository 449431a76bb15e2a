"""Where on a broker a daemon publishes what. Pure functions over names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_runner.errors import SettingError

DEVICE, CAMERA = "{device}", "{camera}"
NO_TEXT = r"\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff"  # a broker may end the connection at one (MQTT 5.0, 1.5.4)
WILDCARDS = re.compile(f"[+#{NO_TEXT}]")
UNSAFE = re.compile(f"[/+#{NO_TEXT}]")


@dataclass(frozen=True)
class Topics:
    """A daemon's own `status` and `state`; of each camera, by its name, the topic of its `results` and of its state (`cameras`)."""

    status: str
    state: str
    results: Mapping[str, str]
    cameras: Mapping[str, str]


def topics(template: str, device: str, cameras: Iterable[str]) -> Topics:
    """The topics that follow from `edge-runner/{device}/{camera}`. Raise SettingError where two of them would be the same.

    The daemon's own stand beside the cameras': `edge-runner/{device}/status`. They always tell the device.
    """
    levels = template.split("/")
    above = levels[: next((n for n, level in enumerate(levels) if CAMERA in level), len(levels))]
    own = "/".join(above if any(DEVICE in level for level in above) else [*above, DEVICE])
    results = {camera: filled(template, device, camera) for camera in cameras}
    states = {
        camera: f"{topic}/state" if CAMERA in template else f"{topic}/{safe(camera)}/state"
        for camera, topic in results.items()
    }
    found = Topics(filled(f"{own}/status", device), filled(f"{own}/state", device), results, states)
    owners = {found.status: "the daemon's status", found.state: "its state"}
    apart = {f"the results of camera '{camera}'": topic for camera, topic in results.items() if CAMERA in template}
    apart |= {f"the state of camera '{camera}'": topic for camera, topic in states.items()}
    for owner, topic in apart.items():
        if (first := owners.setdefault(topic, owner)) != owner:
            raise SettingError(
                f"{first} and {owner} would go to one topic, {topic}; name a camera otherwise", key="topic"
            )
    return found


def filled(template: str, device: str, camera: str = "") -> str:
    """A template with its names filled in; what a level of a topic cannot hold becomes an underscore."""
    return template.replace(DEVICE, safe(device)).replace(CAMERA, safe(camera))


def safe(name: str) -> str:
    """A name as one level of a topic."""
    return UNSAFE.sub("_", name.encode("utf-8", "replace").decode()) or "_"


def check_topic(template: str, key: str, *allowed: str) -> None:
    """Raise SettingError, with `key`, where a template is no topic, or has other placeholders than those `allowed`."""
    check_placeholders(template, key, *allowed)
    if not template or WILDCARDS.search(template):
        raise SettingError(f"got '{template}'; allowed: a topic without + and #", key=key)


def check_placeholders(template: str, key: str, *allowed: str) -> None:
    """The second half of that, for names that are no topics."""
    strange = [whole for whole in re.findall(r"\{[^{}]*\}?|\}", template) if whole not in allowed]
    if strange:
        words = " and ".join(allowed) or "none"
        raise SettingError(f"got '{template}', with {strange[0]}; allowed placeholders: {words}", key=key)
