"""Folders for what is under way."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE_SECONDS = 86_400.0


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """A folder of its own, gone afterwards; what killed processes left behind goes too."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob("merge-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="merge-", dir=root) as folder:
        yield Path(folder)
