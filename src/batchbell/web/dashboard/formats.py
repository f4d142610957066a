"""How values are written on a page: times, sizes, numbers, and the colour of a state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
DASH = "–"  # noqa: RUF001
"""Stands for what is not known."""
UNITS = ("B", "KB", "MB", "GB", "TB")

TONES: Mapping[str, str] = {
    "completed": "good",
    "delivered": "good",
    "succeeded": "good",
    "active": "good",
    "ready": "good",
    "done": "good",
    "ok": "good",
    "open": "bad",
    "closed": "good",
    "failed": "bad",
    "lost": "bad",
    "expired": "bad",
    "exhausted": "bad",
    "disabled": "bad",
    "none": "bad",
    "not_ready": "bad",
    "failing": "warn",
    "partial": "warn",
    "held": "warn",
    "note": "warn",
    "unknown": "warn",
    "in_progress": "busy",
    "validating": "busy",
    "finalizing": "busy",
    "cancelling": "busy",
    "pending": "busy",
    "running": "busy",
    "submitting": "busy",
    "waiting": "busy",
}
"""By word: states that are well, want a look, went wrong, or go on. All others are grey."""


def tone(word: object) -> str:
    """The colour of a state."""
    return TONES.get(str(word), "calm")


def words(name: object) -> str:
    """A word of the API as people read it."""
    return str(name).replace("_", " ")


def number(value: float | None) -> str:
    """With separators; a dash for what is not known."""
    return DASH if value is None else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes, in the unit that leaves few digits."""
    if value is None:
        return DASH
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """How long something takes, in two units at most."""
    if seconds is None:
        return DASH
    if seconds < 0.9995:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < HOUR:
        return _two(seconds, MINUTE, "min", 1.0, "s")
    if seconds < DAY:
        return _two(seconds, HOUR, "h", MINUTE, "min")
    return _two(seconds, DAY, "d", HOUR, "h")


def _two(seconds: float, large: float, name: str, small: float, less: str) -> str:
    whole, rest = divmod(int(seconds), int(large))
    left = rest // int(small)
    return f"{whole} {name} {left} {less}" if left else f"{whole} {name}"


def milliseconds(value: float | None) -> str:
    """A time that was measured in milliseconds."""
    return DASH if value is None else duration(value / 1000)


def exact(at: float) -> str:
    """A moment to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def apart(at: float, now: float) -> str:
    """A moment as people say it, seen from `now`."""
    away = abs(now - at)
    if away < 5:
        return "just now"
    if away < MINUTE:
        said = f"{away:.0f} s"
    elif away < HOUR:
        said = f"{away / MINUTE:.0f} min"
    elif away < 2 * DAY:
        said = f"{away / HOUR:.0f} h"
    else:
        said = f"{away / DAY:.0f} days"
    return f"{said} ago" if at <= now else f"in {said}"


@pass_context
def moment(context: Context, at: float | None) -> Markup | str:
    """A moment, relative, with the exact one beside it.

    What a stream sends holds the exact one alone, which does not change: the script makes it
    relative.
    """
    if at is None:
        return DASH
    try:
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return DASH  # a provider's own number, which is no time
    says = exact(at) if context["is_live"] else apart(at, context["now"])
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, exact(at), says)


def percent(part: float, whole: float) -> float:
    """How much of a whole, from 0 to 100, to one digit."""
    return round(100 * min(max(part / whole, 0.0), 1.0), 1) if whole > 0 else 0.0


def most(counts: Mapping[str, int]) -> str:
    """What there is most of."""
    return max(counts, key=lambda one: counts[one])


def path(word: object) -> str:
    """An id as one segment of a URL, whatever it holds."""
    return quote(str(word), safe="")


def pretty(value: Any) -> str:
    """JSON for people; a text that is JSON is laid out, and any other one is left as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    return str(json.dumps(value, indent=2, ensure_ascii=False, default=str))


CODE = Markup("<code>{}</code>")


def ticked(text: str) -> Markup:
    """A sentence in which `commands` and the like stand out."""
    words = text.split("`")
    return Markup("").join(CODE.format(word) if at % 2 else word for at, word in enumerate(words))


def deliveries(count: int) -> str:
    """So many of them."""
    return f"{count:,} delivery" if count == 1 else f"{count:,} deliveries"


FILTERS = {
    "apart": apart,
    "deliveries": deliveries,
    "duration": duration,
    "exact": exact,
    "milliseconds": milliseconds,
    "moment": moment,
    "most": most,
    "number": number,
    "path": path,
    "percent": percent,
    "pretty": pretty,
    "size": size,
    "ticked": ticked,
    "tone": tone,
    "words": words,
}
