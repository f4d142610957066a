"""Rounds of random trouble: whatever dies, whoever fails, no webhook is lost or told for nothing.

`python -m tests.faults.soak` (or `make soak`) plays rounds for SOAK_MINUTES, from the seed
SOAK_SEED on, SQLite and PostgreSQL by turns. A round is made of its seed alone: a process that is
killed at the same place, receivers that fail alike; only the timing is the machine's. So a round
that failed is played again by `make soak SOAK_SEED=<its number> SOAK_MINUTES=0`.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from sqlalchemy.engine import make_url
from tests.conftest import SECRET, Server, beside_the_loop, execute
from tests.faults.conftest import SERVE, SERVE_ONLY, WORK, Process, Town, make_town, told_of

from batchbell import failpoints
from batchbell.core.slots import MOST
from batchbell.sandbox import Hang, Received, Reset, Respond

MINUTES = 10.0
PATHS = 4
STANDING = "/standing"
"""Where an endpoint hears of the whole project."""
ACTS = (4, 7)
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
)
OK = Respond()
MOODS = {
    "well": (OK,),
    "failing": (Respond(500),),
    "shaky": (OK, Respond(502), Reset()),
    "busy": (OK, Respond(429, {"retry-after": "1"})),
    "hanging": (OK, Hang()),
    "gone": (OK, OK, Respond(410)),
    "slow": (Respond(delay_seconds=0.1),),
}


@dataclass
class Round:
    """One town, and what its seed does to it."""

    seed: int
    town: Town
    rand: random.Random = field(init=False)
    ids: list[str] = field(default_factory=list)
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each receiver said 2xx to each `webhook-id`."""
    moods: dict[str, str] = field(default_factory=dict)
    path_of: dict[str, str] = field(default_factory=dict)
    renewed: bool = False
    """Whether a replay gave new ids."""
    kills: int = 0
    workers: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rand = random.Random(self.seed)

    async def play(self) -> str:
        """Play it to its end; says in a line how it went. Raises AssertionError."""
        started = time.monotonic()
        await self._begin()
        for _ in range(self.rand.randint(*ACTS)):
            act = self.rand.choice(
                (self._end_some, self._end_some, self._change, self._kill, self._replay)
            )
            await act()
            await self._tend()
            await asyncio.sleep(self.rand.random() / 2)
        await self._recover()
        return f"{self._judge()}, {time.monotonic() - started:.1f} s"

    # What happens ---------------------------------------------------------------------------

    async def _begin(self) -> None:
        self.town.settings["BATCHBELL_DELIVERY_TIMEOUT_SECONDS"] = "1"
        self.moods = dict.fromkeys([*(f"/hook/{n}" for n in range(PATHS)), STANDING], "well")
        for path in self.moods:
            self.town.receiver.behave(path, self._answer)
        if not self.town.on_sqlite:
            await self.town.start(SERVE_ONLY)
        await self._start("")
        await self.town.ask(
            "POST",
            "/v1/webhook_endpoints",
            url=self.town.receiver.url(STANDING),
            name="standing",
            signing_secret=SECRET,
        )
        await self._end_some()

    def _answer(self, hook: Received) -> Respond | Hang | Reset:
        answer = self.rand.choice(MOODS[self.moods[hook.path]])
        if isinstance(answer, Respond) and answer.status == 200:
            self.taken[hook.path, hook.headers["webhook-id"]] += 1
        return answer

    async def _start(self, place: str) -> None:
        """On PostgreSQL two workers: only the first may die by itself."""
        if self.town.on_sqlite:
            self.workers = [await self.town.start(SERVE, failpoint=place)]
        else:
            other = await self.town.start(WORK)
            self.workers = [await self.town.start(WORK, failpoint=place), other]

    def _place(self) -> str:
        if self.rand.random() < 0.2:
            return ""
        return f"{self.rand.choice(PLACES)}:{self.rand.randint(1, 6)}"

    async def _tend(self) -> None:
        """Start anew who has died; where nobody else holds leases, those of the dead end."""
        dead = [one for one in self.workers if one.process.returncode is not None]
        for worker in dead:
            await worker.killed()
            self.kills += 1
            self.workers.remove(worker)
            main = SERVE if self.town.on_sqlite else WORK
            self.workers.append(await self.town.start(main, failpoint=self._place()))

    async def _kill(self) -> None:
        await self.rand.choice(self.workers).kill()

    async def _end_some(self) -> None:
        ids = self.town.sandbox.provider.add_batches(self.rand.randint(5, 40))
        if await self._asked(lambda: self.town.register(ids, paths=PATHS)):
            self.ids += ids
            self.path_of.update({id: f"/hook/{n % PATHS}" for n, id in enumerate(ids)})
        for id in ids:
            self.town.sandbox.provider.finish(id, "completed")

    async def _change(self) -> None:
        for path in self.rand.sample(sorted(self.moods), 2):
            self.moods[path] = self.rand.choice(sorted(MOODS))

    async def _replay(self) -> None:
        """Of some, or all; with it, endpoints that were disabled are perhaps enabled."""
        wishes = {
            "status": self.rand.choice(("failed", "held", "missing", "all")),
            "as_new": self.rand.random() < 0.2,
            "enable": self.rand.random() < 0.5,
            "pace": self.rand.choice((20, 1000)),
        }
        self.renewed = self.renewed or bool(wishes["as_new"])
        await self._asked(lambda: self.town.ask("POST", "/v1/replays", **wishes))

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> bool:
        """Whether the server answered; it may be dead, or die of this."""
        try:
            await ask()
        except httpx2.TransportError:
            return False
        return True

    async def _recover(self) -> None:
        """All die, hours pass, and the receivers are well again; one more may die meanwhile."""
        self.moods = dict.fromkeys(self.moods, "well")
        for place in (self._place(), self._place(), ""):
            for worker in self.workers:
                self.kills += 1
                await worker.kill()
            self.town.write(*HOURS_LATER)
            await self._start(place)
            one = self.workers[0].process
            await self.town.until(lambda one=one: not self._busy() or one.returncode is not None)
        assert not self._busy(), f"stuck: {self._busy()}"
        for worker in self.workers:
            await worker.kill()

    def _busy(self) -> int:
        """How much is still to be done: nothing that is watched has not ended."""
        ((number,),) = self.town.rows(BUSY)
        return int(number)

    # What must hold -------------------------------------------------------------------------

    def _judge(self) -> str:
        states = {(url, id): state for url, id, state in self.town.rows(STATES)}
        wanted = [
            (self.town.receiver.url(path), id)
            for id in self.ids
            for path in (self.path_of[id], STANDING)
        ]
        told = {(self.town.receiver.url(hook.path), told_of(hook)) for hook in self._takings()}
        for pair in wanted:
            state = states.get(pair, "missing")
            assert state in ("delivered", "held"), f"lost: {pair} is {state}"
            assert state == "held" or pair in told, f"lost: {pair} is delivered, and was not told"
        ((recorded, first, begun),) = self.town.rows(RECORDED)
        assert recorded - first <= begun, f"{recorded - first} sent after delivered, {begun} begun"
        unrecorded = self.taken.total() - recorded
        in_flight = MOST * (PATHS + 1)
        assert 0 <= unrecorded <= self.kills * in_flight, f"{unrecorded} for {self.kills} kills"
        assert self.town.receiver.bad_signatures == 0
        ids: dict[tuple[str, str], set[str]] = {}
        for hook in self.town.receiver.received:
            ids.setdefault((hook.path, told_of(hook)), set()).add(hook.headers["webhook-id"])
        assert self.renewed or all(len(same) == 1 for same in ids.values()), "another webhook-id"
        held = sum(state == "held" for state in states.values())
        return (
            f"seed {self.seed}: {'SQLite' if self.town.on_sqlite else 'PostgreSQL'},"
            f" {len(wanted)} deliveries, {held} held, 0 lost; {self.kills} kills,"
            f" {unrecorded} calls that nobody wrote down, {begun} begun again"
        )

    def _takings(self) -> list[Received]:
        taken = self.taken
        return [
            hook
            for hook in self.town.receiver.received
            if taken[hook.path, hook.headers["webhook-id"]]
        ]


