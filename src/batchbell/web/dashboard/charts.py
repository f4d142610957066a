"""Charts, drawn by the server: bars of what happened in each step of a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchbell.storage.overview import Period
from batchbell.web.dashboard.formats import exact

HEIGHT = 100.0
WIDTH = 8.0
GAP = 2.0
SMALLEST = 1.5
"""What happened at all is seen, however much happened elsewhere."""
TICKS = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """One colour of a chart."""

    words: str
    tone: str
    total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Of a bar, in the units of the drawing."""

    tone: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    says: str
    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws."""

    says: str
    """All of it in a sentence, for those who cannot see it."""
    kinds: Sequence[Kind]
    bars: Sequence[Bar]
    width: float
    most: int
    ticks: Sequence[float]
    """Moments along the bottom, from the first step to the last."""


def chart(
    what: str, within: Period, steps: Sequence[Mapping[Any, int]], kinds: Mapping[str, str]
) -> Chart:
    """A bar for each step, of the `kinds`: what they are called, and the tone of each."""
    sums = {kind: sum(step.get(kind, 0) for step in steps) for kind in kinds}
    most = max((sum(step.values()) for step in steps), default=0)
    bars = [_bar(at, within, step, kinds, most) for at, step in enumerate(steps)]
    named = ", ".join(f"{number:,} {kind}" for kind, number in sums.items() if number)
    marks = [within.begin_of(within.steps * at // TICKS) for at in range(TICKS)]
    return Chart(
        says=f"{what}: {named or 'none'}.",
        kinds=[Kind(kind, tone, sums[kind]) for kind, tone in kinds.items()],
        bars=bars,
        width=within.steps * (WIDTH + GAP) - GAP,
        most=most,
        ticks=marks,
    )


def _bar(
    at: int, within: Period, step: Mapping[str, int], kinds: Mapping[str, str], most: int
) -> Bar:
    pieces: list[Piece] = []
    y = HEIGHT
    for kind, tone in kinds.items():
        if number := step.get(kind, 0):
            height = max(SMALLEST, round(HEIGHT * number / most, 2))
            y = max(0.0, round(y - height, 2))
            pieces.append(Piece(tone, y, height))
    named = ", ".join(f"{step[kind]:,} {kind}" for kind in kinds if step.get(kind))
    says = f"{exact(within.begin_of(at))}: {named or 'none'}"
    return Bar(at * (WIDTH + GAP), says, pieces)
