"""What can go wrong at a provider, on demand.

A fault waits for a call of its route, lets `skip_calls` of them by, spoils `times` of them and is
gone. Faults of the same route and family wait in line: the first one added is spent first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

ROUTES = (
    "upload",
    "files",
    "file",
    "content",
    "delete_file",
    "create",
    "list",
    "retrieve",
    "cancel",
)
ANY = "*"
STAMPS = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
LATER = (
    "output_file_id",
    "error_file_id",
    "errors",
    "results_url",
    "output_file",
    "error_file",
    "outputs",
)
"""What a batch has none of when it is made."""
NAMED = ("output_file_id", "error_file_id", "results_url", "output_file", "error_file")
"""What names its results."""


class FaultKind(StrEnum):
    """Grouped by family: late, instead of an answer, spoiled answer, of files, rows, lists."""

    SLOW = "slow"
    """The right answer, after `seconds`."""
    HANG = "hang"
    """Nothing until `faults.release()`; then the right answer."""

    RATE_LIMITED = "rate_limited"
    """429 with `Retry-After: retry_after_seconds`."""
    STATUS = "status"
    """`status` (500) in OpenAI's error shape."""
    UNAUTHORIZED = "unauthorized"
    """401, as for a key that was revoked."""
    HTML = "html"
    """A proxy's page with `status`: 200 or 502 are the ones seen in the wild."""
    RESET = "reset"
    """The connection is reset (RST) and nothing is answered."""

    TRUNCATED = "truncated"
    """Whole HTTP, half of the JSON."""
    CUT_OFF = "cut_off"
    """The connection closes in the middle of the announced body."""

    EMPTY = "empty"
    """A file's content has no byte."""
    ERROR_IN_PLACE = "error_in_place"
    """A file's content is a JSON error, with status 200."""
    DUPLICATES = "duplicates"
    """Each line of a file stands there twice, the second time in another way."""
    HALF_PACKED = "half_packed"
    """A file comes as gzip, of which half is sent."""
    CUT_AT = "cut_at"
    """The connection closes after each `bytes` of a file: only ranges bring all of it."""
    REDIRECT = "redirect"
    """A file is at a signed URL of another host, which refuses our API key."""
    DRIP = "drip"
    """A file comes byte by byte, one in `seconds`."""

    LATE_FILE = "late_file"
    """A batch that has ended does not name its output and error file yet."""
    MISSING = "missing"
    """`batch_id` answers 404 (retrieve) or is left out (list)."""
    REWRITE = "rewrite"
    """`fields` replace, and `drop` removes, fields of `batch_id`, or of the first row."""

    SHIFT = "shift"
    """On a list call a new batch appears, and `rows` rows after the cursor are passed over."""
    STALE = "stale"
    """A list shows its batches (or only `batch_id`) as they were when they were made."""
    LOOP = "loop"
    """A list answers every cursor with its first page, and says that there is more."""
    BOMB = "bomb"
    """A list of `rows` rows that are all the number 0."""


LATE = frozenset({FaultKind.SLOW, FaultKind.HANG})
SPOILED_ANSWER = frozenset({FaultKind.TRUNCATED, FaultKind.CUT_OFF})
ROWS = frozenset({FaultKind.MISSING, FaultKind.REWRITE, FaultKind.LATE_FILE, FaultKind.STALE})
PAGES = frozenset({FaultKind.SHIFT, FaultKind.LOOP})
OF_LISTS = PAGES | {FaultKind.STALE, FaultKind.BOMB}
"""They strike no other route."""
CONTENT = frozenset(
    {
        FaultKind.EMPTY,
        FaultKind.ERROR_IN_PLACE,
        FaultKind.DUPLICATES,
        FaultKind.HALF_PACKED,
        FaultKind.CUT_AT,
        FaultKind.REDIRECT,
        FaultKind.DRIP,
    }
)
"""Of files; `batch_id` names the file."""
INSTEAD = frozenset(FaultKind) - LATE - SPOILED_ANSWER - ROWS - CONTENT - PAGES


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault that waits. `times` None means for ever."""

    kind: FaultKind
    route: str = ANY
    times: int | None = 1
    skip_calls: int = 0
    batch_id: str | None = None
    status: int = 500
    retry_after_seconds: float | None = 1
    seconds: float = 1.0
    rows: int = 1
    bytes: int = 65_536
    fields: Mapping[str, Any] = field(default_factory=dict)
    drop: Sequence[str] = ()
    every_row: bool = False
    """Strike every row of the page, and not the first alone, where no `batch_id` is named."""
    carried_out: bool = False
    """The call does what it should all the same: only its answer is lost."""
    message: str | None = None
    code: str | None = None
    """What a `status` says; by default that the server failed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer that takes the right one's place, as an odd `Retry-After`."""
    spent: int = 0

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        if self.route != ANY and self.route not in ROUTES:
            raise ValueError(f"unknown route {self.route!r}: one of {', '.join(ROUTES)} or *")
        if self.kind in OF_LISTS:
            if self.route not in (ANY, "list"):
                raise ValueError(f"{self.kind} is a fault of lists, not of {self.route!r}")
            self.route = "list"
        if self.kind is FaultKind.MISSING and self.batch_id is None:
            raise ValueError("a missing batch needs a batch_id")

    def strikes(self) -> bool:
        """Count a call that matches; whether this one is spoiled."""
        if self.skip_calls > 0:
            self.skip_calls -= 1
            return False
        self.spent += 1
        return True

    @property
    def over(self) -> bool:
        return self.times is not None and self.spent >= self.times

    def as_object(self) -> dict[str, Any]:
        return {"kind": self.kind, "route": self.route, "times": self.times, "spent": self.spent}


