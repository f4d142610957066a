"""What must hold after a round: nothing is lost, and nothing told again but what was in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.conftest import Town, told_of

from batchbell.core.slots import MOST
from batchbell.sandbox import Hang, Received, Reset, Respond


@dataclass(frozen=True)
class Call:
    """One webhook as its receiver got it, and what it did."""

    hook: Received
    answer: Respond | Hang | Reset

    @property
    def accepted(self) -> bool:
        return isinstance(self.answer, Respond) and self.answer.status == 200

    @property
    def told(self) -> tuple[str, str]:
        """Who was told of which batch."""
        return self.hook.path, told_of(self.hook)

    @property
    def attempt(self) -> tuple[str, str, int]:
        return *self.told, int(self.hook.headers["webhook-attempt"])


@dataclass
class Seen:
    """What a round has asked for and done, and what its receivers got."""

    ids: list[str] = field(default_factory=list)
    """Batches that were registered: the server has said so."""
    watched: list[tuple[str, str]] = field(default_factory=list)
    """Who is to hear of which of them."""
    standing: list[str] = field(default_factory=list)
    """Who is to hear of all of them."""
    ordered: str = ""
    limited: tuple[str, float] = ("", 0.0)
    """An endpoint, and how many calls a second it may get."""
    calls: list[Call] = field(default_factory=list)
    kills: int = 0
    """Of processes that deliver."""
    renewals: int = 0
    """Replays that gave new ids."""
    held: int = 0
    """What was set aside, and handed over at last."""
    calls_before_recovery: Counter[str] = field(default_factory=Counter)

    def registered(self, ids: Sequence[str], paths: Sequence[str]) -> None:
        self.ids += ids
        self.watched += zip(paths, ids, strict=True)

    @property
    def wanted(self) -> list[tuple[str, str]]:
        return [*self.watched, *((path, id) for path in self.standing for id in self.ids)]


@dataclass(frozen=True)
class Verdict:
    """What a round has proven, in numbers."""

    rounds: int = 0
    kills: int = 0
    deliveries: int = 0
    duplicates: int = 0
    """2xx that nobody lived to write down, so that they were asked for again."""
    unwritten: int = 0
    """Those, and the failures that nobody wrote down."""
    begun: int = 0
    """Deliveries that replays began again."""
    pulled: int = 0
    """Retries that the end of an outage pulled forward."""
    held: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.deliveries} deliveries, 0 lost,"
            f" {self.duplicates} duplicates; {self.unwritten} calls in flight at kills,"
            f" {self.begun} sent again by replays, {self.held} held for a while,"
            f" {self.pulled} pulled forward"
        )


def judge(town: Town, seen: Seen) -> Verdict:
    """Raises AssertionError for what must not be."""
    accepted = {call.told for call in seen.calls if call.accepted}
    _nothing_is_lost(town, seen, accepted)
    written = set(_of_paths(town, ATTEMPTS))
    unwritten = [call for call in seen.calls if call.attempt not in written]
    duplicates = sum(call.accepted for call in unwritten)
    endpoints = len({call.hook.path for call in seen.calls})
    assert len(unwritten) <= seen.kills * MOST * endpoints, f"{len(unwritten)} of {seen.kills}"
    begun, pulled = _nothing_is_told_for_nothing(town, seen)
    _order_is_kept(town, seen)
    _the_rate_is_kept(town, seen)
    _who_is_deleted_hears_no_more(town, seen)
    assert town.receiver.bad_signatures == 0
    numbers = {"begun": begun, "pulled": pulled, "held": seen.held, "kills": seen.kills}
    what_came = {"duplicates": duplicates, "unwritten": len(unwritten)}
    return Verdict(rounds=1, deliveries=len(seen.wanted), **what_came, **numbers)


def _of_paths(town: Town, query: str) -> list[tuple[Any, ...]]:
    """Rows of which the first field is a URL of the receiver: its path stands there instead."""
    begin = len(town.receiver.url(""))
    return [(row[0][begin:], *row[1:]) for row in town.rows(query)]


def _nothing_is_lost(town: Town, seen: Seen, accepted: set[tuple[str, str]]) -> None:
    states = {(path, id): state for path, id, state, _ in _of_paths(town, STATES)}
    for pair in seen.wanted:
        state = states.get(pair, "missing")
        assert state == "delivered", f"lost: {pair} is {state}"
        assert pair in accepted, f"lost: {pair} is delivered, and was never accepted"


def _nothing_is_told_for_nothing(town: Town, seen: Seen) -> tuple[int, int]:
    """Only what a replay begins again is sent once it was delivered.

    And no attempt is sent twice, but when a connection was reset that had been kept: the sender
    cannot know whether anybody was there, and tries a new one.
    """
    unreset = Counter(call.attempt for call in seen.calls if not isinstance(call.answer, Reset))
    twice = [attempt for attempt, number in unreset.items() if number > 1]
    assert not twice, f"sent by two, or again under the same number: {twice}"
    assert max(Counter(call.attempt for call in seen.calls).values()) <= 2
    ((recorded, first, begun, pulled),) = town.rows(RECORDED)
    assert recorded - first <= begun, f"{recorded - first} sent after delivered, {begun} begun"
    ids: dict[tuple[str, str], set[str]] = {}
    for call in seen.calls:
        ids.setdefault(call.told, set()).add(call.hook.headers["webhook-id"])
    most = max(map(len, ids.values()))
    assert most <= 1 + seen.renewals, f"{most} webhook-ids for one event"
    return begun, pulled


def _order_is_kept(town: Town, seen: Seen) -> None:
    """Who wants order hears of nothing before it has accepted all that is older."""
    place = {id: number for path, id, _, number in _of_paths(town, STATES) if path == seen.ordered}
    accepted: set[str] = set()
    met: set[str] = set()
    for call in (one for one in seen.calls if one.hook.path == seen.ordered):
        id = call.told[1]
        if id not in met:
            met.add(id)
            passed = [other for other in place if place[other] < place[id]]
            assert accepted.issuperset(passed), f"{id} came before what is older"
        if call.accepted:
            accepted.add(id)


def _the_rate_is_kept(town: Town, seen: Seen) -> None:
    """In no time more than the rate allows, a second's worth, and what was claimed and is late.

    What is sent once more after a reset is still the same attempt.
    """
    path, rate = seen.limited
    late = MOST if town.on_sqlite else 2 * MOST
    came = {call.attempt: call.hook.at for call in seen.calls if call.hook.path == path}
    times = sorted(came.values())
    for first, since in enumerate(times):
        for number, at in enumerate(times[first:], 1):
            most = rate * (at - since + 1) + late
            assert number <= most, f"{number} attempts in {at - since:.2f} s"


def _who_is_deleted_hears_no_more(town: Town, seen: Seen) -> None:
    for path, left in _of_paths(town, DELETED):
        late = town.receiver.counts[path] - seen.calls_before_recovery[path]
        assert late == 0, f"{late} calls after {path} was deleted and all had started anew"
        assert left == 0, f"{left} still wait for {path}, which was deleted"


STATES = """
SELECT e.url, d.batch_id, d.state, d.id FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id
"""
ATTEMPTS = """
SELECT e.url, d.batch_id, a.number FROM attempts a
JOIN deliveries d ON d.id = a.delivery_id JOIN endpoints e ON e.id = d.endpoint_id
"""
RECORDED = """
SELECT count(*), count(DISTINCT delivery_id), (SELECT coalesce(sum(done), 0) FROM replays),
  (SELECT coalesce(sum(pulled), 0) FROM deliveries)
FROM attempts WHERE status = 200
"""
DELETED = """
SELECT e.url, (SELECT count(*) FROM deliveries d WHERE d.endpoint_id = e.id
  AND d.state IN ('pending', 'held')) FROM endpoints e WHERE e.deleted_at IS NOT NULL
"""
