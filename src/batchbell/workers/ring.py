"""The deliveries in one dispatcher's hands: fair by project first, then by endpoint.

Whichever project has the fewest calls under way is served next. When all calls are taken, a
project that has less than its share of them may still start some, out of a reserve: so it never
waits for the calls of another to end, and one that is alone has all.

Within a project there is a lane for each endpoint, visited in a ring. No lane may have more under
way than its endpoint takes, and none is served twice while another waits: an endpoint that hangs
or is flooded costs the others nothing. First attempts and retries wait apart, and take turns as
well: while a first attempt waits, retries hold half of the project's share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from batchbell.core.model import Claimed, Endpoint
from batchbell.core.outcome import Outcome
from batchbell.core.slots import FEWEST, MOST, slots_after

ROOM_PER_SLOT = 4
ROOM = MOST * ROOM_PER_SLOT
"""Deliveries of one endpoint that are held at most until it is known to be fast: what waits beyond
stays in the database."""
AHEAD_SECONDS = 0.25
"""A fast endpoint has what it takes in so long at hand, so that it never waits for the database."""
LEAST_SECONDS = 0.0001
DEEPEST = 512
LANES_REMEMBERED = 10_000
RESERVE = 4
"""One more call for each so many is lent to projects that have less than their share."""


def calls_most(calls: int) -> int:
    """How many calls may be under way at once, the reserve among them."""
    return calls + max(1, calls // RESERVE)


@dataclass(slots=True, eq=False)
class Lane:
    """One endpoint's deliveries here."""

    endpoint: Endpoint
    firsts: deque[Claimed] = field(default_factory=deque)
    retries: deque[Claimed] = field(default_factory=deque)
    under_way: int = 0
    slots: float = float(MOST)
    calls: int = MOST
    """How many may be under way at once."""
    seconds: float = 1.0
    """How long its calls take, about."""
    starting: bool = False
    """After an outage, until it takes as much as it ever did: one slot more for each success."""
    more: bool = False
    """The last claim filled the lane: there may be more in the database."""
    closed: bool = False
    """Nothing is sent until what the endpoint answered has been written."""

    @property
    def held(self) -> int:
        return len(self.firsts) + len(self.retries) + self.under_way

    @property
    def room(self) -> int:
        """What the lane may hold: less for an endpoint that takes less, more for a fast one.

        Whoever limits its rate or its order gets what can be sent at once, and nothing waits here.
        """
        calls = self.calls
        if self.limited:
            return calls
        ahead = min(DEEPEST, int(calls * AHEAD_SECONDS / self.seconds))
        return max(ROOM_PER_SLOT * calls, ahead)

    @property
    def limited(self) -> bool:
        return self.endpoint.ordered or self.endpoint.rate_limit is not None

    @property
    def is_filled(self) -> bool:
        """Whether it is left alone by claims: a claim for a few costs as much as one for many."""
        return not self.limited and self.held > self.room // 2

    @property
    def may_send(self) -> bool:
        return self.under_way < self.calls and not self.closed

    def meet(self, endpoint: Endpoint) -> None:
        """How the endpoint is now."""
        self.endpoint = endpoint
        self.take_slots(self.slots)

    def take_slots(self, slots: float) -> None:
        self.slots = slots
        self.calls = 1 if self.endpoint.ordered else int(slots)

    def note(self, outcome: Outcome) -> None:
        """How long a call took, and what it brought."""
        seconds = outcome.duration_ms / 1000
        self.seconds += (max(seconds, LEAST_SECONDS) - self.seconds) / 4
        slots = slots_after(self.slots, outcome, starting=self.starting)
        if slots != self.slots:
            self.take_slots(slots)
        self.starting = self.starting and slots < MOST


class Turns:
    """Lanes of which some may be sent to, each once."""

    __slots__ = ("_among", "_order")

    def __init__(self) -> None:
        self._order: deque[Lane] = deque()
        self._among: set[Lane] = set()

    def give(self, lane: Lane) -> None:
        if lane not in self._among:
            self._order.append(lane)
            self._among.add(lane)

    def next(self) -> Lane | None:
        if not self._order:
            return None
        lane = self._order.popleft()
        self._among.discard(lane)
        return lane


@dataclass(slots=True, eq=False)
class Project:
    """What one project has here."""

    id: str
    firsts: Turns = field(default_factory=Turns)
    retries: Turns = field(default_factory=Turns)
    waiting: int = 0
    firsts_waiting: int = 0
    under_way: int = 0
    retries_under_way: int = 0
    retry_is_next: bool = False
    level: int | None = None
    """Where it stands; None where nothing of it may be sent before one of its calls ends."""

    @property
    def held(self) -> int:
        return self.waiting + self.under_way


class Standing:
    """Projects of which something may be sent, by how many calls they have under way.

    The first is whichever has the fewest, and has had them for longest. No step of it costs more
    where there are more projects.
    """

    def __init__(self, most: int) -> None:
        self._levels: list[dict[str, Project]] = [{} for _ in range(most + 1)]
        self._lowest = len(self._levels)

    def enter(self, project: Project) -> None:
        """Stand where it belongs now: behind those that have as many calls."""
        level = project.under_way
        if project.level == level:
            return
        self.leave(project)
        project.level = level
        self._levels[level][project.id] = project
        self._lowest = min(self._lowest, level)

    def leave(self, project: Project) -> None:
        if project.level is not None:
            del self._levels[project.level][project.id]
            project.level = None

    def first(self) -> Project | None:
        while self._lowest < len(self._levels):
            if level := self._levels[self._lowest]:
                return next(iter(level.values()))
            self._lowest += 1
        return None


