"""Writing results as a table, in portions: memory holds one of them, whatever the size.

`pyarrow` is wanted here only, and imported when a table is made: it is an extra, and takes 70 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from batchbell.core.results import Results
from batchbell.files.lines import PIECE_BYTES, Fate, whole
from batchbell.files.rows import Row, row

PORTION_BYTES = 2 * 2**20
PORTION_LINES = 5_000
"""A portion is a row group of Parquet."""
NUMBERS = frozenset(
    {"status_code", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"}
)
REPEATED = ["status", "model", "finish_reason", "error_code", "error_message"]
"""Columns of few values, written as a dictionary."""


def is_installed() -> bool:
    """Whether tables can be made here."""
    return find_spec("pyarrow") is not None


def tabulate(source: Path, target: Path, *, format: Format, fate: Fate | None) -> None:
    """Write lines, or those of one fate, as a table; call it in a child.

    The same lines make the same table. Raises OSError.
    """
    table = _Table(target, format, fate)
    try:
        with source.open("rb", PIECE_BYTES) as file:
            for portion in _portions(file):
                table.write(portion)
    finally:
        table.close()


def _portions(file: IO[bytes]) -> Iterator[Sequence[bytes]]:
    portion: list[bytes] = []
    size = 0
    for line in file:
        portion.append(line.removesuffix(b"\n"))
        size += len(line)
        if size >= PORTION_BYTES or len(portion) >= PORTION_LINES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


class _Table:
    """A file that rows are written to."""

    def __init__(self, target: Path, format: Format, fate: Fate | None) -> None:
        import pyarrow as arrow

        types = (
            (name, arrow.int64() if name in NUMBERS else arrow.string()) for name in Row._fields
        )
        self._fate = fate
        self._schema = arrow.schema(types)
        self._file = _open(target, format, self._schema)

    def write(self, lines: Sequence[bytes]) -> None:
        import pyarrow as arrow

        rows = [one for one in map(row, lines) if one is not None]
        if self._fate is not None:
            rows = [one for one in rows if one.status is self._fate]
        if rows:
            columns = zip(zip(*rows, strict=True), self._schema.types, strict=True)
            arrays = [_array(values, type_) for values, type_ in columns]
            self._file.write_batch(arrow.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def _open(target: Path, format: Format, schema: Any) -> Any:
    if format is Format.PARQUET:
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(target, schema, compression="zstd", use_dictionary=REPEATED)
    from pyarrow.csv import CSVWriter

    return CSVWriter(target, schema)


def _array(values: Sequence[Any], type_: Any) -> Any:
    import pyarrow as arrow

    try:
        return arrow.array(values, type_)
    except UnicodeEncodeError:
        return arrow.array([value and whole(value) for value in values], type_)


class Format(StrEnum):
    """The word is the ending of a file's name, too."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self]


MEDIA_TYPES = {
    Format.JSONL: "application/jsonl",
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.CSV: "text/csv",
}
TABLES = (Format.PARQUET, Format.CSV)


def table_of(found: Results, format: Format, fate: Fate | None) -> str:
    """What the table of all lines, or of those of one fate, is called in the results store."""
    lines = "" if fate is None else f".{fate}"
    return f"{found.name.removesuffix('.jsonl')}{lines}.{format}"


def files_of(found: Results) -> list[str]:
    """All that may be in the results store of these results: they come and go together."""
    fates = (None, *Fate)
    return [found.name, *(table_of(found, format, fate) for format in TABLES for fate in fates)]
