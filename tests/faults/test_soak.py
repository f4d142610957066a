"""A short soak: `make soak` plays on for longer, with other seeds."""

from __future__ import annotations

from pathlib import Path

from tests.faults.rounds import play

SEED = 5


async def test_a_round_of_trouble_loses_nothing(database_url: str, tmp_path: Path) -> None:
    verdict = await play(SEED, database_url, tmp_path)
    assert verdict.rounds == 1
    assert verdict.deliveries > 0
    assert verdict.kills > 0
