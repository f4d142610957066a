"""Copies a batch's files without looking at them, in a process of its own."""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path

from batchbell.files.results_store import Folder
from batchbell.net.api import ApiClient
from batchbell.process import calm_collector
from batchbell.providers.openai import OpenAI
from batchbell.providers.profiles import OPENAI
from batchbell.providers.protocol import Provider
from bench.children import Talk

MOST_BYTES = 2**40


async def main(talk: Talk, *, base_url: str, into: str) -> None:
    """Each order names the `copy` of files to make: streamed to disk, then put on the shelf."""
    root, api = Path(into), ApiClient(base_url, {})
    await asyncio.to_thread(root.mkdir)
    provider, results_store = OpenAI(OPENAI, api, "", time.time), Folder(root / "shelf")
    calm_collector()
    talk.say()
    while (order := await talk.hear()) is not None:
        started, cpu = time.perf_counter(), _cpu_seconds()
        for file_id in order["copy"]:
            await _stream(provider, file_id, root / "copy")
            await results_store.put(file_id, root / "copy")
        talk.say(seconds=time.perf_counter() - started, cpu_seconds=_cpu_seconds() - cpu)
        for file_id in order["copy"]:
            await results_store.delete(file_id)
    await api.aclose()


async def _stream(provider: Provider, file_id: str, target: Path) -> None:
    await provider.results(file_id, target, most_bytes=MOST_BYTES)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
