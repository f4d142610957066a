"""The commands and options in the reference are those of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from batchbell.cli.app import app
from batchbell.cli.errors import Code

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
HEAD = ["| | |", "|---|---|"]
SHARED = ("--json", "--server", "--api-key")


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            yield from commands(inner, f"{name} {word}")
    else:
        yield name, command


COMMANDS = dict(commands(typer.main.get_command(app), "batchbell"))


def section(heading: str) -> list[str]:
    """The lines under a heading, up to the next."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found, f"no heading {heading!r} in {PAGE.name}"
    return found[1].splitlines()


def rows(command: Any) -> Iterator[str]:
    """The table of a command as the page shows it."""
    for parameter in command.params:
        if parameter.opts[0] in SHARED and parameter.help == shared()[parameter.opts[0]]:
            continue
        yield row(parameter)


def row(parameter: Any) -> str:
    word = parameter.opts[0] if parameter.param_type_name == "option" else ""
    name = f"{word} {parameter.metavar or ''}".strip()
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    told = f" Default: `{default}`." if plain else ""
    needed = " Required." if word and parameter.required else ""
    return f"| `{name}` | {parameter.help}{needed}{told} |"


def shared() -> dict[str, str]:
    """The options that many commands have, and what they mean there."""
    return {
        parameter.opts[0]: parameter.help
        for parameter in COMMANDS["batchbell list"].params
        if parameter.opts[0] in SHARED
    }


def table(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("|")]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there_with_its_options(name: str) -> None:
    """To mend the page, put in what this test expects."""
    expected = list(rows(COMMANDS[name]))
    assert table(section(f"`{name}`")) == ([*HEAD, *expected] if expected else [])


def test_nothing_else_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## `(.*)`$", page, re.M) == list(COMMANDS)


def test_the_shared_options_are_there_once() -> None:
    parameters = COMMANDS["batchbell list"].params
    expected = [row(one) for one in parameters if one.opts[0] in SHARED]
    assert table(section("Options of many commands")) == [*HEAD, *expected]


def test_each_command_says_which_of_the_shared_options_it_has() -> None:
    for name, command in COMMANDS.items():
        has = [
            one.opts[0]
            for one in command.params
            if one.opts[0] in SHARED and one.help == shared()[one.opts[0]]
        ]
        line = "Also: " + ", ".join(f"`{option}`" for option in has) + "." if has else None
        also = [line for line in section(f"`{name}`") if line.startswith("Also: ")]
        assert also == ([line] if line else []), name


def test_each_exit_code_is_there() -> None:
    written = table(section("Exit codes"))[2:]
    assert [int(line.split("|")[1]) for line in written] == [int(code) for code in Code]
