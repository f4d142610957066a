"""PgBouncer before a PostgreSQL server, and a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from tests.ports import free_port

SESSION, TRANSACTION = "session", "transaction"
START_SECONDS = 30.0
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
ignore_startup_parameters = {ignored}
server_reset_query = DISCARD ALL
"""


def program() -> str:
    """Where it is. In CI it must be there; elsewhere the test is skipped."""
    found = shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("pgbouncer is not installed, and CI must have it: apt-get install pgbouncer")
    if found is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    return found


def host_of(url: URL) -> str:
    """A directory of a socket, or a name."""
    named = url.query.get("host", url.host) or "127.0.0.1"
    return named if isinstance(named, str) else named[0]


@contextlib.contextmanager
def pooled(database_url: str, folder: Path, *, mode: str, ignored: str = "") -> Iterator[str]:
    """The URL of the same database through PgBouncer."""
    binary, url, port = program(), make_url(database_url), free_port()
    host = host_of(url)
    configuration = folder / f"pgbouncer-{port}.ini"
    configuration.write_text(
        CONFIGURATION.format(
            host=host,
            port=url.port or 5432,
            user=url.username or "postgres",
            password=f" password={url.password}" if url.password else "",
            listen_port=port,
            mode=mode,
            # A session keeps its connection: each of our processes takes eleven.
            size=40 if mode == SESSION else 4,
            ignored=ignored,
        )
    )
    command = [binary, str(configuration)]
    if os.geteuid() == 0:
        # It refuses to run as root, and must reach the socket of the server.
        owner = os.stat(host).st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid
        command = [binary, "-u", pwd.getpwuid(owner or pwd.getpwnam("nobody").pw_uid).pw_name]
        command.append(str(configuration))
        for parent in (configuration, *configuration.parents[:3]):
            if str(parent).startswith(("/tmp/", str(folder))):
                parent.chmod(parent.stat().st_mode | 0o055)
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _wait_for(port, process)
        yield f"postgresql://{url.username or 'postgres'}@127.0.0.1:{port}/{url.database}"
    finally:
        process.kill()
        process.communicate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"pgbouncer ended: {process.stderr.read().decode()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
    pytest.fail("pgbouncer does not answer")


class Proxy:
    """Passes bytes on between clients and a PostgreSQL server, until it cuts them off."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._target_port = host, port
        self._passing: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self.silent = False
        """Whether what comes is swallowed, and nothing closed: as a dead network does."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = f"{self._host}/.s.PGSQL.{self._target_port}"
        if self._host.startswith("/"):
            there, back = await asyncio.open_unix_connection(path)
        else:
            there, back = await asyncio.open_connection(self._host, self._target_port)
        self._ends |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not self.silent:
                    sink.write(data)
                    await sink.drain()
            sink.close()

    def cut(self) -> None:
        """Reset every connection at once."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()


@contextlib.asynccontextmanager
async def proxied(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy, and the URL of the same database through it."""
    url = make_url(database_url)
    proxy = Proxy(host_of(url), url.port or 5432)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    name = url.username or "postgres"
    secret = f":{url.password}" if url.password else ""
    try:
        yield proxy, f"postgresql://{name}{secret}@127.0.0.1:{proxy.port}/{url.database}"
    finally:
        server.close()
        proxy.cut()
        await asyncio.gather(*proxy._passing, return_exceptions=True)
