"""What the board says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runner.service.device import clock_synced, temperature_c


@pytest.mark.parametrize(
    ("content", "degrees"), [("51540\n", 51.54), ("-5000\n", -5.0), ("", None), ("hot\n", None), (None, None)]
)
def test_temperature(tmp_path: Path, content: str | None, degrees: float | None) -> None:
    """Linux says it in thousandths of a degree; where it says nothing, or nonsense, nothing is known."""
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    if content is not None:
        (zone / "temp").write_text(content)
    assert temperature_c(tmp_path) == degrees


def test_of_this_machine() -> None:
    """Both can be asked anywhere."""
    assert isinstance(clock_synced(), bool)
    assert temperature_c() is None or -50 < temperature_c() < 150
