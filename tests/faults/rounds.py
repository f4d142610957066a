"""A round of the soak: one town, and what its seed does to it until all is well again."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from tests.conftest import SECRET
from tests.faults.conftest import SERVE, SERVE_ONLY, WORK, Process, Town, make_town
from tests.faults.verdicts import Call, Seen, Verdict, judge

from batchbell import failpoints
from batchbell.sandbox import Hang, Received, Reset, Respond

PATHS = 4
STANDING, ORDERED, LIMITED, DOOMED = "/standing", "/ordered", "/limited", "/doomed"
"""Where endpoints hear of the whole project. The last one may be deleted."""
RATE_PER_SECOND = 20
WISHES = {
    STANDING: {},
    ORDERED: {"ordered": True},
    LIMITED: {"rate_limit": RATE_PER_SECOND},
    DOOMED: {},
}
LATE = "/late"
"""Who only asks once a batch has ended."""
ACTS = (5, 9)
PLACES = (
    failpoints.AFTER_CLAIM,
    failpoints.BEFORE_SEND,
    failpoints.AFTER_SEND,
    failpoints.BEFORE_SETTLE,
    failpoints.BEFORE_WRITE,
    failpoints.INSIDE_WRITE,
    failpoints.INSIDE_REPLAY,
    failpoints.INSIDE_DISABLE,
    failpoints.INSIDE_HOLD,
    failpoints.INSIDE_FLUSH,
    failpoints.BEFORE_STORING,
    failpoints.BEFORE_KEEP,
)
SMALL_STEPS = """
from batchbell.storage import endpoints, health, replay_walk
endpoints.STEP = health.STEP = 4
replay_walk.WINDOW = 8
"""
"""So that a few dozen deliveries take many steps, and a kill finds some of them done."""
OK = Respond()
MOODS = {
    "well": (OK,),
    "failing": (Respond(500),),
    "shaky": (OK, Respond(502), Reset()),
    "busy": (OK, Respond(429, {"retry-after": "1"})),
    "hanging": (OK, Hang()),
    "slow": (Respond(delay_seconds=0.1),),
    "gone": (OK, OK, Respond(410)),
}
PATIENT = "15"
"""Seconds that a call may take once receivers are well: however busy this machine is."""
STUCK_SECONDS = 120.0
"""Longer than any lease: PostgreSQL may end the last statement of a process after its death."""


@dataclass
class Round:
    """See the module. There are dice for each act, so that none hangs on how others went."""

    seed: int
    town: Town
    seen: Seen = field(default_factory=Seen)
    moods: dict[str, str] = field(default_factory=dict)
    doomed: str = ""
    """The id of the endpoint that may be deleted."""
    workers: list[Process] = field(default_factory=list)
    server: Process | None = None
    """On PostgreSQL, where it does not work too."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.places = random.Random(f"{self.seed} places")
        self.answers: dict[str, random.Random] = {}

    async def play(self) -> Verdict:
        """Play it to its end. Raises AssertionError for what must not be."""
        await self._begin()
        for number in range(self.dice.randint(*ACTS)):
            self.dice = random.Random(f"{self.seed} act {number}")
            await self.dice.choice(self._acts())()
            await self._tend()
            await self._let_some_happen()
        await self._recover()
        return judge(self.town, self.seen)

    def _acts(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        often = (self._end_some, self._change, self._kill)
        seldom = (self._enable, self._delete, self._watch_again)
        return (*often, *often, self._replay, self._replay, *seldom)

    # What happens ---------------------------------------------------------------------------

    async def _begin(self) -> None:
        self.town.first = SMALL_STEPS
        self.town.settings["BATCHBELL_DELIVERY_TIMEOUT_SECONDS"] = "1"
        paths = [*(f"/hook/{n}" for n in range(PATHS)), LATE, *WISHES]
        self.moods = dict.fromkeys(paths, "well")
        self.moods[DOOMED] = "failing"  # so that something waits for it
        for path in paths:
            self.answers[path] = random.Random(f"{self.seed} {path}")
            self.town.receiver.behave(path, self._answer)
        if not self.town.on_sqlite:
            self.server = await self.town.start(SERVE_ONLY)
        await self._start("")
        for path, wishes in WISHES.items():
            await self._make_endpoint(path, wishes)
        self.seen.ordered, self.seen.limited = ORDERED, (LIMITED, RATE_PER_SECOND)
        await self._end_some()

    async def _make_endpoint(self, path: str, wishes: dict[str, Any]) -> None:
        wanted = {"url": self.town.receiver.url(path), "name": path, "signing_secret": SECRET}
        made = await self.town.ask("POST", "/v1/webhook_endpoints", **wanted, **wishes)
        self.seen.standing.append(path)
        self.doomed = made["id"]

    def _answer(self, hook: Received) -> Respond | Hang | Reset:
        answer = self.answers[hook.path].choice(MOODS[self.moods[hook.path]])
        self.seen.calls.append(Call(hook, answer))
        return answer

    async def _start(self, place: str) -> None:
        """On PostgreSQL two workers: only the first may die by itself."""
        main = SERVE if self.town.on_sqlite else WORK
        self.workers = [await self.town.start(main, failpoint=place)]
        if not self.town.on_sqlite:
            self.workers.append(await self.town.start(main))

    def _place(self) -> str:
        if self.places.random() < 0.2:
            return ""
        return f"{self.places.choice(PLACES)}:{self.places.randint(1, 6)}"

    async def _tend(self) -> None:
        """Start anew who has died: some time may have passed until then."""
        for worker in [one for one in self.workers if one.process.returncode is not None]:
            await worker.killed()
            self.seen.kills += 1
            self.workers.remove(worker)
            if self.places.random() < 0.5:
                self.town.write(*AN_HOUR_LATER)
            main = SERVE if self.town.on_sqlite else WORK
            self.workers.append(await self.town.start(main, failpoint=self._place()))
        if self.server is not None and self.server.process.returncode is not None:
            self.server = await self.town.start(SERVE_ONLY)

    async def _let_some_happen(self) -> None:
        """Until so many calls have come; or a moment, for none may be due."""
        number = self.town.receiver.total + self.dice.randint(0, 30)
        try:
            await self.town.receiver.wait_for(number, timeout=0.3)
        except TimeoutError:
            return

    async def _kill(self) -> None:
        living = [*self.workers, *([self.server] if self.server else [])]
        await self.dice.choice(living).kill()

    async def _end_some(self) -> None:
        ids = self.town.sandbox.provider.add_batches(self.dice.randint(5, 25))
        if await self._asked(lambda: self.town.register(ids, paths=PATHS)):
            self.seen.registered(ids, [f"/hook/{n % PATHS}" for n in range(len(ids))])
        for id in ids:
            self.town.sandbox.provider.finish(id, "completed")

    async def _change(self) -> None:
        """An endpoint that wants order is not gone: what is set aside may be overtaken."""
        for path in self.dice.sample(sorted(self.moods), 3):
            some = sorted(MOODS.keys() - {"gone"} if path == ORDERED else MOODS)
            self.moods[path] = self.dice.choice(some)

    async def _replay(self) -> None:
        """Of some, or all; with it, endpoints that were disabled are perhaps enabled."""
        wishes = {
            "status": self.dice.choice(("failed", "held", "missing", "all", "all")),
            "as_new": self.dice.random() < 0.2,
            "enable": self.dice.random() < 0.5,
            "pace": self.dice.choice((5, 20, 1000)),
        }
        cancelled = self.dice.random() < 0.3
        self.seen.renewals += bool(wishes["as_new"])

        async def ask() -> None:
            replay = await self.town.ask("POST", "/v1/replays", **wishes)
            if cancelled:
                await self._let_some_happen()
                await self.town.ask("POST", f"/v1/replays/{replay['id']}/cancel")

        await self._asked(ask)

    async def _enable(self) -> None:
        """Whoever is disabled: what was held stays held."""
        path = "/v1/webhook_endpoints/{}/enable"
        for (id,) in self.town.rows(DISABLED):
            await self._asked(lambda id=id: self.town.ask("POST", path.format(id)))

    async def _delete(self) -> None:
        """With all that waits for it."""
        if DOOMED in self.seen.standing:
            self.seen.standing.remove(DOOMED)
            path = f"/v1/webhook_endpoints/{self.doomed}"
            await self._asked(lambda: self.town.ask("DELETE", path))

    async def _watch_again(self) -> None:
        """Batches of which some have ended long ago, and some not been told of yet."""
        if not self.seen.ids:
            return
        ids = self.dice.sample(self.seen.ids, min(5, len(self.seen.ids)))
        watches = [{"batch_id": id, "url": self.town.receiver.url(LATE)} for id in ids]
        if await self._asked(lambda: self.town.ask("POST", "/v1/watches", watches=watches)):
            self.seen.watched += [(LATE, id) for id in ids]

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> bool:
        """Whether the server answered; it may be dead, or die of this."""
        try:
            await ask()
        except httpx2.TransportError:
            return False
        return True

    # How it ends ----------------------------------------------------------------------------

    async def _recover(self) -> None:
        """All die, hours pass, and the receivers are well again; some may die meanwhile."""
        self.moods = dict.fromkeys(self.moods, "well")
        self.town.settings["BATCHBELL_DELIVERY_TIMEOUT_SECONDS"] = PATIENT
        await self._kill_all()
        self.seen.calls_before_recovery = self.town.receiver.counts.copy()
        self.town.write(*AN_HOUR_LATER, *AN_OUTAGE_IS_OVER)
        await self._go_on(self._place())
        for place in (self._place(), ""):
            await self._kill_all()
            await self._go_on(place)
        await self._hand_over_what_is_held()
        assert all(worker.process.returncode is None for worker in self.workers)

    async def _go_on(self, place: str) -> None:
        self.town.let_leases_run_out()
        await self._start(place)
        await self._all_is_done()

    async def _kill_all(self) -> None:
        for worker in self.workers:
            await worker.kill()
            await worker.killed()
            self.seen.kills += 1

    async def _hand_over_what_is_held(self) -> None:
        """The owner enables the endpoints, and hears of everything."""
        wishes = {"status": "held", "enable": True, "pace": 1000}
        replay = await self.town.ask("POST", "/v1/replays", **wishes)
        self.seen.held = replay["total"]
        await self._all_is_done()

    async def _all_is_done(self) -> None:
        """Or the one that may die has died."""
        one = self.workers[0].process

        def over() -> bool:
            return not self._busy() or one.returncode is not None

        try:
            await self.town.until(over, timeout=STUCK_SECONDS)
        except TimeoutError:
            left = self.town.rows(LEFT)
            raise AssertionError(f"stuck: {self._busy()} are still to be done, {left}") from None

    def _busy(self) -> int:
        """How much is still to be done: nothing that is watched has not ended."""
        ((number,),) = self.town.rows(BUSY)
        return int(number)


DISABLED = "SELECT id FROM endpoints WHERE state = 'disabled' AND deleted_at IS NULL ORDER BY id"
AN_HOUR_LATER = (
    "UPDATE endpoints SET failing_since = failing_since - 3600, paused_until = NULL",
    "UPDATE endpoints SET probe_at = 0 WHERE probe_at IS NOT NULL",
)
FAILING = "SELECT id FROM endpoints WHERE state = 'failing'"
AN_OUTAGE_IS_OVER = (
    "UPDATE deliveries SET due_at = 0 WHERE state = 'pending'",
    # Of an endpoint that fails one is due. The others would be tried much later; but the success
    # of that one pulls them forward, step by step.
    f"UPDATE deliveries SET due_at = {time.time() + 86_400} WHERE state = 'pending'"
    f" AND attempts > attempts_before AND pulled < 3 AND endpoint_id IN ({FAILING}) AND id NOT IN"
    " (SELECT min(id) FROM deliveries WHERE state = 'pending' GROUP BY endpoint_id)",
)
LEFT = """
SELECT e.url, e.state, e.flush_at, e.probe_at, e.paused_until, d.state, d.due_at, d.lease_token,
  d.pulled FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id
WHERE d.state IN ('pending', 'held') LIMIT 5
"""
BUSY = """
SELECT (SELECT count(*) FROM deliveries WHERE state = 'pending')
     + (SELECT count(*) FROM replays WHERE state = 'running')
     + (SELECT count(*) FROM batches WHERE ended_at IS NULL)
     + (SELECT count(*) FROM deliveries WHERE state = 'held' AND endpoint_id IN
         (SELECT id FROM endpoints WHERE deleted_at IS NOT NULL))
"""


async def play(seed: int, database_url: str, folder: Path) -> Verdict:
    """Play one round in a new, empty database."""
    async with make_town(database_url, folder) as town:
        return await Round(seed, town).play()
