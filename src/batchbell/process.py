"""What a process of ours asks of its interpreter and its operating system."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys

SWITCH_SECONDS = 0.0005


def calm_collector() -> None:
    """Let the garbage collector leave alone what lives for ever, and look at the rest more rarely.

    With its defaults it goes through every imported module again and again under load: a third
    of a dispatcher's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def share_interpreter() -> None:
    """Let a thread that wants the interpreter have it soon.

    The event loop gives it up with every socket that it reads or writes. With the default of 5 ms
    each of them would wait so long while another thread writes to the database.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def raise_file_limit() -> None:
    """A connection is a file; many systems allow 1,024 unless asked for more. Not on Windows."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def stopped_by_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":  # its loops take no handlers
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
        else:
            loop.add_signal_handler(number, stopped.set)
    return stopped
