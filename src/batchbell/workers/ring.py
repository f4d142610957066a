"""The deliveries in one dispatcher's hands: a lane for each endpoint, visited in a ring.

No lane may have more under way than its endpoint takes, and none is served twice while another
waits: an endpoint that hangs or is flooded costs the others nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from batchbell.core.model import Claimed, Endpoint
from batchbell.core.outcome import Outcome
from batchbell.core.slots import MOST, slots_after

ROOM = 32
"""Deliveries of one endpoint that are held at most: what waits beyond stays in the database."""
LANES_REMEMBERED = 10_000


@dataclass(slots=True)
class Lane:
    """One endpoint's deliveries here."""

    endpoint: Endpoint
    waiting: deque[Claimed] = field(default_factory=deque)
    under_way: int = 0
    slots: float = float(MOST)
    more: bool = False
    """The last claim filled the lane: there may be more in the database."""
    closed: bool = False
    """Nothing is sent until what the endpoint answered has been written."""

    @property
    def held(self) -> int:
        return len(self.waiting) + self.under_way

    @property
    def may_send(self) -> bool:
        return bool(self.waiting) and not self.closed and self.under_way < int(self.slots)


class Ring:
    """See the module."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._turns: deque[str] = deque()
        self._has_turn: set[str] = set()
        self.waiting = 0
        self.under_way = 0

    def add(self, claimed: Iterable[Claimed], endpoints: Mapping[str, Endpoint]) -> None:
        """Take deliveries in, with how their endpoints are now."""
        for endpoint_id, endpoint in endpoints.items():
            lane = self._lanes.setdefault(endpoint_id, Lane(endpoint))
            lane.endpoint = endpoint
        for delivery in claimed:
            self._lanes[delivery.endpoint_id].waiting.append(delivery)
            self.waiting += 1
        for endpoint_id in endpoints:
            lane = self._lanes[endpoint_id]
            lane.more = lane.held >= ROOM
            self._give_turn(endpoint_id, lane)

    def take(self) -> tuple[Claimed, Lane] | None:
        """The next delivery that may be sent, in turn; None when no lane may send."""
        while self._turns:
            endpoint_id = self._turns.popleft()
            self._has_turn.discard(endpoint_id)
            lane = self._lanes.get(endpoint_id)
            if lane is not None and lane.may_send:
                return self._take_from(endpoint_id, lane), lane
        return None

    def _take_from(self, endpoint_id: str, lane: Lane) -> Claimed:
        delivery = lane.waiting.popleft()
        lane.under_way += 1
        self.waiting -= 1
        self.under_way += 1
        self._give_turn(endpoint_id, lane)
        return delivery

    def ended(self, endpoint_id: str, outcome: Outcome | None) -> bool:
        """One call of the lane has ended; whether its room is worth a new claim.

        `outcome` is None when nothing was sent.
        """
        lane = self._lanes[endpoint_id]
        lane.under_way -= 1
        self.under_way -= 1
        if outcome is not None:
            lane.slots = slots_after(lane.slots, outcome)
        self._give_turn(endpoint_id, lane)
        wanted = lane.more and lane.held <= ROOM // 2
        if wanted:
            lane.more = False
        self._forget(endpoint_id, lane)
        return wanted

    def shut(self, endpoint_id: str) -> None:
        """Send nothing more to the endpoint until it is opened."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.closed = True

    def open(self, endpoint_id: str) -> list[Claimed]:
        """Open the lane, and hand back what waited in it."""
        if (lane := self._lanes.get(endpoint_id)) is None:
            return []
        lane.closed = False
        return self._empty(lane)

    def rooms(self) -> dict[str, int]:
        """How many more each endpoint may have here; those not named may have ROOM."""
        return {
            id: 0 if lane.closed else max(0, ROOM - lane.held) for id, lane in self._lanes.items()
        }

    def empty(self) -> list[Claimed]:
        """Hand back all that waits."""
        return [delivery for lane in self._lanes.values() for delivery in self._empty(lane)]

    def _empty(self, lane: Lane) -> list[Claimed]:
        handed = list(lane.waiting)
        lane.waiting.clear()
        self.waiting -= len(handed)
        return handed

    def _give_turn(self, endpoint_id: str, lane: Lane) -> None:
        if lane.may_send and endpoint_id not in self._has_turn:
            self._turns.append(endpoint_id)
            self._has_turn.add(endpoint_id)

    def _forget(self, endpoint_id: str, lane: Lane) -> None:
        """A lane is kept while it knows something: that its endpoint takes fewer calls."""
        idle = lane.held == 0 and not lane.closed
        if idle and (lane.slots >= MOST or len(self._lanes) > LANES_REMEMBERED):
            del self._lanes[endpoint_id]
