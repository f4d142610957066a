"""Folders for what is under way."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from batchbell.threads import disk

STALE_SECONDS = 86_400.0


@asynccontextmanager
async def scratch_folder(root: Path) -> AsyncIterator[Path]:
    """A folder of its own, gone afterwards; what killed processes left behind goes too.

    Great files take a while to delete, so a thread does that.
    """
    folder = await disk(_make, root)
    try:
        yield folder
    finally:
        await disk(shutil.rmtree, folder, ignore_errors=True)


def _make(root: Path) -> Path:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in root.glob("merge-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="merge-", dir=root))
