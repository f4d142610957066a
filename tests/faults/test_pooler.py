"""A server and a worker that reach PostgreSQL through PgBouncer in transaction mode."""

from __future__ import annotations

from pathlib import Path

from tests.faults.conftest import WORK, make_town
from tests.pooler import TRANSACTION, pooled


async def test_two_processes_watch_and_deliver_each_once(postgres_url: str, tmp_path: Path) -> None:
    with pooled(postgres_url, tmp_path, mode=TRANSACTION) as url:
        async with make_town(url, tmp_path) as town:
            await town.start()
            worker = await town.start(WORK)
            ids = town.sandbox.provider.add_batches(40)
            await town.register(ids)
            for id in ids:
                town.sandbox.provider.finish(id, "completed")
            told = await town.all_arrived(ids)
            await town.until(lambda: town.recorded() == len(ids))
            assert set(told.values()) == {1}
            await town.until(lambda: "database.not_listening" in worker.log.read_text())
            for process in town.running:
                assert await process.terminate() == 0
