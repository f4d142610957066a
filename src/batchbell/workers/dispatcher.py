"""The dispatcher: claims due deliveries in bulk, sends them at once, settles them in bulk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import structlog

from batchbell import __version__, failpoints
from batchbell.core import health, lifecycle, payload
from batchbell.core.attachment import Attachment, wrapped
from batchbell.core.backoff import SCHEDULE_SECONDS
from batchbell.core.endpoint import request_headers, unsendable
from batchbell.core.errors import StoreUnavailable
from batchbell.core.health import Change
from batchbell.core.model import Claimed, DeliveryState, Endpoint, Mint
from batchbell.core.outcome import Fault, Outcome
from batchbell.core.slots import MOST
from batchbell.group_commit import Gathering, GroupCommit
from batchbell.net.client import Caller
from batchbell.observability import Metrics, log_health
from batchbell.storage import queue
from batchbell.storage.engine import DELIVERIES, Store
from batchbell.storage.queue import START, Claim, Tried
from batchbell.storage.results import with_lines
from batchbell.workers.ring import ROOM, Lane, Ring

log = structlog.get_logger("batchbell.dispatcher")

CLAIM_MOST = 2000
"""Deliveries that one process holds: waiting here, under way, or being written.

Projects share them. New ones are claimed for a project that holds less than half of its share.
"""
CLAIM_STEP = 1000
"""Deliveries that one claim takes at most: while it runs, what came before is sent, and other
processes take their part of what waits."""
SETTLE_MOST = 1000
MARGIN_SECONDS = 10.0
"""A delivery is not sent unless its lease outlives the whole call by this."""
IDLE_SECONDS = 1.0
TOKEN_SECONDS = 0.1
"""It claims no oftener than this for endpoints with a rate limit."""
SETTLE_AGAIN_SECONDS = 0.5
RUSH = 150
"""So many claims and calls within RUSH_SECONDS are a rush: the ends of a page of a list are."""
RUSH_SECONDS = 1.0

USER_AGENT = f"Batchbell/{__version__}"


class Rush:
    """Whether very much is being sent just now."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun = 0.0
        self._seen = 0
        self._until = 0.0

    def note(self, number: int) -> None:
        """Count so many deliveries that were claimed, or calls that have ended."""
        now = self._clock()
        if not self._begun <= now < self._begun + RUSH_SECONDS:
            self._begun, self._seen = now, 0
        self._seen += number
        if self._seen >= RUSH:
            self._until = now + RUSH_SECONDS

    def __bool__(self) -> bool:
        return self._until - RUSH_SECONDS <= self._clock() < self._until


