"""The diagrams in the docs are the tables of the law."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchbell.core.health import ENDPOINT_MOVES
from batchbell.core.lifecycle import BATCH_MOVES, DELIVERY_MOVES

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "lifecycle.md"
DIAGRAM = re.compile(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MOVE = re.compile(r"\s*(\[\*\]|[a-z_]+) --> ([a-z_]+)")
START = "[*]"

Moves = set[tuple[str, str]]


def diagrams() -> list[Moves]:
    """The arrows of each diagram. A line that is no arrow fails the test, and so does a twin."""
    drawn = []
    for block in DIAGRAM.findall(PAGE.read_text(encoding="utf-8")):
        arrows = [MOVE.fullmatch(line) for line in block.splitlines()]
        assert all(arrows), f"not an arrow: {block.splitlines()[arrows.index(None)]!r}"
        moves = [(arrow[1], arrow[2]) for arrow in arrows if arrow]
        assert len(moves) == len(set(moves)), "an arrow is drawn twice"
        drawn.append(set(moves))
    return drawn


def moves_of(table: Mapping[str, frozenset[str]]) -> Moves:
    return {(str(here), str(there)) for here, moves in table.items() for there in moves}


def test_there_is_a_diagram_for_each_table() -> None:
    assert len(diagrams()) == 3


@pytest.mark.parametrize(
    ("index", "table", "first"),
    [
        (0, BATCH_MOVES, "validating"),
        (1, DELIVERY_MOVES, "pending"),
        (2, ENDPOINT_MOVES, "active"),
    ],
    ids=["batch", "delivery", "endpoint"],
)
def test_a_diagram_shows_the_moves_of_its_table_and_no_others(
    index: int, table: Mapping[str, frozenset[str]], first: str
) -> None:
    drawn = diagrams()[index]
    assert drawn - {(START, first)} == moves_of(table)
    assert (START, first) in drawn


@pytest.mark.parametrize(
    "table",
    [BATCH_MOVES, DELIVERY_MOVES, ENDPOINT_MOVES],
    ids=["batch", "delivery", "endpoint"],
)
def test_each_state_is_explained_in_a_row_of_its_own(table: Mapping[str, object]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for state in table:
        assert len(re.findall(rf"^\| `{state}` \|", text, re.MULTILINE)) == 1, state
