"""DESIGN §9.4: what delivering costs grows neither with the backlog nor with what is done.

Every statement that is executed is explained by the database itself, over many rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, event, text, update

from batchbell.core.errors import NotFound
from batchbell.core.model import DEFAULT_PROJECT, BatchOutcome, DeliveryState, EventType, Status
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.storage import (
    accounts,
    batches,
    deletions,
    deliveries,
    events,
    health,
    hints,
    merges,
    opening,
    overview,
    parts,
    queue,
    replays,
    results,
    submissions,
    watches,
)
from batchbell.storage import endpoints as stored_endpoints
from batchbell.storage.batch_lists import BatchFilter, list_batches
from batchbell.storage.bulk import BY_INDEX
from batchbell.storage.endpoints import ensure_endpoints, list_endpoints
from batchbell.storage.schema import endpoints
from tests.storage.scene import Scene, snapshot
from tests.storage.test_queue import RECEIVERS, fill

WHOLE = re.compile(r"Seq Scan on deliveries|SCAN (deliveries|d|h|other)\b(?! USING)")
WHOLE_ENDPOINTS = re.compile(r"Seq Scan on endpoints|SCAN (endpoints|e)\b(?! USING)")
OF_ALL = re.compile(r"ix_deliveries_(of|listed|watch)")
"""Indexes that what is finished stays in."""
Work = Callable[[Connection], Any]


@pytest.fixture
async def crowded(scene: Scene) -> Scene:
    """Twenty endpoints with 500 deliveries each, of which ten endpoints have had all of theirs."""
    await fill(scene, dict.fromkeys(RECEIVERS, 500))

    def finish_half(connection: Connection) -> None:
        done = "state = 'delivered', due_at = NULL, finished_at = 1"
        half = "SELECT id FROM endpoints ORDER BY id LIMIT 10"
        connection.execute(text(f"UPDATE deliveries SET {done} WHERE endpoint_id IN ({half})"))
        connection.execute(text("ANALYZE"))

    await scene.store.write(finish_half)
    return scene


@pytest.fixture
async def flooded(scene: Scene) -> Scene:
    """One endpoint had all that waited when the database last counted; since then others came."""
    await fill(scene, {RECEIVERS[0]: 5000, **dict.fromkeys(RECEIVERS[1:], 0)})

    def spread(connection: Connection) -> None:
        connection.execute(text("ANALYZE"))
        ids = list(connection.execute(text("SELECT id FROM endpoints")).scalars())
        some = text("SELECT id FROM deliveries WHERE state = 'pending' LIMIT :n")
        rows = list(connection.execute(some, {"n": len(ids)}).scalars())
        moved = text("UPDATE deliveries SET endpoint_id = :to WHERE id = :id")
        connection.execute(moved, [{"to": to, "id": id} for to, id in zip(ids, rows, strict=True)])

    await scene.store.write(spread)
    return scene


async def last_endpoint(scene: Scene) -> str:
    return (await scene.deliveries())[-1].endpoint_id


async def plan(scene: Scene, work: Work, *, of: str = "deliveries", as_large: bool = False) -> str:
    """How the database goes about every statement of some work that touches a table.

    A small table PostgreSQL rather reads whole: `as_large`, it would not.
    """

    def explained(connection: Connection) -> str:
        is_sqlite = connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        if as_large and not is_sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        said: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, given: Any, _x: Any, _many: bool) -> None:
            said.append((statement, given))

        event.listen(connection, "before_cursor_execute", note)
        with connection.begin_nested() as step:  # the next one finds the rows as they were
            work(connection)
            step.rollback()
        event.remove(connection, "before_cursor_execute", note)
        rows = []
        for statement, given in said:
            if statement == BY_INDEX:
                connection.exec_driver_sql(statement)
            if of in statement and not isinstance(given, list):
                rows += connection.exec_driver_sql(explain + statement, given).all()
        return "\n".join(str(row[-1]) for row in rows)

    found = await scene.store.write(explained)
    assert not WHOLE.search(found), found
    return found


def claiming(scene: Scene) -> Work:
    def work(connection: Connection) -> None:
        claim = queue.claim_due(
            connection,
            rooms={},
            room=8,
            limit=1000,
            now=scene.clock(),
            lease_seconds=60.0,
            token="lease_1",
        )
        assert claim.deliveries

    return work


async def test_no_step_of_delivering_reads_the_table(crowded: Scene) -> None:
    id, now = await last_endpoint(crowded), crowded.clock()
    claim = claiming(crowded)
    outage = {"state": "failing", "failures": 9, "failing_since": now - 99, "opened_at": now - 60}
    # The walk itself is as cheap by either index.
    steps: dict[str, tuple[Work, dict[str, int]]] = {
        "a claim": (claim, {"ix_deliveries_due": 2, "ix_deliveries_": 4}),
        "of an ordered endpoint": (
            changed_first(id, claim, ordered=True, rate_limit=5.0),
            {"ix_deliveries_ring": 3},
        ),
        "a probe": (
            changed_first(id, claim, probe_at=now, **outage),
            {"ix_deliveries_due": 2, "ix_deliveries_": 4},
        ),
        "pulled forward": (
            lambda c: health.pull_forward(c, id, now=now - 1),
            {"ix_deliveries_": 1},
        ),
        "set aside": (lambda c: health.hold_back(c, id, now=now), {"ix_deliveries_": 1}),
        "oldest": (lambda c: queue.oldest_past_due(c, now=now), {"ix_deliveries_due": 1}),
        "counted": (queue.count_by_state, {"ix_deliveries_": 2}),
    }
    for name, (work, indexes) in steps.items():
        found = await plan(crowded, work, as_large=name == "counted")
        assert not OF_ALL.search(found), (name, found)
        for index, least in indexes.items():
            assert found.count(index) >= least, (name, index, found)


def changed_first(endpoint_id: str, work: Work, **values: Any) -> Work:
    def both(connection: Connection) -> None:
        connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(values))
        work(connection)

    return both


@pytest.mark.databases("sqlite")
async def test_a_start_after_a_crash_reads_what_was_pending_alone(crowded: Scene) -> None:
    await crowded.claim()
    found = await plan(crowded, lambda c: opening.release_all(c, now=crowded.clock()))
    assert found.count("ix_deliveries_") >= 2, found


async def test_what_hints_cost_does_not_grow_with_those_that_are_done(scene: Scene) -> None:
    id, now = scene.account.id, scene.clock()
    steps: dict[str, tuple[Work, str]] = {
        "is it time": (lambda c: accounts.next_due(c, [id]), "ix_hints_due"),
        "a claim": (
            lambda c: accounts.claim_due(c, ids=[id], now=now, lease_seconds=60, token="t"),
            "ix_hints_due",
        ),
        "which are due": (lambda c: hints.due(c, id, now=now), "ix_hints_due"),
        "which are old": (lambda c: hints.forget_old(c, before=now, limit=9), "ix_hints_received"),
    }
    for name, (work, index) in steps.items():
        found = await plan(scene, work, of="hints", as_large=True)
        assert index in found, (name, found)


async def test_a_flooded_endpoint_makes_nobody_read_the_table(flooded: Scene) -> None:
    for ordered in (False, True):
        every = update(endpoints).values(ordered=ordered)
        await flooded.store.write(lambda connection, e=every: connection.execute(e).rowcount)
        found = await plan(flooded, claiming(flooded))
        assert found.count("ix_deliveries_ring") >= 1 + 2 * ordered, found
        found = await plan(flooded, lambda c: queue.oldest_past_due(c, now=flooded.clock()))
        assert "ix_deliveries_ring" in found, found


@pytest.mark.databases("postgresql")
async def test_what_was_not_counted_yet_is_found_by_its_index(scene: Scene) -> None:
    """Nothing waited when the database last counted: all that waits would look cheap to read."""
    await scene.store.write(lambda connection: connection.execute(text("ANALYZE")).rowcount)
    await fill(scene, dict.fromkeys(RECEIVERS, 200))
    claim = await scene.claim(room=2)

    def settle(connection: Connection) -> None:
        tried = [scene.tried(one) for one in claim.deliveries]
        assert queue.settle(connection, tried, mint=scene.mint, now=scene.clock()).written

    steps: dict[str, tuple[Work, set[str]]] = {
        "a claim": (
            claiming(scene),
            {"ix_deliveries_ring", "ix_deliveries_due", "pk_deliveries"},
        ),
        "what attempts brought": (settle, {"pk_deliveries"}),
    }
    for name, (work, indexes) in steps.items():
        found = await plan(scene, work)
        used = set(re.findall(r"using (\w+) on deliveries", found))
        assert used == indexes, (name, found)
        assert not re.search(r"Hash|Merge|Sort Key: d|Bitmap", found), (name, found)


@pytest.mark.databases("postgresql")
async def test_foreign_keys_of_what_is_recorded_are_checked_by_kept_plans(scene: Scene) -> None:
    """Of an event and a delivery there are three: to plan each check costs more than the check."""
    await scene.register("batch_1")

    def mode(connection: Connection) -> str:
        return str(connection.execute(text("SHOW plan_cache_mode")).scalar())

    def record(connection: Connection) -> str:
        scene.record(connection, snapshot("batch_1"))
        return mode(connection)

    assert await scene.store.write(record) == "auto"
    assert await scene.store.write(mode) == "force_custom_plan", "until the transaction ends"
    assert len(await scene.deliveries()) == 1


async def test_urls_that_nothing_waits_for_cost_the_janitor_and_the_metrics_nothing(
    crowded: Scene,
) -> None:
    """A URL of its own for each batch is common: then there are as many endpoints as batches."""
    now, urls = crowded.clock(), [f"https://receiver.example/done/{n}" for n in range(2000)]
    made = {"mint": crowded.mint, "now": now}
    await crowded.store.write(ensure_endpoints, "default", urls, **made)
    await crowded.store.write(lambda connection: connection.execute(text("ANALYZE")).rowcount)
    steps: list[Work] = [
        lambda c: queue.oldest_past_due(c, now=now),
        lambda c: health.hold_back_disabled(c, now=now),
        lambda c: stored_endpoints.forget_all_deleted(c, now=now),
        lambda c: health.count_parked(c, now=now),
    ]
    for step in steps:
        found = await plan(crowded, step)
        assert not WHOLE_ENDPOINTS.search(found), found
    found = await plan(crowded, lambda c: health.pull_forward_recovered(c, now=now), of="endpoints")
    assert not WHOLE_ENDPOINTS.search(found), found


def listed(what: Callable[..., Any], **asked: Any) -> Work:
    return lambda c: what(c, "default", limit=20, **asked)


async def test_whatever_a_list_is_asked_for_is_read_by_an_index(crowded: Scene) -> None:
    """Ten thousand deliveries of one type, and a thousand batches of which none has ended."""
    await crowded.register(*(f"batch_{n}" for n in range(1000)))
    await crowded.store.write(lambda c: c.execute(text("ANALYZE")).rowcount)
    id, now = await last_endpoint(crowded), crowded.clock()
    made = await crowded.deliveries()
    last_key = (await crowded.store.read(list_batches, DEFAULT_PROJECT, limit=1)).items[0].key
    ids, event_id = [one.id for one in made], made[0].event_id
    waits, held, done, gone = (
        DeliveryState(word) for word in ("pending", "held", "delivered", "exhausted")
    )
    failed, by_state = EventType.FAILED, "ix_deliveries_by_state_of"
    one_of = {"endpoint_id": id}
    when: dict[str, Any] = {"since": now - 9, "until": now + 9}

    def of_deliveries(**asked: Any) -> Work:
        return listed(deliveries.list_deliveries, **asked)

    def of_events(**asked: Any) -> Work:
        return listed(events.list_events, **asked)

    def of_batches(**asked: Any) -> Work:
        return listed(list_batches, filter=BatchFilter(**asked))

    by_project, by_endpoint = "ix_deliveries_of_project", "ix_deliveries_of_endpoint"
    # A name on SQLite and on PostgreSQL, which walks all ids where few are of another project.
    by_event = "deliveries_2 [(]event_id|uq_deliveries_event_id"
    by_id = "batches_1 [(]account_id=. AND id|uq_batches_id"
    by_watch = "watches_2 [(]batch_key|uq_watches_batch_key"
    lists: list[tuple[str, str, Work]] = [
        ("ix_deliveries_listed|pk_deliveries", "deliveries", of_deliveries()),
        (
            "ix_deliveries_listed|pk_deliveries",
            "deliveries",
            of_deliveries(after=ids[5000], **when),
        ),
        (f"{by_state}_project", "deliveries", of_deliveries(state=waits)),
        (f"{by_state}_project|ix_deliveries_held_listed", "deliveries", of_deliveries(state=held)),
        (by_project, "deliveries", of_deliveries(type=failed)),
        (by_project, "deliveries", of_deliveries(type=failed, state=done, **when)),
        (
            f"{by_state}_project|ix_deliveries_exhausted_listed",
            "deliveries",
            of_deliveries(state=gone, type=failed),
        ),
        (by_endpoint, "deliveries", of_deliveries(**one_of)),
        ("ix_deliveries_(ring|due)", "deliveries", of_deliveries(**one_of, state=waits)),
        (
            "ix_deliveries_(ring|due)",
            "deliveries",
            of_deliveries(**one_of, state=waits, type=failed),
        ),
        (
            f"{by_state}_endpoint|ix_deliveries_exhausted_listed",
            "deliveries",
            of_deliveries(**one_of, state=gone, type=failed),
        ),
        (by_endpoint, "deliveries", of_deliveries(**one_of, state=done, type=failed)),
        (by_endpoint, "deliveries", of_deliveries(**one_of, after=ids[5000])),
        (by_event, "deliveries", of_deliveries(event_id=event_id, state=done, **when)),
        (by_event, "deliveries", lambda c: deliveries.of_key(c, last_key, limit=20)),
        ("ix_deliveries_missed", "deliveries", of_events(delivery_success=False)),
        ("ix_deliveries_missed", "deliveries", of_events(delivery_success=False, type=failed)),
        (by_endpoint, "deliveries", of_events(**one_of, type=failed, **when)),
        ("ix_events_listed|pk_events", "events", of_events(**when)),
        ("ix_events_by_type", "events", of_events(type=failed, **when)),
        ("ix_events_listed|pk_events", "events", of_events(delivery_success=True)),
        ("ix_events_by_type", "events", of_events(delivery_success=True, type=failed)),
        ("ix_deliveries_missed", "deliveries", of_events(delivery_success=True)),
        ("ix_batches_found", "batches", of_batches()),
        ("ix_batches_found", "batches", of_batches(status=Status.FAILED)),
        (
            "ix_batches_found",
            "batches",
            of_batches(model="m", metadata={"a": "b"}, account="openai", **when),
        ),
        (by_id, "batches", of_batches(begins="batch_x", model="m", **when)),
        ("ix_batches_found", "batches", of_batches(outcome=BatchOutcome.NONE)),
        ("ix_batches_joined", "batches", listed(submissions.list_submissions)),
        (
            "ix_batches_joined",
            "batches",
            listed(submissions.list_submissions, filter=BatchFilter(model="m", **when)),
        ),
        ("ix_endpoints_listed", "endpoints", listed(list_endpoints, now=now, implied=True)),
        ("ix_endpoints_unwell", "endpoints", listed(stored_endpoints.list_unwell, now=now)),
        (by_watch, "watches", lambda c: watches.of_key(c, last_key, limit=20)),
        (by_watch, "watches", listed(watches.list_watches, batch_id="batch_seed")),
    ]
    for index, table, work in lists:
        found = await plan(crowded, work, of=table, as_large=True)
        assert re.search(index, found), (index, found)


def results_of_none(connection: Connection) -> None:
    with pytest.raises(NotFound):
        results.of_batch(connection, "default", "batch_7")


async def test_a_batch_of_a_project_is_found_by_its_id(scene: Scene) -> None:
    """Also where the database never counted what it holds, as SQLite never does by itself."""
    await scene.register(*(f"batch_{n}" for n in range(100)))
    by_id = "batches_1 [(]account_id=. AND id|uq_batches_id"
    finds: list[Work] = [
        lambda c: events.keys_of(c, "default", "batch_7"),
        listed(events.list_events, batch_id="batch_7"),
        listed(deliveries.list_deliveries, batch_id="batch_7"),
        listed(watches.list_watches, batch_id="batch_7"),
        lambda c: batches.get_batch(c, "default", "batch_7"),
        listed(list_batches, filter=BatchFilter(begins="batch_7", status=Status.LOST)),
        results_of_none,
    ]
    for find in finds:
        found = await plan(scene, find, of="FROM batches", as_large=True)
        assert re.search(by_id, found), found
        assert "ix_batches_found" not in found, found


async def test_the_batches_of_an_account_are_found_by_what_a_sweep_asks(scene: Scene) -> None:
    """A thousand have ended, one of 20 is open, and nobody knows the input of the newest ones."""
    await scene.register(*(f"batch_{n:04}" for n in range(2000)))
    id, now = scene.account.id, scene.clock()

    def end_most(connection: Connection) -> None:
        ended = "status = 'completed', ended_at = 1, input_file_id = 'file-' || id"
        connection.execute(text(f"UPDATE batches SET {ended} WHERE id LIKE '%1' OR id < 'batch_1'"))
        connection.execute(text("ANALYZE"))

    await scene.store.write(end_most)
    results = SimpleNamespace(project_id=DEFAULT_PROJECT, ended_at=now)
    held: Any = SimpleNamespace(account_id=id, results=results)
    by_id = "batches_1 [(]account_id=. AND id|uq_batches_id"
    steps: dict[str, tuple[Work, str]] = {
        "a sweep": (lambda c: batches.known(c, id, now=now), "ix_batches_open"),
        "a look at some": (lambda c: batches.known_of(c, id, ["batch_7"], now=now), by_id),
        "which are open": (lambda c: batches.unended_ids(c, id, ["batch_7"]), by_id),
        "who needs an input": (lambda c: deletions.user_of(c, id, "file-1"), "ix_batches_input "),
        "what was not seen": (lambda c: deletions.any_unseen(c, held), "ix_batches_found"),
    }
    for name, (work, index) in steps.items():
        found = await plan(scene, work, of="FROM batches", as_large=True)
        assert re.search(index, f"{found} "), (name, found)
        assert not re.search(r"Seq Scan on batches|SCAN batches(?! USING)", found), (name, found)


async def test_the_dashboard_counts_deliveries_from_an_index(crowded: Scene) -> None:
    id, now = await last_endpoint(crowded), crowded.clock()
    within = overview.period_until(now, step_seconds=3600.0, steps=2)
    looks: dict[str, tuple[Work, str]] = {
        "waiting": (lambda c: overview.waiting(c, "default", now=now), "ix_deliveries_"),
        "made": (lambda c: overview.made(c, "default", within), "ix_deliveries_"),
        "of an endpoint": (
            lambda c: overview.made(c, "default", within, endpoint_id=id),
            "ix_deliveries_",
        ),
        "lag": (
            lambda c: overview.lag(c, "default", since=now - 3600.0),
            "ix_deliveries_listed|pk_deliveries",
        ),
    }
    for name, (work, index) in looks.items():
        assert re.search(index, await plan(crowded, work, as_large=True)), name


async def test_a_replay_is_counted_by_the_indexes_of_what_it_takes(crowded: Scene) -> None:
    """Half of all deliveries are delivered, and not looked at."""

    def deliver_more(connection: Connection) -> None:
        done = "state = 'delivered', due_at = NULL, finished_at = 1"
        connection.execute(text(f"UPDATE deliveries SET {done} WHERE id > 'dlv'"))
        connection.execute(text("ANALYZE"))

    await crowded.store.write(deliver_more)
    now = crowded.clock()
    for status in (ReplayStatus.FAILED, ReplayStatus.HELD):
        filter = ReplayFilter(status=status)
        found = await plan(crowded, lambda c, f=filter: replays.count(c, "default", f, now=now))
        assert "ix_deliveries_held" in found or "ix_deliveries_exhausted_listed" in found, found
        assert "ix_deliveries_listed" not in found, found


async def test_the_results_that_wait_for_longest_are_found_by_an_index(scene: Scene) -> None:
    await scene.register("batch_seed")

    def fill(connection: Connection) -> None:
        key = connection.execute(text("SELECT min(key) FROM batches")).scalar()
        row = (
            "INSERT INTO results (id, project_id, batch_key, generation, state, secret, due_at,"
            " tries, created_at, account_id)"
            " VALUES (:id, 'default', :key, :n, 'waiting', 's', :due, 0, 1, 'acc')"
        )
        many = [{"id": f"res_x{n}", "key": key, "n": n, "due": float(n)} for n in range(1000, 4000)]
        connection.execute(text(row), many)
        connection.execute(text("ANALYZE"))

    await scene.store.write(fill)
    found = await plan(scene, merges.next_due, of="results")
    assert "ix_results_next" in found, found
    assert "ix_results_leased" in found, found
    assert await scene.store.read(merges.next_due) == 1000


async def test_the_accounts_whose_submissions_wait_are_found_by_an_index(scene: Scene) -> None:
    """Of 3,000 submissions of which most run, and wait for their parts."""
    await scene.register(*(f"batch_{n:04}" for n in range(3000)))

    def fill(connection: Connection) -> None:
        connection.execute(
            text(
                "INSERT INTO submissions (id, project_id, batch_key, model, retry_missing,"
                " failures, due_at, created_at, account_id)"
                " SELECT 'sub_' || id, project_id, key, '', 0, 0, 1000 + key, 1, account_id"
                " FROM batches"
            )
        )
        leased = "lease_until = 900, lease_token = 'l', due_at = 9000000"
        first = "SELECT min(batch_key) FROM submissions"
        connection.execute(text(f"UPDATE submissions SET {leased} WHERE batch_key = ({first})"))
        connection.execute(text("ANALYZE"))

    await scene.store.write(fill)
    found = await plan(scene, parts.waiting, of="submissions")
    assert "ix_submissions_account" in found, found
    assert "ix_submissions_leased" in found, found
    next_ = await plan(scene, parts.next_due, of="submissions")
    assert "ix_submissions_due" in next_, next_
    assert "Seq Scan on submissions" not in found + next_
    assert not re.search(r"SCAN (submissions|s)\b(?! USING)", found + next_), found + next_
    (account,) = await scene.store.read(parts.waiting)
    assert (account.account_id, account.due_at) == (scene.account.id, 900)
    assert await scene.store.read(parts.next_due) == 900
