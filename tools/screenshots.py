"""Take the screenshots of the README from what the demo shows: `python -m tools.screenshots`.

It needs Chromium (`apt-get install chromium`). Whoever changes a page runs it again.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import httpx2
import openai
from playwright.async_api import Browser, async_playwright

from batchbell.cli import walkthrough
from batchbell.cli.walkthrough import Stage
from batchbell.client import AsyncBatchbell

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
ENDS = ("completed", "completed", "failed", "completed", "expired", "completed", "cancelled")
"""How some more batches end, so that there is something to see."""
RUNNING = 3
SECONDS = 40.0


async def main() -> None:
    path = shutil.which("chromium")
    if path is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            walkthrough.set_up(Path(folder)) as stage,
            walkthrough.sdk_of(openai, stage) as customer,
            async_playwright() as playwright,
        ):
            await walkthrough.play(stage, customer)
            await furnish(stage, customer)
            arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
            browser = await playwright.chromium.launch(executable_path=path, args=arguments)
            for scheme in ("light", "dark"):
                await take(browser, stage, scheme)
            await browser.close()


async def furnish(stage: Stage, customer: openai.AsyncOpenAI) -> None:
    """More batches: some that have ended, well or not, and some that run."""
    file = await customer.files.create(file=Path(stage.folder / "requests.jsonl"), purpose="batch")
    async with AsyncBatchbell(stage.batchbell_url) as bell:
        await bell.create_endpoint(url=stage.receiver.url("/platform"), name="data platform")
        await bell.create_endpoint(url="http://127.0.0.1:9/billing", name="billing")
        ends = [{"sandbox_seconds": "2", "sandbox_ends": end} for end in ENDS]
        runs = [{"sandbox_seconds": str(60 + 40 * n)} for n in range(RUNNING)]
        ids = []
        for metadata in (*ends, *runs):
            made = await customer.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata=metadata,
            )
            await bell.watch(made.id, url=stage.receiver.url("/hook"), results="link")
            ids.append(made.id)
        async with asyncio.timeout(SECONDS):
            for id in ids[: len(ENDS)]:
                async for _ in _until_ended(bell, id):
                    pass
        await bell.batch(ids[0])


async def _until_ended(bell: AsyncBatchbell, id: str):  # type: ignore[no-untyped-def]
    while not (await bell.batch(id)).ended:
        await asyncio.sleep(0.5)
        yield None


async def take(browser: Browser, stage: Stage, scheme: str) -> None:
    """The overview, the list of batches and one batch, in one theme."""
    context = await browser.new_context(color_scheme=scheme, viewport=SIZE)  # type: ignore[arg-type]
    page = await context.new_page()
    async with httpx2.AsyncClient(base_url=stage.batchbell_url, trust_env=False) as http:
        found = (await http.get("/v1/batches?status=completed")).json()["data"]
    one = next(b["id"] for b in found if b["batchbell"]["outcome"] == "partial")
    for name, where in (("overview", ""), ("batches", "/batches"), ("batch", f"/batches/{one}")):
        await page.goto(f"{stage.batchbell_url}/dashboard{where}")
        await page.locator(".live[data-state=on]").wait_for()
        await page.screenshot(path=FOLDER / f"dashboard-{name}-{scheme}.png")
    await context.close()


if __name__ == "__main__":
    asyncio.run(main())
