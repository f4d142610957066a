"""Where a batch stands at a given moment: a pure function of its schedule and the time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from batchbell.core.model import Status
from batchbell.sandbox.answers import invalid

ENDS = (Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long a batch spends in each state, and how it ends.

    `fail_fraction` of the requests that are executed fail. `done_fraction` is the part that is
    executed before a batch expires or is cancelled by itself; a completed one executes all.
    A batch that ends as `failed` fails when validation is over, for want of token quota. One that
    stalls stays in progress for ever, when this part of its requests is done. `expires_seconds`
    only sets the `expires_at` that is shown: as at Azure, a batch may run on after it.
    """

    validating_seconds: float = 0.05
    in_progress_seconds: float = 0.2
    finalizing_seconds: float = 0.05
    cancelling_seconds: float = 0.05
    fail_fraction: float = 0.0
    done_fraction: float = 0.5
    ends_as: Status = Status.COMPLETED
    stalls_at: float | None = None
    expires_seconds: float = 86_400.0

    @classmethod
    def lasting(cls, seconds: float) -> Schedule:
        """A whole run of `seconds`: a tenth validating, a tenth finalizing, the rest working."""
        return cls(
            validating_seconds=seconds / 10,
            in_progress_seconds=seconds * 8 / 10,
            finalizing_seconds=seconds / 10,
        )

    def overridden(self, metadata: Mapping[str, str]) -> Schedule:
        """With what a batch's metadata asks for: `sandbox_seconds`, `_fail`, `_ends`, `_stalls`,
        `_expires`.

        Raises ApiError (400) when one of them makes no sense.
        """
        plan = self
        if "sandbox_seconds" in metadata:
            timed = Schedule.lasting(_number(metadata, "sandbox_seconds", maximum=1e9))
            plan = replace(timed, fail_fraction=self.fail_fraction, ends_as=self.ends_as)
        if "sandbox_fail" in metadata:
            plan = replace(plan, fail_fraction=_number(metadata, "sandbox_fail", maximum=1.0))
        if "sandbox_ends" in metadata:
            plan = replace(plan, ends_as=_end(metadata["sandbox_ends"]))
        if "sandbox_stalls" in metadata:
            plan = replace(plan, stalls_at=_number(metadata, "sandbox_stalls", maximum=1.0))
        if "sandbox_expires" in metadata:
            seconds = _number(metadata, "sandbox_expires", maximum=1e9)
            plan = replace(plan, expires_seconds=seconds)
        return plan


OPEN = Schedule(validating_seconds=0.0, in_progress_seconds=math.inf)
"""In progress until a test says otherwise."""


def _number(metadata: Mapping[str, str], name: str, *, maximum: float) -> float:
    try:
        number = float(metadata[name])
    except ValueError:
        raise invalid(f"metadata.{name}", "expected a number.") from None
    if not 0 <= number <= maximum:
        raise invalid(f"metadata.{name}", f"expected a number from 0 to {maximum:g}.")
    return number


def _end(word: str) -> Status:
    if word not in ENDS:
        raise invalid("metadata.sandbox_ends", f"expected one of {', '.join(ENDS)}.")
    return Status(word)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a batch stands: `stamps` maps OpenAI's field names to epoch seconds."""

    status: Status
    completed: int = 0
    failed: int = 0
    stamps: Mapping[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.completed + self.failed


def progress(
    plan: Schedule,
    *,
    created_at: float,
    total: int,
    valid: bool,
    cancelled_at: float | None,
    now: float,
) -> Progress:
    """Where a batch of `total` requests stands at `now`; `cancelled_at` is when that was asked.

    A request to cancel that comes after the end changes nothing.
    """
    validated = created_at + plan.validating_seconds
    worked = validated + plan.in_progress_seconds if plan.stalls_at is None else math.inf
    fails = not valid or plan.ends_as is Status.FAILED
    ended = validated if fails else worked + plan.finalizing_seconds
    if plan.ends_as is Status.CANCELLED and not fails:
        cancelled_at = min(worked, worked if cancelled_at is None else cancelled_at)
        ended = math.inf
    if cancelled_at is not None and cancelled_at <= now and cancelled_at < ended:
        return _cancelled(plan, validated, total, asked_at=cancelled_at, now=now)
    if now < validated:
        return Progress(Status.VALIDATING)
    if fails:
        return Progress(Status.FAILED, stamps={"failed_at": int(validated)})
    stamps = {"in_progress_at": int(validated)}
    completed, failed = _counts(plan, total, worked_seconds=now - validated)
    if now < worked:
        return Progress(Status.IN_PROGRESS, completed, failed, stamps)
    stamps["finalizing_at"] = int(worked)
    if now < ended:
        return Progress(Status.FINALIZING, completed, failed, stamps)
    stamps[f"{plan.ends_as}_at"] = int(ended)
    return Progress(plan.ends_as, completed, failed, stamps)


def _cancelled(
    plan: Schedule, validated: float, total: int, *, asked_at: float, now: float
) -> Progress:
    stamps = {"cancelling_at": int(asked_at)}
    completed = failed = 0
    if asked_at >= validated:
        stamps["in_progress_at"] = int(validated)
        completed, failed = _counts(plan, total, worked_seconds=asked_at - validated)
    ended = asked_at + plan.cancelling_seconds
    if now < ended:
        return Progress(Status.CANCELLING, completed, failed, stamps)
    stamps["cancelled_at"] = int(ended)
    return Progress(Status.CANCELLED, completed, failed, stamps)


def _counts(plan: Schedule, total: int, *, worked_seconds: float) -> tuple[int, int]:
    part = 1.0
    if worked_seconds < plan.in_progress_seconds:
        part = worked_seconds / plan.in_progress_seconds
    share = 1.0 if plan.ends_as is Status.COMPLETED else plan.done_fraction
    share = share if plan.stalls_at is None else plan.stalls_at
    done = int(total * share * part)
    failed = round(done * plan.fail_fraction)
    return done - failed, failed
