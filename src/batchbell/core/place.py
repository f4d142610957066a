"""Where processes keep results. All that share a database must share one place."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

SEEN_SECONDS = 300.0
"""A place counts as in use for so long after a process has last said so."""


class Place(Struct, frozen=True, kw_only=True):
    """A folder or a bucket, as one process sees it.

    `marker` is an id that is kept in the place itself. Two processes share a place where they read
    the same marker, whatever they call it.
    """

    marker: str
    name: str
    host: str
    seen_at: float

    def __str__(self) -> str:
        return f"{self.name} (host {self.host})"


def in_use(places: Sequence[Place], *, now: float) -> list[Place]:
    """The places that a process has used lately, by anybody's clock."""
    return [place for place in places if abs(now - place.seen_at) <= SEEN_SECONDS]


def apart(places: Sequence[Place], *, now: float) -> str | None:
    """What is wrong where processes keep results in different places; None where nothing is."""
    used = in_use(places, now=now)
    if len(used) < 2:
        return None
    return (
        f"Processes keep results in {len(used)} different places, so links fail on some of them:"
        " set BATCHBELL_RESULTS_URL to one place that all of them share."
    )


def former(places: Sequence[Place], *, now: float, keep_seconds: float) -> list[Place]:
    """The places that are not used any more, and may hold results that are still kept."""
    used = in_use(places, now=now)
    since = now - keep_seconds
    return [place for place in places if place not in used and place.seen_at > since]
