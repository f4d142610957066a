"""Retired words stay out of the documents, and out of the names of rooms that are clean."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tests.docs.test_links import page_name, pages

SRC = Path(__file__).parents[2] / "src" / "batchbell"
RETIRED = (
    "wish", "wishes", "wished", "told", "roster", "crew", "hire", "shelf", "parcel", "parcels",
    "stir", "telling",
)  # fmt: skip
RETIRED_IN_NAMES = frozenset({*RETIRED, "trouble", "troubled", "tell"})
CLEAN = ("api", "core", "files", "net", "providers", "sandbox", "storage", "workers")
"""Rooms whose modules, functions and classes carry no retired word. This list only grows."""
PROSE = re.compile(rf"\b(?:{'|'.join(RETIRED)}|out of force)\b", re.IGNORECASE)
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def retired_in(name: str) -> set[str]:
    """The retired words in a name, whether it is written_so or WrittenSo."""
    return {part.lower() for part in PART.findall(name)} & RETIRED_IN_NAMES


def names(path: Path) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [path.stem, *(node.name for node in ast.walk(tree) if isinstance(node, kinds))]


@pytest.mark.parametrize("path", pages(), ids=page_name)
def test_no_page_uses_a_retired_word(path: Path) -> None:
    assert PROSE.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("room", CLEAN)
def test_no_name_in_a_clean_room_uses_a_retired_word(room: str) -> None:
    files = [p for p in sorted((SRC / room).rglob("*.py")) if p.parent.name != "versions"]
    assert files
    found = [f"{path.name}: {name}" for path in files for name in names(path) if retired_in(name)]
    assert found == []


def test_a_retired_word_is_found_however_it_is_written() -> None:
    assert retired_in("_wanted_wishes") == {"wishes"}
    assert retired_in("ParcelShelf") == {"parcel", "shelf"}
    assert not retired_in("shelter_cruise")
