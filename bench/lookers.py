"""Open dashboards, in a process of their own: they hold pages as browsers do, and only count."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from bench.children import Talk

HEADERS = {"accept": "text/event-stream", "sec-fetch-site": "same-origin"}
BETWEEN = b"\n\n"
PAGE = b"event: page\n"
CHUNK = 2**16


class Looker:
    """One tab."""

    def __init__(self) -> None:
        self.pages = self.bytes = 0
        self.first = asyncio.Event()

    async def look(self, session: aiohttp.ClientSession, url: str) -> None:
        """Until cancelled."""
        async with session.get(url, headers=HEADERS) as answer:
            assert answer.status == 200, f"{url}: {answer.status}"
            left = b""
            while chunk := await answer.content.read(CHUNK):
                self.bytes += len(chunk)
                *frames, left = (left + chunk).split(BETWEEN)
                self.pages += sum(frame.startswith(PAGE) for frame in frames)
                if self.pages:
                    self.first.set()
        raise ConnectionError(f"{url} was ended")


async def main(talk: Talk) -> None:
    """`open` and URLs: answered when each has shown its page. `close` ends all.

    Every answer says how many pages came since they were opened, and how many bytes.
    """
    talk.say()
    lookers: list[Looker] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=NO_END) as session:
        tabs: list[asyncio.Task[None]] = []
        while (order := await talk.hear()) is not None:
            match order:
                case {"open": list(urls)}:
                    lookers = [Looker() for _ in urls]
                    tabs = [
                        asyncio.create_task(one.look(session, url))
                        for one, url in zip(lookers, urls, strict=True)
                    ]
                    for one in lookers:
                        await one.first.wait()
                case {"close": True}:
                    await _close(tabs)
            talk.say(
                pages=sum(one.pages for one in lookers),
                bytes=sum(one.bytes for one in lookers),
                broken=sum(tab.done() for tab in tabs),
            )


async def _close(tabs: list[asyncio.Task[None]]) -> None:
    for tab in tabs:
        tab.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tab
    tabs.clear()


NO_END = aiohttp.ClientTimeout(total=None)