class Ring:
    """See the module. Lends out `calls`, and a reserve beyond."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._calls_most = calls_most(calls)
        self._lanes: dict[str, Lane] = {}
        self._projects: dict[str, Project] = {}
        self._standing = Standing(self._calls_most)
        self.under_way = 0

    @property
    def waiting(self) -> int:
        return sum(project.waiting for project in self._projects.values())

    @property
    def retries_under_way(self) -> int:
        return sum(project.retries_under_way for project in self._projects.values())

    @property
    def _share(self) -> int:
        return max(1, self._calls // max(1, len(self._projects)))

    def held(self) -> dict[str, int]:
        """How many deliveries of each project wait here or are under way."""
        return {id: project.held for id, project in self._projects.items()}

    def add(self, claimed: Iterable[Claimed], endpoints: Mapping[str, Endpoint]) -> None:
        """Take deliveries in, with how their endpoints are now."""
        for endpoint_id, endpoint in endpoints.items():
            lane = self._lanes.get(endpoint_id)
            if lane is None:
                lane = self._lanes[endpoint_id] = Lane(endpoint)
            lane.meet(endpoint)
            if endpoint.opened_at is not None:
                self.start_slowly(endpoint_id)
        for delivery in claimed:
            lane = self._lanes[delivery.endpoint_id]
            project = self._project(lane.endpoint.project_id)
            if delivery.is_retry:
                lane.retries.append(delivery)
            else:
                lane.firsts.append(delivery)
                project.firsts_waiting += 1
            project.waiting += 1
        for endpoint_id in endpoints:
            lane = self._lanes[endpoint_id]
            lane.more = lane.held >= lane.room
            if (filled := self._projects.get(lane.endpoint.project_id)) is not None:
                self._give_turns(lane, filled)
                self._standing.enter(filled)

    def _project(self, id: str) -> Project:
        project = self._projects.get(id)
        if project is None:
            project = self._projects[id] = Project(id)
        return project

    def take(self) -> tuple[Claimed, Lane] | None:
        """The next delivery that may be sent, in turn; None when none may be."""
        if self.under_way >= self._calls_most:
            return None
        while (project := self._standing.first()) is not None:
            if self.under_way >= self._calls and project.under_way >= self._share:
                return None
            if (taken := self._take_for(project)) is not None:
                self._standing.enter(project)
                return taken
            self._standing.leave(project)
        return None

    def _take_for(self, project: Project) -> tuple[Claimed, Lane] | None:
        held = project.retries_under_way
        full = held > 0 and project.firsts_waiting > 0 and held >= max(1, self._share // 2)
        next_ = project.retry_is_next
        for retry in (False,) if full else (next_, not next_):
            if taken := self._take_of(project, retry=retry):
                project.retry_is_next = not retry
                return taken
        return None

    def _take_of(self, project: Project, *, retry: bool) -> tuple[Claimed, Lane] | None:
        turns = project.retries if retry else project.firsts
        while (lane := turns.next()) is not None:
            waiting = lane.retries if retry else lane.firsts
            if waiting and lane.may_send:
                self.under_way += 1
                lane.under_way += 1
                project.waiting -= 1
                project.under_way += 1
                project.retries_under_way += retry
                project.firsts_waiting -= not retry
                delivery = waiting.popleft()
                self._give_turns(lane, project)
                return delivery, lane
        return None

    def ended(self, delivery: Claimed, outcome: Outcome | None) -> bool:
        """A call has ended; whether the room in its lane is worth a new claim.

        `outcome` is None when nothing was sent.
        """
        lane = self._lanes[delivery.endpoint_id]
        project = self._projects[lane.endpoint.project_id]
        self.under_way -= 1
        lane.under_way -= 1
        project.under_way -= 1
        project.retries_under_way -= delivery.is_retry
        if outcome is not None:
            lane.note(outcome)
        self._give_turns(lane, project)
        if project.waiting:
            self._standing.enter(project)
        wanted = lane.more and lane.held <= lane.room // 2
        if wanted:
            lane.more = False
        self._forget(lane)
        return wanted

    def start_slowly(self, endpoint_id: str) -> None:
        """Begin again with one call at once: the endpoint has an outage, or just had one."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.take_slots(FEWEST)
            lane.starting = True

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
        return {id: self._room(lane) for id, lane in self._lanes.items()}

    def _room(self, lane: Lane) -> int:
        if lane.closed:
            return 0
        if lane.is_filled:
            lane.more = True  # as far as is known: claim again when it is half empty
            return 0
        return max(0, lane.room - lane.held)

    def empty(self) -> list[Claimed]:
        """Hand back all that waits."""
        return [delivery for lane in self._lanes.values() for delivery in self._empty(lane)]

    def _empty(self, lane: Lane) -> list[Claimed]:
        handed = [*lane.firsts, *lane.retries]
        if handed:
            project = self._projects[lane.endpoint.project_id]
            project.firsts_waiting -= len(lane.firsts)
            project.waiting -= len(handed)
            lane.firsts.clear()
            lane.retries.clear()
            self._forget_project(lane)
        return handed

    def _give_turns(self, lane: Lane, project: Project) -> None:
        if lane.may_send and (lane.firsts or lane.retries):
            if lane.firsts:
                project.firsts.give(lane)
            if lane.retries:
                project.retries.give(lane)

    def _forget_project(self, lane: Lane) -> None:
        project = self._projects.get(lane.endpoint.project_id)
        if project is not None and project.held == 0:
            self._standing.leave(project)
            del self._projects[project.id]

    def _forget(self, lane: Lane) -> None:
        """A lane is kept while it knows something: that its endpoint takes fewer calls."""
        self._forget_project(lane)
        idle = lane.held == 0 and not lane.closed
        if idle and (lane.slots >= MOST or len(self._lanes) > LANES_REMEMBERED):
            del self._lanes[lane.endpoint.id]
