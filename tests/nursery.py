"""Forks Batchbell processes: it has imported all of it already, which takes a second each time.

A program of its own, with no thread, no event loop and no database open: what it forks shares
nothing with it but what was read from files, and dies as any other process does. Each order comes
on a connection of its own, and all that is heard of that process goes the same way: its pid, and
at the end its exit code. A number that we say there is sent to it as a signal.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import uvicorn.protocols.http.httptools_impl  # noqa: F401 - imported late, as it serves

import batchbell.cli.app
import batchbell.cli.checks
import batchbell.cli.walkthrough
import batchbell.client
import batchbell.runtime  # noqa: F401 - what takes the second
from batchbell import failpoints
from batchbell.process import calm_collector

LOG = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, eq=False)
class Child:
    """A process, until its end was told."""

    pid: int
    connection: socket.socket
    end: int
    """A pipe that only the process holds at its other end: it closes as the process dies."""


class Nursery:
    """See the module. It lives as long as its standard input, and its children no longer."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._children: set[Child] = set()

    def run(self) -> None:
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    self._kill_all()
                    return
                if key.fileobj is self._listener:
                    self._fork()
                elif key.data in self._children:
                    self._attend(key.data, ended=key.fd == key.data.end)

    def _fork(self) -> None:
        connection, _ = self._listener.accept()
        with connection.makefile("rb") as lines:
            order = json.loads(lines.readline())
        assert threading.active_count() == 1, "what another thread locks stays locked in a fork"
        end, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._let_go(connection, end)
            become(**order)
        os.close(held)
        child = Child(pid, connection, end)
        self._children.add(child)
        for source in (connection, end):
            self._selector.register(source, selectors.EVENT_READ, child)
        tell(connection, pid)

    def _let_go(self, connection: socket.socket, end: int) -> None:
        self._selector.close()
        for held in (self._listener, connection, *(child.connection for child in self._children)):
            held.close()
        for pipe in (end, *(child.end for child in self._children)):
            os.close(pipe)

    def _attend(self, child: Child, *, ended: bool) -> None:
        """Nobody else can have its pid before it is buried."""
        if not ended:
            said = hear(child.connection)
            for number in said.split() or [b"%d" % signal.SIGKILL]:
                os.kill(child.pid, int(number))
            ended = not said
        if ended:
            self._bury(child)

    def _bury(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._children.discard(child)
        for source in (child.connection, child.end):
            self._selector.unregister(source)
        tell(child.connection, os.waitstatus_to_exitcode(status))
        child.connection.close()
        os.close(child.end)

    def _kill_all(self) -> None:
        for child in self._children:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def hear(connection: socket.socket) -> bytes:
    """What was said; nothing once whoever gave the order is gone."""
    try:
        return connection.recv(100)
    except ConnectionError:
        return b""


def tell(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"%d\n" % number)


def become(
    *,
    program: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    streams: Sequence[str],
) -> NoReturn:
    """Go on as `python -c program` would have begun, on other standard streams."""
    redirect(streams)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[1:] = arguments
    tempfile.tempdir = None
    importlib.reload(failpoints)
    code = 1
    try:
        exec(program, {"__name__": "__main__"})  # what `python -c` does
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BrokenPipeError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        os._exit(code)


def redirect(streams: Sequence[str]) -> None:
    """Let the standard streams be these files. Two may be one."""
    opened: dict[str, int] = {}
    for standard, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, LOG, LOG), strict=True)):
        if path not in opened:
            opened[path] = os.open(path, flags, 0o600)
        os.dup2(opened[path], standard)
    for number in opened.values():
        os.close(number)


if __name__ == "__main__":
    calm_collector()  # or each that is forked goes through all of this again, and copies it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests are interrupted, and end us
    Nursery(socket.socket(fileno=int(sys.argv[1]))).run()