HOURS_LATER = (
    "UPDATE deliveries SET due_at = 0, lease_token = NULL WHERE state = 'pending'",
    "UPDATE accounts SET due_at = 0, lease_until = NULL, lease_token = NULL",
    "UPDATE replays SET lease_until = NULL, lease_token = NULL",
    "UPDATE endpoints SET failing_since = failing_since - 7200, paused_until = NULL",
    "UPDATE endpoints SET probe_at = 0 WHERE probe_at IS NOT NULL",
)
BUSY = """
SELECT (SELECT count(*) FROM deliveries WHERE state = 'pending')
     + (SELECT count(*) FROM replays WHERE state = 'running')
     + (SELECT count(*) FROM batches WHERE ended_at IS NULL)
"""
STATES = (
    "SELECT e.url, d.batch_id, d.state FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
)
RECORDED = """
SELECT count(*), count(DISTINCT delivery_id), (SELECT coalesce(sum(done), 0) FROM replays)
FROM attempts WHERE status = 200
"""


async def play(seed: int, database_url: str, folder: Path) -> str:
    """Play one round in a new, empty database."""
    async with make_town(database_url, folder) as town:
        return await Round(seed, town).play()


async def soak(seed: int, *, seconds: float, rounds: int, postgres_url: str) -> int:
    """Play rounds until both the time is over and so many were played; returns how many."""
    ends, played = time.monotonic() + seconds, 0
    while played < rounds or time.monotonic() < ends:
        with tempfile.TemporaryDirectory(prefix="batchbell-soak-") as folder:
            url = f"sqlite:///{folder}/soak.db"
            if seed % 2:
                name = f"soak_{uuid4().hex[:12]}"
                beside_the_loop(lambda name=name: execute(postgres_url, f"CREATE DATABASE {name}"))
                made = make_url(postgres_url).set(drivername="postgresql", database=name)
                url = made.render_as_string(hide_password=False)
            try:
                print(await play(seed, url, Path(folder)), flush=True)
            except BaseException:
                print(
                    f"FAILED: play it again with make soak SOAK_SEED={seed} SOAK_MINUTES=0",
                    flush=True,
                )
                raise
        seed, played = seed + 1, played + 1
    return played


def main() -> None:
    """See the module."""
    seed = int(os.environ.get("SOAK_SEED") or time.time())
    minutes = float(os.environ.get("SOAK_MINUTES") or MINUTES)
    print(f"from seed {seed} on, for {minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="batchbell-soak-", ignore_cleanup_errors=True) as home:
        server = Server(Path(home))
        try:
            how = {"seconds": minutes * 60, "rounds": 1, "postgres_url": server.url}
            played = asyncio.run(soak(seed, **how))
        finally:
            server.close()
    print(f"{played} rounds, 0 lost")


if __name__ == "__main__":
    main()
