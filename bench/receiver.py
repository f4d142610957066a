"""The receiver in a process of its own: it only counts."""

from __future__ import annotations

from batchbell.sandbox import QuickReceiver
from bench.children import Talk


async def main(talk: Talk) -> None:
    """Every order is answered with how many requests have come."""
    async with QuickReceiver() as receiver:
        talk.say(url=receiver.url(""))
        while await talk.hear() is not None:
            talk.say(total=receiver.total)
