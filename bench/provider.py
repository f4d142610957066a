"""The sandbox provider in a process of its own, so that its work is not counted as ours."""

from __future__ import annotations

from batchbell.sandbox import Sandbox
from bench.children import Talk

API_KEY = "sk-bench"


async def main(talk: Talk) -> None:
    """`add` makes open batches and answers with their ids; else it is told what was asked of us."""
    async with Sandbox(api_key=API_KEY) as sandbox:
        talk.say(base_url=sandbox.base_url)
        while (order := await talk.hear()) is not None:
            match order:
                case {"add": int(number)}:
                    talk.say(ids=sandbox.provider.add_batches(number))
                case _:
                    talk.say(**sandbox.provider.calls)