class Faults:
    """The faults that wait. Each call of the API asks here what is to go wrong with it."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._released = asyncio.Event()
        self._hanging = 0
        self._hung = asyncio.Condition()

    def add(self, kind: FaultKind | str, *, route: str = ANY, **details: Any) -> Fault:
        """Let something go wrong; `details` are the fields of Fault. `spent` tells how often.

        Raises ValueError or TypeError where that makes no sense.
        """
        fault = Fault(kind=FaultKind(kind), route=route, **details)
        self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        """Nothing goes wrong any more; what hangs is let go."""
        self._waiting.clear()
        self.release()

    def release(self) -> None:
        """Let go of every call that hangs now; a fault that is not spent holds later ones."""
        self._released.set()
        self._released = asyncio.Event()

    def waiting(self) -> list[Fault]:
        return list(self._waiting)

    async def until_hanging(self, calls: int = 1) -> None:
        """Wait until so many calls hang at once."""
        async with self._hung:
            await self._hung.wait_for(lambda: self._hanging >= calls)

    async def hang(self) -> None:
        """Hold the calling request until `release` or `clear`."""
        async with self._hung:
            self._hanging += 1
            self._hung.notify_all()
        try:
            await self._released.wait()
        finally:
            self._hanging -= 1

    def take(
        self, family: frozenset[FaultKind], *, route: str, batch_id: str | None
    ) -> Fault | None:
        """Spend the first fault of the family that fits this call."""
        fitting = self._fitting(family, route, batch_id)
        return self._strike(fitting[0]) if fitting else None

    def take_all(
        self, family: frozenset[FaultKind], *, route: str, batch_id: str | None
    ) -> list[Fault]:
        """Spend every fault of the family that fits this call, each once."""
        fitting = self._fitting(family, route, batch_id)
        return [fault for fault in fitting if self._strike(fault) is not None]

    def _fitting(
        self, family: frozenset[FaultKind], route: str, batch_id: str | None
    ) -> list[Fault]:
        return [
            fault
            for fault in self._waiting
            if fault.kind in family
            and fault.route in (ANY, route)
            and fault.batch_id in (None, batch_id)
        ]

    def spoil(self, rows: list[dict[str, Any]], *, route: str) -> list[dict[str, Any]]:
        """Rows as they are shown: left out, or with fields that are not the truth."""
        for fault in list(self._waiting):
            if fault.kind not in ROWS or fault.route not in (ANY, route):
                continue
            places = _places(rows, fault)
            if places and self._strike(fault) is not None:
                rows = [
                    shown
                    for place, row in enumerate(rows)
                    for shown in (_spoiled(fault, row) if place in places else [row])
                ]
        return rows

    def _strike(self, fault: Fault) -> Fault | None:
        if not fault.strikes():
            return None
        if fault.over:
            self._waiting.remove(fault)
        return fault


def _places(rows: list[dict[str, Any]], fault: Fault) -> range:
    """Where the rows stand that the fault spoils."""
    if fault.batch_id is None:
        every = fault.every_row or fault.kind is FaultKind.STALE
        return range(len(rows) if every else min(1, len(rows)))
    ids = [row.get("id", row.get("name")) for row in rows]
    place = next((i for i, id in enumerate(ids) if id == fault.batch_id), None)
    return range(0) if place is None else range(place, place + 1)


def _spoiled(fault: Fault, row: dict[str, Any]) -> list[dict[str, Any]]:
    match fault.kind:
        case FaultKind.MISSING:
            return []
        case FaultKind.LATE_FILE:
            return [_without_results(row)]
        case FaultKind.STALE:
            return [_as_made(row)]
        case _:
            kept = {name: value for name, value in row.items() if name not in fault.drop}
            return [{**kept, **fault.fields}]


def _without_results(row: dict[str, Any]) -> dict[str, Any]:
    row = {**row, **{name: None for name in NAMED if name in row}}
    if isinstance(row.get("metadata"), dict) and "output" in row["metadata"]:
        inner = {name: value for name, value in row["metadata"].items() if name != "output"}
        return {**row, "metadata": inner, "response": {}}
    return row


def _as_made(row: dict[str, Any]) -> dict[str, Any]:
    if "batchStats" in (row.get("metadata") or {}):
        return _operation_as_made(row)
    nothing_yet = {name: None for name in (*STAMPS, *LATER) if name in row}
    if "processing_status" in row:
        total = sum(row["request_counts"].values())
        counts = {**dict.fromkeys(row["request_counts"], 0), "processing": total}
        nothing_yet |= {"ended_at": None, "cancel_initiated_at": None}
        return {**row, **nothing_yet, "processing_status": "in_progress", "request_counts": counts}
    if "total_requests" in row:
        counts = {f"{name}_requests": 0 for name in ("completed", "succeeded", "failed")}
        nothing_yet |= {"started_at": None}
        return {**row, **nothing_yet, **counts, "errors": [], "status": "QUEUED"}
    counts = {"total": 0, "completed": 0, "failed": 0}
    return {**row, **nothing_yet, "status": "validating", "request_counts": counts}


def _operation_as_made(row: dict[str, Any]) -> dict[str, Any]:
    later = ("output", "endTime")
    inner = {name: value for name, value in row["metadata"].items() if name not in later}
    total = inner["batchStats"]["requestCount"]
    inner["batchStats"] = {"requestCount": total, "pendingRequestCount": total}
    inner["state"] = "BATCH_STATE_PENDING"
    return {"name": row["name"], "metadata": inner}
