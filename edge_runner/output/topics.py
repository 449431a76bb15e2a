"""Where on a broker a daemon publishes what. Pure functions over names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_runner.errors import SettingError

DEVICE, CAMERA = "{device}", "{camera}"
WILDCARDS = re.compile(r"[+#\x00-\x1f\x7f]")
UNSAFE = re.compile(r"[/+#\x00-\x1f\x7f]")


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
    for camera, topic in results.items():
        if topic in (found.status, found.state):
            raise SettingError(
                f"the results of camera '{camera}' would go to {topic}, where the daemon tells how it is; name it otherwise",
                key="topic",
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
