"""The timeline of a batch, as people read it: when, how long after registering, and what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchbell.cli.output import moment, plain, print_grid, say

if TYPE_CHECKING:
    from batchbell.client import Timeline

UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def print_timeline(found: Timeline) -> None:
    """A line for each entry, the oldest first; what is left out is said on standard error."""
    print_grid(
        [
            ([(str(moment(one.at)), ""), (after(one.after_seconds), "dim")], plain(one.says))
            for one in found.data
        ]
    )
    for name in found.left_out:
        of_it = "" if name == "attempts" else f": batchbell list {name} --batch {found.batch_id}"
        say(f"There are more {name} than are shown here{of_it}")


def after(seconds: float) -> str:
    """`+0.25 s`, `+3 min 20 s`, `-2 h 5 min`: at most two units."""
    sign, left = "-" if seconds < 0 else "+", abs(seconds)
    if left < 10:
        return f"{sign}{left:.3g} s"
    whole = round(left)
    parts: list[tuple[int, str]] = []
    for size, unit in UNITS:
        number, whole = divmod(whole, size)
        if number or parts:
            parts.append((number, unit))
    return sign + " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)
