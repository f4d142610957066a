"""What is Groq's own, beside what OpenAI's dialect promises."""

from __future__ import annotations

from batchbell.core.model import Status
from batchbell.providers.profiles import GROQ
from batchbell.sandbox import Sandbox
from tests.providers.benches import KEY, NOW, connected


async def test_all_batches_come_in_one_answer() -> None:
    async with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        ids = sandbox.groq.add_batches(250)
        sandbox.groq.finish(ids[0], "expired", completed=4)
        async for provider in connected("groq", GROQ.address(sandbox.groq_url)):
            page = await provider.list_page()
        assert [one.id for one in page.batches] == ids[::-1]
        assert (page.next_cursor, page.fault) == (None, None)
        assert list(sandbox.groq.log) == [("GET", "/groq/openai/v1/batches")]
    last = page.batches[-1]
    assert (last.status, last.model, last.usage) == (Status.EXPIRED, None, None)
