"""Every command, option and variable that the documents show is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from batchbell import failpoints
from batchbell.cli.app import app
from batchbell.providers.profiles import PROFILES
from batchbell.settings import CONFIG_VARIABLE, settings_table

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(batchbell [^`\n]+)`")
SHELLS = frozenset({"sh", "bash", "shell", "console", ""})
OPERATORS = frozenset({"|", "||", "&&", "&", ";", ">", "2>", "<"})
VARIABLE = re.compile(r"\b(?:BATCHBELL|OPENAI|DATABASE)_[A-Z][A-Z_]*\b")
ASSIGNED = re.compile(r"(?:^|\bexport |\bENV )\s*([A-Z][A-Z_]+)=", re.MULTILINE)

NOT_SETTINGS = {
    CONFIG_VARIABLE: "names the file with the settings",
    failpoints.VARIABLE: "for tests only",
    "TEST_DATABASE_URL": "the test suite's own server",
    "POSTGRES_PASSWORD": "compose.yaml",
    "BATCHBELL_SERVICE_": "Kubernetes",
    "BATCHBELL_PORT": "Kubernetes",
}
"""Variables of the documents that are no settings, and whose they are."""


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: str) -> Iterator[str]:
    """The shell in a page, each command on one line."""
    for language, block in FENCED.findall(page):
        if language in SHELLS:
            yield block.replace("\\\n", " ")


def commands(page: str) -> Iterator[list[str]]:
    """What stands after `batchbell` wherever it is run, in a block or in the text."""
    lines = [line for block in blocks(page) for line in block.splitlines()]
    for line in [*lines, *SPAN.findall(FENCED.sub("", page))]:
        try:
            tokens = shlex.split(line, comments=True)
        except ValueError:
            continue
        for part in parts(tokens):
            if "batchbell" not in part:
                continue
            words = part[len(part) - part[::-1].index("batchbell") :]
            if words and (part[0] != "docker" or re.fullmatch("[a-z]+", words[0])):
                yield words


def parts(tokens: list[str]) -> Iterator[list[str]]:
    """The commands of a line, cut at what joins them."""
    part: list[str] = []
    for token in tokens:
        if token in OPERATORS:
            yield part
            part = []
        else:
            part.append(token)
    yield part


built = cache(typer.main.get_command)


def unknown(words: list[str]) -> str | None:
    """What the command line does not have; None where all is well."""
    here: Any = built(app)
    options = set(_options(here))
    for word in words:
        if word.startswith("-") and word != "-":
            if word.partition("=")[0] not in options:
                return f"{' '.join(words)}: no option {word}"
        elif hasattr(here, "commands"):
            if word not in here.commands:
                return f"{' '.join(words)}: no command {word}"
            here = here.commands[word]
            options |= set(_options(here))
    return None


def _options(command: Any) -> Iterator[str]:
    yield "--help"
    for parameter in command.params:
        yield from parameter.opts
        yield from parameter.secondary_opts


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_each_command_that_is_shown_is_there(path: Path) -> None:
    shown = commands(path.read_text(encoding="utf-8"))
    assert [why for words in shown if (why := unknown(words))] == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_each_variable_that_is_named_is_a_setting(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assigned = {name for block in blocks(page) for name in ASSIGNED.findall(block)}
    named = set(VARIABLE.findall(page)) | assigned
    known = {row.variable for row in settings_table()} | set(NOT_SETTINGS)
    for profile in PROFILES.values():
        known |= {*profile.key_variables, str(profile.base_url_variable)}
        if profile.hooks is not None:
            known.add(profile.hooks.secret_variable)
    assert named - known == set()


def test_what_is_not_there_is_found() -> None:
    block = "```sh\nX=1 batchbell no-such --x && batchbell serve --no-such\n```\n"
    page = block + "`batchbell nothing`\n"
    whys = [unknown(words) for words in commands(page)]
    assert whys == [
        "no-such --x: no command no-such",
        "serve --no-such: no option --no-such",
        "nothing: no command nothing",
    ]
