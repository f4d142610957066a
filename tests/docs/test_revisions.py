"""Migrations or decisions that two branches numbered alike would be one too many."""

from __future__ import annotations

import re
from pathlib import Path

from batchbell.storage import migrations

FIRST = 27
"""The schema of the first release: what came before it was never released, and is one with it."""
VERSIONS = Path(migrations.__file__).parent / "versions"


def test_revisions_are_one_chain_without_gaps() -> None:
    numbers = sorted(file.name[:4] for file in VERSIONS.glob("[0-9]*.py"))
    assert numbers == [f"{number:04}" for number in range(FIRST, FIRST + len(numbers))]
    for file in VERSIONS.glob("[0-9]*.py"):
        text = file.read_text(encoding="utf-8")
        revision = re.search(r'^revision = "(\d+)"', text, re.M)
        down = re.search(r'^down_revision = "(\d+)"', text, re.M)
        assert revision is not None
        assert revision[1] == file.name[:4]
        before = int(revision[1]) - 1
        assert (int(down[1]) if down else FIRST - 1) == before, file.name


def test_decisions_are_numbered_without_twins() -> None:
    records = sorted(Path(__file__).parents[2].glob("docs/adr/*.md"))
    assert [file.name[:4] for file in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    for file in records:
        title = file.read_text(encoding="utf-8").splitlines()[0]
        assert title.startswith(f"# {int(file.name[:4])}. "), file.name
