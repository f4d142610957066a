"""The receiver in a process of its own: it only counts."""

from __future__ import annotations

import time

from batchbell.sandbox import Hang, QuickReceiver, Receiver, Respond
from bench.children import Talk


class Timed(QuickReceiver):
    """Knows when the first request came, and the latest."""

    first = last = 0.0

    def count(self, requests: int) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        super().count(requests)


async def main(talk: Talk, *, delay_seconds: float = 0.0, quick_delay_seconds: float = 0.0) -> None:
    """Every order is answered with how many requests have come; without a delay, also when.

    The first one is that after the start, or after the order `begin`. With a delay it answers after
    that, and never at `/dead`. With a quick one it has no such path, and is not the limit.
    """
    made = Receiver(keep=False) if delay_seconds else Timed(delay_seconds=quick_delay_seconds)
    if isinstance(made, Receiver):
        made.default = Respond(delay_seconds=delay_seconds)
        made.behave("/dead", Hang())
    async with made as receiver:
        talk.say(url=receiver.url(""))
        while (order := await talk.hear()) is not None:
            if isinstance(made, Timed) and "begin" in order:
                made.first = 0.0
            when = {"first": made.first, "last": made.last} if isinstance(made, Timed) else {}
            talk.say(total=receiver.total, **when)
