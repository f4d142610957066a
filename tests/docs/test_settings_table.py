"""The settings in the reference are the settings in the code."""

from __future__ import annotations

from pathlib import Path

from batchbell.settings import Row, settings_table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEAD = ["| variable | in the file | default | what it does |", "|---|---|---|---|"]


def written(row: Row) -> str:
    """The row as the page shows it."""
    default = row.default.removesuffix(".0")
    default = default.lower() if default in ("True", "False") else default
    shown = f"`{default}`" if default else ""
    return f"| `{row.variable}` | `{row.toml}` | {shown} | {row.description} |"


def test_the_table_of_settings_is_complete_and_equal() -> None:
    """To mend the page, put in what this test expects."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(HEAD[0])
    table = [line for line in lines[start:] if line.startswith("|")]
    assert table == [*HEAD, *map(written, settings_table())]
