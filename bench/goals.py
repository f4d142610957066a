"""What was measured, beside a baseline and the goals that were set for it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.run import THIS, Run
from bench.tables import show


@dataclass(frozen=True)
class Goal:
    """`figure` is the name under which benches note it; `least` of it is wanted, or `most`.

    With `times` the goal is so many times the baseline, in its rates.
    """

    figure: str
    most: float | None = None
    least: float | None = None
    times: float | None = None

    def words(self) -> str:
        if self.times is not None:
            return f"≥ {self.times:g} times"
        if self.most is not None:
            return f"≤ {self.most:g}"
        return f"≥ {self.least:,g}"


GOALS = (
    Goal("burst s, SQLite, one URL", most=4),
    Goal("burst s, SQLite, a URL each", most=5),
    Goal("burst CPU ms, SQLite, one URL", most=0.4),
    Goal("burst CPU ms, SQLite, a URL each", most=0.4),
    Goal("burst s, PostgreSQL, one URL", most=4),
    Goal("burst s, PostgreSQL, a URL each", most=5),
    Goal("burst peak MB, SQLite, one URL", most=100),
    Goal("burst peak MB, SQLite, a URL each", most=100),
    Goal("deliveries a second, SQLite", times=4),
    Goal("deliveries a second, PostgreSQL, one worker", times=4),
    Goal("deliveries a second, PostgreSQL, two workers", times=4),
    Goal("deliveries to bare, SQLite", least=0.5),
    Goal("deliveries to bare, PostgreSQL, one worker", least=0.5),
    Goal("deliveries to bare, PostgreSQL, two workers", least=0.5),
    Goal("delivery CPU µs, SQLite", most=100),
    Goal("deliveries a second, one endpoint, 1 ms", least=4000),
    Goal("deliveries a second, one endpoint, 50 ms", least=155),
    Goal("first sweep of 100,000, CPU s", most=7),
    *(
        Goal(f"registrations a second, {database}, {way}", times=4)
        for database in ("SQLite", "PostgreSQL")
        for way in ("awaiter", "watch", "watches in bulk")
    ),
)


def show_goals(run: Run) -> None:
    """One row for each goal of which something was measured; nothing where nothing was."""
    baseline = next(iter(run.trees))
    rows = [_row(run, goal, baseline) for goal in GOALS if (goal.figure, THIS) in run.figures]
    if not rows:
        return
    print("\n## The figures that have goals\n")
    show(["figure", baseline, THIS, "ratio", "goal"], rows)
    print("\nMedians, with the best and the worst round.")


def _row(run: Run, goal: Goal, baseline: str) -> list[str]:
    now = run.figures[goal.figure, THIS]
    before = run.figures.get((goal.figure, baseline), []) if baseline != THIS else []
    ratio = f"{statistics.median(now) / statistics.median(before):.2f}" if before else ""
    few = goal.most is not None
    return [goal.figure, _rounds(before, few=few), _rounds(now, few=few), ratio, goal.words()]


def _rounds(values: Sequence[float], *, few: bool) -> str:
    if not values:
        return ""
    best, worst = sorted((min(values), max(values)), reverse=not few)
    return f"{_figure(statistics.median(values))} ({_figure(best)} to {_figure(worst)})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
