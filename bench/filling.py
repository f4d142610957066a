"""Fills a database with deliveries that wait, in a process of its own: by the code of one tree."""

from __future__ import annotations

from batchbell.core.model import Dialect
from bench.backlog import Backlog
from bench.children import Talk


async def main(talk: Talk, *, database_url: str, urls: list[str], dialect: str) -> None:
    """Orders: `add` so many, or, without, check that all that ever waited was delivered."""
    backlog = Backlog(database_url, urls, Dialect(dialect))
    talk.say()
    while (order := await talk.hear()) is not None:
        match order:
            case {"add": int(number)}:
                await backlog.add(number)
            case _:
                await backlog.check()
        talk.say(total=backlog.total)
