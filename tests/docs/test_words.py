"""Retired words stay out of the documents, and out of every name in the code."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest
from tests.docs.test_links import page_name, pages

SRC = Path(__file__).parents[2] / "src" / "batchbell"
RETIRED = (
    "wish", "wishes", "wished", "told", "roster", "crew", "hire", "shelf", "parcel", "parcels",
    "stir", "telling",
)  # fmt: skip
RETIRED_IN_NAMES = frozenset({*RETIRED, "trouble", "troubled", "tell"})
KEPT = frozenset({"TROUBLE_SECONDS", "TROUBLE_MOST_SECONDS", "TROUBLE_MAX_SECONDS"})
"""Waits that others than we shorten, by these names."""
PROSE = re.compile(rf"\b(?:{'|'.join(RETIRED)}|out of force)\b", re.IGNORECASE)
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def retired_in(name: str) -> set[str]:
    """The retired words in a name, whether it is written_so or WrittenSo."""
    return {part.lower() for part in PART.findall(name)} & RETIRED_IN_NAMES


def names(path: Path) -> set[str]:
    """Every name that a module says: its own, those that it defines, and those that it uses."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return {path.stem, *(token.string for token in tokens if token.type == tokenize.NAME)}


@pytest.mark.parametrize("path", pages(), ids=page_name)
def test_no_page_uses_a_retired_word(path: Path) -> None:
    assert PROSE.findall(path.read_text(encoding="utf-8")) == []


def test_no_name_uses_a_retired_word() -> None:
    files = [path for path in sorted(SRC.rglob("*.py")) if path.parent.name != "versions"]
    assert files
    found = [
        f"{path.name}: {name}" for path in files for name in names(path) - KEPT if retired_in(name)
    ]
    assert found == []


def test_a_retired_word_is_found_however_it_is_written() -> None:
    assert retired_in("_wanted_wishes") == {"wishes"}
    assert retired_in("ParcelShelf") == {"parcel", "shelf"}
    assert not retired_in("shelter_cruise")
