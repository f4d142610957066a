"""Child processes, for work that would take the interpreter from the event loop for long.

`Children.run` has a function done in one and waits for it: call it in a thread. What is sent is the
name of the function and plain data, by a pipe; what comes back is its answer or its error. A child
gets no secret: its environment holds only what an interpreter needs, and nothing is open in it but
its pipes. It opens no database and calls nobody. It is nice to the server's other work, and the
first to be killed where memory runs out.

A child ends when its server does, however that dies: its pipe closes. One that has had nothing to
do for a while is ended, as most of its memory is only given back so.

This module is also the program of a child, so it imports little.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import IO, Any, NoReturn, ParamSpec, TypeVar

from batchbell import failpoints
from batchbell.core.errors import ChildDied

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 10.0
"""A child costs some 20 MB, and a fifth of a second to be started again."""
NICENESS = 10
OOM_SCORE = "500"
"""Of -1000 to 1000, added to what Linux finds by itself: a server keeps its 0."""
END_SECONDS = 5.0
PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", failpoints.VARIABLE),
    }
)
"""Of the environment, with all that begins with PYTHON."""


class Children:
    """Those of this process: as many as there are calls of `run` at once."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._all: set[_Child] = set()
        self._idle: list[tuple[float, _Child]] = []
        """With the time since when; the one that worked last comes last, and is taken first."""
        self._timer: threading.Timer | None = None
        atexit.register(self.end)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns in a child; raises what it raises there.

        `work` stands in a module by its name. Raises ChildDied where the child died of it, or was
        ended by `end`.
        """
        order = pickle.dumps((work, args, kwargs))
        child = self._take()
        try:
            said = child.ask(order)
        except BaseException:
            self._bury(child)
            raise
        self._put_back(child)
        is_good, answer = pickle.loads(said)  # noqa: S301 - our own child's
        if is_good:
            return answer  # type: ignore[no-any-return]
        raise answer

    def end(self) -> None:
        """End all children: work that is under way in one fails with ChildDied."""
        with self._lock:
            for child in self._all:
                child.kill()
            resting, self._idle = self._idle, []
        for _, child in resting:
            self._bury(child)

    @property
    def pids(self) -> list[int]:
        """Those of the children that live."""
        with self._lock:
            return [child.pid for child in self._all]

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                _, child = self._idle.pop()
                if child.lives:
                    return child
                child.end()
                self._all.discard(child)
        child = _Child()
        with self._lock:
            self._all.add(child)
        return child

    def _put_back(self, child: _Child) -> None:
        with self._lock:
            self._idle.append((time.monotonic(), child))
            if self._timer is None:
                self._look_after(self._idle_seconds)

    def _look_after(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._end_idle)
        self._timer.daemon = True
        self._timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            self._timer = None
            before = time.monotonic() - self._idle_seconds
            old = [child for since, child in self._idle if since <= before]
            self._idle = [(since, child) for since, child in self._idle if since > before]
            if self._idle:
                self._look_after(self._idle[0][0] - before)
        for child in old:
            self._bury(child)

    def _bury(self, child: _Child) -> None:
        child.end()
        with self._lock:
            self._all.discard(child)


class _Child:
    """One of them, and its pipes. It does one thing at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(os.environ),
            **_apart(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, order: bytes) -> bytes:
        """What it says to an order. Raises ChildDied."""
        try:
            pickle.dump(order, self._orders)
            self._orders.flush()
            said: bytes = pickle.load(self._answers)  # noqa: S301 - our own child's
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise ChildDied(f"The child process that did this died {self._how()}.") from error
        return said

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """It ends by itself once its pipe is closed."""
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _how(self) -> str:
        """What it died of, in words."""
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return "without a word"
        if code >= 0:
            return f"with exit code {code}"
        return "of signal 9, perhaps for want of memory" if code == -9 else f"of signal {-code}"


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in ours.items() if k in PASSED_ON or k.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _apart() -> dict[str, Any]:
    """What signals our process group is for us: we say when a child ends."""
    if sys.platform == "win32":
        lower = subprocess.BELOW_NORMAL_PRIORITY_CLASS
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | lower}
    return {"process_group": 0}


def main() -> NoReturn:
    """Do what comes by standard input, one after the other, until that closes."""
    orders: SimpleQueue[bytes] = SimpleQueue()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what somebody prints is no answer
    _stand_back()
    threading.Thread(target=_hear, args=(sys.stdin.buffer, orders), daemon=True).start()
    while True:
        pickle.dump(_answer(orders.get()), answers)
        answers.flush()


def _stand_back() -> None:
    """Behind the server, which also says when we end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        os.nice(NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_SCORE)


def _hear(inbound: IO[bytes], orders: SimpleQueue[bytes]) -> None:
    """A thread of its own notices the end of the server also while something is being done."""
    try:
        while True:
            orders.put(pickle.load(inbound))  # noqa: S301 - our own server's
    finally:
        os._exit(0)


def _answer(order: bytes) -> bytes:
    """True and what the work returned, or False and what it raised."""
    try:
        work, args, kwargs = pickle.loads(order)  # noqa: S301 - our own server's
        failpoints.reach(failpoints.IN_CHILD)
        return pickle.dumps((True, work(*args, **kwargs)))
    except Exception as error:
        trace = "".join(traceback.format_exception(error)).rstrip()
        return _failed(error, f"In a child process:\n{trace}")


def _failed(error: Exception, note: str) -> bytes:
    """An error that does not come through the pipe as itself comes as its words."""
    error.add_note(note)
    try:
        said = pickle.dumps((False, error))
        pickle.loads(said)  # noqa: S301 - written in the line above
    except Exception:
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.add_note(note)
        return pickle.dumps((False, other))
    return said


if __name__ == "__main__":
    main()
