"""(j): what the gateway costs a file that passes through it."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator

import aiohttp

from bench.children import Child
from bench.provider import API_KEY
from bench.run import Run
from bench.server import serving
from bench.tables import show

MIB = 2**20
CHUNK = b"x" * (64 * 1024 - 1) + b"\n"
EDGE = "edge"
ROUNDS = 3


async def run(run: Run) -> None:
    """Uploads and downloads through the gateway, and straight to the provider"""
    size = (50 if run.quick else 200) * MIB
    async with Child("provider", run.folder) as provider:
        base_url = provider.ready["base_url"]
        async with serving(run.folder, run.sqlite(), base_url) as url:
            ways = {"direct": base_url, "gateway": f"{url}/v1"}
            found = {name: [0.0, 0.0] for name in ways}
            for _ in range(ROUNDS):  # in turns: the machine is never the same for long
                for name, way in ways.items():
                    taken = await _both_ways(way, size)
                    found[name] = [max(*pair) for pair in zip(found[name], taken, strict=True)]
    show(
        ["way", "direct MB/s", "gateway MB/s", "ratio"],
        [
            [word, f"{direct:,.0f}", f"{gateway:,.0f}", f"{gateway / direct:.2f}"]
            for word, direct, gateway in zip(("up", "down"), *found.values(), strict=True)
        ],
    )
    print(
        f"\nThe best of {ROUNDS} rounds of {size // MIB} MiB each, in turns. Provider, server and"
        " caller are three processes on this machine, and\nthe provider takes the multipart body"
        " apart: with two cores the gateway takes processor time from both ends."
    )


async def _both_ways(base_url: str, size: int) -> tuple[float, float]:
    """MB a second up and down."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        started = time.perf_counter()
        kind = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}
        async with session.post(f"{base_url}/files", data=_form(size), headers=kind) as answer:
            file = await answer.json()
            assert file["bytes"] == size, file
        sent = time.perf_counter()
        read = 0
        async with session.get(f"{base_url}/files/{file['id']}/content") as answer:
            async for chunk in answer.content.iter_any():
                read += len(chunk)
        assert read == size
        done = time.perf_counter()
        async with session.delete(f"{base_url}/files/{file['id']}") as answer:
            assert answer.status == 200
    return size / 1e6 / (sent - started), size / 1e6 / (done - sent)


async def _form(size: int) -> AsyncIterator[bytes]:
    fields = f'--{EDGE}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    file = 'Content-Disposition: form-data; name="file"; filename="in.jsonl"'
    yield f"{fields}--{EDGE}\r\n{file}\r\n\r\n".encode()
    for chunk in itertools.repeat(CHUNK, size // len(CHUNK)):
        yield chunk
    yield f"\r\n--{EDGE}--\r\n".encode()
