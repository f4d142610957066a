"""How a command ends: exit codes, and one plain line for each failure that was foreseen."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from batchbell.core.errors import BatchbellError


class Code(IntEnum):
    """Exit codes. Listed in docs/reference/cli.md."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NONE = 4
    TIMED_OUT = 124
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


class Commands(TyperGroup):
    """A group whose commands end in a plain line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        with ending_plainly():
            return super().invoke(ctx)


@contextlib.contextmanager
def ending_plainly() -> Iterator[None]:
    """Turn what was raised on purpose into a line on standard error and an exit code."""
    from batchbell.core.errors import BatchbellError

    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        raise typer.Exit(Code.PIPE_CLOSED) from None
    except KeyboardInterrupt:
        raise typer.Exit(Code.INTERRUPTED) from None
    except BatchbellError as error:
        complain(said(error))
        raise typer.Exit(code_of(error)) from None


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"batchbell: error: {message}", file=sys.stderr)


def code_of(error: BatchbellError) -> Code:
    """Whether the caller asked for something wrong, or something went wrong."""
    from batchbell.core.errors import InvalidRequest, SettingsError

    return Code.USAGE if isinstance(error, SettingsError | InvalidRequest) else Code.FAILED


def said(error: BatchbellError) -> str:
    """The error in one line, and what to do where the error itself cannot know."""
    message = " ".join(str(error).split())
    if getattr(error, "status", None) == 401:
        return f"{message} Set BATCHBELL_API_KEY, or pass --api-key."
    return message


def _silence_stdout() -> None:
    """Whoever read our output has gone: the interpreter's last flush must not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
