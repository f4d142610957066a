"""Nearly valid files through the whole service: what is taken comes back, line for line."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx2
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from batchbell.client import AsyncBatchbell, ServerUnavailable
from batchbell.files.lines import read_lines
from batchbell.sandbox import Sandbox
from tests.acceptance.conftest import Shell
from tests.acceptance.test_submitting import ENDPOINT, end_all
from tests.files.fuzzing import MODEL, answers, files, requests

NUMBER = 24
NAMES = [f"r{n}" for n in range(6)]


def drawn(strategy: st.SearchStrategy[Any], number: int = NUMBER) -> list[Any]:
    """So many examples, to be used at once."""
    found = []

    @settings(max_examples=number, phases=[Phase.generate], database=None)
    @given(strategy)
    def draw(one: Any) -> None:
        found.append(one)

    draw()
    return found


def named(content: bytes) -> list[str]:
    """The ids that a file asks to have answered."""
    found = []
    for line in read_lines(io.BytesIO(content)):
        name = json.loads(line.text, parse_int=str).get("custom_id")
        found.append(f"request-{line.number:06d}" if name is None else name)
    return found


async def post(http: httpx2.AsyncClient, content: bytes, encoding: str) -> httpx2.Response:
    match encoding:
        case "form":
            return await http.post("/v1/submissions", files={"file": ("in.jsonl", content)})
        case "json":
            body = b'{"requests":[' + content.replace(b"\n", b",") + b"]}"
            return await http.post("/v1/submissions", content=body)
        case _:
            headers = {"content-type": "application/jsonl"}
            return await http.post("/v1/submissions", content=content, headers=headers)


async def identities(bell: AsyncBatchbell, id: str) -> list[str | None]:
    await bell.wait(id)
    texts = [text async for text in bell.result_texts(id)]
    # What matches no request comes last, as it was sent: it may have no custom_id.
    read = partial(json.loads, parse_int=str)
    return [read(text.decode("utf-8", "replace")).get("custom_id") for text in texts]


async def test_what_is_accepted_comes_back_in_its_order(shell: Shell, sandbox: Sandbox) -> None:
    await shell.serve()
    ending = asyncio.create_task(end_all(sandbox.provider, failed=0))
    encodings = st.sampled_from(["form", "jsonl", "json"])
    asked: dict[str, Sequence[str]] = {}
    async with httpx2.AsyncClient(base_url=shell.url, timeout=30) as http:
        pairs = st.tuples(files(requests(), most=4), encodings)
        for whole, encoding in await asyncio.to_thread(drawn, pairs):
            texts = [line.text for line in read_lines(io.BytesIO(whole))]
            content = b"\n".join(texts) if encoding == "json" else whole
            answer = await post(http, content, encoding)
            assert answer.status_code in (201, 400, 422), (content, answer.text)
            if answer.status_code == 201:
                asked[answer.json()["id"]] = named(content)
    assert len(asked) >= NUMBER / 10, "most lines are in order"
    async with AsyncBatchbell(shell.url) as bell:
        for id, names in asked.items():
            assert await identities(bell, id) == names
    ending.cancel()


async def test_whatever_a_provider_leaves_behind_there_are_results(
    shell: Shell, sandbox: Sandbox
) -> None:
    shell.first = "from batchbell.core import results as r; r.FIRST_WAIT_SECONDS = 0.01; "
    shell.first += "r.LONGEST_WAIT_SECONDS = 0.05; "
    await shell.serve()
    provider = sandbox.provider
    lines = [{"custom_id": name, "body": {"model": MODEL, "input": name}} for name in NAMES]
    left = files(answers(st.sampled_from(NAMES)), most=6)
    pairs = await asyncio.to_thread(drawn, st.tuples(left, left), NUMBER // 3)
    async with AsyncBatchbell(shell.url) as bell:
        made = {(await bell.submit(lines, endpoint=ENDPOINT)).id: pair for pair in pairs}
        for id, pair in made.items():
            batch_id = await handed_in(bell, id)
            provider.finish(batch_id, "completed", failed=1)
            shown = provider.retrieve(batch_id)
            for kind, content in zip(("output", "error"), pair, strict=True):
                provider.file(shown[f"{kind}_file_id"]).make = lambda content=content: content
        for id in made:
            [part] = (await bell.submission(id)).parts
            try:
                found = await identities(bell, id)
            except ServerUnavailable:  # nothing of the one part could be read
                found = NAMES
            assert found[: len(NAMES)] == NAMES
            merged = (await bell.batch(str(part.batch_id))).batchbell.results
            assert merged is not None
            if merged.state == "failed":
                assert merged.reason, "a page or an error in place of the lines is named"
                continue
            assert merged.state == "ready"
            told = {"total": 6, "completed": 5, "failed": 1}
            agrees = (merged.lines, merged.succeeded, merged.not_run) == (6, told["completed"], 0)
            assert bool(merged.notes) != agrees


async def handed_in(bell: AsyncBatchbell, id: str) -> str:
    """The provider's batch, as soon as there is one."""
    while True:
        [part] = (await bell.submission(id)).parts
        if part.batch_id is not None:
            return part.batch_id
        await asyncio.sleep(0.05)
