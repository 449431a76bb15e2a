"""What Home Assistant is told, so that a board and its cameras appear there by themselves. Pure functions.

The message is its device discovery (home-assistant.io/integrations/mqtt, since 2024.11), with the short names that it allows.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from edge_runner.output.topics import Topics

MOST_LABELS = 100  # of which each camera has a counter: more is no help to anyone, and a large message
MOST_STATE_CHARS = 250  # Home Assistant refuses a state of more than 255
SLUG_CHARS = 40
WITH_ANSWERS = ("classify", "detect", "segment", "pose")
WITH_COUNTS = ("detect",)

Entity = dict[str, Any]


def discovery_topic(prefix: str, ident: str) -> str:
    """Where the message goes, retained. `ident` is what `slug` makes."""
    return f"{prefix}/device/{ident}/config"


def discovery(
    ident: str, device: str, topics: Topics, task: str, labels: Sequence[str], version: str
) -> dict[str, Any]:
    """The message: sensors for each camera's last label, its score, a count for each label, and the board's health and heat.

    `ident` is unique to the daemon and stays the same, so that Home Assistant knows it again; so do all `uniq_id`.
    """
    entities = [*_board(topics)]
    for camera, topic in topics.cameras.items():
        entities += _camera(camera, topic, task, labels)
    return {
        "dev": {"ids": [ident], "name": device, "mf": "edge-runner", "sw": version},
        "o": {"name": "edge-runner", "sw": version},
        "avty_t": topics.status,
        "cmps": {key: {"p": "sensor", "uniq_id": f"{ident}.{key}", **entity} for key, entity in entities},
    }


def counted(labels: Sequence[str]) -> Sequence[str]:
    """The labels that have a counter."""
    return labels[:MOST_LABELS]


def slug(text: str) -> str:
    """A name of the characters that Home Assistant allows; different for different texts, always the same for one."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    if cleaned == text and 0 < len(text) <= SLUG_CHARS:
        return text
    return f"{cleaned[:SLUG_CHARS]}-{zlib.crc32(text.encode('utf-8', 'replace')):08x}"


def _board(topics: Topics) -> Iterable[tuple[str, Entity]]:
    yield (
        "health",
        {
            "name": "Health",
            "ic": "mdi:heart-pulse",
            "ent_cat": "diagnostic",
            "stat_t": topics.state,
            "val_tpl": _template("value_json.health"),
            "json_attr_t": topics.state,
        },
    )
    yield (
        "temperature",
        {
            "name": "Temperature",
            "dev_cla": "temperature",
            "unit_of_meas": "°C",
            "stat_cla": "measurement",
            "ent_cat": "diagnostic",
            "stat_t": topics.state,
            "val_tpl": _template("value_json.temperature"),
        },
    )


def _camera(camera: str, topic: str, task: str, labels: Sequence[str]) -> Iterable[tuple[str, Entity]]:
    if task in WITH_ANSWERS:
        text = f"(value_json.label or 'none')[:{MOST_STATE_CHARS}]"
        yield (
            f"{slug(camera)}.label",
            {"name": f"{camera} label", "ic": "mdi:label", "stat_t": topic, "val_tpl": _template(text)},
        )
        yield (
            f"{slug(camera)}.score",
            {
                "name": f"{camera} score",
                "ic": "mdi:percent-circle",
                "stat_cla": "measurement",
                "stat_t": topic,
                "val_tpl": _template("value_json.score"),
            },
        )
    for label in counted(labels) if task in WITH_COUNTS else ():
        yield (
            f"{slug(camera)}.count.{slug(label)}",
            {
                "name": f"{camera} {label}",
                "ic": "mdi:counter",
                "stat_cla": "measurement",
                "stat_t": topic,
                "val_tpl": _template(f"value_json.counts.get({json.dumps(label, ensure_ascii=False)}, 0)"),
            },
        )


def _template(expression: str) -> str:
    return "{{ " + expression + " }}"