class Dispatcher:
    """See the module. `max_in_flight` calls are under way at once, 8 for one endpoint.

    A quarter more is lent to projects that have less than their share.
    """

    def __init__(
        self,
        store: Store,
        sender: Caller,
        *,
        clock: Callable[[], float],
        mint: Mint,
        rand: Callable[[], float],
        metrics: Metrics,
        max_in_flight: int = 200,
        timeout_seconds: float = 15.0,
        public_url: str = "http://127.0.0.1:3000",
    ) -> None:
        self.name = "dispatcher"
        self.signal = store.signal(DELIVERIES)
        self._store = store
        self._sender = sender
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._metrics = metrics
        self._public_url = public_url
        self._timeout_seconds = timeout_seconds
        self._longest_seconds = timeout_seconds
        self._ring = Ring(max_in_flight)
        self._first = (MOST, min(CLAIM_STEP, 2 * max_in_flight))
        """What a claim takes while nothing is sent, of one endpoint and in all: soon at hand, and
        of many endpoints, so that all calls can begin."""
        self._place = START
        self._writing: Counter[str] = Counter()
        self._closed: frozenset[str] = frozenset()
        self._shut: set[str] = set()
        """Endpoints that wanted no more calls since the latest claim began."""
        self._token_at: float | None = None
        self._rush = Rush(clock)
        self._open = 0
        """What was begun here and has not been written."""
        self._calm = asyncio.Event()
        self._chores: set[asyncio.Task[None]] = set()
        self._settling = Gathering(self._settle_all, most=SETTLE_MOST)
        self._returning = GroupCommit(self._give_back_all, most=SETTLE_MOST)
        metrics.in_flight.set_function(lambda: self._ring.under_way)

    async def step(self) -> bool:
        """Claim what is due and start sending it; whether there was anything to claim."""
        worked = await self.claim()
        self.start_calls()
        return worked

    async def claim(self) -> bool:
        """Take what is due into the ring; whether the ring of endpoints has more to show."""
        projects, another = self._shares()
        self._closed = frozenset(id for id, room in projects.items() if not room)
        self._shut.clear()
        room, step = (ROOM, CLAIM_STEP) if self._open or self._ring.waiting else self._first
        claim = await self._store.write(
            queue.claim_due,
            after=self._place,
            projects=projects,
            project=another,
            rooms=self._ring.rooms(),
            room=room,
            limit=min(step, max([another, *projects.values()])),
            now=self._clock(),
            lease_seconds=2 * self._longest_seconds + MARGIN_SECONDS,
            token=self._mint("lease"),
        )
        if claim.deliveries:
            failpoints.reach(failpoints.AFTER_CLAIM)
            self._rush.note(len(claim.deliveries))
        went_on = claim.place != self._place
        self._place, self._token_at = claim.place, claim.token_at
        self._stretch(claim.endpoints.values())
        self._take_in(claim)
        # Nothing from the middle of a ring to its end: there may be some from its beginning.
        return bool(claim.deliveries or claim.more or went_on)

    def _take_in(self, claim: Claim) -> None:
        """Into the ring; but what is for endpoints that have shut meanwhile goes back."""
        shut = self._shut
        taken = [one for one in claim.deliveries if one.endpoint_id not in shut]
        met = {id: endpoint for id, endpoint in claim.endpoints.items() if id not in shut}
        self._ring.add(taken, met)
        if len(taken) < len(claim.deliveries):
            late = [one for one in claim.deliveries if one.endpoint_id in shut]
            self._begin(self._give_back(late))

    def _shares(self) -> tuple[dict[str, int], int]:
        """How many more deliveries each project may have here, and one that has none."""
        held = Counter(self._ring.held()) + self._writing
        share = CLAIM_MOST // max(1, len(held))
        rooms = {id: share - n if n < share // 2 else 0 for id, n in held.items()}
        return rooms, CLAIM_MOST // (len(held) + 1)

    def _stretch(self, met: Iterable[Endpoint]) -> None:
        """Have leases outlive the longest call met so far.

        What was claimed for less goes back uncounted, and is claimed again.
        """
        longest = max(map(self._timeout, met), default=0.0)
        self._longest_seconds = max(self._longest_seconds, longest)

    def _timeout(self, endpoint: Endpoint) -> float:
        return endpoint.timeout_seconds or self._timeout_seconds

    def rushed(self) -> bool:
        """Whether so much is being sent that what nobody waits for had better wait."""
        return bool(self._rush)

    async def idle_seconds(self) -> float:
        if self._token_at is None:
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(TOKEN_SECONDS, self._token_at - self._clock()))

    async def close(self) -> None:
        """Give back what waits, and let what is under way end and be written."""
        await self._give_back(self._ring.empty())
        await self.calls_ended()

    async def calls_ended(self) -> None:
        """Wait until nothing is under way: sent, answered and written."""
        while self._open:
            self._calm.clear()
            await self._calm.wait()

    def start_calls(self) -> None:
        """Send in turn while there are slots."""
        while next_ := self._ring.take():
            self._open += 1
            self._start(*next_)

    def _start(self, delivery: Claimed, lane: Lane) -> None:
        endpoint = lane.endpoint
        overdrawn = delivery.ends or delivery.life_attempt > len(
            endpoint.schedule or SCHEDULE_SECONDS
        )
        if overdrawn or self._is_late(delivery, endpoint):
            self._free(delivery, endpoint, None)
            self._begin(self._return(delivery, endpoint, overdrawn=overdrawn))
        elif delivery.carries_lines:
            self._begin(self._try_with_lines(delivery, endpoint))
        else:
            self._try(delivery, endpoint, delivery.attachment)

    def _is_late(self, delivery: Claimed, endpoint: Endpoint) -> bool:
        """Whether its lease might end before the call does."""
        needed = self._timeout(endpoint) + MARGIN_SECONDS
        return self._clock() + needed > delivery.lease_until

    async def _try_with_lines(self, delivery: Claimed, endpoint: Endpoint) -> None:
        """Read its lines first: those of all that waits here might take up the memory."""
        assert delivery.attachment is not None
        try:
            attachment = await self._store.read(with_lines, delivery.attachment.id)
        except StoreUnavailable:
            self._free(delivery, endpoint, None)
            self._written([endpoint])
            raise  # it is claimed again when its lease has run out
        except Exception as error:
            self._ended(delivery, endpoint, self._failed(delivery, error))
        else:
            if self._is_late(delivery, endpoint):
                self._free(delivery, endpoint, None)
                await self._return(delivery, endpoint, overdrawn=False)
            else:
                self._try(delivery, endpoint, attachment)
        finally:
            self.start_calls()

    def _try(self, delivery: Claimed, endpoint: Endpoint, attachment: Attachment | None) -> None:
        """Send; the outcome comes later, but where nothing could go out.

        What goes wrong in our own code is a failed attempt too, seen and retried.
        """
        try:
            outcome = unsendable(endpoint, now=self._clock())
            if outcome is None:
                self._send(delivery, endpoint, attachment)
        except Exception as error:
            outcome = self._failed(delivery, error)
        if outcome is not None:
            self._ended(delivery, endpoint, outcome)

    def _failed(self, delivery: Claimed, error: Exception) -> Outcome:
        """What is written of a call that went wrong before it was begun."""
        facts = {"delivery_id": delivery.id, "endpoint_id": delivery.endpoint_id}
        log.error("not sent", **facts, exc_info=error)
        detail = f"Batchbell itself failed to send this: {type(error).__name__}."
        return Outcome(fault=Fault.PROTOCOL, detail=detail, started_at=self._clock())

    def _send(self, delivery: Claimed, endpoint: Endpoint, attachment: Attachment | None) -> None:
        body = payload.dressed(
            delivery.event_body,
            dialect=delivery.dialect,
            watch_id=delivery.watch_id,
            watch_metadata=delivery.watch_metadata,
            message_id=delivery.message_id,
            results=wrapped(
                attachment,
                delivery.results,
                base_url=self._public_url,
                now=delivery.first_due_at,
            ),
            attachment=attachment,
        )
        headers = request_headers(
            endpoint,
            user_agent=USER_AGENT,
            message_id=delivery.message_id or delivery.event_id,
            timestamp=int(self._clock()),
            body=body,
            attempt=delivery.attempt,
        )
        failpoints.reach(failpoints.BEFORE_SEND)
        self._sender.begin(
            endpoint.url,
            headers=headers,
            body=body,
            timeout_seconds=self._timeout(endpoint),
            done=partial(self._answered, delivery, endpoint),
        )

    def _answered(self, delivery: Claimed, endpoint: Endpoint, outcome: Outcome) -> None:
        failpoints.reach(failpoints.AFTER_SEND)
        self._ended(delivery, endpoint, outcome)
        self.start_calls()

    def _ended(self, delivery: Claimed, endpoint: Endpoint, outcome: Outcome) -> None:
        """A call has ended: what it brought is written, together with all else that ends."""
        if _shuts(outcome):
            self._ring.shut(endpoint.id)
            self._shut.add(endpoint.id)
        self._free(delivery, endpoint, outcome)
        now = self._clock()
        settlement = lifecycle.settle(
            outcome,
            attempt=delivery.life_attempt,
            now=now,
            rand=self._rand(),
            schedule=endpoint.schedule,
            parked_seconds=health.parked_seconds(
                endpoint, first_due_at=delivery.first_due_at, now=now
            ),
        )
        self._settling.put((Tried(delivery, outcome, settlement), endpoint))

    def _free(self, delivery: Claimed, endpoint: Endpoint, outcome: Outcome | None) -> None:
        self._writing[endpoint.project_id] += 1
        if self._ring.ended(delivery, outcome):
            self.signal.set()

    async def _return(self, delivery: Claimed, endpoint: Endpoint, *, overdrawn: bool) -> None:
        """Give up what may not be sent any more; give back what cannot be sent in its lease."""
        try:
            if overdrawn:
                now = self._clock()
                await self._store.write(queue.give_up, [delivery], mint=self._mint, now=now)
            else:
                await self._give_back([delivery])
        finally:
            self._written([endpoint])

    async def _settle_all(self, ended: list[tuple[Tried, Endpoint]]) -> None:
        """Write what these calls brought; where that cannot be done, their leases run out."""
        tried = [one for one, _ in ended]
        self._rush.note(len(tried))
        try:
            await self._settle(tried)
        except Exception as error:
            self._fail(error)
        finally:
            for one in tried:
                if _shuts(one.outcome):
                    self._begin(self._give_back(self._ring.open(one.delivery.endpoint_id)))
            self._written([endpoint for _, endpoint in ended])

    async def _settle(self, tried: Sequence[Tried]) -> None:
        """Write the attempts, trying as long as the leases last: what was sent must be known."""
        failpoints.reach(failpoints.BEFORE_SETTLE)
        while True:
            try:
                settled = await self._store.write(
                    queue.settle, tried, mint=self._mint, now=self._clock()
                )
                break
            except StoreUnavailable:
                if self._clock() > min(one.delivery.lease_until for one in tried):
                    raise
                await asyncio.sleep(SETTLE_AGAIN_SECONDS)
        results = Counter(self._report(one, one.delivery.id in settled.written) for one in tried)
        for result, count in results.items():
            self._metrics.attempts.labels(result).inc(count)
        log.info("dispatched", **results)
        for change in settled.changes:
            await self._follow(change)

    def _written(self, endpoints: Sequence[Endpoint]) -> None:
        """So many calls of these endpoints are done with."""
        self._writing.subtract(endpoint.project_id for endpoint in endpoints)
        self._writing = +self._writing
        self._look_again(endpoints)
        self._close(len(endpoints))

    def _look_again(self, endpoints: Sequence[Endpoint]) -> None:
        """Claim once more where an end made room: behind the first of an order, or in a share."""
        if any(endpoint.ordered for endpoint in endpoints):
            self.signal.set()
        elif full := self._closed.intersection(endpoint.project_id for endpoint in endpoints):
            rooms, another = self._shares()
            if any(rooms.get(id, another) for id in full):
                self.signal.set()

    def _close(self, number: int) -> None:
        self._open -= number
        if not self._open:
            self._calm.set()

    def _begin(self, chore: Coroutine[Any, Any, None]) -> None:
        """Do what no call waits for."""
        self._open += 1
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chore_ended)

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        self._close(1)

    def _fail(self, error: BaseException) -> None:
        self._metrics.worker_failures.labels(self.name).inc()
        log.error("call failed; its lease will run out", error=repr(error), exc_info=error)

    async def _follow(self, change: Change) -> None:
        """Have the lane follow what became of its endpoint; what waits for a breaker goes back."""
        log_health(change)
        unbroken = change.before.opened_at is None
        if change.opened or (change.recovered and unbroken):
            self._ring.start_slowly(change.after.id)
        if change.opened:
            await self._give_back(self._ring.open(change.after.id))

    def _report(self, tried: Tried, written: bool) -> str:
        """Measure one attempt, log it if it failed, and say what came of it in a word."""
        delivery, outcome = tried.delivery, tried.outcome
        result = _result(tried, written=written)
        self._metrics.attempt_duration.observe(outcome.duration_ms / 1000)
        if result == DeliveryState.DELIVERED:
            self._metrics.delivery_lag.observe(max(0.0, self._clock() - delivery.occurred_at))
            return result
        log.warning(
            "not delivered",
            delivery_id=delivery.id,
            event_id=delivery.event_id,
            endpoint_id=delivery.endpoint_id,
            attempt=delivery.attempt,
            result=result,
            status=outcome.status,
            fault=outcome.fault,
            ms=round(outcome.duration_ms),
            next_at=tried.settlement.due_at,
        )
        return result

    async def _give_back(self, claimed: Sequence[Claimed]) -> None:
        """Return what was not tried, together with all else that is returned meanwhile.

        Behind an endpoint that hangs, many leases become too short at once: so many writes of
        their own would hold up everybody's.
        """
        await asyncio.gather(*map(self._returning.put, claimed))

    async def _give_back_all(self, claimed: list[Claimed]) -> Sequence[None]:
        try:
            await self._store.write(queue.give_back, claimed, now=self._clock())
        except StoreUnavailable as error:
            log.warning("not given back; the leases will run out", error=str(error))
        return [None] * len(claimed)


def _shuts(outcome: Outcome) -> bool:
    """Whether the endpoint wants no more calls for now: those that wait go back."""
    return outcome.status == 410 or outcome.status in lifecycle.BUSY_STATUSES


def _result(tried: Tried, *, written: bool) -> str:
    if not written:
        return "lease_lost"
    state = tried.settlement.state
    return "retry" if state is DeliveryState.PENDING else state.value
