"""How a command ends: exit codes, and one plain line for each failure that was foreseen."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from batchbell.cli.options import one_url

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


SERVERS = frozenset({"serve", "worker"})
"""Commands whose operators need the traceback of what nobody foresaw."""


class Commands(TyperGroup):
    """A group whose commands end in a plain line instead of a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit. A wrong command is one line too, and names the nearest right word."""
        run = partial(
            super().main,
            prog_name=prog_name,
            complete_var=complete_var,
            standalone_mode=False,
            windows_expand_args=windows_expand_args,
            **extra,
        )
        given = sys.argv[1:] if args is None else args
        if not standalone_mode:
            return run(args=one_url(given))
        try:
            ended = run(args=one_url(given))
        except typer.Abort:
            complain("Stopped: nothing was done.")
            sys.exit(Code.FAILED)
        except typer.TyperException as error:
            _explain(error, self)
            sys.exit(getattr(error, "exit_code", Code.USAGE))
        sys.exit(ended if isinstance(ended, int) else Code.DONE)

    def invoke(self, ctx: Any) -> Any:
        with ending_plainly(raises=ctx.invoked_subcommand in SERVERS):
            return super().invoke(ctx)


@contextlib.contextmanager
def ending_plainly(*, raises: bool = False) -> Iterator[None]:
    """Turn what was raised into a line on standard error and an exit code.

    If `raises`, only what was raised on purpose: the rest goes on with its traceback.
    """
    from batchbell.core.errors import BatchbellError, is_full

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
    except (typer.TyperException, typer.Exit, typer.Abort, EOFError):
        raise
    except Exception as error:
        if raises and not is_full(error):
            raise
        complain(_unforeseen(error))
        raise typer.Exit(Code.FAILED) from None


def _unforeseen(error: Exception) -> str:
    """A file that cannot be used, or a bug."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}."
    places = traceback.extract_tb(error.__traceback__)
    where = f"{places[-1].filename}:{places[-1].lineno}" if places else "nowhere"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"This is a bug in Batchbell: {what} ({where}). Please report it with your command."


def _explain(error: typer.TyperException, root: Commands) -> None:
    """What is wrong with a command, in one line, and where to read on."""
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(ctx.get_help() if ctx else "", end="")
        return
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = nearest(" ".join(message.replace("Value error, ", "").split()), root)
    path = ctx.command_path if ctx else root.name
    end = "" if message.endswith((".", "?")) else "."
    complain(f"{message}{end} See `{path} --help`.")


NO_OPTION = re.compile(r"No such option: (\S+)(?: \(Possible options: (.*)\))?")
NO_CHOICE = re.compile(r"(.*'(?P<word>[^']*)' is not one of (?P<choices>'.*'))\.?")
NO_COMMAND = re.compile(r"No such command '([^']*)'\..*")


def nearest(message: str, root: Commands) -> str:
    """The message, with the right word where one is near."""
    if found := NO_OPTION.fullmatch(message):
        hint = f". Did you mean {found[2]}?" if found[2] else ""
        return f"No such option {found[1]}{hint}"
    if found := NO_CHOICE.fullmatch(message):
        near = difflib.get_close_matches(found["word"], re.findall(r"'([^']*)'", found["choices"]))
        return f"{found[1]}. Did you mean {near[0]!r}?" if near else message
    if found := NO_COMMAND.fullmatch(message):
        inner = [
            f"`{root.name} {name} {found[1]}`"
            for name, group in root.commands.items()
            if found[1] in getattr(group, "commands", ())
        ]
        return (
            f"No such command {found[1]!r}. Did you mean {', '.join(inner)}?" if inner else message
        )
    return message


def complain(message: str) -> None:
    """One line on standard error, a sentence."""
    end = "" if message.endswith((".", "?", "!", ":")) else "."
    print(f"batchbell: error: {message}{end}", file=sys.stderr)


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
