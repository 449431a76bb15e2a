"""The documents beside the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document names a file that is there."""
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8"))
    missing = [t for t in targets if not t.startswith(("http://", "https://")) and not (document.parent / t).exists()]
    assert not missing


def test_readme_names_every_document() -> None:
    """Whoever reads the README finds the way to each of the docs."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert not [path.name for path in ROOT.glob("docs/*.md") if f"docs/{path.name}" not in text]
