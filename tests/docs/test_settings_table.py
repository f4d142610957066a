"""The settings in the reference are the settings in the code."""

from __future__ import annotations

import itertools
from pathlib import Path

from batchbell.declared import accounts_table
from batchbell.providers.profiles import PROFILES
from batchbell.settings import Row, settings_table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEAD = "| variable | in the file | default | what it does |"


def written(row: Row) -> str:
    """The row as the page shows it."""
    default = row.default.removesuffix(".0")
    default = default.lower() if default in ("True", "False") else default
    shown = f"`{default}`" if default else ""
    return f"| `{row.variable}` | `{row.toml}` | {shown} | {row.description} |"


def test_the_table_of_settings_is_complete_and_equal() -> None:
    """To mend the page, put in what this test expects."""
    assert table(HEAD) == [*map(written, settings_table())]


def test_the_variables_of_every_provider_are_listed() -> None:
    rows = [
        row(
            [
                f"`{one.name}`",
                ", else ".join(f"`{name}`" for name in one.key_variables),
                *_shown(one.base_url_variable, one.base_url),
            ]
        )
        for one in PROFILES.values()
    ]
    assert table("| provider | API key | base URL | default |") == rows


def test_the_table_of_accounts_is_complete_and_equal() -> None:
    rows = [row([*_shown(one.name, one.default), one.description]) for one in accounts_table()]
    assert table("| in the table | default | what it does |") == rows


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(head: str) -> list[str]:
    """The rows under a head, up to the first line that is none."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begun = lines[lines.index(head) + 2 :]
    return list(itertools.takewhile(lambda line: line.startswith("|"), begun))


def _shown(*values: str | None) -> list[str]:
    return [f"`{value}`" if value else "" for value in values]
