"""The receiver in a process of its own: it only counts."""

from __future__ import annotations

from batchbell.sandbox import Hang, QuickReceiver, Receiver, Respond
from bench.children import Talk


async def main(talk: Talk, *, delay_seconds: float = 0.0) -> None:
    """Every order is answered with how many requests have come.

    With a delay it answers after that, and never at `/dead`.
    """
    made = Receiver(keep=False) if delay_seconds else QuickReceiver()
    if isinstance(made, Receiver):
        made.default = Respond(delay_seconds=delay_seconds)
        made.behave("/dead", Hang())
    async with made as receiver:
        talk.say(url=receiver.url(""))
        while await talk.hear() is not None:
            talk.say(total=receiver.total)
