"""Tables of results, read back by others: pyarrow's Parquet reader, and Python's csv."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from batchbell.files.lines import Fate, answer
from batchbell.files.rows import Row
from batchbell.files.tables import PORTION_LINES, Format, tabulate

from .making import strange_lines

TEXT_MAX = 2**31 - 1
WITH_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def made(folder: Path, lines: Sequence[bytes], format: Format, fate: Fate | None = None) -> Path:
    source, target = folder / "lines", folder / f"table.{format}"
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    tabulate(source, target, format=format, fate=fate)
    return target


def from_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def from_csv(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(TEXT_MAX)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def good(name: str, text: str) -> bytes:
    body = {"model": "m", "choices": [{"message": {"content": text}}]}
    line = {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}
    return json.dumps(line).encode()


def bad(name: str) -> bytes:
    error = {"code": "batch_expired", "message": "Too late."}
    return json.dumps({"custom_id": name, "response": None, "error": error}).encode()


STRANGE = ['"quoted", and', "a\r\nb\nc\rd", "\0", "=1+1", "@x", "-2", "", "é😀", " , "]


@pytest.mark.parametrize("format", [Format.PARQUET, Format.CSV])
async def test_every_text_comes_back_as_it_was(tmp_path: Path, format: Format) -> None:
    lines = [good(f"r{n}{text}", text) for n, text in enumerate(STRANGE)]
    path = made(tmp_path, lines, format)
    rows = from_parquet(path) if format is Format.PARQUET else from_csv(path)
    assert [row["content"] for row in rows] == STRANGE
    assert [row["custom_id"] for row in rows] == [f"r{n}{text}" for n, text in enumerate(STRANGE)]


async def test_what_is_not_unicode_is_replaced(tmp_path: Path) -> None:
    broken = good("b", "xx").replace(b"xx", b"\xff")
    lines = [good("a\ud83d", "cut \ud83d"), broken]
    for rows in (
        from_parquet(made(tmp_path, lines, Format.PARQUET)),
        from_csv(made(tmp_path, lines, Format.CSV)),
    ):
        assert [row["custom_id"] for row in rows] == ["a\ufffd", "b"]
        assert [row["content"] for row in rows] == ["cut \ufffd", "\ufffd"]


@pytest.mark.parametrize("lines", [[], [bad("a")], [good("a", "x"), bad("b")]])
async def test_the_columns_and_their_types_do_not_depend_on_the_lines(
    tmp_path: Path, lines: list[bytes]
) -> None:
    schema = parquet.read_schema(made(tmp_path, lines, Format.PARQUET))
    assert tuple(schema.names) == Row._fields
    types = {name: str(schema.field(name).type) for name in schema.names}
    assert {name for name, type_ in types.items() if type_ == "int64"} == {
        "status_code",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
    }
    assert set(types.values()) == {"int64", "string"}
    head = made(tmp_path, lines, Format.CSV).read_text("utf-8").splitlines()[0]
    assert head == ",".join(f'"{name}"' for name in Row._fields)


async def test_csv_tells_nothing_from_an_empty_text(tmp_path: Path) -> None:
    path = made(tmp_path, [good("a", ""), bad("b")], Format.CSV)
    assert '"a","succeeded",200,"m","",,' in path.read_text("utf-8")
    assert '"b","not_run",,,,,"batch_expired","Too late.",' in path.read_text("utf-8")


@pytest.mark.parametrize("format", [Format.PARQUET, Format.CSV])
def test_the_same_lines_make_the_same_file(tmp_path: Path, format: Format) -> None:
    """A download that is gone on with may be served from another copy."""
    lines = [good(f"r{n}", "x" * 50) for n in range(PORTION_LINES + 10)]
    first = made(tmp_path, lines, format).read_bytes()
    assert made(tmp_path, lines, format).read_bytes() == first
    if format is Format.PARQUET:
        assert parquet.ParquetFile(io.BytesIO(first)).num_row_groups == 2


async def test_one_fate_can_be_chosen(tmp_path: Path) -> None:
    lines = [good("a", "x"), bad("b"), good("c", "y"), bad("d")]
    rows = from_parquet(made(tmp_path, lines, Format.PARQUET, Fate.NOT_RUN))
    assert [row["custom_id"] for row in rows] == ["b", "d"]
    assert from_csv(made(tmp_path, lines[:1], Format.CSV, Fate.FAILED)) == []


def test_a_table_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(bad("a"))
    for format in (Format.PARQUET, Format.CSV):
        target = tmp_path / "nowhere" / "table"
        with pytest.raises(OSError, match="nowhere"):
            tabulate(tmp_path / "lines", target, format=format, fate=None)


@WITH_FOLDER
@given(lines=st.lists(strange_lines(), max_size=4))
async def test_whatever_lines_there_are_there_are_as_many_rows(
    tmp_path: Path, lines: list[bytes]
) -> None:
    found = [answer(line) for line in lines]
    expected = [
        (one.custom_id.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), one.fate)
        for one in found
        if one is not None
    ]
    assert len(expected) == len(lines)
    of_parquet = from_parquet(made(tmp_path, lines, Format.PARQUET))
    of_csv = from_csv(made(tmp_path, lines, Format.CSV))
    for rows in (of_parquet, of_csv):
        assert [(row["custom_id"], row["status"]) for row in rows] == expected
    assert [
        {name: "" if cell is None else str(cell) for name, cell in row.items()}
        for row in of_parquet
    ] == of_csv


def test_nobody_pays_for_tables_who_does_not_ask_for_one() -> None:
    """Neither memory nor time to start: the library is imported with the first table."""
    program = (
        "import sys, batchbell.cli.app, batchbell.runtime, batchbell.client;"
        "sys.exit('pyarrow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
