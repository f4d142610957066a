"""How often, and how, an account's batches are looked at.

A sweep may list pages or retrieve batches one by one; it takes whichever costs fewer calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from batchbell.core import backoff
from batchbell.core.account import Account, AccountState, Arrivals
from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderRateLimited,
)
from batchbell.core.lifecycle import BATCH_MOVES
from batchbell.core.model import Snapshot

PAGE_SIZE = 100
AUTH_RETRY_SECONDS = 300.0
"""A refused key is tried again this often: it may have been mended without a word to us."""
TROUBLE_MAX_SECONDS = 300.0
UNSWEPT_SECONDS = 60.0
"""A sweep that is due for longer is not late by chance: nobody makes it."""
LIST_CHECK_SWEEPS = 10
READS_LEAST = 16
PROOFS = 3
"""So many ends in a row must have been announced before sweeps relax."""
RELAXED_SECONDS = 240.0
"""As long as sweeps may be apart without an alarm: less than `batchbell_sweep_age_seconds` is
alerted on."""
HINT_SECONDS = 60.0
"""An end that was not announced so long after it is not going to be."""
NONE_YET = Arrivals()
HINT_LOOKS_SECONDS = (2.0, 5.0, 10.0, 20.0, 40.0)
"""How long to wait, after each look at a batch that a hint is about, where it has not ended yet:
what a provider announces, it may show a little later."""


class Pace(Struct, frozen=True, kw_only=True):
    """What the operator allows: seconds between sweeps, and calls a minute for one account.

    And the fewest seconds between two sweeps that the provider asks for.
    """

    poll_interval_seconds: float = 15.0
    calls_per_minute: int = 1200
    look_seconds: float = 0.0
    relaxed_seconds: float = 0.0
    """How long sweeps may be apart where the provider is known to announce ends itself."""

    @property
    def interval_seconds(self) -> float:
        """How long one sweep comes after another, where nothing hinders."""
        return max(self.poll_interval_seconds, self.look_seconds)


def pages_expected(open_batches: int, last_pages: int | None, *, page_size: int = PAGE_SIZE) -> int:
    """How many list pages will cover the open batches: what it took last time, or a guess."""
    fewest = -(-open_batches // page_size)
    return max(fewest, last_pages or 0, 1)


def should_list(unseen: int, pages_read: int, pages_expected: int) -> bool:
    """Whether reading the next page is cheaper than retrieving the unseen one by one.

    Past the expected pages nobody knows how many are left. Giving up after as many more as there
    are unseen costs at most twice what the better way would have cost.
    """
    return unseen > max(1, abs(pages_expected - pages_read))


def reached_oldest(page_times: Sequence[int | None], oldest_open: float | None) -> bool:
    """Whether this page, newest first, already lies before the oldest batch that is open.

    False unless every row says when it was made and the order is seen to hold: no provider
    promises it. `oldest_open` is None while some open batch was never seen.
    """
    if oldest_open is None or not page_times:
        return False
    times = [time for time in page_times if time is not None]
    if len(times) < len(page_times):
        return False
    return times == sorted(times, reverse=True) and times[0] < oldest_open


def reaches(page_times: Sequence[int | None], moment: float) -> bool | None:
    """Whether whatever comes after this page, newest first, was made before the moment.

    None where the page does not tell: a row without a time, or out of order.
    """
    times = [time for time in page_times if time is not None]
    if not times or len(times) < len(page_times) or times != sorted(times, reverse=True):
        return None
    return times[-1] < moment


def is_behind(row: Snapshot, seen: Snapshot) -> bool:
    """Whether a row of the list shows a batch as it was before what was read by its id."""
    if row.status is not seen.status:
        return row.status is None or seen.status in BATCH_MOVES[row.status]
    if row.counts is None or seen.counts is None:
        return False
    done = row.counts.completed + row.counts.failed
    return done < seen.counts.completed + seen.counts.failed


def checks_list(sweep: int) -> bool:
    """Whether the `sweep`th sweep of a process, from 0, holds the list against one batch.

    Every tenth does, and the third: it may not live to see a tenth.
    """
    return sweep % LIST_CHECK_SWEEPS == 2


def reads_max(pace: Pace) -> int:
    """How many batches one sweep may read one by one: what the budget gives in one interval."""
    return max(READS_LEAST, int(pace.calls_per_minute * pace.interval_seconds / 60.0))


def for_hints(pace: Pace) -> Pace:
    """How an account is called again that failed when a batch was to be looked at, whose provider
    says that it has ended: soon, however slowly the account is swept."""
    soon = min(pace.poll_interval_seconds, Pace().poll_interval_seconds)
    return replace(pace, poll_interval_seconds=soon)


def sweeps_all(hinted: int, pages: int) -> bool:
    """Whether so many batches that hints are about are looked at by a sweep of all batches.

    It lists so many pages, which costs fewer calls; but a list may lag behind the batch itself.
    """
    return hinted > max(READS_LEAST, pages)


def look_again(looks: int, now: float) -> float | None:
    """When to look again at a batch that has not ended after all, once it was looked at before.

    `looks` are those before the one that has just been. None: from now on polls are enough.
    """
    return now + HINT_LOOKS_SECONDS[looks] if looks < len(HINT_LOOKS_SECONDS) else None


def was_announced(
    *, ended_at: float | None, known_since: float, hinted_at: float | None, now: float
) -> bool | None:
    """Whether the provider has announced an end in time that is seen now, for the first time.

    None where that cannot be said: it may still come, or came before the batch was known.
    """
    if hinted_at is not None:
        return True
    if ended_at is None or ended_at <= known_since or now - ended_at < HINT_SECONDS:
        return None
    return False


def after_ends(arrivals: Arrivals, announced: Iterable[bool | None], *, now: float) -> Arrivals:
    """How webhooks of the provider arrive, after these ends were seen together."""
    found = [one for one in announced if one is not None]
    if not all(found):
        return replace(arrivals, in_a_row=0, missed_at=now)
    return replace(arrivals, in_a_row=arrivals.in_a_row + len(found))


def is_relaxed(arrivals: Arrivals, pace: Pace) -> bool:
    """Whether sweeps are a safety net only, because the provider announces ends itself."""
    return arrivals.in_a_row >= PROOFS and pace.relaxed_seconds > pace.interval_seconds


def next_sweep(
    *, now: float, calls: int, pace: Pace, rand: float, arrivals: Arrivals = NONE_YET
) -> float:
    """When to sweep again after a good sweep that took `calls` calls.

    Up to 3 % early, so that accounts spread out, but never above the call budget.
    """
    seconds = pace.relaxed_seconds if is_relaxed(arrivals, pace) else pace.poll_interval_seconds
    interval = seconds * (0.97 + 0.03 * rand)
    return now + max(interval, rest_seconds(calls, pace))


def rest_seconds(calls: int, pace: Pace) -> float:
    """How long after a sweep of `calls` calls none begins, whoever asks for it."""
    return max(budget_seconds(calls, pace), pace.look_seconds)


def budget_seconds(calls: int, pace: Pace) -> float:
    """The time that the budget gives so many calls."""
    return calls * 60.0 / pace.calls_per_minute


def seconds_ahead(calls: int, *, elapsed_seconds: float, pace: Pace) -> float:
    """How long a sweep that has made `calls` calls in this time must wait before the next one.

    What fits into one poll interval goes out at once; the rest at the budget's rate.
    """
    return budget_seconds(calls, pace) - pace.interval_seconds - elapsed_seconds


def unswept(account: Account, now: float) -> str | None:
    """Why an account is not swept, though it should be; None where all is well.

    Judged by the account's row alone, so that it is true where no worker lives. Sweeps that fail
    are sweeps: `reason` says why.
    """
    if account.state is AccountState.PAUSED:
        return None
    if account.swept_at is not None and account.swept_at > now + UNSWEPT_SECONDS:
        return "It was last swept in the future: has the clock been put back?"
    due_at = account.due_at if account.lease_until is None else account.lease_until
    late = now - max(due_at, account.not_before)
    if late <= UNSWEPT_SECONDS:
        return None
    return (
        f"A sweep has been due for {late:.0f} s, and no worker makes it. Is a worker running, and"
        " does it have the account's API key?"
    )


def sweep_age(account: Account, now: float) -> float | None:
    """Seconds since a sweep of the account last ended well, or since it was added.

    None where it is paused.
    """
    if account.state is AccountState.PAUSED:
        return None
    since = account.created_at if account.succeeded_at is None else account.succeeded_at
    return max(0.0, now - since)


def after_failure(
    error: ProviderError, *, failures: int, now: float, pace: Pace, rand: float
) -> float:
    """When to call the account again after `failures` failed sweeps in a row.

    Never sooner than the provider asks for: it has seen the calls that failed, too.
    """
    again = _after_failure(error, failures=failures, now=now, pace=pace, rand=rand)
    return max(again, now + pace.look_seconds)


def _after_failure(
    error: ProviderError, *, failures: int, now: float, pace: Pace, rand: float
) -> float:
    if isinstance(error, ProviderAuthError | ProviderBillingError):
        wait = backoff.jittered(max(AUTH_RETRY_SECONDS, pace.poll_interval_seconds), rand)
    else:
        wait = backoff.exponential(
            failures,
            base_seconds=pace.poll_interval_seconds,
            max_seconds=max(TROUBLE_MAX_SECONDS, pace.poll_interval_seconds),
            rand=rand,
        )
    if error.retry_after_seconds is None:
        return now + wait
    asked = min(error.retry_after_seconds, backoff.RETRY_AFTER_MAX_SECONDS)
    if isinstance(error, ProviderRateLimited):
        # The provider knows best, but "0 seconds" must not become a tight loop.
        return now + max(asked, pace.poll_interval_seconds)
    return now + max(asked, wait)
