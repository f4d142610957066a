"""The sandbox provider in a process of its own, so that its work is not counted as ours."""

from __future__ import annotations

from batchbell.sandbox import Sandbox
from bench.children import Talk

API_KEY = "sk-bench"


async def main(talk: Talk) -> None:
    """`add` makes open batches and answers with their ids, `finish` ends all that are open.

    Every answer but that to `add` says what was asked of us.
    """
    async with Sandbox(api_key=API_KEY) as sandbox:
        talk.say(base_url=sandbox.base_url)
        made: list[str] = []
        while (order := await talk.hear()) is not None:
            match order:
                case {"add": int(number)}:
                    added = sandbox.provider.add_batches(number)
                    made += added
                    talk.say(ids=added)
                case {"finish": True}:
                    for id in made:
                        sandbox.provider.finish(id)
                    made.clear()
                    talk.say(**sandbox.provider.calls)
                case _:
                    talk.say(**sandbox.provider.calls)
